// SPDX-License-Identifier: GPL-2.0-only

//! Responses byte for byte, cut, and with wrong lengths.

use proptest::prelude::*;

use super::*;
use crate::MAX_ENGINES;
use crate::test_support::engine_locator;

fn packet(response: &Response<'_>) -> Vec<u8> {
    let mut out = vec![0xaa; 3];
    response.encode(&mut out);
    out
}

/// Encodes to these bytes and parses back from them.
fn exact(response: &Response<'_>, bytes: &[u8]) {
    assert_eq!(packet(response), bytes);
    assert_eq!(Response::parse(bytes).as_ref(), Ok(response));
}

#[test]
fn every_response_byte_for_byte() {
    exact(
        &Response::Locators {
            version: Version::V4,
            locators: vec![EngineLocator { db_type: 12, bytes: vec![9, 8] }],
        },
        &[1, 3, 1, 0, 0, 12, 2, 0, 0, 0, 9, 8],
    );
    exact(
        &Response::DataDescriptor { db_type: 12, locator_index: 0, descriptor: &[1, 2, 3] },
        &[2, 12, 0, 1, 2, 3],
    );
    exact(&Response::Data(b"page"), b"\x03page");
    exact(&Response::Plugin("InnoDB"), b"\x04\x06\0\0\0InnoDB");
    exact(
        &Response::Config { name: "innodb_page_size", value: "16384" },
        b"\x05\x10\0\0\0innodb_page_size\x05\0\0\x0016384",
    );
    exact(&Response::Collation("utf8mb4_0900_ai_ci"), b"\x06\x12\0\0\0utf8mb4_0900_ai_ci");
    exact(
        &Response::PluginV2 { name: "clone", library: "mysql_clone.so" },
        b"\x07\x05\0\0\0clone\x0e\0\0\0mysql_clone.so",
    );
    exact(&Response::PluginV2 { name: "binlog", library: "" }, b"\x07\x06\0\0\0binlog\0\0\0\0");
    exact(
        &Response::ConfigV3 { name: "clone_donor_timeout_after_network_failure", value: "5" },
        b"\x08\x29\0\0\0clone_donor_timeout_after_network_failure\x01\0\0\x005",
    );
    exact(
        &Response::ConfigV4 { name: "json_configs", value: "{}" },
        b"\x09\x0c\0\0\0json_configs\x02\0\0\0{}",
    );
    exact(&Response::Complete, &[99]);
    exact(
        &Response::Error { number: 1317, message: b"interrupted" },
        b"\x64\x25\x05\0\0interrupted",
    );
}

#[test]
fn an_error_may_have_no_message_but_not_no_number() {
    let bare = Response::Error { number: -1, message: b"" };
    assert_eq!(Response::parse(&[100, 0xff, 0xff, 0xff, 0xff]), Ok(bare));
    for len in 1..5 {
        let error = Response::parse(&[100, 1, 0, 0, 0][..len]).unwrap_err();
        assert_eq!(error.text(), "Wrong Clone RPC response length for COM_RES_ERROR");
    }
}

#[test]
fn no_packet_and_no_other_code() {
    assert_eq!(Response::parse(&[]).unwrap_err().text(), "Wrong Clone RPC response");
    for code in (0..=u8::MAX).filter(|code| !matches!(code, 1..=9 | 32 | 33 | 99 | 100)) {
        let error = Response::parse(&[code, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(error.text(), "Wrong Clone RPC response");
    }
}

#[test]
fn every_truncation_of_a_parameter() {
    let packets = [
        packet(&Response::Plugin("InnoDB")),
        packet(&Response::Collation("binary")),
        packet(&Response::PluginV2 { name: "clone", library: "mysql_clone.so" }),
        packet(&Response::Config { name: "version", value: "9.7.4" }),
        packet(&Response::ConfigV3 { name: "a", value: "b" }),
        packet(&Response::ConfigV4 { name: "json_configs", value: "{}" }),
    ];
    for whole in packets {
        for len in 1..whole.len() {
            let error = Response::parse(&whole[..len]).unwrap_err();
            assert_eq!(error.text(), "Wrong Clone RPC response length for parameters");
        }
        let longer = [&whole[..], b"more"].concat();
        assert_eq!(Response::parse(&longer), Response::parse(&whole));
    }
}

/// Cut after a whole locator, LOCS has fewer engines, which the recipient compares with its own.
#[test]
fn every_truncation_of_locators() {
    let locator = EngineLocator { db_type: 12, bytes: vec![1; 34] };
    let locators = vec![locator.clone(), locator];
    let whole = packet(&Response::Locators { version: Version::V1, locators });
    for len in 1..whole.len() {
        let parsed = Response::parse(&whole[..len]);
        match len {
            5 | 44 => assert!(parsed.is_ok(), "{len}"),
            _ => assert_eq!(
                parsed.unwrap_err().text(),
                "Wrong Clone RPC response length for COM_RES_LOCS"
            ),
        }
    }
}

#[test]
fn locators_are_limited_and_never_empty() {
    let with = |engines: usize, bytes: Vec<u8>| Response::Locators {
        version: Version::V4,
        locators: vec![EngineLocator { db_type: 12, bytes }; engines],
    };
    assert!(Response::parse(&packet(&with(MAX_ENGINES, vec![1]))).is_ok());
    assert!(Response::parse(&packet(&with(MAX_ENGINES + 1, vec![1]))).is_err());
    assert!(Response::parse(&packet(&with(1, Vec::new()))).is_err());
}

#[test]
fn a_version_above_ours_is_refused() {
    let mut bytes = packet(&Response::Locators { version: Version::V4, locators: Vec::new() });
    bytes[1] = 4;
    assert!(Response::parse(&bytes).unwrap_err().text().contains("0x0104"));
}

#[test]
fn a_descriptor_has_two_bytes_before_it() {
    for short in [&[2][..], &[2, 12]] {
        let error = Response::parse(short).unwrap_err();
        assert_eq!(error.text(), "Wrong Clone RPC response length for COM_RES_DATA_DESC");
    }
    let empty = Response::DataDescriptor { db_type: 12, locator_index: 1, descriptor: &[] };
    assert_eq!(Response::parse(&[2, 12, 1]), Ok(empty));
}

#[test]
fn lengths_that_overflow() {
    for len in [7, 0x7fff_ffff, 0x8000_0000, u32::MAX - 4, u32::MAX] {
        for code in [4, 5, 6, 7, 8, 9] {
            let mut bytes = vec![code];
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(b"InnoDB");
            assert!(Response::parse(&bytes).is_err(), "{code} {len:#x}");
        }
    }
}

#[test]
fn text_must_be_utf8() {
    let error = Response::parse(b"\x04\x02\0\0\0\xc3\x28").unwrap_err();
    assert_eq!(error.text(), "Wrong Clone RPC response: a parameter is not valid UTF-8");
    assert!(Response::parse(b"\x05\x01\0\0\0a\x01\0\0\0\xff").is_err());
}

proptest! {
    #[test]
    fn parameters_round_trip(name: String, value: String) {
        let (name, value) = (name.as_str(), value.as_str());
        for response in [
            Response::Plugin(name),
            Response::Collation(name),
            Response::PluginV2 { name, library: value },
            Response::Config { name, value },
            Response::ConfigV3 { name, value },
            Response::ConfigV4 { name, value },
        ] {
            let encoded = packet(&response);
            prop_assert_eq!(Response::parse(&encoded), Ok(response.clone()));
        }
    }

    #[test]
    fn bytes_round_trip(number: i32, db_type: u8, locator_index: u8, bytes: Vec<u8>) {
        for response in [
            Response::DataDescriptor { db_type, locator_index, descriptor: &bytes },
            Response::Data(&bytes),
            Response::Error { number, message: &bytes },
        ] {
            let encoded = packet(&response);
            prop_assert_eq!(Response::parse(&encoded), Ok(response.clone()));
        }
    }

    #[test]
    fn locators_round_trip(
        locators in prop::collection::vec(
            engine_locator().prop_filter("not empty", |locator| !locator.bytes.is_empty()),
            0..=MAX_ENGINES,
        ),
    ) {
        let response = Response::Locators { version: Version::V2, locators };
        let encoded = packet(&response);
        prop_assert_eq!(Response::parse(&encoded), Ok(response.clone()));
    }
}
