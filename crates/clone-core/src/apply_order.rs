// SPDX-License-Identifier: GPL-2.0-only

//! What happens around InnoDB's descriptors when the tasks of a clone apply them: files that are to be created come first, tasks meet where
//! states begin and end, and workers leave when nothing is left.

use std::sync::Arc;

use clone_protocol::innodb::{Descriptor, SnapshotState};

use crate::error::Result;
use crate::file_list::FileList;
use crate::meeting::{Boundary, Meeting, Seat};
use crate::session::{Host, Session};

/// What the tasks that apply one clone share of that.
#[derive(Default)]
pub(crate) struct ApplyOrder {
    meeting: Arc<Meeting>,
    files: FileList,
}

/// What a task is to the clone that it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Master {
        /// Files need not be created before there is data for them.
        creates_late: bool,
    },
    Worker,
}

/// What follows for a task from a descriptor that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing: the next one, please.
    GoOn,
    /// It leaves InnoDB.
    Leave,
}

impl ApplyOrder {
    /// A worker has joined the clone.
    pub(crate) fn join(&self) -> Seat {
        self.meeting.join()
    }

    /// Applies InnoDB's `descriptor`, which was parsed from `bytes`, by `apply`; not at once, if it is of a file that can wait, and after
    /// such files if it cannot go without them. What is not InnoDB's has no order.
    ///
    /// # Errors
    /// That of `apply`, or KILL.
    pub(crate) fn apply<S: Session>(
        &self,
        session: &S,
        role: Role,
        descriptor: Option<&Descriptor<'_>>,
        bytes: &[u8],
        mut apply: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Turn> {
        let Some(descriptor) = descriptor else { return apply(bytes).map(|()| Turn::GoOn) };
        if role == (Role::Master { creates_late: true }) && self.files.keeps(descriptor, bytes) {
            return Ok(Turn::GoOn);
        }
        self.files.create_for(session, descriptor, &mut apply)?;
        let boundary = Boundary::of(descriptor);
        if let Some(boundary) = boundary {
            self.meeting.meet(session, role != Role::Worker, boundary);
        }
        apply(bytes)?;
        Ok(if leaves(session, role, boundary) { Turn::Leave } else { Turn::GoOn })
    }
}

/// A worker leaves when nothing is left to copy. If it stayed, InnoDB's master would wait for it, and it would sleep while the master syncs
/// all files, up to 100 ms longer than that takes. In debug servers InnoDB asserts that all stay.
fn leaves<S: Session>(session: &S, role: Role, boundary: Option<Boundary>) -> bool {
    const END: Boundary = Boundary { state: SnapshotState::RedoCopy, is_start: false };
    boundary == Some(END) && role == Role::Worker && !session.host().is_debug_server()
}
