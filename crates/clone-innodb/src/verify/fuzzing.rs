// SPDX-License-Identifier: GPL-2.0-only

//! The body of the fuzz target `verify` (feature `fuzzing`).

use super::memory::check_bytes;
use super::rows;
use crate::encryption::Keyring;
use crate::format::checksum::seal;
use crate::format::expand::Expander;
use crate::format::layout::{FSP_FLAGS, NUMBER, SPACE_ID};
use crate::format::redo::FileHeader;

/// Takes bytes for a tablespace with pages of 4 KiB, or of 1 KiB in ROW_FORMAT=COMPRESSED. Each
/// page gets its number and a good checksum, so that all that lies behind these checks is reached.
/// The other parsers get the bytes as they are.
pub fn verify(bytes: &[u8]) {
    let _ = rows::check(bytes);
    let _ = FileHeader::parse(bytes);
    let _ = Keyring::parse(bytes);
    let _ = Expander::default().expand(bytes);
    let _ = check_bytes(bytes);
    let (flags, size) = if bytes.first().is_some_and(|byte| byte & 1 == 1) {
        (3_u32 << 6 | 1 << 5 | 1 << 1 | 1, 1024)
    } else {
        (3 << 6, 4096)
    };
    let mut space = bytes.to_vec();
    // A tablespace of at most 64 pages is large enough.
    space.resize(bytes.len().next_multiple_of(size).clamp(8 * size, 64 * size), 0);
    for (number, page) in (0_u32..).zip(space.chunks_exact_mut(size)) {
        page[NUMBER..NUMBER + 4].copy_from_slice(&number.to_be_bytes());
        page[SPACE_ID..SPACE_ID + 4].copy_from_slice(&7_u32.to_be_bytes());
        if number == 0 {
            page[FSP_FLAGS..FSP_FLAGS + 4].copy_from_slice(&flags.to_be_bytes());
        }
        seal(page, size == 1024);
    }
    let _ = check_bytes(&space);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_judged(
            bytes in prop::collection::vec(any::<u8>(), 0..20_000),
            kinds in prop::collection::vec(0_usize..6, 64),
        ) {
            // Types that are parsed further, and small numbers, which are likely to be pages.
            let mut bytes = bytes;
            for (page, kind) in bytes.chunks_mut(4096).zip(kinds) {
                if page.len() > 200 {
                    let kind = [8_u16, 3, 17_855, 17_854, 14, 9][kind];
                    page[24..26].copy_from_slice(&kind.to_be_bytes());
                    for at in [8, 12, 38 + 24, 38 + 28, 50 + 12] {
                        page[at..at + 3].fill(0);
                    }
                }
            }
            verify(&bytes);
        }
    }
}
