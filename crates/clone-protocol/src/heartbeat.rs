// SPDX-License-Identifier: GPL-2.0-only

//! Heartbeats between two peers of this project: each end learns that the other one lives, and the
//! recipient learns what the donor waits for.
//!
//! A recipient says in INIT, ATTACH and REINIT that it sends heartbeats. A donor that understands
//! gives the connection a number, before anything else: the CONFIG_V3 [`HEARTBEAT_CONFIG`]. Then
//! the recipient's auxiliary connection carries [`Heartbeat`]s, and each is answered at once.

use std::str;

use crate::ProtocolError;
use crate::wire::{Reader, put_counted_le};

/// The CONFIG_V3 with which a donor numbers a connection. Its value is the number, in decimal.
pub const HEARTBEAT_CONFIG: &str = "mysql_clone_heartbeat";

/// The most connections in a heartbeat: all tasks of a clone, and as many that are just ending.
const MAX_CONNECTIONS: usize = 256;

/// The most bytes of a text in an answer.
const MAX_TEXT: usize = 255;

/// The payload of a heartbeat: the numbers of the connections that the recipient uses, `u64`
/// little-endian each, up to the end of the packet. At most 256.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// As the donor has numbered them.
    pub connections: Vec<u64>,
}

impl Heartbeat {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        let (numbers, rest) = payload.as_chunks();
        if !rest.is_empty() || numbers.len() > MAX_CONNECTIONS {
            return Err(ProtocolError::new("Wrong Clone RPC: Heartbeat length"));
        }
        Ok(Self { connections: numbers.iter().map(|one| u64::from_le_bytes(*one)).collect() })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for one in self.connections.iter().take(MAX_CONNECTIONS) {
            out.extend_from_slice(&one.to_le_bytes());
        }
    }
}

/// What a donor says of one of the connections in a heartbeat. The answer has one for each that the
/// donor knows, one behind the other, up to the end of the packet:
///
/// | Type | |
/// |---|---|
/// | `u64` | number of the connection |
/// | `u64` | packets that the donor has sent on the connection since it was numbered |
/// | `u32` and bytes | what the donor does or waits for, at most 255 bytes of UTF-8 |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat<'a> {
    /// The connection.
    pub connection: u64,
    /// Packets that the donor has sent on it. If the recipient has received as many, then none is
    /// on its way, and the donor has nothing to send.
    pub packets: u64,
    /// What the donor does or waits for.
    pub activity: &'a str,
}

impl<'a> Beat<'a> {
    pub(crate) fn parse_all(mut reader: Reader<'a>) -> Result<Vec<Self>, ProtocolError> {
        let wrong = || ProtocolError::new("Wrong Clone RPC response: Invalid heartbeat");
        let mut beats = Vec::new();
        while !reader.is_empty() {
            let beat = Self::parse(&mut reader).filter(|_| beats.len() < MAX_CONNECTIONS);
            beats.push(beat.ok_or_else(wrong)?);
        }
        Ok(beats)
    }

    fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        let (connection, packets) = (reader.u64_le()?, reader.u64_le()?);
        let text = reader.counted_le().filter(|text| text.len() <= MAX_TEXT)?;
        Some(Self { connection, packets, activity: str::from_utf8(text).ok()? })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.connection.to_le_bytes());
        out.extend_from_slice(&self.packets.to_le_bytes());
        let end = self.activity.floor_char_boundary(MAX_TEXT);
        put_counted_le(out, &self.activity.as_bytes()[..end]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Command, Response};

    const WRONG: &str = "Wrong Clone RPC: Heartbeat length";

    #[test]
    fn heartbeats_byte_by_byte() {
        let command = Command::Heartbeat(Heartbeat { connections: vec![1, 0x0203] });
        let mut payload = Vec::new();
        command.encode_payload(&mut payload);
        assert_eq!(payload, [1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Command::parse(32, &payload), Ok(command));
        let beat = Beat { connection: 1, packets: 7, activity: "ab" };
        let response = Response::Heartbeat(vec![beat]);
        let mut packet = Vec::new();
        response.encode(&mut packet);
        let bytes = [33, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'a', b'b'];
        assert_eq!(packet, bytes);
        assert_eq!(Response::parse(&packet), Ok(response));
        assert_eq!(Response::parse(&[33]), Ok(Response::Heartbeat(Vec::new())));
    }

    #[test]
    fn heartbeats_that_are_none() {
        let wrong = ProtocolError::new(WRONG);
        assert_eq!(Heartbeat::parse(&[0; 9]), Err(wrong.clone()));
        assert_eq!(Heartbeat::parse(&[0; 8 * 257]), Err(wrong));
        assert_eq!(Heartbeat::parse(&[0; 8 * 256]).unwrap().connections.len(), 256);
        let beat = |text: &[u8]| {
            let mut packet = vec![33];
            packet.extend_from_slice(&[0; 16]);
            put_counted_le(&mut packet, text);
            packet
        };
        assert!(Response::parse(&beat(&[b'x'; 255])).is_ok());
        assert!(Response::parse(&beat(&[b'x'; 256])).is_err());
        assert!(Response::parse(&beat(&[0xff])).is_err());
        assert!(Response::parse(&beat(b"x")[..20]).is_err());
        let many: Vec<u8> = [&[33][..], &[0; 20].repeat(257)].concat();
        assert!(Response::parse(&many).is_err());
        assert!(Response::parse(&many[..=20 * 256]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(
            connections in prop::collection::vec(any::<u64>(), 0..256),
            packets: u64,
            activity in ".{0,300}",
        ) {
            let heartbeat = Heartbeat { connections };
            let mut bytes = Vec::new();
            heartbeat.encode(&mut bytes);
            prop_assert_eq!(Heartbeat::parse(&bytes).unwrap(), heartbeat);
            let beat = Beat { connection: packets / 2, packets, activity: &activity };
            bytes.clear();
            beat.encode(&mut bytes);
            let parsed = Beat::parse_all(Reader::new(&bytes)).unwrap();
            prop_assert_eq!(parsed[0].packets, packets);
            prop_assert!(activity.starts_with(parsed[0].activity));
            prop_assert!(activity.len() < 256 || parsed[0].activity.len() > 251);
        }

        #[test]
        fn whatever_comes_is_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(heartbeat) = Heartbeat::parse(&bytes) {
                let mut again = Vec::new();
                heartbeat.encode(&mut again);
                prop_assert_eq!(&again, &bytes);
            }
            if let Ok(beats) = Beat::parse_all(Reader::new(&bytes)) {
                let mut again = Vec::new();
                beats.iter().for_each(|beat| beat.encode(&mut again));
                prop_assert_eq!(&again, &bytes);
            }
        }
    }
}
