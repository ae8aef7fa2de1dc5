// SPDX-License-Identifier: GPL-2.0-only

//! Blocks made smaller for the network.

use std::io;

use zeroize::Zeroize;

use crate::sparse::{self, Sparse};

/// How the bytes of a block are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Without its zeros (`sparse.rs`).
    Sparse,
    /// An LZ4 block without its length in front.
    Lz4,
    /// Zstandard frames, one behind the other.
    Zstd,
}

/// What a packed block must be smaller than, as a part of the block, or the block is sent as it is.
#[derive(Clone, Copy)]
struct Worth(usize, usize);

impl Worth {
    /// Levels 0 and 1 are for speed: packing and unpacking takes as much time as a good network needs for several times the bytes, so
    /// that a fifth at least is to be saved. Rows that do not compress leave a tenth of their pages empty.
    const FAST: Self = Self(4, 5);
    /// Leaving out zeros costs a look and a copy, about as much as the network of one machine takes for a third of the bytes.
    const SPARSE: Self = Self(2, 3);
    /// Higher levels say that the size matters: a sixteenth is as much as a frame and its unpacking are worth at all.
    const SMALL: Self = Self(15, 16);

    fn limit(self, len: usize) -> usize {
        len / self.1 * self.0
    }
}

/// Bytes that become one Zstandard frame at level 1. Its tables, and what it reads and writes, then stay in the nearest caches: a quarter
/// less time than with a frame for 1 MiB, for a hundredth more bytes. Higher levels find more in a whole block.
const FAST_FRAME: usize = 128 * 1024;

/// Bytes that are tried first: a sample from the middle of the block.
const SAMPLE: usize = 16 * 1024;

/// How a task packs.
enum Method {
    Sparse,
    Lz4,
    Zstd {
        compressor: zstd::bulk::Compressor<'static>,
        /// Bytes of a block that become one frame.
        frame: usize,
    },
}

/// After so many blocks in a row that did not shrink, most are not even sampled.
const PATIENCE: u32 = 4;

/// Of those that are not sampled one in so many is, to see whether the data has changed.
const PROBE: u32 = 8;

/// Compresses the blocks of one task.
///
/// A block that does not compress is given back as it is. Whether it does is seen in a sample, and after a row of blocks that did
/// not it is not even asked for each: so data that cannot be compressed costs next to nothing.
pub struct Packer {
    method: Method,
    worth: Worth,
    packed: Vec<u8>,
    /// Blocks since the last one that shrank.
    misses: u32,
}

impl Packer {
    /// With `level` 0 LZ4, above it Zstandard at that level; without a level only zeros are left out.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new(level: Option<u8>) -> io::Result<Self> {
        let zstd = |level: u8, frame| -> io::Result<Method> {
            let compressor = zstd::bulk::Compressor::new(i32::from(level))?;
            Ok(Method::Zstd { compressor, frame })
        };
        let (method, worth) = match level {
            None => (Method::Sparse, Worth::SPARSE),
            Some(0) => (Method::Lz4, Worth::FAST),
            Some(1) => (zstd(1, FAST_FRAME)?, Worth::FAST),
            Some(level) => (zstd(level, usize::MAX)?, Worth::SMALL),
        };
        Ok(Self { method, worth, packed: Vec::new(), misses: 0 })
    }

    /// The shorter form of `block`, with `headroom` bytes in front of it and `tailroom` bytes behind it that are the caller's; none if
    /// there is none. Valid until the next call.
    pub fn pack(
        &mut self,
        block: &[u8],
        headroom: usize,
        tailroom: usize,
    ) -> Option<(Codec, &mut [u8])> {
        let is_worth_trying = !self.would_pass_over() && self.is_worth_trying(block);
        let packed = is_worth_trying.then(|| self.compress(block, headroom, tailroom)).flatten();
        self.misses = if packed.is_some() { 0 } else { self.misses.saturating_add(1) };
        let (codec, len) = packed?;
        Some((codec, &mut self.packed[..headroom + len + tailroom]))
    }

    /// Whether the next block is not even worth a look: then it may be [passed over](Self::pass_over).
    pub fn would_pass_over(&self) -> bool {
        self.misses >= PATIENCE && !self.misses.is_multiple_of(PROBE)
    }

    /// Whether packing is no more than a look and a copy.
    pub fn is_cheap(&self) -> bool {
        matches!(self.method, Method::Sparse)
    }

    /// A block has not been given to [`pack`](Self::pack).
    pub fn pass_over(&mut self) {
        self.misses = self.misses.saturating_add(1);
    }

    fn is_worth_trying(&mut self, block: &[u8]) -> bool {
        // Data is mostly like the data before it, and zeros are found by a look in any case.
        if self.misses == 0 || self.is_cheap() || block.len() <= 2 * SAMPLE {
            return true;
        }
        let middle = block.len() / 2;
        self.compress(&block[middle - SAMPLE / 2..middle + SAMPLE / 2], 0, 0).is_some()
    }

    /// Fills `packed` behind the headroom, and gives the length; none if that is not worth it.
    fn compress(
        &mut self,
        block: &[u8],
        headroom: usize,
        tailroom: usize,
    ) -> Option<(Codec, usize)> {
        let limit = self.worth.limit(block.len());
        let room = match self.method {
            Method::Lz4 => lz4_flex::block::get_maximum_output_size(block.len()),
            // Shorter than the worst case: these give up by themselves where it does not fit.
            Method::Sparse | Method::Zstd { .. } => limit,
        };
        let needed = headroom + room + tailroom;
        if self.packed.len() < needed {
            self.packed.zeroize();
            self.packed.resize(needed, 0);
        }
        let place = &mut self.packed[headroom..headroom + room];
        let (codec, len) = match &mut self.method {
            Method::Sparse => (Codec::Sparse, sparse::pack(block, place, limit)?),
            Method::Lz4 => (Codec::Lz4, lz4_flex::block::compress_into(block, place).ok()?),
            Method::Zstd { compressor, frame } => {
                let mut len = 0;
                for part in block.chunks(*frame) {
                    len += compressor.compress_to_buffer(part, &mut place[len..]).ok()?;
                }
                (Codec::Zstd, len)
            }
        };
        (len < limit).then_some((codec, len))
    }
}

/// A page may carry a tablespace's key.
impl Drop for Packer {
    fn drop(&mut self) {
        self.packed.zeroize();
    }
}

/// Unpacks the blocks of one task.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    /// One for any codec.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `block` from its packed form, which must have exactly this length when unpacked. (For zeros that were left out the length
    /// is the caller's word.)
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: the packed form is damaged, or of another length.
    pub fn unpack(&mut self, codec: Codec, packed: &[u8], block: &mut [u8]) -> io::Result<()> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let len = match codec {
            Codec::Sparse => {
                Sparse::parse(packed, block.len()).ok_or_else(damaged)?.unpack(block);
                block.len()
            }
            Codec::Lz4 => lz4_flex::block::decompress_into(packed, block)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new()?),
                };
                zstd.decompress_to_buffer(packed, block)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            }
        };
        if len == block.len() { Ok(()) } else { Err(damaged()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0u32..).flat_map(|n| format!("row {n} of a table; ").into_bytes()).take(len).collect()
    }

    /// Numbers that no codec finds a pattern in (xorshift).
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        for level in [None, Some(0), Some(1), Some(3), Some(19)] {
            let mut packer = Packer::new(level).unwrap();
            let mut unpacker = Unpacker::new();
            for len in [0, 1, 100, 16 << 10, 1 << 20] {
                for block in [text(len), noise(len), vec![0; len]] {
                    let Some((codec, packed)) = packer.pack(&block, 5, 3) else { continue };
                    let packed = &packed[5..packed.len() - 3];
                    assert!(packed.len() < block.len());
                    let mut unpacked = vec![0xaa; len];
                    unpacker.unpack(codec, packed, &mut unpacked).unwrap();
                    assert!(unpacked == block, "level {level:?}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn text_shrinks_and_noise_is_left_alone() {
        for (level, codec) in [(0, Codec::Lz4), (1, Codec::Zstd)] {
            let mut packer = Packer::new(Some(level)).unwrap();
            let (text, noise) = (text(1 << 20), noise(1 << 20));
            let (used, packed) = packer.pack(&text, 0, 0).unwrap();
            assert_eq!(used, codec);
            assert!(packed.len() < text.len() / 3, "{}", packed.len());
            for _ in 0..20 {
                assert!(packer.pack(&noise, 0, 0).is_none());
            }
            // Data that changes is noticed within a few blocks.
            let noticed = (0..PROBE).any(|_| packer.pack(&text, 0, 0).is_some());
            assert!(noticed, "level {level}");
            // Also if those that are not worth a look are not shown to it.
            assert!(!packer.would_pass_over());
            (0..PATIENCE).for_each(|_| assert!(packer.pack(&noise, 0, 0).is_none()));
            let mut passed_over = 0;
            while packer.would_pass_over() {
                packer.pass_over();
                passed_over += 1;
            }
            assert_eq!(passed_over, PROBE - PATIENCE);
            assert!(packer.pack(&text, 0, 0).is_some());
        }
    }

    #[test]
    fn zeros_are_left_out_without_a_level() {
        let mut packer = Packer::new(None).unwrap();
        let mut pages = noise(1 << 20);
        assert!(packer.pack(&pages, 0, 0).is_none());
        for page in pages.chunks_mut(16 << 10) {
            page[4096..].fill(0);
        }
        let (codec, packed) = packer.pack(&pages, 6, 4).unwrap();
        assert_eq!(codec, Codec::Sparse);
        assert!(packed.len() < pages.len() / 3, "{}", packed.len());
        // A sample would see nothing of these.
        let mut pages = noise(1 << 20);
        pages[600_000..].fill(0);
        assert!(packer.pack(&noise(1 << 20), 0, 0).is_none());
        assert!(packer.pack(&pages, 0, 0).is_some());
    }

    #[test]
    fn what_saves_little_is_packed_at_higher_levels_only() {
        // Two rows of noise in each page, as InnoDB would have them.
        let mut pages = noise(1 << 20);
        for page in pages.chunks_mut(16 << 10) {
            page[14_000..].fill(0);
        }
        for (level, is_packed) in [(0, false), (1, false), (2, true), (19, true)] {
            let mut packer = Packer::new(Some(level)).unwrap();
            assert_eq!(packer.pack(&pages, 0, 0).is_some(), is_packed, "level {level}");
        }
    }

    #[test]
    fn damaged_blocks_are_refused() {
        for level in [None, Some(0), Some(1)] {
            let mut block = text(100_000);
            block[20_000..70_000].fill(0);
            let mut packer = Packer::new(level).unwrap();
            let (codec, packed) = packer.pack(&block, 0, 0).unwrap();
            let packed = &*packed;
            let mut unpacker = Unpacker::new();
            let mut place = vec![0; block.len()];
            assert!(unpacker.unpack(codec, &packed[..packed.len() - 1], &mut place).is_err());
            assert!(unpacker.unpack(codec, packed, &mut place[1..]).is_err());
            assert!(unpacker.unpack(codec, packed, &mut vec![0; block.len() + 1]).is_err());
            assert!(unpacker.unpack(codec, &[], &mut place).is_err());
            // It is still of use afterwards.
            unpacker.unpack(codec, packed, &mut place).unwrap();
            assert!(place == block);
        }
    }
}
