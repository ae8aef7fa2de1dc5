// SPDX-License-Identifier: GPL-2.0-only

//! From an address to a connected socket.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Type};

use crate::error::Error;
use crate::options::{Address, ConnectOptions};
use crate::socket::{ASK_EVERY, Interrupted, Socket, Waits};

/// Connects to the first address that answers.
pub(crate) fn connect(options: &ConnectOptions) -> Result<Socket, Error> {
    let timeout = options.connect_timeout;
    let waits = Waits { timeout, deadline: None, cancel: options.cancel.clone() };
    match &options.address {
        Address::Socket(path) => connect_socket(path, waits),
        Address::Tcp { host, port } => {
            let mut failed = Error::Network {
                number: 2005,
                text: format!("Unknown MySQL server host '{host}' (no address)"),
                kind: ErrorKind::NotFound,
            };
            for address in resolve(host, *port, &waits)? {
                match dial(Domain::for_address(address), &address.into(), &waits) {
                    Ok(socket) => {
                        return Socket::new(socket, waits, true)
                            .map_err(|error| unreachable_host(host, *port, &error));
                    }
                    Err(Interrupted::Cancelled) => return Err(Error::Cancelled),
                    Err(Interrupted::Io(error)) => failed = unreachable_host(host, *port, &error),
                }
            }
            Err(failed)
        }
    }
}

fn connect_socket(path: &Path, waits: Waits) -> Result<Socket, Error> {
    let failed = |error: io::Error| Error::Network {
        number: 2002,
        text: format!(
            "Can't connect to local MySQL server through socket '{}' ({})",
            path.display(),
            reason(&error)
        ),
        kind: error.kind(),
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    match dial(Domain::UNIX, &address, &waits) {
        Ok(socket) => Socket::new(socket, waits, false).map_err(failed),
        Err(Interrupted::Cancelled) => Err(Error::Cancelled),
        Err(Interrupted::Io(error)) => Err(failed(error)),
    }
}

fn unreachable_host(host: &str, port: u16, error: &io::Error) -> Error {
    let text = format!("Can't connect to MySQL server on '{host}:{port}' ({})", reason(error));
    Error::Network { number: 2003, text, kind: error.kind() }
}

/// The operating system's number, as MySQL's clients show it, and what it means.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = error.to_string();
            // The number stands at the end of the standard library's text, too.
            let text = text.split(" (os error").next().unwrap_or(&text);
            format!("{number}: {text}")
        }
        None if error.kind() == ErrorKind::TimedOut => "110: no answer in time".into(),
        None => error.to_string(),
    }
}

/// The addresses of a name. The resolver cannot be interrupted, so another thread asks it.
fn resolve(host: &str, port: u16, waits: &Waits) -> Result<Vec<SocketAddr>, Error> {
    let unknown = |error: io::Error| {
        let text = error.to_string();
        let reason = text.rsplit(": ").next().unwrap_or_default();
        let text = format!("Unknown MySQL server host '{host}' ({reason})");
        Error::Network { number: 2005, text, kind: error.kind() }
    };
    let (sender, receiver) = channel();
    let name = host.to_owned();
    thread::Builder::new()
        .name("resolve".into())
        .spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            // The one who asked may have gone.
            let _ = sender.send(found.map(Iterator::collect::<Vec<_>>));
        })
        .map_err(unknown)?;
    let started = Instant::now();
    loop {
        match receiver.recv_timeout(ASK_EVERY) {
            Ok(found) => return found.map_err(unknown),
            Err(RecvTimeoutError::Disconnected) => return Err(unknown(ErrorKind::Other.into())),
            Err(RecvTimeoutError::Timeout) if (waits.cancel)() => return Err(Error::Cancelled),
            Err(RecvTimeoutError::Timeout) if started.elapsed() >= waits.timeout => {
                return Err(unknown(io::Error::new(ErrorKind::TimedOut, "no answer in time")));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Connects to one address.
fn dial(domain: Domain, address: &SockAddr, waits: &Waits) -> Result<socket2::Socket, Interrupted> {
    let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => return Ok(socket),
        // A Unix socket says EAGAIN when the server's queue is full. There is nothing to wait for.
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error.into()),
    }
    waits.ready(socket.as_fd(), PollFlags::OUT)?;
    match socket.take_error()? {
        None => Ok(socket),
        Some(error) => Err(error.into()),
    }
}
