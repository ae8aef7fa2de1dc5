// SPDX-License-Identifier: GPL-2.0-only

//! The checksum of a page (`buf/checksum.cc:BlockReporter::is_corrupted`).
//!
//! As in a server, each of the algorithms crc32, innodb and none is good, whichever the server was
//! configured with when it wrote the page. The form of crc32 that servers before 5.7 wrote on
//! big-endian machines is not known here.

use clone_io::checksum;

use super::bytes::{is_zero, u32_at, u64_at};
use super::layout::{CHECKSUM, DATA, FLUSH_LSN, LSN, NUMBER, SPACE_ID, TRAILER, TYPE};

/// `BUF_NO_CHECKSUM_MAGIC`: what stands in place of a checksum with `innodb_checksum_algorithm` =
/// none.
const NONE: u32 = 0xdead_beef;

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The lower half of the LSN at the beginning and at the end.
    Torn(u32, u32),
    /// The checksum that is stored, and the one of crc32 that is computed.
    Checksum(u32, u32),
}

/// Checks a page that is neither encrypted nor compressed by page compression. `compressed`: it
/// is one of ROW_FORMAT=COMPRESSED.
///
/// # Errors
/// What is wrong.
pub fn check(page: &[u8], compressed: bool) -> Result<(), Damage> {
    // The smallest page is 1 KiB.
    if page.len() < 1024 {
        return Err(Damage::Checksum(0, 0));
    }
    let stored = u32_at(page, CHECKSUM);
    if compressed {
        return check_compressed(page, stored);
    }
    let (begin, end) = (u32_at(page, LSN + 4), u32_at(page, page.len() - 4));
    if begin != end {
        return Err(Damage::Torn(begin, end));
    }
    let trailer = u32_at(page, page.len() - TRAILER);
    if stored == 0 && trailer == 0 && u64_at(page, LSN) == 0 {
        // An empty page. The eight bytes behind the type may be those of page compression.
        if is_zero(&page[..FLUSH_LSN]) && is_zero(&page[SPACE_ID..]) {
            return Ok(());
        }
        return Err(Damage::Checksum(0, page_checksum(page)));
    }
    let crc32 = page_checksum(page);
    let is_good = (stored == trailer && (stored == crc32 || stored == NONE))
        || is_innodb(page, stored, trailer);
    if is_good { Ok(()) } else { Err(Damage::Checksum(stored, crc32)) }
}

fn check_compressed(page: &[u8], stored: u32) -> Result<(), Damage> {
    let crc32 = zip_checksum(page);
    let is_good = stored == crc32
        || stored == NONE
        || stored == adler32(page)
        || stored == 0 && u64_at(page, LSN) == 0 && is_zero(page);
    if is_good { Ok(()) } else { Err(Damage::Checksum(stored, crc32)) }
}

/// `BlockReporter::is_checksum_valid_innodb`: the checksum of servers before 5.7. The old field
/// may hold the LSN, and the new one zero: those are pages of MySQL 3.23 and 4.0.
fn is_innodb(page: &[u8], stored: u32, trailer: u32) -> bool {
    let old = fold(&page[..FLUSH_LSN]);
    if trailer != old && trailer != u32_at(page, LSN) {
        return false;
    }
    stored == 0 || stored == innodb(page)
}

/// `buf_calc_page_new_checksum`.
fn innodb(page: &[u8]) -> u32 {
    fold(&page[NUMBER..FLUSH_LSN]).wrapping_add(fold(&page[DATA..page.len() - TRAILER]))
}

/// `ut_fold_binary`. It is computed in 64 bits by the server, of which the lower 32 are stored.
fn fold(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |folded, byte| fold_pair(folded, u64::from(*byte))) as u32
}

/// `ut_fold_ulint_pair`.
fn fold_pair(first: u64, second: u64) -> u64 {
    const MASK: u64 = 1_463_735_687;
    const MASK2: u64 = 1_653_893_711;
    (((first ^ second ^ MASK2) << 8).wrapping_add(first) ^ MASK).wrapping_add(second)
}

/// `BlockReporter::calc_zip_checksum` with innodb.
fn adler32(page: &[u8]) -> u32 {
    let mut sum = (0_u32, 0_u32);
    // zlib's adler32 is given 0 to begin with, where others begin with 1.
    for part in [&page[NUMBER..LSN], &page[TYPE..FLUSH_LSN], &page[SPACE_ID..]] {
        // The longest piece whose sums fit 32 bits (zlib's NMAX).
        for piece in part.chunks(5552) {
            for byte in piece {
                sum.0 += u32::from(*byte);
                sum.1 += sum.0;
            }
            sum = (sum.0 % 65_521, sum.1 % 65_521);
        }
    }
    sum.1 << 16 | sum.0
}

/// Gives a page its checksum, and at the end its LSN (`buf_flush_init_for_writing`). `compressed`:
/// as in [`check`]. The page has at least 1 KiB.
pub(crate) fn seal(page: &mut [u8], compressed: bool) {
    if compressed {
        let sum = zip_checksum(page);
        page[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_be_bytes());
        return;
    }
    let end = page.len() - TRAILER;
    page.copy_within(LSN + 4..LSN + 8, end + 4);
    let sum = page_checksum(page).to_be_bytes();
    page[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum);
    page[end..end + 4].copy_from_slice(&sum);
}

/// `buf/checksum.cc:buf_calc_page_crc32`, for a page of at least 1 KiB.
pub(crate) fn page_checksum(page: &[u8]) -> u32 {
    checksum(&page[NUMBER..FLUSH_LSN]) ^ checksum(&page[DATA..page.len() - TRAILER])
}

/// `BlockReporter::calc_zip_checksum` with crc32, for a page of at least 1 KiB.
fn zip_checksum(page: &[u8]) -> u32 {
    checksum(&page[NUMBER..LSN]) ^ checksum(&page[TYPE..FLUSH_LSN]) ^ checksum(&page[SPACE_ID..])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 37 % 251) as u8).collect()
    }

    #[test]
    fn each_algorithm_is_good() {
        let mut page = filled(4096);
        seal(&mut page, false);
        assert_eq!(check(&page, false), Ok(()));
        for at in [0, 4088] {
            page[at..at + 4].copy_from_slice(&NONE.to_be_bytes());
        }
        assert_eq!(check(&page, false), Ok(()));
        let new = innodb(&page);
        page[..4].copy_from_slice(&new.to_be_bytes());
        let old = fold(&page[..FLUSH_LSN]);
        page[4088..4092].copy_from_slice(&old.to_be_bytes());
        assert_eq!(check(&page, false), Ok(()));
        page[100] ^= 1;
        assert!(check(&page, false).is_err());
        assert_eq!(check(&[0; 4096], false), Ok(()));
        assert_eq!(check(&[0; 1024], true), Ok(()));
        assert!(check(&[], false).is_err());
    }

    #[test]
    fn compressed_pages_have_other_ranges() {
        let mut page = filled(2048);
        seal(&mut page, true);
        assert_eq!(check(&page, true), Ok(()));
        // Not in the checksum: the LSN, which a server stamps later.
        page[LSN] ^= 1;
        assert_eq!(check(&page, true), Ok(()));
        let sum = adler32(&page);
        page[..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(check(&page, true), Ok(()));
        page[2047] ^= 1;
        assert!(check(&page, true).is_err());
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found(at in 0_usize..4096, bit in 0_u32..8) {
            let mut page = filled(4096);
            seal(&mut page, false);
            page[at] ^= 1 << bit;
            let in_range = !(FLUSH_LSN..DATA).contains(&at);
            prop_assert_eq!(check(&page, false).is_err(), in_range);
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..3000), compressed: bool) {
            let _ = check(&bytes, compressed);
        }
    }
}
