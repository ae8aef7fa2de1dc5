// SPDX-License-Identifier: GPL-2.0-only

//! Where the data files of a clone are in their tablespaces. Donor and recipient learn it from the
//! same descriptors.

use std::collections::BTreeMap;

use super::{Data, FileKind, FileMetadata, SnapshotState};

/// A place in a tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpacePlace {
    /// The tablespace.
    pub space_id: u32,
    /// Bytes from the beginning of the tablespace. Its files count as one.
    pub offset: u64,
}

/// The places of the data files that have been described.
#[derive(Debug, Default)]
pub struct FilePlaces {
    /// Where each file begins, by its index.
    files: BTreeMap<u32, SpacePlace>,
    /// Bytes of the files of the system tablespace so far. It is the only one with several files,
    /// and a donor describes them in their order.
    system_len: u64,
}

impl FilePlaces {
    /// Takes a description of a data file. Descriptions of other files, and later ones of the same
    /// file, change nothing.
    pub fn note(&mut self, file: &FileMetadata<'_>) {
        let kind = FileKind::of(file.space_id);
        let has_pages = !matches!(kind, FileKind::Redo | FileKind::BufferPool);
        if !has_pages || self.files.contains_key(&file.file_index) {
            return;
        }
        let offset = if kind == FileKind::System { self.system_len } else { 0 };
        self.files.insert(file.file_index, SpacePlace { space_id: file.space_id, offset });
        if kind == FileKind::System {
            self.system_len = self.system_len.saturating_add(file.file_size);
        }
    }

    /// Where a block of FILE COPY belongs in its tablespace. None for other blocks: pages of PAGE
    /// COPY have changed since the clone began, so that no older copy has them.
    pub fn of(&self, data: &Data) -> Option<SpacePlace> {
        let start = self.files.get(&data.file_index);
        let start = start.filter(|_| data.state == SnapshotState::FileCopy)?;
        let offset = start.offset.checked_add(data.file_offset)?;
        Some(SpacePlace { offset, ..*start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::{Compression, SPACE_ID_BUFFER_POOL};

    fn file(file_index: u32, space_id: u32, file_size: u64) -> FileMetadata<'static> {
        FileMetadata {
            state: SnapshotState::FileCopy,
            file_size,
            allocated_size: file_size,
            fsp_flags: 0,
            block_size: 4096,
            compression: Compression::None,
            encrypted: false,
            renamed: false,
            deleted: false,
            space_id,
            file_index,
            first_chunk: 1,
            last_chunk: 1,
            name: b"name",
            key: None,
        }
    }

    fn data(state: SnapshotState, file_index: u32, file_offset: u64) -> Data {
        Data {
            state,
            task: 0,
            chunk: 1,
            block: 1,
            file_index,
            data_len: 16_384,
            file_offset,
            file_size: 0,
        }
    }

    #[test]
    fn files_of_the_system_tablespace_follow_each_other() {
        let mut places = FilePlaces::default();
        let files = [(0, SPACE_ID_BUFFER_POOL), (1, 0), (2, 0), (3, 7)];
        for (index, space_id) in files {
            places.note(&file(index, space_id, 100));
        }
        // Described again, for example because it was renamed.
        places.note(&file(1, 0, 500));
        let copied = |index| places.of(&data(SnapshotState::FileCopy, index, 5));
        let place = |space_id, offset| Some(SpacePlace { space_id, offset });
        assert_eq!(copied(0), None, "no pages");
        assert_eq!([copied(1), copied(2)], [place(0, 5), place(0, 105)]);
        assert_eq!([copied(3), copied(4)], [place(7, 5), None]);
        assert_eq!(places.of(&data(SnapshotState::PageCopy, 3, 5)), None);
        assert_eq!(places.of(&data(SnapshotState::RedoCopy, 3, 5)), None);
        assert_eq!(places.of(&data(SnapshotState::FileCopy, 2, u64::MAX)), None);
    }
}
