// SPDX-License-Identifier: GPL-2.0-only

//! Lets KILL wake a thread that waits for its peer: one thread looks at the sessions of all
//! connections in COM_CLONE, and shuts connections down whose sessions have been killed.
//!
//! mysqld could do that itself, but not safely
//! ([`Connection::connect`](crate::server::connection::Connection::connect)).

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::server::thread::Thread;

/// How long a killed clone may take to tell the peer, and to end its workers in order. After that a
/// silent peer is left alone.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// How often the sessions are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Shuts a connection down some time after a session was killed.
pub(super) struct Trigger {
    is_killed: Box<dyn Fn() -> bool + Send>,
    delay: Duration,
    killed: Option<Instant>,
}

/// The connections that KILL must interrupt.
#[derive(Default)]
pub(crate) struct Interrupter {
    connections: Arc<Connections>,
    /// The thread runs while there are connections.
    thread: Mutex<Option<Thread>>,
}

#[derive(Default)]
struct Connections {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    last_id: u64,
    thread_runs: bool,
}

struct Watched {
    id: u64,
    socket: TcpStream,
    triggers: Vec<Trigger>,
}

/// While this exists, KILL interrupts the connection.
pub(super) struct Watch {
    id: u64,
    connections: Arc<Connections>,
}

impl Trigger {
    /// `is_killed` is called by another thread, until the connection's [`Watch`] is dropped.
    pub(super) fn new(delay: Duration, is_killed: impl Fn() -> bool + Send + 'static) -> Self {
        Self { is_killed: Box::new(is_killed), delay, killed: None }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.killed.is_none() && (self.is_killed)() {
            self.killed = Some(now);
        }
        self.killed.is_some_and(|killed| now.duration_since(killed) >= self.delay)
    }
}

impl Interrupter {
    /// Shuts `socket` down in both directions when one of `triggers` says so, until the result is
    /// dropped.
    ///
    /// # Errors
    /// There are too many threads or open files.
    pub(super) fn watch(
        &self,
        socket: BorrowedFd<'_>,
        triggers: Vec<Trigger>,
    ) -> io::Result<Watch> {
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.connections.state();
        if !state.thread_runs {
            let connections = Arc::clone(&self.connections);
            // The thread before has ended, or ends at once: it needs nothing that is locked here.
            *thread = Some(Thread::spawn(c"clone_kill", move || connections.run())?);
            state.thread_runs = true;
        }
        state.last_id += 1;
        let id = state.last_id;
        state.watched.push(Watched { id, socket, triggers });
        drop(state);
        self.connections.changed.notify_one();
        Ok(Watch { id, connections: Arc::clone(&self.connections) })
    }
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the connections until there are none.
    fn run(&self) {
        let mut state = self.state();
        while !state.watched.is_empty() {
            let now = Instant::now();
            for Watched { socket, triggers, .. } in &mut state.watched {
                if triggers.iter_mut().any(|trigger| trigger.is_due(now)) {
                    // An error means that the connection is down already.
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
            let waited = self.changed.wait_timeout(state, INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.thread_runs = false;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connections.state().watched.retain(|one| one.id != self.id);
        self.connections.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let one = TcpStream::connect(listener.local_addr().expect("an address"));
        let (other, _) = listener.accept().expect("a peer");
        other.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        (one.expect("a connection"), other)
    }

    fn runs(interrupter: &Interrupter) -> bool {
        interrupter.connections.state().thread_runs
    }

    /// A connection whose session is killed by the flag, after `delay`.
    fn watched(
        interrupter: &Interrupter,
        delay: Duration,
    ) -> (Watch, Arc<AtomicBool>, TcpStream, TcpStream) {
        let (one, peer) = connection();
        one.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        let killed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&killed);
        let trigger = Trigger::new(delay, move || flag.load(Ordering::Relaxed));
        let watch = interrupter.watch(one.as_fd(), vec![trigger]).expect("a watch");
        (watch, killed, one, peer)
    }

    fn is_open(one: &mut TcpStream, peer: &mut TcpStream) -> bool {
        peer.write_all(b"x").expect("an open connection");
        one.read(&mut [0]).expect("no time-out") == 1
    }

    #[test]
    fn connections_of_killed_sessions_are_shut_down_and_no_others() {
        let interrupter = Interrupter::default();
        let delay = Duration::from_millis(300);
        let (watch, killed, mut one, _peer) = watched(&interrupter, Duration::ZERO);
        let (later, killed_too, mut other, mut others_peer) = watched(&interrupter, delay);
        let (alive, _, mut third, mut thirds_peer) = watched(&interrupter, Duration::ZERO);
        let since = Instant::now();
        killed.store(true, Ordering::Relaxed);
        killed_too.store(true, Ordering::Relaxed);
        assert_eq!(one.read(&mut [0]).expect("an end"), 0);
        // Whether the machine was too slow to see that the other connection is open yet.
        assert!(is_open(&mut other, &mut others_peer) || since.elapsed() >= delay);
        assert_eq!(other.read(&mut [0]).expect("an end"), 0);
        assert!(since.elapsed() >= delay);
        assert!(is_open(&mut third, &mut thirds_peer));
        drop((watch, later, alive));
        // The thread ends without connections, and is started again.
        while runs(&interrupter) {
            std::thread::yield_now();
        }
        let (watch, ..) = watched(&interrupter, Duration::ZERO);
        assert!(runs(&interrupter));
        drop(watch);
    }

    #[test]
    fn a_connection_that_is_no_longer_watched_stays_open() {
        let interrupter = Interrupter::default();
        let (other, ..) = watched(&interrupter, Duration::ZERO);
        let (watch, killed, mut one, mut peer) = watched(&interrupter, Duration::ZERO);
        drop(watch);
        killed.store(true, Ordering::Relaxed);
        std::thread::sleep(3 * INTERVAL);
        assert!(is_open(&mut one, &mut peer));
        drop(other);
    }
}
