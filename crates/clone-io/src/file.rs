// SPDX-License-Identifier: GPL-2.0-only

//! Whole reads and writes at a file's current offset.

use std::io;
use std::os::fd::BorrowedFd;

/// Fills `buffer` from `file`.
///
/// # Errors
/// The operating system's, or [`io::ErrorKind::UnexpectedEof`] when the file ends before.
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

/// Where a block of `len` bytes ends that begins at the file's current offset. None if the file ends before, or that cannot be found
/// out.
pub fn end_of_block(file: BorrowedFd<'_>, len: u64) -> Option<u64> {
    let (offset, facts) = (rustix::fs::tell(file).ok()?, rustix::fs::fstat(file).ok()?);
    let size = u64::try_from(facts.st_size).ok()?;
    offset.checked_add(len).filter(|end| *end <= size)
}

/// Writes all of `data` to `file`.
///
/// # Errors
/// The operating system's, or [`io::ErrorKind::WriteZero`].
pub fn write_all(file: BorrowedFd<'_>, data: &[u8]) -> io::Result<()> {
    write_each(data, |rest, _| rustix::io::write(file, rest))
}

/// Writes all of `data` to `file` from `offset` on, and leaves the file's own offset alone.
///
/// # Errors
/// As [`write_all`]'s.
pub(crate) fn write_all_at(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> io::Result<()> {
    write_each(data, |rest, done| rustix::io::pwrite(file, rest, offset + done))
}

/// Calls `write` with what is left of `data`, and how many bytes of it are done, until all are.
fn write_each(
    data: &[u8],
    write: impl Fn(&[u8], u64) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        match write(&data[done..], done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
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
    fn writes_at_the_current_offset_and_reports_a_full_disk() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        write_all(file.as_fd(), b"abc").unwrap();
        file.rewind().unwrap();
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "01abc56789");

        write_all_at(file.as_fd(), b"xyz", 8).unwrap();
        assert_eq!(file.stream_position().unwrap(), 10);
        file.rewind().unwrap();
        all.clear();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "01abc567xyz");

        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_all(full.as_fd(), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
