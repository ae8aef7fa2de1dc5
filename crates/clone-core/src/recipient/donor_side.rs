// SPDX-License-Identifier: GPL-2.0-only

//! A task's way to the donor: from the first connection over each new one to EXIT.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_protocol::Command;

use super::answer::unexpected;
use super::dialogue::{Dialogue, Event, Takes, ends_connection};
use super::heartbeat::Heart;
use super::probe::meet_donor;
use super::shared::Shared;
use crate::error::{Error, NetworkError, Result, number};
use crate::link::LinkKind;
use crate::log_target::CLIENT;
use crate::session::{Clock, RecipientSession, log_step};
use crate::traffic::sleep_until;

/// Least time between two attempts to connect again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a task that failed waits for the donor to end its stream.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a worker that has failed looks whether the master has told the donor.
const MASTER_INTERVAL: Duration = Duration::from_millis(50);

/// The donor, as one task meets it.
pub(super) struct DonorSide<'s, S: RecipientSession> {
    session: &'s S,
    shared: Arc<Shared<S>>,
    is_master: bool,
    pub(super) dialogue: Dialogue<'s, S>,
    /// Sends heartbeats while the master has its connections.
    heart: Option<Heart<S>>,
}

impl<'s, S: RecipientSession> DonorSide<'s, S> {
    pub(super) fn new(session: &'s S, shared: Arc<Shared<S>>, is_master: bool) -> Self {
        let dialogue = Dialogue::new(session, Arc::clone(&shared));
        Self { session, shared, is_master, dialogue, heart: None }
    }

    /// Opens the data connection and, for the master, the auxiliary one. `has_begun`: the engines
    /// have begun the clone on an earlier connection, where they dropped the data of the server if
    /// they had to.
    pub(super) fn connect(&mut self, has_begun: bool) -> Result<()> {
        if !self.is_master {
            return self.dialogue.connect(LinkKind::Data);
        }
        self.shared.donor_knows.store(false, Ordering::Relaxed);
        meet_donor(self.session, &self.shared)?;
        let drops_data = self.shared.target.drops_data() && !has_begun;
        let kind = if drops_data { LinkKind::DataOfReplacement } else { LinkKind::Data };
        self.dialogue.connect(kind)?;
        let outcome = self.dialogue.connect_auxiliary();
        if outcome.is_ok() {
            self.heart = self.dialogue.start_heart(has_begun);
        } else {
            let left = self.exit();
            self.log_step("Source Task COM_EXIT", &left);
            self.dialogue.disconnect_data("Source Task Disconnect:", left.is_err(), false);
        }
        outcome
    }

    /// Connects again, trying until `patience` is over, for which the donor keeps the clone. With a
    /// `patience` of 0 there is one attempt.
    pub(super) fn reconnect(&mut self, patience: Duration) -> Result<()> {
        let host = self.session.host().clone();
        let started = host.now();
        let mut attempts = 0;
        loop {
            let attempted = host.now();
            let Err(error) = self.connect(true) else { return Ok(()) };
            attempts += 1;
            log::info!(target: CLIENT, "Source re-connect failed: count: {attempts}");
            let passed = host.now().saturating_sub(started);
            if patience.is_zero() || passed > patience {
                return Err(self.unreachable(error, passed, attempts));
            }
            // After KILL the user sees first what the clone was waiting for, as with the stock
            // plugin.
            let raise = |_: &Error| self.session.raise(&error);
            sleep_until(self.session, attempted + RECONNECT_INTERVAL).inspect_err(raise)?;
        }
    }

    /// The error of a clone that has lost its donor, and could not connect again.
    fn unreachable(&self, error: Error, passed: Duration, attempts: u32) -> Error {
        let Error::Connect(text) = error else { return error };
        let donor = self.session.name_of(&self.shared.donor);
        let seconds = passed.as_secs();
        Error::Connect(format!(
            "{text} (the clone lost the donor {donor}, and tried {attempts} times in {seconds} seconds \
             to connect again. Look whether the donor runs, at its host, and at firewalls and proxies \
             on the way)"
        ))
    }

    /// Sends a heartbeat now that the donor has numbered the master's data connection. By this
    /// heartbeat the donor knows the auxiliary connection.
    pub(super) fn send_first_heartbeat(&self) {
        self.heart.iter().for_each(Heart::beat);
    }

    /// Returns true if a failure of the network is really KILL: KILL may close the connection
    /// shortly before it marks the session.
    ///
    /// The donor must be told the difference: after a network failure the donor keeps the clone for
    /// this recipient.
    pub(super) fn was_killed(&self, outcome: &Result<()>) -> bool {
        const MOMENT: Duration = Duration::from_millis(100);
        if !self.is_master || !matches!(outcome, Err(error) if error.is_network()) {
            return false;
        }
        sleep_until(self.session, self.session.host().now() + MOMENT).is_err()
    }

    /// Tells the donor of an error for which no connection can help, before the data connection
    /// ends. A donor that sees the end of the connection first takes it for a network failure, and
    /// keeps the clone until this recipient comes back.
    pub(super) fn tell(&mut self, error: &Error) {
        let concerns_donor = !error.is_network() && error.number() != number::ER_CLONE_DONOR;
        if !concerns_donor || self.shared.donor_knows.load(Ordering::Relaxed) {
            return;
        }
        if self.is_master {
            self.dialogue.report_local_error(error);
        } else if ends_connection(error) {
            // The master tells, on its other connection.
            let host = self.session.host();
            let end = host.now() + DRAIN_TIMEOUT;
            while !self.shared.donor_knows.load(Ordering::Relaxed) && host.now() < end {
                // KILL reaches the master, too.
                if sleep_until(self.session, host.now() + MASTER_INTERVAL).is_err() {
                    return;
                }
            }
        }
    }

    /// Reads on after the task has failed, until the donor ends the stream: only then the
    /// connection can be used for EXIT. The master has told the donor of the failure, or will. If
    /// the donor could not be told, it would not end its stream, and nobody waits for that.
    /// Returns the error of the task, or one that ends the connection.
    pub(super) fn drain(&mut self, command: &Command<'_>, first: Error) -> Error {
        self.log_step("Wait for remote after local issue", &Err(first.clone()));
        let end = self.session.host().now() + DRAIN_TIMEOUT;
        if self.dialogue.is_donor_unaware() {
            return NetworkError::PacketsOutOfOrder.into();
        }
        loop {
            match self.dialogue.receive(command, Takes::Nothing) {
                // If the connection broke meanwhile, the reason of the failure is `first` still.
                Ok(Event::Complete) | Err(_) => return first,
                // If a worker heard the donor's error first, only its number came through the
                // engine. The text is here.
                Ok(Event::Error(error)) => {
                    self.session.raise(&error);
                    return first;
                }
                Ok(_) if self.session.host().now() > end => {
                    log::warn!(
                        target: CLIENT,
                        "No error from remote in 30 sec after local issue: error: {}: {first}",
                        first.number()
                    );
                    return NetworkError::PacketsOutOfOrder.into();
                }
                Ok(_) => {}
            }
        }
    }

    /// Sends EXIT on both connections and closes them. With `clear_error`, the errors of the
    /// network are cleared from the session. Returns the error of EXIT on the data connection.
    pub(super) fn disconnect(&mut self, outcome: &Result<()>, clear_error: bool) -> Result<()> {
        if self.is_master {
            self.dialogue.disconnect_auxiliary(outcome);
            self.heart = None;
            self.shared.donor_knows.store(true, Ordering::Relaxed);
        }
        let mut abort = matches!(outcome, Err(error) if ends_connection(error));
        let mut left = Ok(());
        if abort {
            self.log_step("Task skip COM_EXIT", outcome);
        } else {
            left = self.exit();
            abort = left.is_err();
            self.log_step("Task COM_EXIT", &left);
        }
        self.dialogue.disconnect_data("Task Disconnect :", abort, outcome.is_ok() || clear_error);
        left
    }

    /// Sends EXIT over the data connection and waits for the donor's COMPLETE.
    fn exit(&mut self) -> Result<()> {
        self.dialogue.send(&Command::Exit, None)?;
        match self.dialogue.receive(&Command::Exit, Takes::Nothing)? {
            Event::Complete => Ok(()),
            Event::Error(error) => Err(error),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn log_step(&self, step: &str, outcome: &Result<()>) {
        log_step(self.session, CLIENT, step, outcome);
    }
}
