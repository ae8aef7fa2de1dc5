// SPDX-License-Identifier: GPL-2.0-only

//! The errors of a donor's answers, and of answers that do not come.

use std::time::Duration;

use clone_protocol::Command;

use super::shared::Shared;
use crate::engine::ServerEngine;
use crate::error::{Error, number};
use crate::session::RecipientSession;

/// Why a donor is interrupted although nobody has killed this clone here. InnoDB's archivers end
/// for good if they cannot write a file.
const INTERRUPTED_DONOR: &str = "by KILL at the donor; or the donor's disk was full during a \
                                 clone: then the donor must be restarted before it can be cloned";

/// What the donor reported.
pub(super) fn donor_error(number: i32, message: &[u8]) -> Error {
    let mut message = String::from_utf8_lossy(message).into_owned();
    if message.contains(OTHER_SERVER) {
        message.push_str(OTHER_SERVER_HINT);
    }
    Error::Donor { number, message }
}

/// Adds to a donor's error what the donor does not say. If a stock donor cannot clone an
/// engine, it only says that INIT is wrong. If InnoDB at the donor cannot clone any more, it
/// only says that it was interrupted.
pub(super) fn explained<S: RecipientSession>(
    session: &S,
    shared: &Shared<S>,
    command: &Command<'_>,
    error: Error,
) -> Error {
    match error {
        Error::Donor { number: code, message }
            if matches!(command, Command::Execute)
                && u32::try_from(code) == Ok(number::ER_QUERY_INTERRUPTED)
                && !session.is_killed() =>
        {
            Error::Donor { number: code, message: format!("{message} ({INTERRUPTED_DONOR})") }
        }
        Error::Donor { number: code, message }
            if matches!(command, Command::Init(init) if init.locators.len() > 1)
                && u32::try_from(code) == Ok(number::ER_CLONE_PROTOCOL) =>
        {
            let clones = shared.clones();
            let others = clones.iter().filter(|one| !one.is_innodb());
            let names: Vec<_> = others.map(|one| one.engine.name()).collect();
            let names = names.join(", ");
            let message = format!(
                "{message} (to be cloned with {names}, the donor needs this clone plugin and the engine)"
            );
            Error::Donor { number: code, message }
        }
        other => other,
    }
}

/// What InnoDB says of an acknowledgement that has reached another server than the data's
/// (`clone0api.cc:innodb_clone_ack`).
const OTHER_SERVER: &str = "ACK refers non-existing clone";

const OTHER_SERVER_HINT: &str = " (the connections of the clone have reached different servers: \
                                 give the address of one donor, not of a load balancer)";

/// The donor sent a packet that the dialogue does not allow at this point.
pub(super) fn unexpected() -> Error {
    Error::Protocol("Wrong Clone RPC response".to_owned())
}

/// The donor's locators are missing, or do not name this server's engines.
pub(super) fn locators_expected() -> Error {
    Error::Protocol("Wrong Clone RPC response length for COM_RES_LOCS".to_owned())
}

/// The error of a clone whose donor has been silent for so long.
pub(super) fn silent(donor: &str, silence: Duration) -> Error {
    Error::Connect(format!(
        "Connect failed: 1159 : The donor {donor} has been silent for {} seconds \
         (clone_peer_timeout). Look whether its server is stopped or overloaded, at its host, and \
         at firewalls and proxies on the way",
        silence.as_secs()
    ))
}
