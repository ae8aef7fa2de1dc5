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
    gate.passes(Worker, end(FileCopy));
    gate.passes(Master, end(FileCopy));
    gate.refuses(Worker, file(PageCopy, DATA_FILES), "File Descriptor: from a worker");
}

#[test]
fn all_files_come_before_innodb_goes_through_them() {
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    gate.passes(Master, file(FileCopy, 0));
    gate.passes(Master, end(FileCopy));
    gate.refuses(Master, start(PageCopy), "File Descriptor: 1 of 3 data files before PAGE_COPY");
    gate.refuses(Master, file(PageCopy, 1), "File Descriptor: 1 of 3 data files");

    let gate = Gate::after(PageCopy);
    gate.passes(Master, start(RedoCopy));
    gate.passes(Worker, redo(1));
    gate.passes(Master, end(RedoCopy));
    gate.refuses(Master, start(Done), "File Descriptor: 1 of 2 redo files before DONE");
    gate.passes(Worker, redo(0));
    gate.passes(Master, start(Done));
}

#[test]
fn before_8_0_30_the_second_redo_file_may_be_missing() {
    let old = Recipient { has_spare_redo_file: true, ..recipient() };
    let gate = Gate::new(old);
    gate.passes(Master, start(FileCopy));
    (0..DATA_FILES).for_each(|index| gate.passes(Master, file(FileCopy, index)));
    gate.moves(FileCopy);
    gate.moves(PageCopy);
    gate.passes(Master, end(RedoCopy));
    gate.refuses(Master, start(Done), "File Descriptor: 0 of 2 redo files before DONE");
    gate.passes(Worker, redo(0));
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
        let gate = Gate::after(state);
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
    let gate = Gate::after(FileCopy);
    let moved = FileMetadata { last_chunk: u32::MAX, ..file_of(PageCopy, 1) };
    gate.refuses(Master, Descriptor::FileMetadata(moved), "File Descriptor: chunks");
    // A new file is no file of FILE_COPY.
    gate.passes(Master, file(PageCopy, DATA_FILES));
    gate.refuses(Worker, dropped(FileCopy, DATA_FILES, 1), "File Index");
}

#[test]
fn no_ddl_elsewhere() {
    Gate::at(Init).refuses(Master, file(FileCopy, 0), "File Descriptor: state");
    Gate::at(FileCopy).refuses(Master, file(RedoCopy, 0), "File Descriptor: state");
    Gate::at(RedoCopy).refuses(Master, file(Done, 0), "File Descriptor: state");
    Gate::at(Done).refuses(Master, file(Done, 0), "File Descriptor: state");
    Gate::at(PageCopy).refuses(Worker, file(FileCopy, 0), "File Descriptor: state");
}

#[test]
fn no_ddl_before_the_end_of_a_state() {
    for (state, next) in [(FileCopy, PageCopy), (PageCopy, RedoCopy)] {
        let gate = Gate::at(state);
        gate.refuses(Master, file(next, DATA_FILES), "File Descriptor: DDL before the end of");
        gate.passes(Master, end(state));
        gate.passes(Master, file(next, DATA_FILES));
    }
}

#[test]
fn a_file_stays_in_its_tablespace() {
    let gate = Gate::after(FileCopy);
    let moved = FileMetadata { renamed: true, space_id: 77, ..file_of(PageCopy, 1) };
    gate.refuses(Master, Descriptor::FileMetadata(moved), "File Descriptor: space 77, before 11");
    let system = FileMetadata { space_id: 0, name: b"ibdata1", ..file_of(PageCopy, 1) };
    gate.refuses(Master, Descriptor::FileMetadata(system), "File Descriptor: space 0, before 11");
}

#[test]
fn redo_files_come_in_any_order() {
    let gate = Gate::after(PageCopy);
    gate.passes(Master, start(RedoCopy));
    gate.passes(Worker, redo(1));
    gate.passes(Worker, redo(1));
    gate.passes(Master, redo(0));
    gate.refuses(Worker, redo(REDO_FILES), "File Index: 2 of 2");
    for (wrong, why) in [
        (FileMetadata { deleted: true, ..redo_of(0) }, "redo file deleted"),
        (FileMetadata { name: b"#ib_redo0", ..redo_of(0) }, "redo file with a name"),
        (FileMetadata { space_id: 77, ..redo_of(0) }, "redo file of space 77"),
        (FileMetadata { file_size: 1 << 63, ..redo_of(0) }, "size"),
    ] {
        let why = format!("File Descriptor: {why}");
        gate.refuses(Worker, Descriptor::FileMetadata(wrong), &why);
    }
}

#[test]
fn sizes_fit_a_disk() {
    let max = i64::MAX.unsigned_abs();
    let with = |index, file_size| {
        Descriptor::FileMetadata(FileMetadata { file_size, ..file_of(FileCopy, index) })
    };
    let gate = Gate::new(recipient());
    gate.passes(Master, start(FileCopy));
    gate.refuses(Master, with(0, max + 1), "File Descriptor: size");
    gate.passes(Master, with(0, max - 10));
    gate.refuses(Master, with(1, 11), "File Descriptor: size 11");
    gate.passes(Master, with(1, 10));
    gate.passes(Master, with(2, 0));
    // The same again does not count twice.
    gate.passes(Master, with(0, max - 10));
    gate.moves(FileCopy);
    let page_0 = |file_size| {
        let data = Data { file_index: 1, file_offset: 0, file_size, ..data_of(PageCopy, 1) };
        Descriptor::Data(data)
    };
    gate.passes(Worker, page_0(10));
    gate.refuses(Worker, page_0(11), "Data Descriptor: file size 11");
    gate.refuses(Worker, page_0(u64::MAX), "Data Descriptor: file size");
}

#[test]
fn files_lie_in_known_directories() {
    let directories = Directories { base: b"/data".to_vec(), known: vec![b"/mnt/ts".to_vec()] };
    let gate = Gate::new(Recipient { directories: Some(directories), ..recipient() });
    gate.passes(Master, start(FileCopy));
    let with = |space_id, name| {
        Descriptor::FileMetadata(FileMetadata { space_id, name, ..file_of(FileCopy, 0) })
    };
    for name in [&b"/mnt/other/t1.ibd"[..], b"../t1.ibd", b"/mnt/ts/../t1.ibd"] {
        gate.refuses(Master, with(10, name), "File Descriptor: file name: not in a known");
    }
    gate.passes(Master, with(10, b"/mnt/ts/t1.ibd"));
    gate.passes(Master, with(10, b"./test/t1.ibd"));
    gate.passes(Master, with(10, b"t1.ibd"));
}

#[test]
fn data_files_have_names() {
    let with = |space_id, name| {
        let file = FileMetadata { space_id, name, ..file_of(FileCopy, 0) };
        Descriptor::FileMetadata(file)
    };
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, with(10, b""), "File Descriptor: file name: no file");
    gate.refuses(Master, with(10, b"./test/../../t1.ibd"), "File Descriptor: file name: climbs");
    gate.refuses(Master, with(10, b"./a\nb.ibd"), "File Descriptor: file name: control");
    gate.refuses(Master, with(0, b"../ibdata1"), "File Descriptor: file name: not of this kind");
    gate.refuses(Master, with(SPACE_ID_REDO, b"t1.ibd"), "File Descriptor: file name: redo");
    gate.passes(Master, with(10, b"/elsewhere/t1.ibd"));
    gate.passes(Master, with(10, b"../ts1.ibd"));
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    gate.passes(Master, with(0, b"ibdata1"));
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
    // The server's page size, FSP flags, and the size of a page on disk.
    for (server, fsp_flags, page_size) in [
        (16_384, 0, 16_384),
        (16_384, 0x4021, 16_384),
        (4096, 3 << 6, 4096),
        (65_536, 7 << 6, 65_536),
        (16_384, 1 << 1 | 1, 1024),
        (16_384, 5 << 1 | 1, 16_384),
        (4096, 3 << 1 | 3 << 6, 4096),
        (65_536, 4 << 1 | 7 << 6, 8192),
    ] {
        let gate = Gate::new(Recipient::new(server));
        gate.passes(Master, start(FileCopy));
        for index in 0..DATA_FILES {
            let file = FileMetadata { fsp_flags, ..file_of(FileCopy, index) };
            gate.passes(Master, Descriptor::FileMetadata(file));
        }
        gate.moves(FileCopy);
        let page = |data_len| Descriptor::Data(Data { data_len, ..data_of(PageCopy, 1) });
        gate.passes(Worker, page(page_size));
        gate.passes(Worker, page(65_536));
        gate.refuses(Worker, page(page_size - 1), "Data Descriptor: page of");
    }
}

#[test]
fn page_sizes_that_the_server_has_not() {
    let with =
        |fsp_flags| Descriptor::FileMetadata(FileMetadata { fsp_flags, ..file_of(FileCopy, 0) });
    for (server, wrong) in [
        (16_384, &[u32::MAX, 6 << 1, 15 << 1, 1 << 6, 3 << 6, 7 << 6, 8 << 6, 15 << 6][..]),
        (16_384, &[5 << 1 | 3 << 6, 4 << 1 | 2 << 6]),
        (4096, &[0, 4 << 6, 4 << 1 | 3 << 6, 5 << 1 | 3 << 6]),
        (65_536, &[0, 6 << 6, 6 << 1 | 7 << 6]),
    ] {
        let gate = Gate::new(Recipient::new(server));
        gate.passes(Master, start(FileCopy));
        for flags in wrong {
            gate.refuses(Master, with(*flags), "File Descriptor: FSP flags");
        }
    }
    let gate = Gate::at(FileCopy);
    gate.refuses(Master, with(4 << 1), "File Descriptor: FSP flags");
}

#[test]
fn the_buffer_pool_dump_has_no_pages() {
    let dump_of = |state| FileMetadata {
        fsp_flags: u32::MAX,
        space_id: SPACE_ID_BUFFER_POOL,
        name: b"ib_buffer_pool",
        ..file_of(state, 0)
    };
    let gate = Gate::at(Init);
    gate.passes(Master, start(FileCopy));
    let paged = FileMetadata { fsp_flags: 1 << 6, ..dump_of(FileCopy) };
    gate.refuses(Master, Descriptor::FileMetadata(paged), "File Descriptor: FSP flags");
    gate.passes(Master, Descriptor::FileMetadata(dump_of(FileCopy)));
    (1..DATA_FILES).for_each(|index| gate.passes(Master, file(FileCopy, index)));
    gate.passes(Worker, Descriptor::Data(Data { data_len: 17, ..data_of(FileCopy, 1) }));
    gate.passes(Master, end(FileCopy));
    let by_ddl = Descriptor::FileMetadata(dump_of(PageCopy));
    gate.refuses(Master, by_ddl, "File Descriptor: buffer pool dump made by DDL");
    gate.passes(Master, start(PageCopy));
    gate.refuses(Worker, data(PageCopy, 1), "Data Descriptor: page of");
}

#[test]
fn keys_go_into_page_0() {
    let checked_page_0 = |fsp_flags, data_len| {
        let gate = Gate::at(Init);
        gate.passes(Master, start(FileCopy));
        for index in 0..DATA_FILES {
            let file = FileMetadata { fsp_flags, ..file_of(FileCopy, index) };
            gate.passes(Master, Descriptor::FileMetadata(file));
        }
        gate.moves(FileCopy);
        let data = Data { data_len, file_offset: 0, ..data_of(PageCopy, 1) };
        gate.check(Worker, Descriptor::Data(data)).unwrap()
    };
    let page = |page_type: u16, len: usize| {
        let mut page = vec![0; len];
        page[24..26].copy_from_slice(&page_type.to_be_bytes());
        page
    };
    let compressed = checked_page_0(1 << 1 | 1, 1024);
    assert_eq!(compressed.check_data(&page(8, 1024)), Ok(()));
    for wrong in [page(0, 1024), page(17_855, 1024), page(8, 1023), page(8, 1025)] {
        assert!(compressed.check_data(&wrong).is_err());
    }
    // Others InnoDB writes whatever their type is.
    let plain = checked_page_0(0x4021, 16_384);
    assert!(plain.key_in_data());
    assert_eq!(plain.check_data(&page(0, 16_384)), Ok(()));
    assert!(plain.check_data(&page(0, 16_383)).is_err());
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
