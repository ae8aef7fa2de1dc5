// SPDX-License-Identifier: GPL-2.0-only

//! Direct I/O: writes that go past the operating system's cache (`O_DIRECT`).
//!
//! The kernel then reads from the caller's memory and copies nothing. The cache keeps what other
//! programs need. Memory, offset and length must be multiples of [`ALIGNMENT`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, major};

use crate::buffer::{ALIGNMENT, AlignedBuffer};
use crate::file::write_all;

/// Whether files in `directory` can be written past the cache, and should be: they lie on a block
/// device (ext4, XFS). The test writes [`ALIGNMENT`] bytes to a file without a name, which the
/// kernel removes at once.
///
/// Files on tmpfs lie in the cache. On a network file system each write past the cache waits for
/// the server. btrfs and ZFS make their checksums in memory. The device number of all of these has
/// the major number 0.
pub fn takes_direct_writes(directory: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let Ok(probe) = rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) else {
        return false;
    };
    let mut buffer = AlignedBuffer::new();
    let written = buffer.aligned(ALIGNMENT).and_then(|bytes| write_all(probe.as_fd(), bytes));
    written.is_ok() && fstat(&probe).is_ok_and(|facts| major(facts.st_dev) != 0)
}

/// Lets writes of the open file go past the cache, or through it.
///
/// # Errors
/// The operating system's: `EINVAL` if the file system has no direct I/O.
pub fn set_direct(file: BorrowedFd<'_>, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::file_facts::is_direct;

    #[test]
    fn a_file_changes_between_cache_and_disk() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        if !takes_direct_writes(directory.path()) {
            println!("SKIPPED: /var/tmp takes no direct writes");
            return;
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
        let file = std::fs::File::create_new(directory.path().join("file")).unwrap();
        let mut buffer = AlignedBuffer::new();
        let block = buffer.aligned(2 * ALIGNMENT).unwrap();
        block.fill(7);
        for direct in [true, false, true] {
            set_direct(file.as_fd(), direct).unwrap();
            assert_eq!(is_direct(file.as_fd()), direct);
            write_all(file.as_fd(), block).unwrap();
        }
        // What is not aligned is refused: the flag is more than a wish.
        assert!(write_all(file.as_fd(), &block[1..=ALIGNMENT]).is_err());
        set_direct(file.as_fd(), false).unwrap();
        write_all(file.as_fd(), &block[..3]).unwrap();
        let written = std::fs::read(directory.path().join("file")).unwrap();
        assert!(written == vec![7; 6 * ALIGNMENT + 3]);
    }

    #[test]
    fn memory_and_missing_directories_take_none() {
        assert!(!takes_direct_writes(Path::new("/dev/shm")));
        assert!(!takes_direct_writes(Path::new("/nonexistent")));
        assert!(!takes_direct_writes(Path::new("/proc")));
    }
}
