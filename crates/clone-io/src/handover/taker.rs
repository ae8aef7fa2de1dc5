// SPDX-License-Identifier: GPL-2.0-only

//! The end that gets files.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use zeroize::Zeroizing;

use super::message::{
    COPIED, FILE, HALF, NAMESPACE, address, receive, send_descriptor, socket, wait,
};
use super::peer::{check_handover, is_same_user, mount_namespace};
use crate::descriptors::check_free_descriptors;

/// The most connections that may wait for the taker. One is needed. If other processes take all
/// places, the giver cannot connect, and no files are handed over.
const BACKLOG: i32 = 16;

/// How long a connection may take to send the secret. The giver sends it at once.
const GREETING: Duration = Duration::from_millis(100);

/// The end that gets files.
pub struct FileTaker {
    key: Zeroizing<[u8; 2 * HALF]>,
    pub(super) giver: Giver,
}

/// The taker's socket.
#[derive(Debug)]
pub(super) enum Giver {
    /// Listens for the giver.
    Awaited(OwnedFd),
    /// The giver has connected and knows the secret. There is no listener any more.
    Connected(Arc<OwnedFd>),
}

/// A file that was handed over. If it is dropped without [`confirm_copy`](Self::confirm_copy), the
/// giver learns that no more files are wanted.
#[derive(Debug)]
pub struct TakenFile {
    file: OwnedFd,
    giver: Option<Arc<OwnedFd>>,
}

impl fmt::Debug for FileTaker {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTaker").field("giver", &self.giver).finish_non_exhaustive()
    }
}

impl FileTaker {
    /// Listens under a new name.
    ///
    /// # Errors
    /// The operating system's, that of [`check_handover`], and EMFILE if fewer than
    /// [`FREE_DESCRIPTORS`](crate::FREE_DESCRIPTORS) are free.
    pub fn listen() -> io::Result<Self> {
        check_handover()?;
        let mut key = Zeroizing::new([0; 2 * HALF]);
        if rustix::rand::getrandom(&mut *key, rustix::rand::GetRandomFlags::empty())? != key.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let listener = socket()?;
        // Counted after the socket is open, so that threads which begin together count each other's
        // sockets.
        check_free_descriptors()?;
        rustix::net::bind(&listener, &address(&key)?)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self { key, giver: Giver::Awaited(listener) })
    }

    /// The key. Only the giver may learn it.
    pub fn key(&self) -> [u8; 2 * HALF] {
        *self.key
    }

    /// Waits for the next file, at most `limit`. The block to copy begins at the file's current
    /// offset.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], [`io::ErrorKind::UnexpectedEof`] if the
    /// giver is gone, and [`io::ErrorKind::InvalidData`] if the giver sent something else than a
    /// regular file.
    pub fn take(&mut self, limit: Duration) -> io::Result<TakenFile> {
        let deadline = Instant::now() + limit;
        let giver = match &self.giver {
            Giver::Connected(giver) => Arc::clone(giver),
            Giver::Awaited(listener) => {
                let giver = Arc::new(self.accept(listener, deadline)?);
                send_descriptor(giver.as_fd(), NAMESPACE, mount_namespace()?.as_fd())?;
                self.giver = Giver::Connected(Arc::clone(&giver));
                giver
            }
        };
        let message = loop {
            match receive(giver.as_fd()) {
                Ok(message) => break message,
                Err(Errno::AGAIN) => wait(giver.as_fd(), deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let (byte, file) = message.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let file = file.filter(|_| byte == FILE);
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        // Reading from something else, such as a pipe, could wait for ever.
        let facts = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(TakenFile { file, giver: Some(giver) })
    }

    /// Accepts the first connection of a process of our own user that knows the secret. Closes the
    /// others.
    pub(super) fn accept(&self, listener: &OwnedFd, deadline: Instant) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(listener, flags) {
                Ok(giver)
                    if is_same_user(giver.as_fd()) && self.is_greeted_by(&giver, deadline) =>
                {
                    return Ok(giver);
                }
                // The deadline is checked here, too, because strangers may connect faster than they
                // are refused.
                Ok(_) if Instant::now() >= deadline => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => wait(listener.as_fd(), deadline)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns true if the connection begins with the secret, before the deadline.
    fn is_greeted_by(&self, giver: &OwnedFd, deadline: Instant) -> bool {
        let deadline = deadline.min(Instant::now() + GREETING);
        let mut secret = Zeroizing::new([0; HALF]);
        let mut filled = 0;
        while filled < HALF {
            match rustix::net::recv(giver, &mut secret[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((count, _)) => filled += count,
                Err(Errno::AGAIN) if wait(giver.as_fd(), deadline).is_ok() => {}
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        *secret == self.key[HALF..]
    }
}

impl TakenFile {
    /// Tells the giver that the block has been copied. If the giver is gone, the clone's connection
    /// shows that.
    pub fn confirm_copy(mut self) {
        if let Some(giver) = self.giver.take() {
            // The socket always has room for one byte: the giver reads each byte before it hands
            // over the next file.
            let _ = rustix::net::send(&giver, &[COPIED], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

impl AsFd for TakenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for TakenFile {
    fn drop(&mut self) {
        if let Some(giver) = &self.giver {
            let _ = rustix::net::shutdown(giver, Shutdown::Both);
        }
    }
}
