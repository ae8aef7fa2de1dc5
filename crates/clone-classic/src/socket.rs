// SPDX-License-Identifier: GPL-2.0-only

//! A connected socket whose waits have an end: a time-out, a deadline, or the caller's wish.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::error::Error;

/// True: end the wait.
pub(crate) type Cancel = Arc<dyn Fn() -> bool + Send + Sync>;

/// How often the caller is asked whether to go on.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(100);

/// TCP keep-alive finds a peer that is gone after this idle time.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long waits may be.
#[derive(Clone)]
pub(crate) struct Waits {
    /// The longest wait for the peer to send or take something.
    pub(crate) timeout: Duration,
    /// The end of all waits.
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Cancel,
}

impl Waits {
    /// Waits until `fd` is ready.
    ///
    /// # Errors
    /// [`Interrupted::Cancelled`]; [`io::ErrorKind::TimedOut`].
    pub(crate) fn ready(&self, fd: BorrowedFd<'_>, events: PollFlags) -> Result<(), Interrupted> {
        let end = Instant::now().checked_add(self.timeout);
        let end = [end, self.deadline].into_iter().flatten().min();
        loop {
            if (self.cancel)() {
                return Err(Interrupted::Cancelled);
            }
            let left = end.map_or(ASK_EVERY, |end| end.saturating_duration_since(Instant::now()));
            let slice = left.min(ASK_EVERY);
            let limit = Timespec::try_from(slice).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&fd, events)], Some(&limit)) {
                Ok(0) if left <= ASK_EVERY && end.is_some() => {
                    return Err(Interrupted::Io(io::ErrorKind::TimedOut.into()));
                }
                Ok(0) | Err(Errno::INTR) => {}
                // The next call reports an error or the end of the connection.
                Ok(_) => return Ok(()),
                Err(error) => return Err(Interrupted::Io(error.into())),
            }
        }
    }
}

/// Why a wait ended without success.
#[derive(Debug)]
pub(crate) enum Interrupted {
    Cancelled,
    Io(io::Error),
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<io::ErrorKind> for Interrupted {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

impl Interrupted {
    /// The error of a connection that broke in this way.
    pub(crate) fn into_error(self, when: &str) -> Error {
        match self {
            Self::Cancelled => Error::Cancelled,
            Self::Io(error) => Error::lost(when, &error),
        }
    }
}

/// A connected socket, TCP or Unix.
pub(crate) struct Socket {
    socket: socket2::Socket,
    pub(crate) waits: Waits,
    /// When the caller was last asked.
    asked: Instant,
    is_tcp: bool,
}

impl Socket {
    /// Takes over a connected socket.
    pub(crate) fn new(socket: socket2::Socket, waits: Waits, is_tcp: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if is_tcp {
            socket.set_tcp_nodelay(true)?;
            let keep_alive = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE);
            socket.set_tcp_keepalive(&keep_alive)?;
        }
        Ok(Self { socket, waits, asked: Instant::now(), is_tcp })
    }

    /// Whether this is TCP, not a Unix socket.
    pub(crate) fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// Reads some bytes, at least one.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the peer has closed the connection.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Interrupted> {
        self.ask()?;
        loop {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => return Ok(count),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Interrupted::Io(error.into())),
            }
        }
    }

    /// Sends all of `data`; with `more` the kernel may hold it back until more follows.
    pub(crate) fn write_all(&mut self, mut data: &[u8], more: bool) -> Result<(), Interrupted> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        while !data.is_empty() {
            self.ask()?;
            match rustix::net::send(&self.socket, data, flags) {
                Ok(count) => data = &data[count..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Interrupted::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Ends the connection in both directions.
    pub(crate) fn shut_down(&self) {
        // The connection may be closed already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    fn wait(&mut self, events: PollFlags) -> Result<(), Interrupted> {
        self.waits.ready(self.socket.as_fd(), events)?;
        self.asked = Instant::now();
        Ok(())
    }

    /// A peer that always has something to say must not keep the caller from ending the work.
    fn ask(&mut self) -> Result<(), Interrupted> {
        let now = Instant::now();
        if now.duration_since(self.asked) >= ASK_EVERY {
            self.asked = now;
            if (self.waits.cancel)() {
                return Err(Interrupted::Cancelled);
            }
            if self.waits.deadline.is_some_and(|deadline| now >= deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
