// SPDX-License-Identifier: GPL-2.0-only

//! Journals of a swap that this server has not written.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use clone_rocksdb::{Layout, Standing, Swap};
use tempfile::TempDir;

/// Every phase that a journal can be in.
const PHASES: [&str; 5] = ["save", "move", "swapped", "clear", "return"];

/// A data directory, and a directory elsewhere with a file in it.
struct Server {
    root: TempDir,
    elsewhere: TempDir,
}

impl Server {
    fn new() -> Self {
        let server = Self { root: TempDir::new().unwrap(), elsewhere: TempDir::new().unwrap() };
        fs::create_dir(server.root.path().join(".rocksdb")).unwrap();
        fs::create_dir(server.victim()).unwrap();
        fs::write(server.victim().join("monday"), "precious").unwrap();
        server
    }

    fn victim(&self) -> PathBuf {
        self.elsewhere.path().join("backups")
    }

    /// Starts with a journal of this phase and these directories. `wal` is configured, or not.
    fn start(
        &self,
        phase: &str,
        directories: &[&Path],
        wal: Option<&Path>,
    ) -> clone_engine::Result<()> {
        let lines: String =
            directories.iter().map(|path| format!("{}\n", path.display())).collect();
        let journal = format!("clone swap 1\n{phase}\n{lines}");
        fs::write(self.root.path().join(".rocksdb.swap"), journal).unwrap();
        let layout = Layout::rocksdb(self.root.path());
        let swap = Swap::new(&layout, Path::new(".rocksdb"), wal);
        swap.run(Standing::Settled).map(drop)
    }

    fn is_untouched(&self) -> bool {
        let entries: Vec<_> = fs::read_dir(self.victim()).unwrap().collect();
        entries.len() == 1 && fs::read(self.victim().join("monday")).unwrap() == b"precious"
    }
}

/// Security review, F9: a donor that could have InnoDB write the journal would have any directory
/// emptied.
#[test]
fn a_journal_of_other_directories_is_not_followed() {
    for phase in PHASES {
        let server = Server::new();
        let outcome = server.start(phase, &[&server.victim()], None);
        assert!(server.is_untouched(), "{phase}: {outcome:?}");
        // The other two have nothing to do there.
        let acts = ["save", "move", "clear"].contains(&phase);
        assert_eq!(outcome.is_err(), acts, "{phase}: {outcome:?}");
        if let Err(error) = outcome {
            let (text, victim) = (format!("{error:?}"), server.victim());
            assert!(
                text.contains(".rocksdb.swap") && text.contains(victim.to_str().unwrap()),
                "{text}"
            );
        }
    }
}

/// Nor if only the logs' directory is not ours: a number with `.log` would go from there.
#[test]
fn a_journal_of_other_logs_is_not_followed() {
    for phase in PHASES {
        let server = Server::new();
        let log = server.victim().join("000007.log");
        fs::write(&log, "precious").unwrap();
        let data = server.root.path().join(".rocksdb");
        let outcome = server.start(phase, &[&data, &server.victim()], None);
        assert!(log.exists(), "{phase}: {outcome:?}");
    }
}

/// A directory of logs may hold other files, so it must not be taken for one of data.
#[test]
fn the_directory_of_logs_is_not_that_of_data() {
    for phase in PHASES {
        let server = Server::new();
        let outcome = server.start(phase, &[&server.victim()], Some(&server.victim()));
        assert!(server.is_untouched(), "{phase}: {outcome:?}");
    }
}

/// The data directory of mysqld holds the clone itself.
#[test]
fn the_servers_own_data_directory_is_not_emptied() {
    for phase in PHASES {
        let server = Server::new();
        let ibdata1 = server.root.path().join("ibdata1");
        fs::write(&ibdata1, "precious").unwrap();
        fs::create_dir(server.root.path().join(".clone_saved")).unwrap();
        let outcome = server.start(phase, &[server.root.path()], None);
        assert!(ibdata1.exists(), "{phase}: {outcome:?}");
    }
}

/// What is recognised: the saved files of a swap that began with another configuration.
#[test]
fn a_directory_of_an_earlier_configuration_is_followed() {
    let server = Server::new();
    let saved = server.victim().join(".clone_saved");
    fs::create_dir(&saved).unwrap();
    fs::write(saved.join("CURRENT"), "old").unwrap();
    server.start("clear", &[&server.victim()], None).unwrap();
    assert_eq!(fs::read(server.victim().join("CURRENT")).unwrap(), b"old");
    assert!(!saved.exists());
}
