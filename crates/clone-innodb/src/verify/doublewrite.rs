// SPDX-License-Identifier: GPL-2.0-only

//! The copies of pages in the doublewrite buffer. A copy that is torn is no damage: the server was
//! stopped while it wrote the copy, and the page itself was not written yet.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::format::bytes::{is_zero, u16_at, u32_at};
use crate::format::checksum;
use crate::format::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, ENCRYPTED, ENCRYPTED_RTREE, FLUSH_LSN, NUMBER, SPACE_ID,
    TYPE,
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
    use crate::format::checksum::seal;

    #[test]
    fn copies_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("#ib_4096_1.dblwr");
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
}
