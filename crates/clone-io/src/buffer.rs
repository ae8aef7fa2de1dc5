// SPDX-License-Identifier: GPL-2.0-only

//! A buffer that direct I/O accepts.

use std::ops::{Deref, DerefMut, Range};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

/// Alignment of buffers for files opened with `O_DIRECT`, in bytes (InnoDB asks for it as `CLONE_OS_ALIGN`).
pub const ALIGNMENT: usize = 4096;

/// Buffers of this length and above lie in huge pages, if the kernel has some to give. Direct I/O has each page of memory looked up, and
/// sends a request to the disk in fewer pieces the fewer there are.
const HUGE_PAGE: usize = 2 << 20;

/// A buffer that grows to the largest length asked for and is reused.
///
/// What it held is wiped when it goes: a page may carry a tablespace's key.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    memory: Memory,
    /// What has been given out of it.
    used: Range<usize>,
}

impl AlignedBuffer {
    /// An empty buffer; memory is taken at first use.
    pub const fn new() -> Self {
        Self { memory: Memory::Heap(Vec::new()), used: 0..0 }
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
        let alignment = if len < HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE };
        let wanted = len + 2 * alignment;
        if self.memory.len() < wanted {
            // The old content is of no use: it is not copied.
            self.wipe();
            self.memory = Memory::of(wanted);
        }
        let first = self.memory.as_ptr().align_offset(alignment);
        let start = if first >= headroom { first - headroom } else { first + alignment - headroom };
        let given = start..start + headroom + len;
        self.used = match self.used.is_empty() {
            true => given.clone(),
            false => self.used.start.min(given.start)..self.used.end.max(given.end),
        };
        &mut self.memory[given]
    }

    /// Memory that was never given out is not touched, for then it would have to be there.
    fn wipe(&mut self) {
        let used = std::mem::replace(&mut self.used, 0..0);
        self.memory[used].zeroize();
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Zeros at first.
#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    /// Pages are there from their first use on.
    Mapped(MmapMut),
}

impl Memory {
    fn of(len: usize) -> Self {
        if len < HUGE_PAGE {
            return Self::Heap(vec![0; len]);
        }
        let Ok(mapped) = MmapMut::map_anon(len) else { return Self::Heap(vec![0; len]) };
        // A kernel without huge pages has others.
        let _ = mapped.advise(Advice::HugePage);
        Self::Mapped(mapped)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_behind_the_headroom_is_aligned() {
        let mut buffer = AlignedBuffer::new();
        for headroom in [0, 1, 5, ALIGNMENT] {
            for len in [0, 1, 4096, 1 << 20, 100, HUGE_PAGE, 5 << 20, HUGE_PAGE - 1] {
                let bytes = buffer.with_headroom(headroom, len);
                assert_eq!(bytes.len(), headroom + len);
                let data = bytes.as_ptr().addr().wrapping_add(headroom);
                assert_eq!(data % if len < HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE }, 0);
                bytes.fill(7);
            }
        }
    }
}
