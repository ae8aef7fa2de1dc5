// SPDX-License-Identifier: GPL-2.0-only

//! One rule at a time. Whole streams of stock servers are in `tests/stock_stream.rs`, and a hostile
//! donor against a model of InnoDB is in `fuzzing`.

use super::*;
use crate::innodb::Compression;
use crate::innodb::EncryptionKey;
use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;
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

#[derive(Default)]
struct Gate {
    stream: StreamCheck,
}

impl Gate {
    fn with_spare_redo_file(self) -> Self {
        Self { stream: self.stream.with_spare_redo_file() }
    }

    /// A clone whose master just passed the start of `state`, and all file metadata of it.
    fn at(state: SnapshotState) -> Self {
        let gate = Self::default();
        gate.passes(Master, task(0));
        gate.passes(Master, end(Init));
        if state >= FileCopy {
            gate.passes(Master, start(FileCopy));
            (0..DATA_FILES).for_each(|index| gate.passes(Master, file(FileCopy, index)));
        }
        if state >= PageCopy {
            gate.passes(Master, start(PageCopy));
        }
        if state >= RedoCopy {
            gate.passes(Master, start(RedoCopy));
            (0..REDO_FILES).for_each(|index| gate.passes(Master, redo(index)));
        }
        if state >= Done {
            gate.passes(Master, start(Done));
        }
        gate
    }

    fn check(&self, role: TaskRole, descriptor: Descriptor<'_>) -> Result<Checked, String> {
        let checked = self.stream.check_from(role, &bytes(&descriptor));
        checked.map_err(|error| error.to_string())
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
    gate.passes(Master, task(0));
}

#[test]
fn a_worker_may_end_a_state_after_the_master_has_left_it() {
    let gate = Gate::at(PageCopy);
    gate.passes(Worker, end(FileCopy));
    assert!(gate.check(Master, end(FileCopy)).is_err());
    let gate = Gate::at(RedoCopy);
    assert!(gate.check(Worker, end(FileCopy)).is_err());
}

#[test]
fn tasks_share_it() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<StreamCheck>();
}

#[test]
fn the_caller_learns_what_it_needs() {
    let gate = Gate::at(FileCopy);
    let nothing = Checked {
        kind: DescriptorKind::TaskMetadata,
        data_len: None,
        state_started: None,
        state_ended: None,
        key_in_descriptor: false,
        key_in_data: false,
    };
    assert_eq!(gate.check(Worker, task(1)), Ok(nothing));

    let learned = gate.check(Master, data(FileCopy, 1)).unwrap();
    let kind = DescriptorKind::Data;
    assert_eq!(learned, Checked { kind, data_len: Some(16_384), ..nothing });

    let kind = DescriptorKind::State;
    let learned = gate.check(Master, end(FileCopy)).unwrap();
    assert_eq!(learned, Checked { kind, state_ended: Some(FileCopy), ..nothing });
    let learned = gate.check(Master, start(PageCopy)).unwrap();
    let state_started = Some((PageCopy, u64::from(PAGE_CHUNKS) << 26));
    assert_eq!(learned, Checked { kind, state_started, ..nothing });

    for start in [false, true] {
        let alive = State { ack: true, start, ..state_of(PageCopy) };
        assert_eq!(gate.check(Master, Descriptor::State(alive)), Ok(Checked { kind, ..nothing }));
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
    Gate::at(Init).refuses(Master, data(Init, 1), "Data Descriptor: chunk 1 of 0");
    Gate::at(FileCopy).refuses(Worker, data(PageCopy, 1), "Data Descriptor: state");
    Gate::at(PageCopy).refuses(Master, data(FileCopy, 1), "Data Descriptor: state");
    Gate::at(Done).refuses(Master, data(RedoCopy, 1), "Data Descriptor: state");
    Gate::at(Done).refuses(Master, data(Done, 1), "Data Descriptor: chunk 1 of 0");
}

#[test]
fn data_have_bytes_and_fit_a_file() {
    let gate = Gate::at(FileCopy);
    let with = |data_len, file_offset| {
        Descriptor::Data(Data { data_len, file_offset, ..data_of(FileCopy, 1) })
    };
    gate.passes(Master, with(1, 0));
    gate.passes(Master, with(u32::MAX, 0));
    gate.passes(Master, with(7, i64::MAX.unsigned_abs() - 7));
    gate.refuses(Master, with(0, 0), "Data Descriptor: no data");
    gate.refuses(Master, with(8, i64::MAX.unsigned_abs() - 7), "Data Descriptor: offset");
    gate.refuses(Master, with(8, u64::MAX - 7), "Data Descriptor: offset");
}

#[test]
fn states_come_in_order() {
    let gate = Gate::at(Init);
    gate.refuses(Master, start(SnapshotState::None), "State Descriptor: start of NONE in INIT");
    gate.refuses(Master, start(Init), "State Descriptor: start of INIT");
    gate.refuses(Master, start(PageCopy), "State Descriptor: start of PAGE_COPY in INIT");
    gate.refuses(Worker, start(Done), "State Descriptor: start of DONE");
    gate.refuses(Master, end(FileCopy), "State Descriptor: end of FILE_COPY in INIT");

    let gate = Gate::at(PageCopy);
    gate.refuses(Master, start(FileCopy), "State Descriptor: start of FILE_COPY");
    gate.refuses(Master, start(PageCopy), "State Descriptor: start of PAGE_COPY in PAGE_COPY");
    gate.refuses(Master, end(FileCopy), "State Descriptor: end of FILE_COPY in PAGE_COPY");
    gate.refuses(Worker, end(Init), "State Descriptor: end of INIT in PAGE_COPY");
    gate.passes(Worker, end(PageCopy));
    gate.passes(Master, end(PageCopy));
    gate.passes(Master, start(RedoCopy));
}

#[test]
fn a_worker_starts_before_or_after_the_master() {
    let gate = Gate::at(FileCopy);
    let worker = State { task: 1, estimate: 0, estimate_disk: 0, ..state_of(PageCopy) };
    gate.passes(Worker, Descriptor::State(worker));
    // Other tasks are where they were until the master's start.
    gate.passes(Worker, end(FileCopy));
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.passes(Master, start(PageCopy));
    gate.passes(Worker, Descriptor::State(worker));
    gate.passes(Worker, data(PageCopy, 1));
}

#[test]
fn only_the_master_gives_totals() {
    let gate = Gate::at(FileCopy);
    let lie = Descriptor::State(State { task: 0, chunks: 1000, ..state_of(PageCopy) });
    gate.passes(Worker, lie);
    gate.passes(Master, start(PageCopy));
    gate.refuses(Worker, data(PageCopy, PAGE_CHUNKS + 1), "Data Descriptor: chunk");

    for wrong in [
        State { chunks: PAGE_CHUNKS + 1, ..state_of(PageCopy) },
        State { files: 4999, ..state_of(PageCopy) },
    ] {
        gate.refuses(Worker, Descriptor::State(wrong), "State Descriptor");
    }
}

#[test]
fn totals_that_nobody_has() {
    let with = |state, chunks, files| Descriptor::State(State { chunks, files, ..state_of(state) });
    let gate = Gate::at(Init);
    gate.refuses(Master, with(FileCopy, (1 << 27) + 1, 1), "State Descriptor: 134217729 chunks");
    gate.refuses(Master, with(FileCopy, 1, u32::MAX), "State Descriptor: 4294967295 files");
    gate.passes(Master, with(FileCopy, 1 << 27, 1 << 26));

    let gate = Gate::at(FileCopy);
    gate.passes(Master, with(PageCopy, 1, u32::MAX));
    gate.refuses(Master, with(RedoCopy, 1, 70_000), "State Descriptor: 70000 files");
    gate.passes(Master, with(RedoCopy, 1, 1000));
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
    let gate = Gate::at(FileCopy);
    gate.passes(Master, start(PageCopy));
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
fn a_restart_must_be_told_when_roles_are_known() {
    let gate = Gate::at(FileCopy);
    gate.passes(Worker, task(1));
    gate.passes(Worker, task(0));
    gate.refuses(Master, task(0), "Task Descriptor: once more");
    restart(&gate, FileCopy);
    gate.refuses(Master, task(0), "Task Descriptor: once more");
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
fn without_roles_a_restart_leaves_both_meanings() {
    let gate = Gate::at(RedoCopy);
    let check = |descriptor| gate.stream.check(&bytes(&descriptor)).map(|_| ());
    assert_eq!(check(task(0)), Ok(()));
    assert_eq!(check(file(RedoCopy, DATA_FILES)), Ok(()));
    assert_eq!(check(redo(0)), Ok(()));
    assert_eq!(check(data(RedoCopy, 1)), Ok(()));
    assert_eq!(check(start(RedoCopy)), Ok(()));
    assert!(check(file(RedoCopy, DATA_FILES + 1)).is_err());
    assert!(check(start(RedoCopy)).is_err());
}

#[test]
fn without_roles_task_0_is_the_master() {
    let gate = Gate::default();
    let check = |descriptor| gate.stream.check(&bytes(&descriptor)).map(|_| ());
    assert_eq!(check(task(0)), Ok(()));
    let worker = State { task: 1, ..state_of(FileCopy) };
    assert_eq!(check(Descriptor::State(worker)), Ok(()));
    assert!(check(file(FileCopy, 0)).is_err());
    assert_eq!(check(start(FileCopy)), Ok(()));
    assert_eq!(check(file(FileCopy, 0)), Ok(()));
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, start(RedoCopy), "State Descriptor");
    gate.refuses(Master, data(FileCopy, 0), "Data Descriptor");
    gate.refuses(Master, file(PageCopy, 7), "File Index");
    gate.passes(Master, data(FileCopy, 1));
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.passes(Master, start(PageCopy));
}

#[test]
fn no_locator_and_no_garbage() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, Descriptor::Locator(locator(FileCopy)), "Descriptor Header");
    assert!(gate.stream.check(&[]).is_err());
    assert!(gate.stream.check(&[0; 52]).is_err());
    let mut longer = bytes(&data(FileCopy, 1));
    longer.push(0);
    assert!(gate.stream.check(&longer).is_err());
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
    assert!(Gate::at(PageCopy).check(Master, keyed).unwrap().key_in_descriptor);

    let key_in_data = |state, file_index, file_offset| {
        let data = Data { file_index, file_offset, ..data_of(state, 1) };
        Gate::at(state).check(Worker, Descriptor::Data(data)).unwrap().key_in_data
    };
    assert!(!key_in_data(FileCopy, 1, 0));
    assert!(key_in_data(PageCopy, 1, 0));
    assert!(!key_in_data(PageCopy, 1, 16_384));
    assert!(key_in_data(RedoCopy, 0, 0));
    assert!(!key_in_data(RedoCopy, 0, 2048));
    assert!(!key_in_data(RedoCopy, 1, 0));
}
