// SPDX-License-Identifier: GPL-2.0-only

//! Whether the donor is of this project, where that has to be known before the first connection is made.
//!
//! * `clone_enable_compression` means the classic protocol's with a stock donor, and packed blocks with a donor of this project,
//!   which cost a fraction of it. Both at once would be a waste, and the first is a property of a connection.
//! * A stock donor that is asked for an engine of its server calls the engine's clone functions without looking whether it has any:
//!   asked for MyRocks, Percona Server 8.0.27 crashes.
//!
//! So then a connection of its own asks before: it says EXIT with an [`Offer`] behind it. A stock donor ignores the offer and answers
//! COMPLETE, ours says first that it understands.

use clone_protocol::{CommandCode, EXTENSION_CONFIG, Offer, Packing, Response, innodb};

use super::answer::{donor_error, unexpected};
use super::task::Task;
use crate::engine::ServerEngine;
use crate::error::{Error, Result};
use crate::link::{Link, LinkKind};
use crate::session::RecipientSession;
use crate::settings::Settings;

/// What to offer with these settings.
pub(super) fn offer(settings: &Settings) -> Offer {
    let level = settings.enable_compression.then_some(settings.compression_level);
    Offer { packing: Packing::of_level(level), ..Offer::default() }
}

/// More packets than this are no answer to EXIT.
const MAX_ANSWERS: usize = 16;

impl<S: RecipientSession> Task<'_, S> {
    /// Before the first connection: asks the donor, if there is something to ask.
    ///
    /// # Errors
    /// The network's, and the donor's. There are engines here that a stock donor cannot clone.
    pub(super) fn meet_donor(&self) -> Result<()> {
        let shared = &self.shared;
        if !self.is_master() || shared.compressed.get().is_some() {
            return Ok(());
        }
        let engines = self.session.engines();
        let others: Vec<_> = engines
            .iter()
            .filter(|engine| engine.db_type() != innodb::DB_TYPE)
            .map(ServerEngine::name)
            .collect();
        let wants_compression = shared.offer.packing != Packing::None;
        let is_stock = (wants_compression || !others.is_empty()) && !self.understands_offers()?;
        if is_stock && !others.is_empty() {
            return Err(Error::NotSupported(
                format!("CLONE of {} from a donor without this clone plugin", others.join(", "))
                    .into(),
            ));
        }
        let _ = shared.compressed.set(wants_compression && is_stock);
        Ok(())
    }

    /// Whether connections are to be compressed as the classic protocol does.
    pub(super) fn is_compressed(&self) -> bool {
        self.shared.compressed.get().copied().unwrap_or(false)
    }

    fn understands_offers(&self) -> Result<bool> {
        let mut link = self.session.connect(&self.shared.donor, LinkKind::Auxiliary, false)?;
        let answer = self.ask(&mut link);
        // What broke the dialogue, or left the donor in the middle of it, leaves nobody to say goodbye to.
        link.disconnect(None, answer.is_err(), false);
        answer
    }

    fn ask(&self, link: &mut S::Link) -> Result<bool> {
        let session = self.session;
        let mut payload = Vec::new();
        self.shared.offer.encode(&mut payload);
        let mut understands = false;
        link.send(session, false, CommandCode::Exit, &payload)?;
        for _ in 0..MAX_ANSWERS {
            let packet = link.receive(session, false, 0)?;
            match Response::parse(packet.data)? {
                Response::ConfigV3 { name, .. } => understands |= name == EXTENSION_CONFIG,
                Response::Complete => return Ok(understands),
                Response::Error { number, message } => return Err(donor_error(number, message)),
                _ => return Err(unexpected()),
            }
        }
        Err(unexpected())
    }
}
