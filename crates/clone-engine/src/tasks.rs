// SPDX-License-Identifier: GPL-2.0-only

//! Who takes part in a clone.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_core::engine::Cancel;
use clone_core::error::{Error, Result};

/// The live tasks of one side of one clone.
///
/// Number 0 is the main task. Workers get numbers that are never used again, so that a call of a
/// task which has ended is told from one of its successor's.
#[derive(Debug, Default)]
pub struct Tasks {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    live: BTreeSet<u32>,
    last: u32,
    is_closed: bool,
}

/// The most live tasks, InnoDB's limit (`CLONE_MAX_TASKS`).
const MAX_TASKS: usize = 128;

/// How often a waiting main task looks whether it was killed.
const POLL: Duration = Duration::from_millis(100);

impl Tasks {
    /// Without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the main task. False if it is there already.
    pub fn add_main(&self) -> bool {
        self.state().live.insert(Self::MAIN)
    }

    /// Adds a worker and gives its number.
    ///
    /// # Errors
    /// There is no main task, it waits for the end, or there are too many.
    pub fn add_worker(&self) -> Result<u32> {
        let mut state = self.state();
        if state.is_closed || !state.live.contains(&Self::MAIN) {
            return Err(protocol("task for a clone that has ended"));
        }
        if state.live.len() >= MAX_TASKS {
            return Err(protocol("too many tasks"));
        }
        state.last = state.last.checked_add(1).ok_or_else(|| protocol("too many tasks"))?;
        let task = state.last;
        state.live.insert(task);
        Ok(task)
    }

    /// Whether `task` takes part.
    ///
    /// # Errors
    /// It does not, and whoever calls in its name breaks the protocol.
    pub fn verify(&self, task: u32) -> Result<()> {
        if self.state().live.contains(&task) { Ok(()) } else { Err(protocol("unknown task")) }
    }

    /// Takes `task` out; false if it was not in.
    pub fn remove(&self, task: u32) -> bool {
        let was_live = self.state().live.remove(&task);
        self.left.notify_all();
        was_live
    }

    /// Refuses new workers, and waits until those that are there have left. The main task stays.
    ///
    /// # Errors
    /// KILL; the workers may still run.
    pub fn wait_for_workers(&self, session: &dyn Cancel) -> Result<()> {
        let mut state = self.state();
        state.is_closed = true;
        while state.live.iter().any(|task| *task != Self::MAIN) {
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            state = match self.left.wait_timeout(state, POLL) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Ok(())
    }

    /// Takes new workers again, after a restart.
    pub fn reopen(&self) {
        self.state().is_closed = false;
    }

    /// Whether nobody takes part.
    pub fn is_empty(&self) -> bool {
        self.state().live.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the main task.
    pub const MAIN: u32 = 0;
}

fn protocol(what: &str) -> Error {
    Error::Protocol(format!("Wrong Clone RPC: {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct TestSession(AtomicBool);

    impl Cancel for TestSession {
        fn is_killed(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn workers_need_a_main_task_and_have_numbers_of_their_own() {
        let tasks = Tasks::new();
        assert!(tasks.add_worker().is_err());
        assert!(tasks.add_main());
        assert!(!tasks.add_main());
        let one = tasks.add_worker().unwrap();
        let two = tasks.add_worker().unwrap();
        assert_ne!(one, two);
        assert!(tasks.remove(one));
        assert!(!tasks.remove(one));
        assert!(tasks.verify(one).is_err());
        tasks.verify(two).unwrap();
        assert!(tasks.add_worker().unwrap() > two, "a number is not used again");
    }

    #[test]
    fn there_are_not_more_than_innodb_has() {
        let tasks = Tasks::new();
        tasks.add_main();
        for _ in 1..MAX_TASKS {
            tasks.add_worker().unwrap();
        }
        assert!(tasks.add_worker().is_err());
        tasks.remove(1);
        tasks.add_worker().unwrap();
    }

    #[test]
    fn the_main_task_waits_and_nobody_joins_meanwhile() {
        let (tasks, session) = (Tasks::new(), TestSession::default());
        tasks.add_main();
        let worker = tasks.add_worker().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| tasks.wait_for_workers(&session));
            while tasks.add_worker().is_ok_and(|late| tasks.remove(late)) {
                thread::yield_now();
            }
            assert!(!waiting.is_finished());
            tasks.remove(worker);
            waiting.join().unwrap().unwrap();
        });
        assert!(tasks.add_worker().is_err());
        tasks.reopen();
        tasks.add_worker().unwrap();
        assert!(!tasks.is_empty());
    }

    #[test]
    fn a_killed_main_task_does_not_wait() {
        let (tasks, session) = (Tasks::new(), TestSession::default());
        tasks.add_main();
        tasks.add_worker().unwrap();
        session.0.store(true, Ordering::Relaxed);
        assert_eq!(tasks.wait_for_workers(&session), Err(Error::Interrupted));
    }
}
