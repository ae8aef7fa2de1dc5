// SPDX-License-Identifier: GPL-2.0-only

//! Opens and reads files of a data directory. Nothing is ever opened for writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::error::{Error, FileOperation, Result};

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileFacts {
    /// Bytes.
    pub(super) size: u64,
    /// Bytes on disk.
    pub(super) allocated: u64,
    /// The file system's block size in bytes.
    pub(super) block_size: u32,
}

/// Opens a regular file for reading.
pub(super) fn open(path: &Path) -> Result<(File, FileFacts)> {
    let failed = |error| Error::io(FileOperation::Open, path, error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let facts = FileFacts {
        size: metadata.len(),
        allocated: metadata.blocks().saturating_mul(512),
        block_size: u32::try_from(metadata.blksize()).unwrap_or(4096),
    };
    Ok((file, facts))
}

/// Reads `bytes` whole.
pub(super) fn read_exact(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<()> {
    let read = file.read_exact_at(bytes, offset);
    read.map_err(|error| Error::io(FileOperation::Read, path, error))
}

/// Reads a small file of text whole. None if it does not exist, or is longer than `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> Option<String> {
    let (file, facts) = open(path).ok()?;
    let len = usize::try_from(facts.size).ok().filter(|_| facts.size <= limit)?;
    let mut bytes = vec![0; len];
    read_exact(&file, path, &mut bytes, 0).ok()?;
    String::from_utf8(bytes).ok()
}
