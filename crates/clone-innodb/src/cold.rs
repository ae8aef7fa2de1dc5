// SPDX-License-Identifier: GPL-2.0-only

//! A data directory that no server has open, as the source of clones: shut down cleanly, left by a
//! server that ended in any other way, or a snapshot of a file system.
//!
//! The directory is only read. Files are opened for reading, and the system tablespace is locked so
//! that no server opens the directory meanwhile.
//!
//! * FILE_COPY sends what a server would send: the buffer pool dump, the system tablespace, and all
//!   tablespaces in the directory. Names, ids and flags come from page 0 of each.
//! * PAGE_COPY sends page 0 of each encrypted tablespace, with its key in clear. No page changes.
//! * REDO_COPY sends the redo log from the last checkpoint to its end.
//!
//! Encrypted pages and redo are sent as they are. Their keys are read with the keyring of the
//! directory's server, and are sent in clear, as a donor sends them: only TLS must carry them
//! ([`Output::is_secure`](crate::source::Output::is_secure)).
//!
//! If the server did not shut down, pages may be torn. The recipient does not get the doublewrite
//! buffer, so pages are restored from it in memory, and all pages are checked before they are sent.
//! The recipient's server recovers as this directory's would: see `redo`.
//!
//! # What is refused
//!
//! Encrypted tablespaces and encrypted redo without the keyring; a directory that a server has
//! open; one of which a clone did not succeed; one whose redo logging was off; one that crashed
//! with keys of tablespaces in its redo; torn pages of which there is no copy.
//!
//! Tablespaces outside of the directory (`DATA DIRECTORY`, `ADD DATAFILE` with a path) are sent
//! with their paths, as a donor sends them. If there is no file at such a path, there is a warning:
//! the table was dropped, or its data is missing.

mod checksum;
mod doublewrite;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guard;
mod outside;
mod redo;
mod scan;
#[cfg(test)]
mod tests;
mod version;
mod walk;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use clone_protocol::innodb::SnapshotState;

use crate::encryption::Keyring;
use crate::error::{Error, FileOperation, Result};
use crate::format::page;
use crate::geometry::{Block, Geometry};
use crate::source::{PageCopy, RedoCopy, SourceBlock, SourceFile, SourceFiles};
use checksum::PageState;
use doublewrite::Doublewrite;
use outside::OutsideNames;
use redo::Redo;
use scan::{DataFile, DataFiles};

pub use version::ServerVersion;

/// Where the parts of a data directory are. All but the first are of use only if a server had the
/// variable set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `datadir`.
    pub directory: PathBuf,
    /// `innodb_data_home_dir`.
    pub home: Option<PathBuf>,
    /// `innodb_log_group_home_dir`.
    pub redo: Option<PathBuf>,
    /// `innodb_undo_directory`.
    pub undo: Option<PathBuf>,
    /// `innodb_doublewrite_dir`.
    pub doublewrite: Option<PathBuf>,
}

impl Options {
    /// With everything in one directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), ..Self::default() }
    }

    fn home(&self) -> &Path {
        self.home.as_deref().unwrap_or(&self.directory)
    }
}

/// A data directory. Any number of clones can read it at once.
#[derive(Debug)]
pub struct ColdDirectory {
    files: Vec<DataFile>,
    redo: Redo,
    /// None after a clean shutdown: all pages are whole.
    doublewrite: Option<Doublewrite>,
    page_size: u32,
    version: ServerVersion,
}

impl ColdDirectory {
    /// Opens a directory, finds its files, and keeps servers out until the value is dropped.
    /// `keyring` is that of the directory's server, for encrypted directories.
    ///
    /// # Errors
    /// The directory cannot be served ([`Error::Refused`] says why, and what to do), or cannot be
    /// read.
    pub fn open(options: &Options, keyring: Option<&Keyring>) -> Result<Self> {
        guard::check_clone_status(&options.directory)?;
        let system = guard::lock(&options.home().join("ibdata1"))?;
        let redo = options.redo.as_deref().unwrap_or(&options.directory);
        let redo = Redo::open(redo, keyring)?;
        let mut names = OutsideNames::default();
        redo.search(&mut names)?;
        let found = DataFiles::find(options, keyring, system, names)?;
        let page_size = found.system.size.logical;
        let version = ServerVersion::of(&options.directory, found.dictionary.header.server_version);
        let doublewrite = options.doublewrite.as_deref().unwrap_or(&options.directory);
        let doublewrite = redo
            .needs_recovery()
            .then(|| Doublewrite::load(doublewrite, page_size, &found.files))
            .transpose()?;
        Ok(Self { files: found.files, redo, doublewrite, page_size, version })
    }

    /// How a donor cuts these files.
    pub fn geometry(&self) -> Geometry {
        Geometry::innodb(self.page_size)
    }

    /// `innodb_page_size` in bytes.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// The server that had the directory last.
    pub fn version(&self) -> &ServerVersion {
        &self.version
    }

    /// Whether the server did not shut down.
    pub fn needs_recovery(&self) -> bool {
        self.redo.needs_recovery()
    }

    /// The LSN of the last checkpoint.
    pub fn checkpoint(&self) -> u64 {
        self.redo.checkpoint()
    }

    /// Files of FILE_COPY.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes that a clone moves.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.source.size).sum::<u64>() + self.redo.len()
    }

    /// Bytes that the files have on the disk.
    pub fn allocated(&self) -> u64 {
        self.files.iter().map(|file| file.source.allocated).sum()
    }

    /// The names of encrypted tablespaces, as a donor sends them.
    pub fn encrypted_files(&self) -> impl Iterator<Item = &[u8]> {
        let encrypted = self.files.iter().filter(|file| file.key.is_some());
        encrypted.map(|file| file.source.name.as_slice())
    }

    /// The directories of tablespaces outside of the data directory, each with a slash behind.
    pub fn outside_directories(&self) -> BTreeSet<&[u8]> {
        let names = self.files.iter().map(|file| file.source.name.as_slice());
        let outside = names.filter(|name| outside::leads_outside(name));
        let slash = |name: &&[u8]| name.iter().rposition(|byte| *byte == b'/');
        outside.filter_map(|name| name.get(..=slash(&name)?)).collect()
    }

    /// Whether redo is sent encrypted.
    pub fn has_encrypted_redo(&self) -> bool {
        self.redo.is_encrypted()
    }

    /// Pages that the doublewrite buffer restores.
    pub fn restored_pages(&self) -> usize {
        self.doublewrite.as_ref().map_or(0, Doublewrite::len)
    }

    /// The file of a block, which is within the file.
    fn file(&self, block: &Block) -> Result<&DataFile> {
        let file = self.files.get(block.file as usize);
        let file = file.ok_or_else(|| Error::internal("no such file"))?;
        let end = block.offset.checked_add(block.len.into());
        match end.is_some_and(|end| end <= file.source.size) {
            true => Ok(file),
            false => Err(Error::internal("a block behind the end of its file")),
        }
    }

    fn read_data(&self, block: &Block) -> Result<SourceBlock> {
        let file = self.file(block)?;
        let file_size = file.source.size;
        if self.doublewrite.is_none() && file.opened.is_none() {
            let failed = |error| Error::io(FileOperation::Open, &file.path, error);
            let mut opened = File::open(&file.path).map_err(failed)?;
            opened.seek(SeekFrom::Start(block.offset)).map_err(failed)?;
            return Ok(SourceBlock::File { file: opened, file_size });
        }
        Ok(SourceBlock::Bytes { bytes: self.pages(file, block)?, file_size })
    }

    /// Page 0 of an encrypted tablespace, with its key in clear.
    fn read_key(&self, block: &Block) -> Result<SourceBlock> {
        let file = self.file(block)?;
        let (Some(key), Some(size)) = (&file.key, file.size) else {
            return Err(Error::internal("a page of a file that is not encrypted"));
        };
        let mut bytes = self.pages(file, block)?;
        key.put_into_page_0(&mut bytes, size);
        Ok(SourceBlock::Bytes { bytes, file_size: file.source.size })
    }

    /// The pages of a block, restored if they are torn.
    fn pages(&self, file: &DataFile, block: &Block) -> Result<Vec<u8>> {
        let mut bytes = vec![0; block.len as usize];
        file.read(&mut bytes, block.offset)?;
        if let Some(doublewrite) = &self.doublewrite {
            restore(doublewrite, block.file as usize, file, block.offset, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Restores torn pages, and gives pages of zeros a header. `bytes` are those of `file` from
/// `offset` on.
fn restore(
    doublewrite: &Doublewrite,
    index: usize,
    file: &DataFile,
    offset: u64,
    bytes: &mut [u8],
) -> Result<()> {
    let Some(size) = file.size else { return Ok(()) };
    let page_size = u64::from(size.physical);
    for (at, page) in (0..).zip(bytes.chunks_mut(size.physical as usize)) {
        let offset = offset + at * page_size;
        if doublewrite.repair(index, offset, page) || doublewrite.has_copies_at(file, offset) {
            continue;
        }
        let number = offset / page_size + u64::from(file.first_page);
        match PageState::of(page, size, file.key.as_ref()) {
            PageState::Whole => {}
            PageState::Zeros => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                page::fill_unused(page, file.source.space_id, number, size.is_compressed);
            }
            PageState::Torn => {
                return Err(Error::Refused(format!(
                    "page {number} of {} was not written whole when the server ended, and the \
                     doublewrite buffer has no copy of it. Start a server on a copy of the directory \
                     to see whether it can be recovered",
                    file.path.display()
                )));
            }
        }
    }
    Ok(())
}

impl SourceFiles for ColdDirectory {
    fn file_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<Vec<SourceFile>> {
        Ok(self.files.iter().map(|file| file.source.clone()).collect())
    }

    fn page_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<PageCopy> {
        let files = (0..).zip(&self.files);
        let encrypted = files.filter(|(_, file)| file.key.is_some());
        let pages = encrypted.filter_map(|(index, file)| {
            Some(Block { file: index, offset: 0, len: file.size?.physical })
        });
        Ok(PageCopy { pages: pages.collect(), ..PageCopy::default() })
    }

    fn redo_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<RedoCopy> {
        Ok(self.redo.layout())
    }

    fn read(&self, state: SnapshotState, block: &Block) -> Result<SourceBlock> {
        match state {
            SnapshotState::FileCopy => self.read_data(block),
            SnapshotState::PageCopy => self.read_key(block),
            SnapshotState::RedoCopy => {
                let (bytes, file_size) = self.redo.read(block)?;
                Ok(SourceBlock::Bytes { bytes, file_size })
            }
            _ => Err(Error::internal(format!("no blocks in the state {state}"))),
        }
    }
}
