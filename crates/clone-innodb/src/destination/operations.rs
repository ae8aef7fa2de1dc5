// SPDX-License-Identifier: GPL-2.0-only

//! Operations on the files and directories of a clone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use clone_protocol::innodb::PageSize;
use rustix::fs::OFlags;

use super::Flush;
use crate::error::{Error, FileOperation, Result};

/// Modes of what mysqld creates.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// What another process has done for the same clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing: the clone is new.
    Nothing,
    /// Descriptors of its journal are replayed: the files are as they say.
    Replayed,
    /// The journal was replayed. The step after its last record may have been done, too.
    PerhapsOneStep,
}

/// A tablespace that is larger than an extent becomes a multiple of extents.
pub(super) fn extend(file: &File, size: u64, page_size: Option<PageSize>) -> io::Result<()> {
    let now = file.metadata()?.len();
    let extent = page_size.map(PageSize::extent_bytes).filter(|extent| now > *extent);
    let aligned = extent.and_then(|extent| now.checked_next_multiple_of(extent)).unwrap_or(now);
    if now < size {
        file.set_len(size)?;
    } else if now < aligned {
        file.set_len(aligned)?;
    }
    Ok(())
}

/// `fsync`, if the clone is to be on disk.
pub(super) fn sync(file: &File, how: Flush) -> io::Result<()> {
    match how {
        Flush::ToDisk => file.sync_all(),
        Flush::Never => Ok(()),
    }
}

/// Creates a directory and those above it.
pub(super) fn create_directory(path: &Path) -> Result<()> {
    let created = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
    created.map_err(failed(FileOperation::CreateDirectory, path))
}

/// Creates a file that is not there yet, below `directory`. None if the journal says that the file
/// is there.
pub(super) fn create(directory: &Path, path: &Path, before: Before) -> Result<Option<File>> {
    if before == Before::Replayed {
        return Ok(None);
    }
    let path = directory.join(path);
    if let Some(parent) = path.parent() {
        create_directory(parent)?;
    }
    let mut options = File::options();
    options.write(true).mode(FILE_MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    match before {
        Before::PerhapsOneStep => options.create(true).truncate(true),
        _ => options.create_new(true),
    };
    let created = options.open(&path);
    created.map(Some).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::FileExists(path),
        _ => Error::io(FileOperation::Create, &path, error),
    })
}

/// Deletes a file.
pub(super) fn delete(path: &Path, before: Before) -> Result<()> {
    if before == Before::Replayed {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && before == Before::PerhapsOneStep =>
        {
            Ok(())
        }
        deleted => deleted.map_err(failed(FileOperation::Delete, path)),
    }
}

/// Opens a file of the clone to write into it. What it shares with another file is read again.
pub(super) fn open(path: &Path) -> Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let opened = File::options().read(true).write(true).custom_flags(flags).open(path);
    opened.map_err(failed(FileOperation::Open, path))
}

/// Renames a file to a name that no file has.
pub(super) fn rename_new(directory: &Path, from: &Path, to: &Path, before: Before) -> Result<()> {
    if before == Before::Replayed {
        return Ok(());
    }
    let (from, to) = (directory.join(from), directory.join(to));
    if let Some(parent) = to.parent() {
        create_directory(parent)?;
    }
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    if exists(&to) {
        if before == Before::PerhapsOneStep && !exists(&from) {
            return Ok(());
        }
        return Err(Error::FileExists(to));
    }
    fs::rename(&from, &to).map_err(failed(FileOperation::Rename, &from))
}

pub(super) fn failed(what: FileOperation, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::io(what, path, error)
}
