// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_Data`, 52 bytes.

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

use super::DescriptorKind;
use super::HeaderLayout;
use super::MAX_TASKS;
use super::SnapshotState;
use crate::ProtocolError;

const INVALID: &str = "Wrong Clone RPC: Invalid Data Descriptor";

/// A block of a file; its bytes are the DATA packet that follows.
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

/// [`Data`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    header: HeaderLayout,
    state: U32,
    task: U32,
    chunk: U32,
    block: U32,
    file_index: U32,
    data_len: U32,
    file_offset: U64,
    file_size: U64,
}

// The offsets of docs/protocol.md, section 14.
const _: () = {
    assert!(size_of::<Layout>() == 52);
    assert!(offset_of!(Layout, state) == 12);
    assert!(offset_of!(Layout, data_len) == 32);
    assert!(offset_of!(Layout, file_size) == 44);
};

impl Data {
    pub(super) fn parse(whole: &[u8]) -> Result<Self, ProtocolError> {
        let data = Layout::ref_from_bytes(whole).ok().and_then(Self::fields);
        let data = data.ok_or(ProtocolError::new(INVALID))?;
        if data.task >= MAX_TASKS {
            return Err(ProtocolError::detailed(INVALID, format_args!("task {}", data.task)));
        }
        Ok(data)
    }

    fn fields(layout: &Layout) -> Option<Self> {
        Some(Self {
            state: SnapshotState::from_wire(layout.state.get())?,
            task: layout.task.get(),
            chunk: layout.chunk.get(),
            block: layout.block.get(),
            file_index: layout.file_index.get(),
            data_len: layout.data_len.get(),
            file_offset: layout.file_offset.get(),
            file_size: layout.file_size.get(),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            header: HeaderLayout::new(DescriptorKind::Data, size_of::<Layout>()),
            state: (self.state as u32).into(),
            task: self.task.into(),
            chunk: self.chunk.into(),
            block: self.block.into(),
            file_index: self.file_index.into(),
            data_len: self.data_len.into(),
            file_offset: self.file_offset.into(),
            file_size: self.file_size.into(),
        };
        out.extend_from_slice(layout.as_bytes());
    }
}
