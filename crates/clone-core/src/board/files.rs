// SPDX-License-Identifier: GPL-2.0-only

//! The status files below a data directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The most bytes that are read of a file. The GTID sets of the largest installations have some
/// MiB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The files in `#clone` below a data directory that matter to the tables.
#[derive(Clone, Debug)]
pub(super) struct StatusFiles {
    directory: PathBuf,
}

impl StatusFiles {
    pub(super) fn of(data_directory: &Path) -> Self {
        Self { directory: data_directory.join("#clone") }
    }

    /// The row of `clone_status`.
    pub(super) fn status(&self) -> StatusFile {
        self.file("#view_status")
    }

    /// The rows of `clone_progress`.
    pub(super) fn progress(&self) -> StatusFile {
        self.file("#view_progress")
    }

    /// What InnoDB notes when it starts with cloned data.
    pub(super) fn recovery(&self) -> StatusFile {
        self.file("#status_recovery")
    }

    /// InnoDB removes this file when it has written all notes
    /// (`clone0api.cc:clone_update_gtid_status`).
    pub(super) fn replaced_files(&self) -> StatusFile {
        self.file("#replace_files")
    }

    fn file(&self, name: &str) -> StatusFile {
        StatusFile { path: self.directory.join(name) }
    }
}

/// One small text file.
#[derive(Debug)]
pub(super) struct StatusFile {
    path: PathBuf,
}

impl StatusFile {
    /// The content, or None if there is no such file.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Replaces the content of the file. Nobody ever reads half of it, because a new file is
    /// written and renamed.
    ///
    /// The file is not synced to disk. On a busy disk that could stop the clone for seconds, and no
    /// decision depends on the file.
    ///
    /// # Errors
    /// The operating system's, for example if the directory `#clone` is missing. InnoDB creates it
    /// when data arrives.
    pub(super) fn write(&self, content: &str) -> io::Result<()> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".new");
        let written =
            fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            // The first error tells the reason.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    pub(super) fn exists(&self) -> io::Result<bool> {
        self.path.try_exists()
    }

    /// Removes the file. A missing file is no error.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn file(directory: &tempfile::TempDir) -> StatusFile {
        StatusFiles::of(directory.path()).status()
    }

    #[test]
    fn never_creates_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let error = file(&directory).write("text").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("#clone")).unwrap();
        let file = file(&directory);
        assert_eq!(file.read().unwrap(), None);
        file.write("longer text").unwrap();
        file.write("text").unwrap();
        assert_eq!(file.read().unwrap().as_deref(), Some(b"text".as_slice()));
        assert_eq!(fs::read_dir(directory.path().join("#clone")).unwrap().count(), 1);
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(!file.exists().unwrap());
    }

    #[test]
    fn a_failed_write_cleans_up() {
        let directory = tempfile::tempdir().unwrap();
        let status = directory.path().join("#clone/#view_status");
        fs::create_dir_all(status.join("in the way")).unwrap();
        file(&directory).write("text").unwrap_err();
        assert_eq!(fs::read_dir(directory.path().join("#clone")).unwrap().count(), 1);
        assert!(file(&directory).read().is_err());
    }
}
