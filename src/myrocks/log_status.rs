// SPDX-License-Identifier: GPL-2.0-only

//! What `performance_schema.log_status` says of MyRocks' write-ahead logs.
//!
//! ```json
//! {"InnoDB": {...}, "RocksDB": {"wal_files": [
//!   {"path_name": "/000012.log", "log_number": 12, "size_file_bytes": 345}]}}
//! ```
//! Learned from `storage/rocksdb/ha_rocksdb.cc:rocksdb_collect_hton_log_info` of Percona Server
//! 8.0.27.

use clone_core::error::{Error, Result};
use clone_rocksdb::WalFile;
use serde_json::Value;

/// RocksDB keeps logs that no recovery needs in a directory of this name.
const ARCHIVE: &str = "/archive/";

/// The live logs in the column `STORAGE_ENGINES`, and how long each is.
///
/// # Errors
/// It is not what MyRocks writes; MyRocks is not in it.
pub(super) fn logs(json: &str) -> Result<Vec<WalFile>> {
    let document: Value = serde_json::from_str(json).map_err(|error| wrong(&error.to_string()))?;
    let files = &document["RocksDB"]["wal_files"];
    let files = files.as_array().ok_or_else(|| wrong("no RocksDB in it"))?;
    let live =
        files.iter().filter(|file| !path(file).is_some_and(|path| path.starts_with(ARCHIVE)));
    live.map(log).collect()
}

fn log(file: &Value) -> Result<WalFile> {
    let name = path(file).map(|path| path.strip_prefix('/').unwrap_or(path));
    let name = name.filter(|name| !name.is_empty() && !name.contains('/'));
    match (name, file["size_file_bytes"].as_u64()) {
        (Some(name), Some(size)) => Ok(WalFile { name: name.to_owned(), size }),
        _ => Err(wrong(&format!("write-ahead log {file}"))),
    }
}

fn path(file: &Value) -> Option<&str> {
    file["path_name"].as_str()
}

fn wrong(what: &str) -> Error {
    Error::Internal(format!("RocksDB clone: performance_schema.log_status: {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn of(files: &str) -> Result<Vec<WalFile>> {
        logs(&format!(r#"{{"InnoDB": {{"LSN": 1}}, "RocksDB": {{"wal_files": {files}}}}}"#))
    }

    #[test]
    fn live_logs_and_their_lengths() {
        let logs =
            of(r#"[{"path_name": "/archive/000002.log", "log_number": 2, "size_file_bytes": 9},
                          {"path_name": "/000012.log", "log_number": 12, "size_file_bytes": 345},
                          {"path_name": "/000013.log", "log_number": 13, "size_file_bytes": 0}]"#);
        let expected = [("000012.log", 345), ("000013.log", 0)]
            .map(|(name, size)| WalFile { name: name.to_owned(), size });
        assert_eq!(logs.unwrap(), expected);
        assert_eq!(of("[]").unwrap(), []);
    }

    #[test]
    fn anything_else_is_an_error() {
        for files in [
            "{}",
            "null",
            r#"[{"path_name": "/000012.log"}]"#,
            r#"[{"path_name": "/000012.log", "size_file_bytes": -1}]"#,
            r#"[{"path_name": "/000012.log", "size_file_bytes": "1"}]"#,
            r#"[{"path_name": "/../x.log", "size_file_bytes": 1}]"#,
            r#"[{"path_name": "/", "size_file_bytes": 1}]"#,
            r#"[{"size_file_bytes": 1}]"#,
        ] {
            assert!(of(files).is_err(), "{files}");
        }
        for json in ["", "x", "[]", r#"{"InnoDB": {"LSN": 1}}"#] {
            assert_eq!(logs(json).unwrap_err().number(), 1815, "{json}");
        }
    }
}
