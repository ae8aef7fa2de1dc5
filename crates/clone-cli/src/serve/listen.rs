// SPDX-License-Identifier: GPL-2.0-only

//! Where recipients connect to: an address, or the socket that systemd has opened.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::host::ColdHost;
use crate::failure::{Failure, Kind, Result};

/// How often the loop looks whether it has to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The most connections at once. A recipient with 128 threads has 130.
const MAX_CONNECTIONS: usize = 1024;

/// After this error the next connection may be accepted, or the next try fails in the same way.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket that systemd has opened, else a new one at `address`.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let failed = |text: String| Failure::new(Kind::Network, text);
    let mut given = sd_listen_fds::get()
        .map_err(|error| Failure::new(Kind::Usage, format!("LISTEN_FDS: {error}")))?;
    if given.len() > 1 {
        let text = "systemd gives more than one socket: the unit must have one ListenStream";
        return Err(Failure::new(Kind::Usage, text));
    }
    let listener = match given.pop() {
        Some((_, socket)) => TcpListener::from(socket),
        None => TcpListener::bind(address)
            .map_err(|error| failed(format!("cannot listen at {address}: {error}")))?,
    };
    listener.set_nonblocking(true).map_err(|error| failed(format!("the socket: {error}")))?;
    Ok(listener)
}

/// Runs `handle` for each connection, in a thread of its own, until the host stops. With `once`,
/// until a recipient has got a clone whole.
pub(super) fn run(
    listener: &TcpListener,
    host: &ColdHost,
    once: bool,
    handle: &(dyn Fn(TcpStream, SocketAddr) + Sync),
) -> Result<()> {
    let connections = &AtomicUsize::new(0);
    thread::scope(|scope| {
        loop {
            let is_done = once && host.engine().completed() > 0 && host.engine().is_idle();
            if is_done && connections.load(Ordering::Acquire) == 0 {
                host.stop();
            }
            if host.is_stopped() {
                return Ok(());
            }
            match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => {
                    host.stop();
                    return Err(Failure::new(Kind::Network, format!("the socket: {error}")));
                }
            }
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_over(&error) => continue,
                Err(error) => {
                    log::warn!("cannot accept a connection: {error}");
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            if connections.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                connections.fetch_sub(1, Ordering::AcqRel);
                log::warn!("{peer}: more than {MAX_CONNECTIONS} connections, this one is closed");
                continue;
            }
            let work = move || {
                let _counted = Counted(connections);
                handle(stream, peer);
            };
            if let Err(error) =
                thread::Builder::new().name("serve".into()).spawn_scoped(scope, work)
            {
                log::warn!("{peer}: no thread: {error}");
            }
        }
    })
}

/// Gives its connection back, whether the thread ends well or not, or never began.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The peer has gone before it was accepted.
fn is_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}
