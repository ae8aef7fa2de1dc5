// SPDX-License-Identifier: GPL-2.0-only

//! The packers of one connection, and which of them a block gets.

use clone_io::Packer;
use clone_protocol::{BlockForm, Forms, Offer, Packing};

use super::packing::{AtWork, ClonePacking, form};
use super::steering::{Sampled, Survey};
use super::stopwatch::Times;
use crate::error::{Error, Result};

/// The packers of a connection.
#[derive(Default)]
pub(super) struct Packers {
    /// What the recipient has asked for.
    wanted: Packing,
    accepts: Forms,
    /// Leaves out zeros.
    sparse: Option<Packer>,
    /// LZ4 and Zstandard.
    packer: Option<Packer>,
    /// What `packer` packs with now.
    at: Packing,
}

/// How one block is packed.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) packing: Packing,
    /// Whether the packer should skip the block, because recent ones did not shrink, or because
    /// there is no packer for the block.
    pub(super) should_skip: bool,
    /// If present, the block is packed in each way of this survey first.
    pub(super) survey: Option<Survey>,
}

fn failed(error: &std::io::Error) -> Error {
    Error::Internal(format!("Clone compression: {error}"))
}

impl Packers {
    /// The packers for what the recipient offers; none without an offer.
    ///
    /// # Errors
    /// No memory for a compressor.
    pub(super) fn new(offer: Option<Offer>) -> Result<Self> {
        let Some(Offer { packing: wanted, accepts, .. }) = offer else {
            return Ok(Self::default());
        };
        let packer = |packing| Packer::new(packing).map_err(|error| failed(&error));
        let is_plain = matches!(wanted, Packing::None | Packing::Auto);
        let sparse = match is_plain && accepts.contains(BlockForm::Sparse) {
            true => Some(packer(Packing::None)?),
            false => None,
        };
        let is_accepted = match wanted {
            Packing::None => false,
            Packing::Auto => true,
            fixed => accepts.contains(form(fixed)),
        };
        let packer = if is_accepted { Some(packer(wanted)?) } else { None };
        Ok(Self { wanted, accepts, sparse, packer, at: wanted })
    }

    /// Whether any block can be packed.
    pub(super) fn is_some(&self) -> bool {
        self.sparse.is_some() || self.packer.is_some()
    }

    /// Begins to send, until the result is dropped.
    pub(super) fn begin<'a>(&self, packing: &'a ClonePacking) -> AtWork<'a> {
        packing.begin(self.wanted, self.accepts)
    }

    /// How to pack the next block. Without `may_pack` only zeros are left out.
    ///
    /// # Errors
    /// No memory for a compressor.
    pub(super) fn choose(&mut self, packing: &ClonePacking, may_pack: bool) -> Result<Choice> {
        let (packing, survey) = if may_pack { packing.choose() } else { (Packing::None, None) };
        self.switch(packing)?;
        let skips = self.packer(packing).is_none_or(|packer| packer.should_skip());
        Ok(Choice { packing, should_skip: skips && survey.is_none(), survey })
    }

    /// What `packing` makes of the block, for a survey.
    ///
    /// # Errors
    /// No memory for a compressor.
    pub(super) fn sample(
        &mut self,
        packing: Packing,
        block: &[u8],
        times: impl Fn() -> Times,
    ) -> Result<Sampled> {
        self.switch(packing)?;
        let (raw, begin) = (block.len() as u64, times());
        let packed = self.packer(packing).and_then(|packer| {
            packer.retry();
            packer.pack(block, 0, 0).map(|packed| packed.len() as u64)
        });
        let took = times().since(begin);
        let is_packed = packing != Packing::None;
        let took = if is_packed { took } else { Times::default() };
        let packed = packed.unwrap_or(raw);
        Ok(Sampled { raw, packed, pack: took.clock, pack_cpu: took.thread })
    }

    /// Makes [`packer`](Self::packer) one for this packing.
    ///
    /// # Errors
    /// No memory for a compressor.
    pub(super) fn switch(&mut self, packing: Packing) -> Result<()> {
        if packing != Packing::None
            && self.at != packing
            && let Some(packer) = &mut self.packer
        {
            packer.switch(packing).map_err(|error| failed(&error))?;
            self.at = packing;
        }
        Ok(())
    }

    /// The packer for this packing.
    pub(super) fn packer(&mut self, packing: Packing) -> Option<&mut Packer> {
        match packing {
            Packing::None | Packing::Auto => self.sparse.as_mut(),
            Packing::Lz4 | Packing::Zstd(_) => self.packer.as_mut(),
        }
    }

    /// Counts a block that is sent without an attempt to pack it, so that the packer tries a later
    /// block.
    pub(super) fn skip(&mut self, packing: Packing) {
        if let Some(packer) = self.packer(packing) {
            packer.skip();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn offer(packing: Packing, accepts: Forms) -> Option<Offer> {
        Some(Offer { packing, accepts, ..Offer::default() })
    }

    fn choice(offer: Option<Offer>, may_pack: bool) -> (bool, (Packing, bool)) {
        choice_in(&ClonePacking::default(), offer, may_pack)
    }

    /// The choice of a task that joins the clone.
    fn choice_in(
        clone: &ClonePacking,
        offer: Option<Offer>,
        may_pack: bool,
    ) -> (bool, (Packing, bool)) {
        let mut packers = Packers::new(offer).unwrap();
        let _task = packers.begin(clone);
        let choice = packers.choose(clone, may_pack).unwrap();
        (packers.is_some(), (choice.packing, choice.should_skip))
    }

    #[test]
    fn a_block_gets_the_packer_that_the_recipient_wants() {
        let all = Forms::default();
        let chosen = |packing, should_skip| (packing, should_skip);
        let (none, zstd) = (Packing::None, Packing::Zstd(3));
        for (offer, may_pack, expected) in [
            (None, true, (false, chosen(none, true))),
            (offer(none, all), true, (true, chosen(none, false))),
            (offer(none, Forms::from_bits(0b1111)), true, (false, chosen(none, true))),
            (offer(zstd, all), true, (true, chosen(zstd, false))),
            // The processors are for others now.
            (offer(zstd, all), false, (true, chosen(none, true))),
            (offer(zstd, Forms::from_bits(0b1_0011)), true, (false, chosen(zstd, true))),
            (offer(Packing::Auto, all), true, (true, chosen(none, false))),
            (offer(Packing::Auto, all), false, (true, chosen(none, false))),
        ] {
            assert_eq!(choice(offer, may_pack), expected, "{offer:?} {may_pack}");
        }
    }

    #[test]
    fn a_resumed_clone_packs_as_the_new_process_wants() {
        let clone = ClonePacking::default();
        let chosen = |packing| choice_in(&clone, offer(packing, Forms::default()), true).1;
        let (none, zstd) = (Packing::None, Packing::Zstd(19));
        assert_eq!(chosen(Packing::Auto), (none, false), "zeros are left out");
        assert_eq!(chosen(zstd), (zstd, false));
        assert_eq!(chosen(Packing::Auto), (none, false));
    }
}
