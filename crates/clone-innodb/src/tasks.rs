// SPDX-License-Identifier: GPL-2.0-only

//! What the tasks of a clone have in common on one side of it
//! (`clone0clone.cc:Clone_Task_Manager`): the state, which all of them leave together, the chunks
//! of the state, and the error of the first that failed.

pub(crate) mod chunks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_protocol::innodb::{Locator, MAX_TASKS, SnapshotState};

use crate::clock::{Cancel, Clock};
use crate::error::{Error, Result, is_network_error};
use crate::lock;
use chunks::{Chunks, Position};

/// Time between two keep-alives of a task that waits (`CLONE_DEF_ALERT_INTERVAL`).
pub(crate) const ALERT: Duration = Duration::from_secs(5);

/// When InnoDB gives up (`CLONE_DEF_TIMEOUT`).
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The first task.
pub(crate) const MASTER: u32 = 0;

/// The tasks of one side.
pub(crate) struct Tasks {
    clock: Arc<dyn Clock>,
    is_source: bool,
    shared: Mutex<Shared>,
}

struct Shared {
    state: SnapshotState,
    acknowledged: SnapshotState,
    /// The state that the tasks are about to enter.
    next: Option<SnapshotState>,
    tasks: BTreeMap<u32, Position>,
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

impl Tasks {
    pub(crate) fn new(clock: &Arc<dyn Clock>, is_source: bool) -> Self {
        Self {
            clock: Arc::clone(clock),
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

    pub(crate) fn state(&self) -> SnapshotState {
        self.shared().state
    }

    pub(crate) fn saved_error(&self) -> u32 {
        self.shared().saved_error
    }

    pub(crate) fn count(&self) -> usize {
        self.shared().tasks.len()
    }

    /// Notes an error; 0 is none. Any error takes the place of a network error, because then there
    /// is no restart to wait for.
    pub(crate) fn set_error(&self, error: u32) {
        if error != 0 {
            let mut shared = self.shared();
            if shared.saved_error == 0 || is_network_error(shared.saved_error) {
                shared.saved_error = error;
            }
            drop(shared);
            self.clock.notify();
        }
    }

    /// Fails if another task failed, or if this one is to stop.
    pub(crate) fn check_error(&self, cancel: &dyn Cancel) -> Result<()> {
        if cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        match self.saved_error() {
            0 => Ok(()),
            saved => Err(Error::OtherTask(saved)),
        }
    }

    /// Adds a task. A recipient's task waits for the state in which the donor was (`donor`).
    pub(crate) fn add(&self, cancel: &dyn Cancel, donor: Option<SnapshotState>) -> Result<u32> {
        self.check_error(cancel)?;
        let is_late = |shared: &Shared| donor.is_some_and(|donor| donor < shared.state);
        let has_waited = self.wait(
            cancel,
            || Ok(()),
            |shared| {
                let is_behind = match donor {
                    None => shared.state == SnapshotState::Init,
                    Some(donor) => {
                        shared.state != donor
                            || (donor == SnapshotState::FileCopy && !shared.metadata_transferred)
                    }
                };
                let may_begin = shared.next.is_none() && !is_behind;
                shared.tasks.is_empty() || may_begin || is_late(shared)
            },
        )?;
        if !has_waited {
            return Err(Error::internal("Clone Add task failed: Wait too long"));
        }
        let mut shared = self.shared();
        if is_late(&shared) {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid Locator: a task of an earlier state than {}",
                shared.state
            )));
        }
        let free = (0..MAX_TASKS).find(|task| !shared.tasks.contains_key(task));
        let free = free.ok_or_else(|| Error::internal("too many tasks of a clone"))?;
        shared.tasks.insert(free, Position::default());
        Ok(free)
    }

    /// Drops a task; the master waits for all others. True if a restart may follow.
    pub(crate) fn drop_task(&self, cancel: &dyn Cancel, task: u32) -> bool {
        {
            let mut shared = self.shared();
            if shared.next.is_some() {
                shared.transit = shared.transit.saturating_sub(1);
            }
            let at = shared.tasks.remove(&task).unwrap_or_default();
            if !self.is_source {
                shared.chunks.break_off(at);
            }
        }
        self.clock.notify();
        if task != MASTER {
            return false;
        }
        let deadline = self.clock.now() + TIMEOUT;
        loop {
            let seen = self.clock.notifications();
            if self.count() == 0 {
                return is_network_error(self.saved_error());
            }
            if cancel.is_cancelled() || self.clock.now() >= deadline {
                return false;
            }
            self.clock.wait(seen, deadline);
        }
    }

    /// Donor: a chunk to send and the block after which to begin; none if the state has no more.
    pub(crate) fn reserve(&self, cancel: &dyn Cancel, task: u32) -> Result<Option<Position>> {
        self.check_error(cancel)?;
        let mut shared = self.shared();
        *shared.position(task) = Position::default();
        Ok(shared.chunks.reserve())
    }

    /// Donor: the task sends a block.
    pub(crate) fn sent(&self, task: u32, at: Position) {
        *self.shared().position(task) = at;
    }

    /// Recipient: whether the present state has this chunk.
    pub(crate) fn check_chunk(&self, chunk: u32) -> Result<()> {
        let shared = self.shared();
        if shared.chunks.has(chunk) {
            return Ok(());
        }
        Err(Error::protocol(format!(
            "Wrong Clone RPC: Invalid Data Descriptor: chunk {chunk} of {} in {}",
            shared.chunks.total(),
            shared.state
        )))
    }

    /// Recipient: the task has applied a block.
    pub(crate) fn applied(&self, cancel: &dyn Cancel, task: u32, at: Position) -> Result<()> {
        let mut shared = self.shared();
        let is_new = shared.position(task).chunk != at.chunk;
        if is_new {
            shared.chunks.begin(at.chunk);
        }
        *shared.position(task) = at;
        drop(shared);
        if is_new { self.check_error(cancel) } else { Ok(()) }
    }

    /// Recipient: nothing comes of these chunks, whose file was dropped. For the task it looks as
    /// if it had applied the last of them, up to `block`.
    pub(crate) fn skipped(&self, task: u32, first: u32, last: u32, block: u32) {
        let mut shared = self.shared();
        if let Some(chunk) = shared.chunks.skip(first, last) {
            *shared.position(task) = Position { chunk, block };
        }
    }

    /// Recipient: all metadata of FILE_COPY arrived.
    pub(crate) fn all_metadata_arrived(&self) {
        self.shared().metadata_transferred = true;
        self.clock.notify();
    }

    /// Donor: whether the state's end has to be sent still. A recipient may have acknowledged it
    /// before a restart.
    pub(crate) fn needs_acknowledgement(&self, task: u32) -> bool {
        let mut shared = self.shared();
        if task != MASTER || shared.acknowledged != shared.state {
            return true;
        }
        shared.finished += 1;
        false
    }

    /// Donor: the recipient's word that all its tasks have finished the state.
    pub(crate) fn acknowledge(&self, state: SnapshotState) -> Result<()> {
        let mut shared = self.shared();
        if state != shared.state {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid State Descriptor: acknowledged {state} in {}",
                shared.state
            )));
        }
        shared.acknowledged = state;
        drop(shared);
        self.clock.notify();
        Ok(())
    }

    /// Donor: the task has sent the end of the state; the master waits for the acknowledgement.
    pub(crate) fn wait_for_acknowledgement(
        &self,
        cancel: &dyn Cancel,
        task: u32,
        keep_alive: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        {
            let mut shared = self.shared();
            shared.finished += 1;
            *shared.position(task) = Position::default();
        }
        if task != MASTER {
            return Ok(());
        }
        let came = self.wait(cancel, keep_alive, |shared| shared.acknowledged == shared.state)?;
        if came { Ok(()) } else { Err(Error::internal("Innodb clone state ack wait too long")) }
    }

    /// Recipient: the task has read the end of the state; the master waits for all others.
    pub(crate) fn finish_state(&self, cancel: &dyn Cancel, task: u32) -> Result<()> {
        {
            let mut shared = self.shared();
            if task != MASTER {
                shared.finished += 1;
            } else if shared.acknowledged != shared.state {
                shared.finished += 1;
                shared.acknowledged = shared.state;
            }
            *shared.position(task) = Position::default();
        }
        self.clock.notify();
        self.check_error(cancel)?;
        if task != MASTER {
            return Ok(());
        }
        let all = self.wait(cancel, || Ok(()), |shared| shared.finished >= shared.tasks.len())?;
        if all { Ok(()) } else { Err(Error::internal("Clone Apply Master wait timed out")) }
    }

    /// Enters the next state together with all other tasks. The master does the work, which gives
    /// the number of chunks.
    pub(crate) fn enter(
        &self,
        cancel: &dyn Cancel,
        task: u32,
        state: SnapshotState,
        mut keep_alive: impl FnMut() -> Result<()>,
        work: impl FnOnce() -> Result<u32>,
    ) -> Result<()> {
        self.check_error(cancel)?;
        {
            let mut shared = self.shared();
            *shared.position(task) = Position::default();
            if shared.next.is_none() {
                shared.transit = shared.tasks.len();
                shared.next = Some(state);
            }
            if task != MASTER {
                shared.transit = shared.transit.saturating_sub(1);
            }
        }
        self.clock.notify();
        if task != MASTER {
            return self.follow(cancel, state, keep_alive);
        }
        if !self.wait(cancel, &mut keep_alive, |shared| shared.transit <= 1)? {
            return Err(Error::internal("Clone: state change wait for other tasks timed out"));
        }
        let chunks = work()?;
        let outcome = self.check_error(cancel);
        let mut shared = self.shared();
        let chunks = shared.chunks.next(chunks)?;
        shared.state = state;
        shared.next = None;
        shared.transit = 0;
        shared.finished = 0;
        shared.chunks = chunks;
        drop(shared);
        self.clock.notify();
        outcome
    }

    /// A worker waits until the master has entered the state.
    fn follow(
        &self,
        cancel: &dyn Cancel,
        state: SnapshotState,
        keep_alive: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let followed = self.wait(cancel, keep_alive, |shared| shared.next != Some(state));
        let failed = match followed {
            Ok(true) => return Ok(()),
            Ok(false) => Error::internal("Clone: state change wait for master timed out"),
            Err(error) => error,
        };
        let mut shared = self.shared();
        if shared.saved_error == 0 {
            shared.saved_error = failed.number();
        }
        if shared.next.is_some() {
            shared.transit += 1;
        }
        Err(failed)
    }

    /// Donor: goes on with the same state, without what the recipient has of it
    /// (`reinit_copy_state`).
    ///
    /// # Errors
    /// The locator, which is the recipient's word, does not fit the clone.
    pub(crate) fn restart_source(&self, from: &Locator) -> Result<()> {
        let mut shared = self.shared();
        if !shared.tasks.is_empty() {
            return Err(Error::internal("restarted while tasks run"));
        }
        let mut chunks = shared.chunks.next(shared.chunks.total())?;
        let is_behind = from.state != shared.state;
        if is_behind && from.state.next() != Some(shared.state) {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid Locator: state {} in {}",
                from.state, shared.state
            )));
        }
        if let Some(progress) = from.progress.as_ref().filter(|_| !is_behind) {
            chunks.resume(progress)?;
        }
        shared.restart();
        shared.chunks = chunks;
        shared.sends_state_again = is_behind;
        if !is_behind {
            shared.metadata_transferred = from.metadata_transferred;
        }
        Ok(())
    }

    /// Recipient: adds to the locator what has arrived of the state (`reinit_apply_state`).
    pub(crate) fn restart_destination(&self, locator: &mut Locator) -> Result<()> {
        let mut shared = self.shared();
        if shared.tasks.len() != 1 {
            return Err(Error::internal("restarted while workers run"));
        }
        shared.restart();
        if shared.acknowledged == shared.state {
            shared.finished += 1;
        }
        if matches!(shared.state, SnapshotState::Init | SnapshotState::Done) {
            return Ok(());
        }
        let at = std::mem::take(shared.position(MASTER));
        shared.chunks.break_off(at);
        locator.state = shared.state;
        locator.metadata_transferred = shared.metadata_transferred;
        locator.progress = Some(shared.chunks.progress());
        Ok(())
    }

    /// Recipient: a state that another process has entered.
    ///
    /// # Errors
    /// The state has too many chunks.
    pub(crate) fn replay_state(&self, state: SnapshotState, chunks: u32) -> Result<()> {
        let mut shared = self.shared();
        shared.chunks = shared.chunks.next(chunks)?;
        shared.state = state;
        Ok(())
    }

    /// Recipient: all tasks of another process have finished the state.
    pub(crate) fn replay_end(&self) {
        let mut shared = self.shared();
        shared.acknowledged = shared.state;
        shared.tasks.clear();
    }

    /// Recipient: a block that another process has applied.
    pub(crate) fn replay_block(&self, task: u32, at: Position) {
        let mut shared = self.shared();
        if shared.position(task).chunk != at.chunk {
            shared.chunks.begin(at.chunk);
        }
        *shared.position(task) = at;
    }

    /// Recipient: a task of another process has ended.
    pub(crate) fn replay_break(&self, task: u32) {
        let mut shared = self.shared();
        if let Some(at) = shared.tasks.remove(&task) {
            shared.chunks.break_off(at);
        }
    }

    /// Recipient: the other process is gone, with all of its tasks.
    pub(crate) fn replay_is_over(&self) {
        let mut shared = self.shared();
        for at in std::mem::take(&mut shared.tasks).into_values() {
            shared.chunks.break_off(at);
        }
    }

    /// Donor: true once after a restart that found the recipient one state behind.
    pub(crate) fn takes_state_again(&self, task: u32) -> bool {
        let mut shared = self.shared();
        task == MASTER && std::mem::take(&mut shared.sends_state_again)
    }

    /// Donor: whether the recipient lacks metadata of FILE_COPY.
    pub(crate) fn is_metadata_missing(&self) -> bool {
        let shared = self.shared();
        shared.state == SnapshotState::FileCopy && !shared.metadata_transferred
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Waits until `is_done`, with a keep-alive every five seconds; false if it takes half an hour.
    /// Ends with the error of another task.
    fn wait(
        &self,
        cancel: &dyn Cancel,
        mut keep_alive: impl FnMut() -> Result<()>,
        is_done: impl Fn(&Shared) -> bool,
    ) -> Result<bool> {
        let deadline = self.clock.now() + TIMEOUT;
        let mut alert = self.clock.now() + ALERT;
        if is_done(&self.shared()) {
            return Ok(true);
        }
        loop {
            let seen = self.clock.notifications();
            self.check_error(cancel)?;
            if is_done(&self.shared()) {
                return Ok(true);
            }
            let now = self.clock.now();
            if now >= deadline {
                return Ok(false);
            }
            if now >= alert {
                keep_alive()?;
                alert = now + ALERT;
            } else {
                self.clock.wait(seen, alert.min(deadline));
            }
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared();
        f.debug_struct("Tasks")
            .field("state", &shared.state)
            .field("tasks", &shared.tasks.len())
            .field("restarts", &shared.restarts)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn position(&mut self, task: u32) -> &mut Position {
        self.tasks.entry(task).or_default()
    }

    fn restart(&mut self) {
        self.transit = 0;
        self.finished = 0;
        self.next = None;
        self.saved_error = 0;
        self.restarts += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
