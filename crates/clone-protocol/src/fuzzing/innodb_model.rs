// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's apply side as far as a donor can harm it: where it would assert, go beyond a vector or
//! follow a null pointer in a release build, this one returns an error.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::innodb::Data;
use crate::innodb::Descriptor;
use crate::innodb::FileMetadata;
use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;
use crate::innodb::SnapshotState;
use crate::innodb::State;

/// What InnoDB suffers.
pub(super) type Harm = &'static str;

/// `Clone_Snapshot` and `Clone_Task_Manager`, of which one lock serializes the tasks.
#[derive(Debug)]
pub(super) struct InnodbModel {
    state: SnapshotState,
    /// Bits in the bitmap of chunks.
    chunks: u32,
    /// The length of the vector of data files, and what is not null in it.
    data_len: u32,
    data: BTreeMap<u32, DataFile>,
    redo_len: u32,
    redo: BTreeSet<u32>,
    /// The states that each task ended since its EXECUTE.
    ended: BTreeSet<(usize, SnapshotState)>,
}

#[derive(Debug)]
struct DataFile {
    /// Bytes on disk; none for what has no pages.
    page_size: Option<u32>,
    first_chunk: u32,
    last_chunk: u32,
}

impl Default for InnodbModel {
    fn default() -> Self {
        Self {
            state: SnapshotState::Init,
            chunks: 0,
            data_len: 0,
            data: BTreeMap::new(),
            redo_len: 0,
            redo: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }
}

impl InnodbModel {
    pub(super) fn state(&self) -> SnapshotState {
        self.state
    }

    /// All tasks end, and others begin.
    pub(super) fn restart(&mut self) {
        self.ended.clear();
    }

    /// `Clone_Handle::apply` by one task; the start of a state is the master's.
    pub(super) fn apply(&mut self, task: usize, descriptor: &Descriptor<'_>) -> Result<(), Harm> {
        match descriptor {
            Descriptor::State(State { ack: true, .. }) => Ok(()),
            Descriptor::State(state) if state.start => self.start(state),
            // `finish_state`, which counts tasks.
            Descriptor::State(state) => match self.ended.insert((task, state.state)) {
                true => Ok(()),
                false => Err("a state ended by fewer tasks than counted"),
            },
            Descriptor::FileMetadata(file) => self.file(file),
            Descriptor::Data(data) => self.data(data),
            _ => Ok(()),
        }
    }

    /// `fix_all_renamed`, `set_state_info`, `extend_and_flush_files`.
    fn start(&mut self, state: &State) -> Result<(), Harm> {
        let copying = matches!(self.state, SnapshotState::FileCopy | SnapshotState::PageCopy);
        if copying {
            self.all_data_files()?;
        }
        if state.chunks > 1 << 27 {
            return Err("bitmap takes all memory");
        }
        match state.state {
            SnapshotState::None | SnapshotState::Init => return Err("invalid state"),
            SnapshotState::FileCopy => {
                if state.files > 1 << 26 {
                    return Err("data files take all memory");
                }
                self.data_len = state.files;
                self.data.retain(|index, _| *index < state.files);
            }
            SnapshotState::PageCopy => {}
            SnapshotState::RedoCopy => {
                if state.files > 1 << 16 {
                    return Err("redo files take all memory");
                }
                self.redo_len = state.files;
                self.redo.retain(|index| *index < state.files);
            }
            SnapshotState::Done => {
                self.all_data_files()?;
                if u32::try_from(self.redo.len()) != Ok(self.redo_len) {
                    return Err("null redo file");
                }
            }
        }
        self.state = state.state;
        self.chunks = state.chunks;
        Ok(())
    }

    fn all_data_files(&self) -> Result<(), Harm> {
        match u32::try_from(self.data.len()) == Ok(self.data_len) {
            true => Ok(()),
            false => Err("null data file"),
        }
    }

    /// `apply_file_metadata`.
    fn file(&mut self, file: &FileMetadata<'_>) -> Result<(), Harm> {
        let is_data = matches!(self.state, SnapshotState::FileCopy | SnapshotState::PageCopy);
        let is_redo = self.state == SnapshotState::RedoCopy;
        let is_ddl = file.state == self.state.next().unwrap_or(SnapshotState::Done);
        let index = file.file_index;
        let exists =
            is_data && self.data.contains_key(&index) || is_redo && self.redo.contains(&index);

        if i64::try_from(file.file_size).is_err() {
            return Err("disk filled with zeros");
        }
        if is_redo && (file.space_id != SPACE_ID_REDO || !file.name.is_empty()) {
            return Err("data file among the redo files");
        }
        if exists {
            if is_ddl && is_redo {
                return Err("DDL on redo");
            }
            if is_ddl && file.renamed && !file.deleted {
                Self::name(file)?;
                self.data.insert(index, Self::data_file(file));
            }
            if !is_ddl && file.deleted {
                self.delete(file)?;
            }
            return Ok(());
        }
        if !is_redo {
            Self::name(file)?;
        }
        if is_data {
            if is_ddl && index != self.data_len {
                return Err("assertion in add_file_from_desc");
            }
            if is_ddl {
                Self::initial_pages(file)?;
                self.data_len += 1;
            }
            if index >= self.data_len {
                return Err("write beyond data files");
            }
            self.data.insert(index, Self::data_file(file));
        } else {
            if index >= self.redo_len {
                return Err("write beyond redo files");
            }
            self.redo.insert(index);
        }
        Ok(())
    }

    /// `build_file_path`, `clone_files_for_each_file`, and what mysqld reads at its next start.
    fn name(file: &FileMetadata<'_>) -> Result<(), Harm> {
        match file.name {
            b"" => Err("null file name"),
            name if name.contains(&b'\n') => Err("another file removed"),
            name if name.ends_with(b".cnf") => Err("settings of mysqld"),
            _ => Ok(()),
        }
    }

    /// `fil_write_initial_pages`, of a server with pages of 16 KiB.
    fn initial_pages(file: &FileMetadata<'_>) -> Result<(), Harm> {
        if file.fsp_flags == u32::MAX {
            return Err("pages of a file without pages");
        }
        match file.fsp_flags >> 6 & 0xf {
            0 => Ok(()),
            _ => Err("write beyond the initial pages"),
        }
    }

    /// The page sizes of the tablespaces that the fuzzed donor has.
    fn data_file(file: &FileMetadata<'_>) -> DataFile {
        let page_size = match file.space_id {
            SPACE_ID_BUFFER_POOL => None,
            _ => match (file.fsp_flags >> 1 & 0xf, file.fsp_flags >> 6 & 0xf) {
                (0, 0) => Some(16_384),
                (0, shift) | (shift, _) => Some(512 << shift),
            },
        };
        let (first_chunk, last_chunk) = (file.first_chunk, file.last_chunk);
        DataFile { page_size, first_chunk, last_chunk }
    }

    /// `apply_file_delete`.
    fn delete(&self, file: &FileMetadata<'_>) -> Result<(), Harm> {
        let (first, last) = match (self.state, self.data.get(&file.file_index)) {
            (SnapshotState::PageCopy, _) => (file.first_chunk, file.first_chunk),
            (SnapshotState::FileCopy, Some(known)) => (known.first_chunk, known.last_chunk),
            _ => return Err("redo file deleted"),
        };
        if first <= last && (first == 0 || last > self.chunks) {
            return Err("assertion on the chunk of a deleted file");
        }
        Ok(())
    }

    /// `apply_data`, with what releases before 9.7 do not check.
    fn data(&self, data: &Data) -> Result<(), Harm> {
        if data.data_len > 64 << 20 {
            return Err("block takes all memory");
        }
        match self.state {
            SnapshotState::FileCopy if self.data.contains_key(&data.file_index) => {}
            SnapshotState::PageCopy => {
                let file = self.data.get(&data.file_index).ok_or("null file of data")?;
                let page_size = file.page_size.ok_or("page of a file without pages")?;
                if data.file_offset == 0 && data.data_len < page_size {
                    return Err("key beyond a page");
                }
            }
            SnapshotState::RedoCopy if self.redo.contains(&data.file_index) => {
                let is_header = data.file_index == 0 && data.file_offset == 0;
                if is_header && data.data_len < 1024 + 48 + 115 {
                    return Err("key beyond the redo header");
                }
            }
            _ => return Err("null file of data"),
        }
        if data.chunk == 0 || data.chunk > self.chunks {
            return Err("assertion on the chunk of data");
        }
        Ok(())
    }
}
