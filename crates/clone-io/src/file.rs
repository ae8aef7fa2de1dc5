// SPDX-License-Identifier: GPL-2.0-only

//! Whole reads and writes at a file's current offset.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

/// Fills `buffer` from `file`.
///
/// # Errors
/// The operating system's, or [`io::ErrorKind::UnexpectedEof`] when the file ends too early.
pub fn read_exact(file: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(file, &mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Fills `buffer` from `file` at `offset`. The file's own offset does not change.
///
/// # Errors
/// As [`read_exact`]'s.
pub fn read_exact_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The file's current offset.
///
/// # Errors
/// The operating system's.
pub fn offset(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::tell(file)?)
}

/// Moves the file's current offset.
///
/// # Errors
/// The operating system's.
pub fn seek(file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(offset))?;
    Ok(())
}

/// Where a block of `len` bytes ends that begins at the file's current offset. None if the file
/// ends earlier, or if its offset or size cannot be read.
pub fn end_of_block(file: BorrowedFd<'_>, len: u64) -> Option<u64> {
    let (offset, facts) = (rustix::fs::tell(file).ok()?, rustix::fs::fstat(file).ok()?);
    let size = u64::try_from(facts.st_size).ok()?;
    offset.checked_add(len).filter(|end| *end <= size)
}

/// Writes all of `data` to `file`.
///
/// # Errors
/// The operating system's, or [`io::ErrorKind::WriteZero`].
pub fn write_all(file: BorrowedFd<'_>, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(file, data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => data = &data[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes all of `data` to `file` from `offset` on. The file's own offset does not change.
///
/// # Errors
/// As [`write_all`]'s.
pub fn write_all_at(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> io::Result<()> {
    write_parts_at(file, &mut [IoSlice::new(data)], offset)
}

/// Writes all of `parts`, one after the other, to `file` from `offset` on. The file's own offset
/// does not change. At most 1024 parts, which is Linux's limit.
///
/// # Errors
/// As [`write_all`]'s.
pub(crate) fn write_parts_at(
    file: BorrowedFd<'_>,
    mut parts: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    while !parts.is_empty() {
        match rustix::io::pwritev(file, parts, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                IoSlice::advance_slices(&mut parts, count);
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn reads_from_the_current_offset_and_notices_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        let mut four = [0; 4];
        read_exact(file.as_fd(), &mut four).unwrap();
        assert_eq!(&four, b"4567");
        let error = read_exact(file.as_fd(), &mut four).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn positioned_reads_and_writes_leave_the_offset() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(file.as_fd(), b"abcdef", 3).unwrap();
        let mut read = [0; 4];
        read_exact_at(file.as_fd(), &mut read, 4).unwrap();
        assert_eq!(&read, b"bcde");
        assert_eq!(offset(file.as_fd()).unwrap(), 0);
        seek(file.as_fd(), 8).unwrap();
        assert_eq!(offset(file.as_fd()).unwrap(), 8);
        let error = read_exact_at(file.as_fd(), &mut read, 6).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn writes_at_the_current_offset_and_reports_a_full_disk() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        write_all(file.as_fd(), b"abc").unwrap();
        file.rewind().unwrap();
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "01abc56789");

        let mut parts = [b"x", &b""[..], b"yz"].map(IoSlice::new);
        write_parts_at(file.as_fd(), &mut parts, 8).unwrap();
        assert_eq!(file.stream_position().unwrap(), 10);
        file.rewind().unwrap();
        all.clear();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "01abc567xyz");

        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_all(full.as_fd(), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = write_parts_at(full.as_fd(), &mut [IoSlice::new(b"x")], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
