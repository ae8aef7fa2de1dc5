// SPDX-License-Identifier: GPL-2.0-only

//! A buffer that direct I/O accepts.

use zeroize::Zeroize;

/// Alignment of buffers for files opened with `O_DIRECT`, in bytes (InnoDB asks for it as `CLONE_OS_ALIGN`).
pub const ALIGNMENT: usize = 4096;

/// A buffer that grows to the largest length asked for and is reused.
///
/// What it held is wiped when it goes: a page may carry a tablespace's key.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
}

impl AlignedBuffer {
    /// An empty buffer; memory is taken at first use.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// `len` bytes whose first one is aligned. Their content is what the last user left.
    pub fn aligned(&mut self, len: usize) -> &mut [u8] {
        self.with_headroom(0, len)
    }

    /// `headroom + len` bytes of which the one behind the headroom is aligned: room for a packet's code in front of its data, so
    /// that both leave in one write.
    ///
    /// # Panics
    /// If `headroom` is above [`ALIGNMENT`], which a caller knows at compile time.
    pub fn with_headroom(&mut self, headroom: usize, len: usize) -> &mut [u8] {
        assert!(headroom <= ALIGNMENT, "headroom of {headroom} bytes");
        let wanted = len + 2 * ALIGNMENT;
        if self.bytes.len() < wanted {
            // The old content is of no use: do not let `resize` copy it.
            self.bytes.zeroize();
            self.bytes = vec![0; wanted];
        }
        let first = self.bytes.as_ptr().align_offset(ALIGNMENT);
        let start = if first >= headroom { first - headroom } else { first + ALIGNMENT - headroom };
        &mut self.bytes[start..start + headroom + len]
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_behind_the_headroom_is_aligned() {
        let mut buffer = AlignedBuffer::new();
        for headroom in [0, 1, 5, ALIGNMENT] {
            for len in [0, 1, 4096, 1 << 20, 100] {
                let bytes = buffer.with_headroom(headroom, len);
                assert_eq!(bytes.len(), headroom + len);
                assert_eq!(bytes.as_ptr().addr().wrapping_add(headroom) % ALIGNMENT, 0);
            }
        }
    }
}
