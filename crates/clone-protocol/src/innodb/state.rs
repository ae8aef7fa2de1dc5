// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_State`, 46 bytes.

use super::MAX_TASKS;
use super::SnapshotState;
use crate::ProtocolError;
use crate::wire::Reader;

const START: u16 = 1;
const ACK: u16 = 2;

const INVALID: &str = "Wrong Clone RPC: Invalid State Descriptor";

/// A task starts or ends a snapshot state; with [`ack`](State::ack) something else (see there).
///
/// `u32` state @12, `u32` task @16, `u32` chunks @20, `u32` files @24, `u64` estimate @28, `u64`
/// disk estimate @36, `u16` flags @44.
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

impl State {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, ProtocolError> {
        let state = Self::fields(&mut body)
            .filter(|_| body.is_empty())
            .ok_or(ProtocolError::new(INVALID))?;
        if state.task >= MAX_TASKS {
            return Err(ProtocolError::detailed(INVALID, format_args!("task {}", state.task)));
        }
        Ok(state)
    }

    /// Flags that no release has are ignored, as InnoDB does.
    fn fields(body: &mut Reader<'_>) -> Option<Self> {
        let state = SnapshotState::from_wire(body.u32_be()?)?;
        let (task, chunks, files) = (body.u32_be()?, body.u32_be()?, body.u32_be()?);
        let (estimate, estimate_disk) = (body.u64_be()?, body.u64_be()?);
        let flags = body.u16_be()?;
        Some(Self {
            state,
            task,
            chunks,
            files,
            estimate,
            estimate_disk,
            start: flags & START != 0,
            ack: flags & ACK != 0,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for field in [self.state as u32, self.task, self.chunks, self.files] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        for field in [self.estimate, self.estimate_disk] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        let start = if self.start { START } else { 0 };
        let ack = if self.ack { ACK } else { 0 };
        out.extend_from_slice(&(start | ack).to_be_bytes());
    }
}
