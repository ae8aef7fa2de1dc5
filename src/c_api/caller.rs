// SPDX-License-Identifier: GPL-2.0-only

//! Who calls: a session of mysqld, or a program without one; and how a call ends for it.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::sync::{PoisonError, RwLock};

use clone_core::engine::Cancel;
use clone_core::error::{Error, Result};

use crate::guard::guard;
use crate::mysqld::errors::raise;
use crate::server::thd::Thd;
use crate::server::{abi, symbols};

/// What says whether a session was killed, outside of a server.
pub(super) type Killed = unsafe extern "C" fn(thd: *const abi::THD) -> c_int;

static KILLED: RwLock<Option<Killed>> = RwLock::new(None);

pub(super) fn set_killed(killed: Option<Killed>) {
    *KILLED.write().unwrap_or_else(PoisonError::into_inner) = killed;
}

/// The session of a call.
pub(super) struct Caller {
    thd: *mut abi::THD,
}

impl Caller {
    /// # Safety
    /// In a server `thd` is NULL or the session of this thread, and outlives the result.
    pub(super) unsafe fn new(thd: *mut abi::THD) -> Self {
        Self { thd }
    }
}

impl Cancel for Caller {
    fn is_killed(&self) -> bool {
        if symbols::symbols().is_some() {
            // SAFETY: `new` was promised that it is a session.
            return unsafe { Thd::from_raw(self.thd) }.is_some_and(Thd::is_killed);
        }
        let killed = *KILLED.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: who set the function promised that it takes any session.
        killed.is_some_and(|killed| unsafe { killed(self.thd) } != 0)
    }
}

/// Runs a call and tells C how it ended: 0, or the number of an error that is raised in a server
/// and noted elsewhere.
pub(super) fn end_call(call: impl FnOnce() -> Result<()>) -> c_int {
    guard(|| match call() {
        Ok(()) => 0,
        Err(error) => {
            raise(&error);
            note(&error);
            // An error is not 0, whatever its number.
            c_int::try_from(error.number().max(1)).unwrap_or(c_int::MAX)
        }
    })
}

/// The last error of a thread. Without a destructor, since the library may be unmapped before the
/// thread ends.
struct LastError {
    number: u32,
    /// Zero-terminated.
    text: [u8; 512],
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> =
        const { RefCell::new(LastError { number: 0, text: [0; 512] }) };
}

fn note(error: &Error) {
    let text = error.to_string();
    LAST_ERROR.with_borrow_mut(|last| {
        let LastError { number, text: place } = last;
        *number = error.number();
        let kept = &text[..text.floor_char_boundary(place.len() - 1)];
        place.fill(0);
        for (to, from) in place.iter_mut().zip(kept.bytes().filter(|byte| *byte != 0)) {
            *to = from;
        }
    });
}

/// Number and text of this thread's last error; 0 and an empty text before the first.
pub(super) fn last_error() -> (u32, *const c_char) {
    LAST_ERROR.with(|last| {
        let text = last.as_ptr();
        let number = last.borrow().number;
        // SAFETY: the cell's content, which is not moved; no reference to it is made.
        (number, unsafe { (&raw const (*text).text) }.cast())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last() -> (u32, String) {
        let (number, text) = last_error();
        // SAFETY: a terminated text of this thread.
        (number, unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    #[test]
    fn errors_are_noted_for_the_thread() {
        assert_eq!(last(), (0, String::new()));
        assert_eq!(end_call(|| Err(Error::Protocol("one".to_owned()))), 3863);
        assert_eq!(last(), (3863, "one".to_owned()));
        assert_eq!(end_call(|| Ok(())), 0);
        assert_eq!(last(), (3863, "one".to_owned()));
        assert_eq!(end_call(|| Err(Error::Internal("x".repeat(600)))), 1815);
        assert_eq!(last(), (1815, "x".repeat(511)));
        assert_eq!(std::thread::spawn(last).join().expect("no panic"), (0, String::new()));
    }

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(end_call(|| panic!("as a test")), 1815);
    }

    #[test]
    fn outside_a_server_a_function_says_who_was_killed() {
        unsafe extern "C" fn if_there_is_one(thd: *const abi::THD) -> c_int {
            c_int::from(!thd.is_null())
        }
        // SAFETY: outside of a server the address is only handed on.
        let [none, one] =
            [0, 8].map(|at| unsafe { Caller::new(std::ptr::without_provenance_mut(at)) });
        assert!(!one.is_killed());
        set_killed(Some(if_there_is_one));
        assert!(one.is_killed());
        assert!(!none.is_killed());
        set_killed(None);
        assert!(!one.is_killed());
    }
}
