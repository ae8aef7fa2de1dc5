// SPDX-License-Identifier: GPL-2.0-only

//! `clone_delay_after_data_drop`.

use std::time::Duration;

use crate::error::Result;
use crate::log_target::CLIENT;
use crate::session::{Clock, Host, RecipientSession};
use crate::traffic::sleep_until;

/// Waits for `clone_delay_after_data_drop`, so that file systems that free space late can free it.
pub(super) fn wait_after_data_drop<S: RecipientSession>(session: &S) -> Result<()> {
    let host = session.host();
    let seconds = u64::from(host.settings().delay_after_data_drop);
    if seconds == 0 {
        return Ok(());
    }
    log::info!(target: CLIENT, "Begin Delay after data drop");
    let (minutes, rest) = (seconds / 60, seconds % 60);
    log::info!(target: CLIENT, "Wait time remaining is {minutes} minutes and {rest} seconds.");
    let end = host.now() + Duration::from_secs(seconds);
    let mut next_line = host.now() + Duration::from_secs(60);
    let mut outcome = Ok(());
    while outcome.is_ok() && host.now() < end {
        outcome = sleep_until(session, next_line.min(end));
        let left = end.saturating_sub(host.now());
        if outcome.is_ok() && !left.is_zero() {
            next_line += Duration::from_secs(60);
            let minutes = left.as_secs() / 60;
            log::info!(target: CLIENT, "Wait time remaining is {minutes} minutes.");
        }
    }
    log::info!(target: CLIENT, "End Delay after data drop");
    outcome
}
