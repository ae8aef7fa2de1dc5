// SPDX-License-Identifier: GPL-2.0-only

//! Connects to donors in threads of their own. KILL need not wait for a host that does not answer:
//! the statement ends, and the thread goes on until mysqld's `connect_timeout` is over.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clone_core::error::{Error, Result};

use crate::guard;
use crate::server::connection::{Connection, Donor};
use crate::server::services::services;
use crate::server::thread::Thread;

/// How often a statement that waits for its connection looks whether it was killed.
const INTERVAL: Duration = Duration::from_millis(50);

/// Opens connections of the type `T`. Dropping this waits for the attempts whose statement has been
/// killed.
pub(crate) struct Connector<T = Connection> {
    abandoned: Mutex<Vec<(Arc<Attempt<T>>, Thread)>>,
}

struct Attempt<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

enum State<T> {
    Connecting,
    /// Nobody waits for the connection.
    Abandoned,
    Ended(Result<T>),
    /// The outcome has been taken or dropped, and the thread ends.
    Over,
}

impl Connector {
    /// Connects to `donor`, within `limit` if there is one. `thread_key` is the instrument of the
    /// thread that does so.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if `is_killed` returns true before the donor has answered;
    /// [`Error::Connect`]. None has been raised.
    pub(super) fn connect(
        &self,
        donor: Donor,
        thread_key: u32,
        limit: Option<Duration>,
        is_killed: impl Fn() -> bool,
    ) -> Result<Connection> {
        self.run(move || connect(&donor, thread_key), limit, is_killed)
    }
}

impl<T: Send + 'static> Connector<T> {
    /// Runs `work` in a thread. After KILL or the limit nobody waits for the connection, which is
    /// closed as soon as `work` has opened it.
    fn run(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        limit: Option<Duration>,
        is_killed: impl Fn() -> bool,
    ) -> Result<T> {
        let attempt =
            Arc::new(Attempt { state: Mutex::new(State::Connecting), ended: Condvar::new() });
        let own = Arc::clone(&attempt);
        let thread = Thread::spawn(c"clone_connect", move || {
            let panicked = |_| Err(Error::Internal("a panic, see the error log".to_owned()));
            own.end(guard::caught(work).unwrap_or_else(panicked));
        });
        let thread = thread.map_err(|error| Error::Connect(format!("Connect failed: {error}")))?;
        let started = Instant::now();
        let is_late = || limit.is_some_and(|limit| started.elapsed() >= limit);
        if let Some(outcome) = attempt.wait(|| is_killed() || is_late()) {
            return outcome;
        }
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.retain(|(attempt, _)| matches!(*attempt.state(), State::Abandoned));
        abandoned.push((attempt, thread));
        if is_killed() {
            return Err(Error::Interrupted);
        }
        let seconds = started.elapsed().as_secs();
        Err(Error::Connect(format!(
            "Connect failed: 2013 : No answer within {seconds} seconds (clone_peer_timeout)"
        )))
    }
}

impl<T> Default for Connector<T> {
    fn default() -> Self {
        Self { abandoned: Mutex::default() }
    }
}

impl<T> Attempt<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the outcome. None if `is_abandoned` returns true first.
    fn wait(&self, is_abandoned: impl Fn() -> bool) -> Option<Result<T>> {
        let mut state = self.state();
        loop {
            match mem::replace(&mut *state, State::Connecting) {
                State::Ended(outcome) => {
                    *state = State::Over;
                    return Some(outcome);
                }
                _ if is_abandoned() => {
                    *state = State::Abandoned;
                    return None;
                }
                _ => {}
            }
            let waited = self.ended.wait_timeout(state, INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives the outcome to the statement that waits. If none waits, the outcome is dropped, which
    /// closes the connection.
    fn end(&self, outcome: Result<T>) {
        let mut state = self.state();
        *state = match *state {
            State::Connecting => State::Ended(outcome),
            _ => State::Over,
        };
        self.ended.notify_one();
    }
}

fn connect(donor: &Donor, thread_key: u32) -> Result<Connection> {
    // mysqld raises an error in the session of the thread that connects.
    let session = services().clone_protocol.start_session(thread_key);
    let Some(_session) = session else { return Err(Error::OutOfMemory(0)) };
    Connection::connect(None, donor).map_err(Error::Connect)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_attempt_is_waited_for() {
        let connector = Connector::default();
        assert_eq!(connector.run(|| Ok(7), None, || false), Ok(7));
        let error = Error::Connect("Connect failed: 2003 : no".to_owned());
        let same = error.clone();
        assert_eq!(connector.run(move || Err(same), None, || false), Err(error));
        let panicked = connector.run(|| panic!("as a test"), None, || false);
        assert!(matches!(panicked, Err(Error::Internal(_))), "{panicked:?}");
        assert!(connector.abandoned.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_donor_that_does_not_answer_in_time() {
        let connector = Connector::default();
        let (answer, answered) = mpsc::channel::<()>();
        let limit = Some(Duration::from_millis(200));
        let work = move || answered.recv().map_err(|_| Error::Interrupted);
        let outcome = connector.run(work, limit, || false);
        assert!(matches!(outcome, Err(Error::Connect(_))), "{outcome:?}");
        drop(answer);
    }

    #[test]
    fn after_a_kill_the_connection_is_closed_when_it_comes() {
        let connector = Connector::default();
        let (answer, answered) = mpsc::channel();
        // Dropping the sender shows that the connection has been closed.
        let (connection, closed) = mpsc::channel::<()>();
        let outcome = connector.run(
            move || {
                let answered: std::result::Result<(), _> = answered.recv();
                answered.map_err(|_| Error::Interrupted)?;
                Ok(connection)
            },
            None,
            || true,
        );
        assert_eq!(outcome.err(), Some(Error::Interrupted));
        assert_eq!(closed.try_recv(), Err(mpsc::TryRecvError::Empty));
        answer.send(()).expect("a thread that waits");
        assert_eq!(closed.recv(), Err(mpsc::RecvError));
    }
}
