// SPDX-License-Identifier: GPL-2.0-only

//! The port of a proxy, and the thread that takes connections.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

use super::MAX_CONNECTIONS;
use super::connection::{self, Connection};
use super::network::Network;

/// Connections that the kernel takes before we do.
const QUEUE: i32 = 128;

/// A port of the loopback address.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddrV4,
    /// Bound but not listening, so that the port stays ours while connections are refused.
    _reserved: OwnedFd,
    socket: Option<TcpListener>,
    /// A byte tells that something is to be done.
    wake: UnixStream,
}

impl Listener {
    /// Listens; gives also the end to wake it.
    pub(super) fn new() -> io::Result<(Self, UnixStream)> {
        let reserved = bound(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = match SocketAddr::try_from(getsockname(&reserved)?) {
            Ok(SocketAddr::V4(address)) => address,
            other => return Err(io::Error::other(format!("no IPv4 address: {other:?}"))),
        };
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let mut listener = Self { address, _reserved: reserved, socket: None, wake };
        listener.listen()?;
        Ok((listener, waker))
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Takes connections until the network is stopped, and returns when all have ended.
    pub(super) fn run(mut self, network: &Arc<Network>) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let mut state = network.lock();
            if state.is_stopped() {
                break;
            }
            let refusal = state.refusal();
            if refusal.is_some() {
                self.socket = None;
            } else if self.socket.is_none() && self.listen().is_err() {
                // Whoever waits for it to listen gives up, and says so.
                break;
            }
            state.is_listening = self.socket.is_some();
            drop(state);
            self.wait(refusal.flatten());
            threads.retain(|thread| !thread.is_finished());
            let Some(Ok((recipient, _))) = self.socket.as_ref().map(TcpListener::accept) else {
                continue;
            };
            if threads.len() >= MAX_CONNECTIONS {
                connection::reset(recipient);
                continue;
            }
            let network = Arc::clone(network);
            threads.push(thread::spawn(move || {
                // A donor that does not listen looks to the recipient like one that hangs up.
                if let Ok(connection) = Connection::open(recipient, network) {
                    connection.run();
                }
            }));
        }
        drop(self);
        network.lock().stop();
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let socket = bound(self.address)?;
        listen(&socket, QUEUE)?;
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        self.socket = Some(socket);
        Ok(())
    }

    fn wait(&self, until: Option<Instant>) {
        let timeout = until.map(connection::time_until);
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(self.socket.as_ref().map(|socket| PollFd::new(socket, PollFlags::IN)));
        // Whatever it says, the loop looks at everything.
        let _ = poll(&mut fds, timeout.as_ref());
        let _ = (&self.wake).read(&mut [0; 16]);
    }
}

/// A socket at this address that others may be bound to as well, as long as it does not listen.
fn bound(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}
