// SPDX-License-Identifier: GPL-2.0-only

//! `--keyring-file`: where the master key of an encrypted copy goes, and what a server needs to
//! find the key.
//!
//! The file is written before any data is copied, and belongs to the pull until the copy is
//! complete: `pull.json` notes its path and the name of its key. A pull that begins anew, fails or
//! is discarded removes the file, if that key is in it.

use std::fs::{self, File};
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clone_innodb::encryption::MasterKey;
use serde::{Deserialize, Serialize};

use super::paths::real;
use crate::failure::{Failure, Kind, Result};

/// The first release with `component_keyring_file`.
pub(super) const FIRST_VERSION: u32 = 80_024;

/// Files in the data directory that a server reads if its installation allows it
/// (`read_local_manifest`, `read_local_config`), and their mode.
const MANIFEST: &str = "mysqld.my";
const CONFIGURATION: &str = "component_keyring_file.cnf";
const MODE: u32 = 0o640;

/// The keyring file of a pull, as `pull.json` notes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) path: PathBuf,
    /// Names the master key: `INNODBKey-UUID-1`.
    pub(crate) uuid: String,
}

/// A keyring file and its key.
#[derive(Clone, Debug)]
pub(super) struct KeyringFile {
    path: PathBuf,
    key: Arc<MasterKey>,
}

impl KeyringFile {
    /// Makes a new key. Nothing is written.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub(super) fn generate(path: &Path) -> Result<Self> {
        let key = MasterKey::generate().map_err(|error| disk("make a key for", path, &error))?;
        Ok(Self { path: path.to_owned(), key: Arc::new(key) })
    }

    /// The file that an interrupted pull has written. None if it is not there any more.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn reopen(noted: &Noted) -> Result<Option<Self>> {
        let key = MasterKey::read(&noted.path, &noted.uuid);
        let key = key.map_err(|error| disk("read", &noted.path, &error))?;
        Ok(key.map(|key| Self { path: noted.path.clone(), key: Arc::new(key) }))
    }

    pub(super) fn noted(&self) -> Noted {
        Noted { path: self.path.clone(), uuid: self.key.uuid().to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn key(&self) -> Arc<MasterKey> {
        Arc::clone(&self.key)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub(super) fn write(&self) -> Result<()> {
        self.key.write_new(&self.path).map_err(|error| disk("write", &self.path, &error))
    }

    /// After the copy: tells the server where the key is. A file that was not needed is removed.
    /// Gives whether the file was needed. `is_resumed`: another process has begun the copy, and may
    /// have needed the file.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn finish(&self, directory: &Path, is_resumed: bool) -> Result<bool> {
        if !self.key.is_used() && !is_resumed {
            remove(&self.noted()).map_err(|error| disk("remove", &self.path, &error))?;
            return Ok(false);
        }
        let manifest = serde_json::json!({"components": "file://component_keyring_file"});
        let configuration = serde_json::json!({"path": self.path, "read_only": false});
        for (name, content) in [(MANIFEST, manifest), (CONFIGURATION, configuration)] {
            let path = directory.join(name);
            let mut options = File::options();
            let created = options.write(true).create_new(true).mode(MODE).open(&path);
            match created.and_then(|mut file| writeln!(file, "{content}")) {
                // The donor's own, or that of a process that was killed here.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                written => written.map_err(|error| disk("write", &path, &error))?,
            }
        }
        Ok(true)
    }
}

/// Why the file cannot be where the user wants it.
pub(super) fn refusals(path: &Path, datadir: &Path) -> Vec<String> {
    let mut reasons = Vec::new();
    let shown = path.display();
    let mut backup = path.as_os_str().to_owned();
    // A server would take this file for the whole keyring (data_file/reader.cc).
    backup.push(".backup");
    for there in [path, Path::new(&backup)] {
        if fs::symlink_metadata(there).is_ok() {
            reasons.push(format!(
                "--keyring-file: '{}' exists. Name a file that does not exist: a keyring is never \
                 overwritten",
                there.display()
            ));
        }
    }
    if real(path).starts_with(real(datadir)) {
        reasons.push(format!(
            "--keyring-file: '{shown}' is in the data directory. Whoever reads the one would read \
             the other, and a backup of the directory would hold its key. Name a file outside of \
             '{}'",
            datadir.display()
        ));
    } else if !path.parent().is_some_and(Path::is_dir) {
        reasons.push(format!("--keyring-file: the directory of '{shown}' is not there"));
    }
    reasons
}

/// Removes the keyring file of a pull that is given up, if it is that pull's.
///
/// # Errors
/// The operating system's.
pub(super) fn remove(noted: &Noted) -> io::Result<()> {
    MasterKey::remove_from(&noted.path, &noted.uuid)
}

fn disk(what: &str, path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot {what} the keyring file '{}': {error}", path.display());
    Failure::new(Kind::Disk, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_not_overwritten_and_not_beside_the_data() {
        let parent = tempfile::tempdir().unwrap();
        let (data, path) = (parent.path().join("data"), parent.path().join("keyring"));
        let reasons = |path: &Path| refusals(path, &data).join("\n");
        assert_eq!(reasons(&path), "");
        assert!(reasons(&parent.path().join("no/keyring")).contains("is not there"));
        assert!(reasons(&data.join("keyring")).contains("outside of"));
        fs::create_dir(&data).unwrap();
        assert!(reasons(&data.join("keyring")).contains("outside of"));
        std::os::unix::fs::symlink(&data, parent.path().join("link")).unwrap();
        assert!(reasons(&parent.path().join("link/keyring")).contains("outside of"));
        fs::write(parent.path().join("keyring.backup"), "").unwrap();
        assert!(reasons(&path).contains("keyring.backup' exists"));
        fs::write(&path, "").unwrap();
        assert!(reasons(&path).contains("keyring' exists"));
    }

    #[test]
    fn a_file_that_was_not_needed_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let file = KeyringFile::generate(&parent.path().join("keyring")).unwrap();
        file.write().unwrap();
        assert_eq!(file.write().unwrap_err().kind, Kind::Disk);
        assert!(KeyringFile::reopen(&file.noted()).unwrap().is_some());
        let manifest = parent.path().join(MANIFEST);
        fs::write(&manifest, "mine").unwrap();
        assert!(file.finish(parent.path(), true).unwrap());
        assert_eq!(fs::read(&manifest).unwrap(), b"mine");
        assert!(parent.path().join(CONFIGURATION).exists());
        assert!(!file.finish(parent.path(), false).unwrap());
        assert!(!file.path().exists());
        assert!(KeyringFile::reopen(&file.noted()).unwrap().is_none());
    }
}
