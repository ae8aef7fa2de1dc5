// SPDX-License-Identifier: GPL-2.0-only

//! What the tasks of a clone have in common on one side of it (`clone0clone.cc:Clone_Task_Manager`): the state, which all of them
//! leave together, the chunks of the state, and the error of the first that failed.

mod chunks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::error::{Error, Result, number};
use clone_protocol::innodb::{Locator, MAX_TASKS, SnapshotState};

use super::{internal, interrupted};
use crate::sim::scheduler::{Key, Scheduler};
use crate::sim::session::SimSession;
use chunks::{Chunks, Task};

/// Time between two keep-alives, or log lines, of a task that waits (`CLONE_DEF_ALERT_INTERVAL`).
pub(super) const ALERT: Duration = Duration::from_secs(5);

/// When InnoDB gives up (`CLONE_DEF_TIMEOUT`).
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The tasks of one side.
pub(super) struct Tasks {
    sim: Arc<Scheduler>,
    key: Key,
    is_source: bool,
    shared: Mutex<Shared>,
}

struct Shared {
    state: SnapshotState,
    acknowledged: SnapshotState,
    /// The state that the tasks are about to enter.
    next: Option<SnapshotState>,
    tasks: BTreeMap<u32, Task>,
    /// Tasks that have finished the state.
    finished: usize,
    /// Tasks that have not asked for the next state yet.
    transit: usize,
    chunks: Chunks,
    saved_error: u32,
    metadata_transferred: bool,
    sends_state_again: bool,
    restarts: u32,
}

/// The first task.
pub(super) const MASTER: u32 = 0;

impl Tasks {
    pub(super) fn new(sim: &Arc<Scheduler>, is_source: bool) -> Self {
        Self {
            sim: Arc::clone(sim),
            key: sim.key(),
            is_source,
            shared: Mutex::new(Shared {
                state: SnapshotState::Init,
                acknowledged: SnapshotState::None,
                next: None,
                tasks: BTreeMap::new(),
                finished: 0,
                transit: 0,
                chunks: Chunks::default(),
                saved_error: 0,
                metadata_transferred: false,
                sends_state_again: false,
                restarts: 0,
            }),
        }
    }

    pub(super) fn state(&self) -> SnapshotState {
        self.shared().state
    }

    pub(super) fn saved_error(&self) -> u32 {
        self.shared().saved_error
    }

    /// Any error takes the place of a network error: then there is no restart to wait for.
    pub(super) fn set_error(&self, error: u32) {
        if error != 0 {
            let mut shared = self.shared();
            if shared.saved_error == 0 || Error::Raised(shared.saved_error).is_network() {
                shared.saved_error = error;
            }
            drop(shared);
            self.sim.notify(self.key);
        }
    }

    /// Fails if another task failed, or this one was killed. Raises what InnoDB raises, which is not always what it returns, and
    /// nothing at all for an error of the donor.
    pub(super) fn check_error(&self, session: &SimSession) -> Result<()> {
        if session.handle.is_killed() {
            return Err(interrupted(session));
        }
        let saved = self.saved_error();
        match saved {
            0 => return Ok(()),
            number::ER_CLONE_DONOR => {}
            number::ER_QUERY_INTERRUPTED
            | number::ER_NET_PACKET_TOO_LARGE..=number::ER_NET_WRITE_INTERRUPTED
            | number::ER_NET_WAIT_ERROR
            | number::ER_ERROR_ON_READ
            | number::ER_ERROR_ON_WRITE => {
                session.raise_text(saved, "of another task");
            }
            _ => {
                internal(session, "Innodb Clone error in concurrent task");
            }
        }
        Err(Error::Raised(saved))
    }

    /// Adds a task. A recipient's waits for the state in which the donor was, which `donor` tells.
    pub(super) fn add(&self, session: &SimSession, donor: Option<SnapshotState>) -> Result<u32> {
        self.check_error(session)?;
        let has_waited = self.wait(
            session,
            |_| Ok(()),
            |shared| {
                let waits = !shared.tasks.is_empty()
                    && (shared.next.is_some()
                        || match donor {
                            None => shared.state == SnapshotState::Init,
                            Some(donor) => {
                                assert!(shared.state <= donor, "{} after {donor}", shared.state);
                                shared.state != donor
                                    || (donor == SnapshotState::FileCopy
                                        && !shared.metadata_transferred)
                            }
                        });
                !waits
            },
        )?;
        if !has_waited {
            return Err(internal(session, "Clone Add task failed: Wait too long"));
        }
        let mut shared = self.shared();
        let free = (0..MAX_TASKS).find(|task| !shared.tasks.contains_key(task)).unwrap();
        shared.tasks.insert(free, Task::default());
        Ok(free)
    }

    /// Drops a task; the master waits for all others. True if a restart may follow.
    pub(super) fn drop_task(&self, session: &SimSession, task: u32) -> bool {
        {
            let mut shared = self.shared();
            if shared.next.is_some() {
                shared.transit -= 1;
            }
            let at = shared.tasks.remove(&task).expect("a task that has not ended");
            if !self.is_source {
                shared.chunks.break_off(at);
            }
        }
        self.sim.notify(self.key);
        if task != MASTER {
            return false;
        }
        let deadline = self.sim.now() + TIMEOUT;
        while !self.shared().tasks.is_empty() {
            if session.handle.is_killed() || self.sim.now() >= deadline {
                return false;
            }
            self.sim.wait(self.key, Some(deadline));
        }
        Error::Raised(self.saved_error()).is_network()
    }

    /// A chunk to send, and the block after which to begin; none when the state has no more.
    pub(super) fn reserve(&self, session: &SimSession, task: u32) -> Result<Option<(u32, u32)>> {
        self.check_error(session)?;
        let mut shared = self.shared();
        *shared.task(task) = Task::default();
        let fresh = shared.chunks.first_free();
        let begun =
            shared.chunks.incomplete.first_key_value().map(|(chunk, block)| (*chunk, *block));
        Ok(match (fresh, begun) {
            (Some(fresh), Some((chunk, _))) if fresh < chunk => shared.chunks.reserve(fresh),
            (Some(fresh), None) => shared.chunks.reserve(fresh),
            (_, Some((chunk, block))) => {
                shared.chunks.incomplete.remove(&chunk);
                Some((chunk, block))
            }
            (None, None) => None,
        })
    }

    /// The donor's task has sent a block.
    pub(super) fn sent(&self, task: u32, chunk: u32, block: u32) {
        *self.shared().task(task) = Task { chunk, block };
    }

    /// The recipient's task has applied a block.
    pub(super) fn applied(
        &self,
        session: &SimSession,
        task: u32,
        chunk: u32,
        block: u32,
    ) -> Result<()> {
        let mut shared = self.shared();
        let is_new = shared.task(task).chunk != chunk;
        if is_new {
            // Outside its bitmap InnoDB crashes.
            shared.chunks.reserved[chunk as usize - 1] = true;
            shared.chunks.incomplete.remove(&chunk);
        }
        *shared.task(task) = Task { chunk, block };
        drop(shared);
        if is_new { self.check_error(session) } else { Ok(()) }
    }

    pub(super) fn all_metadata_arrived(&self) {
        self.shared().metadata_transferred = true;
        self.sim.notify(self.key);
    }

    /// Donor: whether the state's end has to be sent still; a recipient may have acknowledged it before a restart.
    pub(super) fn needs_acknowledgement(&self, task: u32) -> bool {
        let mut shared = self.shared();
        if task != MASTER || shared.acknowledged != shared.state {
            return true;
        }
        assert!(shared.restarts > 0);
        shared.finished += 1;
        false
    }

    /// Donor: the recipient's word that all its tasks have finished the state.
    pub(super) fn acknowledge(&self, state: SnapshotState) {
        let mut shared = self.shared();
        assert_eq!(state, shared.state, "acknowledged another state");
        shared.acknowledged = state;
        drop(shared);
        self.sim.notify(self.key);
    }

    /// Donor: the task has sent the end of the state; the master waits for the acknowledgement.
    pub(super) fn wait_for_acknowledgement(
        &self,
        session: &SimSession,
        task: u32,
        keep_alive: impl FnMut(&SimSession) -> Result<()>,
    ) -> Result<()> {
        {
            let mut shared = self.shared();
            shared.finished += 1;
            *shared.task(task) = Task::default();
        }
        if task != MASTER {
            return Ok(());
        }
        let came = self.wait(session, keep_alive, |shared| shared.acknowledged == shared.state)?;
        if came { Ok(()) } else { Err(internal(session, "Innodb clone state ack wait too long")) }
    }

    /// Recipient: the task has read the end of the state; the master waits for all others.
    pub(super) fn finish_state(&self, session: &SimSession, task: u32) -> Result<()> {
        {
            let mut shared = self.shared();
            if task != MASTER {
                shared.finished += 1;
            } else if shared.acknowledged == shared.state {
                assert!(shared.restarts > 0);
            } else {
                shared.finished += 1;
                shared.acknowledged = shared.state;
            }
            *shared.task(task) = Task::default();
        }
        self.sim.notify(self.key);
        self.check_error(session)?;
        if task != MASTER {
            return Ok(());
        }
        let all = self.wait(session, |_| Ok(()), |shared| shared.finished >= shared.tasks.len())?;
        if all { Ok(()) } else { Err(internal(session, "Clone Apply Master wait timed out")) }
    }

    /// Enters the next state together with all other tasks. The master does the work, which is to give the number of chunks.
    pub(super) fn enter(
        &self,
        session: &SimSession,
        task: u32,
        state: SnapshotState,
        mut keep_alive: impl FnMut(&SimSession) -> Result<()>,
        work: impl FnOnce() -> Result<u32>,
    ) -> Result<()> {
        self.check_error(session)?;
        {
            let mut shared = self.shared();
            *shared.task(task) = Task::default();
            if shared.next.is_none() {
                shared.transit = shared.tasks.len();
                shared.next = Some(state);
            }
            if task != MASTER {
                shared.transit -= 1;
            }
        }
        self.sim.notify(self.key);
        if task != MASTER {
            let followed = self.wait(session, keep_alive, |shared| shared.next != Some(state));
            return match followed {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => {
                    let mut shared = self.shared();
                    let failed = followed.err().unwrap_or(Error::Raised(number::ER_INTERNAL_ERROR));
                    if shared.saved_error == 0 {
                        shared.saved_error = failed.number();
                    }
                    if shared.next.is_some() {
                        shared.transit += 1;
                    }
                    Err(failed)
                }
            };
        }
        if !self.wait(session, &mut keep_alive, |shared| shared.transit <= 1)? {
            return Err(internal(session, "Clone: state change wait for other tasks timed out"));
        }
        let chunks = work()?;
        let outcome = self.check_error(session);
        let mut shared = self.shared();
        shared.state = state;
        shared.next = None;
        shared.transit = 0;
        shared.finished = 0;
        shared.chunks = Chunks::new(chunks);
        drop(shared);
        self.sim.notify(self.key);
        outcome
    }

    /// Donor: goes on with the same state, without what the recipient has of it (`reinit_copy_state`).
    pub(super) fn restart_source(&self, from: &Locator) {
        let mut shared = self.shared();
        assert!(shared.tasks.is_empty(), "restarted while tasks run");
        shared.restart();
        let chunks = shared.chunks.reserved.len();
        shared.chunks = Chunks::new(u32::try_from(chunks).unwrap());
        if from.state != shared.state {
            assert_eq!(from.state.next(), Some(shared.state), "the recipient is one state behind");
            shared.sends_state_again = true;
            return;
        }
        shared.sends_state_again = false;
        shared.metadata_transferred = from.metadata_transferred;
        if let Some(progress) = &from.progress {
            for (chunk, reserved) in (1..).zip(&mut shared.chunks.reserved) {
                *reserved = progress.is_reserved(chunk);
            }
            let incomplete = progress.incomplete.iter();
            shared.chunks.incomplete = incomplete.map(|one| (one.chunk, one.block)).collect();
        }
    }

    /// Recipient: what has arrived of the state (`reinit_apply_state`).
    pub(super) fn restart_destination(&self, locator: &mut Locator) {
        let mut shared = self.shared();
        assert_eq!(shared.tasks.len(), 1, "restarted while workers run");
        shared.restart();
        if shared.acknowledged == shared.state {
            shared.finished += 1;
        }
        if matches!(shared.state, SnapshotState::Init | SnapshotState::Done) {
            return;
        }
        let at = std::mem::take(shared.task(MASTER));
        shared.chunks.break_off(at);
        locator.state = shared.state;
        locator.metadata_transferred = shared.metadata_transferred;
        locator.progress = Some(shared.chunks.progress());
    }

    /// Once after a restart that found the recipient one state behind.
    pub(super) fn takes_state_again(&self, task: u32) -> bool {
        let mut shared = self.shared();
        task == MASTER && std::mem::take(&mut shared.sends_state_again)
    }

    pub(super) fn is_metadata_missing(&self) -> bool {
        let shared = self.shared();
        shared.state == SnapshotState::FileCopy && !shared.metadata_transferred
    }

    pub(super) fn count(&self) -> usize {
        self.shared().tasks.len()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Waits until `is_done`, with a keep-alive every five seconds; false if it takes half an hour. Ends with the error of another
    /// task.
    fn wait(
        &self,
        session: &SimSession,
        mut keep_alive: impl FnMut(&SimSession) -> Result<()>,
        is_done: impl Fn(&Shared) -> bool,
    ) -> Result<bool> {
        let deadline = self.sim.now() + TIMEOUT;
        let mut alert = self.sim.now() + ALERT;
        if is_done(&self.shared()) {
            return Ok(true);
        }
        loop {
            self.check_error(session)?;
            if is_done(&self.shared()) {
                return Ok(true);
            }
            let now = self.sim.now();
            if now >= deadline {
                return Ok(false);
            }
            if now >= alert {
                keep_alive(session)?;
                alert = now + ALERT;
            } else {
                self.sim.wait(self.key, Some(alert.min(deadline)));
            }
        }
    }
}

impl Shared {
    fn task(&mut self, task: u32) -> &mut Task {
        self.tasks.get_mut(&task).expect("a task that has not ended")
    }

    fn restart(&mut self) {
        self.transit = 0;
        self.finished = 0;
        self.next = None;
        self.saved_error = 0;
        self.restarts += 1;
    }
}
