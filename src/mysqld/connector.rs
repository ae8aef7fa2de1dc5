// SPDX-License-Identifier: GPL-2.0-only

//! Connects to donors in threads of their own. KILL need not wait for a host that does not answer:
//! the statement ends, and the thread goes on until mysqld's `connect_timeout` is over.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_core::error::{Error, Result};

use crate::guard;
use crate::server::connection::{Connection, Donor};
use crate::server::services::services;
use crate::server::thread::Thread;

/// How often a statement that waits for its connection looks whether it was killed.
const INTERVAL: Duration = Duration::from_millis(50);

/// The attempts to connect whose statement has been killed. Dropping this waits for their ends.
#[derive(Default)]
pub(crate) struct Connector {
    abandoned: Mutex<Vec<(Arc<Attempt>, Thread)>>,
}

#[derive(Default)]
struct Attempt {
    outcome: Mutex<Option<Result<Connection>>>,
    ended: Condvar,
}

impl Connector {
    /// Connects to `donor`. `thread_key` is the instrument of the thread that does so.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if `is_killed` returns true before the donor has answered;
    /// [`Error::Connect`]. None has been raised.
    pub(super) fn connect(
        &self,
        donor: Donor,
        thread_key: u32,
        is_killed: impl Fn() -> bool,
    ) -> Result<Connection> {
        let attempt = Arc::new(Attempt::default());
        let own = Arc::clone(&attempt);
        let thread =
            Thread::spawn(c"clone_connect", move || {
                own.end(guard::caught(|| connect(&donor, thread_key)).unwrap_or_else(|_| {
                    Err(Error::Internal("a panic, see the error log".to_owned()))
                }));
            });
        let thread = thread.map_err(|error| Error::Connect(format!("Connect failed: {error}")))?;
        let mut outcome = attempt.outcome();
        loop {
            if let Some(outcome) = outcome.take() {
                return outcome;
            }
            if is_killed() {
                break;
            }
            let waited = attempt.ended.wait_timeout(outcome, INTERVAL);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(outcome);
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping an attempt that has ended closes its connection, if it has one.
        abandoned.retain(|(attempt, _)| attempt.outcome().is_none());
        abandoned.push((attempt, thread));
        Err(Error::Interrupted)
    }
}

impl Attempt {
    fn outcome(&self) -> MutexGuard<'_, Option<Result<Connection>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Result<Connection>) {
        *self.outcome() = Some(outcome);
        self.ended.notify_one();
    }
}

fn connect(donor: &Donor, thread_key: u32) -> Result<Connection> {
    // mysqld raises an error in the session of the thread that connects.
    let session = services().clone_protocol.start_session(thread_key);
    let Some(_session) = session else { return Err(Error::OutOfMemory(0)) };
    Connection::connect(None, donor).map_err(Error::Connect)
}
