// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_State`, 46 bytes.

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U16;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

use super::DescriptorKind;
use super::HeaderLayout;
use super::MAX_TASKS;
use super::SnapshotState;
use crate::ProtocolError;

const START: u16 = 1;
const ACK: u16 = 2;

const INVALID: &str = "Wrong Clone RPC: Invalid State Descriptor";

/// A task starts or ends a snapshot state; with [`ack`](State::ack) something else (see there).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The state that starts or ends.
    pub state: SnapshotState,
    /// The donor's task, below [`MAX_TASKS`].
    pub task: u32,
    /// Chunks to copy in this state, numbered from 1.
    pub chunks: u32,
    /// Files in this state; in PAGE_COPY the number of pages.
    pub files: u32,
    /// Bytes to copy in this state as the donor's master estimates at the start; else 0.
    pub estimate: u64,
    /// Bytes on the recipient's disk, estimated likewise.
    pub estimate_disk: u64,
    /// The state starts, otherwise it ends.
    pub start: bool,
    /// From the recipient, with COM_ACK: all its tasks ended the state. From a donor it only keeps
    /// the connection alive, and the other fields may be in between two states.
    pub ack: bool,
}

/// [`State`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    header: HeaderLayout,
    state: U32,
    task: U32,
    chunks: U32,
    files: U32,
    estimate: U64,
    estimate_disk: U64,
    flags: U16,
}

// The offsets of docs/protocol.md, section 14.
const _: () = {
    assert!(size_of::<Layout>() == 46);
    assert!(offset_of!(Layout, state) == 12);
    assert!(offset_of!(Layout, estimate) == 28);
    assert!(offset_of!(Layout, flags) == 44);
};

impl State {
    pub(super) fn parse(whole: &[u8]) -> Result<Self, ProtocolError> {
        let state = Layout::ref_from_bytes(whole).ok().and_then(Self::fields);
        let state = state.ok_or(ProtocolError::new(INVALID))?;
        if state.task >= MAX_TASKS {
            return Err(ProtocolError::detailed(INVALID, format_args!("task {}", state.task)));
        }
        Ok(state)
    }

    /// Flags that no release has are ignored, as InnoDB does.
    fn fields(layout: &Layout) -> Option<Self> {
        Some(Self {
            state: SnapshotState::from_wire(layout.state.get())?,
            task: layout.task.get(),
            chunks: layout.chunks.get(),
            files: layout.files.get(),
            estimate: layout.estimate.get(),
            estimate_disk: layout.estimate_disk.get(),
            start: layout.flags.get() & START != 0,
            ack: layout.flags.get() & ACK != 0,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = if self.start { START } else { 0 };
        let ack = if self.ack { ACK } else { 0 };
        let layout = Layout {
            header: HeaderLayout::new(DescriptorKind::State, size_of::<Layout>()),
            state: (self.state as u32).into(),
            task: self.task.into(),
            chunks: self.chunks.into(),
            files: self.files.into(),
            estimate: self.estimate.into(),
            estimate_disk: self.estimate_disk.into(),
            flags: (start | ack).into(),
        };
        out.extend_from_slice(layout.as_bytes());
    }
}
