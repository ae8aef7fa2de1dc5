// SPDX-License-Identifier: GPL-2.0-only

//! Asks the donor before the clone's first connection. Three cases need an answer:
//!
//! * `clone_enable_compression` means the classic protocol's compression with a stock donor. A
//!   donor of this project packs blocks instead (`clone_compression`). The classic protocol's
//!   compression must be chosen when a connection is opened.
//! * A stock donor that is asked for an engine of its server calls the engine's clone functions
//!   without a check that they exist. Asked for MyRocks, Percona Server 8.0.27 crashes.
//! * A clone over the server's own data checks [facts](crate::facts) of the donor first.
//!
//! The question has a connection of its own: EXIT with an [`Offer`] behind it. A stock donor
//! ignores the offer and answers COMPLETE. A donor of this project sends the CONFIG_V3
//! [`EXTENSION_CONFIG`] first, and a CONFIG_V3 for each fact. After COMPLETE the connection takes
//! SQL statements. With them a stock donor is asked for the facts.

use std::time::Duration;

use clone_protocol::{CommandCode, EXTENSION_CONFIG, EXTENSION_VALUE, Offer, Response, innodb};

use super::answer::{donor_error, silent, unexpected};
use super::shared::Shared;
use crate::engine::ServerEngine;
use crate::error::{Error, Result, is_of_client};
use crate::facts::{Facts, LIMIT_TIME, PRIVILEGES, Question};
use crate::link::{Link, LinkKind, Patience};
use crate::log_target::CLIENT;
use crate::session::{Host, RecipientSession, log_step};

/// The most packets in an answer to EXIT.
const MAX_ANSWERS: usize = 32;

/// What the donor has answered.
struct Answer {
    understands_offers: bool,
    facts: Facts,
}

/// What came of the question.
enum Outcome {
    Answered(Answer),
    Failed(Error),
    /// The donor took the connection, and then was silent for so long.
    Silent(Duration),
}

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
    let wants_compression = session.host().settings().enable_compression;
    let asks = shared.target.own_directory().is_none() || session.is_dry_run();
    let mut is_stock = false;
    if wants_compression || !others.is_empty() || asks {
        let answer = match meet(session, shared, asks) {
            Outcome::Answered(answer) => answer,
            Outcome::Failed(error) => return Err(error),
            Outcome::Silent(silence) => {
                return Err(silent(&session.name_of(&shared.donor), silence));
            }
        };
        is_stock = !answer.understands_offers;
        let _ = shared.facts.set(answer.facts);
    }
    if is_stock && !others.is_empty() {
        return Err(Error::NotSupported(
            format!("CLONE of {} from a donor without this clone plugin", others.join(", ")).into(),
        ));
    }
    let _ = shared.compressed.set(wants_compression && is_stock);
    Ok(())
}

/// Whether the donor answers a new connection, be it with an error.
pub(super) fn answers<S: RecipientSession>(session: &S, shared: &Shared<S>) -> bool {
    match meet(session, shared, false) {
        Outcome::Answered(_) | Outcome::Failed(Error::Donor { .. } | Error::Protocol(_)) => true,
        // A donor that refuses a connection, for example with 1040 ("Too many connections"), lives.
        Outcome::Failed(error) => {
            error.connect_number().is_some_and(|number| !is_of_client(number))
        }
        Outcome::Silent(_) => false,
    }
}

fn meet<S: RecipientSession>(session: &S, shared: &Shared<S>, asks: bool) -> Outcome {
    let mut link = match session.connect(&shared.donor, LinkKind::Auxiliary, false) {
        Ok(link) => link,
        Err(error) => {
            log_step::<S, ()>(session, CLIENT, "Task Connect", &Err(error.clone()));
            return Outcome::Failed(error);
        }
    };
    let offer = Offer { asks, ..shared.offer };
    let mut answer = ask(session, &mut link, offer);
    let mut is_lost = answer.is_err();
    if let Ok(answer) = &mut answer
        && asks
        && answer.facts.get(Question::ServerUuid).is_none()
    {
        is_lost = !ask_by_sql(session, &mut link, &mut answer.facts);
    }
    let silence = link.silence().filter(|_| answer.is_err());
    // After an error the donor is gone or out of step, so the connection is closed at once. How
    // long a donor was silent says more than the network's error, which is cleared.
    link.disconnect(silence.map(|_| session), is_lost, silence.is_some());
    match (answer, silence) {
        _ if session.is_killed() => Outcome::Failed(Error::Interrupted),
        (_, Some(silence)) => Outcome::Silent(silence),
        (Ok(answer), None) => Outcome::Answered(answer),
        (Err(error), None) => Outcome::Failed(error),
    }
}

fn ask<S: RecipientSession>(session: &S, link: &mut S::Link, offer: Offer) -> Result<Answer> {
    let mut payload = Vec::new();
    offer.encode(&mut payload);
    let facts = if offer.asks { Facts::asked(link.has_tls()) } else { Facts::default() };
    let mut answer = Answer { understands_offers: false, facts };
    let limit = session.host().settings().patience();
    // A donor that is asked for facts runs statements before it answers.
    let allows_as_server = limit.is_none() || offer.asks;
    let patience = Patience { limit: limit.unwrap_or_default(), allows_as_server, lives: None };
    link.send(session, false, CommandCode::Exit, &payload)?;
    for _ in 0..MAX_ANSWERS {
        let packet = link.receive(session, false, &patience)?;
        match Response::parse(packet.data)? {
            Response::ConfigV3 { name, value } => {
                answer.understands_offers |= name == EXTENSION_CONFIG && value == EXTENSION_VALUE;
                if offer.asks {
                    answer.facts.take(name, value);
                }
            }
            Response::Complete => return Ok(answer),
            Response::Error { number, message } => return Err(donor_error(number, message)),
            _ => return Err(unexpected()),
        }
    }
    Err(unexpected())
}

/// Asks a donor that does not answer questions, as far as the account may read the answer. Returns
/// false if the connection is of no more use.
fn ask_by_sql<S: RecipientSession>(session: &S, link: &mut S::Link, facts: &mut Facts) -> bool {
    let mut run = |statement: &str| match link.query(session, statement) {
        Ok(rows) => Ok(Some(rows)),
        // The account may not read this, or the statement took too long (3024).
        Err(Error::Donor { number, .. }) if !u32::try_from(number).is_ok_and(is_of_client) => {
            Ok(None)
        }
        Err(error) => Err(error),
    };
    let outcome = (|| {
        run(LIMIT_TIME)?;
        let rows = run(PRIVILEGES)?.unwrap_or_default();
        let privileges: Vec<_> = rows.into_iter().flatten().flatten().collect();
        for question in Question::ALL {
            let has = |needed: &str| privileges.iter().any(|privilege| privilege == needed);
            if question.privilege().is_none_or(has)
                && let Some(rows) = run(question.statement())?
            {
                facts.note(question, rows);
            }
        }
        Ok(())
    })();
    if let Err::<(), Error>(error) = &outcome {
        log::info!(target: CLIENT, "The donor cannot be asked by SQL: {error}");
    }
    outcome.is_ok()
}
