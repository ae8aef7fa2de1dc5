// SPDX-License-Identifier: GPL-2.0-only

//! What a donor copies: the trait that gives the files of an instance, state by state.

use std::fs::File;
use std::ops::Range;

use clone_protocol::innodb::{Compression, SnapshotState};

use crate::error::Result;
use crate::geometry::Block;

/// The data of a donor.
///
/// The master calls one of [`file_copy`](Self::file_copy), [`page_copy`](Self::page_copy),
/// [`redo_copy`](Self::redo_copy) and [`done`](Self::done) at the start of each state, while all
/// other tasks wait. Whoever takes longer than a few seconds in it calls `keep_alive` every five
/// seconds, or the recipient gives up. All tasks call [`read`](Self::read) at the same time.
pub trait SourceFiles {
    /// The files of the instance at the start of FILE_COPY. From now on the source notes which
    /// pages change.
    ///
    /// # Errors
    /// Any; the clone fails with it. So do the other functions.
    fn file_copy(&self, keep_alive: &mut dyn FnMut() -> Result<()>) -> Result<Vec<SourceFile>>;

    /// What changed since. From now on the source keeps redo.
    ///
    /// # Errors
    /// See [`file_copy`](Self::file_copy).
    fn page_copy(&self, keep_alive: &mut dyn FnMut() -> Result<()>) -> Result<PageCopy>;

    /// The redo since. Its end is the point of the clone.
    ///
    /// # Errors
    /// See [`file_copy`](Self::file_copy).
    fn redo_copy(&self, keep_alive: &mut dyn FnMut() -> Result<()>) -> Result<RedoCopy>;

    /// All is copied; the redo is not needed any more.
    ///
    /// # Errors
    /// See [`file_copy`](Self::file_copy).
    fn done(&self) -> Result<()> {
        Ok(())
    }

    /// A task takes on a chunk.
    fn begin_chunk(&self, state: SnapshotState, chunk: u32) {
        let _ = (state, chunk);
    }

    /// The bytes of a block: a part of a file, a page, or a part of the redo with its header and
    /// its trailer.
    ///
    /// # Errors
    /// See [`file_copy`](Self::file_copy).
    fn read(&self, state: SnapshotState, block: &Block) -> Result<SourceBlock>;
}

/// A data file of a donor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The name as a donor sends it: `./db/table.ibd`; the name alone for the system tablespace,
    /// undo tablespaces and the buffer pool dump.
    pub name: Vec<u8>,
    /// The tablespace.
    pub space_id: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// The tablespace's flags, all ones for the buffer pool dump.
    pub fsp_flags: u32,
    /// The file system's block size in bytes.
    pub block_size: u32,
    /// Transparent page compression.
    pub compression: Compression,
    /// The tablespace is encrypted: its metadata and its key must go over TLS.
    pub encrypted: bool,
}

/// What PAGE_COPY copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageCopy {
    /// What DDL did to the files during FILE_COPY, in the order of their index.
    pub changes: Vec<FileChange>,
    /// The pages that changed, in order, each as a block. Files are those after the changes.
    pub pages: Vec<Block>,
}

/// What REDO_COPY copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedoCopy {
    /// What DDL did to the files during PAGE_COPY, in the order of their index.
    pub changes: Vec<FileChange>,
    /// The redo files, at least one.
    pub files: Vec<RedoFile>,
    /// The last part of the redo, which may end within a block of 512 bytes.
    pub trailer: Block,
}

/// A redo file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedoFile {
    /// Bytes that the file has at the recipient.
    pub size: u64,
    /// Where redo is in it, without the header and the trailer.
    pub data: Range<u64>,
    /// The redo is encrypted: its metadata and its key must go over TLS.
    pub encrypted: bool,
}

/// What DDL did to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The index of the file. That of a new file is the number of files before.
    pub index: u32,
    /// The file as it is now.
    pub file: SourceFile,
    /// What was done.
    pub kind: FileChangeKind,
}

/// A kind of [`FileChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChangeKind {
    /// The file is new. The recipient creates it with its initial pages.
    Created,
    /// The file has a new name.
    Renamed,
    /// The file is gone.
    Deleted,
    /// The compression or encryption of the file is another.
    Altered,
}

/// The bytes of a block.
#[derive(Debug)]
pub enum SourceBlock {
    /// They come from this file, from its current offset.
    File {
        /// The file.
        file: File,
        /// Its size in bytes as InnoDB knows it now.
        file_size: u64,
    },
    /// They are these.
    Bytes {
        /// As many as the block has.
        bytes: Vec<u8>,
        /// The size of the file in bytes as InnoDB knows it now.
        file_size: u64,
    },
    /// The file was dropped. Nothing more of it is sent.
    Dropped,
}
