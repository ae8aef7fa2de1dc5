// SPDX-License-Identifier: GPL-2.0-only

//! Checks whether the process at the other end of a Unix socket may exchange files with this
//! process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// The user that Linux shows for a user without a number in our user namespace, where
/// `/proc/sys/kernel/overflowuid` cannot be read.
const OVERFLOW_UID: u32 = 65534;

/// The type that `statfs` gives for the file system of namespaces.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Checks that this process can prove its mount namespace, which both ends need.
///
/// # Errors
/// The operating system's, for example if `/proc` is not mounted. Nothing is handed over then.
pub fn check_handover() -> io::Result<()> {
    mount_namespace().map(drop)
}

/// Returns true if the process at the other end runs as our own user.
///
/// False if that is not certain: a user number that stands for every unknown user proves nothing,
/// and neither does a process that has no number in our PID namespace, for it belongs to a
/// container of its own.
pub(super) fn is_same_user(socket: BorrowedFd<'_>) -> bool {
    let own = rustix::process::geteuid().as_raw();
    credentials(socket).is_ok_and(|peer| peer.uid == own && peer.pid > 0 && own != overflow_uid())
}

/// Opens the mount namespace of this process, so that it can be sent.
///
/// # Errors
/// The operating system's, for example if `/proc` is not mounted.
pub(super) fn mount_namespace() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty())?)
}

/// Returns true if the descriptor is the mount namespace of this process.
pub(super) fn is_our_mount_namespace(descriptor: BorrowedFd<'_>) -> bool {
    let identity = |descriptor: BorrowedFd<'_>| -> io::Result<_> {
        // Files of other file systems could have the same numbers, by chance or by intent.
        if rustix::fs::fstatfs(descriptor)?.f_type != NSFS_MAGIC {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let facts = rustix::fs::fstat(descriptor)?;
        Ok((facts.st_dev, facts.st_ino))
    };
    let own = mount_namespace().and_then(|own| identity(own.as_fd()));
    own.is_ok_and(|own| identity(descriptor).is_ok_and(|peer| peer == own))
}

fn overflow_uid() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW_UID)
}

/// `SO_PEERCRED`: the process that connected, or that listens.
///
/// rustix has this call, but its type for a process number cannot hold 0, which Linux says for a
/// process of another PID namespace.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = size_of::<libc::ucred>();
    let mut len = libc::socklen_t::try_from(size).unwrap_or(0);
    // SAFETY: the descriptor is open as long as it is borrowed, and `peer` has the `len` bytes that
    // the kernel may write, for each of which every value is valid.
    #[allow(unsafe_code, reason = "std has no such call, and rustix's is wrong for PID 0")]
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(len) != Ok(size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(peer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn our_own_process_is_of_our_user() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = credentials(one.as_fd()).unwrap();
        assert_eq!(u32::try_from(peer.pid).unwrap(), std::process::id());
        let is_known = peer.uid != overflow_uid();
        assert_eq!(is_same_user(one.as_fd()), is_known);
        // What is no socket has no peer.
        assert!(!is_same_user(File::open("/dev/null").unwrap().as_fd()));
    }

    #[test]
    fn only_our_own_mount_namespace_is_ours() {
        let own = mount_namespace().unwrap();
        assert!(is_our_mount_namespace(own.as_fd()));
        for other in ["/proc/self/ns/pid", "/proc/self/ns", "/proc/self/stat", "/dev/null"] {
            let other = File::open(other).unwrap();
            assert!(!is_our_mount_namespace(other.as_fd()));
        }
    }
}
