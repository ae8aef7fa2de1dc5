// SPDX-License-Identifier: GPL-2.0-only

//! What a server answers: OK, ERR, and the packets of an authentication. Parsers only.

use byteorder::{ByteOrder, LittleEndian};

use crate::error::{Error, ServerError};
use crate::packets::ERR;

/// First bytes of packets.
pub(crate) const OK: u8 = 0;
pub(crate) const MORE_DATA: u8 = 1;
pub(crate) const SWITCH_OR_EOF: u8 = 0xfe;

/// SQLSTATE of an error that comes without one.
const UNKNOWN_STATE: &str = "HY000";

/// Parses an ERR packet.
///
/// | Bytes | |
/// |---|---|
/// | 1 | 0xff |
/// | 2, little-endian | number |
/// | 6 | `#` and SQLSTATE; a server that does not know the client yet may leave them out |
/// | | text up to the end |
pub(crate) fn parse_err(packet: &[u8]) -> Result<ServerError, Error> {
    let [ERR, low, high, rest @ ..] = packet else {
        return Err(Error::malformed("an error without a number"));
    };
    let (state, text) = match rest {
        [b'#', rest @ ..] if rest.len() >= 5 && rest[..5].is_ascii() => rest.split_at(5),
        rest => (UNKNOWN_STATE.as_bytes(), rest),
    };
    let number = u16::from_le_bytes([*low, *high]);
    let state = String::from_utf8_lossy(state).into_owned();
    Ok(ServerError { number, state, text: String::from_utf8_lossy(text).into_owned() })
}

/// What a server asks for in the middle of an authentication.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AuthenticationAnswer<'a> {
    /// The client is in.
    Ok,
    /// Another plugin, with its data: a nonce.
    Switch { plugin: String, data: &'a [u8] },
    /// What the plugin has to say.
    More(&'a [u8]),
}

impl<'a> AuthenticationAnswer<'a> {
    /// Parses an answer.
    ///
    /// # Errors
    /// The server's, or [`Error::BadPacket`].
    pub(crate) fn parse(packet: &'a [u8]) -> Result<Self, Error> {
        match packet {
            [OK, ..] => Ok(Self::Ok),
            [ERR, ..] => Err(parse_err(packet)?.into()),
            [MORE_DATA, data @ ..] => Ok(Self::More(data)),
            // Servers from before 4.1 meant mysql_old_password.
            [SWITCH_OR_EOF] => Ok(Self::Switch { plugin: "mysql_old_password".into(), data: &[] }),
            [SWITCH_OR_EOF, rest @ ..] => {
                let (plugin, data) = split_nul(rest)
                    .ok_or_else(|| Error::malformed("a plugin's name without an end"))?;
                let plugin = String::from_utf8_lossy(plugin).into_owned();
                Ok(Self::Switch { plugin, data: data.strip_suffix(&[0]).unwrap_or(data) })
            }
            _ => Err(Error::malformed("an answer that is no part of an authentication")),
        }
    }
}

/// The bytes before and behind the first NUL.
pub(crate) fn split_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Takes a length-encoded integer off the front.
pub(crate) fn take_integer(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let len = match first {
        0..=250 => 0,
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        // NULL, and the code of an error.
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(if len == 0 { first.into() } else { LittleEndian::read_uint(value, len) })
}

/// Takes a length-encoded string off the front.
pub(crate) fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_integer(bytes)?).ok()?;
    let (string, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(string)
}

/// Reads an answer that must be OK or ERR.
pub(crate) fn expect_ok(packet: &[u8]) -> Result<(), Error> {
    match packet.first() {
        Some(&OK) => Ok(()),
        Some(&ERR) => Err(parse_err(packet)?.into()),
        _ => Err(Error::malformed("neither OK nor an error")),
    }
}
