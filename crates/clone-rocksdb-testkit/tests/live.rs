// SPDX-License-Identifier: GPL-2.0-only

//! A live RocksDB cloned through the exported C functions, opened, and compared key by key with
//! what it was at the point of the clone.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clone_rocksdb::Client;
use clone_rocksdb::Donor;
use clone_rocksdb::DonorOptions;
use clone_rocksdb::Layout;
use clone_rocksdb::Outcome;
use clone_rocksdb::RocksDb;
use clone_rocksdb_testkit::database::Source;
use clone_rocksdb_testkit::exported;
use clone_rocksdb_testkit::exported::Exported;
use clone_rocksdb_testkit::exported::Renewal;
use clone_rocksdb_testkit::live::Live;
use clone_rocksdb_testkit::live::Settings;
use clone_rocksdb_testkit::load;
use clone_rocksdb_testkit::load::Load;
use clone_rocksdb_testkit::load::Writers;
use clone_rocksdb_testkit::local;
use clone_rocksdb_testkit::node::Node;
use clone_rocksdb_testkit::socket::Pull;
use clone_rocksdb_testkit::socket::Server;
use clone_rocksdb_testkit::verify;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

const LOAD: Load = Load { threads: 2, keys: 2000, pause: Duration::from_micros(200) };

/// Engines of one process need different types.
fn db_type() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(41);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// A donor: a database, registered as a table of C functions.
struct Donating {
    source: Source,
    engine: Arc<Exported>,
    directory: TempDir,
}

impl Donating {
    fn new(mib: u64, settings: Settings) -> Self {
        let (directory, source) = filled(mib, settings);
        let engine =
            exported::register(db_type(), source.clone(), directory.path(), Renewal::default())
                .unwrap();
        Self { source, engine: Arc::new(engine), directory }
    }

    /// As above, but for options that C does not have: checkpoints that are old at once.
    fn renewing(mib: u64, settings: Settings) -> Self {
        let (directory, source) = filled(mib, settings);
        let options = DonorOptions {
            checkpoint_max_age: Duration::from_millis(1),
            // Each checkpoint writes the memtables out: without an end the files would never end.
            checkpoint_max_count: 6,
            ..DonorOptions::default()
        };
        let donor = Donor::new(Arc::new(source.clone()), options);
        let client = Client::new(Layout::rocksdb(directory.path()));
        let engine =
            exported::register_engine(db_type(), Arc::new(RocksDb::new(donor, client))).unwrap();
        Self { source, engine: Arc::new(engine), directory }
    }

    fn live(&self) -> &Arc<Live> {
        self.source.live()
    }

    /// Nothing of a clone is left on the donor's disk.
    #[track_caller]
    fn assert_clean(&self) {
        let hidden: Vec<_> = fs::read_dir(self.live().directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert_eq!(hidden, Vec::<String>::new());
    }
}

fn filled(mib: u64, settings: Settings) -> (TempDir, Source) {
    let directory = tempfile::tempdir().unwrap();
    let live = Node::new(directory.path(), settings).unwrap().open().unwrap();
    load::fill(&live, mib * MIB, 1).unwrap();
    (directory, Source::new(live))
}

/// A recipient: a server with a small database of its own, which a clone replaces.
struct Receiving {
    node: Node,
    engine: Exported,
    _root: TempDir,
}

impl Receiving {
    fn new(settings: Settings) -> Self {
        let root = tempfile::tempdir().unwrap();
        let node = Node::new(root.path(), settings).unwrap();
        let live = node.open().unwrap();
        load::fill(&live, MIB / 8, 2).unwrap();
        let engine =
            exported::register(db_type(), Source::new(live), root.path(), Renewal::default())
                .unwrap();
        Self { node, engine, _root: root }
    }

    /// Stops the server, starts it again, and compares what it has with the donor at the point of
    /// the clone.
    #[track_caller]
    fn verify(self, donating: &Donating) -> verify::Compared {
        drop(self.engine);
        assert_eq!(self.node.swap().unwrap(), Outcome::Swapped);
        let copy = self.node.open().unwrap();
        let expected = donating
            .source
            .cut_at(copy.sequence())
            .unwrap_or_else(|| panic!("there was no cut at write {}", copy.sequence()));
        verify::compare(&expected, &copy).unwrap()
    }
}

#[test]
fn within_a_process_with_one_task_and_with_four() {
    let donating = Donating::new(8, Settings::default());
    let writers = Writers::start(donating.live(), LOAD, 3);
    for tasks in [1, 4] {
        let receiving = Receiving::new(Settings::default());
        let before = writers.batches();
        local::clone(&*donating.engine, &receiving.engine, None, tasks).unwrap();
        let during = writers.batches() - before;
        let compared = receiving.verify(&donating);
        assert!(compared.bytes > 8 * MIB, "{compared:?}");
        assert!(during > 0, "a clone that nobody wrote to");
        donating.assert_clean();
    }
    assert!(writers.stop().unwrap() > 0);
}

#[test]
fn over_sockets_with_four_tasks() {
    let donating = Donating::new(8, Settings::default());
    let server = Server::start(donating.engine.clone()).unwrap();
    let writers = Writers::start(donating.live(), LOAD, 4);
    let receiving = Receiving::new(Settings::default());
    let pull = Pull { address: server.address(), directory: None, tasks: 4, breaks: Vec::new() };
    let pulled = pull.run(&receiving.engine).unwrap();
    assert_eq!(pulled.restarts, 0);
    assert!(pulled.estimate > 8 * MIB, "{pulled:?}");
    receiving.verify(&donating);
    writers.stop().unwrap();
    wait_until_clean(&donating);
}

/// A donor over sockets ends its clone when the recipient has left.
fn wait_until_clean(donating: &Donating) {
    for _ in 0..100 {
        let entries = fs::read_dir(donating.live().directory()).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name());
        if !names.any(|name| name.to_str().unwrap().starts_with(".clone")) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    donating.assert_clean();
}

#[test]
fn logs_elsewhere_values_in_blobs_and_logs_that_are_written_over() {
    let elsewhere = || Some(PathBuf::from("logs"));
    for settings in [
        Settings { wal_directory: elsewhere(), ..Settings::default() },
        Settings { blobs_from: Some(600), ..Settings::default() },
        Settings { recycled_logs: 2, ..Settings::default() },
        Settings {
            wal_directory: elsewhere(),
            blobs_from: Some(600),
            recycled_logs: 2,
            ..Settings::default()
        },
    ] {
        let donating = Donating::new(3, settings.clone());
        let writers = Writers::start(donating.live(), LOAD, 5);
        // The recipient's own settings: its logs may be elsewhere than the donor's.
        for wal_directory in [None, elsewhere()] {
            let receiving = Receiving::new(Settings { wal_directory, ..settings.clone() });
            local::clone(&*donating.engine, &receiving.engine, None, 3).unwrap();
            receiving.verify(&donating);
            donating.assert_clean();
        }
        writers.stop().unwrap();
    }
}

#[test]
fn checkpoints_are_renewed_while_compactions_run() {
    let donating = Donating::renewing(4, Settings::default());
    let writers = Writers::start(donating.live(), Load { pause: Duration::ZERO, ..LOAD }, 6);
    let receiving = Receiving::new(Settings::default());
    thread::scope(|scope| {
        let cloned = scope.spawn(|| local::clone(&*donating.engine, &receiving.engine, None, 3));
        while !cloned.is_finished() {
            donating.live().compact();
        }
        cloned.join().unwrap().unwrap();
    });
    writers.stop().unwrap();
    receiving.verify(&donating);
    donating.assert_clean();
}

#[test]
fn several_clones_of_one_database_at_once() {
    let donating = Donating::renewing(4, Settings::default());
    let server = Server::start(donating.engine.clone()).unwrap();
    let writers = Writers::start(donating.live(), LOAD, 7);
    thread::scope(|scope| {
        for tasks in 1..=3 {
            let (donating, server) = (&donating, &server);
            scope.spawn(move || {
                let receiving = Receiving::new(Settings::default());
                if tasks == 2 {
                    local::clone(&*donating.engine, &receiving.engine, None, tasks).unwrap();
                } else {
                    let pull = Pull {
                        address: server.address(),
                        directory: None,
                        tasks,
                        breaks: Vec::new(),
                    };
                    pull.run(&receiving.engine).unwrap();
                }
                receiving.verify(donating);
            });
        }
    });
    writers.stop().unwrap();
    wait_until_clean(&donating);
}

#[test]
fn a_network_that_breaks_again_and_again() {
    let donating = Donating::renewing(4, Settings::default());
    let server = Server::start(donating.engine.clone()).unwrap();
    let writers = Writers::start(donating.live(), LOAD, 8);
    let mut random = fastrand::Rng::with_seed(9);
    let mut restarts = 0;
    for round in 0..4 {
        let receiving = Receiving::new(Settings::default());
        let breaks: Vec<u64> = (0..4).map(|_| random.u64(0..3 * MIB)).collect();
        let pull = Pull {
            address: server.address(),
            directory: None,
            tasks: 1 + round % 4,
            breaks: breaks.clone(),
        };
        let pulled = pull.run(&receiving.engine);
        // A break before the recipient's engine has begun leaves nothing to resume.
        let pulled = pulled.unwrap_or_else(|error| panic!("{error} {breaks:?}"));
        restarts += pulled.restarts;
        receiving.verify(&donating);
        wait_until_clean(&donating);
    }
    assert!(restarts >= 4, "{restarts}");
    writers.stop().unwrap();
}

#[test]
fn the_copies_of_files_are_exact() {
    let donating = Donating::new(4, Settings { blobs_from: Some(900), ..Settings::default() });
    // Nothing is flushed or compacted from here on, so the live files are those of the clone, but
    // for the log, which grows.
    let target = tempfile::tempdir().unwrap();
    let receiving = Receiving::new(Settings::default());
    local::clone(&*donating.engine, &receiving.engine, Some(target.path()), 3).unwrap();
    let mut batch = clone_rocksdb_testkit::live::Batch::new();
    batch.put(0, b"after", b"the cut");
    donating.live().write(&batch).unwrap();

    let mut kinds = BTreeSet::new();
    for directory in [".rocksdb.cloned", ".rocksdb.wal.cloned"] {
        for entry in fs::read_dir(target.path().join(directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let copy = fs::read(entry.path()).unwrap();
            let kind = name.rsplit('.').next().unwrap();
            let live = fs::read(donating.live().directory().join(&name));
            match kind {
                "sst" | "blob" => assert!(live.unwrap() == copy, "{name}"),
                // The live ones go on; a checkpoint's CURRENT may name a MANIFEST that is the live
                // one's beginning.
                "log" => assert!(live.unwrap().starts_with(&copy), "{name}"),
                _ if name.starts_with("MANIFEST") => {
                    assert!(live.unwrap().starts_with(&copy), "{name}");
                }
                _ if name == "CURRENT" => {
                    let manifest = String::from_utf8(copy).unwrap();
                    let path = target.path().join(directory).join(manifest.trim_end());
                    assert!(path.exists(), "{manifest}");
                }
                _ => assert!(name.starts_with("OPTIONS"), "{name}"),
            }
            kinds.insert(kind.split('-').next().unwrap().to_owned());
        }
    }
    let expected = ["CURRENT", "MANIFEST", "OPTIONS", "blob", "sst"].map(str::to_owned);
    assert!(kinds.is_superset(&BTreeSet::from(expected)), "{kinds:?}");
}

#[test]
fn a_recipient_that_cannot_write_ends_the_clone_at_the_donor() {
    let donating = Donating::new(4, Settings::default());
    let server = Server::start(donating.engine.clone()).unwrap();
    let receiving = Receiving::new(Settings::default());
    let target = Path::new("/proc/no/such/directory");
    let pull = Pull {
        address: server.address(),
        directory: Some(target.to_owned()),
        tasks: 2,
        breaks: Vec::new(),
    };
    let error = pull.run(&receiving.engine).unwrap_err();
    assert!(!error.is_network(), "{error}");
    // The next one is welcome, and what the first held is given back.
    let pull = Pull { directory: None, ..pull };
    pull.run(&receiving.engine).unwrap();
    receiving.verify(&donating);
    assert!(donating.directory.path().exists());
}
