// SPDX-License-Identifier: GPL-2.0-only

//! What a recipient's engine calls while it applies a descriptor.

use std::os::fd::BorrowedFd;

use clone_protocol::{CommandCode, Response};
use zeroize::Zeroize;

use super::task::Task;
use crate::error::{Error, Result, number};
use crate::session::{Callbacks, Link, Session, View};

/// Feeds an engine from the task's data connection.
pub(super) struct Applier<'a, 's, S: Session> {
    task: &'a mut Task<'s, S>,
    locator_index: usize,
    /// What a callback failed with. InnoDB drops the callback's error where it skips the data of a file that DDL has deleted
    /// (`clone0apply.cc:receive_data`), and would then take the next packet for the next descriptor.
    failure: Option<Error>,
}

impl<'a, 's, S: Session> Applier<'a, 's, S> {
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

    fn note<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.task.session.raise(error);
            self.failure = Some(Error::Raised(error.number()));
        }
        outcome
    }

    /// A state of the snapshot begins or ended.
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
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
        let Task { session, shared, data, expected, buffer, .. } = &mut *self.task;
        let (bytes, network_len) = receive(*session, data, expected.len)?;
        let len = bytes.len();
        let source: &[u8] = if view.is_os_buffer_cached {
            bytes
        } else {
            let aligned = buffer.aligned(len);
            aligned.copy_from_slice(bytes);
            aligned
        };
        clone_io::write_all(file, source)
            .map_err(|error| Error::file(true, view.destination_name, &error))?;
        shared.traffic.account(*session, len as u64, network_len)
    }
}

impl<S: Session> Callbacks for Applier<'_, '_, S> {
    fn file(&mut self, _: &View<'_>, _: BorrowedFd<'_>, _: u32) -> Result<()> {
        Err(Error::NotSupported("Remote Clone Client"))
    }

    fn buffer(&mut self, view: &View<'_>, _: &[u8]) -> Result<()> {
        let outcome = self.change_state(view);
        self.note(outcome)
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let outcome = self.write(view, file);
        self.note(outcome)
    }

    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]> {
        self.task.tune();
        let Task { session, shared, data, expected, buffer, .. } = &mut *self.task;
        let outcome = receive(*session, data, expected.len).and_then(|(bytes, network_len)| {
            shared.traffic.account(*session, bytes.len() as u64, network_len)?;
            if view.is_os_buffer_cached {
                return Ok(bytes);
            }
            let aligned = buffer.aligned(bytes.len());
            aligned.copy_from_slice(bytes);
            if expected.holds_key {
                bytes.zeroize();
            }
            Ok(aligned)
        });
        if let Err(error) = &outcome {
            session.raise(error);
            self.failure = Some(Error::Raised(error.number()));
        }
        outcome
    }
}

/// The DATA packet that must follow its descriptor.
fn receive<'l, S: Session>(
    session: &S,
    link: &'l mut Option<S::Link>,
    expected: Option<u32>,
) -> Result<(&'l mut [u8], u64)> {
    let link = link.as_mut().ok_or(Error::Raised(number::ER_NET_READ_ERROR))?;
    let packet = link.receive(session, true, 0)?;
    let Response::Data(bytes) = Response::parse(packet.data)? else {
        let text = "Wrong Clone RPC response, expecting data packet COM_RES_DATA";
        return Err(Error::Protocol(text.to_owned()));
    };
    let len = bytes.len();
    // The engine seeks and accounts by its descriptor: more or fewer bytes would land where nobody expects them.
    if expected.is_some_and(|expected| expected as usize != len) {
        let text = "Wrong Clone RPC response, data length differs from its descriptor";
        return Err(Error::Protocol(text.to_owned()));
    }
    let code = packet.data.len() - len;
    Ok((&mut packet.data[code..], packet.network_len))
}
