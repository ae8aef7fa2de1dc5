// SPDX-License-Identifier: GPL-2.0-only

//! What C gives to the functions, checked and in Rust's terms.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;

use clone_core::engine::{Mode, TaskId};
use clone_core::error::{Error, Result};
use clone_engine::DynEngine;
use clone_protocol::MAX_LOCATOR_LEN;
use clone_rocksdb::Layout;

use super::caller::Caller;
use super::engines::ENGINES;
use crate::server::abi;
use crate::server::text::{path, text};

/// What a function is given that goes on with a clone.
pub(super) struct Call<'a> {
    pub(super) db_type: u32,
    pub(super) engine: Arc<DynEngine>,
    pub(super) caller: Caller,
    /// The clone's; empty for NULL.
    pub(super) locator: &'a [u8],
}

impl<'a> Call<'a> {
    /// # Safety
    /// Pointers are NULL or point to what they are called, which outlives the result; `thd` as
    /// [`Caller::new`] has it.
    pub(super) unsafe fn new(
        hton: *mut abi::handlerton,
        thd: *mut abi::THD,
        loc: *const u8,
        loc_len: c_uint,
    ) -> Result<Self> {
        // SAFETY: by the caller's promise.
        let (db_type, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let locator = unsafe { bytes(loc, loc_len) }?.unwrap_or_default();
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        Ok(Self { db_type, engine, caller, locator })
    }

    /// A task of the call's clone. C says nothing of other engines in the clone, so the engine's
    /// place is 0.
    pub(super) fn task(&self, number: u32) -> TaskId<'a> {
        TaskId { locator: self.locator, number, index: 0 }
    }
}

/// What `clone_begin` and `clone_apply_begin` are given.
pub(super) struct Begin<'a> {
    pub(super) locator: Option<&'a [u8]>,
    pub(super) mode: Mode,
}

impl Begin<'_> {
    /// # Safety
    /// Places are NULL or places; the locator lives through the call.
    pub(super) unsafe fn new(
        loc: *mut *const u8,
        loc_len: *mut c_uint,
        task_id: *mut c_uint,
        mode: c_uint,
    ) -> Result<Self> {
        let mode = match c_int::try_from(mode) {
            Ok(abi::HA_CLONE_MODE_START) => Mode::Start,
            Ok(abi::HA_CLONE_MODE_RESTART) => Mode::Restart,
            Ok(abi::HA_CLONE_MODE_ADD_TASK) => Mode::AddTask,
            Ok(abi::HA_CLONE_MODE_VERSION) => Mode::Version,
            _ => return Err(wrong("mode")),
        };
        if task_id.is_null() {
            return Err(wrong("task_id"));
        }
        // SAFETY: by the caller's promise.
        let Some(loc) = (unsafe { loc.as_ref() }) else { return Err(wrong("loc")) };
        // SAFETY: by the caller's promise.
        let Some(loc_len) = (unsafe { loc_len.as_ref() }) else { return Err(wrong("loc_len")) };
        // SAFETY: by the caller's promise.
        Ok(Self { locator: unsafe { bytes(*loc, *loc_len) }?, mode })
    }
}

/// Tells the caller what has begun.
///
/// # Safety
/// None of the places is NULL.
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about three places")]
pub(super) unsafe fn give(
    loc: *mut *const u8,
    loc_len: *mut c_uint,
    task_id: *mut c_uint,
    locator: *const [u8],
    task: u32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        loc.write(locator.cast());
        loc_len.write(c_uint::try_from(locator.len()).unwrap_or(c_uint::MAX));
        task_id.write(task);
    }
}

/// # Safety
/// `hton` is NULL or a handlerton.
pub(super) unsafe fn engine_of(hton: *mut abi::handlerton) -> Result<(u32, Arc<DynEngine>)> {
    // SAFETY: by the caller's promise.
    let Some(hton) = (unsafe { hton.as_ref() }) else { return Err(wrong("hton")) };
    let engine = ENGINES.engine(hton.db_type);
    Ok((hton.db_type, engine.ok_or_else(|| wrong("db_type of no engine"))?))
}

/// None for NULL.
///
/// # Safety
/// `data` is NULL or points to `len` bytes that outlive the result.
pub(super) unsafe fn bytes<'a>(data: *const u8, len: c_uint) -> Result<Option<&'a [u8]>> {
    if data.is_null() {
        return Ok(None);
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAX_LOCATOR_LEN {
        return Err(wrong("length"));
    }
    // SAFETY: by the caller's promise.
    Ok(Some(unsafe { std::slice::from_raw_parts(data, len) }))
}

/// # Safety
/// All of them are NULL or C strings that outlive the call.
pub(super) unsafe fn layout(
    root: *const c_char,
    prefix: *const c_char,
    required: *const c_char,
) -> Result<Layout> {
    // SAFETY: by the caller's promise.
    let root = unsafe { path(root) }.ok_or_else(|| wrong("root"))?;
    // SAFETY: by the caller's promise.
    let prefix = unsafe { text(prefix) }.and_then(|prefix| prefix.to_str().ok());
    let is_hidden_name =
        |prefix: &&str| prefix.len() > 1 && prefix.starts_with('.') && !prefix.contains('/');
    let prefix = prefix.filter(is_hidden_name).ok_or_else(|| wrong("prefix"))?;
    // SAFETY: by the caller's promise.
    let required = unsafe { text(required) };
    let required = required.map(|name| name.to_str().map(str::to_owned));
    let required = required.transpose().map_err(|_| wrong("required_file"))?;
    Ok(Layout::other(root, prefix, required))
}

/// An argument of a function of the header that cannot be right.
pub(super) fn wrong(what: &str) -> Error {
    Error::Internal(format!("Clone engine: wrong {what}"))
}

/// A negative number is an error all the same.
pub(super) fn error_number(in_err: c_int) -> u32 {
    u32::try_from(in_err).unwrap_or(clone_core::error::number::ER_INTERNAL_ERROR)
}
