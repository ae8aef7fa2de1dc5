// SPDX-License-Identifier: GPL-2.0-only

//! Clones from beginning to end, and what is left of them.

use super::*;
use crate::{Standing, Swap};

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
fn a_clone_into_a_directory_is_put_in_place() {
    let client = Client::new(Layout::rocksdb("/nowhere")).with_home(".rocksdb");
    let fixture = Fixture { client, ..Fixture::new() };
    let (directory, locator) = (&fixture.directory, Some(fixture.locator.as_slice()));
    let into = Some(directory.path());
    fixture.client.apply_begin(&fixture.session, locator, Mode::Start, into).unwrap();
    fixture.estimate();
    fixture.file(0, "CURRENT", b"MANIFEST-000001\n");
    fixture.file(1, "000002.log", b"log");
    fixture.end(0, 0).unwrap();
    let read = |name: &str| fs::read(directory.path().join(name)).ok();
    assert_eq!(read(".rocksdb/CURRENT").unwrap(), b"MANIFEST-000001\n");
    assert_eq!(read(".rocksdb/000002.log").unwrap(), b"log", "logs are with the files");
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), [".rocksdb"], "and nothing else");
}

#[test]
fn the_servers_data_is_replaced_only_if_that_will_do() {
    let refuse = || Err(Error::NotSupported("as a test".into()));
    let client = Client::new(Layout::rocksdb("/nowhere")).replacing_if(refuse);
    let begin = |directory: Option<&Path>| {
        client.apply_begin(&TestSession::default(), None, Mode::Version, directory)
    };
    assert_eq!(begin(None).unwrap_err().number(), 1235);
    let directory = tempfile::tempdir().unwrap();
    begin(Some(directory.path())).unwrap();
}
