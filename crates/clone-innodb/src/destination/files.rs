// SPDX-License-Identifier: GPL-2.0-only

//! The files of a clone at its recipient: which there are, where, and what DDL does to them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use clone_protocol::innodb::{
    Compression, Data, FileKind, FileMetadata, PageSize, SPACE_ID_BUFFER_POOL, SnapshotState, State,
};

use super::flush::{self, Whole};
use super::keys::{self, KeyIn};
use super::names::{data_path, redo_path};
use super::operations::{Before, create, delete, failed, rename_new};
use super::write::Sparse;
use super::{EncryptedFiles, Options, RedoNames};
use crate::error::{Error, FileOperation, Result};
use crate::format::encryption_info;
use crate::format::page::{initial_page, initial_size};

/// The most data files and redo files that a donor may announce: 7 TiB of empty tables, and far
/// more redo files than the 1,000 at which a donor gives up.
const MAX_DATA_FILES: u32 = 1 << 26;
const MAX_REDO_FILES: u32 = 1 << 16;

/// A file that DDL renamed has this at the end of its name until all files are renamed
/// (`CLONE_INNODB_DDL_FILE_EXTN`).
const DDL_EXTENSION: &str = ".#clone_ddl";

#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    options: Options,
    data: BTreeMap<u32, DataFile>,
    data_total: u32,
    redo: BTreeMap<u32, RedoFile>,
    redo_total: u32,
    before: Before,
}

#[derive(Debug)]
struct DataFile {
    /// Where it is now, below the directory.
    path: PathBuf,
    /// Where it is to be when DDL renamed it.
    final_path: Option<PathBuf>,
    space_id: u32,
    size: u64,
    /// None for the buffer pool dump.
    page_size: Option<PageSize>,
    /// In FILE_COPY.
    chunks: (u32, u32),
    sparse: Option<Sparse>,
    state: FileState,
    key: KeyState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    Present,
    /// A task of the donor said that the file is gone. Data of it are dropped.
    Dropped,
    /// The file is deleted here too.
    Deleted,
}

/// Whether the file has a key, which must come in PAGE_COPY at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyState {
    None,
    /// The file is encrypted, and its key has not come.
    Awaited,
    Came,
}

#[derive(Debug)]
struct RedoFile {
    path: PathBuf,
    size: u64,
    is_encrypted: bool,
}

/// Where the block of a DATA descriptor goes.
#[derive(Debug)]
pub(super) struct Place {
    /// The whole path; none if the file was dropped.
    pub(super) path: Option<PathBuf>,
    pub(super) sparse: Option<Sparse>,
    /// A key that the block may carry.
    pub(super) key: Option<KeyIn>,
}

/// What file metadata meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// Nothing that the tasks have to know.
    Noted,
    /// All files of FILE_COPY are described.
    Complete,
    /// Nothing comes of these chunks. In PAGE_COPY they are one chunk, of which the rest comes.
    Dropped { first: u32, last: u32 },
}

impl Files {
    pub(super) fn new(directory: PathBuf, options: Options) -> Self {
        Self {
            directory,
            options,
            data: BTreeMap::new(),
            data_total: 0,
            redo: BTreeMap::new(),
            redo_total: 0,
            before: Before::Nothing,
        }
    }

    /// What another process has done of what comes next.
    pub(super) fn set_before(&mut self, before: Before) {
        self.before = before;
    }

    pub(super) fn has_data_file(&self, index: u32) -> bool {
        self.data.contains_key(&index)
    }

    /// The master starts a state, which counts its files.
    pub(super) fn announce(&mut self, state: &State) -> Result<()> {
        let (total, most) = match state.state {
            SnapshotState::FileCopy => (&mut self.data_total, MAX_DATA_FILES),
            SnapshotState::RedoCopy => (&mut self.redo_total, MAX_REDO_FILES),
            _ => return Ok(()),
        };
        if state.files > most {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid State Descriptor: {} files",
                state.files
            )));
        }
        *total = state.files;
        Ok(())
    }

    /// A data file of FILE_COPY, or one that a task of the donor found dropped.
    pub(super) fn describe(
        &mut self,
        state: SnapshotState,
        file: &FileMetadata<'_>,
    ) -> Result<Described> {
        if let Some(known) = self.data.get_mut(&file.file_index) {
            // Another task described it, or a restart describes it again.
            if !file.deleted {
                return Ok(Described::Noted);
            }
            let is_known = known.state != FileState::Present;
            if !is_known {
                known.state = FileState::Dropped;
            }
            let (first, last) = match state {
                SnapshotState::PageCopy => (file.first_chunk, file.first_chunk),
                // Each task of the donor that comes to the file says it.
                _ if is_known => return Ok(Described::Noted),
                _ => known.chunks,
            };
            return Ok(Described::Dropped { first, last });
        }
        if state != SnapshotState::FileCopy || file.file_index >= self.data_total {
            return Err(invalid_index(file.file_index, self.data_total));
        }
        self.add(file, false)?;
        let is_complete = u64::from(self.data_total) == self.data.len() as u64;
        Ok(if is_complete { Described::Complete } else { Described::Noted })
    }

    /// What DDL did to a file in the state before (`clone0apply.cc:apply_ddl`).
    pub(super) fn change(&mut self, file: &FileMetadata<'_>) -> Result<()> {
        let next = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        let Some(known) = self.data.get_mut(&file.file_index) else {
            // Files of FILE_COPY all come before the first change.
            if file.file_index != next || next < self.data_total {
                return Err(invalid_index(file.file_index, next));
            }
            return self.add(file, true);
        };
        if file.deleted {
            // A restart may say it again.
            if known.state != FileState::Deleted {
                known.state = FileState::Deleted;
                let path = self.directory.join(&known.path);
                delete(&path, self.before)?;
            }
            return Ok(());
        }
        if known.state == FileState::Deleted || known.space_id != file.space_id {
            return Err(invalid("a change of a file that is not there"));
        }
        keys::check(file, &self.options.encrypted)?;
        known.key = match (file.encrypted, known.key) {
            (false, _) => KeyState::None,
            (true, KeyState::Came) => KeyState::Came,
            (true, _) => KeyState::Awaited,
        };
        if file.renamed {
            self.rename(file)?;
        }
        self.set_compression(file)
    }

    /// Renames to a name that is free in any case: donors do not send renames in their order.
    fn rename(&mut self, file: &FileMetadata<'_>) -> Result<()> {
        let path = data_path(file.space_id, file.fsp_flags, file.name, &self.options.outside)?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(DDL_EXTENSION);
        let temporary = PathBuf::from(temporary);
        let Some(known) = self.data.get_mut(&file.file_index) else { return Ok(()) };
        known.size = known.size.max(file.file_size);
        if known.path == temporary {
            return Ok(());
        }
        rename_new(&self.directory, &known.path, &temporary, self.before)?;
        known.path = temporary;
        known.final_path = Some(path);
        Ok(())
    }

    /// Gives files their names when all renames of a state are known
    /// (`clone0apply.cc:fix_all_renamed`).
    pub(super) fn fix_all_renamed(&mut self) -> Result<()> {
        let directory = &self.directory;
        let present = self.data.values_mut().filter(|file| file.state == FileState::Present);
        for file in present {
            if let Some(path) = &file.final_path {
                rename_new(directory, &file.path, path, self.before)?;
                file.path.clone_from(path);
                file.final_path = None;
            }
        }
        Ok(())
    }

    /// A redo file. The first task that comes to it describes it, and the master all of them.
    pub(super) fn describe_redo(&mut self, file: &FileMetadata<'_>) -> Result<()> {
        if file.file_index >= self.redo_total || file.deleted {
            return Err(invalid_index(file.file_index, self.redo_total));
        }
        keys::check(file, &self.options.encrypted)?;
        if self.redo.contains_key(&file.file_index) {
            return Ok(());
        }
        let path = redo_path(file.file_index, self.options.redo);
        drop(create(&self.directory, &path, self.before)?);
        let redo = RedoFile { path, size: file.file_size, is_encrypted: file.encrypted };
        self.redo.insert(file.file_index, redo);
        Ok(())
    }

    fn add(&mut self, file: &FileMetadata<'_>, is_created_by_ddl: bool) -> Result<()> {
        let is_dump = file.space_id == SPACE_ID_BUFFER_POOL;
        let page_size = if is_dump { None } else { Some(page_size(file)?) };
        let path = data_path(file.space_id, file.fsp_flags, file.name, &self.options.outside)?;
        keys::check(file, &self.options.encrypted)?;
        if self.before != Before::Nothing && self.has_path(&path) {
            return Err(Error::FileExists(self.directory.join(path)));
        }
        // A file may be gone before this recipient hears of it.
        let state = if file.deleted { FileState::Deleted } else { FileState::Present };
        if !file.deleted {
            let created = create(&self.directory, &path, self.before)?;
            let first_pages = page_size.filter(|_| is_created_by_ddl);
            if let (Some(created), Some(page_size)) = (created, first_pages) {
                let whole = self.directory.join(&path);
                let version = self.options.server_version;
                let info = keys::created(file, &self.options.encrypted);
                let info = info.as_ref().map(<[u8; encryption_info::LEN]>::as_slice);
                let page = initial_page(page_size, file.space_id, file.fsp_flags, version, info);
                let size = initial_size(page_size, FileKind::of(file.space_id) == FileKind::Undo);
                let written = created.set_len(size).and_then(|()| created.write_all_at(&page, 0));
                written.map_err(failed(FileOperation::Write, &whole))?;
            }
        }
        let added = DataFile {
            path,
            final_path: None,
            space_id: file.space_id,
            size: file.file_size,
            page_size,
            chunks: (file.first_chunk, file.last_chunk),
            sparse: None,
            state,
            key: match (file.encrypted, &file.key) {
                (_, Some(_)) => KeyState::Came,
                (true, None) => KeyState::Awaited,
                (false, None) => KeyState::None,
            },
        };
        self.data.insert(file.file_index, added);
        self.set_compression(file)
    }

    /// Whether a data file has this path.
    fn has_path(&self, path: &Path) -> bool {
        self.data.values().any(|file| file.state != FileState::Deleted && file.path == path)
    }

    /// Holes are punched if pages are larger than two blocks of either file system, as InnoDB does
    /// (`clone0apply.cc:set_compression`).
    fn set_compression(&mut self, file: &FileMetadata<'_>) -> Result<()> {
        let Some(known) = self.data.get_mut(&file.file_index) else { return Ok(()) };
        known.sparse = None;
        let Some(page_size) = known.page_size else { return Ok(()) };
        if file.compression == Compression::None
            || known.state != FileState::Present
            || page_size.is_compressed
            || !file.block_size.is_power_of_two()
        {
            return Ok(());
        }
        let here = fs::metadata(&self.directory);
        let here = here.map_err(failed(FileOperation::Open, &self.directory))?.blksize();
        // Version 1 of page compression encrypts whole blocks of the file system.
        if file.encrypted
            && u64::from(file.block_size) != here
            && matches!(self.options.encrypted, EncryptedFiles::Wrap(_))
        {
            return Err(Error::NotSupported(format!(
                "'{}', which is encrypted and has page compression: the donor's file system has \
                 blocks of {} bytes, and this one of {here} bytes",
                file.name.escape_ascii(),
                file.block_size
            )));
        }
        let largest = u64::from(file.block_size).max(here);
        if largest.saturating_mul(2) <= u64::from(page_size.logical) {
            known.sparse =
                Some(Sparse { page_size: page_size.physical, block_size: file.block_size });
        }
        Ok(())
    }

    /// Where a block goes.
    pub(super) fn place(&mut self, data: &Data) -> Result<Place> {
        if data.state == SnapshotState::RedoCopy {
            let file = self.redo.get(&data.file_index).ok_or_else(unknown_file)?;
            let path = Some(self.directory.join(&file.path));
            return Ok(Place { path, sparse: None, key: KeyIn::redo(data, file.is_encrypted) });
        }
        if data.state == SnapshotState::PageCopy {
            self.check_page(data)?;
        }
        let file = self.data.get_mut(&data.file_index).ok_or_else(unknown_file)?;
        let is_present = file.state == FileState::Present;
        let path = is_present.then(|| self.directory.join(&file.path));
        let key = KeyIn::page(data, file.page_size, file.key != KeyState::None);
        if key.is_some() && file.key == KeyState::Awaited {
            file.key = KeyState::Came;
        }
        Ok(Place { path, sparse: file.sparse, key })
    }

    /// A block of PAGE_COPY is one page. Debug builds of mysqld may send one of the instance's size
    /// for a compressed table. Page 0 may tell that the file has grown.
    fn check_page(&mut self, data: &Data) -> Result<()> {
        let file = self.data.get(&data.file_index).ok_or_else(unknown_file)?;
        let size = file.page_size.ok_or_else(unknown_file)?;
        let is_page = data.data_len == size.physical || data.data_len == size.logical;
        if !is_page || !data.file_offset.is_multiple_of(u64::from(size.physical)) {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid Data Descriptor: page of {} bytes at {}",
                data.data_len, data.file_offset
            )));
        }
        if data.file_offset == 0 {
            self.update_size(data.file_index, data.file_size);
        }
        Ok(())
    }

    /// The size of a tablespace. What does not fit the files before the last is that of the last;
    /// only the system tablespace has several (`clone0apply.cc:update_file_size`).
    fn update_size(&mut self, mut index: u32, mut size: u64) {
        while let Some(file) = self.data.get(&index) {
            let (space_id, file_size) = (file.space_id, file.size);
            if size <= file_size {
                return;
            }
            let next = index.checked_add(1).and_then(|next| self.data.get(&next));
            let has_next = FileKind::of(space_id) == FileKind::System
                && next.is_some_and(|next| next.space_id == space_id);
            if !has_next {
                if let Some(last) = self.data.get_mut(&index) {
                    last.size = size;
                }
                return;
            }
            size -= file_size;
            index += 1;
        }
    }

    /// All is there: every file gets its size and reaches the disk, and so do the directories.
    pub(super) fn extend_and_flush(&self) -> Result<()> {
        if self.data.len() < self.data_total as usize {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid State Descriptor: {} of {} data files",
                self.data.len(),
                self.data_total
            )));
        }
        // Before 8.0.30 there are at least two, and the second is left out if nothing is in it.
        let is_spare = self.redo_total == 2 && self.options.redo == RedoNames::IbLogfile;
        let needed = if is_spare { 1 } else { self.redo_total as usize };
        if self.redo.len() < needed {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid State Descriptor: {} of {} redo files",
                self.redo.len(),
                self.redo_total
            )));
        }
        self.check_keys()?;
        let present = self.data.values().filter(|file| file.state == FileState::Present);
        let data = present.map(|file| Whole {
            path: self.directory.join(&file.path),
            size: file.size,
            page_size: file.page_size,
        });
        let redo = |path: &Path, size: u64| Whole {
            path: self.directory.join(path),
            size,
            page_size: None,
        };
        let mut whole: Vec<_> =
            data.chain(self.redo.values().map(|file| redo(&file.path, file.size))).collect();
        if let (true, Some(first)) = (is_spare && self.redo.len() == 1, self.redo.get(&0)) {
            // A server before 8.0.30 does not start with one redo file.
            let path = redo_path(1, self.options.redo);
            drop(create(&self.directory, &path, self.before)?);
            whole.push(redo(&path, first.size));
        }
        flush::all(&self.directory, &whole, self.options.flush)
    }

    /// Without its key no server opens an encrypted tablespace.
    fn check_keys(&self) -> Result<()> {
        if !matches!(self.options.encrypted, EncryptedFiles::Wrap(_)) {
            return Ok(());
        }
        let mut files = self.data.values();
        let is_missing =
            |file: &&DataFile| file.state == FileState::Present && file.key == KeyState::Awaited;
        match files.find(is_missing) {
            None => Ok(()),
            Some(file) => Err(Error::protocol(format!(
                "Wrong Clone RPC: no key of the encrypted tablespace '{}'",
                file.path.display()
            ))),
        }
    }
}

fn invalid_index(index: u32, of: u32) -> Error {
    Error::protocol(format!("Wrong Clone RPC: Invalid File Index: {index} of {of}"))
}

fn page_size(file: &FileMetadata<'_>) -> Result<PageSize> {
    let unknown = || invalid(&format!("FSP flags {:#x}", file.fsp_flags));
    PageSize::of(file.fsp_flags).ok_or_else(unknown)
}

fn invalid(detail: &str) -> Error {
    Error::protocol(format!("Wrong Clone RPC: Invalid File Descriptor: {detail}"))
}

fn unknown_file() -> Error {
    Error::protocol("Wrong Clone RPC: Invalid Data File Index")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
