// SPDX-License-Identifier: GPL-2.0-only

//! Bytes to packets: `u24` little-endian length, `u8` sequence number, payload.

use clone_protocol::{BLOCK_HEAD, BLOCK_TAIL, BlockForm, ResponseCode};

pub(super) const HEADER_LEN: usize = 4;

/// A packet of this length is continued in the next one.
const CONTINUED: usize = 0xff_ffff;

/// A packet of `payload`, which must be shorter than 16 MiB.
pub(super) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < CONTINUED, "{} bytes are more than one packet", payload.len());
    let [a, b, c, ..] = payload.len().to_le_bytes();
    [&[a, b, c, sequence], payload].concat()
}

/// What the next bytes are.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Piece {
    /// A whole packet, with its header.
    Packet(Vec<u8>),
    /// Header and code of a DATA packet, or header and head of a BLOCK that is not packed.
    DataHead(Vec<u8>),
    /// Bytes of data.
    Data(Vec<u8>),
    /// Bytes that are not to be looked at.
    Raw(Vec<u8>),
}

/// How to take the next bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// Packet by packet.
    Packets,
    /// Packet by packet, but data as they come.
    Responses,
    /// As they come.
    None,
}

/// Cuts what comes from one side into pieces.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// Bytes of data that are still to come.
    data_left: usize,
    /// Bytes of their checksum behind them.
    tail_left: usize,
    /// The last packet is continued. Only payloads of 16 MiB are, and nothing of interest is that
    /// long.
    is_continued: bool,
}

impl Framer {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the data taken last are not the end of their packet.
    pub(super) fn has_data_left(&self) -> bool {
        self.data_left > 0
    }

    /// Takes back the last of the data that were taken last.
    pub(super) fn put_back(&mut self, data: &[u8]) {
        self.buffer.splice(..0, data.iter().copied());
        self.data_left += data.len();
    }

    /// What is there, be it a packet or not.
    pub(super) fn rest(&mut self) -> Option<Piece> {
        let rest = std::mem::take(&mut self.buffer);
        (!rest.is_empty()).then_some(Piece::Raw(rest))
    }

    /// `None` when more bytes must come first.
    pub(super) fn next(&mut self, framing: Framing) -> Option<Piece> {
        if self.buffer.is_empty() {
            return None;
        }
        if framing == Framing::None {
            return Some(Piece::Raw(std::mem::take(&mut self.buffer)));
        }
        if self.data_left > 0 {
            let data = self.take(self.data_left.min(self.buffer.len()));
            self.data_left -= data.len();
            return Some(Piece::Data(data));
        }
        if self.tail_left > 0 {
            let tail = self.take(self.tail_left.min(self.buffer.len()));
            self.tail_left -= tail.len();
            return Some(Piece::Raw(tail));
        }
        let &[a, b, c, _] = self.buffer.first_chunk()?;
        let len = u32::from_le_bytes([a, b, c, 0]) as usize;
        let is_whole = !self.is_continued && len < CONTINUED;
        if framing == Framing::Responses && is_whole {
            let (head, tail) = self.around_data()?;
            if head > 0 && len > head + tail {
                self.data_left = len - head - tail;
                self.tail_left = tail;
                return Some(Piece::DataHead(self.take(HEADER_LEN + head)));
            }
        }
        if self.buffer.len() < HEADER_LEN + len {
            return None;
        }
        self.is_continued = len == CONTINUED;
        let packet = self.take(HEADER_LEN + len);
        Some(if is_whole { Piece::Packet(packet) } else { Piece::Raw(packet) })
    }

    /// Bytes between the header and data as they are, and behind the data; 0 if this is another
    /// packet, and `None` when more bytes must come first.
    fn around_data(&self) -> Option<(usize, usize)> {
        const DATA: u8 = ResponseCode::Data as u8;
        const BLOCK: u8 = ResponseCode::Block as u8;
        const RAW: u8 = BlockForm::Raw as u8;
        match (*self.buffer.get(HEADER_LEN)?, self.buffer.get(HEADER_LEN + 1)) {
            (DATA, _) => Some((1, 0)),
            (BLOCK, None) => None,
            (BLOCK, Some(&RAW)) => {
                let is_here = self.buffer.len() >= HEADER_LEN + BLOCK_HEAD;
                is_here.then_some((BLOCK_HEAD, BLOCK_TAIL))
            }
            _ => Some((0, 0)),
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(len);
        std::mem::replace(&mut self.buffer, rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
        [&len[..3], &[0], payload].concat()
    }

    fn pieces(bytes: &[u8], step: usize, framing: Framing) -> Vec<Piece> {
        let mut framer = Framer::default();
        let mut pieces = Vec::new();
        for part in bytes.chunks(step) {
            framer.extend(part);
            while let Some(piece) = framer.next(framing) {
                pieces.push(piece);
            }
        }
        assert!(framer.is_empty());
        pieces
    }

    #[test]
    fn packets_however_they_arrive() {
        let two = [packet(b"\x02descriptor"), packet(b"\x63")].concat();
        let expected = [packet(b"\x02descriptor"), packet(b"\x63")].map(Piece::Packet);
        for step in 1..=two.len() {
            assert_eq!(pieces(&two, step, Framing::Packets), expected);
            assert_eq!(pieces(&two, step, Framing::Responses), expected);
        }
        assert_eq!(pieces(&two, 3, Framing::None).len(), two.len().div_ceil(3));
    }

    #[test]
    fn data_are_not_waited_for() {
        let bytes = [packet(b"\x03some data"), packet(b"\x63")].concat();
        let head = Piece::DataHead(packet(b"\x03some data")[..5].to_vec());
        let all = pieces(&bytes, bytes.len(), Framing::Responses);
        let data = Piece::Data(b"some data".to_vec());
        assert_eq!(all, [head, data, Piece::Packet(packet(b"\x63"))]);
        let data = |pieces: Vec<Piece>| -> Vec<u8> {
            let bytes = pieces.into_iter().filter_map(|piece| match piece {
                Piece::Data(data) => Some(data),
                _ => None,
            });
            bytes.flatten().collect()
        };
        for step in 1..bytes.len() {
            assert_eq!(data(pieces(&bytes, step, Framing::Responses)), b"some data");
        }
    }

    #[test]
    fn so_are_blocks_that_are_not_packed() {
        let raw = packet(b"\x20\x00\x04\0\0\0data\x01\x02\x03\x04");
        let packed = packet(b"\x20\x02\x04\0\0\0packed\x01\x02\x03\x04");
        let bytes = [raw.clone(), packed.clone()].concat();
        let head = Piece::DataHead(raw[..HEADER_LEN + BLOCK_HEAD].to_vec());
        let all = pieces(&bytes, bytes.len(), Framing::Responses);
        let tail = Piece::Raw(b"\x01\x02\x03\x04".to_vec());
        assert_eq!(all, [head, Piece::Data(b"data".to_vec()), tail, Piece::Packet(packed)]);
        for step in 1..bytes.len() {
            assert!(pieces(&bytes, step, Framing::Responses).contains(&all[0]));
        }
    }

    #[test]
    fn data_can_be_put_back() {
        let mut framer = Framer::default();
        framer.extend(&packet(b"\x03some data"));
        framer.next(Framing::Responses).unwrap();
        framer.next(Framing::Responses).unwrap();
        assert!(!framer.has_data_left());
        framer.put_back(b"data");
        assert!(framer.has_data_left());
        assert_eq!(framer.next(Framing::Responses), Some(Piece::Data(b"data".to_vec())));
        assert_eq!(framer.rest(), None);
    }

    #[test]
    fn packets_are_framed() {
        let framed = super::packet(7, b"\x63more");
        assert_eq!(framed, b"\x05\0\0\x07\x63more");
        assert_eq!(pieces(&framed, 3, Framing::Packets), [Piece::Packet(framed)]);
        assert_eq!(super::packet(0, &[0; 0x01_0203])[..4], [3, 2, 1, 0]);
    }

    #[test]
    fn long_payloads_are_passed_over() {
        let long = [packet(&vec![2; CONTINUED]), packet(&[3; 10]), packet(b"\x63")].concat();
        let pieces = pieces(&long, 1 << 20, Framing::Responses);
        let [Piece::Raw(first), Piece::Raw(second), Piece::Packet(_)] = &pieces[..] else {
            panic!("{} pieces", pieces.len());
        };
        assert_eq!((first.len(), second.len()), (CONTINUED + 4, 14));
    }
}
