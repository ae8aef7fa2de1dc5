// SPDX-License-Identifier: GPL-2.0-only

//! The errors of a donor's answers.

use crate::error::Error;

/// What the donor reported.
pub(super) fn donor_error(number: i32, message: &[u8]) -> Error {
    Error::Donor { number, message: String::from_utf8_lossy(message).into_owned() }
}

/// The donor sent a packet that the dialogue does not allow at this point.
pub(super) fn unexpected() -> Error {
    Error::Protocol("Wrong Clone RPC response".to_owned())
}

/// The donor's locators are missing, or do not name this server's engines.
pub(super) fn locators_expected() -> Error {
    Error::Protocol("Wrong Clone RPC response length for COM_RES_LOCS".to_owned())
}
