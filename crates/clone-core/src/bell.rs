// SPDX-License-Identifier: GPL-2.0-only

//! Wakes a thread that waits for its next turn.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ends a wait of [`Clock::wait_for`](crate::session::Clock::wait_for): the one that goes on, or
/// the next.
#[derive(Debug, Default)]
pub struct Bell {
    is_rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Ends a wait.
    pub fn ring(&self) {
        *self.state() = true;
        self.changed.notify_all();
    }

    /// Whether it was rung since a wait was last ended.
    pub fn take(&self) -> bool {
        std::mem::take(&mut *self.state())
    }

    /// Waits until the bell is rung, at most for `limit`. Returns whether it was rung.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if *state || left.is_zero() {
                return std::mem::take(&mut *state);
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, bool> {
        self.is_rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_ring_ends_one_wait() {
        let bell = Arc::new(Bell::default());
        assert!(!bell.wait(Duration::from_millis(10)));
        bell.ring();
        assert!(bell.wait(Duration::from_secs(60)));
        assert!(!bell.take());
        let other = Arc::clone(&bell);
        let waiter = thread::spawn(move || other.wait(Duration::from_secs(60)));
        bell.ring();
        assert!(waiter.join().expect("no panic"));
        assert!(!bell.wait(Duration::ZERO));
    }
}
