// SPDX-License-Identifier: GPL-2.0-only

//! Responses, donor to recipient (`plugin/clone/src/clone_client.cc:handle_response`,
//! `clone_server.cc:send_*`).

use std::str;

use crate::Beat;
use crate::Block;
use crate::BlockForm;
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
    /// The same, checksummed and perhaps packed: only for a recipient that offered to take it
    /// ([`Offer`](crate::Offer)).
    Block(Block<'a>),
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
    /// What the donor's connections do: the answer to a heartbeat. Not of the stock plugin.
    Heartbeat(Vec<Beat<'a>>),
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
            ResponseCode::Block => Self::Block(Block::parse(reader)?),
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
            ResponseCode::Heartbeat => Self::Heartbeat(Beat::parse_all(reader)?),
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
            Self::Block(_) => ResponseCode::Block,
            Self::Plugin(_) => ResponseCode::Plugin,
            Self::PluginV2 { .. } => ResponseCode::PluginV2,
            Self::Config { .. } => ResponseCode::Config,
            Self::ConfigV3 { .. } => ResponseCode::ConfigV3,
            Self::ConfigV4 { .. } => ResponseCode::ConfigV4,
            Self::Collation(_) => ResponseCode::Collation,
            Self::Heartbeat(_) => ResponseCode::Heartbeat,
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
            Self::Block(Block { form, len, checksum, bytes }) => {
                out.clear();
                out.extend_from_slice(&Block::head(*form, *len));
                out.extend_from_slice(bytes);
                if *form != BlockForm::File {
                    out.extend_from_slice(&Block::tail(*checksum));
                }
            }
            Self::Plugin(name) | Self::Collation(name) => put_counted_le(out, name.as_bytes()),
            Self::PluginV2 { name, library: value }
            | Self::Config { name, value }
            | Self::ConfigV3 { name, value }
            | Self::ConfigV4 { name, value } => {
                put_counted_le(out, name.as_bytes());
                put_counted_le(out, value.as_bytes());
            }
            Self::Heartbeat(beats) => beats.iter().for_each(|beat| beat.encode(out)),
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
    /// Not of the stock plugin, which has its codes close together: far from them.
    Block = 32,
    /// Likewise.
    Heartbeat = 33,
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
            32 => Self::Block,
            33 => Self::Heartbeat,
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
mod tests;
