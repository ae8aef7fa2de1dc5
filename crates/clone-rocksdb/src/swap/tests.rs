// SPDX-License-Identifier: GPL-2.0-only

//! Every layout, stopped at every step, and gone on with.

use std::collections::BTreeMap;
use std::fs;

use clone_swap::disk::StoppingDisk;
use tempfile::TempDir;

use super::*;

/// Names and contents of files.
type Files = &'static [(&'static str, &'static str)];

/// A database: its files but the logs, and its logs.
type Database = Option<(Files, Files)>;

fn is_stopped<T>(outcome: &Result<T>) -> bool {
    matches!(outcome, Err(Error::File { errno: StoppingDisk::STOPPED, .. }))
}

/// Where a database has its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wal {
    Same,
    Separate,
    /// Renames into it fail.
    OtherDevice,
    /// The server's data directory, where other logs are.
    Root,
}

/// What is there before the swap.
#[derive(Clone, Copy, Debug)]
struct Case {
    wal: Wal,
    /// A database is there.
    old: bool,
    /// Things that earlier crashes left.
    leftovers: bool,
}

const CASES: [Case; 8] = [
    Case { wal: Wal::Same, old: true, leftovers: false },
    Case { wal: Wal::Same, old: false, leftovers: false },
    Case { wal: Wal::Same, old: true, leftovers: true },
    Case { wal: Wal::Separate, old: true, leftovers: false },
    Case { wal: Wal::Separate, old: false, leftovers: true },
    Case { wal: Wal::OtherDevice, old: true, leftovers: true },
    Case { wal: Wal::OtherDevice, old: false, leftovers: false },
    Case { wal: Wal::Root, old: true, leftovers: false },
];

struct Server {
    directory: TempDir,
    case: Case,
}

/// In memory where there is such a file system: thousands of servers are made.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

type Content = BTreeMap<String, String>;

impl Server {
    fn new(case: Case) -> Self {
        let server = Self { directory: scratch(), case };
        server.put("ibdata1", "innodb");
        server.put("mysqld.log", "started");
        if case.old {
            server.put_database(OLD_FILES, OLD_WALS);
        }
        if case.leftovers {
            server.put("db/.clone_saved/000001.sst", "stale");
            server.put(".rocksdb.swap.new", "clone sw");
        }
        server
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn wal_name(&self) -> &'static str {
        match self.case.wal {
            Wal::Same => "db",
            Wal::Separate | Wal::OtherDevice => "wal",
            Wal::Root => ".",
        }
    }

    fn put_database(&self, files: &[(&str, &str)], wals: &[(&str, &str)]) {
        for (directory, files) in [("db", files), (self.wal_name(), wals)] {
            for (name, content) in files {
                self.put(&format!("{directory}/{name}"), content);
            }
        }
    }

    /// A clone that waits to be put in place.
    fn put_clone(&self) {
        for (directory, files) in
            [(".rocksdb.cloned", NEW_FILES), (".rocksdb.wal.cloned", NEW_WALS)]
        {
            fs::create_dir(self.root().join(directory)).unwrap();
            for (name, content) in files {
                self.put(&format!("{directory}/{name}"), content);
            }
        }
    }

    fn swap(&self) -> Swap {
        let wal = (self.case.wal != Wal::Same).then(|| Path::new(self.wal_name()));
        Swap::new(&Layout::rocksdb(self.root()), Path::new("db"), wal)
    }

    fn disk(&self, steps: u32) -> StoppingDisk {
        let other = (self.case.wal == Wal::OtherDevice).then(|| self.root().join("wal"));
        StoppingDisk::new(steps, other)
    }

    fn run(&self, standing: Standing) -> Result<Outcome> {
        self.swap().run_on(&self.disk(u32::MAX), standing)
    }

    /// All files, and directories as such.
    fn content(&self) -> Content {
        let mut content = Content::new();
        collect(self.root(), "", &mut content);
        content
    }

    /// What must be there when all is done.
    fn expected(&self, database: Database) -> Content {
        let mut content = Content::from([
            ("ibdata1".to_owned(), "innodb".to_owned()),
            ("mysqld.log".to_owned(), "started".to_owned()),
        ]);
        let (files, wals) = database.unwrap_or_default();
        for (directory, files) in [("db/", files), (self.wal_name(), wals)] {
            let prefix = if directory == "." {
                String::new()
            } else {
                format!("{}/", directory.trim_end_matches('/'))
            };
            for (name, text) in files {
                content.insert(format!("{prefix}{name}"), (*text).to_owned());
            }
        }
        content
    }
}

/// Empty directories do not count: an engine makes what it needs.
fn collect(directory: &Path, prefix: &str, content: &mut Content) {
    for entry in RealDisk.list(directory).unwrap().unwrap() {
        let name = format!("{prefix}{}", entry.name.to_str().unwrap());
        let path = directory.join(&entry.name);
        if entry.is_directory {
            collect(&path, &format!("{name}/"), content);
        } else {
            content.insert(name, fs::read_to_string(path).unwrap());
        }
    }
}

// Names that are in both are what a mistake would mix up.
const OLD_FILES: Files = &[
    ("CURRENT", "old"),
    ("MANIFEST-000002", "old"),
    ("000003.sst", "old"),
    ("000009.sst", "old"),
    ("LOCK", ""),
];
const OLD_WALS: Files =
    &[("000005.log", "old"), ("000006.log", "old"), ("archive/000001.log", "old")];
const NEW_FILES: Files =
    &[("CURRENT", "new"), ("MANIFEST-000002", "new"), ("000003.sst", "new"), ("000007.sst", "new")];
const NEW_WALS: Files = &[("000006.log", "new"), ("000008.log", "new")];

const NEW: Database = Some((NEW_FILES, NEW_WALS));

fn old(case: Case) -> Database {
    case.old.then_some((OLD_FILES, OLD_WALS))
}

/// Runs `call` stopped after 0, 1, 2... steps until it is not stopped any more; each time on a
/// server made anew, and with `check` afterwards. Gives how many steps it took.
fn at_every_step(
    case: Case,
    prepare: impl Fn(&Server),
    call: impl Fn(&Server, &StoppingDisk) -> Result<Outcome>,
    check: impl Fn(&Server, u32),
) -> u32 {
    for steps in 0..10_000 {
        let server = Server::new(case);
        prepare(&server);
        let outcome = call(&server, &server.disk(steps));
        check(&server, steps);
        if !is_stopped(&outcome) {
            outcome.unwrap();
            return steps;
        }
    }
    panic!("it does not end");
}

#[test]
fn a_stopped_swap_is_finished_by_the_next_start() {
    for case in CASES {
        let steps = at_every_step(
            case,
            Server::put_clone,
            |server, disk| server.swap().run_on(disk, Standing::Pending),
            |server, steps| {
                // Stopped again at each of the next steps on the way, as a server that crashes when
                // it starts.
                for more in 0..8 {
                    let _ = server.swap().run_on(&server.disk(more), Standing::Pending);
                }
                let last = server.run(Standing::Pending).unwrap();
                assert!(
                    matches!(last, Outcome::Swapped | Outcome::Kept),
                    "{case:?} {steps} {last:?}"
                );
                assert_eq!(
                    server.run(Standing::Settled).unwrap(),
                    Outcome::Committed,
                    "{case:?} {steps}"
                );
                let mut content = server.content();
                content.remove(".rocksdb.swap.new");
                assert_eq!(content, server.expected(NEW), "{case:?} {steps}");
                assert_eq!(server.run(Standing::Settled).unwrap(), Outcome::Nothing);
            },
        );
        assert!(steps > 20, "{steps}");
    }
}

#[test]
fn a_stopped_swap_is_rolled_back_if_innodb_rolls_back() {
    for case in CASES {
        at_every_step(
            case,
            Server::put_clone,
            |server, disk| server.swap().run_on(disk, Standing::Pending),
            |server, steps| {
                for more in 0..8 {
                    let _ = server.swap().run_on(&server.disk(more), Standing::RolledBack);
                }
                let last = server.run(Standing::RolledBack).unwrap();
                let is_known =
                    matches!(last, Outcome::RolledBack | Outcome::Discarded | Outcome::Nothing);
                assert!(is_known, "{case:?} {steps} {last:?}");
                check_old(server, case, steps);
            },
        );
    }
}

#[test]
fn a_stopped_roll_back_is_finished_whatever_innodb_says_then() {
    for case in CASES {
        for standing in [Standing::RolledBack, Standing::Settled, Standing::Pending] {
            at_every_step(
                case,
                |server| {
                    server.put_clone();
                    assert_eq!(server.run(Standing::Pending).unwrap(), Outcome::Swapped);
                    server.put("db/000020.sst", "written since");
                },
                |server, disk| server.swap().run_on(disk, Standing::RolledBack),
                |server, steps| {
                    if steps == 0 && standing != Standing::RolledBack {
                        return; // Nothing says yet that it is to be rolled back.
                    }
                    let journal = fs::read_to_string(server.root().join(".rocksdb.swap"));
                    if standing != Standing::RolledBack
                        && journal.is_ok_and(|text| text.contains("swapped"))
                    {
                        return;
                    }
                    server.run(standing).unwrap();
                    check_old(server, case, steps);
                },
            );
        }
    }
}

#[test]
fn a_roll_back_in_the_middle_of_a_swap_can_be_stopped_too() {
    let journal = |server: &Server| fs::read_to_string(server.root().join(".rocksdb.swap"));
    let is_moving = |server: &Server| journal(server).is_ok_and(|text| text.contains("move"));
    for case in CASES {
        for moved in [1, 3] {
            let interrupted = |server: &Server| {
                server.put_clone();
                let mut steps = 0;
                while !is_moving(server) {
                    assert!(is_stopped(
                        &server.swap().run_on(&server.disk(steps), Standing::Pending)
                    ));
                    steps += 1;
                }
                // Some of the new files are in place, the others are not.
                let stopped = server.swap().run_on(&server.disk(moved), Standing::Pending);
                assert!(is_stopped(&stopped));
            };
            at_every_step(
                case,
                interrupted,
                |server, disk| server.swap().run_on(disk, Standing::RolledBack),
                |server, steps| {
                    if is_moving(server) {
                        return; // Nothing says yet that it is to be rolled back.
                    }
                    server.run(Standing::Settled).unwrap();
                    check_old(server, case, steps);
                },
            );
        }
    }
}

#[track_caller]
fn check_old(server: &Server, case: Case, steps: u32) {
    let mut content = server.content();
    content.remove(".rocksdb.swap.new");
    // A stale directory is only removed by what goes through with a swap.
    content
        .retain(|name, text| !(case.leftovers && text == "stale" && name.contains("clone_saved")));
    assert_eq!(content, server.expected(old(case)), "{case:?} {steps}");
    assert_eq!(server.run(Standing::Settled).unwrap(), Outcome::Nothing);
}

#[test]
fn a_stopped_commit_is_finished_by_the_next_start() {
    for case in CASES {
        at_every_step(
            case,
            |server| {
                server.put_clone();
                server.run(Standing::Pending).unwrap();
            },
            |server, disk| server.swap().run_on(disk, Standing::Settled),
            |server, steps| {
                let outcome = server.run(Standing::Settled).unwrap();
                assert!(matches!(outcome, Outcome::Committed | Outcome::Nothing), "{outcome:?}");
                let mut content = server.content();
                content.remove(".rocksdb.swap.new");
                assert_eq!(content, server.expected(NEW), "{case:?} {steps}");
            },
        );
    }
}

#[test]
fn what_is_not_complete_goes_and_the_old_stays() {
    for case in CASES {
        let incomplete = |server: &Server| {
            server.put_clone();
            server.put(".rocksdb.cloned/.clone_in_progress", "");
        };
        at_every_step(
            case,
            incomplete,
            |server, disk| server.swap().run_on(disk, Standing::Settled),
            |server, steps| {
                let outcome = server.run(Standing::Settled).unwrap();
                assert!(matches!(outcome, Outcome::Discarded | Outcome::Nothing), "{outcome:?}");
                check_old(server, case, steps);
            },
        );
    }
}

#[test]
fn half_a_server_is_not_started() {
    let server = Server::new(CASES[0]);
    server.put_clone();
    server.put(".rocksdb.cloned/.clone_in_progress", "");
    let before = server.content();
    assert!(matches!(server.run(Standing::Pending), Err(Error::Internal(_))));
    assert_eq!(server.content(), before);
    assert_eq!(server.run(Standing::RolledBack).unwrap(), Outcome::Discarded);
}

#[test]
fn a_server_that_came_up_settles_the_swap() {
    let server = Server::new(CASES[0]);
    server.swap().settle(Standing::Settled).unwrap();
    server.put_clone();
    server.run(Standing::Pending).unwrap();
    server.swap().settle(Standing::Pending).unwrap();
    assert!(server.root().join("db/.clone_saved").exists());
    server.swap().settle(Standing::Settled).unwrap();
    assert_eq!(server.content(), server.expected(NEW));
}

/// A client that is stopped leaves nothing that would be taken for a clone.
#[test]
fn a_client_that_is_stopped_while_it_begins_leaves_no_clone() {
    let case = CASES[0];
    for earlier_clone in [false, true] {
        at_every_step(
            case,
            |server| {
                if earlier_clone {
                    server.put_clone()
                }
            },
            |server, disk| Storage(disk).prepare(&server.swap().places).map(|()| Outcome::Nothing),
            |server, steps| {
                // Before the first step an earlier clone that is complete is still that.
                if earlier_clone && steps == 0 {
                    return;
                }
                assert_ne!(server.run(Standing::Settled).unwrap(), Outcome::Swapped, "{steps}");
                assert_eq!(server.content(), server.expected(old(case)), "{steps}");
            },
        );
    }
}

#[test]
fn a_client_that_is_stopped_while_it_ends_leaves_all_or_nothing() {
    let case = CASES[0];
    at_every_step(
        case,
        |server| {
            server.put_clone();
            server.put(".rocksdb.cloned/.clone_in_progress", "");
        },
        |server, disk| Storage(disk).complete(&server.swap().places).map(|()| Outcome::Nothing),
        |server, steps| {
            let (database, outcome) =
                match server.root().join(".rocksdb.cloned/.clone_in_progress").exists() {
                    true => (old(case), Outcome::Discarded),
                    false => (NEW, Outcome::Swapped),
                };
            assert_eq!(server.run(Standing::Settled).unwrap(), outcome, "{steps}");
            server.run(Standing::Settled).unwrap();
            assert_eq!(server.content(), server.expected(database), "{steps}");
        },
    );
}

#[test]
fn directories_that_are_links_stay_links() {
    let server = Server::new(Case { wal: Wal::Same, old: true, leftovers: false });
    let elsewhere = scratch();
    let target = elsewhere.path().join("ssd");
    fs::rename(server.root().join("db"), &target).unwrap();
    std::os::unix::fs::symlink(&target, server.root().join("db")).unwrap();
    server.put_clone();
    assert_eq!(server.run(Standing::Settled).unwrap(), Outcome::Swapped);
    assert_eq!(fs::read_to_string(target.join("CURRENT")).unwrap(), "new");
    assert!(server.root().join("db").is_symlink());
    server.run(Standing::Settled).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), NEW_FILES.len() + NEW_WALS.len());
}

#[test]
fn the_directories_of_the_journal_count() {
    let mut resumed = 0;
    for steps in 0.. {
        let server = Server::new(Case { wal: Wal::Separate, old: true, leftovers: false });
        server.put_clone();
        let outcome = server.swap().run_on(&server.disk(steps), Standing::Settled);
        if !is_stopped(&outcome) {
            break;
        }
        if !server.root().join(".rocksdb.swap").exists() {
            continue;
        }
        // Started again with another directory for the logs.
        let moved = Swap::new(&Layout::rocksdb(server.root()), Path::new("db"), None);
        // The last step of all is to make durable that the swap is done.
        let outcome = moved.run(Standing::Settled).unwrap();
        assert!([Outcome::Swapped, Outcome::Committed].contains(&outcome), "{steps}: {outcome:?}");
        moved.run(Standing::Settled).unwrap();
        assert_eq!(server.content(), server.expected(NEW), "{steps}");
        resumed += 1;
    }
    assert!(resumed > 10, "{resumed}");
}

#[test]
fn a_journal_that_cannot_be_read_stops_the_server() {
    let server = Server::new(CASES[0]);
    server.put(".rocksdb.swap", "something else\n");
    let before = server.content();
    assert!(matches!(server.run(Standing::Settled), Err(Error::Internal(_))));
    assert_eq!(server.content(), before);
}

#[test]
fn a_database_in_the_data_directory_itself_is_refused() {
    let server = Server::new(CASES[0]);
    let swap = Swap::new(&Layout::rocksdb(server.root()), Path::new("."), None);
    assert!(matches!(swap.run(Standing::Settled), Err(Error::Internal(_))));
}

#[test]
fn innodbs_files_say_how_it_stands() {
    let server = Server::new(CASES[0]);
    assert_eq!(Standing::of_innodb(server.root()), Standing::Settled);
    server.put("#clone/#status_fix", "");
    assert_eq!(Standing::of_innodb(server.root()), Standing::Pending);
    server.put("#clone/#status_error", "");
    assert_eq!(Standing::of_innodb(server.root()), Standing::RolledBack);
}
