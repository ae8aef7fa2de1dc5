// SPDX-License-Identifier: GPL-2.0-only

//! What a clone holds on the donor's disk: one checkpoint at a time, at the end also the logs.
//!
//! ```text
//! .clone_checkpoint-<clone>-<n>    the n-th checkpoint: hard links to data files, copies of others
//! .clone_checkpoint-<clone>-logs   hard links to the live write-ahead logs
//! ```
//! All of it is removed at the end of the clone; after a crash by the next [`Donor`](super::Donor).

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use clone_engine::Error;
use clone_engine::Result;
use clone_protocol::rocksdb::CloneId;

use super::DonorOptions;
use super::files::Kind;
use crate::database::Connection;
use crate::database::Database;
use crate::database::WalFile;

/// What the names of all these directories begin with, as upstream's.
const PREFIX: &str = ".clone_checkpoint-";

/// The checkpoints of one clone, one after the other, and what else it keeps from RocksDB.
pub(super) struct Checkpoints {
    database: Arc<dyn Database>,
    connection: Box<dyn Connection>,
    id: CloneId,
    current: Option<Current>,
    /// How many there have been.
    made: u32,
    are_deletions_disabled: bool,
    logs: Logs,
}

struct Current {
    directory: PathBuf,
    made: Instant,
}

/// Where the logs of the clone are read.
enum Logs {
    /// There are none yet.
    None,
    /// In a directory of hard links.
    Linked(PathBuf),
    /// Where they live; file deletions stay disabled for them.
    Live,
}

/// A file of a checkpoint.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed {
    pub(super) name: String,
    /// In bytes.
    pub(super) size: u64,
}

impl Checkpoints {
    /// Without a checkpoint: it would be old before its files' turn comes.
    pub(super) fn new(database: Arc<dyn Database>, id: CloneId) -> Result<Self> {
        let connection = database.connect()?;
        Ok(Self {
            database,
            connection,
            id,
            current: None,
            made: 0,
            are_deletions_disabled: false,
            logs: Logs::None,
        })
    }

    /// Whether the checkpoint holds on to files for so long that a new one should take its place.
    pub(super) fn is_due(&self, options: &DonorOptions) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| is_due(current.made.elapsed(), self.made, options))
    }

    /// Puts a new checkpoint in the place of the one there is.
    pub(super) fn renew(&mut self) -> Result<Vec<Listed>> {
        self.remove();
        let directory = self.database.directory().join(self.name(self.made));
        // Whatever becomes of it: a directory that could not be finished is removed with the
        // others.
        self.current = Some(Current { directory: directory.clone(), made: Instant::now() });
        self.made = self.made.saturating_add(1);
        self.connection.create_checkpoint(&directory)?;
        list(&directory).map_err(|error| Error::file(false, &directory.to_string_lossy(), &error))
    }

    /// The last checkpoint, made with file deletions disabled, so that all logs since stay until
    /// [`keep_logs`](Self::keep_logs).
    pub(super) fn renew_for_the_end(&mut self) -> Result<Vec<Listed>> {
        // The old one goes first: what it alone holds on to can be freed as long as deletions are
        // enabled.
        self.remove();
        if !self.are_deletions_disabled {
            self.connection.disable_file_deletions()?;
            self.are_deletions_disabled = true;
        }
        self.renew()
    }

    /// The logs at the point of the clone.
    pub(super) fn cut(&mut self) -> Result<Vec<WalFile>> {
        Ok(self.connection.cut()?.logs)
    }

    /// Makes `logs` last until the end of the clone, and file deletions are enabled again if they
    /// do without.
    pub(super) fn keep_logs(&mut self, logs: &[WalFile]) -> Result<()> {
        if self.database.recycles_logs() {
            self.logs = Logs::Live;
            return Ok(());
        }
        let directory = self.database.directory().join(self.name("logs"));
        self.logs = Logs::Linked(directory.clone());
        fs::create_dir(&directory)
            .map_err(|error| Error::file(true, &directory.to_string_lossy(), &error))?;
        let live = self.database.wal_directory();
        for log in logs {
            match fs::hard_link(live.join(&log.name), directory.join(&log.name)) {
                Ok(()) => {}
                // Another file system, or one without hard links.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::CrossesDevices
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::Unsupported
                    ) =>
                {
                    let _ = fs::remove_dir_all(&directory);
                    self.logs = Logs::Live;
                    return Ok(());
                }
                Err(error) => return Err(Error::file(false, &log.name, &error)),
            }
        }
        self.enable_deletions()
    }

    /// Opens a file of the clone.
    pub(super) fn open(&self, name: &str, kind: Kind) -> io::Result<File> {
        let directory = match (kind, &self.logs) {
            (Kind::Log, Logs::Linked(directory)) => directory,
            (Kind::Log, Logs::Live) => self.database.wal_directory(),
            (Kind::Log, Logs::None) => return Err(io::ErrorKind::NotFound.into()),
            (Kind::Metadata | Kind::Data, _) => match &self.current {
                Some(current) => &current.directory,
                None => return Err(io::ErrorKind::NotFound.into()),
            },
        };
        File::open(directory.join(name))
    }

    fn enable_deletions(&mut self) -> Result<()> {
        if std::mem::take(&mut self.are_deletions_disabled) {
            // Not again after an error: the count in RocksDB is not known then, and the
            // connection's end puts it right.
            self.connection.enable_file_deletions()?;
        }
        Ok(())
    }

    /// Removes the checkpoint. What cannot be removed now goes when the next donor starts.
    fn remove(&mut self) {
        if let Some(Current { directory, .. }) = self.current.take() {
            let _ = self.connection.remove_checkpoint(&directory);
            let _ = fs::remove_dir_all(&directory);
        }
    }

    fn name(&self, which: impl std::fmt::Display) -> String {
        format!("{PREFIX}{}-{which}", self.id)
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.remove();
        if let Logs::Linked(directory) = &self.logs {
            let _ = fs::remove_dir_all(directory);
        }
        // The connection is dropped next, which does it in any case.
        let _ = self.enable_deletions();
    }
}

/// Removes the directories that clones left when their process died; gives their number. To be
/// called while no clone runs.
///
/// # Errors
/// The operating system's. All that can be removed are.
pub fn remove_stale_checkpoints(database_directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    let mut outcome = Ok(());
    for entry in fs::read_dir(database_directory)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_ours || !entry.file_type()?.is_dir() {
            continue;
        }
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => removed += 1,
            Err(error) => outcome = Err(error),
        }
    }
    outcome.map(|()| removed)
}

fn is_due(age: Duration, made: u32, options: &DonorOptions) -> bool {
    let DonorOptions { checkpoint_max_age, checkpoint_max_count, .. } = options;
    !checkpoint_max_age.is_zero()
        && age >= *checkpoint_max_age
        && (*checkpoint_max_count == 0 || made < *checkpoint_max_count)
}

/// The files of a checkpoint. RocksDB's directories have no others in them.
fn list(directory: &Path) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            listed.push(Listed { name, size: metadata.len() });
        }
    }
    // The numbers of files are given in this order: the same checkpoint, the same numbers.
    listed.sort_unstable();
    Ok(listed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn renewal_by_age_and_count() {
        let options = |age, count| DonorOptions {
            checkpoint_max_age: Duration::from_secs(age),
            checkpoint_max_count: count,
            ..DonorOptions::default()
        };
        let due = |age, made, options| is_due(Duration::from_secs(age), made, &options);
        assert!(!due(599, 1, options(600, 90)));
        assert!(due(600, 1, options(600, 90)));
        assert!(due(600, 89, options(600, 90)));
        assert!(!due(600, 90, options(600, 90)), "the count is that of checkpoints");
        assert!(due(600, u32::MAX, options(600, 0)), "0 is no limit");
        assert!(!due(u64::MAX, 1, options(0, 0)), "0 is never");
        assert!(!due(u64::MAX, 1, options(600, 1)), "there is the first one already");
    }

    #[test]
    fn stale_directories_go_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path(".clone_checkpoint-77-3")).unwrap();
        fs::write(path(".clone_checkpoint-77-3/000001.sst"), "x").unwrap();
        fs::create_dir(path(".clone_checkpoint-78-logs")).unwrap();
        fs::create_dir(path(".rocksdb.cloned")).unwrap();
        fs::write(path("000001.sst"), "x").unwrap();
        fs::write(path(".clone_checkpoint-file"), "x").unwrap();
        assert_eq!(remove_stale_checkpoints(directory.path()).unwrap(), 2);
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".clone_checkpoint-file", ".rocksdb.cloned", "000001.sst"]);
        assert_eq!(remove_stale_checkpoints(directory.path()).unwrap(), 0);
    }
}
