// SPDX-License-Identifier: GPL-2.0-only

//! What a hostile donor once got past the gate. Each test says what must be refused, and failed
//! before it was.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;

use SnapshotState::FileCopy;
use SnapshotState::Init;
use SnapshotState::PageCopy;
use SnapshotState::RedoCopy;
use clone_protocol::innodb::Compression;
use clone_protocol::innodb::Data;
use clone_protocol::innodb::Descriptor;
use clone_protocol::innodb::FileMetadata;
use clone_protocol::innodb::Recipient;
use clone_protocol::innodb::SPACE_ID_BUFFER_POOL;
use clone_protocol::innodb::SPACE_ID_REDO;
use clone_protocol::innodb::SnapshotState;
use clone_protocol::innodb::State;
use clone_protocol::innodb::StreamCheck;
use clone_protocol::innodb::TaskCheck;
use clone_protocol::innodb::TaskMetadata;
use clone_protocol::innodb::TaskRole;

const FILES: u32 = 2;

/// A clone at a server with pages of 16 KiB, with a master and one worker.
struct Gate {
    master: RefCell<TaskCheck>,
    worker: RefCell<TaskCheck>,
}

impl Gate {
    fn check(&self, role: TaskRole, descriptor: Descriptor<'_>) -> Result<(), String> {
        let task = match role {
            TaskRole::Master => &self.master,
            TaskRole::Worker => &self.worker,
        };
        let mut bytes = Vec::new();
        descriptor.encode(&mut bytes);
        task.borrow_mut().check(&bytes).map(drop).map_err(|error| error.to_string())
    }

    fn master(&self, descriptor: Descriptor<'_>) -> Result<(), String> {
        self.check(TaskRole::Master, descriptor)
    }

    fn worker(&self, descriptor: Descriptor<'_>) -> Result<(), String> {
        self.check(TaskRole::Worker, descriptor)
    }

    /// FILE_COPY has begun, nothing is described yet.
    fn begun() -> Self {
        let stream = StreamCheck::new(Recipient::new(16_384));
        let [master, worker] =
            [TaskRole::Master, TaskRole::Worker].map(|role| RefCell::new(stream.task(role)));
        let gate = Self { master, worker };
        gate.master(task(0)).unwrap();
        gate.worker(task(1)).unwrap();
        gate.master(state(Init, false)).unwrap();
        gate.master(state(FileCopy, true)).unwrap();
        gate
    }

    /// All files of FILE_COPY are described, its end has not come.
    fn described() -> Self {
        let gate = Self::begun();
        for index in 0..FILES {
            gate.master(Descriptor::FileMetadata(file(index))).unwrap();
        }
        gate
    }
}

fn task(task: u32) -> Descriptor<'static> {
    Descriptor::TaskMetadata(TaskMetadata { task, chunk: 0, block: 0 })
}

fn state(state: SnapshotState, start: bool) -> Descriptor<'static> {
    let (chunks, files) = match state {
        FileCopy => (9, FILES),
        PageCopy => (2, 10),
        RedoCopy => (4, 2),
        _ => (0, 0),
    };
    Descriptor::State(State {
        state,
        task: 0,
        chunks,
        files,
        estimate: 1,
        estimate_disk: 1,
        start,
        ack: false,
    })
}

fn file(file_index: u32) -> FileMetadata<'static> {
    FileMetadata {
        state: FileCopy,
        file_size: 1 << 20,
        allocated_size: 1 << 20,
        fsp_flags: 0x4021,
        block_size: 4096,
        compression: Compression::None,
        encrypted: false,
        renamed: false,
        deleted: false,
        space_id: 10 + file_index,
        file_index,
        first_chunk: file_index + 1,
        last_chunk: file_index + 1,
        name: b"./test/t1.ibd",
        key: None,
    }
}

fn data(data_len: u32) -> Descriptor<'static> {
    Descriptor::Data(Data {
        state: FileCopy,
        task: 0,
        chunk: 1,
        block: 1,
        file_index: 0,
        data_len,
        file_offset: 0,
        file_size: 1 << 20,
    })
}

#[track_caller]
fn refused(outcome: Result<(), String>, what: &str) {
    assert!(outcome.is_err(), "{what} passes the gate");
}

#[test]
fn s1_names_that_are_no_tablespaces() {
    let mut passed = Vec::new();
    for name in [
        "./mysqld-auto.cnf",
        "mysqld-auto.cnf",
        "./auto.cnf",
        "./server-key.pem",
        "./evil.so",
        "./#clone/#status_error",
        "./#clone/#new_files",
        "./#clone/#old_files",
        "./.rocksdb.swap",
        "/var/lib/mysql/mysqld-auto.cnf",
        "/var/lib/mysql/.my.cnf",
        "../../../home/mysql/.ssh/authorized_keys",
    ] {
        let gate = Gate::begun();
        if gate
            .master(Descriptor::FileMetadata(FileMetadata { name: name.as_bytes(), ..file(0) }))
            .is_ok()
        {
            passed.push(name);
        }
    }
    // Bare names: the system tablespace's and undo's.
    for (space_id, name) in [
        (0, "mysqld-auto.cnf"),
        (SPACE_ID_REDO - 1, "mysqld-auto.cnf"),
        (SPACE_ID_BUFFER_POOL, "mysqld-auto.cnf"),
    ] {
        let gate = Gate::begun();
        let f = FileMetadata { name: name.as_bytes(), space_id, ..file(0) };
        if gate.master(Descriptor::FileMetadata(f)).is_ok() {
            passed.push("bare mysqld-auto.cnf");
        }
    }
    assert!(passed.is_empty(), "pass the gate: {passed:?}");
}

#[test]
fn s2_names_with_line_breaks() {
    // InnoDB writes names line by line to #clone/#new_files and removes each line's file,
    // recursively, when it rolls back.
    let gate = Gate::begun();
    let name = b"./a\n/srv/backups\nb.ibd";
    refused(
        gate.master(Descriptor::FileMetadata(FileMetadata { name, ..file(0) })),
        "a name of three lines",
    );
}

#[test]
fn s3a_pages_of_another_size_than_the_servers() {
    // 4 KiB pages for a 16 KiB server. Made by DDL: fil_write_initial_pages allocates 2 * 4096 and
    // writes at UNIV_PAGE_SIZE - 8.
    let gate = Gate::described();
    gate.master(state(FileCopy, false)).unwrap();
    let f = FileMetadata { state: PageCopy, file_index: FILES, fsp_flags: 3 << 6, ..file(0) };
    refused(gate.master(Descriptor::FileMetadata(f)), "a new file of 4 KiB pages (server: 16 KiB)");
}

#[test]
fn s3b_compressed_pages_longer_than_the_page() {
    // zip 16 KiB of logical 4 KiB: memcpy of 16 KiB behind the first 4 KiB of an 8 KiB buffer.
    let gate = Gate::described();
    gate.master(state(FileCopy, false)).unwrap();
    let f =
        FileMetadata { state: PageCopy, file_index: FILES, fsp_flags: 3 << 6 | 5 << 1, ..file(0) };
    refused(gate.master(Descriptor::FileMetadata(f)), "zip 16 KiB in logical 4 KiB");
}

#[test]
fn s3c_a_buffer_pool_dump_made_by_ddl_with_any_flags() {
    let gate = Gate::described();
    gate.master(state(FileCopy, false)).unwrap();
    let f = FileMetadata {
        state: PageCopy,
        file_index: FILES,
        fsp_flags: 1 << 6,
        space_id: SPACE_ID_BUFFER_POOL,
        name: b"ib_buffer_pool",
        ..file(0)
    };
    refused(gate.master(Descriptor::FileMetadata(f)), "a dump made by DDL, of 1 KiB pages");
}

#[test]
fn s4a_ddl_before_the_end_of_file_copy() {
    // InnoDB takes it for a change of the state that has not ended.
    let gate = Gate::described();
    let f = FileMetadata { state: PageCopy, ..file(0) };
    refused(gate.master(Descriptor::FileMetadata(f)), "DDL before FILE_COPY has ended");
}

#[test]
fn s4b_page_copy_before_the_end_of_file_copy() {
    // A donor starts a state only after the recipient acknowledged the end of the one before.
    let gate = Gate::described();
    refused(gate.master(state(PageCopy, true)), "PAGE_COPY without the end of FILE_COPY");
}

#[test]
fn s5_data_longer_than_any_block() {
    let gate = Gate::described();
    for len in [u32::MAX, 1 << 31, 65 << 20] {
        refused(gate.master(data(len)), &format!("a block of {} MiB", len >> 20));
    }
}

#[test]
fn s6_names_that_are_no_paths() {
    let gate = Gate::begun();
    let mut name = b"./test/".to_vec();
    name.resize(1 << 20, b'x');
    name.extend_from_slice(b".ibd");
    refused(
        gate.master(Descriptor::FileMetadata(FileMetadata { name: &name, ..file(0) })),
        "a name of 1 MiB",
    );
}

#[test]
fn s7_files_larger_than_any() {
    // InnoDB fills a file with zeros up to this size at DONE, and does not look for KILL meanwhile.
    let gate = Gate::begun();
    let f = FileMetadata { file_size: u64::MAX, ..file(0) };
    refused(gate.master(Descriptor::FileMetadata(f)), "a file of 16 EiB");
}

#[test]
fn s8_redo_files_of_another_space() {
    let gate = Gate::described();
    gate.master(state(FileCopy, false)).unwrap();
    gate.master(state(PageCopy, true)).unwrap();
    gate.master(state(PageCopy, false)).unwrap();
    gate.master(state(RedoCopy, true)).unwrap();
    let f = FileMetadata { state: RedoCopy, space_id: 77, name: b"x", ..file(0) };
    refused(gate.master(Descriptor::FileMetadata(f)), "a redo file of tablespace 77, with a name");
}

#[test]
fn s9_a_worker_that_starts_a_state_twice() {
    let gate = Gate::described();
    gate.master(state(FileCopy, false)).unwrap();
    gate.worker(state(FileCopy, false)).unwrap();
    gate.worker(state(PageCopy, true)).unwrap();
    gate.master(state(PageCopy, true)).unwrap();
    refused(gate.worker(state(PageCopy, true)), "a second start of PAGE_COPY by the same worker");
}
