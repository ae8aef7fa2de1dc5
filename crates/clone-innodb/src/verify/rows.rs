// SPDX-License-Identifier: GPL-2.0-only

//! The list of records in an index page (`page0page.h`, `rem0rec.h`).
//!
//! The records of a page are a list from the infimum to the supremum: the two bytes before each
//! record lead to the next one. They say how far it is in the new form of records, and where it is
//! in the old one. No dictionary is needed to follow the list. What stands in a record is not
//! looked at.

use crate::format::bytes::u16_at;
use crate::format::layout::{DATA, HEAP_TOP, N_DIR_SLOTS, N_HEAP, N_RECS, TRAILER};

/// `PAGE_DATA`: behind the header of an index page.
const RECORDS: usize = DATA + 56;
/// `PAGE_NEW_INFIMUM` and `PAGE_NEW_SUPREMUM`.
const NEW: (usize, usize) = (RECORDS + 5, RECORDS + 18);
/// `PAGE_OLD_INFIMUM` and `PAGE_OLD_SUPREMUM`.
const OLD: (usize, usize) = (RECORDS + 7, RECORDS + 22);

/// Checks the page directory's size, the heap and the list of records of a page that is not
/// ROW_FORMAT=COMPRESSED.
///
/// # Errors
/// What is wrong.
pub fn check(page: &[u8]) -> Result<(), String> {
    let (heap, records) = (u16_at(page, N_HEAP), usize::from(u16_at(page, N_RECS)));
    let is_new = heap & 0x8000 != 0;
    let in_heap = usize::from(heap & 0x7fff);
    let top = usize::from(u16_at(page, HEAP_TOP));
    let slots = usize::from(u16_at(page, N_DIR_SLOTS));
    let (infimum, supremum) = if is_new { NEW } else { OLD };
    let directory = page.len().saturating_sub(TRAILER + slots * 2);
    if slots < 2 || directory < supremum {
        return Err(format!("a page directory with {slots} slots"));
    }
    // A heap that ends at 64 KiB has 0 here.
    if top != 0 && top > directory || in_heap < records + 2 {
        return Err(format!("a heap of {in_heap} records up to byte {top} with {records} in use"));
    }
    let mut at = infimum;
    for seen in 0..=records {
        let field = u16_at(page, at - 2);
        at = if is_new {
            // The way to the next record, modulo 64 KiB; it may lie before this one.
            usize::from((at as u16).wrapping_add(field))
        } else {
            usize::from(field)
        };
        if at == supremum {
            return if seen == records {
                Ok(())
            } else {
                Err(format!("the list has {seen} records, the header says {records}"))
            };
        }
        if at < supremum || at >= directory {
            return Err(format!("record {seen} leads to byte {at}, which is no record"));
        }
    }
    Err(format!("the list does not end after {records} records"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(page: &mut [u8], at: usize, value: u16) {
        page[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// A page with records at these places.
    fn page_of(records: &[usize]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        put(&mut page, N_DIR_SLOTS, 2);
        put(&mut page, N_HEAP, 0x8000 | (records.len() as u16 + 2));
        put(&mut page, HEAP_TOP, 1000);
        put(&mut page, N_RECS, records.len() as u16);
        let mut at = NEW.0;
        for next in records.iter().copied().chain([NEW.1]) {
            put(&mut page, at - 2, (next as u16).wrapping_sub(at as u16));
            at = next;
        }
        page
    }

    #[test]
    fn the_list_is_followed() {
        assert_eq!(check(&page_of(&[])), Ok(()));
        assert_eq!(check(&page_of(&[200, 150, 300])), Ok(()));
        let mut page = page_of(&[200, 150, 300]);
        put(&mut page, N_RECS, 2);
        assert!(check(&page).is_err());
        put(&mut page, N_RECS, 4);
        put(&mut page, N_HEAP, 0x8006);
        assert!(check(&page).is_err());
        // A circle, and a way out of the page.
        let mut page = page_of(&[200, 150]);
        put(&mut page, 148, 50);
        assert!(check(&page).is_err());
        put(&mut page, 148, 4000);
        assert!(check(&page).is_err());
        assert!(check(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = check(&bytes);
        }
    }
}
