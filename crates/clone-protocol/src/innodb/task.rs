// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_Task_Meta`, 24 bytes.

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U32;

use super::DescriptorKind;
use super::HeaderLayout;
use super::MAX_TASKS;
use crate::ProtocolError;

const INVALID: &str = "Wrong Clone RPC: Invalid Task Descriptor";

/// The first descriptor of each EXECUTE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskMetadata {
    /// The donor's number for the task, below [`MAX_TASKS`]. 0 is the master.
    pub task: u32,
    /// The chunk it has begun; 0 for none, and none is what stock sends.
    pub chunk: u32,
    /// The block of that chunk it sent last.
    pub block: u32,
}

/// [`TaskMetadata`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    header: HeaderLayout,
    task: U32,
    chunk: U32,
    block: U32,
}

// The offsets of docs/protocol.md, section 14.
const _: () = {
    assert!(size_of::<Layout>() == 24);
    assert!(offset_of!(Layout, task) == 12);
    assert!(offset_of!(Layout, block) == 20);
};

impl TaskMetadata {
    pub(super) fn parse(whole: &[u8]) -> Result<Self, ProtocolError> {
        let layout = Layout::ref_from_bytes(whole).map_err(|_| ProtocolError::new(INVALID))?;
        let task =
            Self { task: layout.task.get(), chunk: layout.chunk.get(), block: layout.block.get() };
        if task.task >= MAX_TASKS {
            return Err(ProtocolError::detailed(INVALID, format_args!("task {}", task.task)));
        }
        if task.chunk == 0 && task.block != 0 {
            return Err(ProtocolError::detailed(
                INVALID,
                format_args!("block {} of no chunk", task.block),
            ));
        }
        Ok(task)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            header: HeaderLayout::new(DescriptorKind::TaskMetadata, size_of::<Layout>()),
            task: self.task.into(),
            chunk: self.chunk.into(),
            block: self.block.into(),
        };
        out.extend_from_slice(layout.as_bytes());
    }
}
