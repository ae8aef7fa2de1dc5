// SPDX-License-Identifier: GPL-2.0-only

//! The directory that a clone makes, and that is removed if the clone fails.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the directory of a clone was made by this clone. Only then it may be removed.
#[derive(Debug, Default)]
pub(crate) struct NewDirectory {
    is_ours: AtomicBool,
}

impl NewDirectory {
    /// To be called just before the engines make `directory`.
    pub(crate) fn note(&self, directory: &Path) {
        self.is_ours.fetch_or(!directory.exists(), Ordering::Relaxed);
    }

    /// Removes `directory` with all that the clone has written, so that the next clone can have the
    /// same directory.
    pub(crate) fn remove(&self, directory: &Path) {
        if !self.is_ours.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = fs::remove_dir_all(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            let directory = directory.display();
            log::warn!("Cannot remove '{directory}' of a clone that failed: {error}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_clone_has_made_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let (ours, theirs) = (parent.path().join("ours"), parent.path().join("theirs"));
        fs::create_dir(&theirs).unwrap();
        for directory in [&ours, &theirs] {
            let new = NewDirectory::default();
            new.note(directory);
            fs::create_dir_all(directory.join("mysql")).unwrap();
            // A restart finds the clone's own directory.
            new.note(directory);
            new.remove(directory);
        }
        assert!(!ours.exists() && theirs.exists());
        NewDirectory::default().remove(&theirs);
        assert!(theirs.exists());
    }
}
