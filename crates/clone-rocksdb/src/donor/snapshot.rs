// SPDX-License-Identifier: GPL-2.0-only

//! One clone at the donor.
//!
//! ```text
//! Initial ──► Rolling ──────────────► Final ──────────────────► FinalWithLogs
//!             SSTs of a checkpoint,   the last checkpoint,       logs, cut at one point;
//!             renewed when it ages    file deletions disabled    then every task is
//!                                                                done when no file is left
//! ```
//! A clone whose point is chosen for several engines goes through Final in one step, before any
//! file is sent. Never backwards, not even in a restart: what was true of the files stays true.
//!
//! All tasks run the same loop and ask [`Snapshot::next`] what to do. Whatever has to be done once
//! is done by the task that finds it undone, with the lock held; the last checkpoint and the logs
//! are the main task's.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use clone_engine::Cancel;
use clone_engine::Error;
use clone_engine::Result;
use clone_engine::Tasks;
use clone_engine::number;
use clone_protocol::rocksdb::CloneId;
use clone_protocol::rocksdb::FileState;

use super::DonorOptions;
use super::checkpoint::Checkpoints;
use super::checkpoint::Listed;
use super::files::Files;
use super::files::Kind;
use super::files::Taken;
use crate::database::Database;
use crate::database::WalFile;

/// How often a waiting task looks whether it was killed.
const POLL: Duration = Duration::from_millis(100);

/// What the donor knows of one clone ("snapshot" is upstream's and InnoDB's word for it).
pub(super) struct Snapshot {
    pub(super) id: CloneId,
    pub(super) tasks: Tasks,
    options: DonorOptions,
    /// There is a failure. Beside the lock, because a new checkpoint holds that for as long as
    /// RocksDB needs for it, and the other tasks look here before each chunk.
    has_failed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    files: Files,
    checkpoints: Checkpoints,
    /// What the recipient was not told yet, in bytes.
    estimate: u64,
    /// It may not have got the last one, and waits for one even if it is of 0 bytes.
    owes_estimate: bool,
    /// Why the clone has failed. Every task ends with it.
    failure: Option<Error>,
    main: Main,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Initial,
    Rolling,
    Final,
    FinalWithLogs,
}

/// Where the main task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Main {
    Working,
    /// It lost its connection and all tasks have left: another main task may go on.
    AwaitsRestart,
    Ended,
}

/// What a task is to do next.
pub(super) enum Step {
    /// Tell the recipient of so many more bytes.
    Estimate(u64),
    /// Send a file.
    Send(Taken),
    /// Nothing is left.
    Done,
}

impl Snapshot {
    pub(super) fn new(
        id: CloneId,
        database: Arc<dyn Database>,
        options: DonorOptions,
    ) -> Result<Self> {
        let tasks = Tasks::new();
        tasks.add_main();
        Ok(Self {
            id,
            tasks,
            options,
            has_failed: AtomicBool::new(false),
            state: Mutex::new(State {
                phase: Phase::Initial,
                files: Files::default(),
                checkpoints: Checkpoints::new(database, id)?,
                estimate: 0,
                owes_estimate: false,
                failure: None,
                main: Main::Working,
            }),
            changed: Condvar::new(),
        })
    }

    /// What `task` does next. Waits while the main task has yet to make the last checkpoint.
    pub(super) fn next(&self, session: &dyn Cancel, task: u32) -> Result<Step> {
        let mut state = self.state();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            if std::mem::take(&mut state.owes_estimate) || state.estimate != 0 {
                return Ok(Step::Estimate(std::mem::take(&mut state.estimate)));
            }
            let is_main = task == Tasks::MAIN;
            match state.phase {
                Phase::Initial => {
                    state.renew()?;
                    continue;
                }
                // At once after the last checkpoint: what no log has is lost between the two.
                Phase::Final if is_main => {
                    state.cut()?;
                    self.changed.notify_all();
                    continue;
                }
                _ => {}
            }
            // Choosing and opening a file is one step, so that no other task can renew the
            // checkpoint in between.
            if let Some(taken) = state.take()? {
                return Ok(Step::Send(taken));
            }
            if state.phase == Phase::Rolling && is_main {
                state.make_final()?;
                self.changed.notify_all();
                continue;
            }
            // The main task sees what becomes of the others' files: when it is done, all are sent.
            if state.phase == Phase::FinalWithLogs && (!is_main || state.files.are_all_sent()) {
                return Ok(Step::Done);
            }
            state = self.wait(state, POLL);
        }
    }

    /// An estimate was not sent.
    pub(super) fn return_estimate(&self, bytes: u64) {
        self.state().estimate += bytes;
    }

    /// All of `taken` is sent: a good moment to renew the checkpoint.
    pub(super) fn sent(&self, taken: &Taken) -> Result<()> {
        let mut state = self.state();
        state.files.sent(taken);
        if state.files.are_all_sent() {
            self.changed.notify_all();
        }
        if state.phase == Phase::Rolling && state.checkpoints.is_due(&self.options) {
            state.renew()?;
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Makes a checkpoint, so that there is little left to write out when the last one is made.
    pub(super) fn prepare_point(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.phase < Phase::Final {
            state.renew()?;
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Chooses this moment as the point of the clone: makes the last checkpoint, too.
    pub(super) fn fix_point(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.phase != Phase::Rolling {
            return Err(Error::Protocol(format!(
                "Wrong Clone RPC: point of a RocksDB clone in phase {:?}",
                state.phase
            )));
        }
        state.make_final()?;
        state.cut()?;
        self.changed.notify_all();
        Ok(())
    }

    /// Cheap.
    ///
    /// # Errors
    /// Why the clone has failed.
    pub(super) fn check(&self) -> Result<()> {
        if !self.has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.state().failure.clone().map_or(Ok(()), Err)
    }

    /// Ends all tasks with `error`. The first one stays, unless it was the network's: then there
    /// was a chance, which is gone now.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.state();
        self.fail_locked(&mut state, error);
    }

    fn fail_locked(&self, state: &mut State, error: Error) {
        let keeps = state.failure.as_ref().is_some_and(|first| !first.is_network());
        if !keeps {
            state.failure = Some(for_all(error));
        }
        self.has_failed.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The main task of a new connection takes over. Waits for the old one, which has to notice
    /// first that its connection is lost.
    pub(super) fn take_over(&self, session: &dyn Cancel, states: &[FileState]) -> Result<()> {
        let deadline = Instant::now() + self.options.takeover_timeout;
        let mut state = self.state();
        // An old main task that is at work still would not see what only the recipient has noticed.
        if state.main == Main::Working && state.failure.is_none() {
            self.fail_locked(&mut state, Error::Raised(number::ER_NET_READ_ERROR));
        }
        while state.main == Main::Working {
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(Error::Protocol(
                    "Wrong Clone RPC: restart while the RocksDB clone runs".to_owned(),
                ));
            }
            state = self.wait(state, POLL);
        }
        if state.main == Main::Ended
            || state.failure.as_ref().is_some_and(|error| !error.is_network())
        {
            return Err(unknown());
        }
        state.files.restart(states)?;
        // An estimate that was sent may have been lost with its connection, or not: that there is
        // one matters more than its bytes.
        state.owes_estimate = true;
        state.failure = None;
        self.has_failed.store(false, Ordering::Relaxed);
        state.main = Main::Working;
        self.tasks.add_main();
        self.tasks.reopen();
        self.changed.notify_all();
        Ok(())
    }

    /// The main task is about to end, with `error` or 0. Waits for the others, and after a network
    /// failure for a restart.
    ///
    /// Gives whether the clone is over: if not, another main task goes on with it.
    pub(super) fn end_main(&self, session: &dyn Cancel, error: u32) -> bool {
        if error != 0 {
            self.fail(Error::Raised(error));
        } else if self.state().phase != Phase::FinalWithLogs {
            self.fail(Error::Protocol("Wrong Clone RPC: end of an unfinished clone".to_owned()));
        }
        let all_left = self.tasks.wait_for_workers(session).is_ok();
        self.tasks.remove(Tasks::MAIN);
        let mut state = self.state();
        let can_restart = state.failure.as_ref().is_some_and(Error::is_network);
        if all_left && can_restart {
            state.main = Main::AwaitsRestart;
            self.changed.notify_all();
            let deadline = Instant::now() + self.options.restart_timeout;
            while state.main == Main::AwaitsRestart
                && Instant::now() < deadline
                && !session.is_killed()
            {
                state = self.wait(state, POLL);
            }
            if state.main == Main::Working {
                return false;
            }
        }
        state.main = Main::Ended;
        if !all_left {
            self.fail_locked(&mut state, Error::Interrupted);
        }
        true
    }

    /// A new checkpoint in the place of the old one, as after a file that was sent.
    #[cfg(test)]
    pub(super) fn renew_for_test(&self) {
        self.state().renew().expect("a fake checkpoint");
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, time) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first checkpoint, or a new one for the old: only its SSTs are sent from here.
    fn renew(&mut self) -> Result<()> {
        let listed = self.checkpoints.renew()?;
        self.files.begin_checkpoint();
        self.add(listed.iter().filter(|file| file.name.ends_with(".sst")))?;
        self.phase = Phase::Rolling;
        Ok(())
    }

    /// The last checkpoint. Its logs are older than those of the cut.
    fn make_final(&mut self) -> Result<()> {
        let listed = self.checkpoints.renew_for_the_end()?;
        self.files.begin_checkpoint();
        self.add(listed.iter().filter(|file| Kind::of(&file.name) != Kind::Log))?;
        self.phase = Phase::Final;
        Ok(())
    }

    /// Chooses this moment as the point of the clone.
    fn cut(&mut self) -> Result<()> {
        let logs = self.checkpoints.cut()?;
        self.add_logs(&logs)
    }

    fn add_logs(&mut self, logs: &[WalFile]) -> Result<()> {
        // Stock clients never finish a file without bytes, and there is nothing in it.
        let logs: Vec<_> = logs.iter().filter(|log| log.size != 0).cloned().collect();
        if let Some(other) = logs.iter().find(|log| Kind::of(&log.name) != Kind::Log) {
            return Err(Error::Internal(format!("RocksDB clone: '{}' is no log", other.name)));
        }
        self.checkpoints.keep_logs(&logs)?;
        for log in &logs {
            self.add_one(&log.name, log.size)?;
        }
        self.phase = Phase::FinalWithLogs;
        Ok(())
    }

    fn add<'a>(&mut self, listed: impl Iterator<Item = &'a Listed>) -> Result<()> {
        for Listed { name, size } in listed {
            self.add_one(name, *size)?;
        }
        Ok(())
    }

    /// Adds a file, and to the estimate if it is new.
    fn add_one(&mut self, name: &str, size: u64) -> Result<()> {
        if self.files.add(name, size)? {
            self.estimate = self.estimate.saturating_add(size);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Taken>> {
        let checkpoints = &self.checkpoints;
        self.files.take(|name, kind| checkpoints.open(name, kind))
    }
}

/// The error as it is for other sessions than the one it came up in. What was raised there is not
/// raised here; only for a lost connection the number alone will do, since nobody is left to be
/// told.
fn for_all(error: Error) -> Error {
    match error {
        Error::Raised(number) if !error.is_network() => {
            Error::Internal(format!("RocksDB clone: another task failed with error {number}"))
        }
        other => other,
    }
}

/// The locator of a clone that has ended, or never was.
pub(super) fn unknown() -> Error {
    Error::Protocol("Wrong Clone RPC: unknown RocksDB clone".to_owned())
}
