// SPDX-License-Identifier: GPL-2.0-only

//! One consistency point for all engines of a clone.
//!
//! A clone shows the server at one moment. InnoDB chooses the moment: the end of the redo log that
//! it copies, which InnoDB fixes when it goes from PAGE COPY to REDO COPY. InnoDB waits for an
//! acknowledgement of the recipient before that step. The donor holds the acknowledgement back for
//! as long as the other engines, the *followers*, need:
//!
//! ```text
//! donor, data connection                          recipient           donor, auxiliary connection
//! PAGE COPY of InnoDB, its end       ------->
//!                                                    ACK     ------->  noted; COMPLETE
//! other engines prepare (write out what they have in memory)
//! commits are blocked
//!   other engines fix their point (a last checkpoint)
//!   InnoDB gets the ACK, fixes its own, begins REDO COPY
//! commits go on
//! REDO COPY, then the others' data   ------->
//! ```
//! No transaction commits in between. So what is committed in one engine at the point is committed
//! in all of them, and in the binary log.
//!
//! Everything happens in the master's thread, inside InnoDB's callbacks. The thread may block in a
//! callback, an error of a callback ends the clone with its own text, and a lost connection is
//! noticed. A local clone does the same without the acknowledgement.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_protocol::innodb::{Descriptor, SnapshotState, State};

use crate::engine::ServerEngine;
use crate::error::{Error, Result};
use crate::log_target::SERVER;
use crate::session::{Clock, CommitBlock, ServerSession, Session};
use crate::tasks::EngineClone;
use crate::traffic::sleep_until;

/// How often a donor looks for the acknowledgement that it waits for.
const POLL: Duration = Duration::from_millis(10);

/// How long a donor waits for the acknowledgement: as long as InnoDB does.
const ACKNOWLEDGEMENT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The consistency point of one clone, for the engines that follow InnoDB. It can outlive a
/// connection.
#[derive(Debug)]
pub(crate) struct ConsistencyPoint<E> {
    followers: Vec<EngineClone<E>>,
    /// The longest wait for running statements, in seconds.
    timeout: u32,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// InnoDB's descriptor with which the recipient has acknowledged the end of PAGE COPY.
    acknowledgement: Option<Vec<u8>>,
    state: PointState,
    /// A task of the clone has failed with this error. InnoDB knows the error, or is told next.
    failed: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PointState {
    #[default]
    Open,
    /// The followers have fixed the point.
    Fixed,
    /// InnoDB has fixed the same point.
    Reached,
}

impl<E> ConsistencyPoint<E> {
    /// The point of a clone in these engines; none if InnoDB is alone. `timeout` is the longest
    /// wait for running statements, in seconds.
    pub(crate) fn of<S>(clones: &[EngineClone<E>], timeout: u32) -> Option<Self>
    where
        S: Session<Engine = E>,
        E: ServerEngine<S>,
    {
        let followers: Vec<_> = clones.iter().filter(|one| one.engine.follows()).cloned().collect();
        (!followers.is_empty()).then(|| Self { followers, timeout, progress: Mutex::default() })
    }

    /// The recipient has acknowledged the end of PAGE COPY with `descriptor`. The acknowledgement
    /// stays valid after the connection is lost.
    pub(crate) fn acknowledge(&self, descriptor: &[u8]) {
        self.progress().acknowledgement = Some(descriptor.to_vec());
    }

    /// A task of the clone or the recipient has failed with `error`. InnoDB knows that, or is told
    /// next.
    pub(crate) fn fail(&self, error: u32) {
        self.progress().failed = Some(error);
    }

    /// A new connection goes on with the clone, after a failure of the network.
    ///
    /// # Errors
    /// The previous connection broke after the followers had fixed their point and before InnoDB
    /// had. InnoDB's point would be a later one, so the clone must fail.
    pub(crate) fn resume(&self) -> Result<()> {
        let mut progress = self.progress();
        progress.failed = None;
        match progress.state {
            PointState::Open | PointState::Reached => Ok(()),
            PointState::Fixed => Err(Error::Internal(
                "Clone lost its connection while its engines came to one point".to_owned(),
            )),
        }
    }

    /// Waits for the acknowledgement, then has the followers fix their point ([`fix`](Self::fix)).
    /// Returns the block of commits, and the acknowledgement, which InnoDB must get now. None if a
    /// task of the clone has failed meanwhile.
    ///
    /// # Errors
    /// Those of [`fix`](Self::fix) and `keep_alive`; no acknowledgement came in time.
    pub(crate) fn reach<S>(
        &self,
        session: &S,
        keep_alive: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<(S::CommitBlock, Vec<u8>)>>
    where
        S: ServerSession<Engine = E>,
        E: ServerEngine<S>,
    {
        let host = session.host();
        let deadline = host.now() + ACKNOWLEDGEMENT_LIMIT;
        let acknowledgement = loop {
            let (failed, acknowledgement) = {
                let progress = self.progress();
                (progress.failed, progress.acknowledgement.clone())
            };
            match acknowledgement {
                _ if failed.is_some() => return Ok(None),
                Some(acknowledgement) => break acknowledgement,
                None if host.now() > deadline => {
                    return Err(Error::Internal(
                        "Clone: the recipient did not acknowledge PAGE COPY in time".to_owned(),
                    ));
                }
                None => keep_alive()?,
            }
            sleep_until(session, host.now() + POLL)?;
        };
        let block = self.fix(session, &mut || self.keep_alive_unless_failed(keep_alive))?;
        Ok(Some((block, acknowledgement)))
    }

    /// Calls `keep_alive`, without the lock: to send a packet to the recipient may take long.
    ///
    /// # Errors
    /// That of `keep_alive`; a task of the clone has failed.
    fn keep_alive_unless_failed(&self, keep_alive: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let failed = self.progress().failed;
        match failed.map(Error::Raised) {
            None => keep_alive(),
            // The clone may go on over another connection.
            Some(error) if error.is_network() => Err(error),
            Some(_) => Err(Error::Internal("Clone error in another task".to_owned())),
        }
    }

    /// Has the followers fix their point, while commits are blocked. `wait` is called before that,
    /// and as [`ServerSession::block_commits`] says.
    ///
    /// # Errors
    /// The engines'; that of blocking commits; that of `wait`.
    pub(crate) fn fix<S>(
        &self,
        session: &S,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<S::CommitBlock>
    where
        S: ServerSession<Engine = E>,
        E: ServerEngine<S>,
    {
        for one in &self.followers {
            one.engine.prepare_point(session, &one.locator)?;
        }
        // `prepare_point` may take long. If the connection broke meanwhile, fail now: the recipient
        // can reconnect and go on as long as the point is not fixed.
        wait()?;
        let block = session.block_commits(self.timeout, wait)?;
        log::info!(target: SERVER, "Commits are blocked until InnoDB begins REDO COPY");
        self.progress().state = PointState::Fixed;
        for one in &self.followers {
            one.engine.fix_point(session, &one.locator)?;
        }
        Ok(block)
    }

    /// InnoDB has fixed its point: lets commits go on. `block` is the result of [`fix`](Self::fix).
    /// After a reconnect InnoDB says again that it has fixed its point; then there is no `block`.
    ///
    /// # Errors
    /// Commits went on too early, so that the points differ.
    pub(crate) fn unblock_commits(&self, block: Option<impl CommitBlock>) -> Result<()> {
        let reached = self.check_reached(block.as_ref());
        if let Some(block) = block {
            drop(block);
            log::info!(target: SERVER, "Commits go on");
        }
        reached
    }

    /// Whether InnoDB has fixed the same point as the followers.
    fn check_reached(&self, block: Option<&impl CommitBlock>) -> Result<()> {
        let mut progress = self.progress();
        match (progress.state, block) {
            (PointState::Reached, _) => Ok(()),
            (PointState::Fixed, Some(block)) if block.has_held() => {
                progress.state = PointState::Reached;
                Ok(())
            }
            (PointState::Fixed, _) => Err(Error::Internal(
                "Clone: InnoDB took too long to begin REDO COPY, and commits could not be blocked any longer"
                    .to_owned(),
            )),
            (PointState::Open, _) => Err(Error::Internal(
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
pub(crate) enum PointEvent {
    /// The donor has no more pages to copy, and will wait until the recipient acknowledges that.
    PageCopyEnds,
    /// The acknowledgement, at which InnoDB will choose its point.
    PageCopyAcknowledged,
    /// InnoDB has chosen its point.
    RedoCopyBegins,
}

impl PointEvent {
    /// The event of a descriptor; none for most. A keep-alive of the donor has the form of an
    /// acknowledgement.
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

/// The descriptor that keeps the connection alive while the recipient waits. InnoDB uses the same
/// form (`clone0copy.cc:send_keep_alive`).
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
    use crate::error::number;

    /// A block of commits, and whether it has held.
    struct Block(bool);

    impl CommitBlock for Block {
        fn has_held(&self) -> bool {
            self.0
        }
    }

    fn point(state: PointState) -> ConsistencyPoint<()> {
        let progress = Progress { state, ..Progress::default() };
        ConsistencyPoint { followers: Vec::new(), timeout: 0, progress: Mutex::new(progress) }
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
        let fixed = point(PointState::Fixed);
        assert!(fixed.resume().is_err(), "commits have gone on");
        fixed.check_reached(Some(&Block(true))).unwrap();
        fixed.resume().unwrap();
        // Over another connection REDO COPY begins once more.
        fixed.check_reached(None::<&Block>).unwrap();
    }

    #[test]
    fn innodb_misses_the_point() {
        let late = point(PointState::Fixed);
        let error = late.check_reached(Some(&Block(false))).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(late.resume().is_err(), "not over another connection either");
        for state in [PointState::Open, PointState::Fixed] {
            assert!(point(state).check_reached(None::<&Block>).is_err(), "nobody blocks commits");
        }
        assert!(
            point(PointState::Open).check_reached(Some(&Block(true))).is_err(),
            "nobody follows"
        );
    }

    #[test]
    fn another_task_can_fail_while_a_keep_alive_is_sent() {
        let open = point(PointState::Open);
        let mut keep_alive = || {
            // `fail` would wait for the lock for as long as the recipient takes nothing.
            assert!(open.progress.try_lock().is_ok(), "locked while a packet is sent");
            open.fail(number::ER_QUERY_INTERRUPTED);
            Ok(())
        };
        open.keep_alive_unless_failed(&mut keep_alive).unwrap();
        assert!(open.keep_alive_unless_failed(&mut || Ok(())).is_err(), "the failure is known");
    }

    #[test]
    fn failures_are_forgotten_with_the_connection() {
        let open = point(PointState::Open);
        open.acknowledge(b"once");
        open.fail(1160);
        assert_eq!(open.progress().failed, Some(1160));
        open.resume().unwrap();
        assert_eq!(open.progress().failed, None);
        assert_eq!(
            open.progress().acknowledgement.as_deref(),
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
                    (PageCopy, false, false) => Some(PointEvent::PageCopyEnds),
                    (PageCopy, false, true) => Some(PointEvent::PageCopyAcknowledged),
                    (RedoCopy, true, false) => Some(PointEvent::RedoCopyBegins),
                    _ => None,
                };
                assert_eq!(PointEvent::of(&descriptor(state, start, ack)), expected, "{state}");
            }
        }
        assert_eq!(PointEvent::of(b""), None);
    }

    #[test]
    fn recipients_take_a_keep_alive_for_what_it_is() {
        let alive = keep_alive();
        let parsed = Descriptor::parse(&alive).unwrap();
        assert!(matches!(parsed, Descriptor::State(state) if state.ack && !state.start));
    }
}
