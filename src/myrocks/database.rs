// SPDX-License-Identifier: GPL-2.0-only

//! MyRocks' database, by SQL: what XtraBackup uses to back it up.
//!
//! | Needed | Statement |
//! |---|---|
//! | a checkpoint | `SET GLOBAL rocksdb_create_checkpoint` |
//! | no file is removed | `SET SESSION rocksdb_disable_file_deletions` |
//! | the lengths of the live logs | `performance_schema.log_status` |
//!
//! File deletions are enabled again when the session ends. `log_status` locks the logs of all
//! engines while it is read.

use std::path::{Path, PathBuf};

use clone_core::error::{Error, Result};
use clone_rocksdb::{Connection, Cut, Database};

use super::log_status;
use crate::server::sql::{Rows, SqlError, SqlSession};

/// Where MyRocks looks for its files if it is not told otherwise.
pub(super) const HOME: &str = ".rocksdb";

/// Where MyRocks has its files; relative ones are below the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directories {
    pub(super) data: PathBuf,
    pub(super) wal: PathBuf,
}

impl Directories {
    /// Asks the server.
    pub(super) fn read() -> Result<Self, SqlError> {
        let rows =
            SqlSession::open()?.run("SELECT @@GLOBAL.rocksdb_datadir, @@GLOBAL.rocksdb_wal_dir")?;
        Ok(Self::from_rows(rows))
    }

    /// Without a directory for logs they are with the files.
    fn from_rows(rows: Rows) -> Self {
        let mut values = rows.into_iter().flatten().map(Option::unwrap_or_default);
        let mut next = || values.next().filter(|value| !value.is_empty());
        let data = PathBuf::from(next().unwrap_or_else(|| HOME.to_owned()));
        let wal = next().map_or_else(|| data.clone(), PathBuf::from);
        Self { data, wal }
    }
}

/// The database of this server's MyRocks.
pub(super) struct MyRocks {
    directories: Directories,
}

impl MyRocks {
    pub(super) fn new(directories: Directories) -> Self {
        Self { directories }
    }
}

impl Database for MyRocks {
    fn directory(&self) -> &Path {
        &self.directories.data
    }

    fn wal_directory(&self) -> &Path {
        &self.directories.wal
    }

    fn recycles_logs(&self) -> bool {
        // MyRocks has no variable for recycle_log_file_num, whose default is 0.
        false
    }

    fn connect(&self) -> Result<Box<dyn Connection>> {
        Ok(Box::new(Session(SqlSession::open().map_err(internal)?)))
    }
}

/// One clone's session: MyRocks undoes what it did when it ends.
struct Session(SqlSession);

impl Session {
    fn run(&mut self, statement: &str) -> Result<Rows> {
        self.0.run(statement).map_err(internal)
    }
}

impl Connection for Session {
    fn create_checkpoint(&mut self, directory: &Path) -> Result<()> {
        let name = directory.to_str().ok_or_else(|| {
            Error::Internal(format!("RocksDB clone: directory '{}'", directory.display()))
        })?;
        self.run(&format!("SET GLOBAL rocksdb_create_checkpoint = {}", quoted(name))).map(drop)
    }

    fn remove_checkpoint(&mut self, directory: &Path) -> Result<()> {
        // MyRocks forgets a checkpoint when it is made: it is a directory with links to files.
        std::fs::remove_dir_all(directory)
            .map_err(|error| Error::file(true, &directory.to_string_lossy(), &error))
    }

    fn disable_file_deletions(&mut self) -> Result<()> {
        self.run("SET SESSION rocksdb_disable_file_deletions = ON").map(drop)
    }

    fn enable_file_deletions(&mut self) -> Result<()> {
        self.run("SET SESSION rocksdb_disable_file_deletions = OFF").map(drop)
    }

    fn cut(&mut self) -> Result<Cut> {
        let rows = self.run("SELECT STORAGE_ENGINES FROM performance_schema.log_status")?;
        let json = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        Ok(Cut { logs: log_status::logs(&json)?, sequence: None })
    }
}

/// A string literal. What backslashes and quotes mean depends on `sql_mode`. Hexadecimal digits
/// always mean the same.
fn quoted(text: &str) -> String {
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 x'{digits}'")
}

fn internal(error: SqlError) -> Error {
    Error::Internal(format!("RocksDB clone: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(data: Option<&str>, wal: Option<&str>) -> Directories {
        Directories::from_rows(vec![vec![data.map(str::to_owned), wal.map(str::to_owned)]])
    }

    #[test]
    fn where_the_files_are() {
        let at = |data: &str, wal: &str| Directories { data: data.into(), wal: wal.into() };
        assert_eq!(directories(Some("./.rocksdb"), Some("")), at("./.rocksdb", "./.rocksdb"));
        assert_eq!(directories(Some("./.rocksdb"), None), at("./.rocksdb", "./.rocksdb"));
        assert_eq!(directories(Some("/ssd/r"), Some("/log/r")), at("/ssd/r", "/log/r"));
        assert_eq!(directories(None, None), at(".rocksdb", ".rocksdb"));
    }

    #[test]
    fn names_cannot_end_a_literal() {
        assert_eq!(quoted("a'\\é"), "_utf8mb4 x'61275cc3a9'");
    }
}
