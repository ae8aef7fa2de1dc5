// SPDX-License-Identifier: GPL-2.0-only

//! Time, waiting and cancellation. A simulation brings its own.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::lock;

/// Whether the thread of a task is to stop. A closure is one.
pub trait Cancel {
    /// True from the moment on at which the thread is to stop (KILL, Ctrl-C, shutdown).
    fn is_cancelled(&self) -> bool;
}

impl<F: Fn() -> bool> Cancel for F {
    fn is_cancelled(&self) -> bool {
        self()
    }
}

/// The time, and how the tasks of a clone wait for each other.
pub trait Clock: Send + Sync {
    /// Monotonic time since any fixed moment.
    fn now(&self) -> Duration;

    /// Counts the calls of [`notify`](Clock::notify). Asked for before a task looks whether it has
    /// to wait, so that no notification between the look and the wait is lost.
    fn notifications(&self) -> u64;

    /// Blocks until [`notifications`](Clock::notifications) is not `seen` any more, or until the
    /// time `until`. May return earlier: a caller looks again. It must return often enough for the
    /// caller to see that it was cancelled.
    fn wait(&self, seen: u64, until: Duration);

    /// Wakes all waiting tasks.
    fn notify(&self);
}

/// InnoDB looks this often at what it waits for (`CLONE_DEF_SLEEP`).
const POLL: Duration = Duration::from_millis(100);

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    notifications: Mutex<u64>,
    changed: Condvar,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now(), notifications: Mutex::new(0), changed: Condvar::new() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn notifications(&self) -> u64 {
        *lock(&self.notifications)
    }

    fn wait(&self, seen: u64, until: Duration) {
        let count = lock(&self.notifications);
        let longest = until.saturating_sub(self.now()).min(POLL);
        if *count == seen {
            // Whether it was woken or the time is over, the caller looks again.
            drop(self.changed.wait_timeout(count, longest));
        }
    }

    fn notify(&self) {
        *lock(&self.notifications) += 1;
        self.changed.notify_all();
    }
}

/// Waits until `is_done` (true), or for `limit` (false).
pub(crate) fn wait_until(
    clock: &dyn Clock,
    limit: Duration,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let deadline = clock.now() + limit;
    loop {
        let seen = clock.notifications();
        if is_done()? {
            return Ok(true);
        }
        if clock.now() >= deadline {
            return Ok(false);
        }
        clock.wait(seen, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_before_the_wait_is_not_lost() {
        let clock = SystemClock::default();
        let seen = clock.notifications();
        clock.notify();
        let started = Instant::now();
        clock.wait(seen, clock.now() + Duration::from_secs(3600));
        assert!(started.elapsed() < POLL);
    }

    #[test]
    fn a_wait_ends_often_enough_to_be_cancelled() {
        let clock = SystemClock::default();
        let started = Instant::now();
        clock.wait(clock.notifications(), clock.now() + Duration::from_secs(3600));
        assert!(started.elapsed() >= POLL);
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_limit_ends_a_wait() {
        let clock = SystemClock::default();
        let limit = Duration::from_millis(5);
        assert!(matches!(wait_until(&clock, limit, || Ok(false)), Ok(false)));
        assert!(clock.now() >= limit);
    }
}
