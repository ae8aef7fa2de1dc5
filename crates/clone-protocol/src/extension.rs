// SPDX-License-Identifier: GPL-2.0-only

//! The extensions of COM_CLONE that two peers of this project use between each other.
//!
//! A recipient puts an [`Offer`] behind EXECUTE. A stock donor ignores these bytes
//! (`clone_server.cc:parse_command_buffer` reads nothing behind COM_EXECUTE and COM_EXIT). A donor
//! that understands the offer may send a [`Block`] in place of DATA. A recipient that offers
//! nothing gets nothing new. So a stock peer never sees an extension.

use std::fmt;
use std::str::FromStr;

use crate::base::MIN_UNIT;
use crate::wire::Reader;
use crate::{ProtocolError, ResponseCode};

/// The first bytes of an offer.
const MAGIC: &[u8; 8] = b"clone-rs";

/// The layout of the bytes behind [`MAGIC`]. Peers with different formats talk like stock peers.
///
/// Format 1 had a maximum block length in place of the accepted forms, and a checksum over the
/// unpacked bytes.
const FORMAT: u8 = 2;

/// In the last byte of an offer: the donor chooses how it packs.
const CHOOSES: u8 = 1;

/// In the last byte of an offer: the donor is asked to tell of itself.
const ASKS: u8 = 2;

/// The CONFIG_V3 with which a donor answers an offer behind EXIT. Its value is the format of
/// [`Offer`] that the donor understands.
pub const EXTENSION_CONFIG: &str = "clone_rs_offer";

/// The value of [`EXTENSION_CONFIG`] today.
pub const EXTENSION_VALUE: &str = "2";

/// The most bytes that a block may have when it is unpacked: 16 MiB.
///
/// InnoDB's blocks have 64 pages, which is at most 4 MiB. A peer that announces more is refused
/// before memory is asked for.
pub const MAX_BLOCK: u32 = 16 << 20;

/// What a recipient accepts and asks for, 47 bytes behind the code of EXECUTE or EXIT:
///
/// | Offset | Type | |
/// |---|---|---|
/// | 0 | 8 bytes | `clone-rs` |
/// | 8 | `u8` | format, 2 |
/// | 9 | `u8` | packing. 0: none; 1: LZ4; 2 and above: Zstandard at this level less 1 |
/// | 10 | `u32` | the accepted forms of a block, one bit for each [`BlockForm`] ([`Forms`]) |
/// | 14 | 32 bytes | the socket for handed-over files ([`HandoverKey`]); zeros: none |
/// | 46 | `u8` | bits. 1: the donor chooses how it packs ([`Packing::Auto`]), and byte 9 is 0. 2: behind EXIT, the donor is asked to tell of itself |
///
/// A reader ignores bytes behind the last field: a later release may use them. Without the byte at
/// 46 the offer is one of an earlier build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// How the donor should pack blocks.
    pub packing: Packing,
    /// The forms in which the recipient accepts a block. A donor sends no other form.
    pub accepts: Forms,
    /// Where a donor on the same machine can hand over open files instead of sending their data.
    pub handover: Option<HandoverKey>,
    /// Behind EXIT: the donor is asked for a CONFIG_V3 for each fact that a recipient checks before
    /// it replaces its own data. A donor that does not know this field ignores it.
    pub asks: bool,
}

/// A set of [`BlockForm`]s. Unknown bits are kept out, so that an old build ignores new forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms(u32);

impl Forms {
    /// The set with these bits; bit n is the form with number n.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & Self::default().0)
    }

    /// One bit for each form.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The set without `form`.
    #[must_use]
    pub fn without(self, form: BlockForm) -> Self {
        Self(self.0 & !form.bit())
    }

    /// Whether `form` is in the set.
    pub fn contains(self, form: BlockForm) -> bool {
        self.0 & form.bit() != 0
    }
}

/// All forms that this build knows.
impl Default for Forms {
    fn default() -> Self {
        Self(BlockForm::ALL.iter().fold(0, |bits, form| bits | form.bit()))
    }
}

/// The socket where a recipient receives files: 32 random bytes, not all of them zero. The first
/// 16 bytes name the socket. The last 16 are a secret with which the donor identifies itself.
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

/// How a donor packs blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    /// Not at all.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard at this level, 1 to 22.
    Zstd(u8),
    /// The donor chooses among the others, and chooses again while it sends.
    Auto,
}

/// The highest level of Zstandard.
pub const MAX_LEVEL: u8 = 22;

/// As users write it.
impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packing::None => f.write_str("OFF"),
            Packing::Lz4 => f.write_str("LZ4"),
            Packing::Zstd(level) => write!(f, "ZSTD{level}"),
            Packing::Auto => f.write_str("AUTO"),
        }
    }
}

/// The text of a [`Packing`] is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackingError;

impl fmt::Display for PackingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compression is AUTO, OFF, LZ4, or ZSTD1 to ZSTD{MAX_LEVEL}")
    }
}

impl std::error::Error for PackingError {}

/// In any case of letters.
impl FromStr for Packing {
    type Err = PackingError;

    fn from_str(text: &str) -> Result<Self, PackingError> {
        match text.to_ascii_uppercase().as_str() {
            "AUTO" => Ok(Packing::Auto),
            "OFF" => Ok(Packing::None),
            "LZ4" => Ok(Packing::Lz4),
            text => {
                let level = text.strip_prefix("ZSTD").and_then(|level| level.parse().ok());
                let level = level.filter(|level| (1..=MAX_LEVEL).contains(level));
                level.map(Packing::Zstd).ok_or(PackingError)
            }
        }
    }
}

impl Offer {
    /// The offer in a payload of EXECUTE or EXIT. None if there is no offer, or one of another
    /// format: that is no error.
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
        let accepts = Forms::from_bits(reader.u32_le()?);
        let handover = HandoverKey::new(reader.array()?);
        let bits = reader.u8().unwrap_or(0);
        let packing = if bits & CHOOSES != 0 { Packing::Auto } else { packing };
        Some(Self { packing, accepts, handover, asks: bits & ASKS != 0 })
    }

    /// Appends the offer to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        let packing = match self.packing {
            // A donor of an earlier build that is asked for AUTO packs nothing.
            Packing::None | Packing::Auto => 0,
            Packing::Lz4 => 1,
            Packing::Zstd(level) => level.clamp(1, MAX_LEVEL) + 1,
        };
        out.extend_from_slice(&[FORMAT, packing]);
        out.extend_from_slice(&self.accepts.bits().to_le_bytes());
        out.extend_from_slice(&self.handover.map_or([0; 32], HandoverKey::bytes));
        let chooses = if self.packing == Packing::Auto { CHOOSES } else { 0 };
        let asks = if self.asks { ASKS } else { 0 };
        out.push(chooses | asks);
    }
}

/// The form of a block's bytes in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockForm {
    /// The bytes themselves.
    Raw = 0,
    /// An LZ4 block.
    Lz4 = 1,
    /// Zstandard frames, one behind the other.
    Zstd = 2,
    /// No bytes: the block is in the file that the donor has handed over, from the file's current
    /// offset on.
    File = 3,
    /// Without the sectors that are all zeros (`clone-io/src/sparse.rs`).
    Sparse = 4,
    /// No data: which units of the block are equal to the recipient's base
    /// ([`EqualUnits`](crate::EqualUnits)). Stands in front of the block's descriptor.
    Base = 5,
}

impl BlockForm {
    /// All forms.
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::Lz4, Self::Zstd, Self::File, Self::Sparse, Self::Base];

    fn from_wire(form: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u8 == form)
    }

    /// Its bit in [`Forms`].
    fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// File data for the descriptor in the packet before, like DATA, with a checksum and perhaps
/// packed. Behind the code of the response:
///
/// | Offset | Type | |
/// |---|---|---|
/// | 0 | `u8` | form: 0 raw, 1 LZ4 block, 2 Zstandard frames, 3 handed over, 4 sparse, 5 base |
/// | 1 | `u32` | bytes when unpacked, at most [`MAX_BLOCK`]; the descriptor announces the same |
/// | 5 | | the bytes in this form; none if handed over |
/// | last 4 bytes | `u32` | CRC-32C of these bytes; absent if handed over |
///
/// The checksum covers what crossed the network, so that a recipient checks it before a codec sees
/// the bytes. It comes last so that a donor can send the beginning of a block before it has read
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The form of `bytes`.
    pub form: BlockForm,
    /// Bytes when unpacked.
    pub len: u32,
    /// CRC-32C of `bytes`; 0 if handed over.
    pub checksum: u32,
    /// The bytes in the packet, between [`BLOCK_HEAD`] and [`BLOCK_TAIL`].
    pub bytes: &'a [u8],
}

/// The most bytes of a block of the form [`BlockForm::Base`].
const MAX_MAP: usize = (MAX_BLOCK / MIN_UNIT / 8) as usize;

/// Bytes in front of a block's bytes, with the code of the response.
pub const BLOCK_HEAD: usize = 6;

/// Bytes behind a block's bytes: the checksum.
pub const BLOCK_TAIL: usize = 4;

impl<'a> Block<'a> {
    /// Parses what follows the code.
    pub(crate) fn parse(mut reader: Reader<'a>) -> Result<Self, ProtocolError> {
        let wrong = || ProtocolError::new("Wrong Clone RPC response: Invalid block");
        let form = reader.u8().and_then(BlockForm::from_wire).ok_or_else(wrong)?;
        let len = reader.u32_le().filter(|len| *len <= MAX_BLOCK).ok_or_else(wrong)?;
        let rest = reader.rest();
        let (bytes, checksum) = match rest.split_last_chunk::<BLOCK_TAIL>() {
            Some((bytes, tail)) if form != BlockForm::File => (bytes, u32::from_le_bytes(*tail)),
            None if form == BlockForm::File => (rest, 0),
            _ => return Err(wrong()),
        };
        let is_whole = match form {
            BlockForm::Raw => u32::try_from(bytes.len()) == Ok(len),
            BlockForm::File => bytes.is_empty(),
            BlockForm::Base => !bytes.is_empty() && bytes.len() <= MAX_MAP,
            BlockForm::Lz4 | BlockForm::Zstd | BlockForm::Sparse => true,
        };
        if !is_whole {
            return Err(wrong());
        }
        Ok(Self { form, len, checksum, bytes })
    }

    /// The bytes in front of the block's bytes, the code of the response first.
    pub fn head(form: BlockForm, len: u32) -> [u8; BLOCK_HEAD] {
        let mut head = [0; BLOCK_HEAD];
        head[0] = ResponseCode::Block as u8;
        head[1] = form as u8;
        head[2..].copy_from_slice(&len.to_le_bytes());
        head
    }

    /// The bytes behind the block's bytes.
    pub fn tail(checksum: u32) -> [u8; BLOCK_TAIL] {
        checksum.to_le_bytes()
    }

    /// Completes a packet whose bytes are in place: writes head and tail around them. `len` is the
    /// block's length when unpacked, `checksum` gives the CRC-32C of bytes.
    ///
    /// # Panics
    /// The packet is shorter than [`BLOCK_HEAD`] and [`BLOCK_TAIL`] together.
    pub fn frame(packet: &mut [u8], form: BlockForm, len: u32, checksum: impl Fn(&[u8]) -> u32) {
        let end = packet.len() - BLOCK_TAIL;
        packet[..BLOCK_HEAD].copy_from_slice(&Self::head(form, len));
        let sum = checksum(&packet[BLOCK_HEAD..end]);
        packet[end..].copy_from_slice(&Self::tail(sum));
    }

    /// The range of a block's bytes in its packet of `packet_len` bytes, which has been parsed.
    pub fn range(packet_len: usize) -> std::ops::Range<usize> {
        BLOCK_HEAD..packet_len.saturating_sub(BLOCK_TAIL).max(BLOCK_HEAD)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::Response;

    #[test]
    fn offers_byte_by_byte() {
        for (packing, ninth, last) in [
            (Packing::None, 0, 0),
            (Packing::Lz4, 1, 0),
            (Packing::Zstd(1), 2, 0),
            (Packing::Zstd(22), 23, 0),
            (Packing::Auto, 0, 1),
        ] {
            for handover in [None, HandoverKey::new(*b"0123456789abcdef0123456789ABCDEF")] {
                let offer = Offer { packing, accepts: Forms::default(), handover, asks: false };
                let mut bytes = Vec::new();
                offer.encode(&mut bytes);
                let key = handover.map_or([0; 32], HandoverKey::bytes);
                let forms = [0b11_1111, 0, 0, 0];
                let all = [b"clone-rs".as_slice(), &[2, ninth], &forms, &key, &[last]].concat();
                assert_eq!(bytes, all);
                assert_eq!(Offer::parse(&bytes), Some(offer));
                let earlier = Offer::parse(&bytes[..46]).unwrap();
                let is_auto = packing == Packing::Auto;
                assert_eq!(earlier.packing, if is_auto { Packing::None } else { packing });
                assert_eq!(Offer::parse(&bytes[..45]), None);
                bytes.push(7);
                assert_eq!(Offer::parse(&bytes), Some(offer), "a later release says more");
            }
        }
        let high = [b"clone-rs\x02\xff".as_slice(), &[0; 36]].concat();
        assert_eq!(Offer::parse(&high).unwrap().packing, Packing::Zstd(22));
    }

    #[test]
    fn only_accepted_forms_are_in_an_offer() {
        let all = Forms::default();
        assert!(BlockForm::ALL.iter().all(|form| all.contains(*form)));
        assert_eq!(Forms::from_bits(u32::MAX), all, "forms of a later release are unknown");
        let some = Forms::from_bits(0b1_0001);
        assert!(some.contains(BlockForm::Raw) && some.contains(BlockForm::Sparse));
        assert!(!some.contains(BlockForm::Lz4));
        assert_eq!(all.without(BlockForm::Lz4).bits(), 0b11_1101);
        assert_eq!(some.without(BlockForm::Lz4), some);
    }

    #[test]
    fn a_packing_is_read_as_it_is_written() {
        let levels = (1..=MAX_LEVEL).map(Packing::Zstd);
        for packing in [Packing::Auto, Packing::None, Packing::Lz4].into_iter().chain(levels) {
            let text = packing.to_string();
            assert_eq!(text.parse(), Ok(packing));
            assert_eq!(text.to_lowercase().parse(), Ok(packing));
        }
        for wrong in ["", "ON", "ZSTD", "ZSTD0", "ZSTD23", "ZSTD-1", "ZSTD256", "LZ40", "1"] {
            assert_eq!(wrong.parse::<Packing>(), Err(PackingError), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_offer_is_none() {
        for bytes in
            [&b""[..], b"clone-rs", b"clone-rs\x02", b"clone-rs\x01\x00", b"CLONE-RS\x02\x00"]
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
        let mut framed = [&[0; BLOCK_HEAD][..], b"packed", &[0; BLOCK_TAIL]].concat();
        assert_eq!(Block::range(framed.len()), BLOCK_HEAD..BLOCK_HEAD + 6);
        Block::frame(&mut framed, BlockForm::Zstd, 1 << 20, |bytes| {
            assert_eq!(bytes, b"packed");
            0x1234_5678
        });
        assert_eq!(framed, packet);
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
            // Longer than a block may be.
            b"\x20\x02\x01\x00\x00\x01packed\x00\x00\x00\x00",
            b"\x20\x04\xff\xff\xff\xff\x00\x00\x00\x00",
            // A form that nobody knows, bytes or a checksum beside a file, and raw bytes that are
            // not as many as they say.
            b"\x20\x06\x03\x00\x00\x00abc\x00\x00\x00\x00",
            // A map without bits.
            b"\x20\x05\x00\x10\x00\x00\x00\x00\x00\x00",
            b"\x20\x03\x03\x00\x00\x00abc",
            b"\x20\x03\x03\x00\x00\x00\x00\x00\x00\x00",
            b"\x20\x00\x04\x00\x00\x00abc\x00\x00\x00\x00",
        ] {
            let error = Response::parse(packet).unwrap_err();
            assert_eq!(error.to_string(), "Wrong Clone RPC response: Invalid block", "{packet:?}");
        }
    }
}
