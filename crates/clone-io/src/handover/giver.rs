// SPDX-License-Identifier: GPL-2.0-only

//! The end that gives files.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use zeroize::Zeroizing;

use super::message::{
    COPIED, FILE, HALF, NAMESPACE, address, poll_until, receive, send_descriptor, socket,
};
use super::peer::{check_handover, is_our_mount_namespace, is_same_user};
use crate::descriptors::check_free_descriptors;

/// The longest wait before `is_over` is asked again.
const SLICE: Duration = Duration::from_millis(100);

/// The end that gives files.
#[derive(Debug)]
pub struct FileGiver {
    pub(super) taker: OwnedFd,
    /// The taker has proved that it is of our mount namespace.
    is_neighbour: Cell<bool>,
}

/// How a wait for the taker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The block has been copied.
    Copied,
    /// The taker is gone, or has no use for files any more. It knows that this block is missing.
    Refused,
    /// The caller did not want to wait any longer.
    Stopped,
}

impl FileGiver {
    /// Connects to the taker of this key. Fails if the taker is gone, or on another machine.
    ///
    /// # Errors
    /// The operating system's, that of [`check_handover`], and EMFILE if fewer than
    /// [`FREE_DESCRIPTORS`](crate::FREE_DESCRIPTORS) are free;
    /// [`io::ErrorKind::PermissionDenied`] if a process of another user listens.
    pub fn connect(key: [u8; 2 * HALF]) -> io::Result<Self> {
        check_handover()?;
        let key = Zeroizing::new(key);
        let taker = socket()?;
        check_free_descriptors()?;
        rustix::net::connect(&taker, &address(&key)?)?;
        if !is_same_user(taker.as_fd()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // An empty socket takes these few bytes at once.
        if rustix::net::send(&taker, &key[HALF..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?
            != HALF
        {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(Self { taker, is_neighbour: Cell::new(false) })
    }

    /// Sends the file. The taker copies a block from the file's current offset on. The file should
    /// be open for reading only. [`wait`](Self::wait) must follow, with the same file.
    ///
    /// The first file is sent by `wait`, after the taker has proved its mount namespace. The taker
    /// sends the proof when it takes the first file. So between `give` and `wait` the caller must
    /// tell the taker to take a file.
    ///
    /// # Errors
    /// The operating system's. The taker has received nothing.
    pub fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        if !self.is_neighbour.get() {
            return Ok(());
        }
        send_descriptor(self.taker.as_fd(), FILE, file)
    }

    /// Waits until the taker has copied the block that ends at `end`, and at most `limit`.
    /// `is_over` is asked ten times a second. If it returns true, the wait ends.
    ///
    /// Afterwards the file's offset is at the end of the block. If the taker refused the block or
    /// must not have files, `wait` puts the offset there.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], and [`io::ErrorKind::InvalidData`] if
    /// the taker says that it has copied the block, but the offset is not at the end of the block.
    pub fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        limit: Duration,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken> {
        let deadline = Instant::now() + limit;
        if !self.is_neighbour.get() {
            match self.answer(deadline, is_over)? {
                Answer::Stopped => return Ok(Taken::Stopped),
                Answer::Byte(NAMESPACE, Some(namespace))
                    if is_our_mount_namespace(namespace.as_fd()) =>
                {
                    self.is_neighbour.set(true);
                    if self.give(file).is_err() {
                        return self.refused(file, end);
                    }
                }
                Answer::Byte(..) | Answer::End => return self.refused(file, end),
            }
        }
        match self.answer(deadline, is_over)? {
            Answer::Stopped => Ok(Taken::Stopped),
            Answer::End => self.refused(file, end),
            Answer::Byte(COPIED, None) if rustix::fs::tell(file)? == end => Ok(Taken::Copied),
            Answer::Byte(..) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for the taker's next message.
    fn answer(&self, deadline: Instant, is_over: &mut dyn FnMut() -> bool) -> io::Result<Answer> {
        loop {
            match receive(self.taker.as_fd()) {
                Ok(Some((byte, descriptor))) => return Ok(Answer::Byte(byte, descriptor)),
                Ok(None) | Err(Errno::CONNRESET) => return Ok(Answer::End),
                // The taker's proof cannot be had.
                Err(Errno::MFILE) => return Ok(Answer::End),
                Err(Errno::AGAIN) if is_over() => return Ok(Answer::Stopped),
                Err(Errno::AGAIN) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    poll_until(self.taker.as_fd(), deadline.min(now + SLICE))?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts the file's offset behind the block, and closes the connection, so that the taker waits
    /// for no more files.
    fn refused(&self, file: BorrowedFd<'_>, end: u64) -> io::Result<Taken> {
        // This fails if the taker is gone.
        let _ = rustix::net::shutdown(&self.taker, Shutdown::Both);
        rustix::fs::seek(file, SeekFrom::Start(end))?;
        Ok(Taken::Refused)
    }
}

/// The taker's answer.
enum Answer {
    /// A byte, perhaps with a descriptor.
    Byte(u8, Option<OwnedFd>),
    /// The taker is gone.
    End,
    /// The caller did not want to wait any longer.
    Stopped,
}
