// SPDX-License-Identifier: GPL-2.0-only

//! What the tasks of one clone share when they write.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::Advice;

use crate::buffer::AlignedBuffer;
use crate::copy::{CopyError, copy_file_to_file};
use crate::direct::{can_reflink, is_direct, lift_direct};
use crate::file::write_all;

/// Files whose numbers differ by a multiple of this take turns with each other, for nothing.
const TURNS: usize = 64;

/// The files that the tasks of one clone write.
///
/// Tasks that write the same file through the operating system's cache take turns. The kernel lets only one of them in anyway, but has
/// the others spin: two tasks that copy one file in memory take 0.66 s of processors' time for a GiB like that, and 0.39 s in turn, in
/// the same time (`docs/performance.md`).
#[derive(Debug)]
pub struct FileWriter {
    turns: [Mutex<()>; TURNS],
    reflinks: OnceLock<bool>,
}

impl Default for FileWriter {
    fn default() -> Self {
        Self { turns: [const { Mutex::new(()) }; TURNS], reflinks: OnceLock::new() }
    }
}

impl FileWriter {
    /// Whether a block is better moved by the kernel: through its cache, where the files are there, or by sharing the blocks on the
    /// disk, where the file system can (asked once). Otherwise direct I/O in large pieces is faster than what the kernel does, which
    /// is to copy 64 KiB at a time.
    pub fn suits_kernel(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
        let (from_disk, to_disk) = (lift_direct(from), lift_direct(to));
        if from_disk || to_disk {
            return *self.reflinks.get_or_init(|| can_reflink(from, to));
        }
        true
    }

    /// [`write_all`], in turn.
    ///
    /// # Errors
    /// As there.
    pub fn write_all(&self, to: BorrowedFd<'_>, data: &[u8]) -> io::Result<()> {
        let turn = self.turn(to);
        write_all(to, data)?;
        if turn.is_some() {
            begin_write_back(to, data.len() as u64);
        }
        Ok(())
    }

    /// [`copy_file_to_file`], in turn.
    ///
    /// # Errors
    /// As there.
    pub fn copy(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        len: u64,
        inside_kernel: bool,
        buffer: &mut AlignedBuffer,
        chunk: usize,
    ) -> Result<(), CopyError> {
        let turn = self.turn(to);
        copy_file_to_file(from, to, len, inside_kernel, buffer, chunk)?;
        if turn.is_some() {
            begin_write_back(to, len);
        }
        Ok(())
    }

    /// The right to write a file. Direct I/O needs none: there the kernel lets several in, and the disk is the faster for it.
    fn turn(&self, file: BorrowedFd<'_>) -> Option<MutexGuard<'_, ()>> {
        if is_direct(file) {
            return None;
        }
        let number = rustix::fs::fstat(file).ok()?.st_ino;
        let turn = &self.turns[usize::try_from(number % TURNS as u64).unwrap_or(0)];
        Some(turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Has the kernel begin to write to the disk what lies in its cache of the `len` bytes before the current offset, so that not all of it
/// is left for FILE SYNC, where every thread waits.
///
/// `POSIX_FADV_DONTNEED` does that before it drops pages that are written already; these, being new, are not.
fn begin_write_back(file: BorrowedFd<'_>, len: u64) {
    if len < WRITE_BACK {
        return;
    }
    let start = rustix::fs::tell(file).ok().and_then(|end| end.checked_sub(len));
    if let (Some(start), Some(len)) = (start, NonZeroU64::new(len)) {
        // If it does not, FILE SYNC takes longer.
        let _ = rustix::fs::fadvise(file, start, Some(len), Advice::DontNeed);
    }
}

/// Bytes that are worth a write of their own. PAGE COPY writes single pages, of which neighbours come soon.
const WRITE_BACK: u64 = 256 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn one_file_has_one_turn_at_a_time() {
        let writer = FileWriter::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = file.reopen().unwrap();
        let turn = writer.turn(file.as_file().as_fd()).unwrap();
        let taken = || writer.turns.iter().filter(|turn| turn.try_lock().is_err()).count();
        assert_eq!(taken(), 1);
        drop(turn);
        assert_eq!(taken(), 0);
        writer.write_all(other.as_fd(), b"x").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"x");
    }

    #[test]
    fn blocks_that_are_written_back_at_once_are_whole() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let (path, source) = (directory.path().join("to"), directory.path().join("from"));
        let block: Vec<u8> = (0..1 << 20).map(|i| (i * 31 % 251) as u8).collect();
        std::fs::write(&source, &block).unwrap();
        let (from, to) = (File::open(&source).unwrap(), File::create(&path).unwrap());
        let writer = FileWriter::default();
        writer.write_all(to.as_fd(), b"head").unwrap();
        writer.write_all(to.as_fd(), &block).unwrap();
        let mut buffer = AlignedBuffer::new();
        let len = block.len() as u64;
        writer.copy(from.as_fd(), to.as_fd(), len, true, &mut buffer, 1 << 16).unwrap();
        assert_eq!(rustix::fs::tell(&to).unwrap(), 4 + 2 * len);
        assert!(std::fs::read(&path).unwrap() == [b"head", &block[..], &block[..]].concat());
    }

    #[test]
    fn files_in_memory_suit_the_kernel() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let from = File::create_new(directory.path().join("from")).unwrap();
        let to = File::create_new(directory.path().join("to")).unwrap();
        assert!(FileWriter::default().suits_kernel(from.as_fd(), to.as_fd()));
    }
}
