// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_Task_Meta`, 24 bytes.

use super::MAX_TASKS;
use crate::ProtocolError;
use crate::wire::Reader;

const INVALID: &str = "Wrong Clone RPC: Invalid Task Descriptor";

/// The first descriptor of each EXECUTE: `u32` task @12, `u32` chunk @16, `u32` block @20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskMetadata {
    /// The donor's number for the task, below [`MAX_TASKS`]. 0 is the master.
    pub task: u32,
    /// The chunk it has begun; 0 for none, and none is what stock sends.
    pub chunk: u32,
    /// The block of that chunk it sent last.
    pub block: u32,
}

impl TaskMetadata {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, ProtocolError> {
        let task = Self::fields(&mut body)
            .filter(|_| body.is_empty())
            .ok_or(ProtocolError::new(INVALID))?;
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

    fn fields(body: &mut Reader<'_>) -> Option<Self> {
        Some(Self { task: body.u32_be()?, chunk: body.u32_be()?, block: body.u32_be()? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for field in [self.task, self.chunk, self.block] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
}
