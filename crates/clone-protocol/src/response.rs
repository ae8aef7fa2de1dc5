// SPDX-License-Identifier: GPL-2.0-only

//! Responses, donor to recipient (`plugin/clone/src/clone_client.cc:handle_response`,
//! `clone_server.cc:send_*`).

use std::str;

use crate::EngineLocator;
use crate::ProtocolError;
use crate::Version;
use crate::wire::Reader;
use crate::wire::put_counted_le;

/// A packet from the donor: one [`ResponseCode`] byte and what follows it.
///
/// Names and values are text in utf8mb4 on every donor, and `str` here. What a later release might
/// append to a parameter packet, and bytes after COMPLETE, are ignored as stock ignores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// Answer to INIT, ATTACH and REINIT. The recipient must find as many locators as it sent, of
    /// the same engines and none of them empty.
    Locators {
        /// What the donor will speak.
        version: Version,
        /// The donor's own locators.
        locators: Vec<EngineLocator>,
    },
    /// A descriptor for an engine.
    DataDescriptor {
        /// The engine's `legacy_db_type`.
        db_type: u8,
        /// Its place in the list of locators.
        locator_index: u8,
        /// The engine's bytes; see [`innodb`](crate::innodb) for those of InnoDB.
        descriptor: &'a [u8],
    },
    /// File data for the descriptor in the packet before.
    Data(&'a [u8]),
    /// A plugin that the donor has active (V1).
    Plugin(&'a str),
    /// A plugin that the donor has active (V2).
    PluginV2 {
        /// Its name.
        name: &'a str,
        /// Its file in `plugin_dir`; empty for one built in.
        library: &'a str,
    },
    /// A setting that must be equal here.
    Config {
        /// The system variable.
        name: &'a str,
        /// The donor's value.
        value: &'a str,
    },
    /// A setting that the recipient uses if it knows it (V3).
    ConfigV3 {
        /// The system variable.
        name: &'a str,
        /// The donor's value.
        value: &'a str,
    },
    /// A JSON object of settings (V4).
    ConfigV4 {
        /// Always "json_configs".
        name: &'a str,
        /// The object's text.
        value: &'a str,
    },
    /// A collation that must be known here.
    Collation(&'a str),
    /// The end of the answer to any command that went well.
    Complete,
    /// The end of the answer to a command that failed. The donor stays in clone mode.
    Error {
        /// The donor's MySQL error number.
        number: i32,
        /// The donor's message, up to 511 bytes of whatever character set.
        message: &'a [u8],
    },
}

impl<'a> Response<'a> {
    /// Parses a whole packet.
    ///
    /// # Errors
    ///
    /// The packet is empty, its code is no response, or what follows is too short, too long for
    /// LOCS, or not UTF-8 where text is due.
    pub fn parse(packet: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(packet);
        let code = reader.u8().ok_or_else(|| ProtocolError::new("Wrong Clone RPC response"))?;
        Ok(match ResponseCode::try_from(code)? {
            ResponseCode::Locators => Self::parse_locators(reader)?,
            ResponseCode::DataDescriptor => Self::parse_descriptor(reader)?,
            ResponseCode::Data => Self::Data(reader.rest()),
            ResponseCode::Plugin => Self::Plugin(text(&mut reader)?),
            ResponseCode::PluginV2 => {
                Self::PluginV2 { name: text(&mut reader)?, library: text(&mut reader)? }
            }
            ResponseCode::Config => {
                Self::Config { name: text(&mut reader)?, value: text(&mut reader)? }
            }
            ResponseCode::ConfigV3 => {
                Self::ConfigV3 { name: text(&mut reader)?, value: text(&mut reader)? }
            }
            ResponseCode::ConfigV4 => {
                Self::ConfigV4 { name: text(&mut reader)?, value: text(&mut reader)? }
            }
            ResponseCode::Collation => Self::Collation(text(&mut reader)?),
            ResponseCode::Complete => Self::Complete,
            ResponseCode::Error => {
                let number = reader.i32_le().ok_or_else(|| {
                    ProtocolError::new("Wrong Clone RPC response length for COM_RES_ERROR")
                })?;
                Self::Error { number, message: reader.rest() }
            }
        })
    }

    fn parse_locators(mut reader: Reader<'_>) -> Result<Self, ProtocolError> {
        let wrong = || ProtocolError::new("Wrong Clone RPC response length for COM_RES_LOCS");
        let version = Version::from_wire(reader.u32_le().ok_or_else(wrong)?)?;
        let locators = EngineLocator::parse_all(&mut reader).ok_or_else(wrong)?;
        if locators.iter().any(|locator| locator.bytes.is_empty()) {
            return Err(wrong());
        }
        Ok(Self::Locators { version, locators })
    }

    fn parse_descriptor(mut reader: Reader<'a>) -> Result<Self, ProtocolError> {
        let (Some(db_type), Some(locator_index)) = (reader.u8(), reader.u8()) else {
            return Err(ProtocolError::new(
                "Wrong Clone RPC response length for COM_RES_DATA_DESC",
            ));
        };
        Ok(Self::DataDescriptor { db_type, locator_index, descriptor: reader.rest() })
    }

    /// The packet's first byte.
    pub fn code(&self) -> ResponseCode {
        match self {
            Self::Locators { .. } => ResponseCode::Locators,
            Self::DataDescriptor { .. } => ResponseCode::DataDescriptor,
            Self::Data(_) => ResponseCode::Data,
            Self::Plugin(_) => ResponseCode::Plugin,
            Self::PluginV2 { .. } => ResponseCode::PluginV2,
            Self::Config { .. } => ResponseCode::Config,
            Self::ConfigV3 { .. } => ResponseCode::ConfigV3,
            Self::ConfigV4 { .. } => ResponseCode::ConfigV4,
            Self::Collation(_) => ResponseCode::Collation,
            Self::Complete => ResponseCode::Complete,
            Self::Error { .. } => ResponseCode::Error,
        }
    }

    /// Replaces what is in `out` by the whole packet.
    ///
    /// DATA is copied too. A donor that reads a file into its send buffer does better by putting
    /// [`ResponseCode::Data`] before the bytes itself.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(self.code() as u8);
        match self {
            Self::Locators { version, locators } => {
                out.extend_from_slice(&version.number().to_le_bytes());
                for locator in locators {
                    locator.encode(out);
                }
            }
            Self::DataDescriptor { db_type, locator_index, descriptor } => {
                out.extend_from_slice(&[*db_type, *locator_index]);
                out.extend_from_slice(descriptor);
            }
            Self::Data(data) => out.extend_from_slice(data),
            Self::Plugin(name) | Self::Collation(name) => put_counted_le(out, name.as_bytes()),
            Self::PluginV2 { name, library: value }
            | Self::Config { name, value }
            | Self::ConfigV3 { name, value }
            | Self::ConfigV4 { name, value } => {
                put_counted_le(out, name.as_bytes());
                put_counted_le(out, value.as_bytes());
            }
            Self::Complete => {}
            Self::Error { number, message } => {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(message);
            }
        }
    }
}

/// The code byte of a [`Response`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResponseCode {
    /// COM_RES_LOCS.
    Locators = 1,
    /// COM_RES_DATA_DESC.
    DataDescriptor = 2,
    /// COM_RES_DATA.
    Data = 3,
    /// COM_RES_PLUGIN.
    Plugin = 4,
    /// COM_RES_CONFIG.
    Config = 5,
    /// COM_RES_COLLATION.
    Collation = 6,
    /// COM_RES_PLUGIN_V2.
    PluginV2 = 7,
    /// COM_RES_CONFIG_V3.
    ConfigV3 = 8,
    /// COM_RES_CONFIG_V4.
    ConfigV4 = 9,
    /// COM_RES_COMPLETE.
    Complete = 99,
    /// COM_RES_ERROR.
    Error = 100,
}

impl TryFrom<u8> for ResponseCode {
    type Error = ProtocolError;

    fn try_from(code: u8) -> Result<Self, ProtocolError> {
        Ok(match code {
            1 => Self::Locators,
            2 => Self::DataDescriptor,
            3 => Self::Data,
            4 => Self::Plugin,
            5 => Self::Config,
            6 => Self::Collation,
            7 => Self::PluginV2,
            8 => Self::ConfigV3,
            9 => Self::ConfigV4,
            99 => Self::Complete,
            100 => Self::Error,
            _ => return Err(ProtocolError::new("Wrong Clone RPC response")),
        })
    }
}

/// A `u32` little-endian length and UTF-8 text.
fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, ProtocolError> {
    let bytes = reader
        .counted_le()
        .ok_or_else(|| ProtocolError::new("Wrong Clone RPC response length for parameters"))?;
    str::from_utf8(bytes)
        .map_err(|_| ProtocolError::new("Wrong Clone RPC response: a parameter is not valid UTF-8"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
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
        for code in (0..=u8::MAX).filter(|code| !matches!(code, 1..=9 | 99 | 100)) {
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
}
