// SPDX-License-Identifier: GPL-2.0-only

//! The page size of a tablespace whose page 0 may be damaged.

use clone_protocol::innodb::PageSize;

use crate::format::bytes::u32_at;
use crate::format::checksum;
use crate::format::layout::{FSP_FLAGS, NUMBER};

/// Finds the page size of a tablespace from its beginning, at best 384 KiB of it: from the flags of
/// page 0 if page 0 is good, or else from what the pages look like. Also says whether the flags are
/// to be believed.
pub fn page_size(beginning: &[u8]) -> Option<(PageSize, bool)> {
    let flagged = PageSize::of(u32_at(beginning, FSP_FLAGS));
    if let Some(size) = flagged
        && is_good(beginning, size)
    {
        return Some((size, true));
    }
    // Page 0 is damaged. The size is the one with which most pages are good.
    let mut best = None;
    for logical in (12..=16).rev().map(|bits| 1_u32 << bits) {
        for physical in (10..=14).map(|bits| 1_u32 << bits).filter(|size| *size <= logical) {
            consider(&mut best, beginning, PageSize { physical, logical, is_compressed: true });
        }
        let whole = PageSize::whole(logical);
        consider(&mut best, beginning, whole);
    }
    match (best, flagged) {
        // The flags are as good as any if they explain as much.
        (Some((good, _)), Some(size)) if count_good(beginning, size) >= good => Some((size, true)),
        (Some((_, size)), _) => Some((size, false)),
        (None, flagged) => flagged.map(|size| (size, true)),
    }
}

fn consider(best: &mut Option<(usize, PageSize)>, beginning: &[u8], size: PageSize) {
    let good = count_good(beginning, size);
    if good > best.map_or(0, |(good, _)| good) {
        *best = Some((good, size));
    }
}

/// Pages that have their number and their checksum.
fn count_good(beginning: &[u8], size: PageSize) -> usize {
    let pages = beginning.chunks_exact(size.physical as usize);
    // The second file of a system tablespace does not begin with page 0.
    let base = if is_good(beginning, size) { u32_at(beginning, NUMBER) } else { 0 };
    // Page 0 has number 0, as nothing has: a page of zeros proves nothing.
    (base..)
        .zip(pages)
        .filter(|(number, page)| *number != 0 && u32_at(page, NUMBER) == *number)
        .filter(|(_, page)| is_good(page, size))
        .count()
}

fn is_good(bytes: &[u8], size: PageSize) -> bool {
    bytes
        .get(..size.physical as usize)
        .is_some_and(|page| checksum::check(page, size.is_compressed).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::checksum::seal;

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
            let expected = PageSize { physical: physical as u32, logical, is_compressed };
            let mut bytes = beginning(physical, flags);
            assert_eq!(page_size(&bytes), Some((expected, true)));
            // The flags are damaged, and then they are nonsense.
            bytes[FSP_FLAGS + 3] ^= 0x10;
            let found = page_size(&bytes).map(|(size, _)| size.physical);
            assert_eq!(found, Some(expected.physical), "{flags:#x}");
            bytes[FSP_FLAGS..FSP_FLAGS + 4].fill(0xff);
            let found = page_size(&bytes).map(|(size, _)| size.physical);
            assert_eq!(found, Some(expected.physical), "{flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let _ = page_size(&bytes);
        }
    }
}
