// SPDX-License-Identifier: GPL-2.0-only

//! The doublewrite buffer: copies of the pages that a server wrote last. A server writes each page
//! here first, so that a page that was written in part can be restored.
//!
//! | Server | Copies |
//! |---|---|
//! | since 8.0.20 | `#ib_<page size>_<number>.dblwr`: pages, each in a slot as long as a page of the instance |
//! | before | two blocks of the system tablespace, each as long as an extent, named in its page 5 |

use std::ops::Range;
use std::path::Path;

use super::bytes::u32_at;

/// The page of the system tablespace that names the blocks (`FSP_TRX_SYS_PAGE_NO`).
pub const TRX_SYS_PAGE: u32 = 5;

/// `TRX_SYS_DOUBLEWRITE`, from the end of that page.
const TRX_SYS_DOUBLEWRITE: usize = 200;
/// `TRX_SYS_DOUBLEWRITE_MAGIC` there, and what it has.
const MAGIC_AT: usize = 10;
const MAGIC: u32 = 536_853_855;
/// `TRX_SYS_DOUBLEWRITE_BLOCK1` and `_BLOCK2` there: the first page of each block.
const BLOCKS_AT: [usize; 2] = [14, 18];

/// Whether this is the name of a file of copies.
pub fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "dblwr")
}

/// The page size in the name of a file of copies, in bytes: that of the instance.
pub fn page_size(path: &Path) -> Option<u32> {
    let (size, _) = path.file_name()?.to_str()?.strip_prefix("#ib_")?.split_once('_')?;
    let size = size.parse::<u32>().ok()?;
    (size.is_power_of_two() && (4096..=65_536).contains(&size)).then_some(size)
}

/// The pages of the blocks in the system tablespace, from its [`TRX_SYS_PAGE`].
pub fn blocks(page: &[u8], extent_pages: u32) -> Vec<Range<u32>> {
    let Some(at) = page.len().checked_sub(TRX_SYS_DOUBLEWRITE) else { return Vec::new() };
    if u32_at(page, at + MAGIC_AT) != MAGIC {
        return Vec::new();
    }
    let firsts = BLOCKS_AT.map(|block| u32_at(page, at + block));
    let firsts = firsts.into_iter().filter(|first| *first != 0);
    firsts.map(|first| first..first.saturating_add(extent_pages)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        assert_eq!(page_size(Path::new("/d/#ib_4096_1.dblwr")), Some(4096));
        for other in
            ["#ib_5000_1.dblwr", "old#ib_4096_1.dblwr", "backup_4096_1.dblwr", "#ib_.dblwr"]
        {
            assert_eq!(page_size(Path::new(other)), None, "{other}");
        }
        assert!(is_file("#ib_4096_1.dblwr"));
        assert!(!is_file("#ib_4096_1.bdblwr"));
    }

    #[test]
    fn blocks_are_found() {
        let mut page = vec![0; 16_384];
        assert!(blocks(&page, 64).is_empty());
        let at = 16_384 - 200;
        page[at + 10..at + 14].copy_from_slice(&MAGIC.to_be_bytes());
        assert!(blocks(&page, 64).is_empty());
        page[at + 17] = 64;
        page[at + 21] = 128;
        assert_eq!(blocks(&page, 64), [64..128, 128..192]);
        assert!(blocks(&[], 64).is_empty());
    }
}
