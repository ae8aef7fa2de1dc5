// SPDX-License-Identifier: GPL-2.0-only

//! The keywords that MySQL's own tests switch on in debug servers. In a release server a query
//! costs one load from memory.

use std::ffi::CString;
use std::ptr;

use super::symbols::symbols;

/// Whether `SET DEBUG = '+d,<keyword>'` is in force for this thread, as `DBUG_EXECUTE_IF` asks
/// (`mysys/dbug.cc`).
pub(crate) fn debug_keyword(keyword: &str) -> bool {
    let Some(db_keyword) = symbols().and_then(|symbols| symbols.db_keyword) else { return false };
    let Ok(keyword) = CString::new(keyword) else { return false };
    // SAFETY: NULL for this thread's state, a terminated keyword, and strict: only keywords that
    // were named.
    unsafe { db_keyword(ptr::null_mut(), keyword.as_ptr(), 1) != 0 }
}
