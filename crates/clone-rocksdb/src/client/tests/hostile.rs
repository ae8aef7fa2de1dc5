// SPDX-License-Identifier: GPL-2.0-only

//! What a donor must not send, and a disk that is full.

use super::*;

#[test]
fn hostile_descriptors() {
    type Case = (&'static str, fn(&Fixture) -> Result<()>);
    let cases: [Case; 8] = [
        ("chunk of an unknown file", |fixture| fixture.chunk(4, b"x")),
        ("chunk past the end", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.chunk(4, b"1234")
        }),
        ("chunk after the end", |fixture| {
            fixture.file(4, "000001.sst", b"123");
            fixture.chunk(4, b"1")
        }),
        ("one name twice", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.map(5, "000001.sst", 3)
        }),
        ("one number twice", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.map(4, "000002.sst", 3)
        }),
        ("another size", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.map(4, "000001.sst", 4)
        }),
        ("again when something has come", |fixture| {
            fixture.map(4, "000001.sst", 3)?;
            fixture.chunk(4, b"1")?;
            fixture.map(4, "000001.sst", 3)
        }),
        ("more than a file system", |fixture| {
            fixture.map(4, "000001.sst", i64::MAX.unsigned_abs())?;
            fixture.map(5, "000002.sst", 1)
        }),
    ];
    for (what, case) in cases {
        let fixture = Fixture::started();
        let error = case(&fixture).unwrap_err();
        assert_eq!(error.number(), number::ER_CLONE_PROTOCOL, "{what}: {error}");
        // The clone has failed for all.
        let later = fixture.map(9, "000009.sst", 1);
        assert_eq!(later.unwrap_err(), error, "{what}");
        assert_eq!(fixture.end(0, 0).unwrap_err(), error, "{what}");
        assert!(fixture.is_clean(), "{what}");
    }
}

#[test]
fn no_more_files_than_are_believable() {
    let fixture = Fixture::started();
    let mut file = 0;
    let error = loop {
        match fixture.map(file, &format!("{file}.sst"), 1) {
            Ok(()) => file += 1,
            Err(error) => break error,
        }
        assert!(file < 5000);
    };
    assert_eq!(error.number(), number::ER_CLONE_PROTOCOL);
}

/// The recipient writes what the packet holds; the engine looks whether it was what the descriptor
/// said.

#[test]
fn packets_of_another_length() {
    for data in [&b"12"[..], b"1234"] {
        let fixture = Fixture::started();
        fixture.map(1, "000001.sst", 10).unwrap();
        let mut packet = Packet { data, ..Packet::default() };
        let chunk = Descriptor::FileChunk(FileChunk { file: 1, len: 3 });
        assert_protocol(fixture.apply(0, chunk, &mut packet));
        let name = packet.written_to.unwrap();
        assert!(name.ends_with("/.rocksdb.cloned/000001.sst"), "{name}");
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_file() {
    let fixture = Fixture::started();
    // Somebody removes the directory: the file cannot be created.
    fs::remove_dir_all(fixture.directory.path().join(".rocksdb.wal.cloned")).unwrap();
    let error = fixture.map(0, "000001.log", 1).unwrap_err();
    assert_eq!(error.number(), number::ER_ERROR_ON_WRITE);
    let Error::File { name, .. } = error else { panic!() };
    assert!(name.ends_with("/.rocksdb.wal.cloned/000001.log"), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes come, and wherever the connection breaks: what is complete is what was
    /// sent.
    #[test]
    fn any_order_of_chunks_and_restarts(
        files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..6),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), 1..60_usize, 0..8_u8), 0..200),
    ) {
        let fixture = Fixture::started();
        fixture.estimate();
        let name = |file: usize| if file == 0 { "CURRENT".to_owned() } else { format!("{file:06}.sst") };
        let mut sent = vec![0; files.len()];
        for (file, data) in files.iter().enumerate() {
            fixture.map(file as u64, &name(file), data.len() as u64).unwrap();
        }
        for (file, len, fate) in &steps {
            let file = file.index(files.len());
            let from: usize = sent[file];
            let to = (from + len).min(files[file].len());
            if from == to { continue; }
            let data = &files[file][from..to];
            if *fate > 0 {
                fixture.chunk(file as u64, data).unwrap();
                sent[file] = to;
                continue;
            }
            let half = &data[..data.len() / 2];
            let broken = Error::Raised(number::ER_NET_READ_ERROR);
            let mut packet = Packet { data: half, error: Some(broken), ..Packet::default() };
            let len = u32::try_from(data.len()).unwrap();
            let chunk = Descriptor::FileChunk(FileChunk { file: file as u64, len });
            prop_assert!(fixture.apply(0, chunk, &mut packet).is_err());
            let states = fixture.restart_states();
            let expected = sent.iter().enumerate().map(|(file, len)| (file as u64, *len as u64));
            prop_assert_eq!(states, expected.collect());
        }
        for (file, data) in files.iter().enumerate() {
            if sent[file] < data.len() {
                fixture.chunk(file as u64, &data[sent[file]..]).unwrap();
            }
        }
        fixture.end(0, 0).unwrap();
        for (file, data) in files.iter().enumerate() {
            let path = format!(".rocksdb.cloned/{}", name(file));
            prop_assert_eq!(&fixture.read(&path).unwrap(), data);
        }
    }
}
