// SPDX-License-Identifier: GPL-2.0-only

//! What SET may assign to the variables that are lists.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null;

use clone_core::donor_list::{DonorList, FormatError};
use clone_core::error::Error;
use clone_core::excluded_plugins::ExcludedPlugins;

use crate::guard::guard;
use crate::mysqld::errors;
use crate::server::abi;
use crate::server::raise::{self, Raise};
use crate::server::value::value_text;

/// Checks a value for `clone_valid_donor_list`.
pub(super) unsafe extern "C" fn check_donor_list(
    thd: *mut abi::THD,
    _var: *mut abi::SYS_VAR,
    save: *mut c_void,
    value: *mut abi::st_mysql_value,
) -> c_int {
    let check = |list: &CStr| {
        if list.to_str().is_ok_and(|list| DonorList::parse(list).is_ok()) {
            return 0;
        }
        let error = Error::SystemConfig(FormatError.to_string());
        errors::raise(&error);
        error.number()
    };
    // SAFETY: mysqld calls a check function with the session of SET, with the address of a `char *`
    // as `save`, and with the value. All of them live until this function returns.
    unsafe { check_text(thd, save, value, check) }
}

/// Checks a value for `clone_exclude_plugins_list`.
pub(super) unsafe extern "C" fn check_excluded_plugins(
    thd: *mut abi::THD,
    _var: *mut abi::SYS_VAR,
    save: *mut c_void,
    value: *mut abi::st_mysql_value,
) -> c_int {
    let check = |list: &CStr| {
        let list = list.to_string_lossy();
        let needed = ExcludedPlugins::new(&list).needed().join(",");
        if needed.is_empty() {
            return 0;
        }
        raise::raise(Raise::WrongArguments(&format!(
            "Clone: The following plugins cannot be excluded: {needed}"
        )))
    };
    // SAFETY: mysqld calls a check function with the session of SET, with the address of a `char *`
    // as `save`, and with the value. All of them live until this function returns.
    unsafe { check_text(thd, save, value, check) }
}

/// Checks a text that SET assigns. `check` raises an error and returns its number, or returns 0.
/// What is stored at `save` is what SET assigns. NULL is always good.
///
/// # Safety
/// mysqld gave all of them to the check function of a string variable, which has not returned.
unsafe fn check_text(
    thd: *mut abi::THD,
    save: *mut c_void,
    value: *mut abi::st_mysql_value,
    check: impl FnOnce(&CStr) -> u32,
) -> c_int {
    let save: *mut *const c_char = save.cast();
    guard(|| {
        // SAFETY: for a string variable mysqld passes the address of a pointer
        // (sql/sql_plugin_var.cc).
        unsafe { *save = null() };
        // SAFETY: mysqld gives a session and a value that live through this call.
        let text = unsafe { value_text(thd, value) };
        if text.is_null() {
            return 0;
        }
        // SAFETY: `value_text` gives a C string in the session's memory.
        let error = check(unsafe { CStr::from_ptr(text) });
        if error == 0 {
            // SAFETY: as above.
            unsafe { *save = text };
        }
        c_int::try_from(error).unwrap_or(c_int::MAX)
    })
}
