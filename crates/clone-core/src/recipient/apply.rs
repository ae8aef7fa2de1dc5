// SPDX-License-Identifier: GPL-2.0-only

//! What a recipient's engine calls while it applies a descriptor.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::block::{BlockReceiver, Expected};
use super::dialogue::Dialogue;
use super::master::Master;
use super::shared::Shared;
use crate::engine::{BlockInput, View};
use crate::error::{Error, Result};
use crate::session::{Host, RecipientSession};

/// Feeds an engine from the task's data connection.
pub(super) struct Applier<'a, 's, S: RecipientSession> {
    pub(super) session: &'s S,
    pub(super) shared: &'a Arc<Shared<S>>,
    pub(super) dialogue: &'a mut Dialogue<'s, S>,
    pub(super) receiver: &'a mut BlockReceiver,
    pub(super) master: Option<&'a mut Master<S>>,
    pub(super) locator_index: usize,
    /// What is known of the descriptor's data.
    pub(super) expected: Expected,
    /// The error of a callback. InnoDB drops it where it skips the data of a file that DDL has
    /// deleted (`clone0apply.cc:receive_data`), and would then take the next packet for the next
    /// descriptor.
    pub(super) failure: Option<Error>,
}

impl<S: RecipientSession> Applier<'_, '_, S> {
    /// The outcome of the engine's call, or the error of a callback that the engine did not pass
    /// on.
    pub(super) fn finish(self, outcome: Result<()>) -> Result<()> {
        match (outcome, self.failure) {
            (Ok(()), Some(error)) => Err(error),
            (outcome, _) => outcome,
        }
    }

    /// A state of the snapshot begins or ended.
    fn next_state(&mut self, view: &View<'_>) -> Result<()> {
        let session = self.session;
        if let Some(estimate) = view.state_change {
            if let Some(master) = &self.master {
                master.next_stage(session, estimate);
            }
            return Ok(());
        }
        if let Some(master) = &mut self.master {
            master.finish_stage(session, self.shared);
        }
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        self.dialogue.acknowledge(self.locator_index, view.descriptor)
    }

    fn tune(&mut self) {
        if let Some(master) = &mut self.master {
            master.tune(self.session, self.shared);
        }
    }

    fn write(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.tune();
        let packet = self.dialogue.receive_data()?;
        let received = self.receiver.receive(packet, self.expected, &self.shared.takes_files)?;
        let (len, network_len) = (received.len, received.network_len);
        self.shared.arrived().add(received.form, len, network_len);
        self.receiver.write(received, view, file, &self.shared.files)?;
        self.shared.traffic.pace(self.session, len, network_len)
    }
}

/// Raises the error of a callback, and keeps it.
fn note<S: RecipientSession>(session: &S, failure: &mut Option<Error>, error: &Error) {
    session.raise(error);
    *failure = Some(Error::Raised(error.number()));
}

impl<S: RecipientSession> BlockInput for Applier<'_, '_, S> {
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
        let outcome = self.next_state(view);
        outcome.inspect_err(|error| note(self.session, &mut self.failure, error))
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let outcome = self.write(view, file);
        outcome.inspect_err(|error| note(self.session, &mut self.failure, error))
    }

    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]> {
        self.tune();
        let Self { session, shared, dialogue, receiver, expected, failure, .. } = self;
        let received = dialogue
            .receive_data()
            .and_then(|packet| receiver.receive(packet, *expected, &shared.takes_files));
        let outcome = received.and_then(|received| {
            let (len, network_len) = (received.len, received.network_len);
            shared.arrived().add(received.form, len, network_len);
            let bytes = receiver.bytes(received, view)?;
            shared.traffic.pace(*session, len, network_len)?;
            Ok(bytes)
        });
        outcome.inspect_err(|error| note(*session, failure, error))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.session.host().observer().add_estimate(bytes);
    }
}
