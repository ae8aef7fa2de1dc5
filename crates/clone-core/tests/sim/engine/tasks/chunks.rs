// SPDX-License-Identifier: GPL-2.0-only

//! Which chunks of a state are begun, and how a restart locator tells (`include/clone0desc.h:Chunk_Info`).

use std::collections::BTreeMap;

use clone_protocol::innodb::{IncompleteChunk, Progress};

/// Where a task is: the last block that it sent or applied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Task {
    pub(super) chunk: u32,
    pub(super) block: u32,
}

#[derive(Default)]
pub(super) struct Chunks {
    /// Whether each chunk, from 1, was begun.
    pub(super) reserved: Vec<bool>,
    /// Those that broke off, and the last block of each that arrived.
    pub(super) incomplete: BTreeMap<u32, u32>,
}

impl Chunks {
    pub(super) fn new(total: u32) -> Self {
        Self { reserved: vec![false; total as usize], incomplete: BTreeMap::new() }
    }

    pub(super) fn first_free(&self) -> Option<u32> {
        let at = self.reserved.iter().position(|reserved| !reserved)?;
        Some(u32::try_from(at).unwrap() + 1)
    }

    pub(super) fn reserve(&mut self, chunk: u32) -> Option<(u32, u32)> {
        self.reserved[chunk as usize - 1] = true;
        Some((chunk, 0))
    }

    /// A task ends in the middle of a chunk.
    pub(super) fn break_off(&mut self, at: Task) {
        if at.chunk != 0 {
            self.incomplete.insert(at.chunk, at.block);
        }
    }

    /// The form of it in a restart locator. InnoDB sends more words than there are chunks.
    pub(super) fn progress(&self) -> Progress {
        let mut reserved = vec![0; self.reserved.len() / 8 + 1];
        for (at, _) in self.reserved.iter().enumerate().filter(|(_, reserved)| **reserved) {
            reserved[at / 32] |= 1 << (at % 32);
        }
        let incomplete = self
            .incomplete
            .iter()
            .map(|(chunk, block)| IncompleteChunk { chunk: *chunk, block: *block })
            .collect();
        Progress { incomplete, reserved }
    }
}
