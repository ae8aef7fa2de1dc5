// SPDX-License-Identifier: GPL-2.0-only

//! The directories of a clone: made, made complete, removed.

use std::io;
use std::path::Path;

use clone_engine::{Error, Result};

use crate::layout::{MARKER, Places};
use clone_swap::disk::{Disk, Entry};

/// A [`Disk`] whose errors are those of a clone, with what is made of its steps.
#[derive(Clone, Copy)]
pub(crate) struct Storage<'a>(pub(crate) &'a dyn Disk);

impl Storage<'_> {
    /// Makes the directories of a clone, with the marker in them; what an earlier clone left goes.
    pub(crate) fn prepare(self, places: &Places) -> Result<()> {
        self.make_directory(&places.root)?;
        self.discard(places)?;
        self.make_directory(&places.data)?;
        // Before anything else: a directory without the marker is a complete clone.
        self.write(&places.marker(), b"")?;
        self.sync_directory(&places.data)?;
        self.make_directory(&places.wal)?;
        self.sync_directory(&places.root)
    }

    /// Makes a clone complete whose files are complete and on disk.
    pub(crate) fn complete(self, places: &Places) -> Result<()> {
        // The names first: the swap goes by the marker.
        for directory in [&places.wal, &places.data, &places.root] {
            self.sync_directory(directory)?;
        }
        self.remove_file(&places.marker())?;
        self.sync_directory(&places.data)
    }

    /// Whether there is a clone that can be put in place. One that is empty is the beginning of
    /// one, or what is left of one.
    pub(crate) fn is_complete(self, places: &Places) -> Result<bool> {
        let entries = self.list(&places.data)?.unwrap_or_default();
        Ok(!entries.is_empty() && entries.iter().all(|entry| entry.name != MARKER))
    }

    /// Whether there is anything of a clone.
    pub(crate) fn is_there(self, places: &Places) -> Result<bool> {
        Ok(self.list(&places.data)?.is_some() || self.list(&places.wal)?.is_some())
    }

    /// Removes a clone. A complete one is marked first, so that half of it is never taken for all
    /// of it; the marker goes last.
    pub(crate) fn discard(self, places: &Places) -> Result<()> {
        let Some(entries) = self.list(&places.data)? else {
            self.remove_tree(&places.wal)?;
            return self.sync_directory(&places.root);
        };
        if !entries.is_empty() {
            self.write(&places.marker(), b"")?;
            self.sync_directory(&places.data)?;
        }
        self.remove_tree(&places.wal)?;
        for entry in entries.iter().filter(|entry| entry.name != MARKER) {
            self.remove(&places.data, entry)?;
        }
        self.sync_directory(&places.data)?;
        self.remove_tree(&places.data)?;
        self.sync_directory(&places.root)
    }

    /// Removes what an entry of `directory` names, whatever it is.
    pub(crate) fn remove(self, directory: &Path, entry: &Entry) -> Result<()> {
        let path = directory.join(&entry.name);
        if entry.is_directory { self.remove_tree(&path) } else { self.remove_file(&path) }
    }

    /// Removes a directory with all that is in it, if it is there.
    pub(crate) fn remove_tree(self, directory: &Path) -> Result<()> {
        let Some(entries) = self.list(directory)? else { return Ok(()) };
        for entry in &entries {
            self.remove(directory, entry)?;
        }
        attempt(directory, self.0.remove_directory(directory))
    }

    /// Creates a directory, if it is not there, and those above it.
    pub(crate) fn make_directory(self, directory: &Path) -> Result<()> {
        if self.list(directory)?.is_some() {
            return Ok(());
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.make_directory(parent)?;
        }
        attempt(directory, self.0.create_directory(directory))?;
        parent.map_or(Ok(()), |parent| self.sync_directory(parent))
    }

    pub(crate) fn list(self, directory: &Path) -> Result<Option<Vec<Entry>>> {
        let listed = self.0.list(directory);
        listed.map_err(|error| Error::file(false, &directory.to_string_lossy(), &error))
    }

    pub(crate) fn read(self, file: &Path) -> Result<Option<Vec<u8>>> {
        let read = self.0.read(file);
        read.map_err(|error| Error::file(false, &file.to_string_lossy(), &error))
    }

    pub(crate) fn write(self, file: &Path, content: &[u8]) -> Result<()> {
        attempt(file, self.0.write(file, content))
    }

    /// Replaces the content of a file, durably and at once.
    pub(crate) fn replace(self, file: &Path, content: &[u8]) -> Result<()> {
        attempt(file, self.0.replace(file, content))
    }

    pub(crate) fn remove_file(self, file: &Path) -> Result<()> {
        attempt(file, self.0.remove_file(file))
    }

    pub(crate) fn sync_directory(self, directory: &Path) -> Result<()> {
        attempt(directory, self.0.sync_directory(directory))
    }
}

pub(crate) fn attempt<T>(path: &Path, outcome: io::Result<T>) -> Result<T> {
    outcome.map_err(|error| failed(path, &error))
}

/// A failed change of a file.
pub(crate) fn failed(path: &Path, error: &io::Error) -> Error {
    Error::file(true, &path.to_string_lossy(), error)
}
