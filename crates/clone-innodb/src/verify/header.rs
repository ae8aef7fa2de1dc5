// SPDX-License-Identifier: GPL-2.0-only

//! The header of a tablespace, in page 0 behind the header of the page (`fsp0fsp.h`).
//!
//! | Offset | Bytes | Field                                               |
//! |--------|-------|-----------------------------------------------------|
//! | 38     | 4     | FSP_SPACE_ID                                        |
//! | 46     | 4     | FSP_SIZE: pages of the tablespace                   |
//! | 50     | 4     | FSP_FREE_LIMIT: pages from here on were never used  |
//! | 54     | 4     | FSP_SPACE_FLAGS                                     |
//! | 58     | 4     | FSP_FRAG_N_USED: used pages in the list FREE_FRAG   |
//! | 62     | 16    | FSP_FREE, list of extents                           |
//! | 78     | 16    | FSP_FREE_FRAG                                       |
//! | 94     | 16    | FSP_FULL_FRAG                                       |

use super::bytes::{u16_at, u32_at};
use super::checksum;
use crate::layout::{
    FSP_FLAGS, FSP_FRAG_N_USED, FSP_FREE, FSP_FREE_FRAG, FSP_FREE_LIMIT, FSP_FULL_FRAG, FSP_SIZE,
    FSP_SPACE_ID, NUMBER, SPACE_ID,
};
use crate::page::PageSize;

/// The bit of `FSP_SPACE_FLAGS` for a temporary tablespace.
const TEMPORARY: u32 = 1 << 12;
/// The bit for an encrypted tablespace.
const ENCRYPTED: u32 = 1 << 13;

/// The largest page in bytes.
pub(crate) const MAX_PAGE: usize = 64 << 10;

/// Where a descriptor or an inode page stands: `fil_addr_t`, six bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The page; `FIL_NULL` (0xffffffff) if the address is none.
    pub page: u32,
    /// Bytes from the beginning of the page.
    pub offset: u16,
}

impl Address {
    pub(crate) fn at(page: &[u8], at: usize) -> Self {
        Self { page: u32_at(page, at), offset: u16_at(page, at + 4) }
    }
}

/// The base of a list: `flst_base_node_t`, 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Entries.
    pub len: u32,
    /// The first one.
    pub first: Address,
    /// The last one.
    pub last: Address,
}

impl List {
    pub(crate) fn at(page: &[u8], at: usize) -> Self {
        Self {
            len: u32_at(page, at),
            first: Address::at(page, at + 4),
            last: Address::at(page, at + 10),
        }
    }
}

/// How the pages of a tablespace lie in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a page in the file.
    pub physical: u32,
    /// Bytes of a page in memory.
    pub logical: u32,
    /// Whether pages are those of ROW_FORMAT=COMPRESSED. Both sizes may be the same then.
    pub is_compressed: bool,
}

impl Geometry {
    /// From `FSP_SPACE_FLAGS`, if InnoDB has such sizes.
    pub fn of(flags: u32) -> Option<Self> {
        let size = PageSize::of(flags).ok()?;
        let (physical, logical) = (size.physical, size.logical);
        Some(Self { physical, logical, is_compressed: size.is_compressed })
    }

    /// Pages of an extent.
    pub fn extent(self) -> u32 {
        ((1 << 20) / self.logical).max(64)
    }

    /// Bytes of an extent descriptor.
    pub(crate) fn descriptor(self) -> usize {
        24 + self.extent() as usize / 4
    }

    /// Bytes of a segment inode.
    pub(crate) fn inode(self) -> usize {
        64 + self.extent() as usize / 2 * 4
    }
}

/// The header of a tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceHeader {
    /// `FIL_PAGE_SPACE_ID` of page 0.
    pub space_id: u32,
    /// `FSP_SPACE_ID`, which must be the same.
    pub header_space_id: u32,
    /// `FSP_SIZE` in pages.
    pub size: u32,
    /// `FSP_FREE_LIMIT`, a page number.
    pub free_limit: u32,
    /// `FSP_SPACE_FLAGS`.
    pub flags: u32,
    /// `FSP_FRAG_N_USED` in pages.
    pub frag_used: u32,
    /// `FSP_FREE`.
    pub free: List,
    /// `FSP_FREE_FRAG`.
    pub free_frag: List,
    /// `FSP_FULL_FRAG`.
    pub full_frag: List,
}

impl SpaceHeader {
    /// From the first bytes of a tablespace. Nothing is checked: a page that is too short reads as
    /// zeros.
    pub fn parse(page: &[u8]) -> Self {
        Self {
            space_id: u32_at(page, SPACE_ID),
            header_space_id: u32_at(page, FSP_SPACE_ID),
            size: u32_at(page, FSP_SIZE),
            free_limit: u32_at(page, FSP_FREE_LIMIT),
            flags: u32_at(page, FSP_FLAGS),
            frag_used: u32_at(page, FSP_FRAG_N_USED),
            free: List::at(page, FSP_FREE),
            free_frag: List::at(page, FSP_FREE_FRAG),
            full_frag: List::at(page, FSP_FULL_FRAG),
        }
    }

    /// Whether the tablespace is a temporary one, which a server makes anew.
    pub fn is_temporary(&self) -> bool {
        self.flags & TEMPORARY != 0
    }

    /// Whether pages behind page 0 may be encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }
}

/// Finds the page size of a tablespace from its beginning, at best 256 KiB of it: from the flags of
/// page 0 if page 0 is good, or else from what the pages look like. Also says whether the flags are
/// to be believed.
pub fn geometry(beginning: &[u8]) -> Option<(Geometry, bool)> {
    let flagged = Geometry::of(u32_at(beginning, FSP_FLAGS));
    if let Some(geometry) = flagged
        && is_good(beginning, geometry)
    {
        return Some((geometry, true));
    }
    // Page 0 is damaged. The size is the one with which most pages are good.
    let mut best = None;
    for logical in (12..=16).rev().map(|bits| 1_u32 << bits) {
        for physical in (10..=14).map(|bits| 1_u32 << bits).filter(|size| *size <= logical) {
            consider(&mut best, beginning, Geometry { physical, logical, is_compressed: true });
        }
        let whole = Geometry { physical: logical, logical, is_compressed: false };
        consider(&mut best, beginning, whole);
    }
    match (best, flagged) {
        // The flags are as good as any if they explain as much.
        (Some((good, _)), Some(geometry)) if count_good(beginning, geometry) >= good => {
            Some((geometry, true))
        }
        (Some((_, geometry)), _) => Some((geometry, false)),
        (None, flagged) => flagged.map(|geometry| (geometry, true)),
    }
}

fn consider(best: &mut Option<(usize, Geometry)>, beginning: &[u8], geometry: Geometry) {
    let good = count_good(beginning, geometry);
    if good > best.map_or(0, |(good, _)| good) {
        *best = Some((good, geometry));
    }
}

/// Pages that have their number and their checksum.
fn count_good(beginning: &[u8], geometry: Geometry) -> usize {
    let pages = beginning.chunks_exact(geometry.physical as usize);
    // The second file of a system tablespace does not begin with page 0.
    let base = if is_good(beginning, geometry) { u32_at(beginning, NUMBER) } else { 0 };
    // Page 0 has number 0, as nothing has: a page of zeros proves nothing.
    (base..)
        .zip(pages)
        .filter(|(number, page)| *number != 0 && u32_at(page, NUMBER) == *number)
        .filter(|(_, page)| is_good(page, geometry))
        .count()
}

fn is_good(bytes: &[u8], geometry: Geometry) -> bool {
    bytes
        .get(..geometry.physical as usize)
        .is_some_and(|page| checksum::check(page, geometry.is_compressed).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verify::checksum::tests::seal;

    fn beginning(physical: usize, flags: u32) -> Vec<u8> {
        let compressed = flags >> 1 & 0xf != 0;
        let mut bytes = Vec::new();
        for number in 0..8_u32 {
            let mut page = vec![7; physical];
            page[NUMBER..NUMBER + 4].copy_from_slice(&number.to_be_bytes());
            if number == 0 {
                page[FSP_FLAGS..FSP_FLAGS + 4].copy_from_slice(&flags.to_be_bytes());
            }
            seal(&mut page, compressed);
            bytes.extend(page);
        }
        bytes
    }

    #[test]
    fn sizes_are_found_without_page_0() {
        for (physical, flags, logical) in
            [(16_384, 0x4021, 16_384), (8192, 0x4029, 16_384), (4096, 3 << 6, 4096)]
        {
            let is_compressed = physical as u32 != logical;
            let expected = Geometry { physical: physical as u32, logical, is_compressed };
            let mut bytes = beginning(physical, flags);
            assert_eq!(geometry(&bytes), Some((expected, true)));
            // The flags are damaged, and then they are nonsense.
            bytes[FSP_FLAGS + 3] ^= 0x10;
            let found = geometry(&bytes).map(|(geometry, _)| geometry.physical);
            assert_eq!(found, Some(expected.physical), "{flags:#x}");
            bytes[FSP_FLAGS..FSP_FLAGS + 4].fill(0xff);
            let found = geometry(&bytes).map(|(geometry, _)| geometry.physical);
            assert_eq!(found, Some(expected.physical), "{flags:#x}");
        }
        let extents = [4096, 16_384, 65_536]
            .map(|logical| Geometry { physical: logical, logical, is_compressed: false })
            .map(|geometry| (geometry.extent(), geometry.descriptor(), geometry.inode()));
        assert_eq!(extents, [(256, 88, 576), (64, 40, 192), (64, 40, 192)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let _ = geometry(&bytes);
            let header = SpaceHeader::parse(&bytes);
            let _ = (header.is_temporary(), header.is_encrypted());
        }
    }
}
