// SPDX-License-Identifier: GPL-2.0-only

//! The first packet of a server, and the client's answer.

use std::collections::HashMap;

use byteorder::{ByteOrder, LittleEndian};
use mysql_common::constants::CapabilityFlags as Flags;
use mysql_common::packets::{AuthPlugin, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;

use crate::answer::{parse_err, split_nul};
use crate::error::Error;
use crate::packets::{CONTINUED, ERR};

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 20;

/// The version of the classic protocol.
const PROTOCOL: u8 = 10;

/// Character set utf8mb4, with the collation utf8mb4_general_ci, which all servers know.
const UTF8MB4: u8 = 45;

/// Without these a server is older than any that can clone.
const NEEDED: Flags = Flags::CLIENT_PROTOCOL_41
    .union(Flags::CLIENT_SECURE_CONNECTION)
    .union(Flags::CLIENT_PLUGIN_AUTH);

/// What this client can do.
const OFFERED: Flags = NEEDED
    .union(Flags::CLIENT_LONG_PASSWORD)
    .union(Flags::CLIENT_LONG_FLAG)
    .union(Flags::CLIENT_TRANSACTIONS)
    .union(Flags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Flags::CLIENT_CONNECT_ATTRS)
    .union(Flags::CLIENT_DEPRECATE_EOF);

/// A server's first packet.
///
/// | Bytes | |
/// |---|---|
/// | 1 | 10, the version of the protocol |
/// | | server version, ended by NUL |
/// | 4 | connection id |
/// | 8 | nonce, first part |
/// | 1 | filler |
/// | 2 | capabilities, lower half |
/// | 1, 2 | collation, status |
/// | 2 | capabilities, upper half |
/// | 1 | length of the nonce with its NUL |
/// | 10 | reserved |
/// | | nonce, second part with NUL: 13 bytes, or the length above less 8 if that is more |
/// | | name of the authentication plugin, ended by NUL |
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) version: String,
    pub(crate) id: u32,
    pub(crate) nonce: [u8; NONCE],
    pub(crate) plugin: String,
    pub(crate) capabilities: Flags,
}

impl Greeting {
    /// Parses the first packet.
    ///
    /// # Errors
    /// The server's, for example 1040 (too many connections), or [`Error::BadPacket`].
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Error> {
        let short = || Error::handshake("the server's first packet is too short");
        match packet {
            [ERR, ..] => return Err(parse_err(packet)?.into()),
            [PROTOCOL, ..] => {}
            [version, ..] => {
                let text =
                    format!("Protocol mismatch; server version = {version}, client version = 10");
                return Err(Error::BadPacket { number: 2007, text });
            }
            [] => return Err(short()),
        }
        let (version, rest) = split_nul(&packet[1..]).ok_or_else(short)?;
        let (fixed, rest) = rest.split_at_checked(31).ok_or_else(short)?;
        let low = u32::from(LittleEndian::read_u16(&fixed[13..15]));
        let high = u32::from(LittleEndian::read_u16(&fixed[18..20]));
        let capabilities = Flags::from_bits_truncate(low | high << 16);
        if !capabilities.contains(NEEDED) {
            return Err(Error::handshake("the server is older than any that can clone"));
        }
        let second = usize::from(fixed[20]).saturating_sub(8).max(13);
        let (second, plugin) = rest.split_at_checked(second).ok_or_else(short)?;
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&fixed[4..12]);
        nonce[8..].copy_from_slice(&second[..NONCE - 8]);
        // Some servers leave out the last NUL.
        let plugin = split_nul(plugin).map_or(plugin, |(plugin, _)| plugin);
        Ok(Self {
            version: String::from_utf8_lossy(version).into_owned(),
            id: LittleEndian::read_u32(&fixed[..4]),
            nonce,
            plugin: String::from_utf8_lossy(plugin).into_owned(),
            capabilities,
        })
    }

    /// Whether the server offers TLS.
    pub(crate) fn offers_tls(&self) -> bool {
        self.capabilities.contains(Flags::CLIENT_SSL)
    }

    /// What the client asks for: what both ends can do.
    pub(crate) fn common(&self, tls: bool, compresses: bool) -> Flags {
        let mut offered = OFFERED;
        offered.set(Flags::CLIENT_ZSTD_COMPRESSION_ALGORITHM, compresses);
        let mut flags = offered & self.capabilities;
        flags.set(Flags::CLIENT_SSL, tls);
        flags
    }
}

/// The packet that asks for TLS.
pub(crate) fn tls_request(flags: Flags) -> Vec<u8> {
    let mut packet = Vec::new();
    SslRequest::new(flags, CONTINUED as u32 + 1, UTF8MB4).serialize(&mut packet);
    packet
}

/// The client's answer to the greeting: user, plugin, what the plugin has to say first, and the
/// level of Zstandard if `flags` ask for compression.
pub(crate) fn response(
    flags: Flags,
    user: &str,
    plugin: &str,
    data: &[u8],
    zstd_level: Option<u8>,
) -> Vec<u8> {
    let attributes = flags.contains(Flags::CLIENT_CONNECT_ATTRS).then(|| {
        HashMap::from([
            ("program_name".into(), "mysql-clone".into()),
            ("_client_name".into(), "mysql-clone".into()),
            ("_client_version".into(), env!("CARGO_PKG_VERSION").into()),
            ("_pid".into(), std::process::id().to_string()),
        ])
    });
    let response = HandshakeResponse::new(
        Some(data),
        (8, 0, 0),
        Some(user.as_bytes()),
        None::<&[u8]>,
        Some(AuthPlugin::from_bytes(plugin.as_bytes())),
        flags,
        attributes,
        CONTINUED as u32 + 1,
    );
    // A vector that grows would leave copies of a password behind.
    let mut packet = Vec::with_capacity(1024 + user.len() + data.len());
    response.serialize(&mut packet);
    if flags.contains(Flags::CLIENT_ZSTD_COMPRESSION_ALGORITHM) {
        packet.extend(zstd_level);
    }
    packet
}
