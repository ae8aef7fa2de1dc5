// SPDX-License-Identifier: GPL-2.0-only

//! What mysqld's own tests switch on in debug servers. In release servers each call costs one load.

use std::ffi::CString;
use std::ptr;
use std::sync::atomic::Ordering;

use super::symbols::symbols;
use super::thd::Thd;

/// Whether `SET DEBUG = '+d,<keyword>'` is in force for this thread, as `DBUG_EXECUTE_IF` asks (`mysys/dbug.cc`).
pub(crate) fn debug_keyword(keyword: &str) -> bool {
    let Some(db_keyword) = symbols().and_then(|symbols| symbols.db_keyword) else { return false };
    let Ok(keyword) = CString::new(keyword) else { return false };
    // SAFETY: NULL for this thread's state, a terminated keyword, and strict: only keywords that were named.
    unsafe { db_keyword(ptr::null_mut(), keyword.as_ptr(), 1) != 0 }
}

/// A point that tests can hold `thd` at with `SET DEBUG_SYNC` (`sql/debug_sync.cc`).
pub(crate) fn debug_sync(thd: Thd, name: &str) {
    let Some(hook) = symbols().and_then(|symbols| symbols.debug_sync.as_ref()) else { return };
    if hook.opt_debug_sync_timeout.load(Ordering::Relaxed) != 0 {
        // SAFETY: the session of this thread, and a name with its length.
        unsafe { (hook.debug_sync)(thd.as_ptr(), name.as_ptr().cast(), name.len()) };
    }
}
