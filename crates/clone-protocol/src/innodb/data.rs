// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_Data`, 52 bytes.

use super::MAX_TASKS;
use super::SnapshotState;
use crate::ProtocolError;
use crate::wire::Reader;

/// The most bytes of a block that a recipient takes: 16 MiB.
///
/// A stock donor sends 64 pages of the server's size, in FILE_COPY and in REDO_COPY, so 4 MiB at
/// most. It sends longer blocks in a local clone only (`update_block_size`).
pub const MAX_BLOCK: u32 = 16 << 20;

const INVALID: &str = "Wrong Clone RPC: Invalid Data Descriptor";

/// A block of a file; its bytes are the DATA packet that follows.
///
/// `u32` state @12, `u32` task @16, `u32` chunk @20, `u32` block @24, `u32` file index @28, `u32`
/// data length @32, `u64` file offset @36, `u64` file size @44.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// The state the donor is in.
    pub state: SnapshotState,
    /// The donor's task, below [`MAX_TASKS`].
    pub task: u32,
    /// The chunk the block belongs to, from 1.
    pub chunk: u32,
    /// The block's number in its chunk, from 1.
    pub block: u32,
    /// The file's index among the data files, in REDO_COPY among the redo files.
    pub file_index: u32,
    /// Bytes in the DATA packet without its code.
    pub data_len: u32,
    /// Where in the file they go, in bytes.
    pub file_offset: u64,
    /// The file's size in bytes. Page 0 may tell a larger one than the file's metadata did.
    pub file_size: u64,
}

impl Data {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, ProtocolError> {
        let data = Self::fields(&mut body)
            .filter(|_| body.is_empty())
            .ok_or(ProtocolError::new(INVALID))?;
        if data.task >= MAX_TASKS {
            return Err(ProtocolError::detailed(INVALID, format_args!("task {}", data.task)));
        }
        Ok(data)
    }

    fn fields(body: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            state: SnapshotState::from_wire(body.u32_be()?)?,
            task: body.u32_be()?,
            chunk: body.u32_be()?,
            block: body.u32_be()?,
            file_index: body.u32_be()?,
            data_len: body.u32_be()?,
            file_offset: body.u64_be()?,
            file_size: body.u64_be()?,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for field in
            [self.state as u32, self.task, self.chunk, self.block, self.file_index, self.data_len]
        {
            out.extend_from_slice(&field.to_be_bytes());
        }
        for field in [self.file_offset, self.file_size] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
}
