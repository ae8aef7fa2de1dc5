// SPDX-License-Identifier: GPL-2.0-only

//! The kinds of variable: what mysqld is told of one, where mysqld writes its value, and what the
//! clone logic gets.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::super::writable::Writable;
use crate::server::abi;

/// A kind of variable.
pub(super) trait Kind {
    /// What mysqld writes the value to.
    type Value;
    /// What mysqld is told of the variable.
    type Description;
}

/// A number of 32 bits without a sign: its default, its range and its step.
pub(super) struct Number {
    pub(super) default: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) step: u32,
}

/// ON or OFF.
pub(super) struct Boolean {
    pub(super) default: bool,
}

/// ON or OFF, in each session.
pub(super) struct SessionBoolean {
    pub(super) default: bool,
}

/// One of several names, of which the first is the default.
pub(super) struct Choice {
    pub(super) names: &'static Writable<abi::TYPELIB>,
}

/// A text, NULL by default, and the function that checks a value.
pub(super) struct Text {
    pub(super) check: abi::mysql_var_check_func,
}

impl Kind for Number {
    type Value = AtomicU32;
    type Description = abi::sysvar_uint;
}

impl Kind for Boolean {
    type Value = AtomicBool;
    type Description = abi::sysvar_bool;
}

/// mysqld has the values.
impl Kind for SessionBoolean {
    type Value = ();
    type Description = abi::thdvar_bool;
}

impl Kind for Choice {
    type Value = AtomicU64;
    type Description = abi::sysvar_enum;
}

impl Kind for Text {
    type Value = AtomicPtr<c_char>;
    type Description = abi::sysvar_str;
}

impl Number {
    pub(super) const fn value(&self) -> AtomicU32 {
        AtomicU32::new(self.default)
    }

    pub(super) const fn description(
        self,
        name: &'static CStr,
        comment: &'static CStr,
        value: &'static AtomicU32,
    ) -> Writable<abi::sysvar_uint> {
        let flags = abi::PLUGIN_VAR_INT | abi::PLUGIN_VAR_UNSIGNED | abi::PLUGIN_VAR_RQCMDARG;
        Writable::new(abi::sysvar_uint {
            header: header(flags, name, comment, None),
            value: value.as_ptr(),
            def_val: self.default,
            min_val: self.min,
            max_val: self.max,
            blk_sz: self.step,
        })
    }
}

impl Boolean {
    pub(super) const fn value(&self) -> AtomicBool {
        AtomicBool::new(self.default)
    }

    pub(super) const fn description(
        self,
        name: &'static CStr,
        comment: &'static CStr,
        value: &'static AtomicBool,
    ) -> Writable<abi::sysvar_bool> {
        let flags = abi::PLUGIN_VAR_BOOL | abi::PLUGIN_VAR_NOCMDARG;
        Writable::new(abi::sysvar_bool {
            header: header(flags, name, comment, None),
            value: value.as_ptr(),
            def_val: self.default,
        })
    }
}

impl SessionBoolean {
    pub(super) const fn value(&self) {}

    pub(super) const fn description(
        self,
        name: &'static CStr,
        comment: &'static CStr,
        _: &'static (),
    ) -> Writable<abi::thdvar_bool> {
        let flags = abi::PLUGIN_VAR_BOOL | abi::PLUGIN_VAR_THDLOCAL | abi::PLUGIN_VAR_NOCMDARG;
        Writable::new(abi::thdvar_bool {
            header: header(flags, name, comment, None),
            offset: -1,
            def_val: self.default,
            resolve: None,
        })
    }
}

impl Choice {
    pub(super) const fn value(&self) -> AtomicU64 {
        AtomicU64::new(0)
    }

    pub(super) const fn description(
        self,
        name: &'static CStr,
        comment: &'static CStr,
        value: &'static AtomicU64,
    ) -> Writable<abi::sysvar_enum> {
        let flags = abi::PLUGIN_VAR_ENUM | abi::PLUGIN_VAR_RQCMDARG;
        Writable::new(abi::sysvar_enum {
            header: header(flags, name, comment, None),
            value: value.as_ptr(),
            def_val: 0,
            typelib: self.names.as_ptr(),
        })
    }
}

impl Text {
    pub(super) const fn value(&self) -> AtomicPtr<c_char> {
        AtomicPtr::new(null_mut())
    }

    pub(super) const fn description(
        self,
        name: &'static CStr,
        comment: &'static CStr,
        value: &'static AtomicPtr<c_char>,
    ) -> Writable<abi::sysvar_str> {
        let flags = abi::PLUGIN_VAR_STR | abi::PLUGIN_VAR_OPCMDARG | abi::PLUGIN_VAR_MEMALLOC;
        Writable::new(abi::sysvar_str {
            header: header(flags, name, comment, self.check),
            value: value.as_ptr(),
            def_val: null_mut(),
        })
    }
}

const fn header(
    flags: c_int,
    name: &'static CStr,
    comment: &'static CStr,
    check: abi::mysql_var_check_func,
) -> abi::SYS_VAR {
    abi::SYS_VAR { flags, name: name.as_ptr(), comment: comment.as_ptr(), check, update: None }
}

pub(super) const fn c_str(terminated: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(terminated.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a NUL at the end, and nowhere else"),
    }
}

/// A field of `Settings`, as the variable of the same name gives it.
pub(super) trait Setting<V> {
    fn of(value: &V) -> Self;
}

impl Setting<AtomicU32> for u32 {
    fn of(value: &AtomicU32) -> Self {
        value.load(Ordering::Relaxed)
    }
}

impl Setting<AtomicU32> for u8 {
    fn of(value: &AtomicU32) -> Self {
        u8::try_from(value.load(Ordering::Relaxed)).unwrap_or(u8::MAX)
    }
}

impl Setting<AtomicBool> for bool {
    fn of(value: &AtomicBool) -> Self {
        value.load(Ordering::Relaxed)
    }
}
