// SPDX-License-Identifier: GPL-2.0-only

//! A session of mysqld.

use std::ptr::NonNull;

use super::abi;
use super::symbols::symbols;

/// A session. It belongs to the thread that mysqld runs it on, so it is not [`Send`].
///
/// Copies are addresses: whoever makes one from a pointer answers for it being used only while the session lives, which
/// for an entry point of the plugin is until it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thd(NonNull<abi::THD>);

impl Thd {
    /// The session at `thd`, `None` for NULL.
    ///
    /// # Safety
    /// `thd` is NULL or a session that is attached to this thread and outlives all use of the result and its copies.
    pub(crate) unsafe fn from_raw(thd: *mut abi::THD) -> Option<Self> {
        NonNull::new(thd).map(Self)
    }

    /// The session of this thread, if mysqld runs one on it.
    pub(crate) fn current() -> Option<Self> {
        let thd_get_current_thd = symbols()?.thd_get_current_thd;
        // SAFETY: reads a thread-local variable of mysqld.
        let thd = unsafe { thd_get_current_thd() };
        // SAFETY: it is this thread's; mysqld detaches it only in calls that this thread makes.
        unsafe { Self::from_raw(thd) }
    }

    /// Whether the statement or the connection was killed, or mysqld shuts down.
    pub(crate) fn is_killed(self) -> bool {
        let Some(symbols) = symbols() else { return false };
        // SAFETY: a living session, see `from_raw`.
        unsafe { (symbols.thd_killed)(self.as_ptr()) != 0 }
    }

    /// The connection's id, as in the process list.
    pub(crate) fn thread_id(self) -> u64 {
        let Some(symbols) = symbols() else { return 0 };
        // SAFETY: a living session, see `from_raw`.
        unsafe { (symbols.thd_get_thread_id)(self.as_ptr()) }
    }

    pub(crate) fn as_ptr(self) -> *mut abi::THD {
        self.0.as_ptr()
    }
}

/// NULL for no session.
pub(crate) fn as_ptr(thd: Option<Thd>) -> *mut abi::THD {
    thd.map_or(std::ptr::null_mut(), Thd::as_ptr)
}
