// SPDX-License-Identifier: GPL-2.0-only

//! Segment inodes: the pages of each segment (`fsp0fsp.h`, FSEG).
//!
//! A page of type INODE holds as many as fit it, from byte 50 on. An inode whose number is 0 is
//! not in use.
//!
//! | Offset | Bytes        | Field                                                   |
//! |--------|--------------|---------------------------------------------------------|
//! | 0      | 8            | FSEG_ID                                                 |
//! | 8      | 4            | FSEG_NOT_FULL_N_USED: used pages in the list NOT_FULL   |
//! | 12     | 16           | FSEG_FREE, list of extents                              |
//! | 28     | 16           | FSEG_NOT_FULL                                           |
//! | 44     | 16           | FSEG_FULL                                               |
//! | 60     | 4            | 97937874                                                |
//! | 64     | 128 (512)    | pages that the segment has one by one, or 0xffffffff    |

use clone_protocol::innodb::PageSize;

use super::bytes::{u32_at, u64_at};
use super::layout::{INODE_ARRAY, INODE_MAGIC, NULL};
use super::space_header::List;

/// Bytes of an inode before the pages that the segment has one by one.
const FIXED: usize = 64;

/// An inode in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// The page that it stands in.
    pub page: u32,
    /// Where it begins in that page, in bytes.
    pub offset: u16,
    /// `FSEG_ID`.
    pub id: u64,
    /// `FSEG_NOT_FULL_N_USED`.
    pub not_full_used: u32,
    /// `FSEG_FREE`.
    pub free: List,
    /// `FSEG_NOT_FULL`.
    pub not_full: List,
    /// `FSEG_FULL`.
    pub full: List,
    /// Whether the magic number is there.
    pub is_marked: bool,
    /// The pages that it has one by one.
    pub pages: Vec<u32>,
}

/// Bytes of an inode. A segment has as many single pages as half of an extent.
fn len(page_size: PageSize) -> usize {
    FIXED + page_size.extent_pages() as usize / 2 * 4
}

/// The inodes of a page that are in use.
pub fn parse(page: &[u8], number: u32, page_size: PageSize) -> Vec<Inode> {
    let size = len(page_size);
    let count = page.len().saturating_sub(INODE_ARRAY + 10) / size;
    let array = page.get(INODE_ARRAY..).unwrap_or_default();
    let entries = array.chunks_exact(size).take(count).enumerate();
    entries
        .filter(|(_, entry)| u64_at(entry, 0) != 0)
        .map(|(slot, entry)| Inode {
            page: number,
            // A page has 64 KiB at most.
            offset: u16::try_from(INODE_ARRAY + slot * size).unwrap_or(u16::MAX),
            id: u64_at(entry, 0),
            not_full_used: u32_at(entry, 8),
            free: List::at(entry, 12),
            not_full: List::at(entry, 28),
            full: List::at(entry, 44),
            is_marked: u32_at(entry, 60) == INODE_MAGIC,
            pages: entry[FIXED..]
                .chunks_exact(4)
                .map(|slot| u32_at(slot, 0))
                .filter(|page| *page != NULL)
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn inodes_are_read() {
        let mut page = vec![0; 16_384];
        let at = INODE_ARRAY + 192;
        page[at + 7] = 2;
        page[at + 60..at + 64].copy_from_slice(&INODE_MAGIC.to_be_bytes());
        page[at + 64..at + 192].fill(0xff);
        page[at + 64..at + 68].copy_from_slice(&4_u32.to_be_bytes());
        let page_size = PageSize::whole(16_384);
        let inodes = parse(&page, 2, page_size);
        assert_eq!(inodes.len(), 1);
        assert_eq!((inodes[0].id, inodes[0].offset, inodes[0].is_marked), (2, 242, true));
        assert_eq!(inodes[0].pages, [4]);
    }

    #[test]
    fn inodes_of_small_pages_are_longer() {
        assert_eq!([4096, 16_384, 65_536].map(|size| len(PageSize::whole(size))), [576, 192, 192]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..5000), flags: u32) {
            if let Some(page_size) = PageSize::of(flags) {
                prop_assert!(parse(&bytes, 2, page_size).len() <= bytes.len() / 192);
            }
        }
    }
}
