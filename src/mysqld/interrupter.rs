// SPDX-License-Identifier: GPL-2.0-only

//! Lets KILL wake a thread that waits for its donor: one thread looks at the sessions of all
//! recipients' connections, and shuts a connection down when its session has been killed.
//!
//! mysqld could do that itself, but not safely
//! ([`Connection::connect`](crate::server::connection::Connection::connect)).

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::server::thread::Thread;

/// How often the sessions are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells whether a session has been killed.
type IsKilled = Box<dyn Fn() -> bool + Send>;

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
    is_killed: IsKilled,
}

/// While this exists, KILL interrupts the connection.
pub(super) struct Watch {
    id: u64,
    connections: Arc<Connections>,
}

impl Interrupter {
    /// Shuts `socket` down in both directions as soon as `is_killed` returns true, until the result
    /// is dropped. Another thread calls `is_killed`.
    ///
    /// # Errors
    /// There are too many threads or open files.
    pub(super) fn watch(&self, socket: BorrowedFd<'_>, is_killed: IsKilled) -> io::Result<Watch> {
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
        state.watched.push(Watched { id, socket, is_killed });
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
            for killed in state.watched.iter().filter(|one| (one.is_killed)()) {
                // An error means that the connection is down already.
                let _ = killed.socket.shutdown(Shutdown::Both);
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
    use std::io::Read;
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

    #[test]
    fn a_killed_session_is_woken_and_no_other() {
        let interrupter = Interrupter::default();
        let killed = Arc::new(AtomicBool::new(false));
        let (mut one, _peer) = connection();
        let (mut other, mut others_peer) = connection();
        let flag = Arc::clone(&killed);
        let is_killed = Box::new(move || flag.load(Ordering::Relaxed));
        let watch = interrupter.watch(one.as_fd(), is_killed).expect("a watch");
        let second = interrupter.watch(other.as_fd(), Box::new(|| false)).expect("a watch");
        assert!(runs(&interrupter));
        killed.store(true, Ordering::Relaxed);
        assert_eq!(one.read(&mut [0]).expect("an end"), 0);
        std::io::Write::write_all(&mut others_peer, b"x").expect("an open connection");
        assert_eq!(other.read(&mut [0]).expect("a byte"), 1);
        drop((watch, second));
        while runs(&interrupter) {
            std::thread::yield_now();
        }
        // The thread is started again, and a connection that is no longer watched stays open.
        let (mut third, mut thirds_peer) = connection();
        let watch = interrupter.watch(other.as_fd(), Box::new(|| false)).expect("a watch");
        drop(interrupter.watch(third.as_fd(), Box::new(|| false)).expect("a watch"));
        std::io::Write::write_all(&mut thirds_peer, b"x").expect("an open connection");
        assert_eq!(third.read(&mut [0]).expect("a byte"), 1);
        drop(watch);
    }
}
