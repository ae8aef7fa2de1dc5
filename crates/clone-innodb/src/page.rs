// SPDX-License-Identifier: GPL-2.0-only

//! As much of InnoDB's pages as a recipient needs: their sizes, the first page of a new tablespace,
//! and how long a compressed page is.

use clone_io::checksum;

use crate::error::{Error, Result};
use crate::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, COMPRESSED_SIZE, DATA, FLUSH_LSN, FSP_FLAGS, LSN, NUMBER,
    SERVER_VERSION, SPACE_ID, SPACE_VERSION, TRAILER, TYPE, XDES_ARRAY,
};

/// Bytes of an extent descriptor, besides two bits for each page.
const XDES_FIXED: usize = 24;
/// `DD_SPACE_CURRENT_SPACE_VERSION`.
const CURRENT_SPACE_VERSION: u32 = 1;

/// Pages of a new tablespace (`FIL_IBD_FILE_INITIAL_SIZE`).
const INITIAL_PAGES: u64 = 7;

/// Bytes of a new undo tablespace (`UNDO_INITIAL_SIZE`).
const INITIAL_UNDO: u64 = 16 << 20;

/// Pages of an extent (`FSP_EXTENT_SIZE`) are as many as fit 1 MiB, but 64 from 16 KiB on.
const EXTENT_PAGES: u64 = 64;
const EXTENT: u64 = 1 << 20;

/// The sizes of a tablespace's pages in bytes (`include/page0size.h:page_size_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSize {
    /// In the file.
    pub(crate) physical: u32,
    /// In memory: the instance's page size.
    pub(crate) logical: u32,
    /// ROW_FORMAT=COMPRESSED. With `KEY_BLOCK_SIZE` as large as a page both sizes are the same.
    pub(crate) is_compressed: bool,
}

impl PageSize {
    /// Sizes stand in the FSP flags as powers of two from 512: that of compressed tables in bits 1
    /// to 4, that of the instance in bits 6 to 9, where 0 is 16 KiB.
    ///
    /// # Errors
    /// InnoDB has no such sizes.
    pub(crate) fn of(fsp_flags: u32) -> Result<Self> {
        let compressed = fsp_flags >> 1 & 0xf;
        let instance = fsp_flags >> 6 & 0xf;
        let logical = match instance {
            0 => 5,
            3..=7 => instance,
            _ => 0,
        };
        match compressed {
            _ if logical == 0 => {}
            0 => {
                let size = 512 << logical;
                return Ok(Self { physical: size, logical: size, is_compressed: false });
            }
            1..=5 if compressed <= logical => {
                let (physical, logical) = (512 << compressed, 512 << logical);
                return Ok(Self { physical, logical, is_compressed: true });
            }
            _ => {}
        }
        Err(Error::protocol(format!(
            "Wrong Clone RPC: Invalid File Descriptor: FSP flags {fsp_flags:#x}"
        )))
    }

    /// Bytes of an extent in the file.
    pub(crate) fn extent(self) -> u64 {
        let pages = (EXTENT / u64::from(self.logical)).max(EXTENT_PAGES);
        pages * u64::from(self.physical)
    }

    /// Where the encryption information is in page 0: behind the extent descriptors, which are as
    /// many as describe the pages from one such page to the next
    /// (`fsp_header_get_encryption_offset`).
    pub(crate) fn encryption_info(self) -> usize {
        let pages = (self.extent() / u64::from(self.physical)) as usize;
        let descriptors = self.physical as usize / pages;
        XDES_ARRAY + descriptors * (XDES_FIXED + pages / 4)
    }

    /// Bytes of a file that was just created.
    pub(crate) fn initial_size(self, is_undo: bool) -> u64 {
        if is_undo { INITIAL_UNDO } else { INITIAL_PAGES * u64::from(self.physical) }
    }
}

/// Page 0 of a tablespace that was just created (`fil0fil.cc:fil_write_initial_pages`). All other
/// pages are zeros.
pub(crate) fn initial_page(
    size: PageSize,
    space_id: u32,
    fsp_flags: u32,
    server_version: u32,
    encryption_info: Option<&[u8]>,
) -> Vec<u8> {
    let mut page = vec![0; size.physical as usize];
    put(&mut page, SERVER_VERSION, server_version);
    put(&mut page, SPACE_VERSION, CURRENT_SPACE_VERSION);
    put(&mut page, SPACE_ID, space_id);
    put(&mut page, DATA, space_id);
    put(&mut page, FSP_FLAGS, fsp_flags);
    if let Some(info) = encryption_info {
        page[size.encryption_info()..][..info.len()].copy_from_slice(info);
    }
    seal(&mut page, size);
    page
}

/// Gives a page its checksum, and at the end its LSN (`buf_flush_init_for_writing`). The page is as
/// long as its size says.
pub(crate) fn seal(page: &mut [u8], size: PageSize) {
    if size.is_compressed {
        let sum = zip_checksum(page);
        return put(page, 0, sum);
    }
    let end = page.len() - TRAILER;
    page.copy_within(LSN + 4..LSN + 8, end + 4);
    let sum = page_checksum(page);
    put(page, 0, sum);
    put(page, end, sum);
}

/// `buf/checksum.cc:buf_calc_page_crc32`, for a page of at least 1 KiB.
pub(crate) fn page_checksum(page: &[u8]) -> u32 {
    checksum(&page[NUMBER..FLUSH_LSN]) ^ checksum(&page[DATA..page.len() - TRAILER])
}

/// `BlockReporter::calc_zip_checksum` with crc32, for a page of at least 1 KiB.
pub(crate) fn zip_checksum(page: &[u8]) -> u32 {
    checksum(&page[NUMBER..LSN]) ^ checksum(&page[TYPE..FLUSH_LSN]) ^ checksum(&page[SPACE_ID..])
}

fn put(page: &mut [u8], at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// How many bytes of a page with transparent compression have to be in the file, as a multiple of
/// `block_size`. The whole page if it is not compressed, or if what it says is more than that: a
/// page that was read while it was written, which PAGE_COPY replaces
/// (`clone0apply.cc:read_compressed_len`).
pub(crate) fn compressed_len(page: &[u8], block_size: u32) -> usize {
    let field = |at: usize| {
        page.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    };
    let block_size = block_size.max(1) as usize;
    match (field(TYPE), field(COMPRESSED_SIZE)) {
        (Some(COMPRESSED | COMPRESSED_AND_ENCRYPTED), Some(size)) => {
            (usize::from(size) + DATA).next_multiple_of(block_size).min(page.len())
        }
        _ => page.len(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_flags() {
        let sizes = |flags| PageSize::of(flags).map(|size| (size.physical, size.logical)).ok();
        // A table of the recorded streams, its compressed one, and the instances of other sizes.
        assert_eq!(sizes(0x4021), Some((16 << 10, 16 << 10)));
        assert_eq!(sizes(0x4029), Some((8 << 10, 16 << 10)));
        assert_eq!(sizes(3 << 6), Some((4 << 10, 4 << 10)));
        // KEY_BLOCK_SIZE=8 with pages of 8 KiB.
        assert_eq!(sizes(0x4129), Some((8 << 10, 8 << 10)));
        assert!(PageSize::of(0x4129).unwrap().is_compressed);
        assert!(!PageSize::of(0x4021).unwrap().is_compressed);
        assert_eq!(sizes(7 << 6 | 0x21), Some((64 << 10, 64 << 10)));
        for flags in [1 << 6, 2 << 6, 8 << 6, 6 << 1, 4 << 1 | 3 << 6, u32::MAX] {
            assert_eq!(sizes(flags), None, "{flags:#x}");
        }
        assert_eq!(PageSize::of(0x4021).unwrap().extent(), 1 << 20);
        assert_eq!(PageSize::of(0x4029).unwrap().extent(), 512 << 10);
        assert_eq!(PageSize::of(3 << 6).unwrap().extent(), 1 << 20);
        assert_eq!(PageSize::of(7 << 6).unwrap().extent(), 4 << 20);
    }

    /// What mysqld 9.7 says of the first page, without its server: checksum at both ends, which a
    /// reader of pages computes over the page in the way of `buf_page_is_corrupted`.
    #[test]
    fn the_first_page_has_its_space_and_its_checksum() {
        let size = PageSize::of(0x4021).unwrap();
        let page = initial_page(size, 0x1234, 0x4021, 90_704, None);
        assert_eq!(page.len(), 16 << 10);
        assert_eq!(page[34..38], 0x1234_u32.to_be_bytes());
        assert_eq!(page[38..42], 0x1234_u32.to_be_bytes());
        assert_eq!(page[54..58], 0x4021_u32.to_be_bytes());
        assert_eq!(page[8..12], 90_704_u32.to_be_bytes());
        let sum = checksum(&page[4..26]) ^ checksum(&page[38..16_376]);
        assert_eq!(page[..4], sum.to_be_bytes());
        assert_eq!(page[16_376..16_380], sum.to_be_bytes());
        assert_eq!(page[16_380..], [0; 4]);

        let compressed = initial_page(PageSize::of(0x4029).unwrap(), 7, 0x4029, 90_704, None);
        assert_eq!(compressed.len(), 8 << 10);
        let sum = checksum(&compressed[4..16])
            ^ checksum(&compressed[24..26])
            ^ checksum(&compressed[34..]);
        assert_eq!(compressed[..4], sum.to_be_bytes());
        assert_eq!(compressed[8184..], [0; 8]);
    }

    #[test]
    fn a_compressed_page_is_as_long_as_it_says() {
        let mut page = vec![0; 16 << 10];
        assert_eq!(compressed_len(&page, 4096), 16 << 10);
        page[25] = 14;
        page[32..34].copy_from_slice(&5000_u16.to_be_bytes());
        assert_eq!(compressed_len(&page, 4096), 8192);
        page[32..34].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(compressed_len(&page, 4096), 16 << 10);
        assert_eq!(compressed_len(&page[..20], 4096), 20);
        assert_eq!(compressed_len(&page, 0), 16 << 10);
    }
}
