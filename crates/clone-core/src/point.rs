// SPDX-License-Identifier: GPL-2.0-only

//! One point for all engines of a clone.
//!
//! A clone is the server at one moment. InnoDB chooses it: the end of the redo log that it copies, which it fixes when it goes from
//! PAGE COPY to REDO COPY. That step waits for an acknowledgement of the recipient, and the donor holds it back for as long as the
//! other engines need:
//!
//! ```text
//! donor, data connection                            recipient           donor, auxiliary connection
//! PAGE COPY of InnoDB, its end       ------->
//!                                                      ACK     ------->  noted; COMPLETE
//! other engines prepare (write out what they have in memory)
//! commits are blocked
//!   other engines fix their point (a last checkpoint)
//!   InnoDB gets the ACK, fixes its own, begins REDO COPY
//! commits go on
//! REDO COPY, then the others' data   ------->
//! ```
//! With no commit in between, what is committed in one engine at its point is committed in all of them, and in the binary log.
//!
//! All of it happens in the master's thread, inside InnoDB's callbacks: there it may block, an error ends the clone with its own text,
//! and a lost connection shows. A local clone does the same without the acknowledgement.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clone_protocol::innodb::{Descriptor, SnapshotState, State};

use crate::error::{Error, Result};
use crate::session::{CommitBlock, Engine, Host, Session, Side};
use crate::storage::Located;

/// The point of one clone, for the engines that follow InnoDB. It outlives connections.
#[derive(Debug)]
pub(crate) struct Point<E> {
    followers: Vec<Located<E>>,
    /// How long to wait for statements that run, seconds.
    timeout: u32,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// InnoDB's descriptor that the recipient has acknowledged the end of PAGE COPY with.
    acknowledged: Option<Vec<u8>>,
    standing: Standing,
    /// A task of the clone has failed with this error, which InnoDB knows or is told next.
    failed: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Open,
    /// The followers have it.
    Fixed,
    /// InnoDB has it too.
    Reached,
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
        (!followers.is_empty()).then(|| Self { followers, timeout, progress: Mutex::default() })
    }

    /// The recipient has acknowledged the end of PAGE COPY with `descriptor`. That stays true over a lost connection.
    pub(crate) fn acknowledge(&self, descriptor: &[u8]) {
        self.progress().acknowledged = Some(descriptor.to_vec());
    }

    /// What the recipient has acknowledged the end of PAGE COPY with.
    pub(crate) fn acknowledged(&self) -> Option<Vec<u8>> {
        self.progress().acknowledged.clone()
    }

    /// A task of the clone has failed, or the recipient. InnoDB knows it, or is about to: it is asked next.
    pub(crate) fn fail(&self, error: u32) {
        self.progress().failed = Some(error);
    }

    /// The number of the error for which there is nothing to come to a point for any more.
    pub(crate) fn failed(&self) -> Option<u32> {
        self.progress().failed
    }

    /// A connection goes on with the clone. What has failed before was the network.
    ///
    /// # Errors
    /// The one before broke when the followers had their point and InnoDB had not. It will choose a later one.
    pub(crate) fn resume(&self) -> Result<()> {
        let mut progress = self.progress();
        progress.failed = None;
        match progress.standing {
            Standing::Open | Standing::Reached => Ok(()),
            Standing::Fixed => Err(Error::Internal(
                "Clone lost its connection while its engines came to one point".to_owned(),
            )),
        }
    }

    /// Has the followers fix their point, while commits are blocked. `wait` is called before that, and as
    /// [`Session::block_commits`] says.
    ///
    /// # Errors
    /// The engines'; that of blocking commits; that of `wait`.
    pub(crate) fn fix<S>(
        &self,
        session: &S,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<S::CommitBlock>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        for one in &self.followers {
            one.engine.prepare_point(session, &one.locator)?;
        }
        // That may have been long. A recipient that has gone meanwhile can come back, until the point is fixed.
        wait()?;
        let block = session.block_commits(self.timeout, wait)?;
        session.host().log(Side::Server, "Commits are blocked until InnoDB begins REDO COPY");
        self.progress().standing = Standing::Fixed;
        for one in &self.followers {
            one.engine.fix_point(session, &one.locator)?;
        }
        Ok(block)
    }

    /// InnoDB says that it has fixed its point, and will say so again over another connection. `block` is what [`fix`](Point::fix) has
    /// given, the first time: commits go on.
    ///
    /// # Errors
    /// Commits went on in between, so that the points differ.
    pub(crate) fn let_commits_go<S>(&self, session: &S, block: Option<S::CommitBlock>) -> Result<()>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        let reached = self.reach(block.as_ref());
        if let Some(block) = block {
            drop(block);
            session.host().log(Side::Server, "Commits go on");
        }
        reached
    }

    /// Whether the point that InnoDB has fixed is the others'.
    fn reach(&self, block: Option<&impl CommitBlock>) -> Result<()> {
        let mut progress = self.progress();
        match (progress.standing, block) {
            (Standing::Reached, _) => Ok(()),
            (Standing::Fixed, Some(block)) if block.has_held() => {
                progress.standing = Standing::Reached;
                Ok(())
            }
            (Standing::Fixed, _) => Err(Error::Internal(
                "Clone: InnoDB took too long to begin REDO COPY, and commits could not be blocked any longer"
                    .to_owned(),
            )),
            (Standing::Open, _) => Err(Error::Internal(
                "Clone: InnoDB began REDO COPY before the other engines had come to its point"
                    .to_owned(),
            )),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a descriptor of InnoDB says about the point of the clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The donor has no more pages to copy, and will wait for the acknowledgement of that.
    PageCopyEnds,
    /// The acknowledgement, at which InnoDB will choose its point.
    PageCopyAcknowledged,
    /// InnoDB has chosen its point.
    RedoCopyBegins,
}

impl Sign {
    /// None for all other descriptors. A donor keeps its connection alive with descriptors that look like acknowledgements.
    pub(crate) fn of(descriptor: &[u8]) -> Option<Self> {
        let Ok(Descriptor::State(State { state, start, ack, .. })) = Descriptor::parse(descriptor)
        else {
            return None;
        };
        match (state, start, ack) {
            (SnapshotState::PageCopy, false, false) => Some(Self::PageCopyEnds),
            (SnapshotState::PageCopy, false, true) => Some(Self::PageCopyAcknowledged),
            (SnapshotState::RedoCopy, true, false) => Some(Self::RedoCopyBegins),
            _ => None,
        }
    }
}

/// What keeps the connection alive while the recipient waits: InnoDB's own form of it (`clone0copy.cc:send_keep_alive`).
pub(crate) fn keep_alive() -> Vec<u8> {
    let state = State {
        state: SnapshotState::PageCopy,
        task: 0,
        chunks: 0,
        files: 0,
        estimate: 0,
        estimate_disk: 0,
        start: false,
        ack: true,
    };
    let mut descriptor = Vec::new();
    Descriptor::State(state).encode(&mut descriptor);
    descriptor
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// Whether it has held.
    struct Block(bool);

    impl CommitBlock for Block {
        fn has_held(&self) -> bool {
            self.0
        }
    }

    fn point(standing: Standing) -> Point<()> {
        let progress = Progress { standing, ..Progress::default() };
        Point { followers: Vec::new(), timeout: 0, progress: Mutex::new(progress) }
    }

    fn descriptor(state: SnapshotState, start: bool, ack: bool) -> Vec<u8> {
        let (task, chunks, files) = (0, 1, 1);
        let (estimate, estimate_disk) = (1000, 1000);
        let mut bytes = Vec::new();
        let state = State { state, task, chunks, files, estimate, estimate_disk, start, ack };
        Descriptor::State(state).encode(&mut bytes);
        bytes
    }

    #[test]
    fn innodb_reaches_the_point_while_commits_are_blocked() {
        let fixed = point(Standing::Fixed);
        assert!(fixed.resume().is_err(), "commits have gone on");
        fixed.reach(Some(&Block(true))).unwrap();
        fixed.resume().unwrap();
        // Over another connection REDO COPY begins once more.
        fixed.reach(None::<&Block>).unwrap();
    }

    #[test]
    fn innodb_misses_the_point() {
        let late = point(Standing::Fixed);
        let error = late.reach(Some(&Block(false))).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(late.resume().is_err(), "not over another connection either");
        for standing in [Standing::Open, Standing::Fixed] {
            assert!(point(standing).reach(None::<&Block>).is_err(), "nobody blocks commits");
        }
        assert!(point(Standing::Open).reach(Some(&Block(true))).is_err(), "nobody follows");
    }

    #[test]
    fn failures_are_forgotten_with_the_connection() {
        let open = point(Standing::Open);
        open.acknowledge(b"once");
        open.fail(1160);
        assert_eq!(open.failed(), Some(1160));
        open.resume().unwrap();
        assert_eq!(open.failed(), None);
        assert_eq!(
            open.acknowledged().as_deref(),
            Some(&b"once"[..]),
            "the recipient has all pages"
        );
    }

    #[test]
    fn signs_are_told_from_what_looks_like_them() {
        use SnapshotState::{Done, FileCopy, Init, PageCopy, RedoCopy};
        for state in [Init, FileCopy, PageCopy, RedoCopy, Done] {
            for (start, ack) in [(false, false), (false, true), (true, false), (true, true)] {
                let expected = match (state, start, ack) {
                    (PageCopy, false, false) => Some(Sign::PageCopyEnds),
                    (PageCopy, false, true) => Some(Sign::PageCopyAcknowledged),
                    (RedoCopy, true, false) => Some(Sign::RedoCopyBegins),
                    _ => None,
                };
                assert_eq!(Sign::of(&descriptor(state, start, ack)), expected, "{state}");
            }
        }
        assert_eq!(Sign::of(b""), None);
    }

    #[test]
    fn recipients_take_a_keep_alive_for_what_it_is() {
        let alive = keep_alive();
        let parsed = Descriptor::parse(&alive).unwrap();
        assert!(matches!(parsed, Descriptor::State(state) if state.ack && !state.start));
    }
}
