// SPDX-License-Identifier: GPL-2.0-only

//! One point for all engines of a clone.
//!
//! A clone is the server at one moment. InnoDB chooses it: the end of the redo log that it copies, which it fixes when it goes from
//! PAGE COPY to REDO COPY. That step waits for an acknowledgement of the recipient, and the donor holds it back for as long as the
//! other engines need:
//!
//! ```text
//! donor                              recipient
//! PAGE COPY of InnoDB      ------->
//!                          <-------  ACK: PAGE COPY has ended
//! other engines prepare    (a last checkpoint: takes time, commits go on)
//! commits are blocked
//!   other engines fix their point
//!   InnoDB gets the ACK, fixes its own, begins REDO COPY
//! commits go on
//! REDO COPY, then the others' data  ------->
//! ```
//! With no commit in between, what is committed in one engine at its point is committed in all of them, and in the binary log.
//! In a local clone the same happens inside InnoDB's callbacks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use clone_protocol::innodb::{Descriptor, Locator, SnapshotState};

use crate::error::{Error, Result};
use crate::session::{Engine, Host, Session};
use crate::storage::Located;

/// How long commits may be blocked while InnoDB fixes its point. It waits there until the GTIDs of what is committed are on disk, which
/// takes milliseconds. Two things make it longer, and the clone fail: the recipient's data connection is lost just then; an XA COMMIT
/// has announced itself to InnoDB and now waits for its turn to commit (`sql/clone_handler.h:XA_Operation`), and each waits for the
/// other.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the thread that blocks commits looks whether it may end that.
const POLL: Duration = Duration::from_millis(2);

/// The point of one clone, for the engines that follow InnoDB.
#[derive(Debug)]
pub(crate) struct Point<E> {
    followers: Vec<Located<E>>,
    /// How long to wait for statements that run, seconds.
    timeout: u32,
    standing: AtomicU8,
}

/// What has been done about a point: in [`Point::standing`].
mod standing {
    pub(super) const OPEN: u8 = 0;
    /// The followers have it.
    pub(super) const FIXED: u8 = 1;
    /// InnoDB has it too.
    pub(super) const REACHED: u8 = 2;
}

impl<E> Point<E> {
    /// The point of a clone in these engines; none if InnoDB is alone.
    pub(crate) fn of<S>(located: &[Located<E>], timeout: u32) -> Option<Self>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        let followers: Vec<_> =
            located.iter().filter(|one| one.engine.follows()).cloned().collect();
        let standing = AtomicU8::new(standing::OPEN);
        (!followers.is_empty()).then_some(Self { followers, timeout, standing })
    }

    /// Has the followers fix their point, while commits are blocked: until the result is dropped, which is to be when InnoDB has
    /// [reached](Point::reach) its own. None if this was done before: a recipient that lost its connection may acknowledge twice.
    ///
    /// # Errors
    /// The engines'; that of blocking commits.
    pub(crate) fn fix<S>(&self, session: &S) -> Result<Option<S::CommitBlock>>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        if self.standing.load(Ordering::Acquire) != standing::OPEN {
            return Ok(None);
        }
        for one in &self.followers {
            one.engine.prepare_point(session, &one.locator)?;
        }
        let block = session.block_commits(self.timeout)?;
        for one in &self.followers {
            one.engine.fix_point(session, &one.locator)?;
        }
        self.standing.store(standing::FIXED, Ordering::Release);
        Ok(Some(block))
    }

    /// InnoDB has fixed its point.
    pub(crate) fn reach(&self) {
        self.standing.store(standing::REACHED, Ordering::Release);
    }

    /// Waits until InnoDB has fixed its point.
    ///
    /// # Errors
    /// KILL; it takes too long. Then the points differ, and the clone is none.
    pub(crate) fn wait<S: Session>(&self, session: &S) -> Result<()> {
        let host = session.host();
        let deadline = host.now() + PATIENCE;
        while self.standing.load(Ordering::Acquire) != standing::REACHED {
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            if host.now() >= deadline {
                return Err(Error::Internal(format!(
                    "Clone: InnoDB did not begin REDO COPY in {} seconds, and commits cannot be blocked any longer",
                    PATIENCE.as_secs()
                )));
            }
            host.sleep(POLL);
        }
        Ok(())
    }
}

/// The points of all clones that a server gives. The acknowledgement comes in another session than the clone's.
#[derive(Debug)]
pub struct Points<E> {
    /// By InnoDB's number of the clone.
    running: Mutex<BTreeMap<u64, Weak<Point<E>>>>,
}

impl<E> Default for Points<E> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<E> Points<E> {
    /// Makes `point` known as that of InnoDB's clone `locator`, as long as it lives.
    pub(crate) fn add(&self, locator: &[u8], point: &Arc<Point<E>>) {
        let Ok(locator) = Locator::parse(locator) else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, point| point.strong_count() != 0);
        running.insert(locator.clone_id, Arc::downgrade(point));
    }

    /// The point of InnoDB's clone `locator`.
    pub(crate) fn find(&self, locator: &[u8]) -> Option<Arc<Point<E>>> {
        let locator = Locator::parse(locator).ok()?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&locator.clone_id)?.upgrade()
    }
}

/// Whether InnoDB's `descriptor` is the acknowledgement that lets it choose its point.
pub(crate) fn ends_page_copy(descriptor: &[u8]) -> bool {
    matches!(Descriptor::parse(descriptor), Ok(Descriptor::State(state))
        if state.state == SnapshotState::PageCopy && !state.start)
}

/// Whether InnoDB's `descriptor` says that it has chosen its point.
pub(crate) fn begins_redo_copy(descriptor: &[u8]) -> bool {
    matches!(Descriptor::parse(descriptor), Ok(Descriptor::State(state))
        if state.state == SnapshotState::RedoCopy && state.start && !state.ack)
}
