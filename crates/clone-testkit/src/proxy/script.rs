// SPDX-License-Identifier: GPL-2.0-only

//! What is to happen, and when.

use std::time::Duration;

use clone_protocol::CommandCode;
use clone_protocol::innodb::SnapshotState;

/// A moment of a clone: a packet is at hand, and has not been forwarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Point {
    /// The recipient sends this command.
    Command(CommandCode),
    /// The donor says that this command is complete.
    Complete(CommandCode),
    /// The donor's master starts a state.
    Start(SnapshotState),
    /// So many bytes of data of a state have passed, with those that passed more than once.
    Data {
        /// The state.
        state: SnapshotState,
        /// Bytes of data.
        bytes: u64,
    },
    /// The donor's master ends a state.
    End(SnapshotState),
    /// The recipient acknowledges a state, of which the donor does not know yet.
    Ack(SnapshotState),
    /// The donor has taken the acknowledgement of a state, of which the recipient does not know
    /// yet.
    Acked(SnapshotState),
}

/// What happens at a [`Point`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Connections break, and the packet at hand is lost if it belongs to one of them. Nothing
    /// happens as long as there is no connection of that kind.
    Cut(Target, How),
    /// Nothing passes on any connection until [`Proxy::release`](super::Proxy::release), or until
    /// the connection at hand ends.
    Hold,
    /// Nothing passes on connections of this kind until [`Proxy::release`](super::Proxy::release),
    /// the packet at hand included if it belongs to one of them. They stay open: neither side
    /// learns that the other has ended. With [`Target::All`] new connections are silent, too.
    Silence(Target),
    /// The packet waits so long, and what comes behind it on its connection.
    Delay(Duration),
}

impl Action {
    /// Cuts with a TCP reset.
    pub fn reset(target: Target) -> Self {
        Self::Cut(target, How::Reset)
    }

    /// Cuts by closing.
    pub fn close(target: Target) -> Self {
        Self::Cut(target, How::Close)
    }
}

/// Which connections are cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// All that there are.
    All,
    /// The master's data connection.
    Master,
    /// The master's connection for acknowledgements.
    Auxiliary,
    /// That of one worker: the one at hand if it is a worker's.
    Worker,
}

/// How a connection ends, to both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// With a reset, which may overtake what has been forwarded.
    Reset,
    /// With an orderly close behind all that has been forwarded.
    Close,
}

/// The steps that have not happened.
#[derive(Debug, Default)]
pub(super) struct Script {
    steps: Vec<(Point, Action)>,
}

impl Script {
    pub(super) fn add(&mut self, point: Point, action: Action) {
        self.steps.push((point, action));
    }

    pub(super) fn pending(&self) -> Vec<(Point, Action)> {
        self.steps.clone()
    }

    /// Takes the first step at this point that `possible` lets pass.
    pub(super) fn take(
        &mut self,
        point: Point,
        possible: impl Fn(Action) -> bool,
    ) -> Option<Action> {
        let at = self.steps.iter().position(|&(p, action)| p == point && possible(action))?;
        Some(self.steps.remove(at).1)
    }

    /// Takes the step that is due before `more` bytes of a state have passed, if `passed` have by
    /// now, and tells how many bytes may pass before it.
    pub(super) fn take_data(
        &mut self,
        state: SnapshotState,
        passed: u64,
        more: u64,
        possible: impl Fn(Action) -> bool,
    ) -> Option<(u64, Action)> {
        let due = |&(at, &(point, action)): &(usize, &(Point, Action))| match point {
            Point::Data { state: its, bytes } if its == state && possible(action) => {
                (bytes <= passed + more).then_some((bytes, at))
            }
            _ => None,
        };
        let (bytes, at) = self.steps.iter().enumerate().filter_map(|step| due(&step)).min()?;
        Some((bytes.saturating_sub(passed), self.steps.remove(at).1))
    }
}
