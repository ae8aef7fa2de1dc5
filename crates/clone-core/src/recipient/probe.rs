// SPDX-License-Identifier: GPL-2.0-only

//! Asks the donor, before the clone's first connection, whether it has the plugin of this project.
//! Two cases need the answer:
//!
//! * `clone_enable_compression` means the classic protocol's compression with a stock donor, and
//!   packed blocks with a donor of this project. Both at once would be a waste. The classic
//!   protocol's compression must be chosen when a connection is opened.
//! * A stock donor that is asked for an engine of its server calls the engine's clone functions
//!   without a check that they exist. Asked for MyRocks, Percona Server 8.0.27 crashes.
//!
//! The question has a connection of its own: EXIT with an [`Offer`](clone_protocol::Offer) behind
//! it. A stock donor ignores the offer and answers COMPLETE. A donor of this project sends the
//! CONFIG_V3 [`EXTENSION_CONFIG`] first.

use clone_protocol::{CommandCode, EXTENSION_CONFIG, EXTENSION_VALUE, Packing, Response, innodb};

use super::answer::{donor_error, unexpected};
use super::shared::Shared;
use crate::engine::ServerEngine;
use crate::error::{Error, Result};
use crate::link::{Link, LinkKind};
use crate::session::RecipientSession;

/// The most packets in an answer to EXIT.
const MAX_ANSWERS: usize = 16;

/// Asks the donor, if this clone needs the answer. Called before the first connection.
///
/// # Errors
/// The network's and the donor's. This server has engines that a stock donor cannot clone.
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
    // After an error the donor is gone or out of step, so the connection is closed at once.
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
