// SPDX-License-Identifier: GPL-2.0-only

//! A block of the redo log: 512 bytes (`include/log0types.h`).
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 4 | the block's number, from its LSN; before 8.0.30 the first bit marks the start of a write |
//! | 4 | 2 | bytes of the block that are used, this header included; the first bit: encrypted |
//! | 6 | 2 | where the first group of records begins, 0 if none begins here |
//! | 8 | 4 | the epoch, from the LSN; before 8.0.30 the number of a checkpoint |
//! | 508 | 4 | CRC-32C of the bytes before |

use super::super::tablespace::{u16_at, u32_at};
use super::{is_sealed, put, seal};

/// Bytes of a block (`OS_FILE_LOG_BLOCK_SIZE`).
pub(super) const BLOCK: usize = 512;

/// Bytes before the first record (`LOG_BLOCK_HDR_SIZE`).
pub(super) const HEADER: usize = 12;

/// Block numbers begin anew after this many (`LOG_BLOCK_MAX_NO`).
const NUMBERS: u64 = 1 << 30;

/// `LOG_BLOCK_FLUSH_BIT_MASK`, before 8.0.30.
const FLUSH_BIT: u32 = 1 << 31;

/// `LOG_BLOCK_ENCRYPT_BIT_MASK`.
const ENCRYPTED_BIT: u16 = 1 << 15;

const DATA_LEN: usize = 4;
const EPOCH: usize = 8;

/// What a valid block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockFacts {
    /// Bytes that are used, with the header; 512 in all blocks but the last.
    pub(super) data_len: u16,
    pub(super) is_encrypted: bool,
}

impl BlockFacts {
    /// None if the log has no block at this LSN: the bytes are older, or were not written whole.
    pub(super) fn of(block: &[u8], lsn: u64, has_epoch: bool) -> Option<Self> {
        if !is_sealed(block) || u32_at(block, 0)? & !FLUSH_BIT != number(lsn) {
            return None;
        }
        if has_epoch && u32_at(block, EPOCH)? != epoch(lsn) {
            return None;
        }
        let data_len = u16_at(block, DATA_LEN)?;
        let is_encrypted = data_len & ENCRYPTED_BIT != 0;
        let data_len = data_len & !ENCRYPTED_BIT;
        let is_possible = (HEADER..=BLOCK).contains(&usize::from(data_len));
        is_possible.then_some(Self { data_len, is_encrypted })
    }
}

/// A block without records.
pub(super) fn empty(lsn: u64, has_epoch: bool) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, &number(lsn).to_be_bytes());
    // Twelve.
    put(&mut block, DATA_LEN, &[0, HEADER as u8]);
    if has_epoch {
        put(&mut block, EPOCH, &epoch(lsn).to_be_bytes());
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
