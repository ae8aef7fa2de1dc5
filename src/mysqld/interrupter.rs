// SPDX-License-Identifier: GPL-2.0-only

//! Ends waits for a peer: one thread looks at all connections in COM_CLONE, and shuts connections
//! down whose sessions have been killed, or whose peers have been silent for too long.
//!
//! mysqld could let KILL do that itself, but not safely
//! ([`Connection::connect`](crate::server::connection::Connection::connect)).

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clone_core::log_target::{CLIENT, SERVER};

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

/// Says how long the peer has been silent, if the connection must end for that. Asked again and
/// again, by another thread.
pub(super) type SilenceCheck = Box<dyn FnMut(&TcpStream) -> Option<Duration> + Send>;

/// The connections that are watched.
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
    /// What the peer is, for the log, and whether it is silent.
    check: Option<(Role, SilenceCheck)>,
    /// How long the peer was silent, if the connection was shut down for that.
    silence: Option<Duration>,
}

/// What the peer is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Donor,
    Recipient,
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
            // This drops the previous thread, which waits for its end. The previous thread has set
            // `thread_runs` to false, and takes no lock after that.
            *thread = Some(Thread::spawn(c"clone_watch", move || connections.run())?);
            state.thread_runs = true;
        }
        state.last_id += 1;
        let id = state.last_id;
        state.watched.push(Watched { id, socket, triggers, check: None, silence: None });
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
            for watched in &mut state.watched {
                watched.look(now);
            }
            let waited = self.changed.wait_timeout(state, INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.thread_runs = false;
    }
}

impl Watched {
    fn look(&mut self, now: Instant) {
        let is_killed = self.triggers.iter_mut().any(|trigger| trigger.is_due(now));
        if self.silence.is_none()
            && let Some((role, check)) = &mut self.check
            && let Some(silence) = check(&self.socket)
        {
            self.silence = Some(silence);
            role.log_silence(&self.socket, silence);
        }
        if is_killed || self.silence.is_some() {
            // An error means that the connection is down already.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Role {
    fn log_silence(self, socket: &TcpStream, silence: Duration) {
        let address = socket.peer_addr().map_or_else(|_| "here".to_owned(), |it| it.to_string());
        let (target, peer) = match self {
            Self::Donor => (CLIENT, "donor"),
            Self::Recipient => (SERVER, "recipient"),
        };
        let seconds = silence.as_secs();
        log::warn!(
            target: target,
            "The {peer} at {address} has been silent for {seconds} seconds (clone_peer_timeout): the \
             connection is closed. Look whether the {peer} is stopped or overloaded, at its host, and \
             at firewalls and proxies on the way"
        );
    }
}

impl Watch {
    /// Ends the connection when `check` says so, too.
    pub(super) fn end_when_silent(&self, role: Role, check: SilenceCheck) {
        self.change(|watched| watched.check = Some((role, check)));
    }

    /// KILL does not interrupt the connection any more.
    pub(super) fn forget_kill(&self) {
        self.change(|watched| watched.triggers.clear());
    }

    /// How long the peer was silent, if the connection was shut down for that.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.change(|watched| watched.silence).flatten()
    }

    fn change<R>(&self, change: impl FnOnce(&mut Watched) -> R) -> Option<R> {
        let mut state = self.connections.state();
        state.watched.iter_mut().find(|one| one.id == self.id).map(change)
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
        // Without connections the thread ends. The next connection starts a thread.
        while runs(&interrupter) {
            std::thread::yield_now();
        }
        let (watch, ..) = watched(&interrupter, Duration::ZERO);
        assert!(runs(&interrupter));
        drop(watch);
    }

    #[test]
    fn connections_of_silent_peers_are_shut_down() {
        let interrupter = Interrupter::default();
        let delay = Duration::ZERO;
        let (watch, _, mut one, mut peer) = watched(&interrupter, delay);
        let silent = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&silent);
        let seconds = Duration::from_secs(7);
        let check = move |_: &TcpStream| flag.load(Ordering::Relaxed).then_some(seconds);
        watch.end_when_silent(Role::Donor, Box::new(check));
        std::thread::sleep(3 * INTERVAL);
        assert!(is_open(&mut one, &mut peer));
        assert_eq!(watch.silence(), None);
        silent.store(true, Ordering::Relaxed);
        assert_eq!(one.read(&mut [0]).expect("an end"), 0);
        assert_eq!(watch.silence(), Some(seconds));
        let (watch, killed, mut one, mut peer) = watched(&interrupter, delay);
        watch.forget_kill();
        killed.store(true, Ordering::Relaxed);
        std::thread::sleep(3 * INTERVAL);
        assert!(is_open(&mut one, &mut peer));
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
