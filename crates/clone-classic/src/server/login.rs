// SPDX-License-Identifier: GPL-2.0-only

//! What a client says while it logs in. Parsers only.

use byteorder::{ByteOrder, LittleEndian};
use mysql_common::constants::CapabilityFlags as Flags;
use zeroize::Zeroizing;

use crate::answer::{split_nul, take_string};
use crate::error::Error;

/// Bytes of a request for TLS, and of what stands in front of the user's name.
const FIXED: usize = 32;

/// The first packet of a client without TLS, or its request for TLS: 4 bytes of capabilities,
/// 4 of the longest packet, 1 of the character set, 23 reserved.
pub(crate) fn parse_flags(packet: &[u8]) -> Result<Flags, Error> {
    if packet.len() < FIXED {
        return Err(Error::handshake("the client's first packet is too short"));
    }
    Ok(Flags::from_bits_truncate(LittleEndian::read_u32(packet)))
}

/// What a client answers to the greeting.
///
/// | Bytes | |
/// |---|---|
/// | 32 | as the request for TLS |
/// | | user, ended by NUL |
/// | | what the plugin says first: with a length in front |
/// | | schema, ended by NUL, with CLIENT_CONNECT_WITH_DB |
/// | | plugin, ended by NUL, with CLIENT_PLUGIN_AUTH |
/// | | attributes, which nobody reads |
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) flags: Flags,
    pub(crate) user: String,
    /// Whether the plugin says anything: not with an empty password.
    pub(crate) has_data: bool,
    pub(crate) plugin: Option<String>,
}

impl Response {
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Error> {
        let flags = parse_flags(packet)?;
        let short = || Error::handshake("the client's answer is too short");
        if !flags.contains(Flags::CLIENT_PROTOCOL_41 | Flags::CLIENT_SECURE_CONNECTION) {
            return Err(Error::handshake("the client is too old"));
        }
        let (user, mut rest) = split_nul(&packet[FIXED..]).ok_or_else(short)?;
        let data = if flags.contains(Flags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            take_string(&mut rest).ok_or_else(short)?
        } else {
            let (&len, behind) = rest.split_first().ok_or_else(short)?;
            let (data, behind) = behind.split_at_checked(len.into()).ok_or_else(short)?;
            rest = behind;
            data
        };
        if flags.contains(Flags::CLIENT_CONNECT_WITH_DB) {
            rest = split_nul(rest).ok_or_else(short)?.1;
        }
        let plugin = flags.contains(Flags::CLIENT_PLUGIN_AUTH).then(|| {
            let name = split_nul(rest).map_or(rest, |(name, _)| name);
            String::from_utf8_lossy(name).into_owned()
        });
        let user = String::from_utf8_lossy(user).into_owned();
        Ok(Self { flags, user, has_data: has_data(data), plugin })
    }
}

/// Whether this is more than the answer with an empty password.
pub(crate) fn has_data(data: &[u8]) -> bool {
    !matches!(data, [] | [0])
}

/// The password in a packet, which ends with NUL.
pub(crate) fn password(packet: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(packet.strip_suffix(&[0]).unwrap_or(packet).to_vec())
}
