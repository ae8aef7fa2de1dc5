// SPDX-License-Identifier: GPL-2.0-only

//! A block without its zeros.
//!
//! | Bytes | |
//! |---|---|
//! | one bit for each [`GRANULE`] of the block, the lowest bit of the first byte for the first; bits behind the last are 0 | 1: it is there, 0: it is all zeros |
//! | the granules that are there, one behind the other; the last one of a block may be shorter | |
//!
//! Pages of compressed tables end in holes, and a new table is mostly pages that were never used. A
//! scan of the bytes finds both, also where the file system does not report holes.

use std::io::IoSlice;
use std::ops::Range;

/// Bytes that one bit stands for: a sector. Larger granules miss most of the free space in InnoDB's
/// pages. Smaller ones cost more than they save.
const GRANULE: usize = 512;

/// Bytes that one byte of the map stands for: a page of memory, and of most file systems.
const PAGE: usize = 8 * GRANULE;

/// The least pages of zeros between two islands. Shorter gaps are written: each piece of a file
/// costs a call, and an extent of the file system.
const GAP: usize = 2;

/// Zeros for the gaps inside an island: pages, and at either end a part of a page.
static ZEROS: [u8; (GAP + 1) * PAGE] = [0; (GAP + 1) * PAGE];

/// A packed block has at least a sixteenth of the block's length. If necessary, granules of zeros
/// are included.
///
/// A recipient with a bandwidth limit waits for each block as long as the unpacked bytes take. The
/// socket's buffer holds some MiB: blocks that are much shorter would let a donor run far ahead,
/// and then wait for longer than `net_write_timeout`. A recipient refuses shorter blocks, so that a
/// few bytes from the network cannot allocate thousands of times as much on the disk.
const LEAST: usize = 16;

fn map_len(len: usize) -> usize {
    len.div_ceil(GRANULE).div_ceil(8)
}

/// Packs `block` into the beginning of `place`, and returns the packed length. None if the packed
/// form is not shorter than `limit`, or if `place` has no room.
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

/// A packed block. Its map and its granules fit together.
#[derive(Clone, Copy, Debug)]
pub struct Sparse<'a> {
    map: &'a [u8],
    granules: &'a [u8],
    len: usize,
}

impl<'a> Sparse<'a> {
    /// None if `packed` is not the packed form of a block of `len` bytes.
    pub fn parse(packed: &'a [u8], len: usize) -> Option<Self> {
        if packed.len() < len / LEAST { None } else { Self::fit(packed, len) }
    }

    /// Like [`parse`](Self::parse), without the check of the least length.
    fn fit(packed: &'a [u8], len: usize) -> Option<Self> {
        let (map, granules) = packed.split_at_checked(map_len(len))?;
        let count = len.div_ceil(GRANULE);
        let has_more = (count..map.len() * 8).any(|index| is_there(map, index));
        let there: usize = map.iter().map(|bits| bits.count_ones() as usize).sum();
        // The last one may be shorter.
        let short = if count > 0 && is_there(map, count - 1) { count * GRANULE - len } else { 0 };
        let fits = !has_more && there * GRANULE - short == granules.len();
        fits.then_some(Self { map, granules, len })
    }

    /// Bytes of the block.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is a block of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `block`, which has this length.
    ///
    /// # Panics
    /// It has another one.
    pub fn unpack(&self, block: &mut [u8]) {
        assert_eq!(block.len(), self.len);
        let mut granules = self.granules;
        for (run, is_there) in self.runs(0..self.len) {
            let place = &mut block[run];
            if is_there {
                place.copy_from_slice(take(&mut granules, place.len()));
            } else {
                place.fill(0);
            }
        }
    }

    /// Whether the whole block is one [island](islands).
    pub(crate) fn is_one_island(&self) -> bool {
        islands(self.len, |page| self.map[page] != 0).next() == Some(0..self.len)
    }

    /// Calls `give` for each [island](islands). `give` gets the island's offset in the block, and
    /// its bytes in parts. It may change the slices. A long island is given in several calls.
    pub(crate) fn islands<E>(
        &self,
        mut give: impl FnMut(usize, &mut [IoSlice<'a>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut granules = self.granules;
        let mut parts = Vec::with_capacity(MAX_PARTS);
        for island in islands(self.len, |page| self.map[page] != 0) {
            let (mut begin, mut end) = (island.start, island.start);
            for (run, is_there) in self.runs(island) {
                end = run.end;
                parts.push(IoSlice::new(match is_there {
                    true => take(&mut granules, run.len()),
                    false => &ZEROS[..run.len()],
                }));
                if parts.len() == MAX_PARTS {
                    give(begin, &mut parts)?;
                    parts.clear();
                    begin = end;
                }
            }
            if begin < end {
                give(begin, &mut parts)?;
                parts.clear();
            }
        }
        Ok(())
    }

    /// Runs of granules in `part`, which begins at a granule.
    fn runs(&self, part: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> + 'a {
        let (map, start) = (self.map, part.start);
        runs(part.len(), GRANULE, move |index| is_there(map, start / GRANULE + index))
            .map(move |(run, is_there)| (run.start + start..run.end + start, is_there))
    }
}

/// The most parts of an island in one call. Linux takes 1024.
const MAX_PARTS: usize = 64;

/// Takes `len` bytes from the front of `bytes`.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (here, rest) = bytes.split_at(len);
    *bytes = rest;
    here
}

/// The islands of a block of `len` bytes: runs of whole pages with data (the last page of a block
/// may be shorter), and of gaps of less than [`GAP`] pages between these.
fn islands(len: usize, has_data: impl Fn(usize) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut data = runs(len, PAGE, has_data).filter(|(_, has_data)| *has_data).map(|(run, _)| run);
    let mut next = data.next();
    std::iter::from_fn(move || {
        let mut island = next.take()?;
        next = data.find(|run| {
            let is_near = run.start - island.end < GAP * PAGE;
            if is_near {
                island.end = run.end;
            }
            !is_near
        });
        Some(island)
    })
}

/// The [islands](islands) of a block in memory.
pub(crate) fn islands_of(block: &[u8]) -> impl Iterator<Item = Range<usize>> {
    islands(block.len(), |page| !is_zero(&block[page * PAGE..block.len().min((page + 1) * PAGE)]))
}

/// Splits `len` bytes into pieces of `step` bytes, and joins neighbours of the same `kind`. Returns
/// each run with its kind.
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

fn is_there(map: &[u8], index: usize) -> bool {
    map[index / 8] & (1 << (index % 8)) != 0
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Most granules with data differ from zero in their first 8 bytes. The loop over all bytes has
    // no branch, so that it uses whole registers.
    let begin = bytes.first_chunk::<8>().is_none_or(|begin| u64::from_ne_bytes(*begin) == 0);
    begin && bytes.iter().fold(0, |all, byte| all | byte) == 0
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

    fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
        parts.iter().flat_map(|part| part.to_vec()).collect()
    }

    fn unpack(packed: &[u8], block: &mut [u8]) -> Option<()> {
        let sparse = Sparse::parse(packed, block.len())?;
        sparse.unpack(block);
        // Written page by page it is the same.
        let mut written = vec![0; block.len()];
        let mut behind = 0;
        let gave: Result<(), ()> = sparse.islands(|at, parts| {
            assert!(at >= behind && at.is_multiple_of(GRANULE) && parts.len() <= MAX_PARTS);
            let bytes = joined(parts);
            written[at..at + bytes.len()].copy_from_slice(&bytes);
            behind = at + bytes.len();
            Ok(())
        });
        assert!(gave.is_ok() && written == *block);
        Some(())
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
    fn islands_are_whole_pages() {
        let mut block = vec![0; 10 * PAGE + 700];
        block[PAGE + GRANULE] = 1;
        block[2 * PAGE] = 2;
        block[5 * PAGE - 1] = 3;
        block[10 * PAGE + 699] = 4;
        let mut packed = vec![0; 11];
        for (at, bits) in [(1, 2), (2, 1), (4, 1 << 7), (10, 2)] {
            packed[at] = bits;
        }
        for granule in [PAGE + GRANULE, 2 * PAGE, 5 * PAGE - GRANULE] {
            packed.extend_from_slice(&block[granule..granule + GRANULE]);
        }
        packed.extend_from_slice(&block[10 * PAGE + GRANULE..]);
        let mut islands = Vec::new();
        assert!(Sparse::parse(&packed, block.len()).is_none(), "shorter than a donor makes it");
        let sparse = Sparse::fit(&packed, block.len()).unwrap();
        let gave: Result<(), ()> = sparse.islands(|at, parts| {
            islands.push((at, joined(parts).len()));
            Ok(())
        });
        gave.unwrap();
        assert_eq!(islands, [(PAGE, 4 * PAGE), (10 * PAGE, 700)], "a gap of one page is written");
        let of_bytes: Vec<_> =
            islands_of(&block).map(|island| (island.start, island.len())).collect();
        assert_eq!(of_bytes, islands);
        assert_eq!(sparse.islands(|_, _| Err(())), Err(()));
        assert!(!sparse.is_one_island());
        let whole = [&[1, 0, 1][..], &[7; 2 * GRANULE]].concat();
        assert!(Sparse::parse(&whole, 3 * PAGE).unwrap().is_one_island(), "one page is written");
    }

    /// Every other granule is there: more parts than are given at once.
    #[test]
    fn long_islands_come_in_pieces() {
        let mut block = vec![0; 20 * PAGE];
        block.iter_mut().step_by(2 * GRANULE).for_each(|byte| *byte = 1);
        let packed = packed(&block);
        let mut unpacked = vec![0xee; block.len()];
        unpack(&packed, &mut unpacked).unwrap();
        assert!(unpacked == block);
        let (mut pieces, sparse) = (0, Sparse::parse(&packed, block.len()).unwrap());
        let gave: Result<(), ()> = sparse.islands(|_, _| {
            pieces += 1;
            Ok(())
        });
        assert_eq!((gave, pieces), (Ok(()), 160 / MAX_PARTS + 1));
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
