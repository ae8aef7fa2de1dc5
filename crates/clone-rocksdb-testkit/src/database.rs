// SPDX-License-Identifier: GPL-2.0-only

//! A [`Live`] database as the donor sees it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use clone_engine::Error;
use clone_engine::Result;
use clone_rocksdb::Connection;
use clone_rocksdb::Cut;
use clone_rocksdb::Database;
use clone_rocksdb::WalFile;

use crate::live::Live;
use crate::live::RocksError;
use crate::live::Snapshot;

/// A database to be cloned. It keeps a [`Snapshot`] of each cut, to compare clones with.
#[derive(Clone, Debug)]
pub struct Source {
    live: Arc<Live>,
    cuts: Arc<Mutex<Vec<Snapshot>>>,
}

impl Source {
    /// Of a database.
    pub fn new(live: Arc<Live>) -> Self {
        Self { live, cuts: Arc::default() }
    }

    /// The database.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Takes out the state of the database at the cut with this sequence number.
    pub fn cut_at(&self, sequence: u64) -> Option<Snapshot> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cuts.iter().position(|cut| cut.sequence() == sequence)?;
        Some(cuts.swap_remove(at))
    }
}

impl Database for Source {
    fn directory(&self) -> &Path {
        self.live.directory()
    }

    fn wal_directory(&self) -> &Path {
        self.live.wal_directory()
    }

    fn recycles_logs(&self) -> bool {
        self.live.settings().recycled_logs != 0
    }

    fn connect(&self) -> Result<Box<dyn Connection>> {
        Ok(Box::new(SourceConnection { source: self.clone(), are_deletions_disabled: false }))
    }
}

struct SourceConnection {
    source: Source,
    are_deletions_disabled: bool,
}

impl Connection for SourceConnection {
    fn create_checkpoint(&mut self, directory: &Path) -> Result<()> {
        self.source.live.create_checkpoint(directory).map_err(internal)
    }

    fn remove_checkpoint(&mut self, directory: &Path) -> Result<()> {
        fs::remove_dir_all(directory)
            .map_err(|error| Error::file(true, &directory.to_string_lossy(), &error))
    }

    fn disable_file_deletions(&mut self) -> Result<()> {
        self.source.live.disable_file_deletions().map_err(internal)?;
        self.are_deletions_disabled = true;
        Ok(())
    }

    fn enable_file_deletions(&mut self) -> Result<()> {
        self.are_deletions_disabled = false;
        self.source.live.enable_file_deletions().map_err(internal)
    }

    fn cut(&mut self) -> Result<Cut> {
        let live = &self.source.live;
        live.without_writers(|| {
            live.flush_wal().map_err(internal)?;
            let logs = logs(live.wal_directory()).map_err(|error| {
                Error::file(false, &live.wal_directory().to_string_lossy(), &error)
            })?;
            let snapshot = live.snapshot();
            let sequence = snapshot.sequence();
            self.source.cuts.lock().unwrap_or_else(PoisonError::into_inner).push(snapshot);
            Ok(Cut { logs, sequence: Some(sequence) })
        })
    }
}

impl Drop for SourceConnection {
    fn drop(&mut self) {
        if self.are_deletions_disabled {
            let _ = self.source.live.enable_file_deletions();
        }
    }
}

/// All logs in a directory, by name. While file deletions are disabled, these are all that recovery
/// could want.
fn logs(directory: &Path) -> std::io::Result<Vec<WalFile>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if name.extension().is_some_and(|extension| extension == "log") {
            let name = name.to_string_lossy().into_owned();
            logs.push(WalFile { name, size: entry.metadata()?.len() });
        }
    }
    logs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(logs)
}

fn internal(error: RocksError) -> Error {
    Error::Internal(error.to_string())
}
