// SPDX-License-Identifier: GPL-2.0-only

//! The errors of a donor's answers, and of answers that do not come.

use std::time::Duration;

use crate::error::Error;

/// What the donor reported.
pub(super) fn donor_error(number: i32, message: &[u8]) -> Error {
    let mut message = String::from_utf8_lossy(message).into_owned();
    if message.contains(OTHER_SERVER) {
        message.push_str(OTHER_SERVER_HINT);
    }
    Error::Donor { number, message }
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
