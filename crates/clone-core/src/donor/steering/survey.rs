// SPDX-License-Identifier: GPL-2.0-only

//! The same blocks, packed in several ways.

use std::time::Duration;

use clone_protocol::Packing;

use super::rung::{Figures, is_same_data};

/// A survey ends after so many blocks, also if none of them was like the recent ones.
const MAX_BLOCKS: u32 = 8;

/// What a packing makes of one block of a survey.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampled {
    /// Bytes of data.
    pub(crate) raw: u64,
    /// Bytes that would be sent for them.
    pub(crate) packed: u64,
    /// Time to pack, by the clock.
    pub(crate) pack: Duration,
    /// Processor time to pack.
    pub(crate) pack_cpu: Duration,
}

/// What the blocks of a survey took with one packing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    pub(super) rung: usize,
    packing: Packing,
    pub(super) raw: f64,
    packed: f64,
    pack: f64,
    pack_cpu: f64,
}

impl Sum {
    fn new(rung: usize, packing: Packing) -> Self {
        Self { rung, packing, raw: 0.0, packed: 0.0, pack: 0.0, pack_cpu: 0.0 }
    }

    fn figures(&self) -> Figures {
        let Self { raw, packed, pack, pack_cpu, .. } = *self;
        Figures { ratio: packed / raw, pace: pack / raw, cpu: pack_cpu / raw }
    }
}

/// The same blocks, packed in several ways. The task that sends the next block has the survey
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Of the packing in use.
    pub(super) reference: Sum,
    others: Vec<Sum>,
    pub(super) blocks: u32,
    /// Seconds that the last block took.
    pub(super) cost: f64,
}

impl Survey {
    /// A survey of the packing in use, and of others, all with their rungs.
    pub(super) fn new(
        reference: (usize, Packing),
        others: impl Iterator<Item = (usize, Packing)>,
    ) -> Self {
        let sum = |(rung, packing)| Sum::new(rung, packing);
        Self { reference: sum(reference), others: others.map(sum).collect(), blocks: 0, cost: 0.0 }
    }

    /// Whether the blocks were like those for which the packing in use has this ratio. A block that
    /// hardly holds anything says nothing of those that do. The survey ends after some blocks in
    /// any case.
    pub(super) fn is_enough(&self, ratio: f64) -> bool {
        self.blocks >= MAX_BLOCKS || is_same_data(self.reference.figures().ratio, ratio)
    }

    /// What the others take, with their rungs and bytes, as if the blocks held as much as those for
    /// which the packing in use has this ratio.
    pub(super) fn outcome(&self, ratio: f64) -> impl Iterator<Item = (usize, f64, Figures)> {
        let scale = ratio / self.reference.figures().ratio;
        self.others.iter().map(move |sum| (sum.rung, sum.raw, sum.figures().scaled(scale)))
    }

    /// Has the next block packed in each way, by `pack`.
    ///
    /// # Errors
    /// That of `pack`.
    pub(crate) fn sample<E>(
        &mut self,
        mut pack: impl FnMut(Packing) -> Result<Sampled, E>,
    ) -> Result<(), E> {
        self.cost = 0.0;
        self.blocks += 1;
        for sum in std::iter::once(&mut self.reference).chain(&mut self.others) {
            let one = pack(sum.packing)?;
            sum.raw += one.raw as f64;
            sum.packed += one.packed as f64;
            sum.pack += one.pack.as_secs_f64();
            sum.pack_cpu += one.pack_cpu.as_secs_f64();
            self.cost += one.pack.as_secs_f64();
        }
        Ok(())
    }
}
