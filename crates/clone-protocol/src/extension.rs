// SPDX-License-Identifier: GPL-2.0-only

//! What two peers of this project say to each other beyond the stock plugin's protocol.
//!
//! A recipient puts an [`Offer`] behind EXECUTE. A stock donor never looks there (`clone_server.cc:parse_command_buffer` uses no
//! byte behind COM_EXECUTE and COM_EXIT), and a recipient that offers nothing is sent nothing new: so a stock peer never sees any
//! of this. A donor that understands the offer may send [`Block`]s in place of DATA.

use std::fmt;

use crate::ProtocolError;
use crate::wire::Reader;

/// The first bytes of an offer.
const MAGIC: &[u8; 8] = b"clone-rs";

/// The form of what follows them.
const FORMAT: u8 = 1;

/// The CONFIG_V3 with which a donor answers an offer behind EXIT: its value is the formats of [`Offer`] that it understands.
pub const EXTENSION_CONFIG: &str = "clone_rs_offer";

/// The value of [`EXTENSION_CONFIG`] today.
pub const EXTENSION_VALUE: &str = "1";

/// What a recipient would like, 46 bytes behind the code of EXECUTE or EXIT:
///
/// | Offset | Type | |
/// |---|---|---|
/// | 0 | 8 bytes | `clone-rs` |
/// | 8 | `u8` | format, 1 |
/// | 9 | `u8` | 0: blocks as they are; 1: LZ4; 2 and above: Zstandard at this level less 1 |
/// | 10 | 32 bytes | where files can be handed over ([`HandoverKey`]); zeros, or nothing at all: nowhere |
/// | 42 | `u32` | bytes of a block that it takes at most, should a file not be handed over; 0 or nothing: what engines send by themselves |
///
/// Bytes behind it are ignored: they are for a later release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// How blocks should be packed.
    pub packing: Packing,
    /// Where a donor on the same machine can hand over open files instead of sending what is in them.
    pub handover: Option<HandoverKey>,
    /// Blocks of files that are handed over may have so many bytes: as many as fit in a packet, should one have to be sent. With 0 they are
    /// as long as they would be without.
    pub max_block: u32,
}

/// Where a recipient takes files over: 32 random bytes, not all of them zero. The first 16 name its socket, and the others prove to it
/// that it is the donor who connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HandoverKey([u8; 32]);

impl HandoverKey {
    /// A key of these bytes; none if all are zero.
    pub fn new(bytes: [u8; 32]) -> Option<Self> {
        (bytes != [0; 32]).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for HandoverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandoverKey(..)")
    }
}

/// How a recipient would like blocks to be packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard at this level, 1 to 22.
    Zstd(u8),
}

/// The highest level of Zstandard.
const MAX_LEVEL: u8 = 22;

impl Packing {
    /// How to pack at a level of `clone_compression_level`: 0 is LZ4, above it Zstandard's level. Without a level: not at all.
    pub fn of_level(level: Option<u8>) -> Self {
        match level {
            None => Packing::None,
            Some(0) => Packing::Lz4,
            Some(level) => Packing::Zstd(level),
        }
    }

    /// The level that [`of_level`](Self::of_level) takes.
    pub fn level(self) -> Option<u8> {
        match self {
            Packing::None => None,
            Packing::Lz4 => Some(0),
            Packing::Zstd(level) => Some(level),
        }
    }
}

impl Offer {
    /// The offer in a payload of EXECUTE or EXIT; none if there is none that is understood, which is no error.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        if reader.chunk() != Some(MAGIC) || reader.u8() != Some(FORMAT) {
            return None;
        }
        let packing = match reader.u8()? {
            0 => Packing::None,
            1 => Packing::Lz4,
            above => Packing::Zstd((above - 1).min(MAX_LEVEL)),
        };
        let Some(key) = reader.array() else { return Some(Self { packing, ..Self::default() }) };
        let handover = HandoverKey::new(key);
        let max_block = reader.u32_le().unwrap_or(0);
        Some(Self { packing, handover, max_block })
    }

    /// Puts the offer behind what is in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        let packing = match self.packing {
            Packing::None => 0,
            Packing::Lz4 => 1,
            Packing::Zstd(level) => level.clamp(1, MAX_LEVEL) + 1,
        };
        out.extend_from_slice(&[FORMAT, packing]);
        out.extend_from_slice(&self.handover.map_or([0; 32], HandoverKey::bytes));
        out.extend_from_slice(&self.max_block.to_le_bytes());
    }
}

/// The form of a block's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockForm {
    /// As they are.
    Raw = 0,
    /// An LZ4 block.
    Lz4 = 1,
    /// Zstandard frames, one behind the other.
    Zstd = 2,
    /// In the file that was handed over, from its current offset; none follow.
    File = 3,
    /// Without the sectors that are all zeros (`clone-io/src/sparse.rs`).
    Sparse = 4,
}

/// File data for the descriptor in the packet before, like DATA, with its checksum and perhaps packed. Behind the code:
///
/// | Offset | Type | |
/// |---|---|---|
/// | 0 | `u8` | form: 0 raw, 1 LZ4 block, 2 Zstandard frames, 3 handed over, 4 sparse |
/// | 1 | `u32` | bytes when unpacked; what the descriptor announces |
/// | 5 | | the bytes, packed or not; none if handed over |
/// | last 4 bytes | `u32` | CRC-32C of the unpacked bytes, of a sparse block of those in the packet; not there if handed over |
///
/// The checksum comes last so that a donor can send the beginning of a block before it has read the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Of the bytes in the packet.
    pub form: BlockForm,
    /// Bytes when unpacked.
    pub len: u32,
    /// CRC-32C of the unpacked bytes, or of `bytes` of a sparse block, whose zeros nobody looks at; 0 if handed over.
    pub checksum: u32,
    /// The bytes in the packet.
    pub bytes: &'a [u8],
}

/// Bytes in front of a block's, with the code of the response.
pub const BLOCK_HEAD: usize = 6;

/// Bytes behind a block's: the checksum.
pub const BLOCK_TAIL: usize = 4;

impl<'a> Block<'a> {
    /// Parses what follows the code.
    pub(crate) fn parse(mut reader: Reader<'a>) -> Result<Self, ProtocolError> {
        let wrong = || ProtocolError::new("Wrong Clone RPC response: Invalid block");
        let form = match reader.u8() {
            Some(0) => BlockForm::Raw,
            Some(1) => BlockForm::Lz4,
            Some(2) => BlockForm::Zstd,
            Some(3) => BlockForm::File,
            Some(4) => BlockForm::Sparse,
            _ => return Err(wrong()),
        };
        let len = reader.u32_le().ok_or_else(wrong)?;
        let rest = reader.rest();
        let (bytes, checksum) = match rest.split_last_chunk::<BLOCK_TAIL>() {
            Some((bytes, tail)) if form != BlockForm::File => (bytes, u32::from_le_bytes(*tail)),
            None if form == BlockForm::File => (rest, 0),
            _ => return Err(wrong()),
        };
        let is_whole = match form {
            BlockForm::Raw => u32::try_from(bytes.len()) == Ok(len),
            BlockForm::File => bytes.is_empty(),
            BlockForm::Lz4 | BlockForm::Zstd | BlockForm::Sparse => true,
        };
        if !is_whole {
            return Err(wrong());
        }
        Ok(Self { form, len, checksum, bytes })
    }

    /// What stands in front of the bytes, the code of the response first: so that a donor can put it there without a copy.
    pub fn head(code: u8, form: BlockForm, len: u32) -> [u8; BLOCK_HEAD] {
        let mut head = [0; BLOCK_HEAD];
        head[0] = code;
        head[1] = form as u8;
        head[2..].copy_from_slice(&len.to_le_bytes());
        head
    }

    /// What stands behind the bytes.
    pub fn tail(checksum: u32) -> [u8; BLOCK_TAIL] {
        checksum.to_le_bytes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{Response, ResponseCode};

    #[test]
    fn offers_byte_by_byte() {
        for (packing, last) in
            [(Packing::None, 0), (Packing::Lz4, 1), (Packing::Zstd(1), 2), (Packing::Zstd(22), 23)]
        {
            for handover in [None, HandoverKey::new(*b"0123456789abcdef0123456789ABCDEF")] {
                let offer = Offer { packing, handover, max_block: 0x0102_0304 };
                let mut bytes = Vec::new();
                offer.encode(&mut bytes);
                let id = handover.map_or([0; 32], HandoverKey::bytes);
                assert_eq!(
                    bytes,
                    [b"clone-rs".as_slice(), &[1, last], &id, &[4, 3, 2, 1]].concat()
                );
                assert_eq!(Offer::parse(&bytes), Some(offer));
                // A later release may say more, an earlier one said less.
                bytes.push(7);
                assert_eq!(Offer::parse(&bytes), Some(offer));
                let earlier = Offer { max_block: 0, ..offer };
                assert_eq!(Offer::parse(&bytes[..42]), Some(earlier));
                assert_eq!(Offer::parse(&bytes[..45]), Some(earlier));
                let earlier = Offer { handover: None, ..earlier };
                assert_eq!(Offer::parse(&bytes[..10]), Some(earlier));
                assert_eq!(Offer::parse(&bytes[..41]), Some(earlier));
            }
        }
        let high = Offer::parse(b"clone-rs\x01\xff").unwrap();
        assert_eq!(high.packing, Packing::Zstd(22));
    }

    #[test]
    fn each_level_names_one_packing() {
        for (level, packing) in [
            (None, Packing::None),
            (Some(0), Packing::Lz4),
            (Some(1), Packing::Zstd(1)),
            (Some(22), Packing::Zstd(22)),
        ] {
            assert_eq!(Packing::of_level(level), packing);
            assert_eq!(packing.level(), level);
        }
    }

    #[test]
    fn what_is_no_offer_is_none() {
        for bytes in
            [&b""[..], b"clone-rs", b"clone-rs\x01", b"clone-rs\x02\x00", b"CLONE-RS\x01\x00"]
        {
            assert_eq!(Offer::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn blocks_byte_by_byte() {
        let packet = b"\x20\x02\x00\x00\x10\x00packed\x78\x56\x34\x12";
        let block =
            Block { form: BlockForm::Zstd, len: 1 << 20, checksum: 0x1234_5678, bytes: b"packed" };
        assert_eq!(Response::parse(packet).unwrap(), Response::Block(block));
        let head = Block::head(ResponseCode::Block as u8, BlockForm::Zstd, 1 << 20);
        assert_eq!(head[..], packet[..BLOCK_HEAD]);
        assert_eq!(Block::tail(0x1234_5678)[..], packet[packet.len() - BLOCK_TAIL..]);
        let raw = b"\x20\x00\x03\x00\x00\x00abc\x00\x00\x00\x00";
        assert!(matches!(Response::parse(raw), Ok(Response::Block(Block { bytes: b"abc", .. }))));
        let sparse = b"\x20\x04\x00\x02\x00\x00\x00\x04\x03\x02\x01";
        let block =
            Block { form: BlockForm::Sparse, len: 512, checksum: 0x0102_0304, bytes: b"\0" };
        assert_eq!(Response::parse(sparse).unwrap(), Response::Block(block));
        let file = Block { form: BlockForm::File, len: 3, checksum: 0, bytes: b"" };
        let packet = b"\x20\x03\x03\x00\x00\x00";
        assert_eq!(Response::parse(packet).unwrap(), Response::Block(file));
    }

    #[test]
    fn blocks_that_are_none() {
        for packet in [
            &b"\x20"[..],
            b"\x20\x00\x00\x00\x00",
            b"\x20\x03\x03\x00\x00",
            // Not even a checksum.
            b"\x20\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x20\x02\x00\x00\x00\x00\x00\x00\x00",
            // A form that nobody knows, bytes or a checksum beside a file, and raw bytes that are not as many as they say.
            b"\x20\x05\x03\x00\x00\x00abc\x00\x00\x00\x00",
            b"\x20\x03\x03\x00\x00\x00abc",
            b"\x20\x03\x03\x00\x00\x00\x00\x00\x00\x00",
            b"\x20\x00\x04\x00\x00\x00abc\x00\x00\x00\x00",
        ] {
            let error = Response::parse(packet).unwrap_err();
            assert_eq!(error.to_string(), "Wrong Clone RPC response: Invalid block", "{packet:?}");
        }
    }
}
