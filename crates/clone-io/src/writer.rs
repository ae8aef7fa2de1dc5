// SPDX-License-Identifier: GPL-2.0-only

//! What the tasks of one clone share when they write.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::process::Pid;
use rustix::thread::gettid;

use crate::ahead::{begin_reading, begin_write_back};
use crate::buffer::AlignedBuffer;
use crate::copy::{CopyError, copy_file_to_file};
use crate::direct::{can_reflink, is_copied_through_memory, lift_direct};
use crate::file::{write_all, write_parts_at};
use crate::sparse::Sparse;
use crate::zeros::end_of_zeros;

/// Files whose numbers differ by a multiple of this take turns with each other, for nothing.
const TURNS: usize = 64;

/// The files that the tasks of one clone write.
///
/// Tasks that write the same file through the operating system's cache take turns. The kernel lets only one of them in anyway, but has
/// the others spin: two tasks that copy one file in memory take 0.66 s of processors' time for a GiB like that, and 0.39 s in turn, in
/// the same time (`docs/performance.md`).
///
/// A task that copies from file to file lets another one get ahead that is at work in the same file. Engines give out the pieces of a
/// file one after the other, so that the tasks would go through all files side by side, and each file at the speed of one. If one of them
/// waits for a piece, from then on they are in different files.
#[derive(Debug)]
pub struct FileWriter {
    turns: [Mutex<Turn>; TURNS],
    reflinks: OnceLock<bool>,
}

/// Who had a turn last, and until when. The standard library's number of a thread would leave a destructor with the server's threads, which
/// run it when they end: the plugin may be gone by then.
#[derive(Debug)]
struct Turn(Option<(Pid, Instant)>);

impl Turn {
    /// Whether no other task is at work: between two blocks it is away for a moment.
    fn is_free_for(&self, task: Pid) -> bool {
        const MOMENT: Duration = Duration::from_millis(1);
        self.0.is_none_or(|(last, until)| last == task || until.elapsed() >= MOMENT)
    }
}

impl Default for FileWriter {
    fn default() -> Self {
        Self { turns: [const { Mutex::new(Turn(None)) }; TURNS], reflinks: OnceLock::new() }
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
        let Some(turn) = self.turn_of(to) else { return write_all(to, data) };
        in_turn(turn, to, data.len(), || write_all(to, data))
    }

    /// As [`write_all`](Self::write_all), a block that came without its zeros. Behind the end of a file in the cache they need not be
    /// written: there the block's space is allocated, which reads as zeros, and only pages that have something in them are written.
    /// Elsewhere it is unpacked into `buffer` first.
    ///
    /// # Errors
    /// As there.
    pub fn write_sparse(
        &self,
        to: BorrowedFd<'_>,
        block: &Sparse<'_>,
        buffer: &mut AlignedBuffer,
    ) -> io::Result<()> {
        let mut write_unpacked = || {
            let bytes = buffer.aligned(block.len());
            block.unpack(bytes);
            write_all(to, bytes)
        };
        let Some(turn) = self.turn_of(to) else { return write_unpacked() };
        in_turn(turn, to, block.len(), || match end_if_allocated(to, block.len() as u64) {
            Some(end) => write_islands(to, block, end),
            None => write_unpacked(),
        })
    }

    /// [`copy_file_to_file`], in turn. What would be copied through memory, and is nothing but zeros, is allocated as in
    /// [`write_sparse`](Self::write_sparse): InnoDB makes its files longer than they have to be, some MiB each.
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
        let is_large = len >= LARGE;
        let may_be_zeros = is_large && inside_kernel && is_copied_through_memory(from);
        let mut copy = || {
            if may_be_zeros && pass_zeros(from, to, len, buffer)? {
                return Ok(());
            }
            copy_file_to_file(from, to, len, inside_kernel, buffer, chunk)
        };
        let Some(turn) = self.turn_of(to) else { return copy() };
        if is_large {
            // The disk can read for the next ones while one writes.
            begin_reading(from, len);
        }
        let turn = if is_large { lock_patiently(turn) } else { lock(turn) };
        let copied = copy();
        end(turn, to, len);
        copied
    }

    /// Who may write the file. Direct I/O needs no turns: there the kernel lets several in, and the disk is the faster for it.
    fn turn_of(&self, file: BorrowedFd<'_>) -> Option<&Mutex<Turn>> {
        if lift_direct(file) {
            return None;
        }
        let number = rustix::fs::fstat(file).ok()?.st_ino;
        self.turns.get(usize::try_from(number % TURNS as u64).ok()?)
    }
}

/// Where the block of `len` bytes at the file's current offset ends; none if the file has something there.
fn end_if_behind(file: BorrowedFd<'_>, len: u64) -> Option<u64> {
    let (start, facts) = (rustix::fs::tell(file).ok()?, rustix::fs::fstat(file).ok()?);
    let is_behind = u64::try_from(facts.st_size).is_ok_and(|size| size <= start);
    start.checked_add(len).filter(|_| is_behind && len > 0)
}

/// As [`end_if_behind`], and allocates the block. None if the file system does not: then all of it has to be written.
fn end_if_allocated(file: BorrowedFd<'_>, len: u64) -> Option<u64> {
    end_if_behind(file, len).filter(|end| allocates(file, *end, len))
}

/// Allocates the `len` bytes before `end`, if the file system can.
fn allocates(file: BorrowedFd<'_>, end: u64, len: u64) -> bool {
    rustix::fs::fallocate(file, FallocateFlags::empty(), end - len, len).is_ok()
}

/// Moves both files past a block of `len` bytes that are all zeros, which is allocated at `to`. False if it has something in it, or has to be
/// written: then neither has moved.
fn pass_zeros(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    len: u64,
    buffer: &mut AlignedBuffer,
) -> Result<bool, CopyError> {
    let Some(end) = end_if_behind(to, len) else { return Ok(false) };
    let Some(behind) = end_of_zeros(from, len, buffer) else { return Ok(false) };
    if !allocates(to, end, len) {
        return Ok(false);
    }
    let seek = |file, offset| rustix::fs::seek(file, SeekFrom::Start(offset)).map(drop);
    seek(from, behind).map_err(|error| CopyError::Read(error.into()))?;
    seek(to, end).map_err(|error| CopyError::Write(error.into()))?;
    Ok(true)
}

/// Writes those pages of a block that ends at `end` which have something in them, and leaves the file's offset at the end.
fn write_islands(file: BorrowedFd<'_>, block: &Sparse<'_>, end: u64) -> io::Result<()> {
    let start = end - block.len() as u64;
    block.islands(|at, parts| write_parts_at(file, parts, start + at as u64))?;
    rustix::fs::seek(file, SeekFrom::Start(end))?;
    Ok(())
}

/// Has a block of `len` bytes written in turn.
fn in_turn(
    turn: &Mutex<Turn>,
    to: BorrowedFd<'_>,
    len: usize,
    write: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let turn = lock(turn);
    let written = write();
    end(turn, to, len as u64);
    written
}

/// What a turn guards is in the kernel: a task that panicked leaves nothing wrong.
fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a task that is at work in the file finish its piece of it: InnoDB's have 64 MiB, which takes 30 ms in memory.
fn lock_patiently(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    const PATIENCE: Duration = Duration::from_millis(60);
    const STEP: Duration = Duration::from_micros(500);
    let task = gettid();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(turn) = turn.try_lock()
            && turn.is_free_for(task)
        {
            return turn;
        }
        thread::sleep(STEP);
    }
    lock(turn)
}

/// A block of `len` bytes has been written.
fn end(mut turn: MutexGuard<'_, Turn>, to: BorrowedFd<'_>, len: u64) {
    if len < LARGE {
        return;
    }
    turn.0 = Some((gettid(), Instant::now()));
    drop(turn);
    begin_write_back(to, len);
}

/// Bytes of a block that are worth a write of their own, and a wait. PAGE COPY writes single pages, of which neighbours come soon, and small
/// tables have one block.
const LARGE: u64 = 256 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn one_file_has_one_turn_at_a_time() {
        let writer = FileWriter::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = file.reopen().unwrap();
        let turn = writer.turn_of(file.as_file().as_fd()).unwrap();
        assert!(std::ptr::eq(turn, writer.turn_of(other.as_fd()).unwrap()));
        let guard = lock(turn);
        assert!(turn.try_lock().is_err());
        drop(guard);
        writer.write_all(other.as_fd(), b"x").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"x");
    }

    #[test]
    fn a_task_lets_another_one_get_ahead_but_not_for_ever() {
        let own = gettid();
        let other = thread::spawn(gettid).join().unwrap();
        let waits = |last| {
            let turn = Mutex::new(Turn(last));
            let began = Instant::now();
            drop(lock_patiently(&turn));
            began.elapsed()
        };
        let moment = Duration::from_millis(1);
        // Nobody was there, or only this task itself, or another one is gone for long enough.
        assert!(Turn(None).is_free_for(own));
        assert!(Turn(Some((own, Instant::now()))).is_free_for(own));
        assert!(Turn(Some((other, Instant::now() - moment))).is_free_for(own));
        // Another one was there just now, and may be between two blocks; or it never leaves.
        assert!(waits(Some((other, Instant::now()))) >= moment / 2);
        let in_future = Instant::now() + Duration::from_secs(3600);
        assert!(waits(Some((other, in_future))) >= Duration::from_millis(60));
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

    /// In memory what was allocated and not written is a hole to `lseek` until somebody reads it.
    #[test]
    fn zeros_are_allocated_and_not_copied() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = directory.path().join("to");
        let len: usize = 1 << 20;
        let blocks = [vec![1; len], vec![0; len], vec![0; len], vec![2; len]];
        std::fs::write(directory.path().join("from"), blocks.concat()).unwrap();
        let from = File::open(directory.path().join("from")).unwrap();
        let to = File::create(&path).unwrap();
        let writer = FileWriter::default();
        let mut buffer = AlignedBuffer::new();
        let mut copy =
            || writer.copy(from.as_fd(), to.as_fd(), len as u64, true, &mut buffer, len).unwrap();
        copy();
        copy();
        let hole = rustix::fs::seek(&to, rustix::fs::SeekFrom::Hole(0)).unwrap();
        assert_eq!(hole, len as u64);
        // Where the third comes there is something already.
        rustix::fs::seek(&to, rustix::fs::SeekFrom::Start(2 * len as u64)).unwrap();
        write_all(to.as_fd(), b"something").unwrap();
        rustix::fs::seek(&to, rustix::fs::SeekFrom::Start(2 * len as u64)).unwrap();
        copy();
        copy();
        assert!(std::fs::read(&path).unwrap() == blocks.concat());
        let allocated = std::os::unix::fs::MetadataExt::blocks(&to.metadata().unwrap()) * 512;
        assert_eq!(allocated, 4 * len as u64);
    }

    /// A block behind the end of a file, one over what is there, and one behind a gap.
    #[test]
    fn what_is_sparse_is_written_whole() {
        let mut block = vec![0; 3 * 4096 + 700];
        block[4096] = 1;
        block[3 * 4096 + 699] = 2;
        let mut packed = vec![0, 1, 0, 2];
        packed.extend_from_slice(&block[4096..4096 + 512]);
        packed.extend_from_slice(&block[3 * 4096 + 512..]);
        let sparse = Sparse::parse(&packed, block.len()).unwrap();
        let nothing = Sparse::parse(&[], 0).unwrap();
        let mut buffer = AlignedBuffer::new();
        for parent in ["/dev/shm", "/var/tmp"] {
            let Ok(directory) = tempfile::tempdir_in(parent) else { continue };
            let path = directory.path().join("to");
            let mut to =
                File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            let writer = FileWriter::default();
            let len = block.len() as u64;
            assert_eq!(end_if_allocated(to.as_fd(), len), Some(len), "{parent}");
            assert_eq!(end_if_allocated(to.as_fd(), len), None, "it has something there");
            to.set_len(0).unwrap();
            writer.write_sparse(to.as_fd(), &sparse, &mut buffer).unwrap();
            assert_eq!(to.stream_position().unwrap(), block.len() as u64, "{parent}");
            assert!(std::fs::read(&path).unwrap() == block, "{parent}");

            writer.write_all(to.as_fd(), &vec![7; block.len()]).unwrap();
            to.seek(SeekFrom::Start(block.len() as u64 + 5)).unwrap();
            writer.write_sparse(to.as_fd(), &sparse, &mut buffer).unwrap();
            to.seek(SeekFrom::Current(3)).unwrap();
            writer.write_sparse(to.as_fd(), &sparse, &mut buffer).unwrap();
            let over = [&block[..], &[7; 5], &block, &[0; 3], &block].concat();
            assert!(std::fs::read(&path).unwrap() == over, "{parent}");
            writer.write_sparse(to.as_fd(), &nothing, &mut buffer).unwrap();
            assert_eq!(to.metadata().unwrap().len(), over.len() as u64);
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let writer = FileWriter::default();
        let error = writer.write_sparse(full.as_fd(), &sparse, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn files_in_memory_suit_the_kernel() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let from = File::create_new(directory.path().join("from")).unwrap();
        let to = File::create_new(directory.path().join("to")).unwrap();
        assert!(FileWriter::default().suits_kernel(from.as_fd(), to.as_fd()));
    }
}
