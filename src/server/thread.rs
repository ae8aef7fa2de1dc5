// SPDX-License-Identifier: GPL-2.0-only

//! Threads that leave nothing behind in the thread that starts them.
//!
//! `std::thread::spawn` registers a thread-local destructor on the calling thread, for its hooks.
//! glibc keeps a library in memory until every thread with such a destructor has ended. A session's
//! thread of mysqld ends with its connection, or later, so that UNINSTALL PLUGIN would not unmap
//! this library. These threads are made by `pthread_create` itself.

use std::ffi::{CStr, c_void};
use std::io;
use std::ptr;

use crate::guard::guard_or;

type Work = Box<dyn FnOnce() + Send>;

/// A thread. Dropping this waits until the thread has ended.
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    /// Runs `work` in a new thread, which the operating system shows as `name`: at most 15 bytes. A
    /// panic of `work` ends the thread.
    ///
    /// # Errors
    /// There are too many threads, and `work` did not run.
    pub(crate) fn spawn(
        name: &'static CStr,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let start = move || {
            // SAFETY: without conditions.
            let this = unsafe { libc::pthread_self() };
            // SAFETY: the calling thread, and a terminated name. If it is too long it is refused.
            unsafe { libc::pthread_setname_np(this, name.as_ptr()) };
            work();
        };
        let start: Box<Work> = Box::new(Box::new(start));
        let argument = Box::into_raw(start);
        let mut thread = 0;
        // SAFETY: a place for the thread, default attributes, and a function with its argument.
        let error =
            unsafe { libc::pthread_create(&raw mut thread, ptr::null(), run, argument.cast()) };
        if error != 0 {
            // SAFETY: what was leaked above; no thread has it.
            drop(unsafe { Box::from_raw(argument) });
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Self(thread))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: a thread that is not detached, and is joined once.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
    }
}

/// The thread's first function.
extern "C" fn run(argument: *mut c_void) -> *mut c_void {
    guard_or((), || {
        // SAFETY: what `spawn` leaked for this thread.
        let work = unsafe { Box::from_raw(argument.cast::<Work>()) };
        work();
    });
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The thread whose destructors are counted.
    static WATCHED: AtomicI32 = AtomicI32::new(0);
    static DESTRUCTORS: AtomicUsize = AtomicUsize::new(0);

    type Register = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void) -> std::ffi::c_int;

    /// Takes the place of glibc's function, by which thread-local destructors are registered.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __cxa_thread_atexit_impl(
        destructor: *mut c_void,
        object: *mut c_void,
        library: *mut c_void,
    ) -> std::ffi::c_int {
        // SAFETY: without conditions.
        if unsafe { libc::gettid() } == WATCHED.load(Ordering::SeqCst) {
            DESTRUCTORS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: a terminated name.
        let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"__cxa_thread_atexit_impl".as_ptr()) };
        assert!(!next.is_null());
        // SAFETY: glibc's function of this name.
        let next = unsafe { mem::transmute::<*mut c_void, Register>(next) };
        // SAFETY: what this was called with.
        unsafe { next(destructor, object, library) }
    }

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {}
    }

    thread_local! {
        static CONTROL: Bomb = const { Bomb };
    }

    #[test]
    fn no_destructor_is_left_in_the_thread_that_starts_one() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let result = Arc::clone(&seen);
        // A thread that mysqld has made.
        let session = Thread::spawn(c"session", move || {
            // SAFETY: without conditions.
            WATCHED.store(unsafe { libc::gettid() }, Ordering::SeqCst);
            drop(Thread::spawn(c"clone_commits", || {}).expect("a thread"));
            let after_spawn = DESTRUCTORS.load(Ordering::SeqCst);
            CONTROL.with(|_| ());
            let after_control = DESTRUCTORS.load(Ordering::SeqCst);
            *result.lock().expect("no panic") = vec![after_spawn, after_control];
        });
        drop(session.expect("a thread"));
        assert_eq!(*seen.lock().expect("no panic"), [0, 1]);
    }

    #[test]
    fn a_thread_runs_its_work_and_is_waited_for() {
        let name = Arc::new(Mutex::new(String::new()));
        let found = Arc::clone(&name);
        let thread = Thread::spawn(c"clone_commits", move || {
            *found.lock().expect("no panic") =
                std::fs::read_to_string("/proc/thread-self/comm").expect("a name");
        });
        drop(thread.expect("a thread"));
        assert_eq!(*name.lock().expect("no panic"), "clone_commits\n");
        // A panic ends only the thread.
        drop(Thread::spawn(c"panics", || panic!("as a test")).expect("a thread"));
    }
}
