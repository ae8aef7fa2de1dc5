// SPDX-License-Identifier: GPL-2.0-only

//! What a recipient's engine calls while it applies a descriptor.

use std::os::fd::BorrowedFd;

use clone_protocol::CommandCode;

use super::Shared;
use super::block::{BlockReceiver, Expected, Received};
use super::task::Task;
use crate::engine::{BlockInput, View};
use crate::error::{Error, NetworkError, Result};
use crate::link::Link;
use crate::session::{Host, RecipientSession};

/// Feeds an engine from the task's data connection.
pub(super) struct Applier<'a, 's, S: RecipientSession> {
    task: &'a mut Task<'s, S>,
    locator_index: usize,
    /// The error of a callback. InnoDB drops it where it skips the data of a file that DDL has
    /// deleted (`clone0apply.cc:receive_data`), and would then take the next packet for the next
    /// descriptor.
    failure: Option<Error>,
}

impl<'a, 's, S: RecipientSession> Applier<'a, 's, S> {
    pub(super) fn new(task: &'a mut Task<'s, S>, locator_index: usize) -> Self {
        Self { task, locator_index, failure: None }
    }

    /// The outcome of the engine's call, or the error of a callback that the engine did not pass on.
    pub(super) fn finish(self, outcome: Result<()>) -> Result<()> {
        match (outcome, self.failure) {
            (Ok(()), Some(error)) => Err(error),
            (outcome, _) => outcome,
        }
    }

    /// A state of the snapshot begins or ended.
    fn next_state(&mut self, view: &View<'_>) -> Result<()> {
        if let Some(estimate) = view.state_change {
            self.task.next_stage(estimate);
            return Ok(());
        }
        self.task.finish_stage();
        if self.task.session.is_killed() {
            return Err(Error::Interrupted);
        }
        self.task.auxiliary_command(CommandCode::Ack, self.locator_index, view.descriptor)
    }

    fn write(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.task.tune();
        let Task { session, shared, data, expected, receiver, .. } = &mut *self.task;
        let received = receive(*session, shared, data, *expected, receiver)?;
        let (len, network_len) = (received.len, received.network_len);
        receiver.write(received, view, file, &shared.files)?;
        shared.traffic.pace(*session, len, network_len)
    }
}

/// The data of the descriptor at hand.
fn receive<'l, S: RecipientSession>(
    session: &S,
    shared: &Shared<S>,
    link: &'l mut Option<S::Link>,
    expected: Expected,
    receiver: &mut BlockReceiver,
) -> Result<Received<'l>> {
    let link = link.as_mut().ok_or(NetworkError::Read)?;
    let packet = link.receive(session, true, 0)?;
    receiver.receive(packet, expected, &shared.takes_files)
}

/// Raises the error of a callback, and keeps it.
fn note<S: RecipientSession>(session: &S, failure: &mut Option<Error>, error: &Error) {
    session.raise(error);
    *failure = Some(Error::Raised(error.number()));
}

impl<S: RecipientSession> BlockInput for Applier<'_, '_, S> {
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
        let outcome = self.next_state(view);
        outcome.inspect_err(|error| note(self.task.session, &mut self.failure, error))
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let outcome = self.write(view, file);
        outcome.inspect_err(|error| note(self.task.session, &mut self.failure, error))
    }

    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]> {
        self.task.tune();
        let Self { task, failure, .. } = self;
        let Task { session, shared, data, expected, receiver, .. } = &mut **task;
        let outcome = receive(*session, shared, data, *expected, receiver).and_then(|received| {
            let (len, network_len) = (received.len, received.network_len);
            let bytes = receiver.bytes(received, view, expected.holds_key)?;
            shared.traffic.pace(*session, len, network_len)?;
            Ok(bytes)
        });
        outcome.inspect_err(|error| note(*session, failure, error))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.task.session.host().observer().add_estimate(bytes);
    }
}
