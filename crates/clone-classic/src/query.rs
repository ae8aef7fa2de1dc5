// SPDX-License-Identifier: GPL-2.0-only

//! The answer to a query, as text.

use mysql_common::constants::CapabilityFlags as Flags;

use crate::answer::{OK, SWITCH_OR_EOF, parse_err, take_integer, take_string};
use crate::error::Error;
use crate::packets::{CONTINUED, ERR, Packets};

/// The most columns of an answer: MySQL's own limit.
const MAX_COLUMNS: u64 = 4096;
/// The most rows of an answer.
const MAX_ROWS: usize = 1 << 20;
/// The most bytes of an answer's values.
const MAX_BYTES: usize = 64 << 20;

/// The code of a NULL in a row. As the first byte of an answer, the server asks for a local file.
const NULL: u8 = 0xfb;

/// Rows of values.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// Reads the answer to a query: one set of rows, or none.
pub(crate) fn receive(packets: &mut Packets, flags: Flags) -> Result<Rows, Error> {
    let columns = match packets.receive()?.data {
        [OK, ..] => return Ok(Vec::new()),
        packet @ [ERR, ..] => return Err(parse_err(packet)?.into()),
        [NULL, ..] => return Err(Error::malformed("the server asks for a file")),
        packet => parse_columns(packet)?,
    };
    let has_eof = !flags.contains(Flags::CLIENT_DEPRECATE_EOF);
    for _ in 0..columns {
        if let packet @ [ERR, ..] = packets.receive()?.data {
            return Err(parse_err(packet)?.into());
        }
    }
    if has_eof && !is_end(packets.receive()?.data) {
        return Err(Error::malformed("the columns do not end"));
    }
    let mut rows = Vec::new();
    let mut bytes = 0;
    loop {
        let packet = packets.receive()?.data;
        if is_end(packet) {
            return Ok(rows);
        }
        if let [ERR, ..] = packet {
            return Err(parse_err(packet)?.into());
        }
        bytes += packet.len();
        if rows.len() >= MAX_ROWS || bytes > MAX_BYTES {
            return Err(Error::malformed("the answer is larger than this program accepts"));
        }
        rows.push(parse_row(packet, columns)?);
    }
}

/// An EOF packet, or the OK packet in its place.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&SWITCH_OR_EOF) && packet.len() < CONTINUED
}

/// The number of columns.
fn parse_columns(mut packet: &[u8]) -> Result<usize, Error> {
    let columns = take_integer(&mut packet)
        .filter(|columns| (1..=MAX_COLUMNS).contains(columns) && packet.is_empty())
        .ok_or_else(|| Error::malformed("the number of columns"))?;
    Ok(columns as usize)
}

/// A row of `columns` values.
pub(crate) fn parse_row(mut packet: &[u8], columns: usize) -> Result<Vec<Option<String>>, Error> {
    let mut row = Vec::with_capacity(columns);
    for _ in 0..columns {
        if let [NULL, rest @ ..] = packet {
            packet = rest;
            row.push(None);
            continue;
        }
        let value = take_string(&mut packet).ok_or_else(|| Error::malformed("a row"))?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    if packet.is_empty() { Ok(row) } else { Err(Error::malformed("a row that is too long")) }
}
