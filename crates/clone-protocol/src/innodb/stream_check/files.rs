// SPDX-License-Identifier: GPL-2.0-only

//! Which files the donor described.

use std::collections::BTreeSet;
use std::fmt;

use super::Recipient;
use super::invalid_data;
use super::names;
use crate::ProtocolError;
use crate::innodb::Data;
use crate::innodb::FileMetadata;
use crate::innodb::FilePlaces;
use crate::innodb::PageSize;
use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;
use crate::innodb::SnapshotState;
use crate::innodb::State;

/// Up to where InnoDB looks for the key in a redo header: the encryption block at 1024, the key
/// information 48 bytes into it and 115 long. The header itself is 2048 bytes.
const REDO_KEY_END: u32 = 1024 + 48 + 115;

/// The type of page 0 of a tablespace, `FIL_PAGE_TYPE_FSP_HDR`, and where it stands in the page.
const PAGE_TYPE_FSP_HDR: u16 = 8;
const PAGE_TYPE_AT: usize = 24;

/// The files of a clone, as InnoDB's two vectors hold them.
#[derive(Debug)]
pub(super) struct Files {
    recipient: Recipient,
    /// Data files that the start of FILE_COPY counted.
    data_total: u32,
    /// The data files described so far, in the order of their index. A donor describes them in that
    /// order, from the first again after a restart, and new ones made by DDL at the end
    /// (`iterate_data_files`, `add_file`).
    data: Vec<DataFile>,
    /// Where they are in their tablespaces.
    pub(super) places: FilePlaces,
    /// The sum of their sizes in bytes, at most `i64::MAX`.
    size: u64,
    /// Redo files that the start of REDO_COPY counted.
    redo_total: u32,
    /// Those described so far, in any order: a worker that is ahead describes its own.
    redo: BTreeSet<u32>,
}

impl Files {
    pub(super) fn new(recipient: Recipient) -> Self {
        Self {
            recipient,
            data_total: 0,
            data: Vec::new(),
            places: FilePlaces::default(),
            size: 0,
            redo_total: 0,
            redo: BTreeSet::new(),
        }
    }

    /// Notes how many files a state has.
    pub(super) fn announce(&mut self, state: &State) {
        match state.state {
            SnapshotState::FileCopy => self.data_total = state.files,
            SnapshotState::RedoCopy => self.redo_total = state.files,
            _ => {}
        }
    }

    /// Whether every file is described that InnoDB goes through when its master starts a state:
    /// at PAGE_COPY and REDO_COPY all data files, at DONE all files, with no regard for gaps.
    pub(super) fn require_all_before(&self, state: SnapshotState) -> Result<(), ProtocolError> {
        if state > SnapshotState::FileCopy && self.data_count() < self.data_total {
            return Err(invalid(format_args!(
                "{} of {} data files before {state}",
                self.data_count(),
                self.data_total
            )));
        }
        let redo = count(self.redo.len());
        let needed = match self.redo_total {
            2 if self.recipient.has_spare_redo_file => 1,
            total => total,
        };
        if state > SnapshotState::RedoCopy && redo < needed {
            return Err(invalid(format_args!(
                "{redo} of {} redo files before {state}",
                self.redo_total
            )));
        }
        Ok(())
    }

    /// A data file in FILE_COPY.
    pub(super) fn data_file(
        &mut self,
        file: &FileMetadata<'_>,
        chunks: u32,
    ) -> Result<(), ProtocolError> {
        if file.file_index >= self.data_total {
            return Err(index(file, self.data_total));
        }
        require_chunks(file, chunks)?;
        self.describe(file)
    }

    /// A data file that a task found dropped in FILE_COPY or PAGE_COPY, when it came to the chunk
    /// that is given as the first (`process_chunk`). All files have been described by then, in
    /// FILE_COPY those that its start counted.
    pub(super) fn dropped_file(
        &mut self,
        file: &FileMetadata<'_>,
        chunks: u32,
    ) -> Result<(), ProtocolError> {
        let known = match file.state {
            SnapshotState::FileCopy => self.data_total.min(self.data_count()),
            _ => self.data_count(),
        };
        if file.file_index >= known {
            return Err(index(file, known));
        }
        if file.first_chunk == 0 || file.first_chunk > chunks {
            return Err(chunk_range(file, chunks));
        }
        self.describe(file)
    }

    /// A change by DDL before the start of PAGE_COPY or REDO_COPY: to a known file or, with the
    /// next index, a new one. InnoDB appends new files to those that the start of FILE_COPY
    /// counted, so all of these come first. They keep their chunks from FILE_COPY; new files have
    /// none there, and numbers that mean nothing.
    pub(super) fn ddl(
        &mut self,
        file: &FileMetadata<'_>,
        file_copy_chunks: u32,
    ) -> Result<(), ProtocolError> {
        if file.space_id == SPACE_ID_BUFFER_POOL {
            return Err(invalid("buffer pool dump made by DDL"));
        }
        self.require_all_before(file.state)?;
        if file.file_index < self.data_total {
            require_chunks(file, file_copy_chunks)?;
        }
        self.describe(file)
    }

    /// A redo file. It has no name on the wire (`send_file_metadata`).
    pub(super) fn redo_file(&mut self, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        if file.file_index >= self.redo_total {
            return Err(index(file, self.redo_total));
        }
        // InnoDB would handle another space's file as a data file.
        if file.space_id != SPACE_ID_REDO {
            return Err(invalid(format_args!("redo file of space {}", file.space_id)));
        }
        if !file.name.is_empty() {
            return Err(invalid("redo file with a name"));
        }
        // DDL drops no redo file, but InnoDB would mark its chunks, whichever those are.
        if file.deleted {
            return Err(invalid("redo file deleted"));
        }
        if i64::try_from(file.file_size).is_err() {
            return Err(invalid(format_args!("size {}", file.file_size)));
        }
        self.redo.insert(file.file_index);
        Ok(())
    }

    /// Whether these data are where InnoDB puts a key. The file must have been described, which a
    /// donor's task has done before, or its master for it.
    pub(super) fn data(&mut self, data: &Data) -> Result<KeyInData, ProtocolError> {
        let unknown = || ProtocolError::new("Wrong Clone RPC: Invalid Data File Index");
        let index = usize::try_from(data.file_index).map_err(|_| unknown())?;
        match data.state {
            SnapshotState::FileCopy => {
                self.data.get(index).ok_or_else(unknown)?;
                Ok(KeyInData::None)
            }
            SnapshotState::PageCopy => {
                let file = self.data.get_mut(index).ok_or_else(unknown)?;
                // A donor sends exactly one page. A debug build may be told to send one of the
                // server's size for a compressed table, which InnoDB survives.
                let size = file.page_size.filter(|size| data.data_len >= size.physical);
                let Some(size) = size else {
                    return Err(invalid_data(format_args!("page of {} bytes", data.data_len)));
                };
                if data.file_offset != 0 {
                    return Ok(KeyInData::None);
                }
                // Page 0 tells to what size the file has grown since it was described.
                let grown = file.size.max(data.file_size);
                self.size = sum(self.size, file.size, grown)
                    .ok_or_else(|| invalid_data(format_args!("file size {}", data.file_size)))?;
                file.size = grown;
                Ok(match size.is_compressed {
                    true => KeyInData::CompressedPage,
                    false => KeyInData::Other,
                })
            }
            SnapshotState::RedoCopy => {
                if !self.redo.contains(&data.file_index) {
                    return Err(unknown());
                }
                if data.file_index != 0 || data.file_offset != 0 {
                    return Ok(KeyInData::None);
                }
                if data.data_len < REDO_KEY_END {
                    return Err(invalid_data(format_args!(
                        "redo header of {} bytes",
                        data.data_len
                    )));
                }
                Ok(KeyInData::Other)
            }
            SnapshotState::None | SnapshotState::Init | SnapshotState::Done => Err(unknown()),
        }
    }

    /// Notes a data file. Its page size and its tablespace stay what they were: others come with
    /// another index (`file_ctx_changed` finds the index by the id). InnoDB takes what a rename
    /// says of the tablespace, and with it how to read the name.
    fn describe(&mut self, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        self.check_name(file)?;
        let space_id = file.space_id;
        let page_size = page_size(file, self.recipient.page_size)?;
        let at = usize::try_from(file.file_index).unwrap_or(usize::MAX);
        let next = self.data.len();
        let known = self.data.get_mut(at);
        // A file keeps the larger size that its page 0 told (`apply_ddl`).
        let before = known.as_ref().map_or(0, |known| known.size);
        let size = file.file_size.max(before);
        let total = sum(self.size, before, size)
            .ok_or_else(|| invalid(format_args!("size {size} beside {}", self.size)))?;
        match known {
            Some(known) if known.page_size != page_size => {
                return Err(invalid(format_args!("FSP flags {:#x}", file.fsp_flags)));
            }
            Some(known) if known.space_id != space_id => {
                let before = known.space_id;
                return Err(invalid(format_args!("space {space_id}, before {before}")));
            }
            Some(known) => known.size = size,
            None if at == next => {
                self.data.push(DataFile { space_id, page_size, size });
                self.places.note(file);
            }
            None => return Err(index(file, self.data_count())),
        }
        self.size = total;
        Ok(())
    }

    fn check_name(&self, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        let refused = |why: &str| invalid(format_args!("file name: {why}"));
        if file.space_id == SPACE_ID_REDO {
            return Err(refused("redo among the data files"));
        }
        names::check(file.space_id, file.name).map_err(refused)?;
        // A bare name is a file in the data directory, or in one of the recipient's settings.
        let is_path = file.name.contains(&b'/');
        match &self.recipient.directories {
            Some(directories) if is_path && !directories.contain(file.name) => {
                Err(refused("not in a known directory"))
            }
            _ => Ok(()),
        }
    }

    fn data_count(&self) -> u32 {
        count(self.data.len())
    }
}

/// A data file that was described.
#[derive(Debug)]
struct DataFile {
    space_id: u32,
    /// None for the buffer pool dump.
    page_size: Option<PageSize>,
    /// In bytes.
    size: u64,
}

/// The sizes of a file's pages; none for the buffer pool dump.
///
/// InnoDB takes the page size of the server for the instance's, whatever the flags say, and writes
/// at the end of a page that it made room for by the flags (`fil_write_initial_pages`).
fn page_size(file: &FileMetadata<'_>, server: u32) -> Result<Option<PageSize>, ProtocolError> {
    let wrong = || invalid(format_args!("FSP flags {:#x}", file.fsp_flags));
    if file.space_id == SPACE_ID_BUFFER_POOL {
        let is_genuine = file.fsp_flags == u32::MAX;
        return is_genuine.then_some(None).ok_or_else(wrong);
    }
    let size = PageSize::of(file.fsp_flags).filter(|size| size.logical == server);
    size.map(Some).ok_or_else(wrong)
}

/// Whether InnoDB puts a key into a block of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyInData {
    /// No.
    None,
    /// Into page 0 of a tablespace with `ROW_FORMAT=COMPRESSED`.
    CompressedPage,
    /// Into page 0 of another tablespace, or the redo header.
    Other,
}

impl KeyInData {
    /// Whether InnoDB can put a key there. It fails an assertion where page 0 of a compressed
    /// tablespace says that it is another kind of page (`buf_flush_init_for_writing`).
    pub(super) fn check(self, data: &[u8]) -> Result<(), ProtocolError> {
        if self != Self::CompressedPage {
            return Ok(());
        }
        let page_type = data.get(PAGE_TYPE_AT..).and_then(|rest| rest.first_chunk());
        match page_type.map(|bytes| u16::from_be_bytes(*bytes)) {
            Some(PAGE_TYPE_FSP_HDR) => Ok(()),
            _ => Err(ProtocolError::new("Wrong Clone RPC: Invalid Data: type of page 0")),
        }
    }
}

/// `total` with `after` for `before`, if that is at most `i64::MAX`.
fn sum(total: u64, before: u64, after: u64) -> Option<u64> {
    let sum = total.saturating_sub(before).checked_add(after)?;
    i64::try_from(sum).is_ok().then_some(sum)
}

/// Whether a file's chunks are among those of FILE_COPY. If the file is dropped there, InnoDB marks
/// each of them. A file of no bytes has none, and its last is one less than its first
/// (`build_file`).
fn require_chunks(file: &FileMetadata<'_>, chunks: u32) -> Result<(), ProtocolError> {
    let before = file.first_chunk.checked_sub(1);
    if before.is_none_or(|before| before > file.last_chunk) || file.last_chunk > chunks {
        return Err(chunk_range(file, chunks));
    }
    Ok(())
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn index(file: &FileMetadata<'_>, of: u32) -> ProtocolError {
    ProtocolError::detailed(
        "Wrong Clone RPC: Invalid File Index",
        format_args!("{} of {of} in {}", file.file_index, file.state),
    )
}

fn chunk_range(file: &FileMetadata<'_>, of: u32) -> ProtocolError {
    invalid(format_args!("chunks {} to {} of {of}", file.first_chunk, file.last_chunk))
}

/// File metadata that a donor does not send.
pub(super) fn invalid(detail: impl fmt::Display) -> ProtocolError {
    ProtocolError::detailed("Wrong Clone RPC: Invalid File Descriptor", detail)
}
