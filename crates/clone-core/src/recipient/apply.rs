// SPDX-License-Identifier: GPL-2.0-only

//! What a recipient's engine calls while it applies a descriptor.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use clone_protocol::{BlockForm, EqualUnits};

use super::based::BlockInBase;
use super::block::{BlockReceiver, Received};
use super::dialogue::Dialogue;
use super::expected::Expected;
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
    /// The units of the block that are in the base, and do not follow.
    pub(super) equal: Option<EqualUnits>,
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
        let Self { session, shared, dialogue, receiver, expected, equal, .. } = self;
        let writer = &shared.writer;
        let base = shared.base.as_deref().zip(expected.place());
        let directory = shared.target.path();
        if let (Some((base, place)), Some(equal)) = (base, &*equal) {
            let (received, network_len) =
                receive_rest(shared, dialogue, receiver, *expected, equal)?;
            let block = BlockInBase { base, place, equal, directory };
            receiver.write_based(received, false, &block, view, file, writer)?;
            return shared.traffic.pace(*session, equal.block_len() as u64, network_len);
        }
        let received = receive(shared, dialogue, receiver, *expected)?;
        let (len, network_len) = (received.len, received.network_len);
        // A donor that takes no digests sends all. What is in the base is shared with it where the
        // file system can.
        let base = base.filter(|(base, _)| !shared.told_base() && base.can_share(directory));
        let found = base.and_then(|(base, place)| {
            let equal = BlockReceiver::find_in_base(&received, base, place)?;
            Some((base, place, equal))
        });
        match found {
            Some((base, place, equal)) => {
                let block = BlockInBase { base, place, equal: &equal, directory };
                receiver.write_based(Some(received), true, &block, view, file, writer)?;
            }
            None => receiver.write(received, view, file, writer)?,
        }
        shared.traffic.pace(*session, len, network_len)
    }
}

/// Receives the data packet of a descriptor, and notes how it came.
fn receive<'p, S: RecipientSession>(
    shared: &Shared<S>,
    dialogue: &'p mut Dialogue<'_, S>,
    receiver: &mut BlockReceiver,
    expected: Expected,
) -> Result<Received<'p>> {
    let received = receiver.receive(dialogue.receive_data()?, expected, &shared.takes_files)?;
    shared.arrived().add(received.form, received.len, received.network_len);
    Ok(received)
}

/// Receives what of a block is not in the base, and notes how the block came. Returns the data,
/// none if all is in the base, and its bytes on the network.
fn receive_rest<'p, S: RecipientSession>(
    shared: &Shared<S>,
    dialogue: &'p mut Dialogue<'_, S>,
    receiver: &mut BlockReceiver,
    expected: Expected,
    equal: &EqualUnits,
) -> Result<(Option<Received<'p>>, u64)> {
    let rest = match equal.rest_len() {
        0 => None,
        _ => Some(receive(shared, dialogue, receiver, expected)?),
    };
    shared.arrived().add(Some(BlockForm::Base), equal.equal_len() as u64, 0);
    let network_len = rest.as_ref().map_or(0, |rest| rest.network_len);
    Ok((rest, network_len))
}

/// Raises the error of a callback, and keeps it.
fn keep<S: RecipientSession>(session: &S, failure: &mut Option<Error>, error: &Error) {
    session.raise(error);
    *failure = Some(Error::Raised(error.number()));
}

impl<S: RecipientSession> BlockInput for Applier<'_, '_, S> {
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
        let outcome = self.next_state(view);
        outcome.inspect_err(|error| keep(self.session, &mut self.failure, error))
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let outcome = self.write(view, file);
        outcome.inspect_err(|error| keep(self.session, &mut self.failure, error))
    }

    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]> {
        self.tune();
        let Self { session, shared, dialogue, receiver, expected, equal, failure, .. } = self;
        let base = shared.base.as_deref().zip(expected.place());
        if let (Some((base, place)), Some(equal)) = (base, &*equal) {
            let received = receive_rest(shared, dialogue, receiver, *expected, equal);
            let outcome = received.and_then(|(received, network_len)| {
                let block = BlockInBase { base, place, equal, directory: shared.target.path() };
                let bytes = receiver.bytes_based(received, &block, view)?;
                shared.traffic.pace(*session, equal.block_len() as u64, network_len)?;
                Ok(bytes)
            });
            return outcome.inspect_err(|error| keep(*session, failure, error));
        }
        let outcome = receive(shared, dialogue, receiver, *expected).and_then(|received| {
            let (len, network_len) = (received.len, received.network_len);
            let bytes = receiver.bytes(received, view)?;
            shared.traffic.pace(*session, len, network_len)?;
            Ok(bytes)
        });
        outcome.inspect_err(|error| keep(*session, failure, error))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.session.host().observer().add_estimate(bytes);
    }
}
