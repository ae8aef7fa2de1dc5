// SPDX-License-Identifier: GPL-2.0-only

//! The file system, as far as whole files and directories go, so that tests can stop at every step
//! of it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Files are the server's alone.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Directories are the server's alone.
const DIRECTORY_MODE: u32 = 0o700;

/// What is done to files and directories. Each call that changes something is one step; only what
/// was synced outlives a crash of the machine.
pub(crate) trait Disk {
    /// What a directory holds; none if there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Option<Vec<Entry>>>;

    /// The content of a small file; none if there is no such file.
    fn read(&self, file: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Creates a file, or replaces its content, and syncs it.
    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()>;

    /// Creates a directory, which is not there.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;

    /// Renames a file or directory; a file replaces another.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Copies a file, replacing another, and syncs the copy.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file or link, which is there.
    fn remove_file(&self, file: &Path) -> io::Result<()>;

    /// Removes a directory, which is there and empty.
    fn remove_directory(&self, directory: &Path) -> io::Result<()>;

    /// Makes names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// A directory itself, not a link to one.
    pub(crate) is_directory: bool,
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn list(&self, directory: &Path) -> io::Result<Option<Vec<Entry>>> {
        let Some(entries) = present(fs::read_dir(directory))? else { return Ok(None) };
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry?;
            let is_directory = entry.file_type()?.is_dir();
            list.push(Entry { name: entry.file_name(), is_directory });
        }
        list.sort_unstable();
        Ok(Some(list))
    }

    fn read(&self, file: &Path) -> io::Result<Option<Vec<u8>>> {
        present(fs::read(file))
    }

    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut file = options.open(file)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        DirBuilder::new().mode(DIRECTORY_MODE).create(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()
    }

    fn remove_file(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        fs::remove_dir(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// None for what is not there.
fn present<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
