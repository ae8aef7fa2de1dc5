// SPDX-License-Identifier: GPL-2.0-only

//! Direct I/O, where it is and where it is not.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// `TMPFS_MAGIC`.
const TMPFS: u64 = 0x0102_1994;

/// `XFS_SUPER_MAGIC`, `BTRFS_SUPER_MAGIC`, `BCACHEFS_SUPER_MAGIC`, that of OpenZFS, `OCFS2_SUPER_MAGIC`, `OVERLAYFS_SUPER_MAGIC` (for what is
/// below), and, whose server may do it, `NFS_SUPER_MAGIC`, `CIFS_SUPER_MAGIC`, `SMB2_SUPER_MAGIC`.
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

/// Takes `O_DIRECT` off a file in memory, where it means nothing: such a file *is* the cache. But with the flag the kernel copies
/// pages before it hands them on, which without it it only refers to. Gives whether the file is still direct.
pub fn lift_direct(file: BorrowedFd<'_>) -> bool {
    lift_direct_if(file, || file_system(file) == Some(TMPFS))
}

fn lift_direct_if(file: BorrowedFd<'_>, is_in_memory: impl FnOnce() -> bool) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return true };
    flags.contains(OFlags::DIRECT)
        && !(is_in_memory() && rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT).is_ok())
}

/// The magic number of the file system.
fn file_system(file: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstatfs(file).ok().and_then(|facts| u64::try_from(facts.f_type).ok())
}

/// Whether a file's bytes can only be copied, and through memory: it is in memory or read through the cache, and on no file system whose
/// files may share blocks.
pub fn is_copied_through_memory(file: BorrowedFd<'_>) -> bool {
    file_system(file)
        .is_some_and(|magic| !SHARING.contains(&magic) && !lift_direct_if(file, || magic == TMPFS))
}

/// Whether the blocks of `from` can be shared by files beside `to` instead of copied (`FICLONE`: XFS, btrfs). Found out with a file
/// that has no name and is gone at once.
pub(crate) fn can_reflink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let Ok(path) = rustix::fs::readlink(format!("/proc/self/fd/{}", to.as_raw_fd()), Vec::new())
    else {
        return false;
    };
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    let Some(directory) = path.parent() else { return false };
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(probe) = rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) else {
        return false;
    };
    rustix::fs::ioctl_ficlone(&probe, from).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    fn direct(directory: &Path) -> Option<File> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        options.custom_flags(OFlags::DIRECT.bits() as i32).open(directory.join("direct")).ok()
    }

    #[test]
    fn direct_io_is_lifted_in_memory_only() {
        let cached = tempfile::tempfile().unwrap();
        assert!(!lift_direct(cached.as_fd()));
        for parent in ["/dev/shm", "/var/tmp"] {
            let Ok(directory) = tempfile::tempdir_in(parent) else { continue };
            let Some(file) = direct(directory.path()) else { continue };
            let is_memory = rustix::fs::fstatfs(&file).unwrap().f_type as u64 == TMPFS;
            assert_eq!(lift_direct(file.as_fd()), !is_memory, "{parent}");
            let flags = rustix::fs::fcntl_getfl(&file).unwrap();
            assert_eq!(flags.contains(OFlags::DIRECT), !is_memory, "{parent}");
        }
    }

    #[test]
    fn files_in_memory_share_no_blocks() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let from = File::create_new(directory.path().join("from")).unwrap();
        let to = File::create_new(directory.path().join("to")).unwrap();
        assert!(!can_reflink(from.as_fd(), to.as_fd()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
