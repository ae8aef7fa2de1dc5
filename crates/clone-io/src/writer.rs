// SPDX-License-Identifier: GPL-2.0-only

//! Writes files for the tasks of one clone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FallocateFlags;

use crate::ahead::{begin_reading, begin_write_back};
use crate::buffer::AlignedBuffer;
use crate::copy::{CopyError, copy_file_to_file};
use crate::file::{seek, write_all, write_all_at, write_parts_at};
use crate::file_facts::is_direct;
use crate::sparse::{Sparse, islands_of};

/// Number of locks. Files whose inode numbers differ by a multiple of this share a lock.
const LOCKS: usize = 64;

/// Writes the files of one clone. All tasks of the clone share it.
///
/// Tasks that write the same file through the operating system's cache take turns. The kernel lets
/// one writer at a time into such a file and makes the others spin: two tasks then use nearly twice
/// the processor time and are no faster. Direct I/O needs no turns.
#[derive(Debug)]
pub struct FileWriter {
    locks: [Mutex<()>; LOCKS],
}

impl Default for FileWriter {
    fn default() -> Self {
        Self { locks: [const { Mutex::new(()) }; LOCKS] }
    }
}

impl FileWriter {
    /// Writes all of `data` at the file's current offset.
    ///
    /// # Errors
    /// The operating system's, or [`io::ErrorKind::WriteZero`].
    pub fn write_all(&self, to: BorrowedFd<'_>, data: &[u8]) -> io::Result<()> {
        let turn = self.turn(to);
        let written = write_all(to, data);
        end(turn, to, data.len() as u64);
        written
    }

    /// Writes a block at the file's current offset, which was at or behind the end of the file
    /// ([`extends`]). Allocates the block's space, which then reads as zeros, and writes only its
    /// islands. A block that is one island, or whose space the file system cannot allocate, is
    /// written whole.
    ///
    /// Another task may make the file longer meanwhile. Nobody else writes in this block's place,
    /// so the place is a hole then.
    ///
    /// # Errors
    /// The operating system's, or [`io::ErrorKind::WriteZero`].
    pub fn write_islands(&self, to: BorrowedFd<'_>, block: &[u8]) -> io::Result<()> {
        let (start, len) = (rustix::fs::tell(to)?, block.len() as u64);
        let is_one_island = islands_of(block).next() == Some(0..block.len());
        let turn = self.turn(to);
        let written = if !is_one_island && allocate(to, start, len) {
            islands_of(block)
                .try_for_each(|island| {
                    let at = start + island.start as u64;
                    write_all_at(to, &block[island], at)
                })
                .and_then(|()| seek(to, start + len))
        } else {
            write_all(to, block)
        };
        end(turn, to, len);
        written
    }

    /// Like [`write_islands`](Self::write_islands), for a sparse block. If its space cannot be
    /// allocated, it is unpacked into `buffer`.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::OutOfMemory`].
    pub fn write_sparse(
        &self,
        to: BorrowedFd<'_>,
        block: &Sparse<'_>,
        buffer: &mut AlignedBuffer,
    ) -> io::Result<()> {
        let (start, len) = (rustix::fs::tell(to)?, block.len() as u64);
        let turn = self.turn(to);
        let written = if block.is_one_island() || allocate(to, start, len) {
            block
                .islands(|at, parts| write_parts_at(to, parts, start + at as u64))
                .and_then(|()| seek(to, start + len))
        } else {
            buffer.aligned(block.len()).and_then(|bytes| {
                block.unpack(bytes);
                write_all(to, bytes)
            })
        };
        end(turn, to, len);
        written
    }

    /// Copies `len` bytes from the current offset of `from` to that of `to`; see
    /// [`copy_file_to_file`].
    ///
    /// # Errors
    /// As [`copy_file_to_file`]'s.
    pub fn copy(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        len: u64,
        inside_kernel: bool,
        buffer: &mut AlignedBuffer,
        piece: usize,
    ) -> Result<(), CopyError> {
        let turn = self.turn(to);
        if turn.is_some() && len >= LARGE {
            // The disk reads the next block while this one is written.
            begin_reading(from, len);
        }
        let copied = copy_file_to_file(from, to, len, inside_kernel, buffer, piece);
        end(turn, to, len);
        copied
    }

    /// Waits for the task's turn to write the file through the cache. None for direct I/O.
    fn turn(&self, file: BorrowedFd<'_>) -> Option<MutexGuard<'_, ()>> {
        if is_direct(file) {
            return None;
        }
        let number = rustix::fs::fstat(file).ok()?.st_ino;
        let lock = self.locks.get(usize::try_from(number % LOCKS as u64).ok()?)?;
        // The lock guards nothing in memory: a task that panicked leaves nothing wrong.
        Some(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Allocates `len` bytes of a file from `start` on, which read as zeros. False if the file system
/// cannot.
fn allocate(file: BorrowedFd<'_>, start: u64, len: u64) -> bool {
    len == 0 || rustix::fs::fallocate(file, FallocateFlags::empty(), start, len).is_ok()
}

/// Whether a block at the file's current offset lies at or behind the end of the file.
pub fn extends(file: BorrowedFd<'_>) -> bool {
    match (rustix::fs::tell(file), rustix::fs::fstat(file)) {
        (Ok(offset), Ok(facts)) => u64::try_from(facts.st_size).is_ok_and(|size| size <= offset),
        _ => false,
    }
}

/// Ends a task's turn after a block of `len` bytes. Starts writing a large block from the cache to
/// the disk, so that not all data is left for FILE SYNC.
fn end(turn: Option<MutexGuard<'_, ()>>, to: BorrowedFd<'_>, len: u64) {
    let was_cached = turn.is_some();
    drop(turn);
    if was_cached && len >= LARGE {
        begin_write_back(to, len);
    }
}

/// The least bytes of a block for which disk I/O is started early. PAGE COPY writes single pages,
/// and the neighbours of a page follow soon.
const LARGE: u64 = 256 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn one_file_has_one_turn_at_a_time() {
        let writer = FileWriter::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = file.reopen().unwrap();
        let turn = writer.turn(file.as_file().as_fd()).unwrap();
        let is_free = |lock: &Mutex<()>| lock.try_lock().is_ok();
        assert_eq!(writer.locks.iter().filter(|lock| !is_free(lock)).count(), 1);
        drop(turn);
        assert!(writer.locks.iter().all(is_free));
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
    fn pages_of_zeros_are_allocated_and_not_written() {
        let mut block = vec![0; 10 * 4096 + 700];
        block[4096] = 1;
        block[5 * 4096 - 1] = 2;
        for parent in ["/dev/shm", "/var/tmp"] {
            let mut to = tempfile::tempfile_in(parent).unwrap();
            let writer = FileWriter::default();
            writer.write_islands(to.as_fd(), &block).unwrap();
            writer.write_islands(to.as_fd(), &[7; 5000]).unwrap();
            writer.write_islands(to.as_fd(), &[]).unwrap();
            let len = block.len() as u64 + 5000;
            assert_eq!(to.stream_position().unwrap(), len, "{parent}");
            assert!(to.metadata().unwrap().blocks() * 512 >= len, "{parent}");
            // What is allocated and was never written counts as a hole.
            use rustix::fs::{SeekFrom::*, seek};
            let data = [Data(0), Hole(4096), Data(2 * 4096)].map(|from| seek(&to, from).unwrap());
            assert_eq!(data, [4096, 2 * 4096, 4 * 4096], "{parent}");
            let mut written = Vec::new();
            to.rewind().unwrap();
            to.read_to_end(&mut written).unwrap();
            assert!(written == [&block[..], &[7; 5000]].concat(), "{parent}");
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = FileWriter::default().write_islands(full.as_fd(), &block).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_sparse_block_is_written_whole() {
        let mut block = vec![0; 3 * 4096 + 700];
        block[4096] = 1;
        block[3 * 4096 + 699] = 2;
        block[4096 + 512] = 3;
        let mut packed = vec![0, 3, 0, 2];
        packed.extend_from_slice(&block[4096..4096 + 1024]);
        packed.extend_from_slice(&block[3 * 4096 + 512..]);
        let sparse = Sparse::parse(&packed, block.len()).unwrap();
        let nothing = Sparse::parse(&[], 0).unwrap();
        let mut buffer = AlignedBuffer::new();
        for parent in ["/dev/shm", "/var/tmp"] {
            let directory = tempfile::tempdir_in(parent).unwrap();
            let path = directory.path().join("to");
            let mut to =
                File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            let writer = FileWriter::default();
            let len = block.len() as u64;
            assert!(extends(to.as_fd()));
            writer.write_sparse(to.as_fd(), &sparse, &mut buffer).unwrap();
            assert_eq!(to.stream_position().unwrap(), len, "{parent}");
            assert!(std::fs::read(&path).unwrap() == block, "{parent}");

            to.seek(SeekFrom::Start(len - 1)).unwrap();
            assert!(!extends(to.as_fd()), "a byte is there");
            to.seek(SeekFrom::Start(len + 5)).unwrap();
            assert!(extends(to.as_fd()));
            writer.write_sparse(to.as_fd(), &sparse, &mut buffer).unwrap();
            let with_gap = [&block[..], &[0; 5], &block].concat();
            assert!(std::fs::read(&path).unwrap() == with_gap, "{parent}");
            writer.write_sparse(to.as_fd(), &nothing, &mut buffer).unwrap();
            assert_eq!(to.metadata().unwrap().len(), with_gap.len() as u64);
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let writer = FileWriter::default();
        let error = writer.write_sparse(full.as_fd(), &sparse, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
