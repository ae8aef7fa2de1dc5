// SPDX-License-Identifier: GPL-2.0-only

//! A server as far as RocksDB is concerned: a data directory, in it a database, and a clone that is
//! put in its place at the start.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use clone_engine::Result;
use clone_rocksdb::Layout;
use clone_rocksdb::Outcome;
use clone_rocksdb::Standing;
use clone_rocksdb::Swap;

use crate::live::Live;
use crate::live::RocksError;
use crate::live::Settings;

/// MyRocks' default for `rocksdb_datadir`.
const DATABASE: &str = ".rocksdb";

/// A server that is not running.
#[derive(Clone, Debug)]
pub struct Node {
    root: PathBuf,
    settings: Settings,
}

impl Node {
    /// With the data directory `root`, which is made if it is not there. A relative directory for
    /// logs is below it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(root: &Path, mut settings: Settings) -> io::Result<Self> {
        fs::create_dir_all(root.join(DATABASE))?;
        if let Some(logs) = &mut settings.wal_directory {
            *logs = root.join(&*logs);
            fs::create_dir_all(logs)?;
        }
        Ok(Self { root: root.to_owned(), settings })
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }

    /// What a server does before the engine opens its files.
    ///
    /// # Errors
    /// The engine must not open them.
    pub fn swap(&self) -> Result<Outcome> {
        let layout = Layout::rocksdb(&self.root);
        let logs = self.settings.wal_directory.as_deref();
        Swap::new(&layout, &self.database(), logs).run(Standing::Settled)
    }

    /// Opens the database.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn open(&self) -> std::result::Result<Arc<Live>, RocksError> {
        Live::open(&self.database(), self.settings.clone())
    }
}
