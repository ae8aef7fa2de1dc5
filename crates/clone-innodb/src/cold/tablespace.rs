// SPDX-License-Identifier: GPL-2.0-only

//! Page 0 of a tablespace, as far as a donor needs it (`include/fsp0fsp.h`).

use crate::layout::{FSP_FLAGS, FSP_SIZE, FSP_SPACE_ID, SERVER_VERSION, SPACE_ID};
use crate::page::PageSize;

/// Bytes of page 0 that [`FirstPage::parse`] reads.
pub(super) const FIRST_PAGE_BYTES: usize = 64;

/// `FSP_FLAGS_MASK_ENCRYPTION`.
const ENCRYPTED: u32 = 1 << 13;
/// `FSP_FLAGS_MASK_TEMPORARY`.
const TEMPORARY: u32 = 1 << 12;

/// The first id that is not a tablespace (`dict_sys_t::s_log_space_id`).
const FIRST_LOG_SPACE: u32 = 0xFFFF_FFF0;
/// Ids that each undo tablespace has for its truncations (`undo_space_id_range`), times the most
/// undo tablespaces (`FSP_MAX_UNDO_TABLESPACES`).
const UNDO_SPACES: u32 = 400_000 * 127;

/// What page 0 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstPage {
    pub(super) space_id: u32,
    pub(super) flags: u32,
    pub(super) size: PageSize,
    /// Pages of all files together.
    pub(super) pages: u32,
    /// `MYSQL_VERSION_ID` of the server that wrote the tablespace's first page; 90704 is 9.7.4.
    pub(super) server_version: u32,
}

impl FirstPage {
    /// Parses the first [`FIRST_PAGE_BYTES`] of a tablespace's first file. None if this is no
    /// page 0: the page is zeros, or is damaged.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        let space_id = u32_at(page, SPACE_ID)?;
        let flags = u32_at(page, FSP_FLAGS)?;
        let pages = u32_at(page, FSP_SIZE)?;
        // Page 0 of a tablespace that was just created has no size yet.
        if u32_at(page, FSP_SPACE_ID)? != space_id || (space_id == 0 && pages == 0) {
            return None;
        }
        let size = PageSize::of(flags).ok()?;
        let server_version = u32_at(page, SERVER_VERSION)?;
        Some(Self { space_id, flags, size, pages, server_version })
    }

    pub(super) fn is_encrypted(self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    pub(super) fn is_temporary(self) -> bool {
        self.flags & TEMPORARY != 0
    }

    pub(super) fn is_undo(self) -> bool {
        (FIRST_LOG_SPACE - UNDO_SPACES..FIRST_LOG_SPACE).contains(&self.space_id)
    }
}

/// Four bytes, big-endian.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Two bytes, big-endian.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// Eight bytes, big-endian.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::page::initial_page;

    /// `mysql.ibd` of MySQL 9.7.4.
    const MYSQL_IBD: &str = "1d007ac3000000000001625000000001000000000122\
        98be00080000000000000000fffffffefffffffe0000000000000700000005400000480000000\
        03a0000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()).collect()
    }

    #[test]
    fn the_dictionary_of_a_server() {
        let page = FirstPage::parse(&bytes(MYSQL_IBD)).unwrap();
        assert_eq!((page.space_id, page.flags), (0xFFFF_FFFE, 0x4800));
        assert_eq!((page.pages, page.server_version), (0x700, 90_704));
        assert_eq!((page.size.physical, page.size.logical), (16 << 10, 16 << 10));
        assert!(!page.is_encrypted() && !page.is_undo() && !page.is_temporary());
    }

    #[test]
    fn no_page_0() {
        assert_eq!(FirstPage::parse(&[0; 64]), None);
        let mut page = initial_page(PageSize::of(0x4021).unwrap(), 7, 0x4021, 90_704, None);
        assert_eq!(FirstPage::parse(&page).unwrap().space_id, 7);
        assert_eq!(FirstPage::parse(&page[..57]), None);
        page[SPACE_ID] ^= 1;
        assert_eq!(FirstPage::parse(&page), None);
    }

    #[test]
    fn undo_tablespaces_have_ids_of_their_own() {
        let page = |space_id| FirstPage {
            space_id,
            flags: 0,
            size: PageSize::of(0).unwrap(),
            pages: 1,
            server_version: 0,
        };
        assert!(page(0xFFFF_FFEF).is_undo());
        assert!(page(0xFFFF_FFF0 - UNDO_SPACES).is_undo());
        assert!(!page(0xFFFF_FFF0).is_undo() && !page(0xFFFF_FFFE).is_undo());
        assert!(!page(0).is_undo() && !page(0xFFFF_FFEF - UNDO_SPACES).is_undo());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(page in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = FirstPage::parse(&page) {
                prop_assert!(first.size.physical >= 1 << 10);
                let _ = (first.is_encrypted(), first.is_undo(), first.is_temporary());
            }
        }
    }
}
