// SPDX-License-Identifier: GPL-2.0-only

//! Whether a page was written whole (`buf/checksum.cc:BlockReporter`).

use super::tablespace::{u16_at, u32_at};
use crate::page::{PageSize, page_checksum, zip_checksum};

/// `BUF_NO_CHECKSUM_MAGIC`: what a server with `innodb_checksum_algorithm=none` writes.
const NO_CHECKSUM: u32 = 0xDEAD_BEEF;

/// `FIL_PAGE_LSN`, its lower half.
const LSN_LOW: usize = 20;
/// `FIL_PAGE_TYPE`.
const TYPE: usize = 24;
/// `FIL_PAGE_FILE_FLUSH_LSN`, which the checksum of older servers ends before.
const FLUSH_LSN: usize = 26;
/// `FIL_PAGE_DATA`.
const DATA: usize = 38;
/// `FIL_PAGE_COMPRESSED`: transparent compression. Its checksum is that of the unpacked page.
const COMPRESSED: u16 = 14;

/// What a page in a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageState {
    /// All bytes are zeros: the page was never written.
    Zeros,
    /// The page was written whole.
    Whole,
    /// The page has transparent compression, and cannot be checked in this form.
    Packed,
    /// The checksum differs: the page was not written whole, or is damaged.
    Torn,
}

impl PageState {
    /// Of a page as long as it is in the file.
    pub(super) fn of(page: &[u8], size: PageSize) -> Self {
        if page.iter().all(|byte| *byte == 0) {
            return Self::Zeros;
        }
        if page.len() < 1 << 10 {
            return Self::Torn;
        }
        if u16_at(page, TYPE) == Some(COMPRESSED) {
            return Self::Packed;
        }
        let stored = u32_at(page, 0).unwrap_or_default();
        let is_whole = if size.is_compressed {
            stored == NO_CHECKSUM || stored == zip_checksum(page)
        } else {
            let end = page.len() - 8;
            let same_lsn = u32_at(page, LSN_LOW) == u32_at(page, end + 4);
            let at_end = u32_at(page, end).unwrap_or_default();
            same_lsn
                && (stored == page_checksum(page)
                    || (stored == NO_CHECKSUM && at_end == NO_CHECKSUM)
                    || stored == fold_checksum(page))
        };
        if is_whole { Self::Whole } else { Self::Torn }
    }
}

/// `buf_calc_page_new_checksum`: `innodb_checksum_algorithm=innodb`, for a page of at least 1 KiB.
fn fold_checksum(page: &[u8]) -> u32 {
    let sum = fold(&page[4..FLUSH_LSN]).wrapping_add(fold(&page[DATA..page.len() - 8]));
    // The server computes with 64 bits and keeps the lower half; each step keeps it, too.
    sum as u32
}

/// `ut_fold_binary`.
fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| fold_pair(sum, u64::from(*byte)))
}

/// `ut_fold_ulint_pair`.
fn fold_pair(one: u64, other: u64) -> u64 {
    const MASK_1: u64 = 1_463_735_687;
    const MASK_2: u64 = 1_653_893_711;
    (((one ^ other ^ MASK_2) << 8).wrapping_add(one) ^ MASK_1).wrapping_add(other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::page::initial_page;

    fn size(flags: u32) -> PageSize {
        PageSize::of(flags).unwrap()
    }

    #[test]
    fn a_page_with_one_other_byte_is_torn() {
        for flags in [0x4021, 0x4029] {
            let mut page = initial_page(size(flags), 7, flags, 90_704);
            assert_eq!(PageState::of(&page, size(flags)), PageState::Whole);
            page[5000] ^= 1;
            assert_eq!(PageState::of(&page, size(flags)), PageState::Torn);
        }
    }

    #[test]
    fn pages_without_a_checksum() {
        let size = size(0x4021);
        assert_eq!(PageState::of(&[0; 16 << 10], size), PageState::Zeros);
        let mut page = initial_page(size, 7, 0x4021, 90_704);
        page[25] = 14;
        assert_eq!(PageState::of(&page, size), PageState::Packed);
        page[25] = 8;
        page[..4].copy_from_slice(&NO_CHECKSUM.to_be_bytes());
        assert_eq!(PageState::of(&page, size), PageState::Torn);
        page[16_376..16_380].copy_from_slice(&NO_CHECKSUM.to_be_bytes());
        assert_eq!(PageState::of(&page, size), PageState::Whole);
        page[16_383] = 1;
        assert_eq!(PageState::of(&page, size), PageState::Torn, "the end has another LSN");
    }

    proptest! {
        #[test]
        fn any_page_has_a_state(page in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = PageState::of(&page, size(0x4021));
            let _ = PageState::of(&page, size(0x4029));
        }
    }
}
