// SPDX-License-Identifier: GPL-2.0-only

//! Where recipients connect to: an address, or the socket that systemd has opened.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clone_classic::Error;
use clone_classic::server::{Incoming, Listener};

use super::host::ColdHost;
use crate::failure::{Failure, Kind, Result};

/// The most connections at once. A recipient with 128 threads has 130.
const MAX_CONNECTIONS: usize = 1024;

/// A pause after an error, since the next try may fail in the same way.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket that systemd has opened, else a new one at `address`.
pub(super) fn listen(address: SocketAddr) -> Result<Listener> {
    let mut given = sd_listen_fds::get()
        .map_err(|error| Failure::new(Kind::Usage, format!("LISTEN_FDS: {error}")))?;
    if given.len() > 1 {
        let text = "systemd gives more than one socket: the unit must have one ListenStream";
        return Err(Failure::new(Kind::Usage, text));
    }
    match given.pop() {
        Some((_, socket)) => Listener::try_from(TcpListener::from(socket))
            .map_err(|error| Failure::new(Kind::Network, format!("systemd's socket: {error}"))),
        None => Listener::bind(address).map_err(|error| {
            Failure::new(Kind::Network, format!("cannot listen at {address}: {error}"))
        }),
    }
}

/// Runs `handle` for each connection, in a thread of its own and with an id of its own, until the
/// host stops. With `once`, until a recipient has got a clone whole.
pub(super) fn run(
    listener: &Listener,
    host: &Arc<ColdHost>,
    once: bool,
    handle: &(dyn Fn(Incoming, u32) + Sync),
) {
    let connections = Arc::new(AtomicUsize::new(0));
    let next = AtomicU32::new(1);
    let cancel: Arc<dyn Fn() -> bool + Send + Sync> = {
        let (host, connections) = (Arc::clone(host), Arc::clone(&connections));
        Arc::new(move || {
            let is_done = once && host.engine().completed() > 0 && host.engine().is_idle();
            host.is_stopped() || (is_done && connections.load(Ordering::Acquire) == 0)
        })
    };
    thread::scope(|scope| {
        loop {
            let incoming = match listener.accept(&cancel) {
                Ok(incoming) => incoming,
                Err(Error::Cancelled) => return,
                Err(error) => {
                    log::warn!("{error}");
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            let peer = incoming.peer();
            let counted = Counted::new(&connections);
            if connections.load(Ordering::Acquire) > MAX_CONNECTIONS {
                log::warn!("{peer}: more than {MAX_CONNECTIONS} connections, this one is closed");
                continue;
            }
            let id = next.fetch_add(1, Ordering::Relaxed);
            let work = move || {
                handle(incoming, id);
                drop(counted);
            };
            let thread = thread::Builder::new().name(format!("connection {id}"));
            if let Err(error) = thread.spawn_scoped(scope, work) {
                log::warn!("{peer}: no thread: {error}");
            }
        }
    });
}

/// Counts a connection as long as it exists, whether its thread ends well or never begins.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
