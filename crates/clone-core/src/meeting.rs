// SPDX-License-Identifier: GPL-2.0-only

//! Where the tasks of a clone meet before InnoDB has them wait for each other.
//!
//! At the end and at the beginning of each state InnoDB's tasks wait until all of them are there. They do it by sleeping 1, 2, 4 and
//! so on up to 100 ms (`clone0clone.h:Clone_Sys::wait`), so that a task that has waited for some time learns as much later that the
//! wait is over, and the next wait begins with that. With four tasks it added up to a tenth of a second and more
//! (`docs/performance.md`). So they meet here first, where they look more often, and find each other there in InnoDB.
//!
//! Nothing depends on it: whoever waits too long here goes on, and InnoDB has the last word.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_protocol::innodb::{Descriptor, SnapshotState, State};

use crate::session::{Host, Session};

/// How long to wait here before it is left to InnoDB. Compared with that its sleeps are short.
const LIMIT: Duration = Duration::from_secs(1);

/// How long to sleep before looking again: at least this, and then the sixteenth of the time that it has been already.
const STEP: Duration = Duration::from_micros(200);
const PART: u32 = 16;

/// How long the others need from here to where InnoDB looks for them.
const MOMENT: Duration = Duration::from_micros(300);

/// The beginning or the end of a state of InnoDB's snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) state: SnapshotState,
    pub(crate) is_start: bool,
}

impl Boundary {
    /// Whether it comes after `other`: a state begins before it ends.
    fn is_after(self, other: Self) -> bool {
        (self.state, !self.is_start) > (other.state, !other.is_start)
    }

    /// None for all other descriptors of InnoDB, and for an acknowledgement, or what looks like one to keep a connection alive.
    pub(crate) fn of(descriptor: &Descriptor<'_>) -> Option<Self> {
        match descriptor {
            Descriptor::State(State { state, start, ack: false, .. }) => {
                Some(Self { state: *state, is_start: *start })
            }
            _ => None,
        }
    }
}

/// Waits until `is_over`, but not for long. Then the master, which has to find the others where they go now, lets them go ahead.
pub(crate) fn wait_until<S: Session>(session: &S, is_master: bool, is_over: impl Fn() -> bool) {
    let host = session.host();
    let began = host.now();
    while !is_over() && !session.is_killed() {
        let waited = host.now().saturating_sub(began);
        if waited >= LIMIT {
            break;
        }
        host.sleep(STEP.max(waited / PART));
    }
    if is_master {
        host.sleep(MOMENT);
    }
}

/// Where the tasks that apply a clone meet: the master, and the workers that have a [`Seat`].
#[derive(Debug, Default)]
pub(crate) struct Meeting(Mutex<Attendance>);

#[derive(Debug, Default)]
struct Attendance {
    workers: u32,
    boundary: Option<Boundary>,
    /// Tasks that have come to that boundary.
    arrived: u32,
}

/// A worker's place in the meeting.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Meeting>);

impl Meeting {
    /// A worker has joined the clone.
    pub(crate) fn join(self: &Arc<Self>) -> Seat {
        self.attendance().workers += 1;
        Seat(Arc::clone(self))
    }

    /// A task has come to `boundary`: waits for the others.
    pub(crate) fn meet<S: Session>(&self, session: &S, is_master: bool, boundary: Boundary) {
        if self.arrive(boundary) {
            wait_until(session, is_master, || self.is_complete(boundary));
        }
    }

    /// Notes it, and says whether there are others at all.
    fn arrive(&self, boundary: Boundary) -> bool {
        let mut attendance = self.attendance();
        if attendance.boundary.is_some_and(|current| current.is_after(boundary)) {
            // The others are farther: this task finds them there.
            return false;
        }
        if attendance.boundary != Some(boundary) {
            *attendance =
                Attendance { boundary: Some(boundary), arrived: 0, workers: attendance.workers };
        }
        attendance.arrived += 1;
        attendance.workers > 0
    }

    /// All are there, or some are farther already.
    fn is_complete(&self, boundary: Boundary) -> bool {
        let attendance = self.attendance();
        attendance.boundary != Some(boundary) || attendance.arrived > attendance.workers
    }

    fn attendance(&self) -> MutexGuard<'_, Attendance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut attendance = self.0.attendance();
        attendance.workers = attendance.workers.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Boundary = Boundary { state: SnapshotState::FileCopy, is_start: false };
    const NEXT: Boundary = Boundary { state: SnapshotState::PageCopy, is_start: true };

    #[test]
    fn boundaries_are_told_from_acknowledgements() {
        let (task, chunks, files, estimate, estimate_disk) = (0, 1, 1, 1000, 1000);
        for (state, start) in [(SnapshotState::FileCopy, false), (SnapshotState::PageCopy, true)] {
            for ack in [false, true] {
                let state =
                    State { state, start, ack, task, chunks, files, estimate, estimate_disk };
                let expected = Boundary { state: state.state, is_start: start };
                assert_eq!(Boundary::of(&Descriptor::State(state)), (!ack).then_some(expected));
            }
        }
    }

    #[test]
    fn it_is_complete_when_all_have_come() {
        let meeting = Arc::new(Meeting::default());
        assert!(!meeting.arrive(END), "a master alone waits for nobody");
        assert!(meeting.is_complete(END));
        // A worker that comes when the master has gone on does not wait for it.
        let one = meeting.join();
        assert!(meeting.arrive(END));
        assert!(meeting.is_complete(END));

        let other = meeting.join();
        for is_complete in [false, false, true] {
            assert!(meeting.arrive(NEXT));
            assert_eq!(meeting.is_complete(NEXT), is_complete);
        }
        assert!(!meeting.arrive(END), "the others are farther");
        assert!(meeting.is_complete(NEXT), "and do not come again");
        // Who leaves is not waited for.
        let last = Boundary { is_start: false, ..NEXT };
        assert!(meeting.arrive(last));
        assert!(!meeting.is_complete(last));
        drop((one, other));
        assert!(meeting.is_complete(last));
    }
}
