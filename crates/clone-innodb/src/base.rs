// SPDX-License-Identifier: GPL-2.0-only

//! The tablespaces of an older copy of a data directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use clone_protocol::innodb::SpacePlace;

use crate::format::bytes::u32_at;
use crate::format::layout::NUMBER;
use crate::format::space_header::{BYTES, SpaceHeader};
use crate::verify::Plan;

/// A file of a tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceFile {
    /// Where its first byte belongs.
    pub place: SpacePlace,
    /// Its bytes.
    pub len: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// An older copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlderCopy {
    /// Its files. Only pages 0 say which tablespaces these are: a copy may have other names.
    pub files: Vec<SpaceFile>,
    /// `innodb_page_size`, in bytes.
    pub page_size: u32,
}

impl OlderCopy {
    /// Looks at the files that a search has found. Files that are no tablespaces of one instance
    /// are left out. None if nothing is left.
    pub fn of(plan: &Plan) -> Option<Self> {
        let mut copy = Self { files: Vec::new(), page_size: 0 };
        for space in &plan.spaces {
            for (number, path) in space.paths.iter().enumerate() {
                // A file that cannot be read is of no use.
                let Ok((header, len)) = read(path) else { continue };
                copy.add(&header, number != 0, len, path);
            }
        }
        (!copy.files.is_empty()).then_some(copy)
    }

    fn add(&mut self, header: &[u8], is_further: bool, len: u64, path: &Path) {
        let mut place = SpacePlace { space_id: 0, offset: 0 };
        if is_further {
            // The system tablespace has no header in its second file, and the number of the page
            // says where the file belongs.
            let number = u32_at(header, NUMBER);
            if number == 0 || self.page_size == 0 {
                return;
            }
            place.offset = u64::from(number) * u64::from(self.page_size);
        } else {
            let header = SpaceHeader::parse(header);
            let size = header.page_size().filter(|_| !header.is_temporary());
            let Some(size) = size else { return };
            if self.page_size == 0 {
                self.page_size = size.logical;
            }
            if self.page_size != size.logical {
                return;
            }
            place.space_id = header.space_id;
        }
        self.files.push(SpaceFile { place, len, path: path.to_owned() });
    }
}

fn read(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let mut header = vec![0; BYTES];
    file.read_exact_at(&mut header, 0)?;
    Ok((header, file.metadata()?.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use clone_protocol::innodb::PageSize;

    use super::*;
    use crate::format::layout::FSP_SIZE;
    use crate::format::page::initial_page;

    /// `FSP_SPACE_FLAGS` of a table with 16 KiB pages, and with 8 KiB pages.
    const PAGES_16K: u32 = 0x21;
    const PAGES_8K: u32 = 0x21 | 4 << 6;

    #[test]
    fn files_are_known_by_their_first_pages() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let page = |space_id, flags| {
            initial_page(PageSize::of(flags).unwrap(), space_id, flags, 90_704, None)
        };
        let mut first = page(0, PAGES_16K);
        first[FSP_SIZE..FSP_SIZE + 4].copy_from_slice(&768_u32.to_be_bytes());
        fs::write(file("ibdata1"), first).unwrap();
        let mut second = vec![0; 16 << 10];
        second[NUMBER..NUMBER + 4].copy_from_slice(&768_u32.to_be_bytes());
        fs::write(file("ibdata2"), &second).unwrap();
        fs::write(file("renamed.ibd"), page(77, PAGES_16K)).unwrap();
        // Of another instance, too short, damaged, and never written.
        fs::write(file("other.ibd"), page(78, PAGES_8K)).unwrap();
        fs::write(file("short.ibd"), [1; 100]).unwrap();
        fs::write(file("damaged.ibu"), vec![0xff; 16 << 10]).unwrap();
        fs::write(file("zeros.ibd"), vec![0; 16 << 10]).unwrap();
        let plan = Plan::find(&[directory.path().to_owned()]);
        let copy = OlderCopy::of(&plan).unwrap();
        let found: Vec<_> = copy
            .files
            .iter()
            .map(|one| (one.place.space_id, one.place.offset, one.path.clone()))
            .collect();
        let second = 768 * (16 << 10);
        assert_eq!(
            found,
            [(0, 0, file("ibdata1")), (0, second, file("ibdata2")), (77, 0, file("renamed.ibd"))]
        );
        assert_eq!(copy.page_size, 16 << 10);
        assert_eq!(OlderCopy::of(&Plan::default()), None);
    }
}
