// SPDX-License-Identifier: GPL-2.0-only

//! Rows of text, as the answer to a query.

use mysql_common::constants::CapabilityFlags as Flags;
use mysql_common::io::BufMutExt;

use crate::answer::SWITCH_OR_EOF;
use crate::error::Error;
use crate::packets::Packets;

/// MYSQL_TYPE_VAR_STRING.
const VAR_STRING: u8 = 0xfd;
/// utf8mb4_general_ci.
const COLLATION: u16 = 45;
/// NULL in a row.
const NULL: u8 = 0xfb;
/// SERVER_STATUS_AUTOCOMMIT.
const AUTOCOMMIT: u8 = 2;

/// Sends columns and rows.
pub(super) fn send(
    packets: &mut Packets,
    flags: Flags,
    columns: &[&str],
    rows: &[Vec<Option<String>>],
) -> Result<(), Error> {
    let is_new = flags.contains(Flags::CLIENT_DEPRECATE_EOF);
    let mut packet = Vec::new();
    packet.put_lenenc_int(columns.len() as u64);
    packets.send(&[&packet])?;
    for name in columns {
        packets.send(&[&column(name)])?;
    }
    let eof = [SWITCH_OR_EOF, 0, 0, AUTOCOMMIT, 0];
    if !is_new {
        packets.send(&[&eof])?;
    }
    for row in rows {
        packet.clear();
        for value in row {
            match value {
                Some(value) => packet.put_lenenc_str(value.as_bytes()),
                None => packet.push(NULL),
            }
        }
        packets.send(&[&packet])?;
    }
    // An OK packet in the place of EOF: no rows changed, no id, status, no warnings.
    let ok = [SWITCH_OR_EOF, 0, 0, AUTOCOMMIT, 0, 0, 0];
    packets.send(&[if is_new { &ok } else { &eof }])
}

/// The definition of a column: catalogue, schema, table, name; and 12 bytes of what the column is.
fn column(name: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    for text in ["def", "", "", "", name, name] {
        packet.put_lenenc_str(text.as_bytes());
    }
    packet.push(12);
    packet.extend_from_slice(&COLLATION.to_le_bytes());
    packet.extend_from_slice(&u32::MAX.to_le_bytes());
    packet.extend_from_slice(&[VAR_STRING, 0, 0, 0, 0, 0]);
    packet
}
