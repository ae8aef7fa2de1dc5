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

use clone_protocol::innodb::{FileKind, PageSize};

use super::bytes::{u16_at, u32_at};
use super::layout::{
    FSP_FLAGS, FSP_FRAG_N_USED, FSP_FREE, FSP_FREE_FRAG, FSP_FREE_LIMIT, FSP_FULL_FRAG, FSP_SIZE,
    FSP_SPACE_ID, SERVER_VERSION, SPACE_ID,
};

/// Bytes of page 0 that are parsed. The rest of the header is about segments.
pub const BYTES: usize = FSP_FULL_FRAG + 16;

/// The bit of `FSP_SPACE_FLAGS` for a temporary tablespace.
const TEMPORARY: u32 = 1 << 12;
/// The bit for an encrypted tablespace.
const ENCRYPTED: u32 = 1 << 13;

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

/// The header of a tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceHeader {
    /// `FIL_PAGE_SRV_VERSION`: `MYSQL_VERSION_ID` of the server that wrote the tablespace's first
    /// page; 90704 is 9.7.4.
    pub server_version: u32,
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
    /// From the first [`BYTES`] of a tablespace. Nothing is checked: a page that is too short reads
    /// as zeros.
    pub fn parse(page: &[u8]) -> Self {
        Self {
            server_version: u32_at(page, SERVER_VERSION),
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

    /// Whether the tablespace is one for undo.
    pub fn is_undo(&self) -> bool {
        FileKind::of(self.space_id) == FileKind::Undo
    }

    /// The sizes of the tablespace's pages. None if this is no page 0: the page is zeros, is of the
    /// middle of a tablespace, or is damaged.
    pub fn page_size(&self) -> Option<PageSize> {
        // Page 0 of a tablespace that was just created has no size yet.
        let is_zero = self.space_id == 0 && self.size == 0;
        let is_first = self.header_space_id == self.space_id && !is_zero;
        PageSize::of(self.flags).filter(|_| is_first)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::page::initial_page;

    /// `mysql.ibd` of MySQL 9.7.4.
    const MYSQL_IBD: &str = "1d007ac3000000000001625000000001000000000122\
        98be00080000000000000000fffffffefffffffe0000000000000700000005400000480000000\
        03a0000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()).collect()
    }

    #[test]
    fn the_dictionary_of_a_server() {
        let header = SpaceHeader::parse(&bytes(MYSQL_IBD));
        assert_eq!((header.space_id, header.flags), (0xFFFF_FFFE, 0x4800));
        assert_eq!((header.size, header.server_version), (0x700, 90_704));
        assert_eq!(header.page_size(), Some(PageSize::whole(16 << 10)));
        assert!(!header.is_encrypted() && !header.is_undo() && !header.is_temporary());
    }

    #[test]
    fn no_page_0() {
        let page_size = |page: &[u8]| SpaceHeader::parse(page).page_size();
        assert_eq!(page_size(&[0; BYTES]), None);
        let size = PageSize::of(0x4021).unwrap();
        let mut page = initial_page(size, 7, 0x4021, 90_704, None);
        assert_eq!(page_size(&page), Some(size));
        page[SPACE_ID] ^= 1;
        assert_eq!(page_size(&page), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let header = SpaceHeader::parse(&bytes);
            let _ = (header.is_temporary(), header.is_encrypted(), header.is_undo());
            if let Some(size) = header.page_size() {
                prop_assert!(size.physical >= 1 << 10);
            }
        }
    }
}
