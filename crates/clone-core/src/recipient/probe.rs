// SPDX-License-Identifier: GPL-2.0-only

//! Whether the donor is of this project, asked before the first connection of a clone.
//!
//! * `clone_enable_compression` means the classic protocol's compression with a stock donor, and
//!   packed blocks with a donor of this project. Both at once would be a waste, and the first is a
//!   property of a connection.
//! * A stock donor that is asked for an engine of its server calls the engine's clone functions
//!   without a look whether there are any: asked for MyRocks, Percona Server 8.0.27 crashes.
//!
//! So a connection of its own asks before: it says EXIT with an [`Offer`](clone_protocol::Offer)
//! behind it. A stock donor ignores the offer and answers COMPLETE. A donor of this project first
//! says that it understands.

use clone_protocol::{CommandCode, EXTENSION_CONFIG, EXTENSION_VALUE, Packing, Response, innodb};

use super::answer::{donor_error, unexpected};
use super::shared::Shared;
use crate::engine::ServerEngine;
use crate::error::{Error, Result};
use crate::link::{Link, LinkKind};
use crate::session::RecipientSession;

/// More packets than this are no answer to EXIT.
const MAX_ANSWERS: usize = 16;

/// Before the first connection: asks the donor, if there is something to ask.
///
/// # Errors
/// The network's, and the donor's. There are engines here that a stock donor cannot clone.
pub(super) fn meet_donor<S: RecipientSession>(session: &S, shared: &Shared<S>) -> Result<()> {
    if shared.compressed.get().is_some() {
        return Ok(());
    }
    let engines = session.engines();
    let others: Vec<_> = engines
        .iter()
        .filter(|engine| engine.db_type() != innodb::DB_TYPE)
        .map(ServerEngine::name)
        .collect();
    let wants_compression = shared.offer.packing != Packing::None;
    let is_stock =
        (wants_compression || !others.is_empty()) && !understands_offers(session, shared)?;
    if is_stock && !others.is_empty() {
        return Err(Error::NotSupported(
            format!("CLONE of {} from a donor without this clone plugin", others.join(", ")).into(),
        ));
    }
    let _ = shared.compressed.set(wants_compression && is_stock);
    Ok(())
}

fn understands_offers<S: RecipientSession>(session: &S, shared: &Shared<S>) -> Result<bool> {
    let mut link = session.connect(&shared.donor, LinkKind::Auxiliary, false)?;
    let answer = ask(session, shared, &mut link);
    // After an error the donor is in the middle of the dialogue, or gone: nobody to say goodbye to.
    link.disconnect(None, answer.is_err(), false);
    answer
}

fn ask<S: RecipientSession>(session: &S, shared: &Shared<S>, link: &mut S::Link) -> Result<bool> {
    let mut payload = Vec::new();
    shared.offer.encode(&mut payload);
    let mut understands = false;
    link.send(session, false, CommandCode::Exit, &payload)?;
    for _ in 0..MAX_ANSWERS {
        let packet = link.receive(session, false, 0)?;
        match Response::parse(packet.data)? {
            Response::ConfigV3 { name, value } => {
                understands |= name == EXTENSION_CONFIG && value == EXTENSION_VALUE;
            }
            Response::Complete => return Ok(understands),
            Response::Error { number, message } => return Err(donor_error(number, message)),
            _ => return Err(unexpected()),
        }
    }
    Err(unexpected())
}
