// SPDX-License-Identifier: GPL-2.0-only

//! Which files the donor described.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use super::invalid_data;
use super::names;
use crate::ProtocolError;
use crate::innodb::Data;
use crate::innodb::FileMetadata;
use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;
use crate::innodb::SnapshotState;
use crate::innodb::State;

/// Up to where InnoDB looks for the key in a redo header: the encryption block at 1024, the key
/// information 48 bytes into it and 115 long. The header itself is 2048 bytes.
const REDO_KEY_END: u32 = 1024 + 48 + 115;

/// The files of a clone, as InnoDB's two vectors hold them.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Data files that the start of FILE_COPY counted.
    data_total: u32,
    /// The data files described so far, in the order of their index, each with the size of its
    /// pages. A donor describes them in that order, from the first again after a restart, and new
    /// ones made by DDL at the end (`iterate_data_files`, `add_file`).
    data: Vec<PageSize>,
    /// Redo files that the start of REDO_COPY counted.
    redo_total: u32,
    /// See [`StreamCheck::with_spare_redo_file`](super::StreamCheck::with_spare_redo_file).
    pub(super) has_spare_redo: bool,
    /// Those described so far, in any order: a worker that is ahead describes its own.
    redo: BTreeSet<u32>,
}

impl Files {
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
            2 if self.has_spare_redo => 1,
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

    /// A change by DDL before the start of PAGE_COPY or REDO_COPY: to a known file or, with the next
    /// index, a new one. InnoDB appends new files to those that the start of FILE_COPY counted, so
    /// all of these come first. They keep their chunks from FILE_COPY; new files have none there,
    /// and numbers that mean nothing.
    pub(super) fn ddl(
        &mut self,
        file: &FileMetadata<'_>,
        file_copy_chunks: u32,
    ) -> Result<(), ProtocolError> {
        self.require_all_before(file.state)?;
        if file.file_index < self.data_total {
            require_chunks(file, file_copy_chunks)?;
        }
        self.describe(file)
    }

    /// A redo file. It has no name on the wire, and InnoDB would not use one.
    pub(super) fn redo_file(&mut self, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        if file.file_index >= self.redo_total {
            return Err(index(file, self.redo_total));
        }
        // DDL drops no redo file, but InnoDB would mark its chunks, whichever those are.
        if file.deleted {
            return Err(invalid("redo file deleted"));
        }
        self.redo.insert(file.file_index);
        Ok(())
    }

    /// Whether these data are where InnoDB puts a key. The file must have been described, which a
    /// donor's task has done before, or its master for it.
    pub(super) fn data(&self, data: &Data) -> Result<bool, ProtocolError> {
        let unknown = || ProtocolError::new("Wrong Clone RPC: Invalid Data File Index");
        let index = usize::try_from(data.file_index).map_err(|_| unknown())?;
        match data.state {
            SnapshotState::FileCopy => {
                self.data.get(index).ok_or_else(unknown)?;
                Ok(false)
            }
            SnapshotState::PageCopy => {
                let page_size = self.data.get(index).ok_or_else(unknown)?;
                // A donor sends exactly one page. A debug build may be told to send one of the
                // server's size for a compressed table, which InnoDB survives.
                if page_size.bytes.is_none_or(|bytes| data.data_len < bytes.get()) {
                    return Err(invalid_data(format_args!("page of {} bytes", data.data_len)));
                }
                Ok(data.file_offset == 0)
            }
            SnapshotState::RedoCopy => {
                if !self.redo.contains(&data.file_index) {
                    return Err(unknown());
                }
                let header = data.file_index == 0 && data.file_offset == 0;
                if header && data.data_len < REDO_KEY_END {
                    return Err(invalid_data(format_args!(
                        "redo header of {} bytes",
                        data.data_len
                    )));
                }
                Ok(header)
            }
            SnapshotState::None | SnapshotState::Init | SnapshotState::Done => Err(unknown()),
        }
    }

    /// Notes a data file. Its page size stays what it was: another one comes with another
    /// tablespace, and that has another index.
    fn describe(&mut self, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        if file.space_id == SPACE_ID_REDO || !names::is_genuine(file.space_id, file.name) {
            return Err(invalid("file name"));
        }
        let page_size = PageSize::of(file)?;
        let at = usize::try_from(file.file_index).unwrap_or(usize::MAX);
        match self.data.get(at) {
            Some(before) if *before == page_size => {}
            Some(_) => return Err(invalid(format_args!("FSP flags {:#x}", file.fsp_flags))),
            None if at == self.data.len() => self.data.push(page_size),
            None => return Err(index(file, self.data_count())),
        }
        Ok(())
    }

    fn data_count(&self) -> u32 {
        count(self.data.len())
    }
}

/// The size of a tablespace's pages on disk in bytes, between 1 KiB and 64 KiB; none for the buffer
/// pool dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageSize {
    bytes: Option<NonZeroU32>,
}

impl PageSize {
    /// `include/page0size.h:page_size_t`. Sizes stand in the FSP flags as powers of two from 512:
    /// compressed tables' in bits 1 to 4, else that of the instance in bits 6 to 9, where 0 is 16 KiB.
    fn of(file: &FileMetadata<'_>) -> Result<Self, ProtocolError> {
        if file.space_id == SPACE_ID_BUFFER_POOL {
            return Ok(Self { bytes: None });
        }
        let compressed = file.fsp_flags >> 1 & 0xf;
        let instance = file.fsp_flags >> 6 & 0xf;
        let shift = match (compressed, instance) {
            (0, 0) => 5,
            (0, 3..=7) => instance,
            (1..=5, 0 | 3..=7) => compressed,
            _ => return Err(invalid(format_args!("FSP flags {:#x}", file.fsp_flags))),
        };
        Ok(Self { bytes: NonZeroU32::new(512 << shift) })
    }
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
