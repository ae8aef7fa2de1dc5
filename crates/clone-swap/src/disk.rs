// SPDX-License-Identifier: GPL-2.0-only

//! The file system, as far as whole files and directories go.
//!
//! A test can stop at every step of it ([`StoppingDisk`]).

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of new files: they are the server's alone.
pub const FILE_MODE: u32 = 0o600;

/// Directories are the server's alone.
const DIRECTORY_MODE: u32 = 0o700;

/// What is done to files and directories. Each call that changes something is one step; only what
/// was synced outlives a crash of the machine.
pub trait Disk {
    /// What a directory holds; none if there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Option<Vec<Entry>>>;

    /// Whether there is a file, a directory or a link of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The content of a small file; none if there is no such file.
    fn read(&self, file: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Creates a file, or replaces its content, and syncs it.
    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()>;

    /// Replaces the content of a file, durably and at once: nobody ever sees half of it. Three
    /// steps.
    fn replace(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        let new = being_written(file);
        self.write(&new, content)?;
        self.rename(&new, file)?;
        self.sync_directory(file.parent().unwrap_or(Path::new(".")))
    }

    /// Creates a file of `size` zero bytes, or replaces a file by it, and syncs it.
    fn write_zeros(&self, file: &Path, size: u64) -> io::Result<()>;

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

/// Where [`Disk::replace`] writes the new content of a file.
pub fn being_written(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name in the directory.
    pub name: OsString,
    /// A directory itself, not a link to one.
    pub is_directory: bool,
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

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

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(present(fs::symlink_metadata(path))?.is_some())
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

    fn write_zeros(&self, file: &Path, size: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(file)?;
        file.set_len(size)?;
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

/// For tests: stops before a certain step, and does nothing any more. The disk then shows what a
/// killed process leaves.
#[derive(Clone, Debug)]
pub struct StoppingDisk {
    left: Cell<u32>,
    /// Files are copied to this directory and from it, never renamed.
    other_device: Option<PathBuf>,
}

impl StoppingDisk {
    /// Stops after `steps` steps.
    pub fn new(steps: u32, other_device: Option<PathBuf>) -> Self {
        Self { left: Cell::new(steps), other_device }
    }

    /// `EOWNERDEAD`: no real operation on a file gives this error.
    pub const STOPPED: i32 = 130;

    fn step(&self) -> io::Result<()> {
        let left = self.left.get().checked_sub(1);
        let left = left.ok_or_else(|| io::Error::from_raw_os_error(Self::STOPPED))?;
        self.left.set(left);
        Ok(())
    }
}

impl Disk for StoppingDisk {
    fn list(&self, directory: &Path) -> io::Result<Option<Vec<Entry>>> {
        RealDisk.list(directory)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn read(&self, file: &Path) -> io::Result<Option<Vec<u8>>> {
        RealDisk.read(file)
    }

    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        self.step().inspect_err(|_| {
            // Half of the content is a state, too.
            let _ = fs::write(file, content.get(..content.len() / 2).unwrap_or_default());
        })?;
        fs::write(file, content)
    }

    fn write_zeros(&self, file: &Path, size: u64) -> io::Result<()> {
        self.step().inspect_err(|_| drop(fs::write(file, b"")))?;
        RealDisk.write_zeros(file, size)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let is_other =
            |path: &Path| self.other_device.as_ref().is_some_and(|other| path.starts_with(other));
        if is_other(from) != is_other(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        self.step()?;
        RealDisk.rename(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().inspect_err(|_| drop(fs::write(to, b"half")))?;
        RealDisk.copy(from, to)
    }

    fn remove_file(&self, file: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_file(file)
    }

    fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_directory(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.step()?;
        // A killed process loses nothing that was not synced. But the directory must exist.
        fs::metadata(directory).map(drop)
    }
}
