// SPDX-License-Identifier: GPL-2.0-only

//! The way of open files from a donor to a recipient on the same machine.
//!
//! [`clone_io::FileGiver`] and [`clone_io::FileTaker`] are one implementation, over a Unix socket.
//! A simulation is another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

pub use clone_io::Taken;

/// The donor's end.
pub trait FileGiver {
    /// Whether the file's file system may share blocks.
    fn may_share(&self, file: BorrowedFd<'_>) -> bool;

    /// Sends the file. The recipient copies a block from the file's current offset on.
    ///
    /// # Errors
    /// The operating system's. The recipient has received nothing.
    fn give(&self, file: BorrowedFd<'_>) -> io::Result<()>;

    /// Waits until the recipient has copied the block that ends at `end`, and at most `limit`.
    /// `is_over` is asked ten times a second. If it returns true, the wait ends.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], and [`io::ErrorKind::InvalidData`] if
    /// the recipient says that it has copied the block, and the file's offset is elsewhere.
    fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        limit: Duration,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken>;
}

/// The recipient's end.
pub trait FileTaker {
    /// The key. Only the donor may learn it.
    fn key(&self) -> [u8; 32];

    /// Whether files in `directory` can share the file's blocks.
    fn can_share(&self, file: BorrowedFd<'_>, directory: &Path) -> bool;

    /// Waits for the next file, at most `limit`.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`]; what came is no file.
    fn take(&mut self, limit: Duration) -> io::Result<Box<dyn TakenFile>>;
}

/// A file that was handed over. If it is dropped without [`confirm_copy`](Self::confirm_copy), the
/// donor learns that no more files are wanted.
pub trait TakenFile: AsFd {
    /// Says that the block has been copied. The donor goes on.
    fn confirm_copy(self: Box<Self>);
}

impl FileGiver for clone_io::FileGiver {
    fn may_share(&self, file: BorrowedFd<'_>) -> bool {
        clone_io::may_share_blocks(file)
    }

    fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        clone_io::FileGiver::give(self, file)
    }

    fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        limit: Duration,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken> {
        clone_io::FileGiver::wait(self, file, end, limit, is_over)
    }
}

impl FileTaker for clone_io::FileTaker {
    fn key(&self) -> [u8; 32] {
        clone_io::FileTaker::key(self)
    }

    fn can_share(&self, file: BorrowedFd<'_>, directory: &Path) -> bool {
        clone_io::can_share_blocks(file, directory)
    }

    fn take(&mut self, limit: Duration) -> io::Result<Box<dyn TakenFile>> {
        Ok(Box::new(clone_io::FileTaker::take(self, limit)?))
    }
}

impl TakenFile for clone_io::TakenFile {
    fn confirm_copy(self: Box<Self>) {
        clone_io::TakenFile::confirm_copy(*self);
    }
}
