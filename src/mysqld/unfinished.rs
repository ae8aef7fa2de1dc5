// SPDX-License-Identifier: GPL-2.0-only

//! Remembers the directory into which this server clones, so that the next start removes what a
//! crash has left of the clone.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::server::error_log::CLIENT;

/// Holds the path of the directory, below the data directory. Nothing else is in the file.
const RECORD: &str = "#clone/#directory";

/// In the directory of a clone that is not complete. A server does not start with this file.
const IN_PROGRESS: &str = "#clone/#status_in_progress";

/// The record of one clone. Dropping it ends the record: the clone has then ended, and what is left
/// of it was left on purpose.
pub(crate) struct Unfinished {
    record: PathBuf,
}

impl Unfinished {
    /// To be called before the clone makes `directory`. `data_directory` is that of this server.
    /// None if the directory is there already, since it is not the clone's then.
    pub(crate) fn note(data_directory: &Path, directory: &Path) -> Option<Self> {
        if directory.exists() {
            return None;
        }
        let record = data_directory.join(RECORD);
        let written = match record.parent().map_or(Ok(()), fs::create_dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::write(&record, directory.as_os_str().as_bytes()),
        };
        if let Err(error) = written {
            // The clone does not depend on the record.
            log::warn!(target: CLIENT, "Cannot write '{}': {error}", record.display());
        }
        Some(Self { record })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.record);
    }
}

/// The server has started: removes the directory of a clone that a crash has ended.
pub(crate) fn remove_left(data_directory: &Path) {
    let record = data_directory.join(RECORD);
    let Ok(path) = fs::read(&record) else { return };
    let directory = Path::new(OsStr::from_bytes(&path));
    if directory.is_absolute() && directory.join(IN_PROGRESS).exists() {
        let shown = directory.display();
        match fs::remove_dir_all(directory) {
            Ok(()) => {
                log::info!(target: CLIENT, "Removed '{shown}': a crash had ended the clone in it");
            }
            Err(error) => log::warn!(
                target: CLIENT,
                "A crash had ended the clone in '{shown}', and the directory cannot be removed: \
                 {error}"
            ),
        }
    }
    let _ = fs::remove_file(record);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A data directory, and one for a clone.
    fn directories() -> (TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("data")).unwrap();
        let clone = parent.path().join("clone");
        (parent, clone)
    }

    fn begin(directory: &Path) {
        fs::create_dir_all(directory.join("#clone")).unwrap();
        fs::write(directory.join(IN_PROGRESS), "").unwrap();
    }

    #[test]
    fn a_crash_is_cleaned_up() {
        let (parent, clone) = directories();
        let data = parent.path().join("data");
        let unfinished = Unfinished::note(&data, &clone).unwrap();
        begin(&clone);
        std::mem::forget(unfinished);
        remove_left(&data);
        assert!(!clone.exists() && !data.join(RECORD).exists());
    }

    #[test]
    fn a_clone_that_has_ended_stays() {
        let (parent, clone) = directories();
        let data = parent.path().join("data");
        drop(Unfinished::note(&data, &clone).unwrap());
        begin(&clone);
        remove_left(&data);
        assert!(clone.exists());
    }

    #[test]
    fn what_is_no_unfinished_clone_stays() {
        let (parent, clone) = directories();
        let data = parent.path().join("data");
        std::mem::forget(Unfinished::note(&data, &clone).unwrap());
        // Somebody has put something else there.
        fs::create_dir(&clone).unwrap();
        remove_left(&data);
        assert!(clone.exists() && !data.join(RECORD).exists());
        // What was there before is not the clone's.
        assert!(Unfinished::note(&data, &clone).is_none());
    }
}
