// SPDX-License-Identifier: GPL-2.0-only

//! The errors of a donor's answers.

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
