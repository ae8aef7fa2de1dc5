// SPDX-License-Identifier: GPL-2.0-only

use super::super::operations::open;
use super::*;

/// 16 KiB pages.
const FLAGS: u32 = 0x4021;

fn file(index: u32, name: &'static str) -> FileMetadata<'static> {
    FileMetadata {
        state: SnapshotState::FileCopy,
        file_size: 7 << 14,
        allocated_size: 7 << 14,
        fsp_flags: FLAGS,
        block_size: 4096,
        compression: Compression::None,
        encrypted: false,
        renamed: false,
        deleted: false,
        space_id: 100 + index % 100,
        file_index: index,
        first_chunk: index % 100 + 1,
        last_chunk: index % 100 + 1,
        name: name.as_bytes(),
        key: None,
    }
}

fn start(state: SnapshotState, files: u32) -> State {
    State {
        state,
        task: 0,
        chunks: 9,
        files,
        estimate: 0,
        estimate_disk: 0,
        start: true,
        ack: false,
    }
}

/// Files of FILE_COPY with these names.
fn files(names: &[&'static str]) -> (tempfile::TempDir, Files) {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned(), Options::default());
    let total = u32::try_from(names.len()).unwrap();
    files.announce(&start(SnapshotState::FileCopy, total)).unwrap();
    for (index, name) in (0..).zip(names) {
        let described = files.describe(SnapshotState::FileCopy, &file(index, name)).unwrap();
        let is_last = index + 1 == total;
        assert_eq!(described, if is_last { Described::Complete } else { Described::Noted });
    }
    (directory, files)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_and_directories_have_the_modes_of_mysqld() {
    let (directory, _files) = files(&["./db/a.ibd"]);
    let mode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().mode() & 0o777;
    // The umask may take bits away, and never adds one.
    assert_eq!(mode("db/a.ibd") & !0o640, 0);
    assert_eq!(mode("db/a.ibd") & 0o600, 0o600);
    assert_eq!(mode("db") & !0o750, 0);
}

#[test]
fn two_files_that_exchange_their_names_keep_their_content() {
    let (directory, mut files) = files(&["./db/a.ibd", "./db/b.ibd"]);
    for name in ["a", "b"] {
        fs::write(directory.path().join(format!("db/{name}.ibd")), name).unwrap();
    }
    let renamed = |index, name| FileMetadata { renamed: true, ..file(index, name) };
    files.change(&renamed(0, "./db/b.ibd")).unwrap();
    files.change(&renamed(1, "./db/a.ibd")).unwrap();
    // A restart says it again.
    files.change(&renamed(1, "./db/a.ibd")).unwrap();
    assert_eq!(names(directory.path()), ["a.ibd.#clone_ddl", "b.ibd.#clone_ddl"]);
    files.fix_all_renamed().unwrap();
    assert_eq!(names(directory.path()), ["a.ibd", "b.ibd"]);
    let content = |name: &str| fs::read_to_string(directory.path().join("db").join(name)).unwrap();
    assert_eq!((content("a.ibd"), content("b.ibd")), ("b".to_owned(), "a".to_owned()));
}

#[test]
fn a_rename_does_not_replace_a_file() {
    let (directory, mut files) = files(&["./db/a.ibd", "./db/b.ibd"]);
    files.change(&FileMetadata { renamed: true, ..file(0, "./db/b.ibd") }).unwrap();
    assert_eq!(files.fix_all_renamed().unwrap_err().number(), 1086);
    assert_eq!(names(directory.path()), ["b.ibd", "b.ibd.#clone_ddl"]);
}

#[test]
fn a_dropped_file_gives_its_chunks_at_once_and_is_deleted_later() {
    let (directory, mut files) = files(&["./db/a.ibd", "./db/b.ibd"]);
    let dropped = FileMetadata { deleted: true, last_chunk: 0, ..file(1, "./db/b.ibd") };
    let described = files.describe(SnapshotState::FileCopy, &dropped).unwrap();
    assert_eq!(described, Described::Dropped { first: 2, last: 2 });
    let again = files.describe(SnapshotState::FileCopy, &dropped).unwrap();
    assert_eq!(again, Described::Noted, "not all chunks once more");
    assert_eq!(names(directory.path()), ["a.ibd", "b.ibd"]);
    files.change(&dropped).unwrap();
    files.change(&dropped).unwrap();
    assert_eq!(names(directory.path()), ["a.ibd"]);
    // Its name is free for another.
    files.change(&file(2, "./db/b.ibd")).unwrap();
    assert_eq!(names(directory.path()), ["a.ibd", "b.ibd"]);
}

#[test]
fn a_new_file_has_its_initial_pages() {
    let (directory, mut files) = files(&["./db/a.ibd"]);
    files.change(&file(1, "./db/new.ibd")).unwrap();
    let undo =
        FileMetadata { space_id: 0xFFFF_FFEF, file_index: 2, fsp_flags: 0, ..file(2, "undo_001") };
    files.change(&undo).unwrap();
    let new = fs::read(directory.path().join("db/new.ibd")).unwrap();
    assert_eq!(new.len(), 7 << 14);
    assert_eq!(new[..1 << 14], initial_page(PageSize::of(FLAGS).unwrap(), 101, FLAGS, 0, None));
    assert!(new[1 << 14..].iter().all(|byte| *byte == 0));
    assert_eq!(fs::metadata(directory.path().join("undo_001")).unwrap().len(), 16 << 20);
}

#[test]
fn what_is_there_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("db")).unwrap();
    fs::write(directory.path().join("db/a.ibd"), "mine").unwrap();
    let mut files = Files::new(directory.path().to_owned(), Options::default());
    files.announce(&start(SnapshotState::FileCopy, 1)).unwrap();
    let described = files.describe(SnapshotState::FileCopy, &file(0, "./db/a.ibd"));
    assert_eq!(described.unwrap_err().number(), 1086);
    assert_eq!(fs::read_to_string(directory.path().join("db/a.ibd")).unwrap(), "mine");
}

#[test]
fn encrypted_files_are_refused() {
    let (_directory, mut files) = files(&["./db/a.ibd"]);
    let encrypted = FileMetadata { encrypted: true, ..file(1, "./db/b.ibd") };
    assert_eq!(files.change(&encrypted).unwrap_err().number(), 1235);
    let altered = FileMetadata { encrypted: true, ..file(0, "./db/a.ibd") };
    assert_eq!(files.change(&altered).unwrap_err().number(), 1235);
}

#[test]
fn files_grow_to_their_size_and_to_whole_extents() {
    let (directory, files) = files(&["./db/a.ibd", "./db/b.ibd", "./db/c.ibd"]);
    // Smaller than announced; more than an extent; less than one, but more than announced.
    for (name, len) in [("a", 1), ("b", (1 << 20) + 5), ("c", 900_000)] {
        let file = open(&directory.path().join(format!("db/{name}.ibd"))).unwrap();
        file.set_len(len).unwrap();
    }
    files.extend_and_flush().unwrap();
    let len = |name: &str| fs::metadata(directory.path().join("db").join(name)).unwrap().len();
    assert_eq!((len("a.ibd"), len("b.ibd"), len("c.ibd")), (7 << 14, 2 << 20, 900_000));
}

#[test]
fn the_system_tablespace_grows_in_its_last_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned(), Options::default());
    files.announce(&start(SnapshotState::FileCopy, 3)).unwrap();
    for (index, name) in [(0, "ibdata1"), (1, "ibdata2"), (2, "./db/a.ibd")] {
        let space_id = if index < 2 { 0 } else { 5 };
        let file = FileMetadata { space_id, file_size: 1 << 20, ..file(index, name) };
        files.describe(SnapshotState::FileCopy, &file).unwrap();
    }
    files.update_size(0, 5 << 20);
    let sizes: Vec<_> = files.data.values().map(|file| file.size).collect();
    assert_eq!(sizes, [1 << 20, 4 << 20, 1 << 20]);
}

#[test]
fn indexes_outside_are_refused() {
    let (_directory, mut files) = files(&["./db/a.ibd"]);
    for index in [1, 7, u32::MAX] {
        let described = files.describe(SnapshotState::FileCopy, &file(index, "./db/x.ibd"));
        assert_eq!(described.unwrap_err().number(), 3863, "{index}");
    }
    for index in [2, u32::MAX] {
        let changed = files.change(&file(index, "./db/x.ibd"));
        assert_eq!(changed.unwrap_err().number(), 3863, "{index}");
    }
    assert_eq!(files.describe_redo(&file(0, "")).unwrap_err().number(), 3863);
    let many = files.announce(&start(SnapshotState::RedoCopy, u32::MAX));
    assert_eq!(many.unwrap_err().number(), 3863);
}
