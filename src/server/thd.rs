// SPDX-License-Identifier: GPL-2.0-only

//! A session of mysqld.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use super::abi;
use super::symbols::symbols;

/// A session that lives at least as long as `'s`. It belongs to the thread that mysqld runs it on,
/// so it is not [`Send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thd<'s>(NonNull<abi::THD>, PhantomData<&'s abi::THD>);

impl<'s> Thd<'s> {
    /// The session at `thd`, `None` for NULL.
    ///
    /// # Safety
    /// `thd` is NULL or a session that is attached to this thread and lives for `'s`.
    pub(crate) unsafe fn from_raw(thd: *mut abi::THD) -> Option<Self> {
        NonNull::new(thd).map(|thd| Self(thd, PhantomData))
    }

    /// Runs `f` with the session of this thread, if mysqld runs one on it.
    pub(crate) fn with_current<R>(f: impl FnOnce(Thd<'_>) -> R) -> Option<R> {
        // SAFETY: the session of this thread. It ends in calls that this thread makes, and none
        // of them is made while `f` runs: `f` cannot reach the owner of the session.
        unsafe { Thd::from_raw(current()) }.map(f)
    }

    /// Whether the statement or the connection was killed, or mysqld shuts down.
    pub(crate) fn is_killed(self) -> bool {
        let Some(symbols) = symbols() else { return false };
        // SAFETY: a living session, see `from_raw`.
        unsafe { (symbols.thd_killed)(self.as_ptr()) != 0 }
    }

    /// What tells other threads whether this session was killed.
    ///
    /// # Safety
    /// The session lives as long as the result.
    pub(crate) unsafe fn kill_flag(self) -> KillFlag {
        KillFlag(self.0)
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

/// See [`Thd::kill_flag`].
#[derive(Clone, Copy)]
pub(crate) struct KillFlag(NonNull<abi::THD>);

// SAFETY: of the session only its kill state is read, which mysqld keeps in an atomic variable.
unsafe impl Send for KillFlag {}

impl KillFlag {
    /// As [`Thd::is_killed`].
    pub(crate) fn is_set(&self) -> bool {
        Thd(self.0, PhantomData).is_killed()
    }
}

/// The address of this thread's session, NULL without one.
fn current() -> *mut abi::THD {
    let Some(symbols) = symbols() else { return ptr::null_mut() };
    // SAFETY: reads a thread-local variable of mysqld.
    unsafe { (symbols.thd_get_current_thd)() }
}

/// Whether mysqld runs a session on this thread.
pub(crate) fn has_session() -> bool {
    !current().is_null()
}

/// `thd` if it is still the session of this thread, and NULL if that session has ended.
pub(super) fn if_current(thd: *mut abi::THD) -> *mut abi::THD {
    if thd == current() { thd } else { ptr::null_mut() }
}

/// NULL for no session.
pub(crate) fn as_ptr(thd: Option<Thd<'_>>) -> *mut abi::THD {
    thd.map_or(ptr::null_mut(), Thd::as_ptr)
}
