// SPDX-License-Identifier: GPL-2.0-only

//! Extent descriptors: which pages are in use, and whose they are (`fsp0fsp.h`, XDES).
//!
//! Page 0 and each page whose number is a multiple of the page size in bytes describe as many pages
//! as that size. A descriptor:
//!
//! | Offset | Bytes       | Field                                                |
//! |--------|-------------|------------------------------------------------------|
//! | 0      | 8           | the segment, if the extent belongs to one            |
//! | 8      | 12          | the extents before and behind this one in its list   |
//! | 20     | 4           | state                                                |
//! | 24     | 16 (64, ..) | two bits for each page; the lower one: page is free  |

use clone_protocol::innodb::PageSize;

use super::bytes::{u32_at, u64_at};
use super::layout::{XDES_ARRAY, XDES_BITMAP, XDES_NODE, XDES_STATE};
use super::space_header::Address;

/// `XDES_FREE`: in the tablespace's list FREE.
pub(crate) const FREE: u32 = 1;
/// `XDES_FREE_FRAG`: pages go to segments one by one, and some are free.
pub(crate) const FREE_FRAG: u32 = 2;
/// `XDES_FULL_FRAG`: pages went to segments one by one.
pub(crate) const FULL_FRAG: u32 = 3;
/// `XDES_FSEG`: all pages belong to one segment.
pub(crate) const FSEG: u32 = 4;
/// `XDES_FSEG_FRAG`: as FSEG, but for the descriptor page itself and the page behind it.
pub(crate) const FSEG_FRAG: u32 = 5;

/// A descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The segment's number; 0 for none.
    pub segment: u64,
    /// The extent before this one in its list.
    pub prev: Address,
    /// The extent behind it.
    pub next: Address,
    /// One of the states above, 0 if it was never used.
    pub state: u32,
    /// A bit for each page, set if the page is free. An extent has 256 pages at most.
    free: [u64; 4],
}

impl Extent {
    /// Whether a page is free, by its number within the extent.
    pub fn is_free(&self, page: u32) -> bool {
        self.free.get(page as usize / 64).is_none_or(|bits| bits >> (page % 64) & 1 == 1)
    }

    /// Pages that are in use.
    pub fn used(&self, pages: u32) -> u32 {
        pages.saturating_sub(self.free.iter().map(|bits| bits.count_ones()).sum())
    }

    /// Whether all pages belong to one segment.
    pub(crate) fn is_of_segment(&self) -> bool {
        matches!(self.state, FSEG | FSEG_FRAG)
    }

    fn parse(entry: &[u8]) -> Self {
        let mut free = [0; 4];
        for (at, byte) in entry[XDES_BITMAP..].iter().enumerate() {
            // Four pages in each byte.
            let bits = byte & 1 | byte >> 1 & 2 | byte >> 2 & 4 | byte >> 3 & 8;
            if let Some(word) = free.get_mut(at / 16) {
                *word |= u64::from(bits) << (at % 16 * 4);
            }
        }
        Self {
            segment: u64_at(entry, 0),
            prev: Address::at(entry, XDES_NODE),
            next: Address::at(entry, XDES_NODE + 6),
            state: u32_at(entry, XDES_STATE),
            free,
        }
    }
}

/// Descriptors of a page that has some.
fn count(page_size: PageSize) -> usize {
    (page_size.physical / page_size.extent_pages()) as usize
}

/// Bytes of a descriptor.
fn len(page_size: PageSize) -> usize {
    XDES_BITMAP + page_size.extent_pages() as usize / 4
}

/// Where the descriptors of a page end.
pub(crate) fn end(page_size: PageSize) -> usize {
    XDES_ARRAY + count(page_size) * len(page_size)
}

/// The descriptors of a page, in order.
pub fn parse(page: &[u8], page_size: PageSize) -> Vec<Extent> {
    let array = page.get(XDES_ARRAY..).unwrap_or_default();
    array.chunks_exact(len(page_size)).take(count(page_size)).map(Extent::parse).collect()
}

/// Which extent an address in a list is, if there can be one.
pub(crate) fn extent_at(address: Address, page_size: PageSize) -> Option<usize> {
    let offset = usize::from(address.offset).checked_sub(XDES_ARRAY + XDES_NODE)?;
    let entry = offset / len(page_size);
    let is_entry = offset.is_multiple_of(len(page_size)) && entry < count(page_size);
    (is_entry && address.page.is_multiple_of(page_size.physical))
        .then(|| (address.page / page_size.extent_pages()) as usize + entry)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: PageSize = PageSize { physical: 16_384, logical: 16_384, is_compressed: false };

    #[test]
    fn descriptors_are_read() {
        let mut page = vec![0; 16_384];
        let at = XDES_ARRAY + 40;
        page[at + 7] = 9;
        page[at + XDES_STATE + 3] = 4;
        // Pages 0 and 5 are free; the upper bits say nothing.
        page[at + XDES_BITMAP] = 0b1010_1011;
        page[at + XDES_BITMAP + 1] = 0b0000_0100;
        let extents = parse(&page, SIZE);
        assert_eq!(extents.len(), 256);
        let extent = extents[1];
        assert_eq!((extent.segment, extent.state), (9, FSEG));
        let free: Vec<_> = (0..64).filter(|page| extent.is_free(*page)).collect();
        assert_eq!(free, [0, 5]);
        assert_eq!(extent.used(64), 62);
        let address = |page, offset| extent_at(Address { page, offset }, SIZE);
        assert_eq!(address(0, 158), Some(0));
        assert_eq!(address(16_384, 158 + 40), Some(257));
        assert_eq!(address(1, 158), None);
        assert_eq!(address(0, 159), None);
        assert_eq!(address(0, 158 + 256 * 40), None);
        assert_eq!(address(u32::MAX, 0), None);
    }

    #[test]
    fn descriptors_end_where_the_key_begins() {
        // The flags of pages of 4, 16 and 64 KiB, and of 8 KiB that are compressed.
        for (flags, descriptor, end) in
            [(3 << 6, 88, 1558), (0, 40, 10_390), (7 << 6, 40, 41_110), (0x29, 40, 5270)]
        {
            let page_size = PageSize::of(flags).unwrap();
            assert_eq!((len(page_size), super::end(page_size)), (descriptor, end), "{flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..3000), flags: u32) {
            if let Some(page_size) = PageSize::of(flags) {
                for extent in parse(&bytes, page_size) {
                    let _ = (extent.used(64), extent_at(extent.next, page_size));
                }
            }
        }
    }
}
