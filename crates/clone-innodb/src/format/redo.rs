// SPDX-License-Identifier: GPL-2.0-only

//! The redo log: blocks of 512 bytes, each of which ends with the CRC-32C of the bytes before
//! (`include/log0constants.h`, `include/log0types.h`).
//!
//! Since 8.0.30 the log is in `#innodb_redo/#ib_redoN`, before in `ib_logfile0`, `ib_logfile1` and
//! so on, which are used in a circle. Each file begins with a header of four blocks:
//!
//! | Block | Offset | Bytes | Field |
//! |---|---|---|---|
//! | 0 | 0 | 4 | `LOG_HEADER_FORMAT` |
//! | 0 | 4 | 4 | `LOG_HEADER_LOG_UUID`, since 8.0.30 |
//! | 0 | 8 | 8 | `LOG_HEADER_START_LSN` |
//! | 0 | 16 | 32 | `LOG_HEADER_CREATOR` |
//! | 0 | 48 | 4 | `LOG_HEADER_FLAGS` |
//! | 1, 3 | 8 | 8 | `LOG_CHECKPOINT_LSN` |
//! | 1, 3 | 16 | 8 | `LOG_CHECKPOINT_OFFSET`, before 8.0.30: bytes from the first file on |
//! | 2 | 48 | 111 | encryption information |
//!
//! All other blocks are of the log:
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 4 | the block's number, from its LSN; before 8.0.30 the first bit marks the start of a write |
//! | 4 | 2 | bytes of the block that are used, this header included; the first bit: encrypted |
//! | 6 | 2 | where the first group of records begins, 0 if none begins here |
//! | 8 | 4 | the epoch, from the LSN; before 8.0.30 the number of a checkpoint |
//!
//! Records follow each other behind these headers and before the checksums. One of them is
//! `MLOG_WRITE_STRING`: its type (30, or 158 if it is alone in its group), the tablespace and the
//! page in compressed form (1 to 5 bytes), and then:
//!
//! | Bytes | Field |
//! |---|---|
//! | 2 | the place in the page |
//! | 2 | bytes that are written |
//! | .. | these bytes |

use clone_io::checksum;

use super::bytes::{u16_at, u32_at, u64_at};

/// Bytes of a block (`OS_FILE_LOG_BLOCK_SIZE`).
pub const BLOCK: usize = 512;
/// Bytes of a block before its first record (`LOG_BLOCK_HDR_SIZE`).
pub const BLOCK_HEADER: usize = 12;
/// Bytes of a block before its checksum.
pub const BLOCK_END: usize = BLOCK - 4;

/// `Log_format::VERSION_8_0_3`. A server upgrades the log of an older one.
pub const FORMAT_8_0_3: u32 = 3;
/// `Log_format::VERSION_8_0_30`, the newest.
pub const FORMAT_8_0_30: u32 = 6;

/// LSN count from here (`LOG_START_LSN`).
pub(crate) const START_LSN: u64 = 16 * BLOCK as u64;
/// No log is longer (`LSN_MAX`).
pub(crate) const MAX_LSN: u64 = 1 << 63;

/// `MLOG_WRITE_STRING`.
const WRITE_STRING: u8 = 30;
/// `MLOG_SINGLE_REC_FLAG`: the record is alone in its group.
const SINGLE: u8 = 0x80;

/// Places in a header, in bytes.
pub(crate) mod at {
    pub(crate) const FORMAT: usize = 0;
    pub(crate) const UUID: usize = 4;
    pub(crate) const START_LSN: usize = 8;
    pub(crate) const CREATOR: usize = 16;
    /// Bit 3: the file is full, and the next one goes on.
    pub(crate) const FLAGS: usize = 48;
    /// Both checkpoints.
    pub(crate) const CHECKPOINTS: [usize; 2] = [512, 1536];
    /// In a checkpoint.
    pub(crate) const CHECKPOINT_LSN: usize = 8;
    /// In a checkpoint.
    pub(crate) const CHECKPOINT_OFFSET: usize = 16;
    /// The block with the encryption information (`LOG_ENCRYPTION`).
    pub(crate) const KEY_BLOCK: usize = 1024;
    /// `LOG_HEADER_ENCRYPTION_INFO_OFFSET`.
    pub(crate) const KEY: usize = KEY_BLOCK + 48;
}

/// Block numbers begin anew after this many (`LOG_BLOCK_MAX_NO`).
const NUMBERS: u64 = 1 << 30;
/// `LOG_BLOCK_FLUSH_BIT_MASK`, before 8.0.30.
const FLUSH_BIT: u32 = 1 << 31;
/// `LOG_BLOCK_ENCRYPT_BIT_MASK`.
const ENCRYPTED_BIT: u16 = 1 << 15;
/// Fields of a block.
const DATA_LEN: usize = 4;
const EPOCH: usize = 8;

/// What the header of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Whether the checksum of its first block is right.
    pub is_whole: bool,
    /// `LOG_HEADER_FORMAT`.
    pub format: u32,
    /// `LOG_HEADER_LOG_UUID`, since 8.0.30.
    pub uuid: u32,
    /// `LOG_HEADER_START_LSN`.
    pub start: u64,
    /// `LOG_HEADER_CREATOR`, padded with zeros.
    pub creator: [u8; 32],
    /// `LOG_HEADER_FLAGS`.
    pub flags: u32,
    /// The newer checkpoint of those that are whole.
    pub checkpoint: Option<Checkpoint>,
}

/// A checkpoint. The one with the greater LSN is the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// Recovery begins here.
    pub lsn: u64,
    /// `LOG_CHECKPOINT_OFFSET`, before 8.0.30.
    pub offset: u64,
}

impl FileHeader {
    /// Parses the first 2,048 bytes of a file. Bytes that are missing read as zeros.
    pub fn parse(header: &[u8]) -> Self {
        let checkpoint = |from: &usize| {
            let block = header.get(*from..*from + BLOCK).filter(|block| is_sealed(block))?;
            let lsn = u64_at(block, at::CHECKPOINT_LSN);
            let offset = u64_at(block, at::CHECKPOINT_OFFSET);
            (START_LSN..MAX_LSN).contains(&lsn).then_some(Checkpoint { lsn, offset })
        };
        let creator =
            header.get(at::CREATOR..at::CREATOR + 32).and_then(|text| text.try_into().ok());
        Self {
            creator: creator.unwrap_or_default(),
            is_whole: header.get(..BLOCK).is_some_and(is_sealed),
            format: u32_at(header, at::FORMAT),
            uuid: u32_at(header, at::UUID),
            start: u64_at(header, at::START_LSN),
            flags: u32_at(header, at::FLAGS),
            checkpoint: at::CHECKPOINTS.iter().filter_map(checkpoint).max(),
        }
    }

    /// Whether the log has as many files as are needed, each with its own range of LSN.
    pub fn has_many_files(&self) -> bool {
        has_many_files(self.format)
    }
}

/// Since 8.0.30 the log has as many files as are needed, each with its own range of LSN.
pub(crate) fn has_many_files(format: u32) -> bool {
    format >= FORMAT_8_0_30
}

/// What a block of the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBlock {
    /// Bytes that are used, with the header; 512 in all blocks but the last.
    pub data_len: u16,
    /// Whether its records are encrypted.
    pub is_encrypted: bool,
}

impl LogBlock {
    /// None if the log has no block at this LSN: the bytes are older, or were not written whole.
    /// `has_epoch`: the server is 8.0.30 or later.
    pub fn parse(block: &[u8], lsn: u64, has_epoch: bool) -> Option<Self> {
        let has_number = block.len() == BLOCK && u32_at(block, 0) & !FLUSH_BIT == number(lsn);
        if !has_number || (has_epoch && u32_at(block, EPOCH) != epoch(lsn)) {
            return None;
        }
        let data_len = u16_at(block, DATA_LEN);
        let is_encrypted = data_len & ENCRYPTED_BIT != 0;
        let data_len = data_len & !ENCRYPTED_BIT;
        // The checksum of an encrypted block is encrypted, too.
        let is_whole = (BLOCK_HEADER..=BLOCK).contains(&usize::from(data_len))
            && (is_encrypted || is_sealed(block));
        is_whole.then_some(Self { data_len, is_encrypted })
    }
}

/// Whether a block says that it is encrypted.
pub(crate) fn has_encrypted_bit(block: &[u8]) -> bool {
    u16_at(block, DATA_LEN) & ENCRYPTED_BIT != 0
}

/// Makes an encrypted block a plain one. Its records are decrypted by the caller.
pub(crate) fn clear_encrypted_bit(block: &mut [u8]) {
    if let Some(field) = block.get_mut(DATA_LEN..DATA_LEN + 2) {
        let data_len = u16_at(field, 0) & !ENCRYPTED_BIT;
        field.copy_from_slice(&data_len.to_be_bytes());
    }
}

/// Whether the `len` bytes behind `records` are those of a record `MLOG_WRITE_STRING` for page 0 of
/// a tablespace.
pub(crate) fn writes_to_page_0(records: &[u8], len: usize) -> bool {
    // Behind the page: the place in the page, and the number of bytes.
    let Some((before, fields)) = records.split_last_chunk::<4>() else { return false };
    let before = before.strip_suffix(&[0]).filter(|_| usize::from(u16_at(fields, 2)) == len);
    let Some(before) = before else { return false };
    (1..=5).any(|len| {
        let space = before.len().checked_sub(len).and_then(|at| Some((at, before.get(at)?)));
        space.is_some_and(|(at, first)| {
            let kind = at.checked_sub(1).and_then(|at| before.get(at));
            compressed_len(*first) == len && kind.is_some_and(|kind| kind & !SINGLE == WRITE_STRING)
        })
    })
}

/// Bytes of a number in compressed form that begins with this byte (`mach_read_compressed`).
fn compressed_len(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xC0 | 0xF8..0xFC => 2,
        0xC0..0xE0 | 0xFC..0xFE => 3,
        0xE0..0xF0 | 0xFE.. => 4,
        0xF0..0xF8 => 5,
    }
}

/// A block without records.
pub(crate) fn empty_block(lsn: u64, has_epoch: bool) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..4].copy_from_slice(&number(lsn).to_be_bytes());
    // Twelve.
    block[DATA_LEN + 1] = BLOCK_HEADER as u8;
    if has_epoch {
        block[EPOCH..EPOCH + 4].copy_from_slice(&epoch(lsn).to_be_bytes());
    }
    seal(&mut block);
    block
}

/// `log_block_convert_lsn_to_hdr_no`.
fn number(lsn: u64) -> u32 {
    u32::try_from(1 + lsn / BLOCK as u64 % NUMBERS).unwrap_or(u32::MAX)
}

/// `log_block_convert_lsn_to_epoch_no`.
fn epoch(lsn: u64) -> u32 {
    u32::try_from(1 + lsn / BLOCK as u64 / NUMBERS).unwrap_or(u32::MAX)
}

/// Puts the checksum at the end of a block, which has [`BLOCK`] bytes.
pub(crate) fn seal(block: &mut [u8]) {
    let sum = checksum(&block[..BLOCK_END]);
    block[BLOCK_END..BLOCK].copy_from_slice(&sum.to_be_bytes());
}

/// Whether the checksum at the end of a block is right.
pub(crate) fn is_sealed(block: &[u8]) -> bool {
    block.len() == BLOCK && checksum(&block[..BLOCK_END]).to_be_bytes() == block[BLOCK_END..]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_is_known_by_its_lsn() {
        // Block numbers begin anew here, and the next epoch.
        let lsn = (5 << 30) * BLOCK as u64;
        for has_epoch in [false, true] {
            let block = empty_block(lsn, has_epoch);
            let found = LogBlock::parse(&block, lsn, has_epoch).unwrap();
            assert_eq!(found, LogBlock { data_len: 12, is_encrypted: false });
            assert_eq!(LogBlock::parse(&block, lsn + 512, has_epoch), None);
            let other = lsn - (1 << 30) * BLOCK as u64;
            assert_eq!(LogBlock::parse(&block, other, has_epoch).is_some(), !has_epoch);
        }
    }

    #[test]
    fn an_encrypted_block_has_the_checksum_of_another() {
        let mut block = empty_block(START_LSN, true);
        block[BLOCK_HEADER] ^= 1;
        assert_eq!(LogBlock::parse(&block, START_LSN, true), None);
        block[DATA_LEN] |= 0x80;
        assert!(LogBlock::parse(&block, START_LSN, true).unwrap().is_encrypted);
        block[DATA_LEN] |= 0x40;
        assert_eq!(LogBlock::parse(&block, START_LSN, true), None, "the length is impossible");
    }

    #[test]
    fn a_record_is_known_by_what_stands_before_its_bytes() {
        for space in [
            &[7][..],
            &[0x92, 0x34],
            &[0xD2, 0x34, 0x56],
            &[0xE1, 0x23, 0x45, 0x67],
            &[0xF0, 0x12, 0x34, 0x56, 0x78],
            // The first undo tablespace.
            &[0xFB, 0xEF],
            &[0xFC, 0x12, 0x34],
            &[0xFE, 0x12, 0x34, 0x56],
        ] {
            for kind in [30, 158] {
                let record = [&[9, kind], space, &[0, 0x28, 0x96, 0, 111]].concat();
                assert!(writes_to_page_0(&record, 111), "{space:x?}");
                assert!(!writes_to_page_0(&record[2..], 111), "{space:x?}: no type");
                assert!(!writes_to_page_0(&record, 112), "{space:x?}: another length");
            }
            let record = [&[9, 31], space, &[0, 0x28, 0x96, 0, 111]].concat();
            assert!(!writes_to_page_0(&record, 111), "{space:x?}: another type");
            let record = [&[9, 30], space, &[1, 0x28, 0x96, 0, 111]].concat();
            assert!(!writes_to_page_0(&record, 111), "{space:x?}: page 1");
        }
        assert!(!writes_to_page_0(&[], 111));
    }

    #[test]
    fn the_newer_checkpoint_counts_if_it_is_whole() {
        let mut header = vec![0; 2048];
        let checkpoint = |lsn, offset| Some(Checkpoint { lsn, offset });
        for (from, lsn) in at::CHECKPOINTS.into_iter().zip([9000_u64, 9500]) {
            let block = &mut header[from..from + BLOCK];
            block[8..16].copy_from_slice(&lsn.to_be_bytes());
            block[16..24].copy_from_slice(&(lsn + 1).to_be_bytes());
            seal(block);
        }
        assert_eq!(FileHeader::parse(&header).checkpoint, checkpoint(9500, 9501));
        header[1536 + 100] ^= 1;
        assert_eq!(FileHeader::parse(&header).checkpoint, checkpoint(9000, 9001));
        header[512 + 100] ^= 1;
        assert_eq!(FileHeader::parse(&header).checkpoint, None);
        assert!(!FileHeader::parse(&header).is_whole);
        seal(&mut header[..BLOCK]);
        assert!(FileHeader::parse(&header).is_whole);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(
            mut bytes in prop::collection::vec(any::<u8>(), 0..3000), lsn: u64, seals: bool,
        ) {
            if seals {
                bytes.chunks_exact_mut(BLOCK).for_each(seal);
            }
            let _ = FileHeader::parse(&bytes);
            for block in bytes.chunks(BLOCK) {
                let _ = (LogBlock::parse(block, lsn, true), LogBlock::parse(block, lsn, false));
            }
        }
    }
}
