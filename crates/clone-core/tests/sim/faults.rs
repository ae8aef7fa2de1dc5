// SPDX-License-Identifier: GPL-2.0-only

//! Where a test can interfere, and how.

use clone_protocol::innodb::{DB_TYPE, Descriptor, SnapshotState};
use clone_protocol::{CommandCode, Response, rocksdb};

use super::follower::FOLLOWER;

/// Something that is about to happen.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A packet is about to be sent.
    Packet(Wire<'a>),
    /// A recipient connects.
    Connect,
    /// A server starts a worker.
    Spawn,
    /// A recipient listens for files.
    Listen,
    /// A donor connects to where files are taken.
    ConnectFiles,
    /// A donor hands a file over.
    HandOver,
    /// A recipient takes a file.
    TakeFile,
    /// An InnoDB is about to do something.
    Engine(Step),
    /// The same of an engine that follows it.
    Follower(FollowerStep),
}

/// A packet.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) role: Role,
    pub(crate) to: End,
    pub(crate) packet: &'a [u8],
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Data, before its first command.
    Unknown,
    /// Data of a recipient's master.
    Master,
    /// Data of a worker.
    Worker,
    Auxiliary,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Donor,
    Recipient,
}

/// What an InnoDB does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Donor: sends a block.
    Copy(SnapshotState),
    /// Donor: enters a state.
    Enter(SnapshotState),
    /// Recipient: creates a data file.
    Create,
    /// Recipient: applies a block.
    Write(SnapshotState),
    /// Recipient: enters a state.
    Follow(SnapshotState),
}

/// What an engine does that follows InnoDB, and what is done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowerStep {
    /// Donor: sends a block.
    Send,
    /// Donor: prepares its point.
    Prepare,
    /// Donor: fixes its point.
    Fix,
    /// Donor: commits are about to be blocked.
    Block,
    /// Recipient: applies a block.
    Write,
    /// Recipient: has everything.
    Complete,
}

/// What is to happen instead.
#[derive(Debug)]
pub(crate) enum Action {
    Pass,
    /// The connection breaks, and both ends notice.
    Cut,
    /// The same for all connections that there are.
    CutAll,
    /// From now on nothing passes, and nobody notices.
    Dark,
    /// The same for all connections that there are.
    DarkAll,
    /// Other packets are sent, or none.
    Replace(Vec<Vec<u8>>),
    /// KILL for the user of the recipient.
    KillRecipient,
    /// KILL for the donor's session of the master's connection.
    KillDonor,
    /// KILL for the donor's session of the auxiliary connection.
    KillAcknowledger,
    /// The step fails with this error. A connection is refused, a thread not to be had.
    Fail(u32),
    /// The recipient's block goes to a file on a full disk.
    DiskFull,
    /// The recipient's block belongs to a file that DDL has deleted, so its data and its errors are
    /// dropped.
    Skip,
}

/// Decides for each event.
pub(crate) type Hook = Box<dyn FnMut(&Event<'_>) -> Action + Send>;

impl Wire<'_> {
    /// The donor's response, if it is one.
    pub(crate) fn response(&self) -> Option<Response<'_>> {
        (self.to == End::Recipient).then(|| Response::parse(self.packet).ok()).flatten()
    }

    /// The recipient's command, if it is one.
    pub(crate) fn command(&self) -> Option<CommandCode> {
        if self.to == End::Recipient {
            return None;
        }
        CommandCode::try_from(*self.packet.first()?).ok()
    }

    /// InnoDB's descriptor, if the packet carries one.
    pub(crate) fn descriptor(&self) -> Option<Descriptor<'_>> {
        match self.response()? {
            Response::DataDescriptor { db_type: DB_TYPE, descriptor, .. } => {
                Descriptor::parse(descriptor).ok()
            }
            _ => None,
        }
    }

    /// The follower's descriptor, if the packet carries one.
    pub(crate) fn followers_descriptor(&self) -> Option<rocksdb::Descriptor<'_>> {
        match self.response()? {
            Response::DataDescriptor { db_type: FOLLOWER, descriptor, .. } => {
                rocksdb::Descriptor::parse(descriptor).ok()
            }
            _ => None,
        }
    }

    /// The state of the snapshot that the packet is about.
    pub(crate) fn state(&self) -> Option<SnapshotState> {
        match self.descriptor()? {
            Descriptor::State(state) if !state.ack => Some(state.state),
            Descriptor::Data(data) => Some(data.state),
            _ => None,
        }
    }
}
