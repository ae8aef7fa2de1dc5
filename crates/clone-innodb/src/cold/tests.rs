// SPDX-License-Identifier: GPL-2.0-only

//! Small directories, made here. `tests/cold.rs` of the workspace has those of servers.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use clone_protocol::innodb::PageSize;

use super::*;
use crate::encryption::data_key::tests as data_key;
use crate::format::checksum::{page_checksum, seal};
use crate::format::encryption_info;
use crate::format::page::initial_page;

const PAGE: usize = 4096;
/// Pages of 4 KiB.
const FLAGS: u32 = 3 << 6;
/// LSN of pages are above.
const LSN: u64 = 1000;

/// A page that was written whole.
fn page(space: u32, number: u32, lsn: u64) -> Vec<u8> {
    let mut page = match number {
        0 => initial_page(PageSize::of(FLAGS).unwrap(), space, FLAGS, 80_036, None),
        _ => vec![lsn as u8; PAGE],
    };
    page[4..8].copy_from_slice(&number.to_be_bytes());
    page[16..24].copy_from_slice(&lsn.to_be_bytes());
    page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
    page[34..38].copy_from_slice(&space.to_be_bytes());
    if number == 0 {
        page[46..50].copy_from_slice(&8_u32.to_be_bytes());
    }
    page[PAGE - 4..].copy_from_slice(&(lsn as u32).to_be_bytes());
    let sum = page_checksum(&page).to_be_bytes();
    page[..4].copy_from_slice(&sum);
    page[PAGE - 8..PAGE - 4].copy_from_slice(&sum);
    page
}

fn tablespace(space: u32, pages: u32) -> Vec<u8> {
    (0..pages).flat_map(|number| page(space, number, LSN + u64::from(number))).collect()
}

struct Directory(tempfile::TempDir);

impl Directory {
    /// With redo behind the checkpoint or without.
    fn new(is_crashed: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("db")).unwrap();
        fs::create_dir_all(root.join("#innodb_temp")).unwrap();
        for (name, space) in [
            ("ibdata1", 0),
            ("mysql.ibd", 0xFFFF_FFFE),
            ("undo_001", 0xFFFF_FFEF),
            ("undo_002", 0xFFFF_FFEE),
            ("db/t.ibd", 7),
            ("db/s#p#1.ibd", 5),
            ("#innodb_temp/temp_1.ibd", 0xFFFF_0000),
        ] {
            fs::write(root.join(name), tablespace(space, 8)).unwrap();
        }
        fs::write(root.join("ib_buffer_pool"), "0,1\n").unwrap();
        fs::write(root.join("auto.cnf"), "[auto]\n").unwrap();
        redo::tests::write_small(root, is_crashed);
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> Result<ColdDirectory> {
        ColdDirectory::open(&Options::new(self.path()), None)
    }

    fn open_with_keyring(&self) -> Result<ColdDirectory> {
        ColdDirectory::open(&Options::new(self.path()), Some(&data_key::keyring()))
    }

    fn refusal(&self) -> String {
        match self.open().unwrap_err() {
            Error::Refused(text) => text,
            other => panic!("{other:?}"),
        }
    }

    fn write(&self, name: &str, bytes: &[u8], page: usize) {
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(self.path().join(name)).unwrap();
        file.write_all_at(bytes, (page * PAGE) as u64).unwrap();
    }
}

/// What a recipient gets of a page.
fn read(cold: &ColdDirectory, name: &str, page: usize) -> Result<Vec<u8>> {
    let sources = cold.file_copy(&mut || Ok(())).unwrap();
    let file = sources.iter().position(|file| file.name == name.as_bytes()).unwrap();
    let block = Block {
        file: file as u32,
        offset: (page * PAGE) as u64,
        len: u32::try_from(PAGE).unwrap(),
    };
    match SourceFiles::read(cold, SnapshotState::FileCopy, &block)? {
        SourceBlock::Bytes { bytes, .. } => Ok(bytes),
        SourceBlock::File { mut file, .. } => {
            let mut bytes = vec![0; PAGE];
            file.read_exact(&mut bytes).unwrap();
            Ok(bytes)
        }
        SourceBlock::Dropped => panic!("no file is dropped"),
    }
}

/// A page whose second half was not written.
fn torn(space: u32, number: u32, lsn: u64) -> Vec<u8> {
    let mut torn = page(space, number, lsn);
    torn[PAGE / 2..].copy_from_slice(&page(space, number, lsn - 1)[PAGE / 2..]);
    torn
}

#[test]
fn files_are_those_of_a_donor_in_its_order() {
    let directory = Directory::new(false);
    let cold = directory.open().unwrap();
    assert!(!cold.needs_recovery());
    assert_eq!((cold.page_size(), cold.version().text.as_str()), (4096, "8.0.36"));
    let files = cold.file_copy(&mut || Ok(())).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|file| (String::from_utf8_lossy(&file.name).into_owned(), file.space_id))
        .collect();
    let expected = [
        ("ib_buffer_pool", u32::MAX),
        ("ibdata1", 0),
        ("./db/s#p#1.ibd", 5),
        ("./db/t.ibd", 7),
        ("undo_002", 0xFFFF_FFEE),
        ("undo_001", 0xFFFF_FFEF),
        ("mysql.ibd", 0xFFFF_FFFE),
    ];
    assert_eq!(names, expected.map(|(name, space)| (name.to_owned(), space)));
    assert_eq!((files[0].size, files[0].fsp_flags), (4, u32::MAX));
    assert_eq!((files[1].size, files[1].fsp_flags), (8 * 4096, FLAGS));
    assert_eq!(read(&cold, "./db/t.ibd", 3).unwrap(), page(7, 3, LSN + 3));
    assert_eq!(read(&cold, "ibdata1", 7).unwrap(), page(0, 7, LSN + 7));
    let behind = Block { file: 1, offset: 8 * 4096, len: 1 };
    assert!(SourceFiles::read(&cold, SnapshotState::FileCopy, &behind).is_err());
}

#[test]
fn what_a_server_would_not_open_is_refused() {
    type Change = fn(&Directory);
    let changes: [(Change, &str); 9] = [
        (|one| fs::remove_file(one.path().join("mysql.ibd")).unwrap(), "no mysql.ibd"),
        (|one| fs::remove_file(one.path().join("undo_002")).unwrap(), "innodb_undo_directory"),
        (|one| one.write("ibdata1", &[0; PAGE], 0), "says nothing"),
        (|one| fs::write(one.path().join("copy.ibd"), tablespace(7, 8)).unwrap(), "Move one away"),
        (|one| fs::write(one.path().join("undo_1_trunc.log"), "").unwrap(), "truncated"),
        (
            |one| {
                let mut first = page(9, 0, LSN);
                first[56] |= 0x20;
                one.write("db/secret.ibd", &first, 0);
            },
            "keyring",
        ),
        (
            |one| {
                fs::create_dir(one.path().join("#clone")).unwrap();
                fs::write(one.path().join("#clone/#status_in_progress"), "").unwrap();
            },
            "did not succeed",
        ),
        (
            |one| {
                fs::create_dir(one.path().join("#clone")).unwrap();
                fs::write(one.path().join("#clone/#replace_files"), "ibdata1\n").unwrap();
            },
            "waits to replace",
        ),
        (
            |one| {
                let mut first = page(0, 0, LSN);
                first[46..50].copy_from_slice(&9_u32.to_be_bytes());
                one.write("ibdata1", &first, 0);
            },
            "innodb_data_file_path",
        ),
    ];
    for (change, text) in changes {
        let directory = Directory::new(false);
        change(&directory);
        let refusal = directory.refusal();
        assert!(refusal.contains(text), "{refusal} instead of {text}");
    }
}

/// Page 0 of an encrypted tablespace.
fn page_0_with_key(space: u32) -> Vec<u8> {
    let size = PageSize::of(FLAGS).unwrap();
    let mut first = page(space, 0, LSN);
    first[56] |= 0x20;
    let info = data_key::info();
    first[encryption_info::in_page_0(size)..][..info.len()].copy_from_slice(&info);
    seal(&mut first, false);
    first
}

#[test]
fn an_encrypted_tablespace_is_sent_with_its_key() {
    let directory = Directory::new(true);
    directory.write("db/t.ibd", &page_0_with_key(7), 0);
    let mut encrypted = page(7, 2, LSN + 100);
    data_key::encrypt_page(&mut encrypted);
    let mut torn = encrypted.clone();
    torn[PAGE / 2..].fill(7);
    directory.write("db/t.ibd", &torn, 2);
    directory.write("#ib_4096_0.dblwr", &encrypted, 0);
    assert!(directory.refusal().contains("Name the keyring file of its server"));

    let cold = directory.open_with_keyring().unwrap();
    assert_eq!(cold.restored_pages(), 1);
    assert_eq!(cold.encrypted_files().collect::<Vec<_>>(), [b"./db/t.ibd"]);
    let files = cold.file_copy(&mut || Ok(())).unwrap();
    assert!(files.iter().all(|file| file.encrypted == (file.space_id == 7)));
    assert_eq!(read(&cold, "./db/t.ibd", 2).unwrap(), encrypted, "restored, and still encrypted");
    assert_eq!(read(&cold, "./db/t.ibd", 0).unwrap(), page_0_with_key(7), "no key in FILE_COPY");

    let copy = cold.page_copy(&mut || Ok(())).unwrap();
    let index = files.iter().position(|file| file.space_id == 7).unwrap() as u32;
    assert_eq!(copy.pages, [Block { file: index, offset: 0, len: 4096 }]);
    let page_copy = |block| SourceFiles::read(&cold, SnapshotState::PageCopy, block);
    let SourceBlock::Bytes { mut bytes, .. } = page_copy(&copy.pages[0]).unwrap() else { panic!() };
    assert!(bytes.windows(32).any(|bytes| bytes == [5; 32]), "the key is in clear");
    let size = PageSize::of(FLAGS).unwrap();
    assert_eq!(PageState::of(&bytes, size, None), PageState::Whole);
    crate::encryption::MasterKey::generate().unwrap().wrap_page(&mut bytes, size).unwrap();
    assert!(page_copy(&Block { file: 0, offset: 0, len: 4 }).is_err(), "a file without a key");
}

#[test]
fn files_that_say_nothing_are_left_out() {
    let directory = Directory::new(false);
    fs::write(directory.path().join("db/new.ibd"), [0; PAGE]).unwrap();
    fs::write(directory.path().join("db/empty.ibd"), "").unwrap();
    // Tables of another engine.
    fs::write(directory.path().join("db/undo_1.MYD"), tablespace(90, 1)).unwrap();
    fs::write(directory.path().join("db/undo_3"), tablespace(91, 1)).unwrap();
    fs::write(directory.path().join("undo_x"), tablespace(92, 1)).unwrap();
    let truncated = 76_845_412_u32.to_be_bytes();
    fs::write(directory.path().join("undo_1_trunc.log"), truncated).unwrap();
    fs::create_dir(directory.path().join("#clone")).unwrap();
    fs::write(directory.path().join("#clone/#replace_files"), "").unwrap();
    assert_eq!(directory.open().unwrap().files(), 7);
}

#[test]
fn a_second_file_of_the_system_tablespace() {
    let directory = Directory::new(true);
    let mut first = page(0, 0, LSN);
    first[46..50].copy_from_slice(&12_u32.to_be_bytes());
    let sum = page_checksum(&first).to_be_bytes();
    first[..4].copy_from_slice(&sum);
    directory.write("ibdata1", &first, 0);
    let second: Vec<_> = (8..12).flat_map(|number| page(0, number, LSN)).collect();
    fs::write(directory.path().join("ibdata2"), second).unwrap();
    // Page 10 is the third of the second file.
    directory.write("ibdata2", &torn(0, 10, LSN + 50), 2);
    directory.write("#ib_4096_0.dblwr", &page(0, 10, LSN + 50), 0);
    let cold = directory.open().unwrap();
    assert_eq!(cold.files(), 8);
    assert_eq!(cold.restored_pages(), 1);
    assert_eq!(read(&cold, "ibdata2", 2).unwrap(), page(0, 10, LSN + 50));
}

#[test]
fn torn_pages_are_restored() {
    let directory = Directory::new(true);
    let copies = [
        // The older copy is of an older write.
        (0, page(7, 2, LSN + 90)),
        (1, page(7, 2, LSN + 100)),
        (2, page(7, 2, LSN + 80)),
        // A page that was not written at all.
        (3, page(5, 4, LSN + 70)),
        // A page that is whole stays, whatever the copy is.
        (4, page(5, 5, LSN + 900)),
        // No such page, and no such tablespace.
        (5, page(5, 900, LSN)),
        (6, page(99, 1, LSN)),
        // The copy itself is torn.
        (7, torn(5, 6, LSN + 60)),
    ];
    for (slot, copy) in &copies {
        directory.write("#ib_4096_0.dblwr", copy, *slot);
    }
    directory.write("#ib_16384_0.dblwr", &page(7, 1, LSN + 500), 0);
    directory.write("db/t.ibd", &torn(7, 2, LSN + 100), 2);
    directory.write("db/s#p#1.ibd", &[0; PAGE], 4);
    let cold = directory.open().unwrap();
    assert!(cold.needs_recovery());
    assert_eq!(cold.restored_pages(), 2);
    assert_eq!(read(&cold, "./db/t.ibd", 2).unwrap(), page(7, 2, LSN + 100));
    assert_eq!(read(&cold, "./db/s#p#1.ibd", 4).unwrap(), page(5, 4, LSN + 70));
    assert_eq!(read(&cold, "./db/s#p#1.ibd", 5).unwrap(), page(5, 5, LSN + 5));
    assert_eq!(read(&cold, "./db/s#p#1.ibd", 6).unwrap(), page(5, 6, LSN + 6));
    let untouched = fs::read(directory.path().join("db/t.ibd")).unwrap();
    assert_eq!(untouched[2 * PAGE..3 * PAGE], torn(7, 2, LSN + 100), "the file was written");
}

/// A server that has crashed looks into its doublewrite files for pages of zeros.
#[test]
fn pages_of_zeros_get_a_header() {
    for is_crashed in [false, true] {
        let directory = Directory::new(is_crashed);
        directory.write("db/t.ibd", &[0; PAGE], 6);
        let page = read(&directory.open().unwrap(), "./db/t.ibd", 6).unwrap();
        let size = PageSize::of(FLAGS).unwrap();
        let expected = if is_crashed { PageState::Whole } else { PageState::Zeros };
        assert_eq!(PageState::of(&page, size, None), expected);
        if is_crashed {
            assert_eq!((page[7], page[37]), (6, 7), "number and tablespace");
        }
    }
}

#[test]
fn a_torn_page_without_a_copy_is_refused() {
    let directory = Directory::new(true);
    directory.write("db/t.ibd", &torn(7, 2, LSN + 100), 2);
    // Older than the page: the redo before the checkpoint would be missing.
    directory.write("#ib_4096_0.dblwr", &page(7, 2, LSN + 90), 0);
    let cold = directory.open().unwrap();
    assert_eq!(cold.restored_pages(), 0);
    let error = read(&cold, "./db/t.ibd", 2).unwrap_err().to_string();
    assert!(error.contains("page 2 of") && error.contains("t.ibd"), "{error}");
    assert!(read(&cold, "./db/t.ibd", 1).is_ok());
}

#[test]
fn copies_in_the_system_tablespace() {
    let directory = Directory::new(true);
    // An extent is 256 pages of 4 KiB; its copies begin at page 8.
    let mut system = page(0, 0, LSN);
    system[46..50].copy_from_slice(&8_u32.to_be_bytes());
    let mut trx_sys = page(0, 5, LSN);
    let fields = PAGE - 200;
    trx_sys[fields + 10..fields + 14].copy_from_slice(&536_853_855_u32.to_be_bytes());
    trx_sys[fields + 14..fields + 18].copy_from_slice(&8_u32.to_be_bytes());
    trx_sys[fields + 18..fields + 22].copy_from_slice(&300_u32.to_be_bytes());
    let sum = page_checksum(&trx_sys).to_be_bytes();
    trx_sys[..4].copy_from_slice(&sum);
    directory.write("ibdata1", &trx_sys, 5);
    directory.write("ibdata1", &torn(7, 1, LSN + 10), 8);
    directory.write("ibdata1", &page(7, 2, LSN + 100), 9);
    directory.write("db/t.ibd", &torn(7, 2, LSN + 100), 2);
    let cold = directory.open().unwrap();
    assert_eq!(cold.restored_pages(), 1);
    assert_eq!(read(&cold, "./db/t.ibd", 2).unwrap(), page(7, 2, LSN + 100));
    assert_eq!(read(&cold, "ibdata1", 8).unwrap(), torn(7, 1, LSN + 10), "a copy may be torn");
}
