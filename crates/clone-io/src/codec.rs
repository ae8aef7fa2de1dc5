// SPDX-License-Identifier: GPL-2.0-only

//! Packs blocks for the network, and unpacks them.

use std::io;

use clone_protocol::{BlockForm, Packing};
use zeroize::Zeroize;
use zstd::zstd_safe::ResetDirective;

use crate::sparse::{self, Sparse};

/// The part of a block's length that its packed form must stay below. Otherwise the block is sent
/// as it is.
#[derive(Clone, Copy)]
struct Worth(usize, usize);

impl Worth {
    /// LZ4 and Zstandard's level 1 are for speed. Packing and unpacking take as long as a fast
    /// network needs for several times the bytes: packing must save a fifth at least. (Rows that do
    /// not compress leave a tenth of their pages empty.)
    const FAST: Self = Self(4, 5);
    /// Leaving out zeros costs a scan and a copy, about as much as loopback needs for a third of
    /// the bytes.
    const SPARSE: Self = Self(2, 3);
    /// At higher levels the user asked for size: accept a block that shrinks by 1/16 or more.
    const SMALL: Self = Self(15, 16);

    fn limit(self, len: usize) -> usize {
        len / self.1 * self.0
    }
}

/// Bytes that become one Zstandard frame at level 1. Zstandard's tables and the data then stay in
/// the processor's nearest caches: a quarter less time than with a frame for 1 MiB, for a hundredth
/// more bytes. Higher levels find more in a whole block.
const FAST_FRAME: usize = 128 * 1024;

/// Bytes that are tried first: a sample from the middle of the block.
const SAMPLE: usize = 16 * 1024;

/// How a task packs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Sparse,
    Lz4,
    Zstd { level: u8 },
}

impl Method {
    /// [`Packing::Auto`] begins as [`Packing::None`]: somebody else [chooses](Packer::switch).
    fn of(packing: Packing) -> Self {
        match packing {
            Packing::None | Packing::Auto => Method::Sparse,
            Packing::Lz4 => Method::Lz4,
            Packing::Zstd(level) => Method::Zstd { level },
        }
    }
}

/// Zstandard, at the level that was used last.
struct Zstd {
    compressor: zstd::bulk::Compressor<'static>,
    level: u8,
}

impl Zstd {
    fn new(level: u8) -> io::Result<Self> {
        Ok(Self { compressor: zstd::bulk::Compressor::new(level.into())?, level })
    }

    fn set_level(&mut self, level: u8) -> io::Result<()> {
        if self.level != level {
            // A block that did not fit has left a frame that is not finished.
            let reset = self.compressor.context_mut().reset(ResetDirective::SessionOnly);
            reset.map_err(|_| io::Error::other("a compressor cannot be used again"))?;
            self.compressor.set_compression_level(level.into())?;
            self.level = level;
        }
        Ok(())
    }

    /// Fills the beginning of `place`, and gives its length; none if `block` does not fit.
    fn compress(&mut self, block: &[u8], place: &mut [u8]) -> Option<usize> {
        let frame = if self.level == 1 { FAST_FRAME } else { usize::MAX };
        let mut len = 0;
        for part in block.chunks(frame) {
            len += self.compressor.compress_to_buffer(part, &mut place[len..]).ok()?;
        }
        Some(len)
    }
}

/// After this many blocks in a row that did not shrink, most blocks are skipped.
const MAX_MISSES: u32 = 4;

/// Of the blocks that could be skipped one in this many is tried: the data may have changed.
const PROBE: u32 = 8;

/// Packs the blocks of one task.
///
/// A block that does not shrink is sent as it is. A sample shows whether a block would shrink.
/// After a row of blocks that did not shrink, the packer says for most blocks that they should be
/// skipped ([`should_skip`](Self::should_skip)). So data that cannot be compressed costs next to
/// nothing.
pub struct Packer {
    method: Method,
    /// Present as soon as Zstandard is used.
    zstd: Option<Zstd>,
    worth: Worth,
    packed: Vec<u8>,
    /// Blocks since the last one that shrank.
    misses: u32,
}

impl Packer {
    /// A packer for `packing`. [`Packing::None`] only leaves out zeros.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new(packing: Packing) -> io::Result<Self> {
        let method = Method::of(packing);
        let worth = match method {
            Method::Sparse => Worth::SPARSE,
            Method::Lz4 | Method::Zstd { level: 1 } => Worth::FAST,
            Method::Zstd { .. } => Worth::SMALL,
        };
        let mut packer = Self { method, zstd: None, worth, packed: Vec::new(), misses: 0 };
        packer.prepare()?;
        Ok(packer)
    }

    /// Packs with `packing` from now on. The caller has measured that this pays for blocks that
    /// shrink by a sixteenth.
    ///
    /// # Errors
    /// As [`new`](Self::new)'s. The packer cannot be used any more.
    pub fn switch(&mut self, packing: Packing) -> io::Result<()> {
        self.worth = Worth::SMALL;
        self.method = Method::of(packing);
        self.prepare()
    }

    /// The next block is tried, whatever became of recent ones.
    pub fn retry(&mut self) {
        self.misses = self.misses.min(1);
    }

    fn prepare(&mut self) -> io::Result<()> {
        let Method::Zstd { level } = self.method else { return Ok(()) };
        match &mut self.zstd {
            Some(zstd) => zstd.set_level(level),
            none => {
                *none = Some(Zstd::new(level)?);
                Ok(())
            }
        }
    }

    /// The form that this packer makes.
    pub fn form(&self) -> BlockForm {
        match self.method {
            Method::Sparse => BlockForm::Sparse,
            Method::Lz4 => BlockForm::Lz4,
            Method::Zstd { .. } => BlockForm::Zstd,
        }
    }

    /// The packed form of `block`, with `headroom` bytes in front of it and `tailroom` bytes behind
    /// it for the caller. None if the block does not shrink. Valid until the next call.
    pub fn pack(&mut self, block: &[u8], headroom: usize, tailroom: usize) -> Option<&mut [u8]> {
        let is_worth_trying = !self.should_skip() && self.is_worth_trying(block);
        let packed = is_worth_trying.then(|| self.compress(block, headroom, tailroom)).flatten();
        self.misses = if packed.is_some() { 0 } else { self.misses.saturating_add(1) };
        Some(&mut self.packed[..headroom + packed? + tailroom])
    }

    /// Whether the next block should be skipped, because recent blocks did not shrink.
    pub fn should_skip(&self) -> bool {
        self.misses >= MAX_MISSES && !self.misses.is_multiple_of(PROBE)
    }

    /// Counts a block that was sent without [`pack`](Self::pack).
    pub fn skip(&mut self) {
        self.misses = self.misses.saturating_add(1);
    }

    fn is_worth_trying(&mut self, block: &[u8]) -> bool {
        // If the previous block shrank, this block probably shrinks, too. A scan for zeros needs no
        // sample.
        let is_scan = matches!(self.method, Method::Sparse);
        if self.misses == 0 || is_scan || block.len() <= 2 * SAMPLE {
            return true;
        }
        let middle = block.len() / 2;
        self.compress(&block[middle - SAMPLE / 2..middle + SAMPLE / 2], 0, 0).is_some()
    }

    /// Fills `packed` behind the headroom, and returns the packed length. None if the block does
    /// not shrink enough, or if there is no memory.
    fn compress(&mut self, block: &[u8], headroom: usize, tailroom: usize) -> Option<usize> {
        let limit = self.worth.limit(block.len());
        let room = match self.method {
            Method::Lz4 => lz4_flex::block::get_maximum_output_size(block.len()),
            // These codecs fail if the packed form does not fit.
            Method::Sparse | Method::Zstd { .. } => limit,
        };
        let needed = headroom + room + tailroom;
        if self.packed.len() < needed {
            self.packed.zeroize();
            self.packed.try_reserve(needed).ok()?;
            self.packed.resize(needed, 0);
        }
        let place = &mut self.packed[headroom..headroom + room];
        let len = match self.method {
            Method::Sparse => sparse::pack(block, place, limit)?,
            Method::Lz4 => lz4_flex::block::compress_into(block, place).ok()?,
            Method::Zstd { .. } => self.zstd.as_mut()?.compress(block, place)?,
        };
        (len < limit).then_some(len)
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
    /// An unpacker for all forms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `block` from `bytes`, which are in this form and must have exactly the block's length
    /// when unpacked. (A sparse block does not contain its length. The caller's length is used.)
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: the bytes are damaged, of another length, or of a form that
    /// has no bytes.
    pub fn unpack(&mut self, form: BlockForm, bytes: &[u8], block: &mut [u8]) -> io::Result<()> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let len = match form {
            BlockForm::Raw if bytes.len() == block.len() => {
                block.copy_from_slice(bytes);
                block.len()
            }
            BlockForm::Raw | BlockForm::File | BlockForm::Base => return Err(damaged()),
            BlockForm::Sparse => {
                Sparse::parse(bytes, block.len()).ok_or_else(damaged)?.unpack(block);
                block.len()
            }
            BlockForm::Lz4 => lz4_flex::block::decompress_into(bytes, block)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
            BlockForm::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new()?),
                };
                zstd.decompress_to_buffer(bytes, block)
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

    /// Without a level, a packer that leaves out zeros; level 0 is LZ4.
    fn packer(level: Option<u8>) -> Packer {
        let packing = match level {
            None => Packing::None,
            Some(0) => Packing::Lz4,
            Some(level) => Packing::Zstd(level),
        };
        Packer::new(packing).unwrap()
    }

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
            let mut packer = packer(level);
            let mut unpacker = Unpacker::new();
            for len in [0, 1, 100, 16 << 10, 1 << 20] {
                for block in [text(len), noise(len), vec![0; len]] {
                    let form = packer.form();
                    let Some(packed) = packer.pack(&block, 5, 3) else { continue };
                    let packed = &packed[5..packed.len() - 3];
                    assert!(packed.len() < block.len());
                    let mut unpacked = vec![0xaa; len];
                    unpacker.unpack(form, packed, &mut unpacked).unwrap();
                    assert!(unpacked == block, "level {level:?}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn text_shrinks_and_noise_is_left_alone() {
        for (level, form) in [(0, BlockForm::Lz4), (1, BlockForm::Zstd)] {
            let mut packer = packer(Some(level));
            assert_eq!(packer.form(), form);
            let (text, noise) = (text(1 << 20), noise(1 << 20));
            let packed = packer.pack(&text, 0, 0).unwrap();
            assert!(packed.len() < text.len() / 3, "{}", packed.len());
            for _ in 0..20 {
                assert!(packer.pack(&noise, 0, 0).is_none());
            }
            // Data that changes is noticed within a few blocks.
            let noticed = (0..PROBE).any(|_| packer.pack(&text, 0, 0).is_some());
            assert!(noticed, "level {level}");
            // Also if the caller skips blocks.
            assert!(!packer.should_skip());
            (0..MAX_MISSES).for_each(|_| assert!(packer.pack(&noise, 0, 0).is_none()));
            let mut skipped = 0;
            while packer.should_skip() {
                packer.skip();
                skipped += 1;
            }
            assert_eq!(skipped, PROBE - MAX_MISSES);
            assert!(packer.pack(&text, 0, 0).is_some());
        }
    }

    #[test]
    fn zeros_are_left_out_without_a_level() {
        let mut packer = packer(None);
        let mut pages = noise(1 << 20);
        assert!(packer.pack(&pages, 0, 0).is_none());
        for page in pages.chunks_mut(16 << 10) {
            page[4096..].fill(0);
        }
        assert_eq!(packer.form(), BlockForm::Sparse);
        let packed = packer.pack(&pages, 6, 4).unwrap();
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
            let mut packer = packer(Some(level));
            assert_eq!(packer.pack(&pages, 0, 0).is_some(), is_packed, "level {level}");
        }
    }

    #[test]
    fn a_packer_changes_its_method() {
        let (text, noise) = (text(1 << 20), noise(1 << 20));
        let mut packer = Packer::new(Packing::Auto).unwrap();
        let mut unpacker = Unpacker::new();
        let mut unpacked = vec![0; text.len()];
        assert!(packer.pack(&text, 0, 0).is_none(), "no zeros");
        let mut lens = Vec::new();
        for packing in [Packing::Zstd(1), Packing::Lz4, Packing::Zstd(6), Packing::Zstd(1)] {
            packer.switch(packing).unwrap();
            let form = packer.form();
            let packed = packer.pack(&text, 6, 4).unwrap();
            lens.push(packed.len());
            unpacker.unpack(form, &packed[6..packed.len() - 4], &mut unpacked).unwrap();
            assert!(unpacked == text, "{packing}");
        }
        assert_eq!(lens[0], lens[3]);
        assert!(lens[2] < lens[0] && lens[0] < lens[1], "{lens:?}");
        // Misses stay, and a retry does what it says.
        (0..=MAX_MISSES).for_each(|_| assert!(packer.pack(&noise, 0, 0).is_none()));
        packer.switch(Packing::Lz4).unwrap();
        assert!(packer.should_skip());
        packer.retry();
        assert!(!packer.should_skip());
        assert!(packer.pack(&text, 0, 0).is_some());
        // A frame that did not fit does not stop a change of the level.
        packer.switch(Packing::Zstd(1)).unwrap();
        assert!(packer.pack(&noise, 0, 0).is_none());
        packer.switch(Packing::Zstd(6)).unwrap();
        assert_eq!(packer.pack(&text, 6, 4).unwrap().len(), lens[2]);
    }

    #[test]
    fn damaged_blocks_are_refused() {
        for level in [None, Some(0), Some(1)] {
            let mut block = text(100_000);
            block[20_000..70_000].fill(0);
            let mut packer = packer(level);
            let form = packer.form();
            let packed = packer.pack(&block, 0, 0).unwrap();
            let packed = &*packed;
            let mut unpacker = Unpacker::new();
            let mut place = vec![0; block.len()];
            assert!(unpacker.unpack(form, &packed[..packed.len() - 1], &mut place).is_err());
            assert!(unpacker.unpack(form, packed, &mut place[1..]).is_err());
            assert!(unpacker.unpack(form, packed, &mut vec![0; block.len() + 1]).is_err());
            assert!(unpacker.unpack(form, &[], &mut place).is_err());
            assert!(unpacker.unpack(BlockForm::File, &[], &mut place).is_err());
            assert!(unpacker.unpack(BlockForm::Raw, packed, &mut place).is_err());
            // The unpacker is still of use afterwards.
            unpacker.unpack(form, packed, &mut place).unwrap();
            assert!(place == block);
        }
    }
}
