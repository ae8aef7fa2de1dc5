// SPDX-License-Identifier: GPL-2.0-only

//! No panic may unwind into mysqld. Every function that C calls runs its body in [`guard`] or
//! [`guard_or`]; [`install_hook`] writes what panicked, and where, to the error log.

use std::any::Any;
use std::ffi::c_int;
use std::panic;
use std::panic::AssertUnwindSafe;

use crate::server::error_log;
use crate::server::raise::Raise;
use crate::server::raise::raise;

/// Runs `f`, whose result is 0 or the number of a raised error. A panic is raised in the session of
/// this thread as `ER_INTERNAL_ERROR`, and that number returned.
pub(crate) fn guard(f: impl FnOnce() -> c_int) -> c_int {
    caught(f).unwrap_or_else(|number| c_int::try_from(number).unwrap_or(c_int::MAX))
}

/// Runs `f`; after a panic, which is raised as by [`guard`], returns `on_panic`.
pub(crate) fn guard_or<R>(on_panic: R, f: impl FnOnce() -> R) -> R {
    caught(f).unwrap_or(on_panic)
}

/// Runs `f`. A panic becomes the number of the error that it was raised as.
///
/// A panicking `f` may leave data in a half-changed state. That is acceptable: an engine ends its
/// operation after an error, and a statement fails, so nobody uses that data again.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Result<R, u32> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let number = raise(Raise::InternalError(&format!("Clone plugin: {}", message(&*payload))));
        forget_or_drop(payload);
        number
    })
}

/// Makes panics go to the error log as one line with their place, in this library only: each cdylib
/// has its own copy of std and its hook.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(|info| {
        let text = match info.location() {
            Some(location) => format!("panic at {location}: {}", message(info.payload())),
            None => format!("panic: {}", message(info.payload())),
        };
        log::error!(target: error_log::CLIENT, "{text}");
    }));
}

/// Ends what [`install_hook`] began.
pub(crate) fn remove_hook() {
    drop(panic::take_hook());
}

fn message(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "panic",
    }
}

/// Drops a payload, which may itself panic; then its remains are leaked.
fn forget_or_drop(payload: Box<dyn Any + Send>) {
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_pass() {
        assert_eq!(guard(|| 0), 0);
        assert_eq!(guard(|| 3862), 3862);
        assert!(!guard_or(true, || false));
    }

    #[test]
    fn panics_become_errors() {
        assert_eq!(guard(|| panic!("as a test")), 1815);
        assert_eq!(guard(|| panic!("{} {}", "with", "arguments")), 1815);
        assert!(guard_or(true, || panic!("as a test")));
        assert_eq!(caught(|| panic::resume_unwind(Box::new(7))), Err::<(), _>(1815));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_leaked() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("as a test");
            }
        }
        assert_eq!(guard(|| panic::panic_any(Bomb)), 1815);
    }

    #[test]
    fn messages_are_found() {
        assert_eq!(message(&"text"), "text");
        assert_eq!(message(&String::from("text")), "text");
        assert_eq!(message(&7), "panic");
    }
}
