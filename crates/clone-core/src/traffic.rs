// SPDX-License-Identifier: GPL-2.0-only

//! What all tasks of a clone have transferred, and how fast they may go on.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::session::{Host, Session};
use crate::throttle::Throttle;

/// Shared by the tasks of one clone.
pub(crate) struct Traffic {
    pub(crate) meter: Meter,
    data: Throttle,
    network: Throttle,
}

/// Longest sleep without a look at KILL.
const SLICE: Duration = Duration::from_millis(100);

impl Traffic {
    pub(crate) fn new() -> Self {
        Self { meter: Meter::new(), data: Throttle::new(), network: Throttle::new() }
    }

    /// Counts a block of `data` bytes that came as `network` bytes, and waits as long as the bandwidth limits say.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn account<S: Session>(&self, session: &S, data: u64, network: u64) -> Result<()> {
        const MIB: u64 = 1024 * 1024;
        let host = session.host();
        self.meter.add(data, network);
        let settings = host.settings();
        let data_rate = u64::from(settings.max_data_bandwidth) * MIB;
        let network_rate = u64::from(settings.max_network_bandwidth) * MIB;
        let now = host.now();
        let wait = self
            .data
            .reserve(now, data, data_rate)
            .max(self.network.reserve(now, network, network_rate));
        sleep_until(session, now + wait)
    }
}

/// Sleeps in slices, so that KILL ends it soon.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn sleep_until<S: Session>(session: &S, moment: Duration) -> Result<()> {
    let host = session.host();
    loop {
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        let left = moment.saturating_sub(host.now());
        if left.is_zero() {
            return Ok(());
        }
        host.sleep(left.min(SLICE));
    }
}
