// SPDX-License-Identifier: GPL-2.0-only

//! How the kernel schedules a thread of mysqld: the one thing here that is asked of the kernel, not of mysqld.

use std::marker::PhantomData;

use libc::{SCHED_BATCH, SCHED_OTHER, c_int};

/// As long as this lives the calling thread is one for batch work: it gets its share of a processor, but does not interrupt another
/// thread to take it (`sched(7)`, `SCHED_BATCH`). A donor's clients are then served as if the clone came in between.
///
/// Both ways are allowed to every process. A thread whose policy somebody chose on purpose is left alone.
#[derive(Debug)]
pub(crate) struct BatchWork {
    was_set: bool,
    /// It is this thread's.
    _thread: PhantomData<*const ()>,
}

impl BatchWork {
    pub(crate) fn begin() -> Self {
        let was_set = policy() == SCHED_OTHER && set_policy(SCHED_BATCH);
        Self { was_set, _thread: PhantomData }
    }
}

impl Drop for BatchWork {
    fn drop(&mut self) {
        if self.was_set {
            set_policy(SCHED_OTHER);
        }
    }
}

/// The policy of the calling thread; negative if the kernel does not say.
fn policy() -> c_int {
    // SAFETY: only takes a number; 0 is the calling thread.
    unsafe { libc::sched_getscheduler(0) }
}

/// Sets the policy of the calling thread, and leaves its nice value. False if the kernel does not want it.
fn set_policy(policy: c_int) -> bool {
    // Both policies have no priority but this.
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` lives through the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const param) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_as_it_was_afterwards() {
        let before = policy();
        assert_eq!(before, SCHED_OTHER, "a test's thread");
        let outer = BatchWork::begin();
        assert_eq!(policy(), SCHED_BATCH);
        drop(BatchWork::begin());
        assert_eq!(policy(), SCHED_BATCH, "whoever began it ends it");
        drop(outer);
        assert_eq!(policy(), SCHED_OTHER);
    }
}
