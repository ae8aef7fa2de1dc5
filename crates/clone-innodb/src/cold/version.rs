// SPDX-License-Identifier: GPL-2.0-only

//! Which server a data directory is of.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{open, read_exact, read_text};

/// What a server writes at its start since 8.3: a JSON object, and in it each version that the
/// directory had, the newest last.
const HISTORY: &str = "mysql_upgrade_history";

/// The longest history, in bytes. An entry has some hundred.
const MAX_HISTORY: u64 = 1 << 20;

/// What a binary log begins with (`BINLOG_MAGIC`).
const BINLOG_MAGIC: &[u8] = b"\xfebin";
/// The type of the first event, and where it is (`FORMAT_DESCRIPTION_EVENT`).
const DESCRIPTION: (usize, u8) = (4 + 4, 15);
/// Where the server's version is in the first event: behind the magic, the header of an event and
/// the version of the binary log. 50 bytes, filled up with NUL (`ST_SERVER_VER_LEN`).
const BINLOG_VERSION: std::ops::Range<usize> = 25..75;

/// The longest index of binary logs, in bytes.
const MAX_INDEX: u64 = 4 << 20;

/// The server that had the directory last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// The variable `version`, as far as the directory says it: `9.7.4-2`. Before 8.3 a directory
    /// without binary logs says the number only.
    pub text: String,
    /// "LTS" or "INNOVATION", since 8.3.
    pub maturity: Option<String>,
    /// Whether the directory says the whole text. Otherwise it says the number only.
    pub is_complete: bool,
}

impl ServerVersion {
    /// Of a directory whose dictionary was written by the server `number` (90704 for 9.7.4).
    pub(super) fn of(directory: &Path, number: u32) -> Self {
        let plain = format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100);
        let history = read_text(&directory.join(HISTORY), MAX_HISTORY);
        let newest = history.as_deref().and_then(newest);
        let binlog = || {
            let logs = binlogs(directory);
            logs.iter().filter_map(|log| binlog_version(log)).find(|text| fits(text, &plain))
        };
        match newest {
            // The history is of older servers if one that does not write it came later.
            Some((text, maturity)) if fits(&text, &plain) => {
                Self { text, maturity: Some(maturity), is_complete: true }
            }
            _ => match binlog() {
                Some(text) => Self { text, maturity: None, is_complete: true },
                None => Self { text: plain, maturity: None, is_complete: false },
            },
        }
    }
}

/// Whether `text` is the version `plain` with something behind it, or without.
fn fits(text: &str, plain: &str) -> bool {
    text.strip_prefix(plain).is_some_and(|rest| !rest.starts_with(|c: char| c.is_numeric()))
}

fn is_version(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+_~".contains(&byte))
}

/// The newest log of each index in the directory.
fn binlogs(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let indexes = paths.filter(|path| path.extension().is_some_and(|name| name == "index"));
    let newest = indexes.filter_map(|index| {
        let text = read_text(&index, MAX_INDEX)?;
        let line = text.lines().next_back()?;
        Some(directory.join(line))
    });
    newest.collect()
}

/// The version of the server that wrote a binary log. None if the log is encrypted.
fn binlog_version(path: &Path) -> Option<String> {
    let (file, _) = open(path).ok()?;
    let mut start = [0; BINLOG_VERSION.end];
    read_exact(&file, path, &mut start, 0).ok()?;
    if !start.starts_with(BINLOG_MAGIC) || start[DESCRIPTION.0] != DESCRIPTION.1 {
        return None;
    }
    let text = std::str::from_utf8(&start[BINLOG_VERSION]).ok()?;
    let (text, _) = text.split_once('\0')?;
    is_version(text).then(|| text.to_owned())
}

/// The last version and maturity of a history. The file is of the server's own making, so that its
/// members are looked for by name.
pub(super) fn newest(history: &str) -> Option<(String, String)> {
    let member = |name: &str| {
        let (_, rest) = history.rsplit_once(&format!("\"{name}\":"))?;
        let (_, rest) = rest.split_once('"')?;
        let (value, _) = rest.split_once('"')?;
        is_version(value).then(|| value.to_owned())
    };
    Some((member("version")?, member("maturity")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const OLD: &str = r#"{"date":"d","version":"8.4.4-0ubuntu2","maturity":"LTS"}"#;
    const NEW: &str = r#"{"date": "d", "version": "9.7.4-2", "maturity": "LTS", "initialize":true,
        "update_history":[{"date":"d","version_with_update":"9.7.4.0-2"}]}"#;

    fn of(history: &str, number: u32) -> (String, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(HISTORY), history).unwrap();
        let version = ServerVersion::of(directory.path(), number);
        assert_eq!(version.is_complete, version.maturity.is_some());
        (version.text, version.maturity)
    }

    #[test]
    fn the_newest_version_of_the_history() {
        let lts = Some("LTS".to_owned());
        assert_eq!(of(&format!("[{OLD},{NEW}]"), 90_704), ("9.7.4-2".to_owned(), lts.clone()));
        assert_eq!(of(&format!("[{OLD}]"), 80_404), ("8.4.4-0ubuntu2".to_owned(), lts));
    }

    #[test]
    fn a_history_of_another_server_says_nothing() {
        assert_eq!(of(&format!("[{OLD}]"), 80_040), ("8.0.40".to_owned(), None));
        assert_eq!(of("", 80_019), ("8.0.19".to_owned(), None));
        assert_eq!(of(&NEW.replace("9.7.4-2", "9.7.4\\n"), 90_704), ("9.7.4".to_owned(), None));
    }

    #[test]
    fn a_binary_log_says_the_version() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = b"\xfebin\0\0\0\0\x0f".to_vec();
        log.resize(25, 0);
        log.extend_from_slice(b"8.0.36-2ubuntu3");
        log.resize(100, 0);
        fs::write(directory.path().join("binlog.000007"), &log).unwrap();
        let index = directory.path().join("binlog.index");
        fs::write(&index, "./binlog.000006\n./binlog.000007\n").unwrap();
        let version = ServerVersion::of(directory.path(), 80_036);
        assert_eq!((version.text.as_str(), version.is_complete), ("8.0.36-2ubuntu3", true));
        // Another server wrote the log.
        let version = ServerVersion::of(directory.path(), 80_035);
        assert_eq!((version.text.as_str(), version.is_complete), ("8.0.35", false));
        log[0] = 0xfd;
        fs::write(directory.path().join("binlog.000007"), &log).unwrap();
        assert!(!ServerVersion::of(directory.path(), 80_036).is_complete, "encrypted");
    }

    proptest! {
        #[test]
        fn any_history_is_read(text in ".{0,300}") {
            let _ = newest(&text);
        }
    }
}
