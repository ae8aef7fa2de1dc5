// SPDX-License-Identifier: GPL-2.0-only

//! Descriptors byte for byte, cut, and with wrong lengths.

use proptest::prelude::*;

use super::*;

fn bytes(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut out = vec![0xaa; 3];
    descriptor.encode(&mut out);
    out
}

/// Bytes from groups of hexadecimal digits.
fn hex(groups: &str) -> Vec<u8> {
    let digits: Vec<u8> = groups.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Encodes to these bytes, and parses back from them.
fn exact(descriptor: &Descriptor<'_>, groups: &str) {
    assert_eq!(bytes(descriptor), hex(groups));
    assert_eq!(Descriptor::parse(&hex(groups)).as_ref(), Ok(descriptor));
}

fn locator() -> Locator {
    Locator {
        version: VERSION,
        clone_id: 1,
        snapshot_id: 2,
        index: 0,
        state: SnapshotState::FileCopy,
        metadata_transferred: true,
        progress: None,
    }
}

fn progress() -> Progress {
    Progress {
        incomplete: vec![
            IncompleteChunk { chunk: 3, block: 17 },
            IncompleteChunk { chunk: 33, block: 1 },
        ],
        reserved: vec![0b111, 0x8000_0001],
    }
}

fn state() -> State {
    State {
        state: SnapshotState::FileCopy,
        task: 3,
        chunks: 10,
        files: 7,
        estimate: 0x0102_0304_0506_0708,
        estimate_disk: 9,
        start: true,
        ack: false,
    }
}

fn file() -> FileMetadata<'static> {
    FileMetadata {
        state: SnapshotState::RedoCopy,
        file_size: 114_688,
        allocated_size: 65_536,
        fsp_flags: 0x4021,
        block_size: 4096,
        compression: Compression::Lz4,
        encrypted: true,
        renamed: true,
        deleted: false,
        space_id: 17,
        file_index: 5,
        first_chunk: 8,
        last_chunk: 9,
        name: b"./test/t1.ibd",
        key: None,
    }
}

fn data() -> Data {
    Data {
        state: SnapshotState::PageCopy,
        task: 127,
        chunk: 1,
        block: 4096,
        file_index: 5,
        data_len: 16_384,
        file_offset: 0x1_0000_0000,
        file_size: 0x2_0000_0000,
    }
}

fn all() -> Vec<Descriptor<'static>> {
    vec![
        Descriptor::Locator(locator()),
        Descriptor::Locator(Locator { progress: Some(progress()), ..locator() }),
        Descriptor::TaskMetadata(TaskMetadata { task: 1, chunk: 2, block: 3 }),
        Descriptor::State(state()),
        Descriptor::FileMetadata(file()),
        Descriptor::FileMetadata(FileMetadata {
            key: Some(EncryptionKey::new(&[1; 32], &[2; 32])),
            ..file()
        }),
        Descriptor::Data(data()),
    ]
}

#[test]
fn locator_byte_for_byte() {
    exact(
        &Descriptor::Locator(locator()),
        "00000064 00000022 00000001  0000000000000001 0000000000000002 00000000 02 01",
    );
}

#[test]
fn restart_locator_byte_for_byte() {
    let restart = Locator { progress: Some(progress()), ..locator() };
    exact(
        &Descriptor::Locator(restart.clone()),
        "00000064 00000042 00000001  0000000000000001 0000000000000002 00000000 02 01
         00000002 00000003 00000011 00000021 00000001
         00000002 00000007 80000001",
    );
    let reserved: Vec<u32> = (0..70).filter(|chunk| progress().is_reserved(*chunk)).collect();
    assert_eq!(reserved, [1, 2, 3, 33, 64]);
    assert!(!progress().is_reserved(u32::MAX));
}

#[test]
fn version_locator_lies_in_zeros() {
    let version = Locator {
        clone_id: 0,
        snapshot_id: 0,
        state: SnapshotState::None,
        metadata_transferred: false,
        ..locator()
    };
    let mut buffer = bytes(&Descriptor::Locator(version.clone()));
    assert_eq!(buffer.len(), 34);
    buffer.resize(VERSION_LOCATOR_LEN, 0);
    assert_eq!(Locator::parse(&buffer), Ok(version));
}

#[test]
fn a_locator_may_propose_a_later_version() {
    let later = Locator { version: 101, ..locator() };
    assert_eq!(Locator::parse(&bytes(&Descriptor::Locator(later.clone()))), Ok(later));
}

#[test]
fn only_a_locator_is_one() {
    let task = bytes(&Descriptor::TaskMetadata(TaskMetadata { task: 0, chunk: 0, block: 0 }));
    assert_eq!(Locator::parse(&task).unwrap_err().text(), "Wrong Clone RPC: Invalid Locator");
}

#[test]
fn too_many_incomplete_chunks() {
    let with = |count| {
        let incomplete = vec![IncompleteChunk { chunk: 1, block: 1 }; count];
        let progress = Some(Progress { incomplete, reserved: vec![1] });
        bytes(&Descriptor::Locator(Locator { progress, ..locator() }))
    };
    assert!(Locator::parse(&with(256)).is_ok());
    assert!(Locator::parse(&with(257)).is_err());
}

#[test]
fn task_metadata_byte_for_byte() {
    exact(
        &Descriptor::TaskMetadata(TaskMetadata { task: 1, chunk: 2, block: 3 }),
        "00000064 00000018 00000002  00000001 00000002 00000003",
    );
}

#[test]
fn state_byte_for_byte() {
    exact(
        &Descriptor::State(state()),
        "00000064 0000002e 00000003  00000002 00000003 0000000a 00000007
         0102030405060708 0000000000000009 0001",
    );
    for (start, ack, flags) in [(false, false, 0), (false, true, 2), (true, true, 3)] {
        let state = Descriptor::State(State { start, ack, ..state() });
        assert_eq!(bytes(&state)[44..], [0, flags]);
        assert_eq!(Descriptor::parse(&bytes(&state)), Ok(state));
    }
}

#[test]
fn file_metadata_byte_for_byte() {
    let groups = "00000064 0000004c 00000004  00000004 000000000001c000 0000000000010000
         00004021 00001000 000e 00000011 00000005 00000008 00000009
         0000000e 2e2f746573742f74312e69626400";
    exact(&Descriptor::FileMetadata(file()), groups);

    let key = Some(EncryptionKey::new(&[0x5a; 32], &[0xa5; 32]));
    let mut expected = hex(groups);
    expected[7] += 64;
    expected[41] |= 32;
    expected.extend_from_slice(&[0x5a; 32]);
    expected.extend_from_slice(&[0xa5; 32]);
    let keyed = Descriptor::FileMetadata(FileMetadata { key, ..file() });
    assert_eq!(bytes(&keyed), expected);
    assert_eq!(Descriptor::parse(&expected), Ok(keyed));
}

#[test]
fn redo_file_metadata_has_no_name() {
    let redo = Descriptor::FileMetadata(FileMetadata {
        fsp_flags: u32::MAX,
        space_id: SPACE_ID_REDO,
        name: b"",
        ..file()
    });
    assert_eq!(bytes(&redo).len(), 62);
    assert_eq!(Descriptor::parse(&bytes(&redo)), Ok(redo));
}

#[test]
fn file_flags() {
    let flags = |change: fn(&mut FileMetadata<'_>)| {
        let mut file = FileMetadata {
            compression: Compression::None,
            encrypted: false,
            renamed: false,
            ..file()
        };
        change(&mut file);
        bytes(&Descriptor::FileMetadata(file))[file::FLAGS_AT..][..2].to_vec()
    };
    assert_eq!(flags(|_| ()), [0, 0]);
    assert_eq!(flags(|file| file.compression = Compression::Zlib), [0, 1]);
    assert_eq!(flags(|file| file.compression = Compression::Lz4), [0, 2]);
    assert_eq!(flags(|file| file.encrypted = true), [0, 4]);
    assert_eq!(flags(|file| file.renamed = true), [0, 8]);
    assert_eq!(flags(|file| file.deleted = true), [0, 16]);
}

#[test]
fn file_names_end_in_their_only_nul() {
    let whole = bytes(&Descriptor::FileMetadata(file()));
    let refused = |change: fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        assert_eq!(
            Descriptor::parse(&bytes).unwrap_err().text(),
            "Wrong Clone RPC: Invalid File Descriptor"
        );
    };
    refused(|bytes| bytes[75] = b'x');
    refused(|bytes| bytes[70] = 0);
    refused(|bytes| {
        bytes.truncate(63);
        bytes[7] = 63;
        bytes[61] = 1;
        bytes[62] = 0;
    });
}

#[test]
fn data_byte_for_byte() {
    exact(
        &Descriptor::Data(data()),
        "00000064 00000034 00000005  00000003 0000007f 00000001 00001000 00000005 00004000
         0000000100000000 0000000200000000",
    );
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for descriptor in all() {
        let whole = bytes(&descriptor);
        for len in 0..whole.len() {
            assert!(Descriptor::parse(&whole[..len]).is_err(), "{descriptor:?} {len}");
        }
        // Only a locator may stand in a longer buffer.
        let longer = [&whole[..], &[0; 5]].concat();
        let is_locator = descriptor.kind() == DescriptorKind::Locator;
        assert_eq!(Descriptor::parse(&longer).is_ok(), is_locator, "{descriptor:?}");
    }
}

/// The same with a header that agrees with the cut, so that the fields have to notice.
#[test]
fn every_shorter_and_longer_header_is_refused() {
    for descriptor in all() {
        let whole = bytes(&descriptor);
        for len in (0..whole.len()).chain(whole.len() + 1..whole.len() + 70) {
            let mut other = whole.clone();
            other.resize(len.max(12), 0);
            other[4..8].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            let parsed = Descriptor::parse(&other);
            match (&descriptor, len) {
                // Without its progress, a restart locator is a plain one.
                (Descriptor::Locator(Locator { progress: Some(_), .. }), 34) => {
                    assert_eq!(parsed, Ok(Descriptor::Locator(locator())));
                }
                // Eight zeros are a progress in which nothing arrived.
                (Descriptor::Locator(Locator { progress: None, .. }), 42) => {
                    let progress = Some(Progress::default());
                    let empty = Locator { progress, ..locator() };
                    assert_eq!(parsed, Ok(Descriptor::Locator(empty)));
                }
                _ => assert!(parsed.is_err(), "{descriptor:?} {len}"),
            }
        }
    }
}

#[test]
fn lengths_that_overflow() {
    for wrong in [0, 11, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX] {
        for descriptor in all() {
            let mut header = bytes(&descriptor);
            header[4..8].copy_from_slice(&wrong.to_be_bytes());
            assert!(Descriptor::parse(&header).is_err(), "{descriptor:?} {wrong:#x}");
        }
        if wrong == 0 {
            continue;
        }
        let mut name = bytes(&Descriptor::FileMetadata(file()));
        name[58..62].copy_from_slice(&wrong.to_be_bytes());
        assert!(Descriptor::parse(&name).is_err(), "{wrong:#x}");

        let restart = Locator { progress: Some(progress()), ..locator() };
        for at in [34, 54] {
            let mut counts = bytes(&Descriptor::Locator(restart.clone()));
            counts[at..at + 4].copy_from_slice(&wrong.to_be_bytes());
            assert!(Descriptor::parse(&counts).is_err(), "{at} {wrong:#x}");
        }
    }
}

#[test]
fn a_number_of_words_that_wraps_is_refused() {
    let restart = Locator { progress: Some(progress()), ..locator() };
    let mut wrapping = bytes(&Descriptor::Locator(restart));
    // Times four it is 8, which is what is there.
    wrapping[54..58].copy_from_slice(&0x4000_0002_u32.to_be_bytes());
    assert!(Descriptor::parse(&wrapping).is_err());
}

#[test]
fn versions_and_kinds_that_nobody_has() {
    for descriptor in all() {
        for version in [0, 99, 101, u32::MAX] {
            let mut other = bytes(&descriptor);
            other[..4].copy_from_slice(&version.to_be_bytes());
            let is_locator = descriptor.kind() == DescriptorKind::Locator;
            assert_eq!(Descriptor::parse(&other).is_ok(), is_locator, "{version}");
        }
        for kind in [0, 6, u32::MAX] {
            let mut other = bytes(&descriptor);
            other[8..12].copy_from_slice(&kind.to_be_bytes());
            assert_eq!(
                Descriptor::parse(&other).unwrap_err().text(),
                "Wrong Clone RPC: Invalid Descriptor Header"
            );
        }
    }
}

#[test]
fn states_and_tasks_that_nobody_has() {
    for (descriptor, state_at, task_at) in [
        (Descriptor::State(state()), 12, 16),
        (Descriptor::Data(data()), 12, 16),
        (Descriptor::FileMetadata(file()), 12, usize::MAX),
        (Descriptor::TaskMetadata(TaskMetadata { task: 0, chunk: 0, block: 0 }), usize::MAX, 12),
    ] {
        for (at, wrong) in [(state_at, 6_u32), (state_at, u32::MAX), (task_at, 128), (task_at, !0)]
        {
            let mut other = bytes(&descriptor);
            let Some(field) = other.get_mut(at..).and_then(|rest| rest.get_mut(..4)) else {
                continue;
            };
            field.copy_from_slice(&wrong.to_be_bytes());
            assert!(Descriptor::parse(&other).is_err(), "{descriptor:?} {wrong}");
        }
    }
    let mut unknown = bytes(&Descriptor::Locator(locator()));
    unknown[32] = 6;
    assert!(Locator::parse(&unknown).is_err());
}

#[test]
fn a_block_needs_a_chunk() {
    let with = |chunk, block| {
        let task = TaskMetadata { task: 0, chunk, block };
        Descriptor::parse(&bytes(&Descriptor::TaskMetadata(task))).is_ok()
    };
    assert!(with(0, 0));
    assert!(with(4, 0));
    assert!(with(4, 2));
    assert!(!with(0, 2));
}

#[test]
fn keys_are_not_shown() {
    let key = EncryptionKey::new(&[0x5a; 32], &[0xa5; 32]);
    let shown = format!("{key:?} {:?}", FileMetadata { key: Some(key.clone()), ..file() });
    assert!(!shown.contains("90") && !shown.contains("165"), "{shown}");
    assert_eq!((key.key(), key.iv()), (&[0x5a; 32][..], &[0xa5; 32][..]));
    assert_eq!(key.clone(), key);
}

fn snapshot_state() -> impl Strategy<Value = SnapshotState> {
    (0..=5_u32).prop_map(|number| SnapshotState::from_wire(number).unwrap())
}

proptest! {
    #[test]
    fn locator_round_trip(
        ids: (u32, u64, u64, u32),
        state in snapshot_state(),
        metadata_transferred: bool,
        progress in prop::option::of((
            prop::collection::vec(any::<(u32, u32)>(), 0..=256),
            prop::collection::vec(any::<u32>(), 0..64),
        )),
    ) {
        let (version, clone_id, snapshot_id, index) = ids;
        let progress = progress.map(|(incomplete, reserved)| Progress {
            incomplete: incomplete
                .into_iter()
                .map(|(chunk, block)| IncompleteChunk { chunk, block })
                .collect(),
            reserved,
        });
        let locator = Locator {
            version, clone_id, snapshot_id, index, state, metadata_transferred, progress,
        };
        let descriptor = Descriptor::Locator(locator);
        let encoded = bytes(&descriptor);
        prop_assert_eq!(Descriptor::parse(&encoded), Ok(descriptor));
    }

    #[test]
    fn state_round_trip(
        state in snapshot_state(),
        task in 0..MAX_TASKS,
        numbers: (u32, u32, u64, u64),
        start: bool,
        ack: bool,
    ) {
        let (chunks, files, estimate, estimate_disk) = numbers;
        let descriptor = Descriptor::State(State {
            state, task, chunks, files, estimate, estimate_disk, start, ack,
        });
        let encoded = bytes(&descriptor);
        prop_assert_eq!(Descriptor::parse(&encoded), Ok(descriptor));
    }

    #[test]
    fn file_metadata_round_trip(
        state in snapshot_state(),
        sizes: (u64, u64, u32, u32),
        flags: (bool, bool, bool),
        numbers: (u32, u32, u32, u32),
        compression in prop::sample::select(vec![
            Compression::None, Compression::Zlib, Compression::Lz4,
        ]),
        name in prop::collection::vec(1..=u8::MAX, 0..40),
        key: Option<([u8; 32], [u8; 32])>,
    ) {
        let (file_size, allocated_size, fsp_flags, block_size) = sizes;
        let (encrypted, renamed, deleted) = flags;
        let (space_id, file_index, first_chunk, last_chunk) = numbers;
        let descriptor = Descriptor::FileMetadata(FileMetadata {
            state, file_size, allocated_size, fsp_flags, block_size, compression, encrypted,
            renamed, deleted, space_id, file_index, first_chunk, last_chunk,
            name: &name,
            key: key.map(|(key, iv)| EncryptionKey::new(&key, &iv)),
        });
        let encoded = bytes(&descriptor);
        prop_assert_eq!(Descriptor::parse(&encoded), Ok(descriptor.clone()));
    }

    #[test]
    fn data_round_trip(
        state in snapshot_state(),
        task in 0..MAX_TASKS,
        numbers: (u32, u32, u32, u32, u64, u64),
    ) {
        let (chunk, block, file_index, data_len, file_offset, file_size) = numbers;
        let descriptor = Descriptor::Data(Data {
            state, task, chunk, block, file_index, data_len, file_offset, file_size,
        });
        let encoded = bytes(&descriptor);
        prop_assert_eq!(Descriptor::parse(&encoded), Ok(descriptor));
    }
}
