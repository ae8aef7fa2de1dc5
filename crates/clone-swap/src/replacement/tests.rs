// SPDX-License-Identifier: GPL-2.0-only

//! A server whose data is replaced, stopped at every step.

mod innodb;

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::disk::StoppingDisk;
use innodb::{Started, start};

/// Paths and contents. A directory has no content.
type Tree = BTreeMap<String, Option<String>>;

/// The server's own files: `data` is its data directory, `undo` lies elsewhere. A content begins
/// with the side that wrote it.
const OLD: [(&str, &str); 23] = [
    ("data/#ib_16384_0.dblwr", "old pages"),
    ("data/#innodb_redo/#ib_redo7", "old redo"),
    ("data/auto.cnf", "uuid"),
    ("data/binlog.000001", "old log 1"),
    ("data/binlog.000002", "old log 2"),
    ("data/binlog.index", "./binlog.000001\n./binlog.000002\n"),
    ("data/both/changed.ibd", "old changed"),
    ("data/both/only_old.ibd", "old only"),
    ("data/ib_buffer_pool", "old pool"),
    ("data/ibdata1", "old system 1"),
    ("data/ibdata2", "old system 2"),
    ("data/mine/isam.MYD", "old isam"),
    ("data/mine/t.ibd", "old t"),
    ("data/mysql.ibd", "old dictionary"),
    ("data/mysql/general_log.CSV", "log table"),
    ("data/mysql/mine.ibd", "old mysql"),
    ("data/strange/notes.txt", "not MySQL's"),
    ("data/strange/t.ibd", "old strange"),
    ("elsewhere/mine.ibd", "old elsewhere"),
    ("undo/mine.ibu", "old mine"),
    ("undo/undo_001", "old undo 1"),
    ("undo/undo_002", "old undo 2"),
    ("data/system_data", "old system 3"),
];

/// The clone, in its staging directory.
const CLONE: [(&str, &str); 16] = [
    ("#clone/#status_fix", ""),
    ("#innodb_redo/#ib_redo0", "new redo 0"),
    ("#innodb_redo/#ib_redo1", "new redo 1"),
    ("#outside/0.ibd", "new outside"),
    ("#outside/1.ibd", "new far"),
    ("both/changed.ibd", "new changed"),
    ("both/only_new.ibd", "new only"),
    ("ib_buffer_pool", "new pool"),
    ("sys1", "new system 1"),
    ("sys2", "new system 2"),
    ("sys3", "new system 3"),
    ("mysql.ibd", "new dictionary"),
    ("theirs/t.ibd", "new t"),
    ("theirs/deep/ts.ibd", "new ts"),
    ("undo_001", "new undo 1"),
    ("undo_002", "new undo 2"),
];

/// What the server has after the clone.
const NEW: [(&str, &str); 24] = [
    ("data/#ib_16384_0.dblwr", "\0\0\0\0\0\0\0\0\0"),
    ("data/#innodb_redo/#ib_redo0", "new redo 0"),
    ("data/#innodb_redo/#ib_redo1", "new redo 1"),
    ("data/auto.cnf", "uuid"),
    ("data/binlog.index", ""),
    ("data/both/changed.ibd", "new changed"),
    ("data/both/only_new.ibd", "new only"),
    ("data/ib_buffer_pool", "new pool"),
    ("data/ibdata1", "new system 1"),
    ("data/ibdata2", "new system 2"),
    ("data/mysql.ibd", "new dictionary"),
    ("data/mysql/general_log.CSV", "log table"),
    ("data/strange/notes.txt", "not MySQL's"),
    ("data/system_data", "new system 3"),
    ("data/theirs/deep/ts.ibd", "new ts"),
    ("data/theirs/t.ibd", "new t"),
    ("elsewhere/mine.ibd", "new outside"),
    ("far/away/theirs.ibd", "new far"),
    ("undo/undo_001", "new undo 1"),
    ("undo/undo_002", "new undo 2"),
    ("data", "/"),
    ("data/#clone", "/"),
    ("elsewhere", "/"),
    ("undo", "/"),
];

struct Host {
    root: TempDir,
    server: Server,
    staged: Staged,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let files = OLD.iter().map(|(path, _)| *path);
        let is_data = |path: &&str| {
            [".ibd", ".ibu", ".MYD"].iter().any(|end| path.ends_with(end)) || path.contains("undo_")
        };
        let server = Server {
            data_directory: at("data"),
            undo_directory: at("undo"),
            redo_directory: at("data"),
            system_files: ["data/ibdata1", "data/ibdata2", "data/system_data"].map(at).to_vec(),
            buffer_pool_dump: at("data/ib_buffer_pool"),
            doublewrite_files: vec![DoublewriteFile {
                path: at("data/#ib_16384_0.dblwr"),
                size: 9,
            }],
            files: files.filter(is_data).map(at).collect(),
            schema_directories: ["data/both", "data/mine", "data/strange", "data/gone"]
                .map(at)
                .to_vec(),
            binary_log_index: Some(at("data/binlog.index")),
        };
        let staged = Staged {
            directory: at("data/.clone_staging"),
            system_files: ["sys1", "sys2", "sys3"].map(OsString::from).to_vec(),
            undo_files: ["undo_001", "undo_002"].map(OsString::from).to_vec(),
            outside: vec![
                ("#outside/0.ibd".into(), at("elsewhere/mine.ibd")),
                ("#outside/1.ibd".into(), at("far/away/theirs.ibd")),
                ("#outside/2.ibd".into(), at("far/dropped.ibd")),
            ],
        };
        let host = Self { root, server, staged };
        for (path, content) in OLD {
            host.put(&host.root.path().join(path), content);
        }
        for (path, content) in CLONE {
            host.put(&host.staged.directory.join(path), content);
        }
        host
    }

    fn put(&self, path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn data(&self) -> &Path {
        &self.server.data_directory
    }

    /// Everything but the staging directory.
    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        self.walk(self.root.path(), &mut tree);
        tree
    }

    fn walk(&self, directory: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // A file that was being written when the server was killed.
            if path == self.staged.directory || path.extension().is_some_and(|end| end == "new") {
                continue;
            }
            let name = path.strip_prefix(self.root.path()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                self.walk(&path, tree);
                tree.insert(name, None);
            } else {
                tree.insert(name, Some(fs::read_to_string(&path).unwrap()));
            }
        }
    }

    fn plan(&self) -> Replacement {
        Replacement::plan(&self.server, &self.staged).unwrap()
    }

    /// Starts until InnoDB is up, and restores the index.
    fn start(&self, recovers: bool) -> IndexState {
        while start(self.data(), recovers) == Started::Again {}
        restore_index(self.data()).unwrap()
    }

    fn is_old(&self) -> bool {
        let mut now = self.tree();
        now.remove("data/#clone");
        is_same(&now, &Host::new().tree())
    }

    fn is_new(&self) -> bool {
        let content = |text: &str| (text != "/").then(|| text.to_owned());
        let mut expected: Tree =
            NEW.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect();
        for path in expected.clone().into_keys() {
            for parent in Path::new(&path).ancestors().skip(1) {
                let parent = parent.to_str().unwrap().to_owned();
                if !parent.is_empty() {
                    expected.entry(parent).or_insert(None);
                }
            }
        }
        is_same(&self.tree(), &expected)
    }

    /// A disk that stops after `steps`; the directory of undo tablespaces is on another one.
    fn disk(&self, steps: u32) -> StoppingDisk {
        StoppingDisk::new(steps, Some(self.server.undo_directory.clone()))
    }
}

/// Compares, and prints the differences.
fn is_same(now: &Tree, expected: &Tree) -> bool {
    let difference = |one: &Tree, other: &Tree| {
        one.iter()
            .filter(|(path, text)| other.get(*path) != Some(text))
            .map(|(path, _)| path.clone())
            .collect::<Vec<_>>()
    };
    let (there, missing) = (difference(now, expected), difference(expected, now));
    if now != expected {
        println!("there: {there:?}, missing: {missing:?}");
    }
    now == expected
}

fn whole(replacement: &Replacement, disk: &dyn Disk) -> Result<()> {
    replacement.prepare_on(disk)?;
    replacement.commit_on(disk)
}

/// The number of steps of a swap.
fn all_steps() -> u32 {
    (0..500)
        .find(|steps| {
            let host = Host::new();
            whole(&host.plan(), &host.disk(*steps)).is_ok()
        })
        .unwrap()
}

#[test]
fn the_clone_replaces_the_data() {
    let host = Host::new();
    whole(&host.plan(), &host.disk(500)).unwrap();
    assert_eq!(host.start(true), IndexState::AsItWas);
    assert!(host.is_new());
    // The next start changes nothing.
    assert_eq!(host.start(true), IndexState::AsItWas);
    assert!(host.is_new());
}

#[test]
fn until_the_last_step_a_kill_leaves_the_old_data() {
    let all = all_steps();
    assert!(all > 40, "{all}");
    for steps in 0..all {
        let host = Host::new();
        whole(&host.plan(), &host.disk(steps)).unwrap_err();
        // Only the sync of the directory comes after the removal of `#status_error`.
        if steps + 1 == all {
            host.start(true);
            assert!(host.is_new());
        } else {
            assert_ne!(host.start(true), IndexState::InUse(PathBuf::new()));
            assert!(host.is_old(), "{steps} of {all}");
        }
    }
}

#[test]
fn a_clone_that_cannot_be_recovered_leaves_the_old_data() {
    let host = Host::new();
    whole(&host.plan(), &host.disk(500)).unwrap();
    assert_eq!(host.start(false), IndexState::Restored);
    assert!(host.is_old());
}

#[test]
fn a_running_server_goes_back_from_every_step() {
    let all = all_steps();
    for steps in 0..all - 1 {
        let host = Host::new();
        let replacement = host.plan();
        whole(&replacement, &host.disk(steps)).unwrap_err();
        replacement.roll_back_on(&host.disk(500)).unwrap();
        assert!(host.is_old(), "{steps} of {all}");
    }
}

#[test]
fn a_kill_while_a_server_goes_back_leaves_the_old_data() {
    for steps in 0..all_steps() {
        let host = Host::new();
        let replacement = host.plan();
        replacement.prepare_on(&host.disk(500)).unwrap();
        let _ = replacement.roll_back_on(&host.disk(steps));
        host.start(true);
        assert!(host.is_old(), "{steps}");
    }
}

#[test]
fn a_binary_log_that_begins_after_the_swap_goes_too() {
    let host = Host::new();
    let replacement = host.plan();
    whole(&replacement, &host.disk(500)).unwrap();
    // mysqld copies the index that it has open.
    host.put(&host.data().join("binlog.000003"), "old log 3");
    let index = "./binlog.000001\n./binlog.000002\n./binlog.000003\n";
    host.put(&host.data().join("binlog.index"), index);
    replacement.at_shutdown().unwrap();
    host.start(true);
    assert!(host.is_new());
}

#[test]
fn an_index_in_use_is_not_overwritten() {
    let host = Host::new();
    whole(&host.plan(), &host.disk(500)).unwrap();
    while start(host.data(), false) == Started::Again {}
    host.put(&host.data().join("binlog.index"), "./binlog.000003\n");
    let kept = host.data().join("#clone/#binary_log_index");
    assert_eq!(restore_index(host.data()).unwrap(), IndexState::InUse(kept));
}

/// A clone that InnoDB writes over the data, with one file. A crash while the doublewrite buffer is
/// added rolls back, and without a crash the clone brings an empty buffer.
#[test]
fn a_clone_by_innodb_gets_an_empty_doublewrite_buffer() {
    let begin = || {
        let host = Host::new();
        let lists = host.data().join("#clone");
        host.put(&lists.join(STATUS_ERROR), "");
        host.put(&lists.join(REPLACE_FILES), "./ibdata1\n");
        host.put(&host.data().join("ibdata1.#clone"), "new system 1");
        host
    };
    let add = |host: &Host, steps| {
        let files = &host.server.doublewrite_files;
        empty_doublewrite_buffer_on(&StoppingDisk::new(steps, None), host.data(), files)
    };
    let all = (0..50).find(|steps| add(&begin(), *steps).is_ok()).unwrap();
    assert!(all > 2, "{all}");
    for steps in 0..all {
        let host = begin();
        add(&host, steps).unwrap_err();
        host.start(true);
        assert!(host.is_old(), "{steps}");
    }
    let host = begin();
    add(&host, all).unwrap();
    fs::remove_file(host.data().join("#clone").join(STATUS_ERROR)).unwrap();
    host.start(true);
    let tree = host.tree();
    let text = |path: &str| tree[path].clone().unwrap();
    assert_eq!(text("data/ibdata1"), "new system 1");
    assert_eq!(text("data/#ib_16384_0.dblwr"), "\0".repeat(9));
}

#[test]
fn another_number_of_system_files_is_refused() {
    let host = Host::new();
    let mut staged = host.staged.clone();
    staged.system_files.pop();
    let error = Replacement::plan(&host.server, &staged).unwrap_err();
    assert!(matches!(error, Error::SystemFiles { recipient: 3, donor: 2 }), "{error}");
    assert!(host.is_old());
}

#[test]
fn a_foreign_file_is_not_replaced() {
    let host = Host::new();
    let mut server = host.server.clone();
    server.files.retain(|path| !path.ends_with("elsewhere/mine.ibd"));
    let error = Replacement::plan(&server, &host.staged).unwrap_err();
    assert!(matches!(error, Error::FileExists(_)), "{error}");
    assert!(host.is_old());
}

#[test]
fn a_line_break_in_a_name_is_refused() {
    let host = Host::new();
    let mut server = host.server.clone();
    server.files.push(host.root.path().join("a\nb.ibd"));
    let error = Replacement::plan(&server, &host.staged).unwrap_err();
    assert!(matches!(error, Error::LineBreak(_)), "{error}");
}
