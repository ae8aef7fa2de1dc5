// SPDX-License-Identifier: GPL-2.0-only

//! Recorded clones between two stock servers, applied to a directory.
//!
//! The records are those of clone-protocol (`tests/stock`; `tests/stock_stream.rs` there says what
//! their lines mean, and checks their order with `StreamCheck`). They have the length of each
//! block, and not its bytes: the bytes are made up here, so that each state writes others. What
//! must be in the directory in the end is found out without this crate, by a model that goes
//! through the descriptors line by line and writes to a directory of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clone_innodb::clock::SystemClock;
use clone_innodb::destination::{
    BlockInput, Destination, DestinationTask, Options, OutsideFiles, Target,
};
use clone_innodb::error::{Error, Result};
use clone_protocol::innodb::{
    Compression, Data, Descriptor, FileMetadata, Locator, SPACE_ID_BUFFER_POOL, SPACE_ID_REDO,
    SnapshotState, State, TaskRole,
};
use clone_protocol::{Command, Response};

const RUNS: fn() -> bool = || false;
const PAGE: usize = 16 << 10;

#[test]
fn workers_and_ddl() {
    let clone = apply("workers_and_ddl.txt", Options { outside: below(), ..Options::default() });
    assert_eq!(clone.restarts, 0);
    clone.check();
}

#[test]
fn restart_in_file_copy() {
    let options = Options { outside: below(), ..Options::default() };
    let clone = apply("restart_in_file_copy.txt", options);
    assert_eq!(clone.restarts, 1);
    clone.check();
}

#[test]
fn restart_at_redo_copy() {
    let options = Options { outside: below(), ..Options::default() };
    let clone = apply("restart_at_redo_copy.txt", options);
    assert_eq!(clone.restarts, 1);
    clone.check();
}

/// The same records have `../ts_out.ibd`, which is refused unless something else is said.
#[test]
fn a_file_outside_of_the_directory_is_refused() {
    let clone = apply("workers_and_ddl.txt", Options::default());
    let numbers: Vec<_> = clone.failures.iter().map(Error::number).collect();
    assert!(numbers.contains(&1235), "{:?}", clone.failures);
    let target = clone.directory.path().join("target");
    assert!(target.join("#clone/#status_in_progress").exists());
    assert!(!target.join("#clone/#status_fix").exists());
    assert_eq!(fs::read_dir(clone.directory.path()).unwrap().count(), 2, "only what is expected");
}

fn below() -> OutsideFiles {
    OutsideFiles::Below("outside".into())
}

/// What one connection carries up to its end or up to a cut.
#[derive(Default)]
struct Connection {
    role: Option<TaskRole>,
    /// The locator that the donor answered with.
    locator: Option<Locator>,
    descriptors: Vec<Vec<u8>>,
    /// The length that the next packet must have.
    expected: Option<u32>,
    /// The descriptors of DATA of which the packet came.
    whole: usize,
}

/// A part of a record without a cut.
#[derive(Default)]
struct Segment {
    connections: BTreeMap<u32, Connection>,
    acknowledgements: Vec<Vec<u8>>,
    /// The locator of REINIT.
    restart: Option<Vec<u8>>,
}

struct Applied {
    directory: tempfile::TempDir,
    model: Model,
    failures: Vec<Error>,
    restarts: usize,
}

fn apply(name: &str, options: Options) -> Applied {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clone-protocol/tests/stock");
    let record = fs::read_to_string(record.join(name)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::new(directory.path().join("model"));
    let segments = segments(&record, &mut model);
    let (failures, restarts) = clone(&segments, &directory.path().join("target"), options);
    Applied { directory, model, failures, restarts }
}

/// Cuts a record into connections, and lets the model see each descriptor in its order.
fn segments(record: &str, model: &mut Model) -> Vec<Segment> {
    let mut segments = vec![Segment::default()];
    for line in record.lines().filter(|line| !line.starts_with('#')) {
        if line == "cut" {
            segments.push(Segment::default());
            continue;
        }
        let segment = segments.last_mut().unwrap();
        let (number, packet) = line.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        let (way, packet) = packet.split_at(2);
        if way == "> " {
            let packet = unhex(packet);
            let command = Command::parse(packet[0], &packet[1..]).unwrap();
            let connection = segment.connections.entry(number).or_default();
            match command {
                Command::Init(_) => connection.role = Some(TaskRole::Master),
                Command::Reinit(init) => {
                    connection.role = Some(TaskRole::Master);
                    segment.restart = Some(init.locators[0].bytes.clone());
                }
                Command::Attach(_) => connection.role = Some(TaskRole::Worker),
                Command::Ack(ack) => segment.acknowledgements.push(ack.descriptor.to_vec()),
                Command::Execute | Command::Exit | Command::Heartbeat(_) | Command::Base(_) => {}
            }
            continue;
        }
        // What was on its way when the proxy cut comes on a connection that is gone.
        let Some(connection) = segment.connections.get_mut(&number) else { continue };
        if let Some(len) = packet.strip_prefix("data ") {
            assert_eq!(connection.expected.take(), Some(len.parse().unwrap()));
            connection.whole = connection.descriptors.len();
            model.see(connection.descriptors.last().unwrap());
            continue;
        }
        match Response::parse(&unhex(packet)).unwrap() {
            Response::Locators { locators, .. } => {
                connection.locator = Some(Locator::parse(&locators[0].bytes).unwrap());
            }
            Response::DataDescriptor { descriptor, .. } => {
                connection.descriptors.push(descriptor.to_vec());
                match Descriptor::parse(descriptor).unwrap() {
                    Descriptor::Data(data) => connection.expected = Some(data.data_len),
                    _ => {
                        connection.whole = connection.descriptors.len();
                        model.see(descriptor);
                    }
                }
            }
            _ => {}
        }
    }
    segments
}

/// Who is at work in a segment, so that a cut comes when all that had arrived is applied.
#[derive(Default)]
struct AtWork {
    /// Connections that are neither at their end nor in a descriptor that may wait for others.
    busy: AtomicUsize,
    applied: AtomicUsize,
    /// The state for which each worker waits that is not added yet.
    joining: Mutex<Vec<SnapshotState>>,
}

impl AtWork {
    /// A donor does not go on to a state before all of its tasks have ended the one before.
    fn wait_for_workers(&self, state: &State) {
        let is_behind = |joining: &SnapshotState| match state.start {
            true => *joining < state.state,
            false => state.task == 0 && *joining <= state.state,
        };
        while self.joining.lock().unwrap().iter().any(is_behind) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing more can happen.
    fn wait(&self) {
        let mut before = usize::MAX;
        loop {
            let applied = self.applied.load(Ordering::SeqCst);
            if self.busy.load(Ordering::SeqCst) == 0 && applied == before {
                return;
            }
            before = applied;
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Applies the segments, each connection in a thread of its own.
fn clone(segments: &[Segment], target: &Path, options: Options) -> (Vec<Error>, usize) {
    let first = segments[0].connections.values();
    let donor = first.into_iter().find_map(|one| one.locator.clone()).unwrap();
    let clock = Arc::new(SystemClock::default());
    let destination = Destination::create(&donor, target, options, clock).unwrap();
    let mut master = Some(destination.add_task(&RUNS, &donor).unwrap());
    let mut failures = Vec::new();
    let mut restarts = 0;
    for segment in segments {
        if let Some(recorded) = &segment.restart {
            let locator = master.as_mut().unwrap().restart().unwrap();
            check_restart(&locator, &Locator::parse(recorded).unwrap());
            restarts += 1;
        }
        let is_last = std::ptr::eq(segment, segments.last().unwrap());
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let at_work = AtWork::default();
        let is_live = |one: &&Connection| match one.role {
            Some(TaskRole::Worker) => one.locator.is_some(),
            role => role.is_some(),
        };
        let live: Vec<_> = segment.connections.values().filter(is_live).collect();
        at_work.busy.store(live.len(), Ordering::SeqCst);
        let workers = live.iter().filter(|one| one.role == Some(TaskRole::Worker));
        let joining = workers.map(|one| one.locator.as_ref().unwrap().state);
        at_work.joining.lock().unwrap().extend(joining);
        thread::scope(|scope| {
            let mut running = Vec::new();
            for connection in live {
                let acknowledged = Arc::clone(&acknowledged);
                let (destination, at_work) = (&destination, &at_work);
                let task = match connection.role {
                    Some(TaskRole::Master) => master.take(),
                    _ => None,
                };
                running.push(scope.spawn(move || {
                    at_work.busy.fetch_sub(1, Ordering::SeqCst);
                    let task = task.map_or_else(
                        || {
                            let locator = connection.locator.as_ref().unwrap();
                            let task = destination.add_task(&RUNS, locator);
                            let mut joining = at_work.joining.lock().unwrap();
                            let at = joining.iter().position(|state| *state == locator.state);
                            joining.swap_remove(at.unwrap());
                            task
                        },
                        Ok,
                    );
                    at_work.busy.fetch_add(1, Ordering::SeqCst);
                    run(connection, task, &acknowledged, at_work, !is_last)
                }));
            }
            for thread in running {
                let (task, outcome) = thread.join().unwrap();
                master = master.take().or(task);
                failures.extend(outcome.err());
            }
        });
        let acknowledged = acknowledged.lock().unwrap().clone();
        let recorded = &segment.acknowledgements;
        if failures.is_empty() {
            assert_eq!(acknowledged, *recorded, "acknowledgements of the real recipient");
        }
        if !is_last {
            // The network broke; that of the other tasks is the same error.
            failures.retain(|error: &Error| error.number() != 1158);
        }
    }
    let master = master.unwrap();
    assert!(master.is_master());
    let error = failures.first().map_or(0, Error::number);
    let ended = master.end(&RUNS, error);
    failures.extend(ended.err());
    (failures, restarts)
}

/// Applies what came on a connection. A worker ends with it, the master is given back.
fn run(
    connection: &Connection,
    task: Result<DestinationTask>,
    acknowledged: &Mutex<Vec<Vec<u8>>>,
    at_work: &AtWork,
    is_cut: bool,
) -> (Option<DestinationTask>, Result<()>) {
    let mut task = match task {
        Ok(task) => task,
        Err(error) => {
            at_work.busy.fetch_sub(1, Ordering::SeqCst);
            return (None, Err(error));
        }
    };
    let mut input = Input { acknowledged, data: None, bytes: Vec::new() };
    let mut descriptors = connection.descriptors[..connection.whole].iter();
    let outcome = loop {
        let Some(descriptor) = descriptors.next() else {
            if !is_cut {
                break Ok(());
            }
            at_work.busy.fetch_sub(1, Ordering::SeqCst);
            at_work.wait();
            break Err(Error::caller(1158, "cut"));
        };
        input.data = match Descriptor::parse(descriptor).unwrap() {
            Descriptor::Data(data) => Some(data),
            _ => None,
        };
        let mut may_wait = false;
        if let Ok(Descriptor::State(state)) = Descriptor::parse(descriptor) {
            may_wait = true;
            at_work.busy.fetch_sub(1, Ordering::SeqCst);
            if !state.ack {
                at_work.wait_for_workers(&state);
            }
        }
        let applied = task.apply(&RUNS, descriptor, &mut input);
        at_work.applied.fetch_add(1, Ordering::SeqCst);
        match (may_wait, &applied) {
            (true, Ok(())) => _ = at_work.busy.fetch_add(1, Ordering::SeqCst),
            (false, Err(_)) => _ = at_work.busy.fetch_sub(1, Ordering::SeqCst),
            _ => {}
        }
        if let Err(error) = applied {
            break Err(error);
        }
        assert_eq!(input.data, None, "a block that was not taken");
    };
    let error = outcome.as_ref().err().map_or(0, Error::number);
    if task.is_master() {
        task.destination().fail(error);
        return (Some(task), outcome);
    }
    let ended = task.end(&RUNS, error);
    (None, outcome.and(ended))
}

/// Of a real recipient we know what it had applied when it noticed that the connection was gone:
/// not more than what the proxy had passed on, which is what we applied.
fn check_restart(ours: &Locator, recorded: &Locator) {
    let head = |locator: &Locator| {
        let Locator { version, clone_id, snapshot_id, state, metadata_transferred, .. } = locator;
        (*version, *clone_id, *snapshot_id, *state, *metadata_transferred)
    };
    assert_eq!(head(ours), head(recorded));
    let (Some(ours), Some(recorded)) = (&ours.progress, &recorded.progress) else {
        panic!("{ours:?} {recorded:?}");
    };
    assert_eq!(ours.reserved.len(), recorded.reserved.len());
    for (ours, recorded) in ours.reserved.iter().zip(&recorded.reserved) {
        assert_eq!(recorded & !ours, 0, "a chunk that the real recipient had begun");
    }
}

struct Input<'a> {
    acknowledged: &'a Mutex<Vec<Vec<u8>>>,
    data: Option<Data>,
    bytes: Vec<u8>,
}

impl BlockInput for Input<'_> {
    fn write_to(&mut self, target: &Target<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let mut file = File::from(file.try_clone_to_owned().unwrap());
        assert_eq!(file.stream_position().unwrap(), target.offset);
        file.write_all(self.read(target)?).unwrap();
        Ok(())
    }

    fn read(&mut self, target: &Target<'_>) -> Result<&mut [u8]> {
        let data = self.data.take().unwrap();
        assert_eq!((data.file_offset, data.data_len), (target.offset, target.len));
        self.bytes = content(&data);
        Ok(&mut self.bytes)
    }

    fn acknowledge(&mut self, descriptor: &[u8]) -> Result<()> {
        self.acknowledged.lock().unwrap().push(descriptor.to_vec());
        Ok(())
    }
}

/// The bytes of a block: others in each state, file and place. Each second page says that it is
/// compressed to 3,000 bytes.
fn content(data: &Data) -> Vec<u8> {
    let len = data.data_len as usize;
    let seed = data.file_offset as u32 ^ (data.file_index << 20) ^ ((data.state as u32) << 28);
    let mut bytes: Vec<u8> = (0..len as u32)
        .map(|at| (seed.wrapping_add(at).wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        let is_compressed = number % 2 == 1 || data.state == SnapshotState::PageCopy;
        page[24..26].copy_from_slice(&if is_compressed { 14_u16 } else { 3 }.to_be_bytes());
        page[32..34].copy_from_slice(&3000_u16.to_be_bytes());
    }
    bytes
}

/// What the donor's files are, found out from the record alone.
struct Model {
    directory: PathBuf,
    data: BTreeMap<u32, ModelFile>,
    redo: BTreeMap<u32, u64>,
    state: SnapshotState,
}

struct ModelFile {
    name: String,
    space_id: u32,
    flags: u32,
    size: u64,
    is_page_compressed: bool,
    is_deleted: bool,
    /// DDL created the file, and page 0 has not come.
    has_initial_page: bool,
}

impl Model {
    fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        Self { directory, data: BTreeMap::new(), redo: BTreeMap::new(), state: SnapshotState::Init }
    }

    fn see(&mut self, descriptor: &[u8]) {
        match Descriptor::parse(descriptor).unwrap() {
            Descriptor::State(state) if state.start && !state.ack && state.task == 0 => {
                self.state = state.state;
            }
            Descriptor::FileMetadata(file) if file.space_id == SPACE_ID_REDO => {
                self.redo.insert(file.file_index, file.file_size);
                self.file("redo", file.file_index);
            }
            Descriptor::FileMetadata(file) => self.describe(&file),
            Descriptor::Data(data) => self.write(&data),
            _ => {}
        }
    }

    fn describe(&mut self, file: &FileMetadata<'_>) {
        let is_new = !self.data.contains_key(&file.file_index);
        let is_ddl = file.state != self.state;
        let model = self.data.entry(file.file_index).or_insert(ModelFile {
            name: String::new(),
            space_id: file.space_id,
            flags: file.fsp_flags,
            size: file.file_size,
            is_page_compressed: file.compression != Compression::None,
            is_deleted: false,
            has_initial_page: is_new && is_ddl,
        });
        model.is_deleted |= file.deleted;
        if is_new || (is_ddl && file.renamed) {
            model.name = String::from_utf8(file.name.to_vec()).unwrap();
            model.size = model.size.max(file.file_size);
        }
        let initial = if file.space_id >= 0xFFFF_0000 && file.name.starts_with(b"undo") {
            16 << 20
        } else {
            7 * page_size(file.fsp_flags)
        };
        let created = self.file("data", file.file_index);
        if is_new && is_ddl {
            created.set_len(initial).unwrap();
        }
    }

    fn write(&mut self, data: &Data) {
        let bytes = content(data);
        let is_redo = data.state == SnapshotState::RedoCopy;
        let file = self.file(if is_redo { "redo" } else { "data" }, data.file_index);
        let model = self.data.get_mut(&data.file_index).filter(|_| !is_redo);
        let is_sparse = model.as_ref().is_some_and(|model| model.is_page_compressed);
        if let Some(model) = model.filter(|_| data.file_offset == 0) {
            model.has_initial_page = false;
            if data.state == SnapshotState::PageCopy {
                model.size = model.size.max(data.file_size);
            }
        }
        file.write_all_at(&bytes, data.file_offset).unwrap();
        if is_sparse {
            // 3,000 bytes and the page's head, up to the next 4,096, are there; the rest is zeros.
            for (number, page) in bytes.chunks(PAGE).enumerate() {
                let at = data.file_offset + (number * PAGE) as u64;
                if at != 0 && page[24..26] == [0, 14] {
                    file.write_all_at(&[0; PAGE - 4096], at + 4096).unwrap();
                }
            }
        }
    }

    fn file(&self, kind: &str, index: u32) -> File {
        let path = self.directory.join(format!("{kind}{index}"));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }
}

/// Bytes of a page in the file.
fn page_size(flags: u32) -> u64 {
    match (flags >> 1) & 0xf {
        0 => 16 << 10,
        shift => 512 << shift,
    }
}

impl Applied {
    fn check(mut self) {
        assert!(self.failures.is_empty(), "{:?}", self.failures);
        assert_eq!(self.model.state, SnapshotState::Done);
        let target = self.directory.path().join("target");
        for (name, is_there) in
            [("#status_in_progress", false), ("#status_fix", true), ("#replace_files", true)]
        {
            assert_eq!(target.join("#clone").join(name).exists(), is_there, "{name}");
        }
        let mut expected = Vec::new();
        let (mut deleted, mut created, mut compressed) = (0, 0, 0);
        for (index, file) in &self.model.data {
            if file.is_deleted {
                deleted += 1;
                continue;
            }
            created += usize::from(file.has_initial_page);
            compressed += usize::from(file.is_page_compressed);
            let path = match file.name.strip_prefix("../") {
                // A general tablespace.
                Some(name) => target.join(name),
                None => target.join(file.name.trim_start_matches("./")),
            };
            let model = self.model.file("data", *index);
            let extent = match file.space_id {
                SPACE_ID_BUFFER_POOL => None,
                _ => Some(64 * page_size(file.flags)),
            };
            same(&path, model, file, extent);
            expected.push(path);
        }
        for (index, size) in std::mem::take(&mut self.model.redo) {
            let path = target.join("#innodb_redo").join(format!("#ib_redo{index}"));
            let model = self.model.file("redo", index);
            let file = ModelFile {
                name: format!("redo {index}"),
                space_id: SPACE_ID_REDO,
                flags: u32::MAX,
                size,
                is_page_compressed: false,
                is_deleted: false,
                has_initial_page: false,
            };
            same(&path, model, &file, None);
            expected.push(path);
        }
        // The records have each of these, or this test would not look at them.
        assert!(deleted > 0 && created > 0 && compressed > 0, "{deleted} {created} {compressed}");
        let mut found = Vec::new();
        list(&target, &mut found);
        found.retain(|path| !path.starts_with(target.join("#clone")));
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}

fn same(path: &Path, mut model: File, file: &ModelFile, extent: Option<u64>) {
    let mut found = File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let written = model.metadata().unwrap().len();
    let aligned = extent.filter(|extent| written > *extent);
    let aligned = aligned.map_or(written, |extent| written.next_multiple_of(extent));
    let expected = if written < file.size { file.size } else { aligned };
    assert_eq!(found.metadata().unwrap().len(), expected, "{path:?}");
    model.set_len(expected).unwrap();
    if file.has_initial_page {
        let mut page = vec![0; 64];
        found.read_exact(&mut page).unwrap();
        assert_eq!(page[34..38], file.space_id.to_be_bytes(), "{path:?}");
        assert_eq!(page[54..58], file.flags.to_be_bytes(), "{path:?}");
        for one in [&mut found, &mut model] {
            one.seek(SeekFrom::Start(page_size(file.flags))).unwrap();
        }
    }
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let len = model.read(&mut theirs).unwrap();
        if len == 0 {
            break;
        }
        found.read_exact(&mut ours[..len]).unwrap();
        assert!(
            ours[..len] == theirs[..len],
            "{path:?} differs before {:?}",
            model.stream_position()
        );
    }
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, found) } else { found.push(path) }
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
