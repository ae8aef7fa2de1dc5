// SPDX-License-Identifier: GPL-2.0-only

//! One rule at a time. Whole streams of stock servers are in `tests/stock_stream.rs`, and a hostile
//! donor against a model of InnoDB is in `fuzzing`.

use std::cell::RefCell;

use super::*;
use crate::innodb::Compression;
use crate::innodb::EncryptionKey;
use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;
use crate::innodb::TaskMetadata;
use crate::innodb::VERSION;
use SnapshotState::Done;
use SnapshotState::FileCopy;
use SnapshotState::Init;
use SnapshotState::PageCopy;
use SnapshotState::RedoCopy;
use TaskRole::Master;
use TaskRole::Worker;

mod files;

/// Chunks in FILE_COPY, PAGE_COPY and REDO_COPY of the clone in these tests.
const FILE_CHUNKS: u32 = 9;
const PAGE_CHUNKS: u32 = 2;
const REDO_CHUNKS: u32 = 4;
const DATA_FILES: u32 = 3;
const REDO_FILES: u32 = 2;

/// A clone, its master and one worker.
struct Gate {
    stream: StreamCheck,
    tasks: RefCell<[TaskCheck; 2]>,
}

impl Gate {
    fn new(recipient: Recipient) -> Self {
        let stream = StreamCheck::new(recipient);
        let gate = Self { tasks: RefCell::new(tasks(&stream)), stream };
        gate.passes(Master, task(0));
        gate.passes(Worker, task(1));
        gate.passes(Master, end(Init));
        gate
    }

    /// A clone whose master just passed the start of `state`, and all file metadata of it.
    fn at(state: SnapshotState) -> Self {
        let gate = Self::new(recipient());
        if state >= FileCopy {
            gate.passes(Master, start(FileCopy));
            (0..DATA_FILES).for_each(|index| gate.passes(Master, file(FileCopy, index)));
        }
        if state >= PageCopy {
            gate.moves(FileCopy);
        }
        if state >= RedoCopy {
            gate.moves(PageCopy);
            (0..REDO_FILES).for_each(|index| gate.passes(Master, redo(index)));
        }
        if state >= Done {
            gate.moves(RedoCopy);
        }
        gate
    }

    /// A clone whose master just passed the end of `state`.
    fn after(state: SnapshotState) -> Self {
        let gate = Self::at(state);
        gate.passes(Master, end(state));
        gate
    }

    /// The master goes from a state to the next.
    fn moves(&self, from: SnapshotState) {
        self.passes(Master, end(from));
        self.passes(Master, start(from.next().unwrap()));
    }

    /// Another worker, at the beginning of its EXECUTE.
    fn joins(&self) {
        let [_, worker] = &mut *self.tasks.borrow_mut();
        *worker = self.stream.task(Worker);
        assert!(worker.check(&bytes(&task(2))).is_ok());
    }

    fn check(&self, role: TaskRole, descriptor: Descriptor<'_>) -> Result<Checked, String> {
        let [master, worker] = &mut *self.tasks.borrow_mut();
        let task = if role == Master { master } else { worker };
        task.check(&bytes(&descriptor)).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn passes(&self, role: TaskRole, descriptor: Descriptor<'_>) {
        assert_eq!(self.check(role, descriptor).map(|_| ()), Ok(()));
    }

    #[track_caller]
    fn refuses(&self, role: TaskRole, descriptor: Descriptor<'_>, why: &str) {
        let refused = self.check(role, descriptor).unwrap_err();
        let why = format!("Wrong Clone RPC: Invalid {why}");
        assert!(refused.starts_with(&why), "{refused:?} is not {why:?}");
    }
}

fn recipient() -> Recipient {
    Recipient::new(16_384)
}

fn tasks(stream: &StreamCheck) -> [TaskCheck; 2] {
    [Master, Worker].map(|role| stream.task(role))
}

fn bytes(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    descriptor.encode(&mut bytes);
    bytes
}

fn task(task: u32) -> Descriptor<'static> {
    Descriptor::TaskMetadata(TaskMetadata { task, chunk: 0, block: 0 })
}

fn state_of(state: SnapshotState) -> State {
    let (chunks, files) = match state {
        FileCopy => (FILE_CHUNKS, DATA_FILES),
        PageCopy => (PAGE_CHUNKS, 5000),
        RedoCopy => (REDO_CHUNKS, REDO_FILES),
        _ => (0, 0),
    };
    let (estimate, estimate_disk) = (u64::from(chunks) << 26, 1 << 30);
    State { state, task: 0, chunks, files, estimate, estimate_disk, start: true, ack: false }
}

fn start(state: SnapshotState) -> Descriptor<'static> {
    Descriptor::State(state_of(state))
}

fn end(state: SnapshotState) -> Descriptor<'static> {
    Descriptor::State(State { start: false, ..state_of(state) })
}

/// The chunks are `2 * index + 1` and the next.
fn file_of(state: SnapshotState, index: u32) -> FileMetadata<'static> {
    FileMetadata {
        state,
        file_size: 1 << 27,
        allocated_size: 1 << 27,
        fsp_flags: 0x4021,
        block_size: 4096,
        compression: Compression::None,
        encrypted: false,
        renamed: false,
        deleted: false,
        space_id: 10 + index,
        file_index: index,
        first_chunk: 2 * index + 1,
        last_chunk: 2 * index + 2,
        name: b"./test/t1.ibd",
        key: None,
    }
}

fn file(state: SnapshotState, index: u32) -> Descriptor<'static> {
    Descriptor::FileMetadata(file_of(state, index))
}

fn dropped(state: SnapshotState, index: u32, chunk: u32) -> Descriptor<'static> {
    let file = file_of(state, index);
    Descriptor::FileMetadata(FileMetadata {
        deleted: true,
        first_chunk: chunk,
        last_chunk: 0,
        ..file
    })
}

fn redo_of(index: u32) -> FileMetadata<'static> {
    FileMetadata {
        fsp_flags: u32::MAX,
        space_id: SPACE_ID_REDO,
        first_chunk: index + 1,
        last_chunk: index + 1,
        name: b"",
        ..file_of(RedoCopy, index)
    }
}

fn redo(index: u32) -> Descriptor<'static> {
    Descriptor::FileMetadata(redo_of(index))
}

fn data_of(state: SnapshotState, chunk: u32) -> Data {
    Data {
        state,
        task: 0,
        chunk,
        block: 1,
        file_index: 0,
        data_len: 16_384,
        file_offset: 1 << 20,
        file_size: 1 << 27,
    }
}

fn data(state: SnapshotState, chunk: u32) -> Descriptor<'static> {
    Descriptor::Data(data_of(state, chunk))
}

fn locator(state: SnapshotState) -> Locator {
    Locator {
        version: VERSION,
        clone_id: 1,
        snapshot_id: 2,
        index: 0,
        state,
        metadata_transferred: true,
        progress: None,
    }
}

fn restart(gate: &Gate, state: SnapshotState) {
    let locator = bytes(&Descriptor::Locator(locator(state)));
    assert_eq!(gate.stream.resume(&locator), Ok(()));
    *gate.tasks.borrow_mut() = tasks(&gate.stream);
    gate.passes(Master, task(0));
    gate.passes(Worker, task(1));
}

#[test]
fn a_worker_may_end_a_state_after_the_master_has_left_it() {
    let gate = Gate::at(PageCopy);
    gate.passes(Worker, end(FileCopy));
    let gate = Gate::at(RedoCopy);
    assert!(gate.check(Worker, end(FileCopy)).is_err());
}

#[test]
fn tasks_share_it() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<StreamCheck>();
    is_shared::<TaskCheck>();
}

#[test]
fn the_caller_learns_what_it_needs() {
    let gate = Gate::at(FileCopy);
    let nothing = Checked { data_len: None, place: None, key: KeyInData::None };
    let learned = gate.check(Master, data(FileCopy, 1)).unwrap();
    let place = Some(SpacePlace { space_id: 10, offset: 1 << 20 });
    assert_eq!(learned, Checked { data_len: Some(16_384), place, ..nothing });
    let alive = State { ack: true, ..state_of(PageCopy) };
    for other in [Descriptor::State(alive), end(FileCopy), file(PageCopy, 1), start(PageCopy)] {
        assert_eq!(gate.check(Master, other), Ok(nothing));
    }
}

#[test]
fn chunks_are_within_the_total() {
    for (state, total) in
        [(FileCopy, FILE_CHUNKS), (PageCopy, PAGE_CHUNKS), (RedoCopy, REDO_CHUNKS)]
    {
        let gate = Gate::at(state);
        for role in [Master, Worker] {
            gate.passes(role, data(state, 1));
            gate.passes(role, data(state, total));
            for chunk in [0, total + 1, u32::MAX] {
                gate.refuses(role, data(state, chunk), "Data Descriptor: chunk");
            }
        }
    }
}

#[test]
fn totals_stay_after_a_restart() {
    let gate = Gate::at(FileCopy);
    restart(&gate, FileCopy);
    gate.passes(Master, data(FileCopy, FILE_CHUNKS));
    gate.refuses(Worker, data(FileCopy, FILE_CHUNKS + 1), "Data Descriptor: chunk 10 of 9");
}

#[test]
fn data_are_of_the_current_state() {
    Gate::at(Init).refuses(Master, data(FileCopy, 1), "Data Descriptor: state FILE_COPY in INIT");
    Gate::at(Init).refuses(Worker, data(Init, 1), "Data Descriptor: chunk 1 of 0");
    Gate::at(FileCopy).refuses(Worker, data(PageCopy, 1), "Data Descriptor: state");
    Gate::at(PageCopy).refuses(Worker, data(FileCopy, 1), "Data Descriptor: state");
    Gate::at(Done).refuses(Worker, data(RedoCopy, 1), "Data Descriptor: state");
    Gate::at(Done).refuses(Master, data(Done, 1), "Data Descriptor: chunk 1 of 0");
}

#[test]
fn data_have_bytes_and_fit_a_file() {
    let gate = Gate::at(FileCopy);
    let with = |data_len, file_offset| {
        Descriptor::Data(Data { data_len, file_offset, ..data_of(FileCopy, 1) })
    };
    gate.passes(Master, with(1, 0));
    gate.passes(Master, with(MAX_BLOCK, 0));
    gate.refuses(Master, with(MAX_BLOCK + 1, 0), "Data Descriptor: 16777217 bytes");
    gate.refuses(Master, with(u32::MAX, 0), "Data Descriptor: 4294967295 bytes");
    gate.passes(Master, with(7, i64::MAX.unsigned_abs() - 7));
    gate.refuses(Master, with(0, 0), "Data Descriptor: no data");
    gate.refuses(Master, with(8, i64::MAX.unsigned_abs() - 7), "Data Descriptor: offset");
    gate.refuses(Master, with(8, u64::MAX - 7), "Data Descriptor: offset");
}

#[test]
fn states_come_in_order() {
    let gate = Gate::at(Init);
    gate.refuses(Master, start(SnapshotState::None), "State Descriptor: start of NONE");
    gate.refuses(Master, start(Init), "State Descriptor: start of INIT");
    gate.refuses(Master, start(PageCopy), "State Descriptor: start of PAGE_COPY in INIT");
    gate.refuses(Worker, start(Init), "State Descriptor: start of INIT");
    gate.refuses(Worker, start(Done), "State Descriptor: start of DONE");
    gate.refuses(Master, end(FileCopy), "State Descriptor: end of FILE_COPY in INIT");

    let gate = Gate::at(PageCopy);
    gate.refuses(Master, start(FileCopy), "State Descriptor: start of FILE_COPY once more");
    gate.refuses(Master, start(PageCopy), "State Descriptor: start of PAGE_COPY once more");
    gate.refuses(Master, end(FileCopy), "State Descriptor: end of FILE_COPY once more");
    gate.refuses(Worker, end(Init), "State Descriptor: end of INIT in PAGE_COPY");
    gate.passes(Worker, end(PageCopy));
    gate.moves(PageCopy);
}

#[test]
fn a_state_ends_before_the_next_starts() {
    for state in [FileCopy, PageCopy, RedoCopy] {
        let next = state.next().unwrap();
        let gate = Gate::at(state);
        gate.refuses(Master, start(next), "State Descriptor: start of");
        gate.passes(Worker, end(state));
        gate.refuses(Worker, start(next), "State Descriptor: start of");
        gate.passes(Master, end(state));
        gate.passes(Worker, start(next));
        gate.passes(Master, start(next));
    }
    let stream = StreamCheck::new(recipient());
    let mut master = stream.task(Master);
    assert!(master.check(&bytes(&task(0))).is_ok());
    assert!(master.check(&bytes(&start(FileCopy))).is_err());
}

#[test]
fn an_end_counts_after_a_restart() {
    // The donor knows that the recipient acknowledged, and does not end the state again.
    let gate = Gate::after(FileCopy);
    restart(&gate, FileCopy);
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.passes(Master, start(PageCopy));
    // The donor does not know it.
    let gate = Gate::after(FileCopy);
    restart(&gate, FileCopy);
    gate.passes(Master, data(FileCopy, 1));
    gate.moves(FileCopy);
    // The recipient had not come to the end.
    let gate = Gate::at(FileCopy);
    restart(&gate, FileCopy);
    gate.refuses(Master, start(PageCopy), "State Descriptor: start of PAGE_COPY before the end");
}

#[test]
fn a_worker_starts_before_or_after_the_master() {
    let gate = Gate::at(FileCopy);
    let worker = State { task: 1, estimate: 0, estimate_disk: 0, ..state_of(PageCopy) };
    gate.passes(Worker, end(FileCopy));
    gate.passes(Master, end(FileCopy));
    gate.passes(Worker, Descriptor::State(worker));
    // Other tasks are where they were until the master's start.
    gate.joins();
    gate.passes(Worker, end(FileCopy));
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.passes(Master, start(PageCopy));
    gate.passes(Worker, Descriptor::State(worker));
    gate.passes(Worker, data(PageCopy, 1));
}

#[test]
fn a_task_starts_and_ends_a_state_once() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Worker, start(PageCopy), "State Descriptor: start of PAGE_COPY after end of NONE");
    for role in [Worker, Master] {
        gate.passes(role, end(FileCopy));
        gate.refuses(role, end(FileCopy), "State Descriptor: end of FILE_COPY once more");
        gate.refuses(role, data(FileCopy, 1), "Data Descriptor: after the end of FILE_COPY");
        let gone = dropped(FileCopy, 1, 1);
        gate.refuses(role, gone, "File Descriptor: after the end of FILE_COPY");
    }
    for role in [Worker, Master] {
        gate.passes(role, start(PageCopy));
        gate.refuses(role, start(PageCopy), "State Descriptor: start of PAGE_COPY once more");
    }
    gate.refuses(Worker, start(RedoCopy), "State Descriptor: start of REDO_COPY after end of FILE");
    gate.passes(Worker, data(PageCopy, 1));
}

#[test]
fn only_the_master_gives_totals() {
    let gate = Gate::after(FileCopy);
    let lie = Descriptor::State(State { task: 0, chunks: 1000, ..state_of(PageCopy) });
    gate.passes(Worker, end(FileCopy));
    gate.passes(Worker, lie);
    gate.passes(Master, start(PageCopy));
    gate.refuses(Worker, data(PageCopy, PAGE_CHUNKS + 1), "Data Descriptor: chunk");

    gate.joins();
    gate.passes(Worker, end(FileCopy));
    for wrong in [
        State { chunks: PAGE_CHUNKS + 1, ..state_of(PageCopy) },
        State { files: 4999, ..state_of(PageCopy) },
    ] {
        gate.refuses(Worker, Descriptor::State(wrong), "State Descriptor");
    }
}

#[test]
fn totals_that_nobody_has() {
    let with = |state, chunks, files| {
        let estimate = 1 << 50;
        Descriptor::State(State { chunks, files, estimate, ..state_of(state) })
    };
    let gate = Gate::at(Init);
    gate.refuses(Master, with(FileCopy, (1 << 27) + 1, 1), "State Descriptor: 134217729 chunks");
    gate.refuses(Master, with(FileCopy, 1, u32::MAX), "State Descriptor: 4294967295 files");
    gate.passes(Master, with(FileCopy, 1 << 27, 1 << 24));

    let gate = Gate::after(FileCopy);
    gate.passes(Master, with(PageCopy, 1, u32::MAX));
    gate.passes(Master, end(PageCopy));
    gate.refuses(Master, with(RedoCopy, 1, 70_000), "State Descriptor: 70000 files");
    gate.passes(Master, with(RedoCopy, 1, 1000));
}

#[test]
fn files_take_space() {
    let with = |files, estimate, estimate_disk| {
        Descriptor::State(State { files, estimate, estimate_disk, ..state_of(FileCopy) })
    };
    // A million tables of 112 KiB; as many of the smallest that there are; few of unknown size.
    for (files, estimate, estimate_disk) in [
        (1_000_000, 1_000_000 * (112 << 10), 100 << 20),
        (1_000_000, 1_000_000 * (4 << 10), 100 << 20),
        (1_000_000, 0, 1_000_000 * (4 << 10)),
        (1000, 0, 0),
    ] {
        Gate::at(Init).passes(Master, with(files, estimate, estimate_disk));
    }
    for (files, estimate) in [(1 << 24, 1), (1001, 0), (100_000, 100 << 20)] {
        Gate::at(Init).refuses(Master, with(files, estimate, 1), "State Descriptor");
    }
    // A worker's start has no estimate, which is no lie.
    let gate = Gate::at(Init);
    gate.passes(Worker, end(Init));
    gate.passes(Worker, with(1_000_000, 0, 0));
}

#[test]
fn keep_alive_may_say_anything() {
    let gate = Gate::at(FileCopy);
    for state in [Init, FileCopy, PageCopy, RedoCopy, Done] {
        for start in [false, true] {
            let chunks = u32::MAX;
            let alive = State { ack: true, start, chunks, files: 0, ..state_of(state) };
            gate.passes(Master, Descriptor::State(alive));
        }
    }
    gate.passes(Master, data(FileCopy, 1));
    gate.refuses(Master, data(FileCopy, FILE_CHUNKS + 1), "Data Descriptor: chunk");
}

#[test]
fn after_a_restart_innodb_may_be_a_state_behind() {
    // The start of REDO_COPY passed, but failed in InnoDB because a worker's connection broke.
    let gate = Gate::after(PageCopy);
    gate.passes(Master, file(RedoCopy, DATA_FILES));
    gate.passes(Master, start(RedoCopy));
    restart(&gate, PageCopy);
    gate.refuses(Master, redo(0), "File Descriptor: file name");
    gate.passes(Master, file(RedoCopy, DATA_FILES));
    gate.passes(Master, file(RedoCopy, DATA_FILES + 1));
    let other = State { chunks: 5, ..state_of(RedoCopy) };
    gate.refuses(Master, Descriptor::State(other), "State Descriptor: 5 chunks");
    gate.passes(Master, start(RedoCopy));
    gate.passes(Master, redo(0));

    // Not behind, the same metadata is of a redo file.
    restart(&gate, RedoCopy);
    gate.refuses(Master, file(RedoCopy, DATA_FILES), "File Index");
    gate.passes(Worker, redo(1));
    gate.passes(Worker, data(RedoCopy, 1));
}

#[test]
fn each_execute_begins_with_task_metadata() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Worker, task(1), "Task Descriptor: once more");
    gate.refuses(Master, task(0), "Task Descriptor: once more");
    let mut late = gate.stream.task(Worker);
    for first in [data(FileCopy, 1), dropped(FileCopy, 0, 1), end(FileCopy)] {
        let refused = late.check(&bytes(&first)).unwrap_err();
        assert!(refused.text().ends_with("Task Descriptor: not the first descriptor"));
    }
    assert!(late.check(&bytes(&task(0))).is_ok());
    assert!(late.check(&bytes(&data(FileCopy, 1))).is_ok());
}

#[test]
fn a_restart_must_be_told() {
    let gate = Gate::at(FileCopy);
    let mut untold = gate.stream.task(Master);
    assert!(untold.check(&bytes(&task(0))).is_err());
    restart(&gate, FileCopy);
    assert!(untold.check(&bytes(&task(0))).is_err());
}

#[test]
fn a_restart_in_a_state_that_never_was() {
    let gate = Gate::at(FileCopy);
    let ahead = bytes(&Descriptor::Locator(locator(PageCopy)));
    let error = gate.stream.resume(&ahead).unwrap_err();
    assert!(error.text().ends_with("resumed in PAGE_COPY after FILE_COPY"));
    assert!(gate.stream.resume(&ahead[..33]).is_err());
    assert!(gate.stream.resume(&bytes(&task(0))).is_err());
    gate.passes(Master, data(FileCopy, 1));

    let gate = Gate::at(Init);
    restart(&gate, SnapshotState::None);
    gate.passes(Master, end(Init));
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, start(RedoCopy), "State Descriptor");
    gate.refuses(Master, data(FileCopy, 0), "Data Descriptor");
    gate.refuses(Master, end(PageCopy), "State Descriptor");
    gate.passes(Master, data(FileCopy, 1));
    gate.passes(Master, end(FileCopy));
    gate.refuses(Master, file(PageCopy, 7), "File Index");
    let huge = FileMetadata { file_size: u64::MAX, ..file_of(PageCopy, DATA_FILES) };
    gate.refuses(Master, Descriptor::FileMetadata(huge), "File Descriptor: size");
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.passes(Master, start(PageCopy));
}

#[test]
fn no_locator_and_no_garbage() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, Descriptor::Locator(locator(FileCopy)), "Descriptor Header");
    let mut longer = bytes(&data(FileCopy, 1));
    longer.push(0);
    let [master, _] = &mut *gate.tasks.borrow_mut();
    for garbage in [&[][..], &[0; 52], &longer] {
        assert!(master.check(garbage).is_err());
    }
}

#[test]
fn key_material_is_pointed_out() {
    let key = Some(EncryptionKey::new(&[1; 32], &[2; 32]));
    let keyed = Descriptor::FileMetadata(FileMetadata { key, ..file_of(RedoCopy, DATA_FILES) });
    let with_key = bytes(&keyed);
    assert!(StreamCheck::contains_key_material(&with_key));
    assert!(StreamCheck::contains_key_material(&with_key[..50]));
    for without in [file(FileCopy, 0), data(FileCopy, 1), task(0), start(FileCopy)] {
        assert!(!StreamCheck::contains_key_material(&bytes(&without)));
    }
    assert!(!StreamCheck::contains_key_material(&[]));
    Gate::after(PageCopy).passes(Master, keyed);

    let key_in_data = |state, file_index, file_offset| {
        let data = Data { file_index, file_offset, ..data_of(state, 1) };
        Gate::at(state).check(Worker, Descriptor::Data(data)).unwrap().key_in_data()
    };
    assert!(!key_in_data(FileCopy, 1, 0));
    assert!(key_in_data(PageCopy, 1, 0));
    assert!(!key_in_data(PageCopy, 1, 16_384));
    assert!(key_in_data(RedoCopy, 0, 0));
    assert!(!key_in_data(RedoCopy, 0, 2048));
    assert!(!key_in_data(RedoCopy, 1, 0));
}
