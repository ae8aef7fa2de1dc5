// SPDX-License-Identifier: GPL-2.0-only

//! The `log` targets of a clone, and how its steps are logged.

use crate::error::Result;
use crate::session::Session;

/// The `log` target of the recipient and of a local clone: MySQL's code 13272.
pub const CLIENT: &str = "clone::client";

/// The `log` target of the donor: MySQL's code 13273.
pub const SERVER: &str = "clone::server";

/// Logs a step of a clone, with the error if the step failed. `target` is [`CLIENT`] or [`SERVER`].
pub(crate) fn log_step<S: Session, T>(session: &S, target: &str, step: &str, outcome: &Result<T>) {
    match outcome {
        Ok(_) => log::info!(target: target, "{step}"),
        Err(error) => {
            let raised = session.raised().map(|(_, text)| text);
            let text = raised.unwrap_or_else(|| error.to_string());
            log::info!(target: target, "{step}: error: {}: {text}", error.number());
        }
    }
}
