// SPDX-License-Identifier: GPL-2.0-only

//! Copies from file to file, inside the kernel where possible.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::buffer::AlignedBuffer;
use crate::file::{read_exact, write_all};

/// Which side of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// Reading the source; [`io::ErrorKind::UnexpectedEof`] when it ends too early.
    Read(io::Error),
    /// Writing the destination.
    Write(io::Error),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyError::Read(error) => write!(f, "read source: {error}"),
            CopyError::Write(error) => write!(f, "write destination: {error}"),
        }
    }
}

impl std::error::Error for CopyError {}

/// Copies exactly `len` bytes from the current offset of `from` to the current offset of `to`.
///
/// With `zero_copy` the kernel is asked first: `copy_file_range` (which a file system may turn into
/// a reflink), then `sendfile`, then reads and writes of at most `chunk` bytes through `buffer`.
/// Each way moves both offsets by the bytes that it has copied. So if a way fails, the next way
/// goes on and no byte is lost. The last way tells which side has failed.
///
/// # Errors
/// The side that failed, with the operating system's error.
pub fn copy_file_to_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    len: u64,
    zero_copy: bool,
    buffer: &mut AlignedBuffer,
    chunk: usize,
) -> Result<(), CopyError> {
    let mut left = len;
    if zero_copy {
        for way in &WAYS {
            if left == 0 {
                return Ok(());
            }
            way.run(from, to, &mut left);
        }
    }
    while left > 0 {
        let part = chunk.max(1).min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = buffer.aligned(part).map_err(CopyError::Read)?;
        read_exact(from, part).map_err(CopyError::Read)?;
        write_all(to, part).map_err(CopyError::Write)?;
        left -= part.len() as u64;
    }
    Ok(())
}

/// Copies `len` bytes of `from` at `from_offset` to `to` at `to_offset`. Where files can share
/// blocks and the range has whole ones, the kernel shares them and writes nothing. Both files keep
/// their current offsets.
///
/// # Errors
/// The operating system's; [`io::ErrorKind::UnexpectedEof`] if `from` ends too early.
pub fn share_range(
    from: BorrowedFd<'_>,
    from_offset: u64,
    to: BorrowedFd<'_>,
    to_offset: u64,
    len: u64,
) -> io::Result<()> {
    let (mut read_at, mut write_at, mut left) = (from_offset, to_offset, len);
    while left > 0 {
        let part = usize::try_from(left.min(MAX_CALL)).unwrap_or(usize::MAX);
        let (read, write) = (Some(&mut read_at), Some(&mut write_at));
        match rustix::fs::copy_file_range(from, read, to, write, part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => left -= count as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// One way of the kernel.
struct Way {
    call: fn(BorrowedFd<'_>, BorrowedFd<'_>, usize) -> rustix::io::Result<usize>,
    /// The kernel has no such call. Other failures depend on the two files, so they are not
    /// remembered.
    missing: AtomicBool,
}

static WAYS: [Way; 2] = [
    Way {
        call: |from, to, len| rustix::fs::copy_file_range(from, None, to, None, len),
        missing: AtomicBool::new(false),
    },
    Way {
        call: |from, to, len| rustix::fs::sendfile(to, from, None, len),
        missing: AtomicBool::new(false),
    },
];

/// One call moves at most this much (Linux: `MAX_RW_COUNT`, 2 GiB less a page).
const MAX_CALL: u64 = 0x7fff_f000;

impl Way {
    /// Moves as much of `left` as this way can.
    fn run(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, left: &mut u64) {
        if self.missing.load(Ordering::Relaxed) {
            return;
        }
        while *left > 0 {
            let len = usize::try_from((*left).min(MAX_CALL)).unwrap_or(usize::MAX);
            match (self.call)(from, to, len) {
                // The end of the file, or a file that the call cannot read.
                Ok(0) => return,
                Ok(count) => *left -= count as u64,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.missing.fetch_or(error == Errno::NOSYS, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn every_way_copies_from_offset_to_offset() {
        let data = pattern(3 << 20);
        for zero_copy in [true, false] {
            let mut from = tempfile::tempfile().unwrap();
            let mut to = tempfile::tempfile().unwrap();
            from.write_all(&data).unwrap();
            from.seek(SeekFrom::Start(100)).unwrap();
            to.seek(SeekFrom::Start(7)).unwrap();
            let len = data.len() as u64 - 200;
            let mut buffer = AlignedBuffer::new();
            copy_file_to_file(from.as_fd(), to.as_fd(), len, zero_copy, &mut buffer, 65536)
                .unwrap();
            to.rewind().unwrap();
            let mut copied = Vec::new();
            to.read_to_end(&mut copied).unwrap();
            assert_eq!(&copied[7..], &data[100..data.len() - 100], "zero copy: {zero_copy}");
        }
    }

    #[test]
    fn a_pair_of_files_that_the_kernel_refuses_falls_back() {
        // copy_file_range and sendfile both refuse to read a pipe.
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let mut to = tempfile::tempfile().unwrap();
        writer.write_all(&pattern(5000)).unwrap();
        drop(writer);
        copy_file_to_file(reader.as_fd(), to.as_fd(), 5000, true, &mut AlignedBuffer::new(), 4096)
            .unwrap();
        to.rewind().unwrap();
        let mut copied = Vec::new();
        to.read_to_end(&mut copied).unwrap();
        assert_eq!(copied, pattern(5000));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_range_is_copied_and_offsets_stay() {
        let mut from = tempfile::tempfile().unwrap();
        let mut to = tempfile::tempfile().unwrap();
        from.write_all(&pattern(20_000)).unwrap();
        to.write_all(b"0123456789").unwrap();
        share_range(from.as_fd(), 4096, to.as_fd(), 8192, 8192).unwrap();
        let mut copied = vec![0; 8192];
        to.write_all(b"x").unwrap();
        to.seek(SeekFrom::Start(8192)).unwrap();
        to.read_exact(&mut copied).unwrap();
        assert_eq!(copied, pattern(20_000)[4096..12_288]);
        to.rewind().unwrap();
        to.read_exact(&mut copied[..11]).unwrap();
        assert_eq!(&copied[..11], b"0123456789x");
        let short = share_range(from.as_fd(), 16_384, to.as_fd(), 0, 8192).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_source_that_is_too_short_is_an_error() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&pattern(1000)).unwrap();
        from.rewind().unwrap();
        let to = tempfile::tempfile().unwrap();
        let copied =
            copy_file_to_file(from.as_fd(), to.as_fd(), 1001, true, &mut AlignedBuffer::new(), 512);
        let Err(CopyError::Read(error)) = copied else { panic!("{copied:?}") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_full_disk_is_reported_with_its_errno() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&pattern(1000)).unwrap();
        from.rewind().unwrap();
        let to = File::options().write(true).open("/dev/full").unwrap();
        let copied =
            copy_file_to_file(from.as_fd(), to.as_fd(), 1000, true, &mut AlignedBuffer::new(), 512);
        let Err(CopyError::Write(error)) = copied else { panic!("{copied:?}") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
