// SPDX-License-Identifier: GPL-2.0-only

//! The first page of a new tablespace, and how long a compressed page is.

use clone_protocol::innodb::PageSize;

use super::bytes::u16_at;
use super::checksum::seal;
use super::encryption_info;
use super::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, COMPRESSED_SIZE, DATA, FSP_FLAGS, NUMBER, SERVER_VERSION,
    SPACE_ID, SPACE_VERSION, TYPE,
};

/// The largest page in bytes.
pub(crate) const MAX_PAGE: usize = 64 << 10;

/// `DD_SPACE_CURRENT_SPACE_VERSION`.
const CURRENT_SPACE_VERSION: u32 = 1;

/// Pages of a new tablespace (`FIL_IBD_FILE_INITIAL_SIZE`).
const INITIAL_PAGES: u64 = 7;

/// Bytes of a new undo tablespace (`UNDO_INITIAL_SIZE`).
const INITIAL_UNDO: u64 = 16 << 20;

/// Bytes of a file that was just created.
pub(crate) fn initial_size(size: PageSize, is_undo: bool) -> u64 {
    if is_undo { INITIAL_UNDO } else { INITIAL_PAGES * u64::from(size.physical) }
}

/// Page 0 of a tablespace that was just created (`fil0fil.cc:fil_write_initial_pages`). All other
/// pages are zeros.
pub(crate) fn initial_page(
    size: PageSize,
    space_id: u32,
    fsp_flags: u32,
    server_version: u32,
    info: Option<&[u8]>,
) -> Vec<u8> {
    let mut page = vec![0; size.physical as usize];
    put(&mut page, SERVER_VERSION, server_version);
    put(&mut page, SPACE_VERSION, CURRENT_SPACE_VERSION);
    put(&mut page, SPACE_ID, space_id);
    put(&mut page, DATA, space_id);
    put(&mut page, FSP_FLAGS, fsp_flags);
    if let Some(info) = info {
        page[encryption_info::in_page_0(size)..][..info.len()].copy_from_slice(info);
    }
    seal(&mut page, size.is_compressed);
    page
}

/// Makes a page of zeros one that was freed before it had contents (`FIL_PAGE_TYPE_ALLOCATED`).
/// InnoDB initialises either when it takes the page into use.
pub(crate) fn fill_unused(page: &mut [u8], space_id: u32, number: u32, is_compressed: bool) {
    put(page, NUMBER, number);
    put(page, SPACE_ID, space_id);
    seal(page, is_compressed);
}

fn put(page: &mut [u8], at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// How many bytes of a page with transparent compression have to be in the file, as a multiple of
/// `block_size`. The whole page if it is not compressed, or if what it says is more than that: a
/// page that was read while it was written, which PAGE_COPY replaces
/// (`clone0apply.cc:read_compressed_len`).
pub(crate) fn compressed_len(page: &[u8], block_size: u32) -> usize {
    let block_size = block_size.max(1) as usize;
    match u16_at(page, TYPE) {
        COMPRESSED | COMPRESSED_AND_ENCRYPTED => {
            let size = usize::from(u16_at(page, COMPRESSED_SIZE));
            (size + DATA).next_multiple_of(block_size).min(page.len())
        }
        _ => page.len(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clone_io::checksum;

    use super::*;

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
