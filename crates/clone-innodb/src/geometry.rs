// SPDX-License-Identifier: GPL-2.0-only

//! How a donor cuts its files: pages, blocks of pages, chunks of blocks
//! (`include/clone0snapshot.h`).

use std::ops::Range;

/// The blocks of a chunk: a chunk is 4,096 pages, a block 64.
pub const BLOCKS_IN_CHUNK: u32 = 64;

/// The redo header is 2,048 bytes at the beginning of the first redo file (`LOG_FILE_HDR_SIZE`).
pub const REDO_HEADER: u32 = 2048;

/// The units of a donor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a page of the instance (`UNIV_PAGE_SIZE`).
    pub page_size: u32,
    /// Pages of a block, which is what one DATA packet carries in FILE_COPY and REDO_COPY.
    pub pages_in_block: u32,
    /// Blocks of a chunk, which is what a task takes on at once.
    pub blocks_in_chunk: u32,
}

/// A part of a file that goes in one DATA packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The index of the file, among the data files or in REDO_COPY among the redo files.
    pub file: u32,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

/// The chunks of a state in order, each with its blocks in order. Both are numbered from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The blocks of each chunk.
    pub chunks: Vec<Vec<Block>>,
    /// The first and the last chunk of each file. The last of a file without chunks is one less
    /// than its first.
    pub ranges: Vec<(u32, u32)>,
}

impl Geometry {
    /// Of a server with pages of so many bytes (16 KiB by default).
    pub fn innodb(page_size: u32) -> Self {
        Self { page_size, pages_in_block: 64, blocks_in_chunk: BLOCKS_IN_CHUNK }
    }

    /// FILE_COPY: files of these sizes.
    pub fn files(&self, sizes: &[u64]) -> Layout {
        let mut layout = Layout::default();
        for (file, size) in (0..).zip(sizes) {
            self.add(&mut layout, file, 0..*size);
        }
        layout
    }

    /// PAGE_COPY: these pages, each a block of its own.
    pub fn pages(&self, pages: &[Block]) -> Layout {
        let in_chunk = self.pages_in_block.saturating_mul(self.blocks_in_chunk).max(1);
        let chunks = pages.chunks(in_chunk as usize).map(<[Block]>::to_vec).collect();
        Layout { chunks, ranges: Vec::new() }
    }

    /// REDO_COPY: the data of each redo file, then a chunk for the header and one for the trailer.
    pub fn redo(&self, data: &[Range<u64>], trailer: Block) -> Layout {
        let mut layout = Layout::default();
        for (file, range) in (0..).zip(data) {
            self.add(&mut layout, file, range.clone());
        }
        layout.chunks.push(vec![Block { file: 0, offset: 0, len: REDO_HEADER }]);
        layout.chunks.push(vec![trailer]);
        layout
    }

    fn add(&self, layout: &mut Layout, file: u32, range: Range<u64>) {
        let first = count(layout.chunks.len()) + 1;
        let len = u64::from(self.page_size.saturating_mul(self.pages_in_block).max(1));
        let in_chunk = self.blocks_in_chunk.max(1) as usize;
        let mut chunk = Vec::new();
        let mut offset = range.start;
        while offset < range.end {
            // Not more than `len`, which is 32 bits wide.
            let block = len.min(range.end - offset);
            chunk.push(Block { file, offset, len: u32::try_from(block).unwrap_or(u32::MAX) });
            offset += block;
            if chunk.len() == in_chunk {
                layout.chunks.push(std::mem::take(&mut chunk));
            }
        }
        if !chunk.is_empty() {
            layout.chunks.push(chunk);
        }
        layout.ranges.push((first, count(layout.chunks.len())));
    }
}

impl Layout {
    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().flatten().map(|block| u64::from(block.len)).sum()
    }
}

/// A number of chunks or files. Those of a donor are far fewer than 2^32.
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn files_are_cut_as_innodb_cuts_them() {
        // The sizes and ranges of the beginning of clone-protocol/tests/stock/workers_and_ddl.txt.
        let sizes = [59_615, 12 * MIB, 112 << 10, 308 * MIB, 5 * MIB];
        let layout = Geometry::innodb(16 << 10).files(&sizes);
        assert_eq!(layout.ranges, [(1, 1), (2, 2), (3, 3), (4, 8), (9, 9)]);
        assert_eq!(layout.chunks.iter().map(Vec::len).collect::<Vec<_>>()[..5], [1, 12, 1, 64, 64]);
        assert_eq!(layout.chunks[0], [Block { file: 0, offset: 0, len: 59_615 }]);
        assert_eq!(layout.chunks[4][0], Block { file: 3, offset: 64 * MIB, len: 1 << 20 });
        assert_eq!(layout.bytes(), sizes.iter().sum::<u64>());
    }

    #[test]
    fn an_empty_file_has_no_chunk() {
        let layout = Geometry::innodb(16 << 10).files(&[0, 1, 0]);
        assert_eq!(layout.ranges, [(1, 0), (1, 1), (2, 1)]);
        assert_eq!(layout.chunks.len(), 1);
    }

    #[test]
    fn redo_ends_with_its_header_and_its_trailer() {
        let geometry = Geometry { page_size: 1024, pages_in_block: 2, blocks_in_chunk: 2 };
        let trailer = Block { file: 1, offset: 512, len: 512 };
        let layout = geometry.redo(&[2048..9000, 0..512], trailer);
        assert_eq!(layout.ranges, [(1, 2), (3, 3)]);
        assert_eq!(layout.chunks[1].len(), 2);
        assert_eq!(layout.chunks[3], [Block { file: 0, offset: 0, len: 2048 }]);
        assert_eq!(layout.chunks[4], [trailer]);
        assert_eq!(layout.chunks.len(), 5);
    }
}
