// SPDX-License-Identifier: GPL-2.0-only

//! Clones to a recipient that has an older copy of the donor's data, the *base*. The donor sends
//! only what differs from it.
//!
//! The recipient digests its base, one [`Digest`] for each unit of a tablespace, and sends the
//! digests ([`Base`]) to a donor that has announced [`BASE_CONFIG`]. The donor compares them with
//! what it reads. In front of the descriptor of a block of which units are equal it sends a
//! [`Block`](crate::Block) of the form [`Base`](crate::BlockForm::Base), which says which units
//! these are ([`EqualUnits`]). The data behind the descriptor are the other bytes of the block.

use std::ops::Range;

use crate::wire::{Reader, len_u32};
use crate::{MAX_BLOCK, ProtocolError};

/// The CONFIG_V3 with which a donor announces that it takes digests of a base.
pub const BASE_CONFIG: &str = "mysql_clone_base";

/// The value of [`BASE_CONFIG`] today.
pub const BASE_VALUE: &str = "1";

/// The first 16 bytes of the keyed BLAKE3 hash of a unit. The key is random and new for each clone,
/// so nobody can prepare two units with the same digest.
pub type Digest = [u8; 16];

/// The smallest and the largest unit, in bytes.
pub(crate) const MIN_UNIT: u32 = 4 << 10;
const MAX_UNIT: u32 = MAX_BLOCK;

/// The most digests that a donor keeps for a clone: 256 MiB. Each [`Run`] counts as
/// [`RUN_COST`] digests more, because a run needs memory of its own.
pub const MAX_DIGESTS: usize = 16 << 20;
/// See [`MAX_DIGESTS`].
pub const RUN_COST: usize = 4;

/// The most bytes of a [`Base`] on the wire. Each server takes packets of 2 MiB in a clone.
const MAX_BASE_LEN: usize = 1 << 20;

/// No tablespace is larger, in bytes: 2^32 pages of 64 KiB.
const MAX_SPACE: u64 = 1 << 48;

/// Bytes of a [`Base`] in front of its runs, and of a [`Run`] in front of its digests.
const HEAD: usize = 36;
const RUN_HEAD: usize = 16;

const WRONG: &str = "Wrong Clone RPC: Invalid base";

/// Digests of a base:
///
/// | Offset | Type | |
/// |---|---|---|
/// | 0 | 32 bytes | the key of the digests. With another key or unit than before, and with the first packet of a connection, all earlier digests are forgotten |
/// | 32 | `u32` | the unit in bytes: a power of two, 4 KiB to 16 MiB. One for all digests of a key |
/// | 36 | | [`Run`]s up to the end of the packet, which has 1 MiB at most |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base<'a> {
    /// The key of the digests.
    pub key: [u8; 32],
    /// The unit in bytes.
    pub unit: u32,
    /// In the order of their tablespaces and places, each behind the one before.
    pub runs: Vec<Run<'a>>,
}

/// The digests of units that lie one behind the other in a tablespace:
///
/// | Offset | Type | |
/// |---|---|---|
/// | 0 | `u32` | tablespace id |
/// | 4 | `u64` | number of the first unit, from 0, in the tablespace. Files of one tablespace count as one |
/// | 12 | `u32` | how many units, at least 1 |
/// | 16 | | their digests, 16 bytes each |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The tablespace.
    pub space_id: u32,
    /// The number of the first unit.
    pub first: u64,
    /// One for each unit.
    pub digests: &'a [Digest],
}

impl Run<'_> {
    /// Its bytes on the wire.
    pub fn encoded_len(&self) -> usize {
        RUN_HEAD + size_of_val(self.digests)
    }

    /// How many digests it counts as, of [`MAX_DIGESTS`].
    pub fn cost(&self) -> usize {
        RUN_COST + self.digests.len()
    }
}

impl<'a> Base<'a> {
    /// How many digests fit into a packet behind `len` bytes of other runs.
    pub fn room(len: usize) -> usize {
        MAX_BASE_LEN.saturating_sub(HEAD + len + RUN_HEAD) / size_of::<Digest>()
    }

    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let wrong = || ProtocolError::new(WRONG);
        let is_short = payload.len() <= MAX_BASE_LEN;
        is_short.then(|| Self::fields(Reader::new(payload))).flatten().ok_or_else(wrong)
    }

    fn fields(mut reader: Reader<'a>) -> Option<Self> {
        let (key, unit) = (reader.array()?, reader.u32_le()?);
        if !unit.is_power_of_two() || !(MIN_UNIT..=MAX_UNIT).contains(&unit) {
            return None;
        }
        let mut runs: Vec<Run<'a>> = Vec::new();
        while !reader.is_empty() {
            let (space_id, first) = (reader.u32_le()?, reader.u64_le()?);
            let count = reader.u32_le().filter(|count| *count != 0)?;
            let bytes = reader.bytes(count.checked_mul(len_u32(size_of::<Digest>()))?)?;
            let (digests, _) = bytes.as_chunks();
            let end = first.checked_add(u64::from(count))?;
            let is_behind = runs.last().is_none_or(|last| {
                (last.space_id, last.first + last.digests.len() as u64) <= (space_id, first)
            });
            if !is_behind || end > MAX_SPACE / u64::from(unit) {
                return None;
            }
            runs.push(Run { space_id, first, digests });
        }
        Some(Self { key, unit, runs })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.unit.to_le_bytes());
        for run in &self.runs {
            out.extend_from_slice(&run.space_id.to_le_bytes());
            out.extend_from_slice(&run.first.to_le_bytes());
            out.extend_from_slice(&len_u32(run.digests.len()).to_le_bytes());
            out.extend_from_slice(run.digests.as_flattened());
        }
    }
}

/// The whole units of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Units {
    /// The number of the first in the tablespace.
    pub first: u64,
    /// How many there are.
    pub count: usize,
    /// Bytes of the block in front of the first.
    lead: usize,
    unit: usize,
    /// Bytes of the block.
    len: usize,
}

impl Units {
    /// The units of `unit` bytes that lie whole in the `len` bytes at `offset` of a tablespace.
    pub fn of(offset: u64, len: u32, unit: u32) -> Self {
        let size = u64::from(unit.max(MIN_UNIT));
        let first = offset.div_ceil(size);
        let end = offset.saturating_add(u64::from(len)) / size;
        let lead = first.saturating_mul(size).saturating_sub(offset);
        Self {
            first,
            count: usize::try_from(end.saturating_sub(first)).unwrap_or(0),
            lead: usize::try_from(lead).unwrap_or(0),
            unit: usize::try_from(size).unwrap_or(0),
            len: len as usize,
        }
    }

    /// Where a unit is in the block; `index` counts from the first.
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = self.lead + index * self.unit;
        start..start + self.unit
    }
}

/// Which units of a block are equal to the base. On the wire one bit for each unit, the lowest of a
/// byte first. Bits behind the last unit are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EqualUnits {
    units: Units,
    bits: Vec<u8>,
}

/// Bytes of a block that are all equal to the base, or all different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// In the block.
    pub range: Range<usize>,
    /// The units, as indexes from the block's first one; none if the bytes differ.
    pub equal: Option<Range<usize>>,
}

impl EqualUnits {
    /// The units of which `is_equal` says so; none if there is no such unit.
    pub fn find(units: Units, mut is_equal: impl FnMut(usize) -> bool) -> Option<Self> {
        let mut bits = vec![0; units.count.div_ceil(8)];
        for index in (0..units.count).filter(|index| is_equal(*index)) {
            bits[index / 8] |= 1 << (index % 8);
        }
        let found = Self { units, bits };
        (found.equal_len() != 0).then_some(found)
    }

    /// Parses the bits of a block with these units.
    ///
    /// # Errors
    /// There are more or fewer bits than units, or none of them is 1.
    pub fn parse(units: Units, bits: &[u8]) -> Result<Self, ProtocolError> {
        let wrong = || ProtocolError::new("Wrong Clone RPC response: Invalid units of a base");
        if bits.len() != units.count.div_ceil(8) {
            return Err(wrong());
        }
        let is_set = |index: usize| bits[index / 8] & 1 << (index % 8) != 0;
        Self::find(units, is_set).filter(|found| found.bits == bits).ok_or_else(wrong)
    }

    /// The bits.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The whole units of the block.
    pub fn units(&self) -> Units {
        self.units
    }

    /// Bytes of the block.
    pub fn block_len(&self) -> usize {
        self.units.len
    }

    /// Bytes that are equal to the base.
    pub fn equal_len(&self) -> usize {
        let count: u32 = self.bits.iter().map(|byte| byte.count_ones()).sum();
        count as usize * self.units.unit
    }

    /// Bytes that are not in the base. They follow the block's descriptor.
    pub fn rest_len(&self) -> usize {
        self.units.len - self.equal_len()
    }

    fn is_equal(&self, index: usize) -> bool {
        self.bits.get(index / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0)
    }

    /// The block from its beginning to its end, each part as long as can be.
    pub fn parts(&self) -> Vec<Part> {
        let Units { count, len, .. } = self.units;
        let mut parts: Vec<Part> = Vec::new();
        let mut push = |range: Range<usize>, unit: Option<usize>| {
            if range.is_empty() {
                return;
            }
            match (parts.last_mut(), unit) {
                (Some(Part { range: last, equal: Some(units) }), Some(unit)) => {
                    last.end = range.end;
                    units.end = unit + 1;
                }
                (Some(Part { range: last, equal: None }), None) => last.end = range.end,
                (_, unit) => {
                    parts.push(Part { range, equal: unit.map(|unit| unit..unit + 1) });
                }
            }
        };
        push(0..self.units.range(0).start.min(len), None);
        for index in 0..count {
            push(self.units.range(index), Some(index).filter(|index| self.is_equal(*index)));
        }
        push(self.units.range(count).start.min(len)..len, None);
        parts
    }

    /// Moves the bytes of `block` that are not in the base to its front. Returns how many these
    /// are.
    pub fn keep_rest(&self, block: &mut [u8]) -> usize {
        let mut at = 0;
        for part in self.parts().into_iter().filter(|part| part.equal.is_none()) {
            let len = part.range.len();
            block.copy_within(part.range, at);
            at += len;
        }
        at
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Block, BlockForm, Command, Response};

    #[test]
    fn a_base_byte_by_byte() {
        let digests = [[1; 16], [2; 16]];
        let runs = vec![
            Run { space_id: 5, first: 0x0102, digests: &digests },
            Run { space_id: 5, first: 0x0104, digests: &digests[..1] },
        ];
        let command = Command::Base(Base { key: [9; 32], unit: 16 << 10, runs });
        let mut payload = Vec::new();
        command.encode_payload(&mut payload);
        let head = [&[9; 32][..], &[0, 0x40, 0, 0]].concat();
        let first = [&[5, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0][..], &[1; 16], &[2; 16]];
        let second = [&[5, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0][..], &[1; 16]];
        assert_eq!(payload, [head, first.concat(), second.concat()].concat());
        assert_eq!(Command::parse(33, &payload), Ok(command));
        assert_eq!(Base::parse(&payload[..36]).unwrap().runs, []);
    }

    #[test]
    fn bases_that_are_none() {
        let base = |unit: u32, runs: &[(u32, u64, u32)]| {
            let mut payload = [&[0; 32][..], &unit.to_le_bytes()].concat();
            for (space_id, first, count) in runs {
                payload.extend_from_slice(&space_id.to_le_bytes());
                payload.extend_from_slice(&first.to_le_bytes());
                payload.extend_from_slice(&count.to_le_bytes());
                payload.extend_from_slice(&vec![0; 16 * (*count).min(4) as usize]);
            }
            Base::parse(&payload).map(|base| base.runs.len())
        };
        let wrong = Err(ProtocolError::new(WRONG));
        assert_eq!(base(4096, &[(1, 0, 2), (1, 2, 1), (2, 0, 1)]), Ok(3));
        for unit in [0, 2048, 4097, 12_288, 32 << 20, u32::MAX] {
            assert_eq!(base(unit, &[]), wrong, "{unit}");
        }
        for runs in [
            // Without digests, with more than there are, and with too many to count.
            &[(1, 0, 0)][..],
            &[(1, 0, 5)],
            &[(1, 0, u32::MAX)],
            // Not one behind the other.
            &[(1, 0, 2), (1, 1, 1)],
            &[(2, 0, 1), (1, 0, 1)],
            &[(1, 4, 1), (1, 0, 1)],
            // Behind the end of any tablespace.
            &[(1, u64::MAX, 1)],
            &[(1, MAX_SPACE / 4096, 1)],
        ] {
            assert_eq!(base(4096, runs), wrong, "{runs:?}");
        }
        assert_eq!(base(4096, &[(1, MAX_SPACE / 4096 - 1, 1)]), Ok(1));
        assert_eq!(Base::parse(&[0; 35]).map(drop), Err(ProtocolError::new(WRONG)));
        let mut long = [&[0; 32][..], &4096_u32.to_le_bytes(), &[0; 12]].concat();
        long.extend_from_slice(&(1_u32 << 16).to_le_bytes());
        long.resize(long.len() + (16 << 16), 0);
        assert!(Base::parse(&long).is_err(), "longer than a packet may be");
        assert!(HEAD + RUN_HEAD + 16 * Base::room(0) <= MAX_BASE_LEN);
        assert_eq!(Base::room(MAX_BASE_LEN), 0);
    }

    #[test]
    fn units_of_a_block() {
        for (offset, len, first, count, lead) in [
            (0, 1 << 20, 0, 64, 0),
            (5 << 20, 100 << 10, 320, 6, 0),
            (8 << 10, 40 << 10, 1, 2, 8 << 10),
            (1, 100, 1, 0, (16 << 10) - 1),
        ] {
            let units = Units::of(offset, len, 16 << 10);
            assert_eq!((units.first, units.count, units.lead), (first, count, lead), "{offset}");
        }
        assert_eq!(Units::of(u64::MAX, u32::MAX, 16 << 10).count, 0);
    }

    #[test]
    fn equal_units_byte_by_byte() {
        let units = Units::of(0, 10 << 12, 4096);
        let equal = EqualUnits::find(units, |index| [0, 1, 2, 9].contains(&index)).unwrap();
        assert_eq!(equal.bits(), [7, 2]);
        assert_eq!((equal.equal_len(), equal.rest_len()), (4 << 12, 6 << 12));
        let mut packet = vec![0; 6 + 2 + 4];
        packet[6..8].copy_from_slice(equal.bits());
        Block::frame(&mut packet, BlockForm::Base, 10 << 12, |_| 0x0102_0304);
        assert_eq!(packet, [32, 5, 0, 0xa0, 0, 0, 7, 2, 4, 3, 2, 1]);
        let Response::Block(block) = Response::parse(&packet).unwrap() else { panic!() };
        assert_eq!(EqualUnits::parse(units, block.bytes), Ok(equal));
        for wrong in [&[][..], &[0, 0], &[1], &[1, 4], &[1, 0, 0]] {
            assert!(EqualUnits::parse(units, wrong).is_err(), "{wrong:?}");
        }
        assert!(EqualUnits::find(units, |_| false).is_none());
        assert!(EqualUnits::parse(Units::of(1, 100, 4096), &[]).is_err());
    }

    proptest! {
        #[test]
        fn parts_are_the_block(
            offset in 0..1_u64 << 40,
            len in 1..1_u32 << 18,
            unit in prop::sample::select(vec![4096_u32, 16_384, 65_536]),
            bits in prop::collection::vec(any::<bool>(), 64),
        ) {
            let offset = offset / 1024 * 1024;
            let units = Units::of(offset, len, unit);
            prop_assert!(units.count <= 64);
            let Some(equal) = EqualUnits::find(units, |index| bits[index]) else { return Ok(()) };
            prop_assert_eq!(EqualUnits::parse(units, equal.bits()), Ok(equal.clone()));
            let mut block: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
            let whole = block.clone();
            let rest = equal.keep_rest(&mut block);
            prop_assert_eq!(rest, equal.rest_len());
            let (mut at, mut taken) = (0, 0);
            for (number, part) in equal.parts().into_iter().enumerate() {
                prop_assert_eq!(part.range.start, at);
                prop_assert!(!part.range.is_empty());
                at = part.range.end;
                match part.equal {
                    Some(indexes) => {
                        prop_assert!(indexes.clone().all(|index| bits[index]));
                        prop_assert_eq!(indexes.len() * unit as usize, part.range.len());
                        prop_assert_eq!(units.range(indexes.start).start, part.range.start);
                        let start = offset + part.range.start as u64;
                        prop_assert_eq!(start % u64::from(unit), 0);
                        prop_assert_eq!(start / u64::from(unit), units.first + indexes.start as u64);
                    }
                    None => {
                        let len = part.range.len();
                        prop_assert!(block[taken..taken + len] == whole[part.range], "{}", number);
                        taken += len;
                    }
                }
            }
            prop_assert_eq!((at, taken), (len as usize, rest));
        }

        #[test]
        fn whatever_comes_is_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(base) = Base::parse(&bytes) {
                let mut again = Vec::new();
                base.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
