// SPDX-License-Identifier: GPL-2.0-only

//! The packets of COM_CLONE that passed a proxy, as lines of text.

use std::fmt;

/// One line of a record.
///
/// Its `Display` is the format of `crates/clone-protocol/tests/stock`. Connections count from 1, in
/// the order in which the recipient opened them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// A command with its code: `<connection> > <hex>`.
    Command {
        /// The connection.
        connection: u64,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A response with its code: `<connection> < <hex>`.
    Response {
        /// The connection.
        connection: u64,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A DATA packet without its bytes: `<connection> < data <length>`.
    Data {
        /// The connection.
        connection: u64,
        /// Bytes behind the code.
        len: usize,
    },
    /// The proxy cut all connections: `cut`.
    Cut,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { connection, payload } => {
                write!(f, "{connection} > {}", Hex(payload))
            }
            Self::Response { connection, payload } => {
                write!(f, "{connection} < {}", Hex(payload))
            }
            Self::Data { connection, len } => write!(f, "{connection} < data {len}"),
            Self::Cut => write!(f, "cut"),
        }
    }
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_fixtures() {
        let lines = [
            Line::Command { connection: 1, payload: vec![4] },
            Line::Response { connection: 12, payload: vec![0x63, 0, 0xff] },
            Line::Data { connection: 2, len: 16_384 },
            Line::Cut,
        ];
        let text: Vec<_> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["1 > 04", "12 < 6300ff", "2 < data 16384", "cut"]);
    }
}
