// SPDX-License-Identifier: GPL-2.0-only

//! A block without its zeros.
//!
//! | Bytes | |
//! |---|---|
//! | one bit for each [`GRANULE`] of the block, the lowest bit of the first byte for the first; bits behind the last are 0 | 1: it is there, 0: it is all zeros |
//! | the granules that are there, one behind the other; the last one of a block may be shorter | |
//!
//! Pages of compressed tables end in holes, and a new table is mostly pages that were never used. A look at the bytes finds both, whatever
//! the file system says of holes.

use std::ops::Range;

/// Bytes that one bit stands for: a sector. Coarser ones miss most of what is free in InnoDB's pages, finer ones cost more than they find.
const GRANULE: usize = 512;

/// A packed block has at least so much of the block, with zeros if need be. A recipient with a bandwidth limit takes as long for it as for the
/// block, and the donor, who waits until there is room for the next one in the socket's megabytes, gives up after a minute.
const LEAST: usize = 16;

fn map_len(len: usize) -> usize {
    len.div_ceil(GRANULE).div_ceil(8)
}

/// Packs `block` into the beginning of `place`, and gives the length; none if that would not be less than `limit`, or if `place` has no
/// room for it.
pub(crate) fn pack(block: &[u8], place: &mut [u8], limit: usize) -> Option<usize> {
    let (map, place) = place.split_at_mut_checked(map_len(block.len()))?;
    map.fill(0);
    let mut len = map.len();
    for (index, granule) in block.chunks(GRANULE).enumerate() {
        if !is_zero(granule) {
            map[index / 8] |= 1 << (index % 8);
            len += granule.len();
        }
    }
    for (index, granule) in block.chunks(GRANULE).enumerate() {
        if len >= block.len() / LEAST {
            break;
        }
        if !is_there(map, index) {
            map[index / 8] |= 1 << (index % 8);
            len += granule.len();
        }
    }
    if len >= limit {
        return None;
    }
    let mut place = place.get_mut(..len - map.len())?;
    let parts = runs(block.len(), GRANULE, |index| is_there(map, index));
    for (run, _) in parts.filter(|(_, is_there)| *is_there) {
        let (here, rest) = place.split_at_mut(run.len());
        here.copy_from_slice(&block[run]);
        place = rest;
    }
    Some(len)
}

/// Fills `block` from its packed form; none if that is not one of a block of this length.
pub(crate) fn unpack(packed: &[u8], block: &mut [u8]) -> Option<()> {
    let count = block.len().div_ceil(GRANULE);
    let (map, mut packed) = packed.split_at_checked(map_len(block.len()))?;
    if (count..map.len() * 8).any(|index| is_there(map, index)) {
        return None;
    }
    for (run, is_there) in runs(block.len(), GRANULE, |index| is_there(map, index)) {
        let place = &mut block[run];
        if is_there {
            let (here, rest) = packed.split_at_checked(place.len())?;
            place.copy_from_slice(here);
            packed = rest;
        } else {
            place.fill(0);
        }
    }
    packed.is_empty().then_some(())
}

/// The parts of `len` bytes in pieces of `step` that are all of one kind, in turn, and which one.
fn runs(
    len: usize,
    step: usize,
    kind: impl Fn(usize) -> bool,
) -> impl Iterator<Item = (Range<usize>, bool)> {
    let count = len.div_ceil(step);
    let mut begin = 0;
    std::iter::from_fn(move || {
        let one = (begin < count).then(|| kind(begin))?;
        let end = (begin + 1..count).find(|index| kind(*index) != one).unwrap_or(count);
        let run = begin * step..(end * step).min(len);
        begin = end;
        Some((run, one))
    })
}

/// The parts of `data`, in pieces of `step` bytes, that are not all zeros.
pub(crate) fn islands(data: &[u8], step: usize) -> impl Iterator<Item = Range<usize>> {
    let is_land = move |index: usize| {
        let at = index * step;
        !is_zero(&data[at..(at + step).min(data.len())])
    };
    runs(data.len(), step, is_land).filter_map(|(run, is_land)| is_land.then_some(run))
}

fn is_there(map: &[u8], index: usize) -> bool {
    map[index / 8] & (1 << (index % 8)) != 0
}

fn is_zero(granule: &[u8]) -> bool {
    // Most that are not show it at once. The rest is one loop without a branch, which takes whole registers.
    let begin = granule.first_chunk::<8>().is_none_or(|begin| u64::from_ne_bytes(*begin) == 0);
    begin && granule.iter().fold(0, |all, byte| all | byte) == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The most bytes that a block of `len` takes.
    fn max_packed(len: usize) -> usize {
        map_len(len) + len
    }

    fn packed(block: &[u8]) -> Vec<u8> {
        let mut place = vec![0xee; max_packed(block.len())];
        let len = pack(block, &mut place, usize::MAX).unwrap();
        place.truncate(len);
        place
    }

    #[test]
    fn byte_by_byte() {
        let mut block = vec![0; 9 * GRANULE + 3];
        block[GRANULE - 1] = 1;
        block[2 * GRANULE] = 2;
        block[9 * GRANULE + 2] = 3;
        let mut expected = vec![0b101, 0b10];
        expected.extend_from_slice(&block[..GRANULE]);
        expected.extend_from_slice(&block[2 * GRANULE..3 * GRANULE]);
        expected.extend_from_slice(&[0, 0, 3]);
        assert_eq!(packed(&block), expected);
        let mut unpacked = vec![0xee; block.len()];
        unpack(&expected, &mut unpacked).unwrap();
        assert_eq!(unpacked, block);
    }

    /// A block of granules that are zeros, have one byte, or are full.
    fn block() -> impl Strategy<Value = Vec<u8>> {
        let granule = prop_oneof![
            Just(vec![0; GRANULE]),
            (0..GRANULE, 1u8..).prop_map(|(at, byte)| {
                let mut granule = vec![0; GRANULE];
                granule[at] = byte;
                granule
            }),
            vec(any::<u8>(), GRANULE),
        ];
        (vec(granule, 0..20), vec(any::<u8>(), 0..GRANULE))
            .prop_map(|(granules, rest)| [granules.concat(), rest].concat())
    }

    proptest! {
        #[test]
        fn any_block_comes_back(block in block()) {
            let packed = packed(&block);
            prop_assert!(packed.len() <= max_packed(block.len()));
            let mut unpacked = vec![0xee; block.len()];
            unpack(&packed, &mut unpacked).unwrap();
            prop_assert!(unpacked == block);
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(
            packed in vec(any::<u8>(), 0..3 * GRANULE),
            len in 0..3 * GRANULE,
        ) {
            let _ = unpack(&packed, &mut vec![0xee; len]);
        }
    }

    #[test]
    fn what_is_not_worth_it_is_left() {
        let mut block = vec![1; 8 * GRANULE];
        block[..GRANULE].fill(0);
        let mut place = vec![0; max_packed(block.len())];
        let len = 1 + 7 * GRANULE;
        assert_eq!(pack(&block, &mut place, len), None);
        assert_eq!(pack(&block, &mut place, len + 1), Some(len));
        assert_eq!(pack(&block, &mut place[..len - 1], len + 1), None, "no room");
        assert_eq!(pack(&block, &mut [], len + 1), None, "no room");
    }

    #[test]
    fn a_part_of_every_block_is_sent() {
        let mut block = vec![0; 64 * GRANULE];
        let zeros = packed(&block);
        assert_eq!(zeros.len(), 8 + 4 * GRANULE);
        block[5 * GRANULE] = 1;
        let one = packed(&block);
        assert_eq!(one.len(), zeros.len());
        let mut unpacked = vec![0xee; block.len()];
        unpack(&one, &mut unpacked).unwrap();
        assert!(unpacked == block);
    }

    #[test]
    fn islands_are_what_is_not_zero() {
        let data = [0, 0, 0, 0, 5, 0, 0, 1, 0, 0, 7];
        assert_eq!(islands(&data, 2).collect::<Vec<_>>(), [4..8, 10..11]);
        assert_eq!(islands(&[1, 0, 0, 4], 1).collect::<Vec<_>>(), [0..1, 3..4]);
        assert_eq!(islands(&[0; 3], 2).count(), 0);
        assert_eq!(islands(&[], 2).count(), 0);
    }

    #[test]
    fn what_is_no_packed_block_is_refused() {
        let mut block = vec![0; 3 * GRANULE + 1];
        block[0] = 1;
        block[3 * GRANULE] = 1;
        let good = packed(&block);
        assert_eq!(good.len(), 1 + GRANULE + 1);
        let mut place = vec![0; block.len()];
        let refuses = |packed: &[u8], place: &mut [u8]| assert!(unpack(packed, place).is_none());
        refuses(&[], &mut place);
        refuses(&good[..good.len() - 1], &mut place);
        refuses(&[&good[..], &[0]].concat(), &mut place);
        // A bit for a granule that the block does not have.
        refuses(&[&[good[0] | 1 << 4], &good[1..]].concat(), &mut place);
        refuses(&good, &mut vec![0; 2 * GRANULE]);
        refuses(&good, &mut []);
        unpack(&good, &mut place).unwrap();
        assert!(place == block);
        unpack(&[], &mut []).unwrap();
    }
}
