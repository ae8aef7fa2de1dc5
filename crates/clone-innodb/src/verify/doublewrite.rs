// SPDX-License-Identifier: GPL-2.0-only

//! The doublewrite buffer: copies of the pages that were written last.
//!
//! From 8.0.20 on the copies are in files, `#ib_16384_0.dblwr` and so on, one behind the other. A
//! copy that is torn is no damage: the server was stopped while it wrote the copy, and the page
//! itself was not written yet. Earlier servers have two blocks in the system
//! tablespace, which page 5 of it names.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::bytes::{is_zero, u16_at, u32_at};
use super::checksum;
use crate::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, DOUBLEWRITE_MAGIC, ENCRYPTED, ENCRYPTED_RTREE, FLUSH_LSN,
    NUMBER, SPACE_ID, TRX_SYS_DOUBLEWRITE, TYPE,
};

/// Copies that are remembered at most: 1 GiB of pages.
const MAX_COPIES: usize = 65_536;

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Tablespace and page number of each good copy.
    pub good: HashSet<(u32, u32)>,
    /// Copies that are torn, damaged or encrypted.
    pub unknown: u64,
}

impl Copies {
    /// Adds a file. `page_size` is that of the instance.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn add(&mut self, path: &Path, page_size: usize) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let mut page = vec![0; page_size];
        let mut bytes = 0;
        while self.good.len() < MAX_COPIES && fill(&mut file, &mut page)? {
            bytes += page_size as u64;
            match copy_of(&page) {
                _ if is_zero(&page) => {}
                Some(place) => drop(self.good.insert(place)),
                None => self.unknown += 1,
            }
        }
        Ok(bytes)
    }
}

/// Reads a whole page, if there is one more.
fn fill(file: &mut File, page: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(page) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The page size in the name of a file: `#ib_16384_0.dblwr`.
pub(crate) fn page_size(path: &Path) -> Option<usize> {
    let size = path.file_name()?.to_str()?.split('_').nth(1)?.parse::<usize>().ok()?;
    (size.is_power_of_two() && (4096..=65_536).contains(&size)).then_some(size)
}

/// The blocks in the system tablespace, from page 5 of it. Each has as many pages as an extent
/// (`TRX_SYS_DOUBLEWRITE_BLOCK_SIZE`).
pub(crate) fn blocks(page: &[u8], extent: u32) -> Vec<Range<u32>> {
    let Some(at) = page.len().checked_sub(TRX_SYS_DOUBLEWRITE) else { return Vec::new() };
    if u32_at(page, at + 10) != DOUBLEWRITE_MAGIC {
        return Vec::new();
    }
    let block = |at| {
        let first = u32_at(page, at);
        first..first.saturating_add(extent)
    };
    vec![block(at + 14), block(at + 18)]
}

/// Whether a page of any tablespace is good by itself. Gives the tablespace and the page number.
fn copy_of(page: &[u8]) -> Option<(u32, u32)> {
    let is_encrypted = matches!(
        u16_at(page, TYPE),
        ENCRYPTED | COMPRESSED_AND_ENCRYPTED | ENCRYPTED_RTREE | COMPRESSED
    );
    let is_good = !is_encrypted && checksum::check(page, false).is_ok();
    // A page of ROW_FORMAT=COMPRESSED is shorter than the place it has.
    let is_good = is_good
        || (10..=14)
            .map(|bits| 1 << bits)
            .filter(|size| *size < page.len())
            .any(|size| checksum::check(&page[..size], true).is_ok());
    (is_good && !is_zero(&page[..FLUSH_LSN]))
        .then(|| (u32_at(page, SPACE_ID), u32_at(page, NUMBER)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::verify::checksum::tests::seal;

    #[test]
    fn copies_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("#ib_4096_1.dblwr");
        assert_eq!(page_size(&path), Some(4096));
        assert_eq!(page_size(Path::new("#ib_5000_1.dblwr")), None);
        let mut page = vec![3; 4096];
        seal(&mut page, false);
        let mut bytes = page.clone();
        page[99] ^= 1;
        bytes.extend(&page);
        bytes.extend([0; 5000]);
        std::fs::write(&path, bytes).unwrap();
        let mut copies = Copies::default();
        assert_eq!(copies.add(&path, 4096).unwrap(), 3 * 4096);
        assert_eq!(copies.good.into_iter().collect::<Vec<_>>(), [(0x0303_0303, 0x0303_0303)]);
        assert_eq!(copies.unknown, 1);
    }

    #[test]
    fn blocks_are_found() {
        let mut page = vec![0; 16_384];
        assert!(blocks(&page, 64).is_empty());
        let at = 16_384 - 200;
        page[at + 10..at + 14].copy_from_slice(&DOUBLEWRITE_MAGIC.to_be_bytes());
        page[at + 17] = 64;
        page[at + 21] = 128;
        assert_eq!(blocks(&page, 64), [64..128, 128..192]);
        assert!(blocks(&[], 64).is_empty());
    }
}
