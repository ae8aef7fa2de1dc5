// SPDX-License-Identifier: GPL-2.0-only

//! What all tasks of a clone have transferred, and how long they wait for the bandwidth limits.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::session::{Clock, Host, Session};
use crate::throttle::{MAX_WAIT, Throttle};

/// Shared by the tasks of one clone.
pub(crate) struct Traffic {
    pub(crate) meter: Meter,
    data: Throttle,
    network: Throttle,
}

/// The longest sleep before KILL is checked again.
const SLICE: Duration = Duration::from_millis(100);

impl Traffic {
    pub(crate) fn new() -> Self {
        Self { meter: Meter::new(), data: Throttle::new(), network: Throttle::new() }
    }

    /// Counts a block of `data` bytes that came as `network` bytes, and sleeps as long as the
    /// bandwidth limits demand.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn pace<S: Session>(&self, session: &S, data: u64, network: u64) -> Result<()> {
        let host = session.host();
        self.meter.add(data, network);
        let mut due = self.reserve(session, data, network);
        let mut is_cut = due == MAX_WAIT;
        while !due.is_zero() {
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            let before = host.now();
            host.sleep(due.min(SLICE));
            let left = due.saturating_sub(host.now().saturating_sub(before));
            // With 0 bytes, `reserve` returns the wait for all that is booked. So a limit that was
            // raised or removed takes effect at once, and a wait that was cut to MAX_WAIT goes on.
            let booked = self.reserve(session, 0, 0);
            due = left.min(booked);
            if due.is_zero() && is_cut {
                due = booked;
                is_cut = booked == MAX_WAIT;
            }
        }
        Ok(())
    }

    fn reserve<S: Session>(&self, session: &S, data: u64, network: u64) -> Duration {
        const MIB: u64 = 1024 * 1024;
        let host = session.host();
        let settings = host.settings();
        let now = host.now();
        let data_rate = u64::from(settings.max_data_bandwidth) * MIB;
        let network_rate = u64::from(settings.max_network_bandwidth) * MIB;
        let data = self.data.reserve(now, data, data_rate);
        data.max(self.network.reserve(now, network, network_rate))
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
