// SPDX-License-Identifier: GPL-2.0-only

//! Facts about open files that decide how a block is moved. Nothing here changes a file.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// `TMPFS_MAGIC`.
const TMPFS: u64 = 0x0102_1994;

/// File systems whose files may share blocks: XFS, btrfs, bcachefs, OpenZFS, OCFS2, overlayfs (for
/// the file system below), and NFS, CIFS and SMB2, whose server may do it.
const SHARING: [u64; 9] = [
    0x5846_5342,
    0x9123_683e,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x7461_636f,
    0x794c_7630,
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
];

/// Whether reads and writes of the file go past the operating system's cache (`O_DIRECT`).
///
/// A file on tmpfs lies in the cache, whatever its flags say. A file whose flags cannot be read
/// counts as direct: aligned buffers suit every file.
pub fn is_direct(file: BorrowedFd<'_>) -> bool {
    match rustix::fs::fcntl_getfl(file) {
        Ok(flags) => flags.contains(OFlags::DIRECT) && file_system(file) != Some(TMPFS),
        Err(_) => true,
    }
}

/// Whether the file can be read and not written. A file that goes to another process should be.
pub fn is_read_only(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(file).is_ok_and(|flags| (flags & OFlags::RWMODE) == OFlags::RDONLY)
}

/// Whether the file lies on a file system whose files may share blocks. [`can_share_blocks`] finds
/// out whether they do.
pub fn may_share_blocks(file: BorrowedFd<'_>) -> bool {
    file_system(file).is_some_and(|magic| SHARING.contains(&magic))
}

/// Whether files in `directory` share the blocks of `file`. The test is made only where the file
/// system is one of those that may.
pub fn shares_blocks(file: BorrowedFd<'_>, directory: &Path) -> bool {
    may_share_blocks(file) && can_share_blocks(file, directory)
}

/// Whether files in `directory` can share the blocks of `file` instead of copying them (`FICLONE`:
/// XFS, btrfs). The test uses a file without a name, which the kernel removes at once.
pub fn can_share_blocks(file: BorrowedFd<'_>, directory: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)
        .is_ok_and(|probe| rustix::fs::ioctl_ficlone(&probe, file).is_ok())
}

/// The magic number of the file system.
fn file_system(file: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstatfs(file).ok().and_then(|facts| u64::try_from(facts.f_type).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn the_flags_say_whether_a_file_is_direct() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        let cached = options.open(directory.path().join("cached")).unwrap();
        assert!(!is_direct(cached.as_fd()));
        assert!(!is_read_only(cached.as_fd()));
        // A file system without direct I/O refuses the flag: the file is never direct there.
        options.custom_flags(OFlags::DIRECT.bits() as i32);
        if let Ok(direct) = options.open(directory.path().join("direct")) {
            let is_in_memory = file_system(direct.as_fd()) == Some(TMPFS);
            assert_eq!(is_direct(direct.as_fd()), !is_in_memory);
        }
        let read_only = File::open(directory.path().join("cached")).unwrap();
        assert!(is_read_only(read_only.as_fd()));
    }

    #[test]
    fn a_test_for_sharing_leaves_nothing_behind() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = File::create_new(directory.path().join("file")).unwrap();
        let shares = can_share_blocks(file.as_fd(), directory.path());
        assert!(!shares || may_share_blocks(file.as_fd()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(!can_share_blocks(file.as_fd(), Path::new("/nonexistent")));
    }
}
