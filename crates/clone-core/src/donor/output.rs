// SPDX-License-Identifier: GPL-2.0-only

//! What a donor's connection has for sending, and what the donor agreed with the recipient.

use clone_protocol::{BlockForm, Offer};

use super::framer::Framer;
use super::handover::Handover;
use super::packers::Packers;
use super::packing::{AtWork, ClonePacking};
use super::stopwatch::Stopwatch;
use super::way::Terms;
use crate::error::Result;
use crate::file_channel::FileGiver;

/// What a connection sends from, and what the donor agreed with the recipient.
#[derive(Default)]
pub(super) struct Output {
    pub(super) framer: Framer,
    pub(super) packers: Packers,
    pub(super) stopwatch: Stopwatch,
    /// Present if files are handed over.
    pub(super) handover: Option<Handover>,
    pub(super) terms: Terms,
}

impl Output {
    /// Agrees to what the recipient offers.
    ///
    /// `giver` is the connection to the socket where the recipient takes open files, if there is
    /// one. `packs` says whether this donor may pack blocks, `has_base` whether the recipient has
    /// sent digests. `is_plain` says that the connection has neither TLS nor the classic protocol's
    /// compression.
    ///
    /// # Errors
    /// No memory for a compressor.
    pub(super) fn agree(
        &mut self,
        offer: Option<Offer>,
        giver: Option<Box<dyn FileGiver>>,
        packs: bool,
        has_base: bool,
        is_plain: bool,
    ) -> Result<()> {
        let accepts = |form| offer.is_some_and(|offer| offer.accepts.contains(form));
        self.packers = Packers::new(offer.filter(|_| packs))?;
        self.handover = giver.filter(|_| accepts(BlockForm::File)).map(Handover::new);
        self.terms = Terms {
            shares: self.handover.is_some(),
            packs: self.packers.is_some(),
            takes_raw: accepts(BlockForm::Raw),
            compares: has_base && accepts(BlockForm::Base),
            is_plain,
        };
        Ok(())
    }

    /// Begins to send as a task of a clone that packs in this way.
    pub(super) fn begin<'a>(&mut self, packing: &'a ClonePacking) -> AtWork<'a> {
        self.stopwatch = Stopwatch::default();
        self.packers.begin(packing)
    }

    /// No more files are handed over.
    pub(super) fn stop_sharing(&mut self) {
        self.handover = None;
        self.terms.shares = false;
    }
}
