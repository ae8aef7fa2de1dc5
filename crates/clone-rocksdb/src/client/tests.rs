// SPDX-License-Identifier: GPL-2.0-only

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clone_engine::{View, number};
use clone_protocol::rocksdb::{
    AddEstimate, Descriptor, FileChunk, FileName, FileNameMap, FileSize, FileState,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Outcome, Standing, Swap};

#[derive(Default)]
struct TestSession {
    is_killed: AtomicBool,
}

impl Session for TestSession {
    fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }
}

/// What the next DATA packet brings, and what the client says of it.
#[derive(Default)]
struct Packet<'a> {
    data: &'a [u8],
    error: Option<Error>,
    estimate: u64,
    written_to: Option<String>,
}

impl Callbacks for Packet<'_> {
    fn file(&mut self, _: &View<'_>, _: BorrowedFd<'_>, _: u32) -> Result<()> {
        panic!("a donor's callback")
    }
    fn buffer(&mut self, _: &View<'_>, _: &[u8]) -> Result<()> {
        panic!("this engine has no states")
    }
    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.written_to = Some(view.destination_name.to_owned());
        let mut file = fs::File::from(file.try_clone_to_owned().unwrap());
        file.write_all(self.data).unwrap();
        self.error.take().map_or(Ok(()), Err)
    }
    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        panic!("files are written, not read")
    }
    fn add_estimate(&mut self, bytes: u64) {
        self.estimate += bytes;
    }
}

/// A client, and what a donor says to it.
struct Fixture {
    directory: TempDir,
    client: Client,
    session: TestSession,
    locator: Vec<u8>,
}

const CLONE: u64 = 7;

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let client = Client::new(Layout::rocksdb(directory.path()));
        Self { client, directory, session: TestSession::default(), locator: locator(CLONE) }
    }

    fn started() -> Self {
        let fixture = Self::new();
        assert_eq!(fixture.begin(Mode::Start).unwrap().task, 0);
        fixture
    }

    fn begin(&self, mode: Mode) -> Result<Begun> {
        self.client.apply_begin(&self.session, Some(&self.locator), mode, None)
    }

    fn apply(&self, task: u32, descriptor: Descriptor<'_>, packet: &mut Packet<'_>) -> Result<()> {
        let bytes = descriptor.to_bytes();
        self.client.apply(&self.session, &self.locator, task, &bytes, packet)
    }

    fn map(&self, file: u64, name: &str, size: u64) -> Result<()> {
        self.apply(0, file_name_map(file, name, size), &mut Packet::default())
    }

    fn chunk(&self, file: u64, data: &[u8]) -> Result<()> {
        let len = u32::try_from(data.len()).unwrap();
        let mut packet = Packet { data, ..Packet::default() };
        self.apply(0, Descriptor::FileChunk(FileChunk { file, len }), &mut packet)
    }

    fn estimate(&self) {
        let estimate = Descriptor::AddEstimate(AddEstimate { bytes: 1 });
        self.apply(0, estimate, &mut Packet::default()).unwrap();
    }

    /// A file that is complete.
    fn file(&self, file: u64, name: &str, data: &[u8]) {
        self.map(file, name, data.len() as u64).unwrap();
        if !data.is_empty() {
            self.chunk(file, data).unwrap();
        }
    }

    fn end(&self, task: u32, error: u32) -> Result<()> {
        self.client.apply_end(&self.session, &self.locator, task, error)
    }

    fn restart_states(&self) -> BTreeMap<u64, u64> {
        let begun = self.begin(Mode::Restart).unwrap();
        assert_eq!(begun.task, 0);
        let Ok(Locator::Clone { id, states }) = Locator::parse(&begun.locator) else { panic!() };
        assert_eq!(id.get(), CLONE);
        states.into_iter().map(|FileState { file, applied }| (file, applied.get())).collect()
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.path().join(name)).ok()
    }

    fn is_marked(&self) -> bool {
        self.read(".rocksdb.cloned/.clone_in_progress").is_some()
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.directory.path()).unwrap().next().is_none()
    }
}

fn locator(id: u64) -> Vec<u8> {
    Locator::of(CloneId::new(id).unwrap()).to_bytes()
}

fn file_name_map(file: u64, name: &str, size: u64) -> Descriptor<'_> {
    let (size, name) = (FileSize::new(size).unwrap(), FileName::new(name.as_bytes()).unwrap());
    Descriptor::FileNameMap(FileNameMap { file, size, name })
}

#[track_caller]
fn assert_protocol<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.number(), number::ER_CLONE_PROTOCOL, "{error}");
}

#[test]
fn a_clone_ends_complete() {
    let fixture = Fixture::started();
    assert!(fixture.is_marked());
    fixture.estimate();
    fixture.file(0, "000010.sst", b"table");
    fixture.file(1, "000011.log", b"log");
    fixture.file(2, "CURRENT", b"MANIFEST-000009\n");
    fixture.map(3, "000012.sst", 8).unwrap();
    fixture.chunk(3, b"in ").unwrap();
    fixture.chunk(3, b"parts").unwrap();
    assert!(fixture.is_marked());
    fixture.end(0, 0).unwrap();
    assert!(!fixture.is_marked());
    assert_eq!(fixture.read(".rocksdb.cloned/000010.sst").unwrap(), b"table");
    assert_eq!(fixture.read(".rocksdb.cloned/000012.sst").unwrap(), b"in parts");
    assert_eq!(fixture.read(".rocksdb.wal.cloned/000011.log").unwrap(), b"log");
    let swap = Swap::new(&Layout::rocksdb(fixture.directory.path()), Path::new(".rocksdb"), None);
    assert_eq!(swap.run(Standing::Settled).unwrap(), Outcome::Swapped);
    assert_eq!(fixture.read(".rocksdb/000011.log").unwrap(), b"log");
    assert_eq!(fixture.read(".rocksdb/000012.sst").unwrap(), b"in parts");
}

#[test]
fn files_of_0_bytes_are_complete_at_once() {
    let fixture = Fixture::started();
    fixture.estimate();
    fixture.map(0, "CURRENT", 0).unwrap();
    fixture.map(1, "000001.log", 0).unwrap();
    assert_protocol(fixture.chunk(1, b"x"));
    let fixture = Fixture::started();
    fixture.estimate();
    fixture.map(0, "CURRENT", 0).unwrap();
    assert_eq!(fixture.restart_states(), BTreeMap::from([(0, 0)]));
    fixture.map(0, "CURRENT", 0).unwrap();
    fixture.end(0, 0).unwrap();
    assert_eq!(fixture.read(".rocksdb.cloned/CURRENT").unwrap(), b"");
}

#[test]
fn a_clone_that_is_not_complete_fails_and_leaves_nothing() {
    let parts: [fn(&Fixture); 4] = [
        |fixture| fixture.file(0, "CURRENT", b"without an estimate"),
        |fixture| fixture.estimate(),
        |fixture| {
            fixture.estimate();
            fixture.file(0, "CURRENT", b"x");
            fixture.map(1, "000001.sst", 1).unwrap();
        },
        |fixture| {
            fixture.estimate();
            fixture.map(1, "CURRENT", 3).unwrap();
            fixture.chunk(1, b"ab").unwrap();
        },
    ];
    for part in parts {
        let fixture = Fixture::started();
        part(&fixture);
        assert_protocol(fixture.end(0, 0));
        assert!(fixture.is_clean());
        // And another clone can begin.
        fixture.begin(Mode::Start).unwrap();
    }
}

#[test]
fn an_end_with_an_error_leaves_nothing() {
    let fixture = Fixture::started();
    fixture.estimate();
    fixture.file(0, "CURRENT", b"x");
    fixture.end(0, 1317).unwrap();
    assert!(fixture.is_clean());
    assert_protocol(fixture.end(0, 0));
}

#[test]
fn version_touches_nothing() {
    let fixture = Fixture::new();
    let begun = fixture.client.apply_begin(&fixture.session, None, Mode::Version, None).unwrap();
    assert_eq!(begun, Begun { locator: Locator::Version.to_bytes(), task: 0 });
    fixture.client.apply_end(&fixture.session, &begun.locator, 0, 0).unwrap();
    assert!(fixture.is_clean());
}

#[test]
fn locators_that_do_not_fit() {
    let fixture = Fixture::new();
    let begin = |locator: Option<&[u8]>, mode| {
        fixture.client.apply_begin(&fixture.session, locator, mode, None)
    };
    assert_protocol(begin(None, Mode::Start));
    assert_protocol(begin(Some(&Locator::Version.to_bytes()), Mode::Start));
    assert_protocol(begin(Some(b"none"), Mode::Start));
    assert_protocol(begin(Some(&fixture.locator), Mode::AddTask));
    assert_protocol(begin(Some(&fixture.locator), Mode::Restart));
    let state = FileState { file: 1, applied: FileSize::default() };
    let id = CloneId::new(CLONE).unwrap();
    let with_states = Locator::Clone { id, states: vec![state] }.to_bytes();
    assert_protocol(begin(Some(&with_states), Mode::Start));
    assert!(fixture.is_clean());

    begin(Some(&fixture.locator), Mode::Start).unwrap();
    let other = locator(8);
    assert_protocol(begin(Some(&other), Mode::AddTask));
    assert_protocol(begin(Some(&other), Mode::Restart));
    assert_eq!(begin(Some(&other), Mode::Start).unwrap_err(), Error::TooManyClones);
    let estimate = Descriptor::AddEstimate(AddEstimate { bytes: 1 }).to_bytes();
    let mut packet = Packet::default();
    assert_protocol(fixture.client.apply(&fixture.session, &other, 0, &estimate, &mut packet));
    assert_protocol(fixture.client.apply_end(&fixture.session, &other, 0, 0));
    // A restart locator is one of the same clone.
    fixture.client.apply(&fixture.session, &with_states, 0, &estimate, &mut packet).unwrap();
    assert_eq!(packet.estimate, 1);
}

#[test]
fn a_restart_is_into_the_same_directory() {
    let fixture = Fixture::started();
    let other = fixture.directory.path().join("other");
    let restarted = fixture.client.apply_begin(
        &fixture.session,
        Some(&fixture.locator),
        Mode::Restart,
        Some(&other),
    );
    assert_protocol(restarted);
}

#[test]
fn a_clone_into_a_directory() {
    let fixture = Fixture::new();
    let target = fixture.directory.path().join("new/server");
    let begin = |mode| {
        fixture.client.apply_begin(&fixture.session, Some(&fixture.locator), mode, Some(&target))
    };
    begin(Mode::Start).unwrap();
    fixture.estimate();
    fixture.file(0, "CURRENT", b"x");
    begin(Mode::Restart).unwrap();
    fixture.end(0, 0).unwrap();
    assert_eq!(fs::read(target.join(".rocksdb.cloned/CURRENT")).unwrap(), b"x");
}

#[test]
fn what_an_earlier_clone_left_goes() {
    let fixture = Fixture::new();
    for name in [".rocksdb.cloned/000001.sst", ".rocksdb.wal.cloned/000001.log"] {
        let path = fixture.directory.path().join(name);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(path, b"old").unwrap();
    }
    fixture.begin(Mode::Start).unwrap();
    assert!(fixture.is_marked());
    assert_eq!(fixture.read(".rocksdb.cloned/000001.sst"), None);
    assert_eq!(fixture.read(".rocksdb.wal.cloned/000001.log"), None);
}

#[test]
fn a_swap_that_is_not_finished_keeps_clones_away() {
    let fixture = Fixture::new();
    let journal = fixture.directory.path().join(".rocksdb.swap");
    fs::write(&journal, "clone swap 1\nmove\n/data\n").unwrap();
    assert!(matches!(fixture.begin(Mode::Start), Err(Error::Internal(_))));
    let version = fixture.client.apply_begin(&fixture.session, None, Mode::Version, None);
    assert!(matches!(version, Err(Error::Internal(_))));
    // One that is finished is settled by a server that runs on it.
    let live = fixture.directory.path().join(".rocksdb");
    fs::create_dir_all(live.join(".clone_saved")).unwrap();
    fs::write(&journal, format!("clone swap 1\nswapped\n{}\n", live.display())).unwrap();
    fixture.client.apply_begin(&fixture.session, None, Mode::Version, None).unwrap();
    assert!(!live.join(".clone_saved").exists());
    fixture.begin(Mode::Start).unwrap();
}

#[test]
fn hostile_descriptors() {
    type Case = (&'static str, fn(&Fixture) -> Result<()>);
    let cases: [Case; 8] = [
        ("chunk of an unknown file", |fixture| fixture.chunk(4, b"x")),
        ("chunk past the end", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.chunk(4, b"1234")
        }),
        ("chunk after the end", |fixture| {
            fixture.file(4, "000001.sst", b"123");
            fixture.chunk(4, b"1")
        }),
        ("one name twice", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.map(5, "000001.sst", 3)
        }),
        ("one number twice", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.map(4, "000002.sst", 3)
        }),
        ("another size", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.map(4, "000001.sst", 4)
        }),
        ("again when something has come", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.chunk(4, b"1")?;
            fixture.map(4, "000001.sst", 3)
        }),
        ("more than a file system", |fixture| {
            fixture.map(4, "000001.sst", i64::MAX.unsigned_abs())?;
            fixture.map(5, "000002.sst", 1)
        }),
    ];
    for (what, case) in cases {
        let fixture = Fixture::started();
        let error = case(&fixture).unwrap_err();
        assert_eq!(error.number(), number::ER_CLONE_PROTOCOL, "{what}: {error}");
        // The clone has failed for all.
        let later = fixture.map(9, "000009.sst", 1);
        assert_eq!(later.unwrap_err(), error, "{what}");
        assert_eq!(fixture.end(0, 0).unwrap_err(), error, "{what}");
        assert!(fixture.is_clean(), "{what}");
    }
}

#[test]
fn no_more_files_than_are_believable() {
    let fixture = Fixture::started();
    let mut file = 0;
    let error = loop {
        match fixture.map(file, &format!("{file}.sst"), 1) {
            Ok(()) => file += 1,
            Err(error) => break error,
        }
        assert!(file < 5000);
    };
    assert_eq!(error.number(), number::ER_CLONE_PROTOCOL);
}

/// The recipient writes what the packet holds; the engine looks whether it was what the descriptor said.
#[test]
fn packets_of_another_length() {
    for data in [&b"12"[..], b"1234"] {
        let fixture = Fixture::started();
        fixture.map(1, "000001.sst", 10).unwrap();
        let mut packet = Packet { data, ..Packet::default() };
        let chunk = Descriptor::FileChunk(FileChunk { file: 1, len: 3 });
        assert_protocol(fixture.apply(0, chunk, &mut packet));
        let name = packet.written_to.unwrap();
        assert!(name.ends_with("/.rocksdb.cloned/000001.sst"), "{name}");
    }
}

#[test]
fn a_restart_goes_on_where_it_broke() {
    let fixture = Fixture::started();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.estimate();
    fixture.file(0, "000001.sst", b"complete");
    fixture.map(1, "000002.sst", 6).unwrap();
    fixture.chunk(1, b"abc").unwrap();
    fixture.map(2, "CURRENT", 2).unwrap();
    // The packet breaks off in its middle.
    let broken = Error::Raised(number::ER_NET_READ_ERROR);
    let mut packet = Packet { data: b"X", error: Some(broken.clone()), ..Packet::default() };
    let chunk = Descriptor::FileChunk(FileChunk { file: 1, len: 3 });
    assert_eq!(fixture.apply(worker, chunk, &mut packet).unwrap_err(), broken);
    assert_eq!(fixture.chunk(2, b"ab").unwrap_err(), broken, "the others stop");
    fixture.end(worker, number::ER_NET_READ_ERROR).unwrap();

    assert_eq!(fixture.restart_states(), BTreeMap::from([(0, 8), (1, 3), (2, 0)]));
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.map(2, "CURRENT", 2).unwrap();
    fixture.chunk(2, b"ab").unwrap();
    let mut packet = Packet { data: b"def", ..Packet::default() };
    fixture.apply(worker, chunk, &mut packet).unwrap();
    fixture.end(worker, 0).unwrap();
    fixture.end(0, 0).unwrap();
    assert_eq!(fixture.read(".rocksdb.cloned/000002.sst").unwrap(), b"abcdef");
}

#[test]
fn an_error_that_is_not_the_networks_replaces_one_that_is() {
    let fixture = Fixture::started();
    let fail = |error| fixture.client.apply_error(&fixture.session, &fixture.locator, 0, error);
    fail(number::ER_NET_READ_ERROR).unwrap();
    assert_eq!(fixture.map(0, "a", 1).unwrap_err().number(), number::ER_NET_READ_ERROR);
    fail(number::ER_ERROR_ON_WRITE).unwrap();
    fail(number::ER_QUERY_INTERRUPTED).unwrap();
    assert_eq!(fixture.map(0, "a", 1).unwrap_err().number(), number::ER_ERROR_ON_WRITE);
    assert_eq!(fixture.begin(Mode::AddTask).unwrap_err().number(), number::ER_ERROR_ON_WRITE);
    assert_eq!(fixture.end(0, 0).unwrap_err().number(), number::ER_ERROR_ON_WRITE);
}

#[test]
fn task_numbers_are_verified() {
    let fixture = Fixture::started();
    let estimate = Descriptor::AddEstimate(AddEstimate { bytes: 1 });
    assert_protocol(fixture.apply(1, estimate, &mut Packet::default()));
    let one = fixture.begin(Mode::AddTask).unwrap().task;
    let two = fixture.begin(Mode::AddTask).unwrap().task;
    assert_eq!((one, two), (1, 2));
    fixture.apply(two, estimate, &mut Packet::default()).unwrap();
    fixture.end(two, 0).unwrap();
    assert_protocol(fixture.apply(two, estimate, &mut Packet::default()));
    assert_protocol(fixture.end(two, 0));
    assert_eq!(fixture.begin(Mode::AddTask).unwrap().task, 3, "numbers are not used again");
}

#[test]
fn the_main_task_waits_for_the_workers() {
    let fixture = Fixture::started();
    fixture.estimate();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.map(0, "CURRENT", 1).unwrap();
    thread::scope(|scope| {
        let main = scope.spawn(|| fixture.end(0, 0));
        thread::sleep(Duration::from_millis(50));
        assert!(!main.is_finished());
        let mut packet = Packet { data: b"x", ..Packet::default() };
        let chunk = Descriptor::FileChunk(FileChunk { file: 0, len: 1 });
        fixture.apply(worker, chunk, &mut packet).unwrap();
        fixture.end(worker, 0).unwrap();
        main.join().unwrap().unwrap();
    });
    assert!(!fixture.is_marked());
}

#[test]
fn a_waiting_main_task_can_be_killed() {
    let fixture = Fixture::started();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.session.is_killed.store(true, Ordering::Relaxed);
    assert_eq!(fixture.end(0, 0).unwrap_err(), Error::Interrupted);
    assert!(fixture.is_clean());
    // The worker finds that it has no clone any more.
    assert_protocol(fixture.end(worker, 0));
}

#[test]
fn a_killed_session_applies_nothing() {
    let fixture = Fixture::started();
    fixture.session.is_killed.store(true, Ordering::Relaxed);
    assert_eq!(fixture.map(0, "a", 1).unwrap_err(), Error::Interrupted);
}

#[test]
fn a_file_is_one_tasks_at_a_time() {
    let fixture = Fixture::started();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.map(0, "CURRENT", 2).unwrap();

    /// Comes back to the client while it is in the callback.
    struct Intruder<'a>(&'a Fixture, u32);
    impl Callbacks for Intruder<'_> {
        fn file(&mut self, _: &View<'_>, _: BorrowedFd<'_>, _: u32) -> Result<()> {
            panic!("a donor's callback")
        }
        fn buffer(&mut self, _: &View<'_>, _: &[u8]) -> Result<()> {
            panic!("this engine has no states")
        }
        fn apply_file(&mut self, _: &View<'_>, _: BorrowedFd<'_>) -> Result<()> {
            let chunk = Descriptor::FileChunk(FileChunk { file: 0, len: 1 });
            self.0.apply(self.1, chunk, &mut Packet { data: b"x", ..Packet::default() })
        }
        fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
            panic!("files are written, not read")
        }
    }
    let chunk = Descriptor::FileChunk(FileChunk { file: 0, len: 1 }).to_bytes();
    let mut intruder = Intruder(&fixture, worker);
    let client = &fixture.client;
    assert_protocol(client.apply(&fixture.session, &fixture.locator, 0, &chunk, &mut intruder));
}

#[test]
fn a_full_disk_is_an_error_of_the_file() {
    let fixture = Fixture::started();
    // Somebody removes the directory: the file cannot be created.
    fs::remove_dir_all(fixture.directory.path().join(".rocksdb.wal.cloned")).unwrap();
    let error = fixture.map(0, "000001.log", 1).unwrap_err();
    assert_eq!(error.number(), number::ER_ERROR_ON_WRITE);
    let Error::File { name, .. } = error else { panic!() };
    assert!(name.ends_with("/.rocksdb.wal.cloned/000001.log"), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes come, and wherever the connection breaks: what is complete is what was sent.
    #[test]
    fn any_order_of_chunks_and_restarts(
        files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..6),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), 1..60_usize, 0..8_u8), 0..200),
    ) {
        let fixture = Fixture::started();
        fixture.estimate();
        let name = |file: usize| if file == 0 { "CURRENT".to_owned() } else { format!("{file:06}.sst") };
        let mut sent = vec![0; files.len()];
        for (file, data) in files.iter().enumerate() {
            fixture.map(file as u64, &name(file), data.len() as u64).unwrap();
        }
        for (file, len, fate) in &steps {
            let file = file.index(files.len());
            let from: usize = sent[file];
            let to = (from + len).min(files[file].len());
            if from == to { continue; }
            let data = &files[file][from..to];
            if *fate > 0 {
                fixture.chunk(file as u64, data).unwrap();
                sent[file] = to;
                continue;
            }
            let half = &data[..data.len() / 2];
            let broken = Error::Raised(number::ER_NET_READ_ERROR);
            let mut packet = Packet { data: half, error: Some(broken), ..Packet::default() };
            let len = u32::try_from(data.len()).unwrap();
            let chunk = Descriptor::FileChunk(FileChunk { file: file as u64, len });
            prop_assert!(fixture.apply(0, chunk, &mut packet).is_err());
            let states = fixture.restart_states();
            let expected = sent.iter().enumerate().map(|(file, len)| (file as u64, *len as u64));
            prop_assert_eq!(states, expected.collect());
        }
        for (file, data) in files.iter().enumerate() {
            if sent[file] < data.len() {
                fixture.chunk(file as u64, &data[sent[file]..]).unwrap();
            }
        }
        fixture.end(0, 0).unwrap();
        for (file, data) in files.iter().enumerate() {
            let path = format!(".rocksdb.cloned/{}", name(file));
            prop_assert_eq!(&fixture.read(&path).unwrap(), data);
        }
    }
}
