// SPDX-License-Identifier: GPL-2.0-only

//! The donor's side: one clone (`clone-rocksdb`, `donor/snapshot.rs`).

use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::engine::{BlockOutput, View};
use clone_core::error::{Error, Result, number};
use clone_protocol::rocksdb::{
    AddEstimate, Descriptor, FileChunk, FileName, FileNameMap, FileSize, FileState,
};

use super::data::LOG;
use super::files::{Entry, Sending};
use super::{MAIN, protocol, unknown};
use crate::sim::faults::FollowerStep;
use crate::sim::scheduler::{Key, Scheduler};
use crate::sim::session::SimSession;

/// How long a clone waits for its recipient to come back. InnoDB, which ends first, has waited
/// before.
const RESTART_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a recipient that comes back waits for its old connection to end.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(60);

/// A clone at its donor.
pub(super) struct Snapshot {
    sim: Arc<Scheduler>,
    key: Key,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    files: Sending,
    failure: Option<Error>,
    main: Main,
    workers: BTreeSet<u32>,
    last_worker: u32,
    /// No worker may come any more.
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Initial,
    Rolling,
    Final,
    FinalWithLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Main {
    Working,
    AwaitsRestart,
    Ended,
}

enum Next {
    Estimate(u64),
    Send(usize, Entry),
    Done,
}

impl Snapshot {
    pub(super) fn new(sim: &Arc<Scheduler>) -> Self {
        Self {
            sim: Arc::clone(sim),
            key: sim.key(),
            state: Mutex::new(State {
                phase: Phase::Initial,
                files: Sending::default(),
                failure: None,
                main: Main::Working,
                workers: BTreeSet::new(),
                last_worker: MAIN,
                is_closed: false,
            }),
        }
    }

    pub(super) fn add_worker(&self) -> Result<u32> {
        let mut state = self.state();
        if state.is_closed || state.main != Main::Working {
            return Err(protocol("task for a clone that has ended"));
        }
        state.last_worker += 1;
        let worker = state.last_worker;
        state.workers.insert(worker);
        Ok(worker)
    }

    /// Sends whatever `task` finds to send.
    pub(super) fn send(
        &self,
        session: &SimSession,
        task: u32,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        let outcome = self.send_all(session, task, callbacks);
        if let Err(error) = &outcome {
            self.fail(error);
        }
        outcome
    }

    fn send_all(
        &self,
        session: &SimSession,
        task: u32,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        loop {
            match self.next(session, task)? {
                Next::Done => return Ok(()),
                Next::Estimate(bytes) => {
                    let told = describe(&Descriptor::AddEstimate(AddEstimate { bytes }), callbacks);
                    if told.is_err() {
                        self.state().files.estimate += bytes;
                    }
                    told?;
                }
                Next::Send(number, entry) => {
                    self.send_file(session, number, &entry, callbacks)?;
                    self.state().files.sent(number);
                    self.sim.notify(self.key);
                    session.host.follower.data().work();
                }
            }
        }
    }

    fn next(&self, session: &SimSession, task: u32) -> Result<Next> {
        let is_main = task == MAIN;
        loop {
            session.host.sim.pause();
            let mut state = self.state();
            state.check_failure()?;
            if session.handle.is_killed() {
                return Err(Error::Interrupted);
            }
            if let Some(bytes) = state.files.take_estimate() {
                return Ok(Next::Estimate(bytes));
            }
            match state.phase {
                Phase::Initial => {
                    state.renew(session);
                    continue;
                }
                // Who comes here without a point chooses its own.
                Phase::Final if is_main => {
                    state.cut(session);
                    drop(state);
                    self.sim.notify(self.key);
                    continue;
                }
                _ => {}
            }
            if let Some((number, entry)) = state.files.take() {
                return Ok(Next::Send(number, entry));
            }
            if state.phase == Phase::Rolling && is_main {
                state.make_final(session);
                drop(state);
                self.sim.notify(self.key);
                continue;
            }
            if state.phase == Phase::FinalWithLog && (!is_main || state.files.are_all_sent()) {
                return Ok(Next::Done);
            }
            drop(state);
            self.sim.wait(self.key, None);
        }
    }

    fn send_file(
        &self,
        session: &SimSession,
        number: usize,
        entry: &Entry,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        let file = number as u64;
        let follower = &session.host.follower;
        if entry.applied.is_none() {
            let size = FileSize::new(entry.bytes.len() as u64).unwrap();
            let name = FileName::new(entry.name.as_bytes()).unwrap();
            describe(&Descriptor::FileNameMap(FileNameMap { file, size, name }), callbacks)?;
        }
        let rest = &entry.bytes[entry.applied.unwrap_or(0)..];
        for chunk in rest.chunks(follower.shape().chunk) {
            follower.step(session, FollowerStep::Send)?;
            self.state().check_failure()?;
            let len = u32::try_from(chunk.len()).unwrap();
            let descriptor = Descriptor::FileChunk(FileChunk { file, len }).to_bytes();
            let view = View {
                descriptor: &descriptor,
                source_name: &entry.name,
                is_os_buffer_cached: true,
                is_zero_copy: true,
                ..View::default()
            };
            let from_file = follower.data().chance(50);
            if from_file {
                let mut source = tempfile::tempfile().unwrap();
                source.write_all(chunk).unwrap();
                source.seek(SeekFrom::Start(0)).unwrap();
                callbacks.file(&view, source.as_fd(), len)?;
            } else {
                callbacks.buffer(&view, chunk)?;
            }
        }
        Ok(())
    }

    pub(super) fn prepare_point(&self, session: &SimSession) -> Result<()> {
        let mut state = self.state();
        state.check_failure()?;
        if state.phase < Phase::Final {
            state.renew(session);
        }
        drop(state);
        self.sim.notify(self.key);
        Ok(())
    }

    pub(super) fn fix_point(&self, session: &SimSession) -> Result<()> {
        let mut state = self.state();
        let outcome = state.check_failure().and_then(|()| match state.phase {
            Phase::Rolling => {
                state.make_final(session);
                state.cut(session);
                Ok(())
            }
            phase => Err(protocol(&format!("point in phase {phase:?}"))),
        });
        drop(state);
        if let Err(error) = &outcome {
            self.fail(error);
        }
        self.sim.notify(self.key);
        outcome
    }

    /// Ends all tasks. The first error stays, unless it was the network's.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.state();
        if state.failure.as_ref().is_none_or(Error::is_network) {
            state.failure = Some(match error {
                Error::Raised(number) if !error.is_network() => {
                    Error::Internal(format!("another task failed with error {number}"))
                }
                other => other.clone(),
            });
        }
        drop(state);
        self.sim.notify(self.key);
    }

    /// The main task of a new connection goes on, when that of the old one has ended.
    pub(super) fn take_over(&self, session: &SimSession, states: &[FileState]) -> Result<()> {
        let deadline = self.sim.now() + TAKEOVER_TIMEOUT;
        if self.state().main == Main::Working && self.state().failure.is_none() {
            self.fail(&Error::Raised(number::ER_NET_READ_ERROR));
        }
        while self.state().main == Main::Working {
            if session.handle.is_killed() {
                return Err(Error::Interrupted);
            }
            if self.sim.now() >= deadline {
                return Err(protocol("restart while the RocksDB clone runs"));
            }
            self.sim.wait(self.key, Some(deadline));
        }
        let mut state = self.state();
        let is_lost = state.failure.as_ref().is_some_and(|error| !error.is_network());
        if state.main == Main::Ended || is_lost {
            return Err(unknown());
        }
        state.files.restart(states);
        state.failure = None;
        state.main = Main::Working;
        state.is_closed = false;
        drop(state);
        self.sim.notify(self.key);
        Ok(())
    }

    /// Ends a task. True if the clone is over with it.
    pub(super) fn end(&self, session: &SimSession, task: u32, error: u32) -> bool {
        if error != 0 {
            self.fail(&Error::Raised(error));
        }
        if task != MAIN {
            assert!(self.state().workers.remove(&task), "a task that has not ended");
            self.sim.notify(self.key);
            return false;
        }
        if error == 0 && self.state().phase != Phase::FinalWithLog {
            self.fail(&protocol("end of an unfinished clone"));
        }
        self.state().is_closed = true;
        while !self.state().workers.is_empty() && !session.handle.is_killed() {
            self.sim.wait(self.key, None);
        }
        let may_restart = self.state().workers.is_empty()
            && self.state().failure.as_ref().is_some_and(Error::is_network);
        if may_restart {
            self.state().main = Main::AwaitsRestart;
            self.sim.notify(self.key);
            let deadline = self.sim.now() + RESTART_TIMEOUT;
            while self.state().main == Main::AwaitsRestart
                && self.sim.now() < deadline
                && !session.handle.is_killed()
            {
                self.sim.wait(self.key, Some(deadline));
            }
            if self.state().main == Main::Working {
                return false;
            }
        }
        self.state().main = Main::Ended;
        self.sim.notify(self.key);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn check_failure(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn renew(&mut self, session: &SimSession) {
        self.files.list(session.host.follower.data().checkpoint());
        self.phase = Phase::Rolling;
    }

    fn make_final(&mut self, session: &SimSession) {
        self.files.list(session.host.follower.data().last_checkpoint());
        self.phase = Phase::Final;
    }

    /// This moment is the point.
    fn cut(&mut self, session: &SimSession) {
        let log = session.host.follower.data().cut(session.host.commits.look());
        self.files.add(LOG.to_owned(), log);
        self.phase = Phase::FinalWithLog;
    }
}

/// Sends a descriptor without data.
fn describe(descriptor: &Descriptor<'_>, callbacks: &mut dyn BlockOutput) -> Result<()> {
    let descriptor = descriptor.to_bytes();
    callbacks.buffer(&View { descriptor: &descriptor, ..View::default() }, &[])
}
