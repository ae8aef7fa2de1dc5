// SPDX-License-Identifier: GPL-2.0-only

//! Whether a page was written whole.

use clone_protocol::innodb::PageSize;

use crate::encryption::DataKey;
use crate::format::bytes::{is_zero, u16_at};
use crate::format::checksum;
use crate::format::expand::Expander;
use crate::format::layout::{COMPRESSED, TYPE, is_encrypted};

/// What a page in a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageState {
    /// All bytes are zeros: the page was never written.
    Zeros,
    /// The page was written whole.
    Whole,
    /// The checksum differs: the page was not written whole, or is damaged.
    Torn,
}

impl PageState {
    /// Of a page as long as it is in the file. `key` is that of its tablespace.
    pub(super) fn of(page: &[u8], size: PageSize, key: Option<&DataKey>) -> Self {
        if is_zero(page) {
            return Self::Zeros;
        }
        if page.len() < 1 << 10 {
            return Self::Torn;
        }
        let mut plain = Vec::new();
        let mut page = page;
        if let Some(key) = key.filter(|_| is_encrypted(u16_at(page, TYPE))) {
            key.decrypt_page(page, &mut plain);
            page = &plain;
        }
        let is_whole = |page: &[u8]| checksum::check(page, size.is_compressed).is_ok();
        let is_whole = if u16_at(page, TYPE) == COMPRESSED && !size.is_compressed {
            // The checksum is that of the page before it was compressed.
            Expander::default().expand(page).is_ok_and(is_whole)
        } else {
            is_whole(page)
        };
        if is_whole { Self::Whole } else { Self::Torn }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encryption::data_key::tests as data_key;
    use crate::format::page::initial_page;

    /// `BUF_NO_CHECKSUM_MAGIC`.
    const NO_CHECKSUM: u32 = 0xDEAD_BEEF;

    fn size(flags: u32) -> PageSize {
        PageSize::of(flags).unwrap()
    }

    #[test]
    fn a_page_with_one_other_byte_is_torn() {
        for flags in [0x4021, 0x4029] {
            let mut page = initial_page(size(flags), 7, flags, 90_704, None);
            assert_eq!(PageState::of(&page, size(flags), None), PageState::Whole);
            page[5000] ^= 1;
            assert_eq!(PageState::of(&page, size(flags), None), PageState::Torn);
        }
    }

    #[test]
    fn an_encrypted_page_has_the_checksum_of_the_plain_one() {
        let key = DataKey::of(&data_key::info(), &data_key::keyring()).unwrap();
        let size = size(0x4021);
        let mut page = initial_page(size, 7, 0x4021, 90_704, None);
        data_key::encrypt_page(&mut page);
        assert_eq!(PageState::of(&page, size, Some(&key)), PageState::Whole);
        assert_eq!(PageState::of(&page, size, None), PageState::Torn);
        page[5000] ^= 1;
        assert_eq!(PageState::of(&page, size, Some(&key)), PageState::Torn);
    }

    #[test]
    fn pages_without_a_checksum() {
        let size = size(0x4021);
        assert_eq!(PageState::of(&[0; 16 << 10], size, None), PageState::Zeros);
        let mut page = initial_page(size, 7, 0x4021, 90_704, None);
        page[25] = 14;
        assert_eq!(PageState::of(&page, size, None), PageState::Torn, "not compressed");
        page[25] = 8;
        page[..4].copy_from_slice(&NO_CHECKSUM.to_be_bytes());
        assert_eq!(PageState::of(&page, size, None), PageState::Torn);
        page[16_376..16_380].copy_from_slice(&NO_CHECKSUM.to_be_bytes());
        assert_eq!(PageState::of(&page, size, None), PageState::Whole);
        page[16_383] = 1;
        assert_eq!(PageState::of(&page, size, None), PageState::Torn, "the end has another LSN");
    }

    proptest! {
        #[test]
        fn any_page_has_a_state(page in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = PageState::of(&page, size(0x4021), None);
            let _ = PageState::of(&page, size(0x4029), None);
        }
    }
}
