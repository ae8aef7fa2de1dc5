// SPDX-License-Identifier: GPL-2.0-only

//! What blocks took, and what that shows.

use std::time::Duration;

use clone_protocol::Packing;

/// The part of their time that tasks must wait for the network, so that the network is what limits
/// the clone.
const LIMITED: f64 = 0.1;

/// A window has this many blocks at least, and one for each task.
pub(super) const WINDOW_BLOCKS: f64 = 8.0;

/// A window lasts this long at least, in seconds.
const WINDOW_SECONDS: f64 = 0.05;

/// In seconds. A task that did nothing else for so long has waited for another task or for a
/// message. No task may have had anything to send for so long, for example while the connections
/// were lost. Then the window says nothing.
pub(super) const PAUSE: f64 = 0.5;

/// What one block took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// What [`Steering::choose`](super::Steering::choose) said.
    pub(crate) packing: Packing,
    /// Bytes of data.
    pub(crate) raw: u64,
    /// Bytes that were sent for them.
    pub(crate) sent: u64,
    /// Time to pack, by the clock.
    pub(crate) pack: Duration,
    /// Processor time to pack.
    pub(crate) pack_cpu: Duration,
    /// Time in which the network took nothing.
    pub(crate) blocked: Duration,
    /// All time since the end of the task's previous block, with the times above.
    pub(crate) elapsed: Duration,
}

/// Blocks that are evaluated together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    begin: f64,
    blocks: f64,
    pub(super) raw: f64,
    pub(super) sent: f64,
    /// Of all tasks, seconds.
    pack: f64,
    blocked: f64,
    pub(super) elapsed: f64,
}

impl Window {
    /// A window that begins now.
    pub(super) fn new(now: f64) -> Self {
        Self { begin: now, ..Self::default() }
    }

    /// Adds a block.
    pub(super) fn add(&mut self, one: &Measured) {
        self.blocks += 1.0;
        self.raw += one.raw as f64;
        self.sent += one.sent as f64;
        self.pack += one.pack.as_secs_f64();
        self.blocked += one.blocked.as_secs_f64();
        self.elapsed += one.elapsed.as_secs_f64();
    }

    /// Whether there are enough blocks of so many tasks.
    pub(super) fn is_full(&self, now: f64, tasks: f64) -> bool {
        now - self.begin >= WINDOW_SECONDS && self.blocks >= WINDOW_BLOCKS.max(tasks)
    }

    /// What the window shows that ends now, and the bytes that were sent in a second.
    pub(super) fn shown(&self, now: f64, tasks: f64) -> (Shown, f64) {
        let wall = now - self.begin;
        let shown = Shown {
            time: wall / self.raw,
            is_limited: self.blocked > LIMITED * self.elapsed,
            tasks,
            own: (self.elapsed - self.pack - self.blocked).max(0.0) / self.raw,
            blocked: self.blocked / self.raw,
            block: self.raw / self.blocks,
        };
        (shown, self.sent / wall)
    }
}

/// What the last window showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// Seconds for a byte of data, of all tasks together.
    pub(super) time: f64,
    /// The network is what limits the clone.
    pub(super) is_limited: bool,
    /// Tasks at work.
    pub(super) tasks: f64,
    /// Seconds for a byte that a task neither packs nor waits for the network.
    pub(super) own: f64,
    /// Seconds for a byte that a task waits for the network.
    pub(super) blocked: f64,
    /// Bytes of a block.
    pub(super) block: f64,
}
