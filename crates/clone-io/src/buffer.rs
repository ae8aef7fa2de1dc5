// SPDX-License-Identifier: GPL-2.0-only

//! A buffer that direct I/O accepts.

use std::io;

use zeroize::Zeroize;

/// Alignment of buffers for files opened with `O_DIRECT`, in bytes (InnoDB asks for it as
/// `CLONE_OS_ALIGN`).
pub const ALIGNMENT: usize = 4096;

/// A buffer that grows to the largest length asked for and is reused.
///
/// Its content is wiped when the buffer is dropped: a page may carry a tablespace's key.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    memory: Vec<u8>,
}

impl AlignedBuffer {
    /// An empty buffer. Memory is taken at first use.
    pub const fn new() -> Self {
        Self { memory: Vec::new() }
    }

    /// `len` bytes, the first of which is aligned. The content is what the last user left.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`].
    pub fn aligned(&mut self, len: usize) -> io::Result<&mut [u8]> {
        self.with_headroom(0, len)
    }

    /// `headroom + len` bytes. The first byte behind the headroom is aligned. So a packet's code
    /// has room in front of its data, and both leave in one write.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`].
    ///
    /// # Panics
    /// If `headroom` is above [`ALIGNMENT`]. Callers pass a constant.
    pub fn with_headroom(&mut self, headroom: usize, len: usize) -> io::Result<&mut [u8]> {
        assert!(headroom <= ALIGNMENT, "headroom of {headroom} bytes");
        let wanted = len.checked_add(2 * ALIGNMENT).ok_or(io::ErrorKind::OutOfMemory)?;
        if self.memory.len() < wanted {
            self.memory.zeroize();
            // A failed allocation must be an error here. Without `try_reserve` it would abort
            // mysqld.
            self.memory.try_reserve_exact(wanted)?;
            self.memory.resize(wanted, 0);
        }
        let first = self.memory.as_ptr().align_offset(ALIGNMENT);
        let start = if first >= headroom { first - headroom } else { first + ALIGNMENT - headroom };
        Ok(&mut self.memory[start..start + headroom + len])
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        self.memory.zeroize();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_data_behind_the_headroom_is_aligned() {
        let mut buffer = AlignedBuffer::new();
        for headroom in [0, 1, 5, ALIGNMENT] {
            for len in [0, 1, 4096, 1 << 20, 100, 5 << 20] {
                let bytes = buffer.with_headroom(headroom, len).unwrap();
                assert_eq!(bytes.len(), headroom + len);
                let data = bytes.as_ptr().addr().wrapping_add(headroom);
                assert_eq!(data % ALIGNMENT, 0);
                bytes.fill(7);
            }
        }
    }

    #[test]
    fn memory_that_is_not_to_be_had_is_an_error() {
        let mut buffer = AlignedBuffer::new();
        for len in [usize::MAX, usize::MAX / 2, isize::MAX as usize - 3 * ALIGNMENT] {
            let error = buffer.aligned(len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        }
        assert_eq!(buffer.aligned(3).unwrap().len(), 3);
    }
}
