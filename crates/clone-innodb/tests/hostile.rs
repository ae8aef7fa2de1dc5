// SPDX-License-Identifier: GPL-2.0-only

//! A donor that lies, without a `StreamCheck` before the recipient: each lie is an error, and
//! nothing is written outside of the directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use clone_innodb::clock::SystemClock;
use clone_innodb::destination::{Destination, EncryptedFiles, MAX_BLOCK, Options, OutsideFiles};
use clone_innodb::encryption::MasterKey;
use clone_innodb::error::Error;
use clone_innodb::source::{SourceOptions, Sources};
use clone_protocol::innodb::{Data, Descriptor, FileMetadata, Locator, SnapshotState, State};
use proptest::prelude::*;
use support::{GEOMETRY, Input, Packet, Sender, Server};

const RUNS: fn() -> bool = || false;

/// What a donor with one task sends.
fn record() -> (Locator, Vec<Packet>) {
    let options = SourceOptions { max_clones: 1, geometry: GEOMETRY, first_id: 1 };
    let sources = Sources::new(Arc::new(SystemClock::default()), options);
    let mut source = sources.start(&RUNS).unwrap();
    let locator = source.locator();
    let (sender, receiver) = sync_channel(0);
    let donor = thread::spawn(move || {
        let mut output = Sender { packets: sender };
        let copied = source.copy(&RUNS, &Server::new(), &mut output);
        source.end(&RUNS, 0, Duration::ZERO);
        copied.unwrap();
    });
    let mut packets = Vec::new();
    while let Ok(packet) = receiver.recv() {
        if let Descriptor::State(state) = Descriptor::parse(&packet.0).unwrap()
            && !state.start
            && !state.ack
        {
            // The next packet comes after the acknowledgement only.
            let mut acknowledgement = Vec::new();
            Descriptor::State(State { ack: true, ..state }).encode(&mut acknowledgement);
            sources.acknowledge(&RUNS, &locator, 0, &acknowledgement).unwrap();
        }
        packets.push(packet);
    }
    donor.join().unwrap();
    (locator, packets)
}

/// Applies packets up to the first error.
fn apply(locator: &Locator, packets: &[Packet], target: &Path) -> Result<(), Error> {
    apply_with(EncryptedFiles::Refuse, locator, packets, target)
}

fn apply_with(
    encrypted: EncryptedFiles,
    locator: &Locator,
    packets: &[Packet],
    target: &Path,
) -> Result<(), Error> {
    let outside = OutsideFiles::Below("outside".into());
    let options = Options { outside, encrypted, ..Options::default() };
    let clock = Arc::new(SystemClock::default());
    let destination = Destination::create(locator, target, options, clock).unwrap();
    let mut master = destination.add_task(&RUNS, locator).unwrap();
    let mut outcome = Ok(());
    for (descriptor, bytes) in packets {
        let mut input = Input { bytes: bytes.clone(), acknowledge: &|_| Ok(()) };
        outcome = master.apply(&RUNS, descriptor, &mut input);
        if outcome.is_err() {
            break;
        }
    }
    let ended = master.end(&RUNS, outcome.as_ref().err().map_or(0, Error::number));
    outcome.and(ended)
}

/// Changes the first descriptor that `change` changes, and gives the error.
#[track_caller]
fn lie(change: impl Fn(&mut Descriptor<'_>) -> bool) -> u32 {
    let (locator, mut packets) = record();
    let mut has_lied = false;
    for (bytes, _) in &mut packets {
        let before = bytes.clone();
        let mut descriptor = Descriptor::parse(&before).unwrap();
        if !has_lied && change(&mut descriptor) {
            has_lied = true;
            descriptor.encode(bytes);
        }
    }
    assert!(has_lied, "there is no such descriptor");
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let applied = apply(&locator, &packets, &target);
    assert_eq!(names(directory.path()), ["target"]);
    assert!(target.join("#clone/#status_in_progress").exists());
    assert!(!target.join("#clone/#status_fix").exists());
    applied.map_or_else(|error| error.number(), |()| 0)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn lie_of_data(state: SnapshotState, change: impl Fn(&mut Data)) -> u32 {
    lie(|descriptor| match descriptor {
        Descriptor::Data(data) if data.state == state => {
            change(data);
            true
        }
        _ => false,
    })
}

fn lie_of_file(change: impl Fn(&mut FileMetadata<'_>)) -> u32 {
    lie(|descriptor| match descriptor {
        Descriptor::FileMetadata(file) if file.file_index == 1 => {
            change(file);
            true
        }
        _ => false,
    })
}

#[test]
fn the_record_itself_is_right() {
    let (locator, packets) = record();
    let directory = tempfile::tempdir().unwrap();
    apply(&locator, &packets, &directory.path().join("target")).unwrap();
}

#[test]
fn of_chunks_and_places() {
    use SnapshotState::{FileCopy, PageCopy, RedoCopy};
    for state in [FileCopy, PageCopy, RedoCopy] {
        assert_eq!(lie_of_data(state, |data| data.chunk = 0), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.chunk = u32::MAX), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.file_index = u32::MAX), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.data_len = 0), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.data_len = MAX_BLOCK + 1), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.data_len = u32::MAX), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.file_offset = u64::MAX), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.file_offset = 1 << 48), 3863, "{state}");
        assert_eq!(lie_of_data(state, |data| data.file_size = (1 << 48) + 1), 3863, "{state}");
    }
    assert_eq!(lie_of_data(FileCopy, |data| data.state = RedoCopy), 3863);
    assert_eq!(lie_of_data(PageCopy, |data| data.file_offset += 1), 3863);
    assert_eq!(lie_of_data(PageCopy, |data| data.data_len += 1), 3863);
}

#[test]
fn of_files() {
    for name in [
        &b"./db/../../evil.ibd"[..],
        b"./mysqld-auto.cnf",
        b"./#clone/x.ibd",
        b"./a\n/srv\nb.ibd",
        b"evil.so",
        b"/",
    ] {
        assert_eq!(lie_of_file(|file| file.name = name), 3863, "{}", name.escape_ascii());
    }
    assert_eq!(lie_of_file(|file| file.file_index = 6), 3863);
    assert_eq!(lie_of_file(|file| file.file_index = u32::MAX), 3863);
    assert_eq!(lie_of_file(|file| file.fsp_flags = 9 << 6), 3863);
    assert_eq!(lie_of_file(|file| file.name = b"ibdata1.ibd/"), 3863);
    assert_eq!(lie_of_file(|file| file.file_size = (1 << 48) + 1), 3863);
    assert_eq!(lie_of_file(|file| file.encrypted = true), 1235);
    // The name of another file.
    assert_eq!(lie_of_file(|file| file.name = b"./db/b.ibd"), 1086);
    // A state that these files are not of.
    assert_eq!(lie_of_file(|file| file.state = SnapshotState::RedoCopy), 3863);
}

#[test]
fn of_states() {
    let lie_of_start = |change: fn(&mut State)| {
        lie(|descriptor| match descriptor {
            Descriptor::State(state) if state.start => {
                change(state);
                true
            }
            _ => false,
        })
    };
    assert_eq!(lie_of_start(|state| state.state = SnapshotState::PageCopy), 3863);
    assert_eq!(lie_of_start(|state| state.state = SnapshotState::Init), 3863);
    assert_eq!(lie_of_start(|state| state.chunks = u32::MAX), 3863);
    assert_eq!(lie_of_start(|state| state.files = u32::MAX), 3863);
    assert_eq!(lie_of_start(|state| state.estimate_disk = u64::MAX), 3873);
    // Fewer files than there are, and more.
    assert_eq!(lie_of_start(|state| state.files = 3), 3863);
    assert_eq!(lie_of_start(|state| state.files = 7), 3863);
}

/// A worker whose connection breaks when all is on disk does not make the clone useless, although
/// it leaves its error.
#[test]
fn an_error_of_a_worker_after_the_end_does_not_matter() {
    let (locator, packets) = record();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let clock = Arc::new(SystemClock::default());
    let destination = Destination::create(&locator, &target, Options::default(), clock).unwrap();
    let mut master = destination.add_task(&RUNS, &locator).unwrap();
    for (descriptor, bytes) in &packets {
        let mut input = Input { bytes: bytes.clone(), acknowledge: &|_| Ok(()) };
        master.apply(&RUNS, descriptor, &mut input).unwrap();
    }
    let done = Locator { state: SnapshotState::Done, ..locator };
    destination.add_task(&RUNS, &done).unwrap().end(&RUNS, 1158).unwrap();
    master.end(&RUNS, 0).unwrap();
    assert!(target.join("#clone/#status_fix").exists());
    assert!(!target.join("#clone/#status_in_progress").exists());
}

#[test]
fn a_clone_that_stops_in_the_middle_is_not_complete() {
    let (locator, packets) = record();
    for len in [0, 1, 9, packets.len() - 1] {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        assert_eq!(apply(&locator, &packets[..len], &target).unwrap_err().number(), 1815);
        assert!(!target.join("#clone/#status_fix").exists(), "{len}");
    }
}

#[test]
fn of_encrypted_redo() {
    let (locator, mut packets) = record();
    for (descriptor, bytes) in &mut packets {
        if let Descriptor::Data(data) = Descriptor::parse(descriptor).unwrap()
            && (data.state, data.file_index, data.file_offset) == (SnapshotState::RedoCopy, 0, 0)
        {
            bytes[1072..1075].copy_from_slice(b"lCC");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let applied = apply(&locator, &packets, &directory.path().join("target"));
    assert_eq!(applied.unwrap_err().number(), 1235);
}

/// With a master key: what is said to be encrypted must come with its key, and no key reaches the
/// disk in clear.
#[test]
fn of_keys() {
    const KEY: [u8; 64] = [0x5a; 64];
    let (locator, packets) = record();
    let wrap = || EncryptedFiles::Wrap(Arc::new(MasterKey::generate().unwrap()));
    let mut info = [0; 111];
    info[..3].copy_from_slice(b"lCC");
    info[43..107].copy_from_slice(&KEY);
    info[107..].copy_from_slice(&clone_io::checksum(&KEY).to_be_bytes());

    // A file that is said to be encrypted, and has no key.
    for index in 0..5 {
        let mut lies = packets.clone();
        for (descriptor, _) in &mut lies {
            let mut changed = descriptor.clone();
            if let Descriptor::FileMetadata(mut file) = Descriptor::parse(descriptor).unwrap()
                && (file.state, file.file_index) == (SnapshotState::FileCopy, index)
            {
                file.encrypted = true;
                changed.clear();
                Descriptor::FileMetadata(file).encode(&mut changed);
            }
            *descriptor = changed;
        }
        let directory = tempfile::tempdir().unwrap();
        let applied = apply_with(wrap(), &locator, &lies, &directory.path().join("target"));
        // A file that DDL drops or names anew may have no flag any more.
        match applied {
            Err(error) => assert_eq!(error.number(), 3863, "{index}: {error}"),
            Ok(()) => assert!([1, 2, 3].contains(&index), "{index}"),
        }
    }

    // The redo log's key, in clear and damaged.
    for is_good in [true, false] {
        let mut lies = packets.clone();
        for (descriptor, bytes) in &mut lies {
            if let Descriptor::Data(data) = Descriptor::parse(descriptor).unwrap()
                && (data.state, data.file_index, data.file_offset)
                    == (SnapshotState::RedoCopy, 0, 0)
            {
                bytes[1072..1183].copy_from_slice(&info);
                bytes[1179] ^= u8::from(!is_good);
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let applied = apply_with(wrap(), &locator, &lies, &target);
        assert_eq!(applied.is_ok(), is_good, "{applied:?}");
        let redo = fs::read(target.join("#innodb_redo/#ib_redo0")).unwrap();
        assert!(!redo.windows(64).any(|bytes| bytes == KEY), "a key in clear");
        let expected: &[u8; 7] = if is_good { b"lCC\0\0\0\x01" } else { &[0; 7] };
        assert_eq!(redo[1072..1079], expected[..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever bytes are changed: an error or a clone, and nothing outside of the directory.
    #[test]
    fn of_any_kind(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 12_usize..100, any::<u8>()),
            1..4,
        ),
    ) {
        let (locator, mut packets) = record();
        for (packet, at, byte) in changes {
            let (descriptor, _) = packet.get(&packets).clone();
            let mut changed = descriptor.clone();
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            let at = packet.index(packets.len());
            packets[at].0 = changed;
        }
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let applied = apply(&locator, &packets, &target);
        prop_assert_eq!(names(directory.path()), ["target"]);
        prop_assert_eq!(target.join("#clone/#status_fix").exists(), applied.is_ok());
    }
}
