// SPDX-License-Identifier: GPL-2.0-only

//! What the tasks of one clone share when they write.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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
        let _turn = self.turn(to);
        write_all(to, data)
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
        let _turn = self.turn(to);
        copy_file_to_file(from, to, len, inside_kernel, buffer, chunk)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
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
    fn files_in_memory_suit_the_kernel() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let from = std::fs::File::create_new(directory.path().join("from")).unwrap();
        let to = std::fs::File::create_new(directory.path().join("to")).unwrap();
        assert!(FileWriter::default().suits_kernel(from.as_fd(), to.as_fd()));
    }
}
