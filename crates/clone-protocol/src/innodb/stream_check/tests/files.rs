// SPDX-License-Identifier: GPL-2.0-only

//! Files, and data in them.

use super::*;

#[test]
fn data_files_come_one_after_the_other() {
    let gate = Gate::at(Init);
    gate.refuses(Master, file(FileCopy, 0), "File Descriptor: state FILE_COPY in INIT");
    gate.passes(Master, start(FileCopy));
    gate.refuses(Master, file(FileCopy, 1), "File Index: 1 of 0");
    gate.passes(Master, file(FileCopy, 0));
    gate.passes(Master, file(FileCopy, 1));
    // Again, as after a restart.
    gate.passes(Master, file(FileCopy, 0));
    gate.passes(Master, file(FileCopy, 2));
    let fourth = FileMetadata { first_chunk: 1, ..file_of(FileCopy, DATA_FILES) };
    gate.refuses(Master, Descriptor::FileMetadata(fourth), "File Index: 3 of 3");
    let last = FileMetadata { file_index: u32::MAX, ..file_of(FileCopy, 0) };
    gate.refuses(Master, Descriptor::FileMetadata(last), "File Index: 4294967295 of 3");
}

#[test]
fn a_worker_describes_no_data_files() {
    let gate = Gate::at(FileCopy);
    gate.refuses(Worker, file(FileCopy, 0), "File Descriptor: from a worker");
    gate.refuses(Worker, file(PageCopy, DATA_FILES), "File Descriptor: from a worker");
}

#[test]
fn all_files_come_before_innodb_goes_through_them() {
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    gate.passes(Master, file(FileCopy, 0));
    gate.refuses(Master, start(PageCopy), "File Descriptor: 1 of 3 data files before PAGE_COPY");
    gate.refuses(Master, file(PageCopy, 1), "File Descriptor: 1 of 3 data files");

    let gate = Gate::at(PageCopy);
    gate.passes(Master, start(RedoCopy));
    gate.passes(Worker, redo(1));
    gate.refuses(Master, start(Done), "File Descriptor: 1 of 2 redo files before DONE");
    gate.passes(Worker, redo(0));
    gate.passes(Master, start(Done));
}

#[test]
fn before_8_0_30_the_second_redo_file_may_be_missing() {
    let at_redo_copy = || {
        let gate = Gate::at(PageCopy).with_spare_redo_file();
        gate.passes(Master, start(RedoCopy));
        gate
    };
    let gate = at_redo_copy();
    gate.refuses(Master, start(Done), "File Descriptor: 0 of 2 redo files before DONE");
    gate.passes(Master, redo(0));
    gate.passes(Master, start(Done));
}

#[test]
fn chunks_of_files_are_within_the_total() {
    let gate = Gate::at(FileCopy);
    let with = |first_chunk, last_chunk| {
        Descriptor::FileMetadata(FileMetadata { first_chunk, last_chunk, ..file_of(FileCopy, 1) })
    };
    gate.passes(Master, with(1, FILE_CHUNKS));
    gate.passes(Master, with(FILE_CHUNKS, FILE_CHUNKS));
    // A file of no bytes.
    gate.passes(Master, with(1, 0));
    gate.passes(Master, with(FILE_CHUNKS + 1, FILE_CHUNKS));
    for (first, last) in
        [(0, 0), (0, 3), (1, FILE_CHUNKS + 1), (5, 3), (2, u32::MAX), (u32::MAX, 9)]
    {
        gate.refuses(Master, with(first, last), "File Descriptor: chunks");
    }
}

#[test]
fn any_task_finds_a_file_dropped() {
    for (state, total) in [(FileCopy, FILE_CHUNKS), (PageCopy, PAGE_CHUNKS)] {
        let gate = Gate::at(state);
        for role in [Master, Worker] {
            gate.passes(role, dropped(state, 2, 1));
            gate.passes(role, dropped(state, 2, total));
            gate.refuses(role, dropped(state, 2, 0), "File Descriptor: chunks");
            gate.refuses(role, dropped(state, 2, total + 1), "File Descriptor: chunks");
            gate.refuses(role, dropped(state, DATA_FILES, 1), "File Index");
        }
    }
    let gate = Gate::at(PageCopy);
    gate.refuses(Master, file(PageCopy, 0), "File Descriptor: state PAGE_COPY in PAGE_COPY");
}

#[test]
fn ddl_changes_files_and_appends_new_ones() {
    for (state, next) in [(FileCopy, PageCopy), (PageCopy, RedoCopy)] {
        let gate = Gate::at(state);
        let renamed = FileMetadata { renamed: true, name: b"./test/t2.ibd", ..file_of(next, 1) };
        gate.passes(Master, Descriptor::FileMetadata(renamed));
        let gone = FileMetadata { deleted: true, ..file_of(next, 2) };
        gate.passes(Master, Descriptor::FileMetadata(gone));
        let new = FileMetadata { first_chunk: 1, last_chunk: 1, ..file_of(next, DATA_FILES) };
        gate.passes(Master, Descriptor::FileMetadata(new));
        let born_dead = FileMetadata { deleted: true, ..file_of(next, DATA_FILES + 1) };
        gate.passes(Master, Descriptor::FileMetadata(born_dead));
        gate.refuses(Master, file(next, DATA_FILES + 3), "File Index: 6 of 5");
        gate.passes(Master, start(next));
    }
    // What FILE_COPY counted keeps its chunks.
    let gate = Gate::at(FileCopy);
    let moved = FileMetadata { last_chunk: u32::MAX, ..file_of(PageCopy, 1) };
    gate.refuses(Master, Descriptor::FileMetadata(moved), "File Descriptor: chunks");
    // A new file is no file of FILE_COPY.
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.refuses(Master, dropped(FileCopy, DATA_FILES, 1), "File Index");
}

#[test]
fn no_ddl_elsewhere() {
    Gate::at(Init).refuses(Master, file(FileCopy, 0), "File Descriptor: state");
    Gate::at(FileCopy).refuses(Master, file(RedoCopy, 0), "File Descriptor: state");
    Gate::at(RedoCopy).refuses(Master, file(Done, 0), "File Descriptor: state");
    Gate::at(Done).refuses(Master, file(Done, 0), "File Descriptor: state");
    Gate::at(PageCopy).refuses(Master, file(FileCopy, 0), "File Descriptor: state");
}

#[test]
fn redo_files_come_in_any_order() {
    let gate = Gate::at(PageCopy);
    gate.passes(Master, start(RedoCopy));
    gate.passes(Worker, redo(1));
    gate.passes(Worker, redo(1));
    gate.passes(Master, redo(0));
    gate.refuses(Worker, redo(REDO_FILES), "File Index: 2 of 2");
    let gone = FileMetadata { deleted: true, ..redo_of(0) };
    gate.refuses(Worker, Descriptor::FileMetadata(gone), "File Descriptor: redo file deleted");
    let named = FileMetadata { name: b"#ib_redo0", ..redo_of(0) };
    gate.passes(Master, Descriptor::FileMetadata(named));
}

#[test]
fn data_files_have_names() {
    let with = |space_id, name| {
        let file = FileMetadata { space_id, name, ..file_of(FileCopy, 0) };
        Descriptor::FileMetadata(file)
    };
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, with(10, b""), "File Descriptor: file name");
    gate.refuses(Master, with(10, b"./test/../../t1.ibd"), "File Descriptor: file name");
    gate.refuses(Master, with(0, b"../ibdata1"), "File Descriptor: file name");
    gate.refuses(Master, with(SPACE_ID_REDO, b"t1.ibd"), "File Descriptor: file name");
    gate.passes(Master, with(0, b"ibdata1"));
    gate.passes(Master, with(10, b"/elsewhere/t1.ibd"));
    gate.passes(Master, with(10, b"../ts1.ibd"));
}

#[test]
fn data_are_of_a_described_file() {
    let of = |state, file_index| Descriptor::Data(Data { file_index, ..data_of(state, 1) });
    for (state, files) in [(FileCopy, DATA_FILES), (PageCopy, DATA_FILES), (RedoCopy, REDO_FILES)] {
        let gate = Gate::at(state);
        gate.passes(Worker, of(state, files - 1));
        for index in [files, u32::MAX] {
            // The very text of InnoDB, for which mysql-test looks.
            let error = gate.check(Worker, of(state, index)).unwrap_err();
            assert_eq!(error, "Wrong Clone RPC: Invalid Data File Index");
        }
    }
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    gate.refuses(Master, of(FileCopy, 0), "Data File Index");
}

#[test]
fn pages_are_whole() {
    // FSP flags, and the size of a page on disk.
    for (fsp_flags, page_size) in [
        (0, 16_384),
        (0x4021, 16_384),
        (3 << 6, 4096),
        (7 << 6, 65_536),
        (1 << 1 | 1, 1024),
        (5 << 1 | 1, 16_384),
        (4 << 1 | 7 << 6, 8192),
    ] {
        let gate = Gate::at(Init);
        gate.passes(Master, start(FileCopy));
        for index in 0..DATA_FILES {
            let file = FileMetadata { fsp_flags, ..file_of(FileCopy, index) };
            gate.passes(Master, Descriptor::FileMetadata(file));
        }
        gate.passes(Master, start(PageCopy));
        let page = |data_len| Descriptor::Data(Data { data_len, ..data_of(PageCopy, 1) });
        gate.passes(Worker, page(page_size));
        gate.passes(Worker, page(65_536));
        gate.refuses(Worker, page(page_size - 1), "Data Descriptor: page of");
    }
}

#[test]
fn page_sizes_that_nobody_has() {
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    for fsp_flags in [u32::MAX, 6 << 1, 15 << 1, 1 << 6, 2 << 6, 8 << 6, 4 << 1 | 2 << 6] {
        let file = FileMetadata { fsp_flags, ..file_of(FileCopy, 0) };
        gate.refuses(Master, Descriptor::FileMetadata(file), "File Descriptor: FSP flags");
    }
    gate.passes(Master, file(FileCopy, 0));
    let other = FileMetadata { fsp_flags: 7 << 6, ..file_of(FileCopy, 0) };
    gate.refuses(Master, Descriptor::FileMetadata(other), "File Descriptor: FSP flags");
}

#[test]
fn the_buffer_pool_dump_has_no_pages() {
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    let dump = FileMetadata {
        fsp_flags: u32::MAX,
        space_id: SPACE_ID_BUFFER_POOL,
        name: b"ib_buffer_pool",
        ..file_of(FileCopy, 0)
    };
    gate.passes(Master, Descriptor::FileMetadata(dump));
    (1..DATA_FILES).for_each(|index| gate.passes(Master, file(FileCopy, index)));
    gate.passes(Worker, Descriptor::Data(Data { data_len: 17, ..data_of(FileCopy, 1) }));
    gate.passes(Master, start(PageCopy));
    gate.refuses(Worker, data(PageCopy, 1), "Data Descriptor: page of");
}

#[test]
fn the_redo_header_is_whole() {
    let gate = Gate::at(RedoCopy);
    let with = |file_index, file_offset, data_len| {
        Descriptor::Data(Data { file_index, file_offset, data_len, ..data_of(RedoCopy, 1) })
    };
    gate.passes(Master, with(0, 0, 2048));
    gate.passes(Master, with(0, 2048, 512));
    gate.passes(Master, with(1, 0, 512));
    gate.refuses(Master, with(0, 0, 1186), "Data Descriptor: redo header of 1186 bytes");
}
