// SPDX-License-Identifier: GPL-2.0-only

//! Where recipients connect.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::handshake::handshake;
use super::options::ServerOptions;
use super::session::Session;
use crate::error::Error;
use crate::socket::{Cancel, Interrupted, Socket, Waits};
use crate::stream::Stream;

/// A TCP port on which the server listens.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Listens. With port 0 the operating system chooses the port.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address)?.try_into()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next connection. Nothing is read from it yet: a peer that says nothing does
    /// not keep others waiting if the caller makes the handshake in a thread of its own. The caller
    /// limits the number of these threads.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or [`Error::Network`], for example with too many open files.
    pub fn accept(&self, cancel: &Cancel) -> Result<Incoming, Error> {
        let waits = Waits { timeout: Duration::MAX, deadline: None, cancel: cancel.clone() };
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => return Ok(Incoming { stream, peer, since: Instant::now() }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    waits.ready(self.listener.as_fd(), PollFlags::IN).map_err(
                        |cause| match cause {
                            Interrupted::Cancelled => Error::Cancelled,
                            Interrupted::Io(error) => failed(&error),
                        },
                    )?;
                }
                // The peer has gone meanwhile.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

/// A socket that listens already, for example one that systemd has opened.
impl TryFrom<TcpListener> for Listener {
    type Error = io::Error;

    fn try_from(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }
}

fn failed(error: &io::Error) -> Error {
    let text = format!("a connection cannot be accepted: {error}");
    Error::Network { number: 2013, text, kind: error.kind() }
}

/// A connection of somebody who has not said anything yet.
#[derive(Debug)]
pub struct Incoming {
    stream: TcpStream,
    peer: SocketAddr,
    since: Instant,
}

impl Incoming {
    /// Who connected.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Greets the peer, starts TLS, and lets the peer log in. `id` is the connection's id, which
    /// KILL takes: different for all connections that are open, not 0.
    ///
    /// # Errors
    /// [`Error::Server`] with what the peer was told: 1045 for a wrong user or password, 3159
    /// without TLS. Otherwise what broke the connection.
    pub fn handshake(self, options: &ServerOptions, id: u32) -> Result<Session, Error> {
        let waits = Waits {
            timeout: options.handshake_timeout,
            deadline: self.since.checked_add(options.handshake_timeout),
            cancel: options.cancel.clone(),
        };
        let socket =
            Socket::new(self.stream.into(), waits, true).map_err(|error| failed(&error))?;
        handshake(Stream::Plain(socket), options, id, self.peer).map_err(Error::of_client)
    }
}
