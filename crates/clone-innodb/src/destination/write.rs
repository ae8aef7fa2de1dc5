// SPDX-License-Identifier: GPL-2.0-only

//! How pages with transparent compression get into a file: each as long as it is, with a hole
//! behind it (`clone0apply.cc:sparse_file_write`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::format::page::compressed_len;

/// A file in which pages leave holes. Both sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) page_size: u32,
    /// The file system's block size at the donor, in multiples of which pages are written.
    pub(super) block_size: u32,
}

impl Sparse {
    /// Writes whole pages. `offset` is in bytes.
    ///
    /// Where a file system has no holes, whole pages are written: that is as good, but larger.
    pub(super) fn write(self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let page_size = self.page_size.max(1);
        for (page, at) in
            bytes.chunks(page_size as usize).zip((offset..).step_by(page_size as usize))
        {
            // The first page must be whole: it is read before anything is known of the file.
            let len = if at == 0 { page.len() } else { compressed_len(page, self.block_size) };
            let (data, rest) = page.split_at(len);
            file.write_all_at(data, at)?;
            let hole = at + len as u64;
            if !rest.is_empty() && !punch(file, hole, rest.len() as u64)? {
                file.write_all_at(rest, hole)?;
            }
        }
        Ok(())
    }
}

/// Makes a hole, at the end of the file too. False if the file system has none.
fn punch(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    if file.metadata()?.len() < offset + len {
        file.set_len(offset + len)?;
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, len).is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PAGE: usize = 16 << 10;

    #[test]
    fn a_compressed_page_leaves_a_hole_and_reads_as_zeros() {
        let mut pages = vec![0xaa; 3 * PAGE];
        for page in pages.chunks_mut(PAGE) {
            page[24..26].copy_from_slice(&14_u16.to_be_bytes());
            page[32..34].copy_from_slice(&100_u16.to_be_bytes());
        }
        let file = tempfile::tempfile().unwrap();
        let sparse = Sparse { page_size: PAGE as u32, block_size: 4096 };
        // What was there before must be gone.
        file.write_all_at(&vec![0x55; 3 * PAGE], 0).unwrap();
        sparse.write(&file, &pages, 0).unwrap();
        let mut found = vec![0; 3 * PAGE];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found[..PAGE], pages[..PAGE], "the first page is whole");
        for page in [1, 2] {
            let page = page * PAGE;
            assert_eq!(found[page..page + 4096], pages[page..page + 4096]);
            assert_eq!(found[page + 4096..page + PAGE], [0; PAGE - 4096]);
        }
    }

    #[test]
    fn other_pages_are_whole() {
        let pages = vec![0xaa; 2 * PAGE];
        let file = tempfile::tempfile().unwrap();
        let sparse = Sparse { page_size: PAGE as u32, block_size: 4096 };
        sparse.write(&file, &pages, 1 << 20).unwrap();
        let mut found = vec![0; 2 * PAGE];
        file.read_exact_at(&mut found, 1 << 20).unwrap();
        assert_eq!(found, pages);
    }
}
