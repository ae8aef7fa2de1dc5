// SPDX-License-Identifier: GPL-2.0-only

//! What has passed through a proxy.

use std::collections::BTreeMap;

use clone_protocol::innodb::{Data, SnapshotState};
use clone_protocol::{ResponseCode, Version};

/// What a connection is to the recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The master's data connection.
    Master,
    /// The master's connection for acknowledgements.
    Auxiliary,
    /// A worker's data connection.
    Worker,
}

/// Counts of what has passed. Only connections without TLS and compression show more than that they
/// are.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Master's data connections in COM_CLONE.
    pub masters: u32,
    /// Auxiliary connections in COM_CLONE.
    pub auxiliaries: u32,
    /// Workers' connections in COM_CLONE.
    pub workers: u32,
    /// Connections with TLS.
    pub tls: u32,
    /// Connections with compression and without TLS.
    pub compressed: u32,
    /// Connections that the script cut.
    pub cuts: u32,
    /// Times that a recipient resumed a clone (REINIT).
    pub resumed: u32,
    /// What donors answered to INIT, by code, without LOCS and COMPLETE.
    pub parameters: BTreeMap<u8, u32>,
    /// What the last donor agreed to speak.
    pub version: Option<Version>,
    /// The state that the donor's master is in.
    pub state: Option<SnapshotState>,
    /// Bytes of data that workers' connections carried.
    pub worker_data: u64,
    /// Bytes of all kinds from the donor over TLS and compressed connections.
    pub opaque: u64,
    /// Bytes of data by state, with those of blocks that a cut left incomplete; of packed blocks
    /// those in them.
    sent: BTreeMap<SnapshotState, u64>,
    /// The same as they crossed the network: of packed blocks the bytes that they have there.
    crossed: BTreeMap<SnapshotState, u64>,
    /// The blocks that passed whole.
    blocks: BTreeMap<Block, Passed>,
}

/// Where a block of data belongs. In PAGE_COPY a block is a page, otherwise 64 of them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Block {
    /// The state it was sent in.
    pub state: SnapshotState,
    /// Index of its file, among data files or redo files.
    pub file: u32,
    /// Offset in the file, in bytes.
    pub offset: u64,
}

/// How a block passed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Passed {
    /// Its chunk, from 1.
    pub chunk: u32,
    /// Bytes in it.
    pub len: u32,
    /// Bytes that it had on the network.
    pub network_len: u64,
    /// How often it passed whole.
    pub times: u32,
}

impl Traffic {
    /// Bytes of data, with what was sent more than once.
    pub fn data(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Bytes of data of a state, with what was sent more than once.
    pub fn data_in(&self, state: SnapshotState) -> u64 {
        self.sent.get(&state).copied().unwrap_or_default()
    }

    /// Bytes of blocks on the network in a state, with what was sent more than once.
    pub fn network_in(&self, state: SnapshotState) -> u64 {
        self.crossed.get(&state).copied().unwrap_or_default()
    }

    /// Bytes of blocks that crossed the network in vain or more than once in a state.
    pub fn repeated_in(&self, state: SnapshotState) -> u64 {
        let blocks = self.blocks.iter().filter(|(block, _)| block.state == state);
        let once = blocks.map(|(_, passed)| passed.network_len).sum();
        // A part of a packed block is rounded down.
        self.network_in(state).saturating_sub(once)
    }

    /// [`network_in`](Self::network_in) and [`repeated_in`](Self::repeated_in), of all states.
    pub fn network_and_repeated(&self) -> (u64, u64) {
        let repeated = self.crossed.keys().map(|state| self.repeated_in(*state)).sum();
        (self.crossed.values().sum(), repeated)
    }

    /// The blocks that passed whole.
    pub fn blocks(&self) -> &BTreeMap<Block, Passed> {
        &self.blocks
    }

    /// How many of the donor's answers to INIT had this code.
    pub fn parameters_of(&self, code: ResponseCode) -> u32 {
        self.parameters.get(&(code as u8)).copied().unwrap_or_default()
    }

    pub(super) fn connected(&mut self, role: Role, by: i32) {
        let count = match role {
            Role::Master => &mut self.masters,
            Role::Auxiliary => &mut self.auxiliaries,
            Role::Worker => &mut self.workers,
        };
        *count = count.saturating_add_signed(by);
    }

    /// Some bytes of a block passed, which has `network_len` of them on the network; `last` are its
    /// last ones.
    pub(super) fn add_data(
        &mut self,
        role: Option<Role>,
        data: &Data,
        network_len: u64,
        bytes: u64,
        last: bool,
    ) {
        *self.sent.entry(data.state).or_default() += bytes;
        *self.crossed.entry(data.state).or_default() +=
            bytes * network_len / u64::from(data.data_len.max(1));
        if role == Some(Role::Worker) {
            self.worker_data += bytes;
        }
        if last {
            let block =
                Block { state: data.state, file: data.file_index, offset: data.file_offset };
            let passed = self.blocks.entry(block).or_default();
            passed.chunk = data.chunk;
            passed.len = data.data_len;
            passed.network_len = network_len;
            passed.times += 1;
        }
    }
}
