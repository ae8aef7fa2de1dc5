// SPDX-License-Identifier: GPL-2.0-only

//! A live RocksDB, as the donor sees it.

use std::path::Path;

use clone_engine::Result;

/// A live RocksDB that can be cloned. In mysqld that is MyRocks behind its SQL variables, in other
/// programs RocksDB itself.
pub trait Database: Send + Sync + 'static {
    /// The directory of data files. Checkpoints are made in it, since hard links need the same file
    /// system.
    fn directory(&self) -> &Path;

    /// The directory of the live write-ahead logs; often the same.
    fn wal_directory(&self) -> &Path;

    /// Whether old logs are written over instead of removed (`recycle_log_file_num`), so that a
    /// hard link to one does not keep its content.
    fn recycles_logs(&self) -> bool;

    /// A connection for one clone. Several clones run at once, each with its own.
    ///
    /// # Errors
    /// The database's.
    fn connect(&self) -> Result<Box<dyn Connection>>;
}

/// What one clone needs of a live RocksDB: in mysqld a session, since MyRocks' variables for
/// backups are session variables.
///
/// The calls come from the threads of all tasks, one at a time. What a clone holds ends with its
/// connection: dropping it enables file deletions again that it had disabled.
pub trait Connection: Send {
    /// Creates a checkpoint of hard links in `directory`, which does not exist yet, after all
    /// memtables have been written out (`rocksdb::Checkpoint::CreateCheckpoint`). There is one at a
    /// time.
    ///
    /// # Errors
    /// The database's.
    fn create_checkpoint(&mut self, directory: &Path) -> Result<()>;

    /// Removes the checkpoint in `directory`. Files of it that are open stay readable.
    ///
    /// # Errors
    /// The database's; the donor removes what is left itself.
    fn remove_checkpoint(&mut self, directory: &Path) -> Result<()>;

    /// Keeps all files until [`enable_file_deletions`](Connection::enable_file_deletions). Never
    /// called twice without it.
    ///
    /// # Errors
    /// The database's.
    fn disable_file_deletions(&mut self) -> Result<()>;

    /// Undoes [`disable_file_deletions`](Connection::disable_file_deletions).
    ///
    /// # Errors
    /// The database's.
    fn enable_file_deletions(&mut self) -> Result<()>;

    /// The live write-ahead logs, all at one moment: each ends with a whole record and holds
    /// everything written before (`performance_schema.log_status`; RocksDB's `LockWAL`).
    ///
    /// # Errors
    /// The database's.
    fn cut(&mut self) -> Result<Cut>;
}

/// The point that a clone comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The live write-ahead logs.
    pub logs: Vec<WalFile>,
    /// The number of the last write before it, where the database tells.
    pub sequence: Option<u64>,
}

/// A write-ahead log at the point of the clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalFile {
    /// Its name in [`Database::wal_directory`].
    pub name: String,
    /// How much of it belongs to the clone, in bytes.
    pub size: u64,
}
