// SPDX-License-Identifier: GPL-2.0-only

use proptest::prelude::*;

use super::*;

fn size(bytes: u64) -> FileSize {
    FileSize::new(bytes).unwrap()
}

fn id(number: u64) -> CloneId {
    CloneId::new(number).unwrap()
}

fn name(name: &str) -> FileName<'_> {
    FileName::new(name.as_bytes()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// The bytes of each format, from its description, and the value they stand for.
mod byte_exact {
    use super::*;

    #[track_caller]
    fn locator(bytes: &str, value: &Locator) {
        assert_eq!(value.to_bytes(), hex(bytes));
        assert_eq!(Locator::parse(&hex(bytes)).as_ref(), Ok(value));
    }

    #[track_caller]
    fn descriptor(bytes: &str, value: &Descriptor<'_>) {
        assert_eq!(value.to_bytes(), hex(bytes));
        assert_eq!(Descriptor::parse(&hex(bytes)).as_ref(), Ok(value));
    }

    #[test]
    fn version_locator() {
        locator("00000001 00000014 00000000 0000000000000000", &Locator::Version);
    }

    #[test]
    fn clone_locator() {
        locator(
            "00000001 00000014 00000000 0102030405060708",
            &Locator::of(id(0x0102_0304_0506_0708)),
        );
    }

    #[test]
    fn restart_locator() {
        let states = vec![
            FileState { file: 7, applied: size(0x0010_0000) },
            FileState { file: 0, applied: size(0) },
        ];
        locator(
            "00000001 00000034 00000000 0000000000000002
             0000000000000007 0000000000100000
             0000000000000000 0000000000000000",
            &Locator::Clone { id: id(2), states },
        );
    }

    #[test]
    fn file_name_map() {
        descriptor(
            "00000001 0000002a 00000001 0000000000000003 0000000004000001 0000000a 3030303031322e737374",
            &Descriptor::FileNameMap(FileNameMap {
                file: 3,
                size: size(0x0400_0001),
                name: name("000012.sst"),
            }),
        );
    }

    #[test]
    fn file_chunk() {
        descriptor(
            "00000001 0000001c 00000002 0000000000000003 0000000000100000",
            &Descriptor::FileChunk(FileChunk { file: 3, len: 1 << 20 }),
        );
    }

    #[test]
    fn add_estimate() {
        descriptor(
            "00000001 00000014 00000003 000000003b9aca00",
            &Descriptor::AddEstimate(AddEstimate { bytes: 1_000_000_000 }),
        );
    }
}

#[test]
fn headers_that_are_refused() {
    let good = Descriptor::AddEstimate(AddEstimate { bytes: 1 }).to_bytes();
    assert!(Descriptor::parse(&good).is_ok());
    for (at, byte) in [(3, 0), (3, 2), (0, 1), (7, 8), (7, 19), (7, 21), (4, 1), (11, 4), (8, 1)] {
        let mut bad = good.clone();
        bad[at] = byte;
        let error = Descriptor::parse(&bad).unwrap_err();
        assert!(error.text().starts_with("Wrong Clone RPC: Invalid RocksDB metadata: "), "{error}");
    }
    for len in 0..good.len() {
        assert!(Descriptor::parse(&good[..len]).is_err(), "{len}");
    }
}

#[test]
fn upstreams_documented_length_is_not_the_one_on_the_wire() {
    let without_header = hex("00000001 00000008 00000003 0000000000000001");
    assert!(Descriptor::parse(&without_header).is_err());
}

#[test]
fn locators_that_are_refused() {
    for (bytes, why) in [
        ("00000001 0000000c 00000000", "no id"),
        ("00000001 00000014 00000000 ffffffffffffffff", "the id of no clone"),
        ("00000001 0000001c 00000000 0000000000000001 0000000000000001", "half a state"),
        (
            "00000001 00000024 00000000 0000000000000000 0000000000000001 0000000000000001",
            "a version with states",
        ),
        (
            "00000001 00000024 00000000 0000000000000001 0000000000000001 8000000000000000",
            "an offset of 2^63",
        ),
        (
            "00000001 00000044 00000000 0000000000000001 0000000000000005 0000000000000001
             0000000000000004 0000000000000001 0000000000000005 0000000000000002",
            "two states of one file",
        ),
        ("00000001 00000014 00000003 0000000000000001", "not a locator"),
    ] {
        assert!(Locator::parse(&hex(bytes)).is_err(), "{why}");
    }
    assert!(Descriptor::parse(&Locator::Version.to_bytes()).is_err(), "a locator is no descriptor");
}

#[test]
fn descriptors_that_are_refused() {
    for (bytes, why) in [
        ("00000001 00000020 00000001 0000000000000003 0000000000000001 00000000", "no name"),
        (
            "00000001 00000022 00000001 0000000000000003 0000000000000001 00000001 6161",
            "more than the name",
        ),
        (
            "00000001 00000022 00000001 0000000000000003 0000000000000001 00000003 6161",
            "less than the name",
        ),
        (
            "00000001 00000022 00000001 0000000000000003 0000000000000001 ffffffff 6161",
            "a length of 4 GiB",
        ),
        (
            "00000001 00000022 00000001 0000000000000003 8000000000000000 00000002 6161",
            "a size of 2^63",
        ),
        (
            "00000001 00000022 00000001 0000000000000003 0000000000000001 00000002 2e61",
            "a hidden name",
        ),
        ("00000001 00000022 00000001 0000000000000003 0000000000000001 00000002 612f", "a slash"),
        ("00000001 00000022 00000001 0000000000000003 0000000000000001 00000002 6100", "a NUL"),
        ("00000001 0000001c 00000002 0000000000000003 0000000000000000", "an empty chunk"),
        ("00000001 0000001c 00000002 0000000000000003 0000000100000000", "a chunk of 4 GiB"),
        ("00000001 00000018 00000003 0000000000000003 00000000", "more than an estimate"),
    ] {
        assert!(Descriptor::parse(&hex(bytes)).is_err(), "{why}");
    }
}

#[test]
fn names() {
    for good in
        ["000012.sst", "CURRENT", "MANIFEST-000001", "OPTIONS-000007", "a", "a..b", "IDENTITY"]
    {
        assert_eq!(FileName::new(good.as_bytes()).unwrap().as_str(), good);
    }
    let longest = "a".repeat(255);
    assert!(FileName::new(longest.as_bytes()).is_some());
    assert!(FileName::new(format!("{longest}a").as_bytes()).is_none());
    for bad in [
        "",
        ".",
        "..",
        ".clone_in_progress",
        "/a",
        "a/b",
        "../a",
        "a\\b",
        "a b",
        "a\n",
        "\u{e4}",
        "a:b",
    ] {
        assert!(FileName::new(bad.as_bytes()).is_none(), "{bad:?}");
    }
    assert!(FileName::new(b"a\xff").is_none());
    assert!(name("000003.log").is_wal());
    assert!(!name("000003.log.sst").is_wal());
    assert!(!name("LOG").is_wal());
}

fn states() -> impl Strategy<Value = Vec<FileState>> {
    proptest::collection::btree_map(any::<u64>(), 0..=i64::MAX.unsigned_abs(), 0..20).prop_map(
        |map| {
            map.into_iter()
                .map(|(file, applied)| FileState { file, applied: size(applied) })
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn locators_come_back(number in 1..u64::MAX, states in states()) {
        let locator = Locator::Clone { id: id(number), states };
        prop_assert_eq!(Locator::parse(&locator.to_bytes()), Ok(locator));
    }

    #[test]
    fn file_names_come_back(file: u64, bytes in 0..=i64::MAX.unsigned_abs(), text in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}") {
        let map = FileNameMap { file, size: size(bytes), name: name(&text) };
        let descriptor = Descriptor::FileNameMap(map);
        let bytes = descriptor.to_bytes();
        prop_assert_eq!(Descriptor::parse(&bytes), Ok(descriptor));
    }

    #[test]
    fn chunks_and_estimates_come_back(file: u64, len in 1..=u32::MAX, bytes: u64) {
        for descriptor in [
            Descriptor::FileChunk(FileChunk { file, len }),
            Descriptor::AddEstimate(AddEstimate { bytes }),
        ] {
            let bytes = descriptor.to_bytes();
            prop_assert_eq!(Descriptor::parse(&bytes), Ok(descriptor));
        }
    }

    /// There is one way to write each value.
    #[test]
    fn what_parses_is_what_would_be_written(kind in 0..5_u32, body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let length = u32::try_from(body.len() + 12).unwrap();
        let mut bytes = [1, length, kind].map(u32::to_be_bytes).concat();
        bytes.extend(body);
        if let Ok(locator) = Locator::parse(&bytes) {
            prop_assert_eq!(locator.to_bytes(), &bytes[..]);
        }
        if let Ok(descriptor) = Descriptor::parse(&bytes) {
            prop_assert_eq!(descriptor.to_bytes(), &bytes[..]);
        }
    }
}
