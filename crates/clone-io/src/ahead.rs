// SPDX-License-Identifier: GPL-2.0-only

//! Starts disk I/O early, before a thread waits for it. This changes the speed, never the result.

use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::Advice;

/// Starts writing the `len` bytes in front of the file's current offset from the cache to the disk.
/// Otherwise all of them would be written in FILE SYNC, where every thread waits. This call waits
/// only if the disk's queue is full.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
pub(crate) fn begin_write_back(file: BorrowedFd<'_>, len: u64) {
    let start = rustix::fs::tell(file).ok().and_then(|end| end.checked_sub(len));
    let (Some(Ok(start)), Ok(len)) = (start.map(i64::try_from), i64::try_from(len)) else { return };
    // SAFETY: the call takes numbers only, and the descriptor is open as long as it is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Starts reading into the cache: the block of `len` bytes at the file's current offset, and the
/// block behind it.
pub(crate) fn begin_reading(file: BorrowedFd<'_>, len: u64) {
    if let (Ok(start), Some(len)) = (rustix::fs::tell(file), NonZeroU64::new(2 * len)) {
        let _ = rustix::fs::fadvise(file, start, Some(len), Advice::WillNeed);
    }
}
