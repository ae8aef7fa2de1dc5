// SPDX-License-Identifier: GPL-2.0-only

//! An engine that follows InnoDB, as far as the clone logic can tell it from the one in
//! `clone-rocksdb`.
//!
//! Locators and descriptors are RocksDB's. What the phases of a clone are, who waits for whom, and
//! what a restart sends again is learned from `clone-rocksdb`, whose own waits are out of the
//! scheduler's reach. Data are files that never change, of which some come and go, and one log with
//! the number of transactions that had committed.

mod data;
mod destination;
mod files;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::engine::{Begun, BlockInput, BlockOutput, Engine, Mode, ServerEngine, TaskId};
use clone_core::error::{Error, Result};
use clone_protocol::rocksdb::{CloneId, DB_TYPE_PERCONA, Locator};

pub(crate) use data::{clone_directory, committed, compare};

use super::engine::Balance;
use super::faults::{Action, Event, FollowerStep};
use super::network::Network;
use super::rng::Rng;
use super::scheduler::Scheduler;
use super::session::SimSession;
use data::Data;
use destination::Run;
use source::Snapshot;

/// `legacy_db_type` of the follower.
pub(crate) const FOLLOWER: u8 = DB_TYPE_PERCONA;

/// The handle to a follower; which one it is comes with the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowerEngine;

/// How much there is in a follower, and how fast it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowerShape {
    pub(crate) files: usize,
    /// Most bytes of one.
    pub(crate) size: usize,
    /// Bytes in a packet.
    pub(crate) chunk: usize,
    /// Percentage of files sent while which a compaction replaces one.
    pub(crate) compactions: usize,
    /// The longest time for the last checkpoint.
    pub(crate) checkpoint: Duration,
}

impl Default for FollowerShape {
    fn default() -> Self {
        let checkpoint = Duration::from_millis(500);
        Self { files: 6, size: 5000, chunk: 1024, compactions: 20, checkpoint }
    }
}

/// The follower of a server.
pub(crate) struct Follower {
    sim: Arc<Scheduler>,
    network: Arc<Network>,
    /// None if this server has no such engine.
    shape: Option<FollowerShape>,
    system: Mutex<System>,
    data: Mutex<Data>,
}

/// Its clones.
#[derive(Default)]
struct System {
    is_uninstalled: bool,
    snapshots: BTreeMap<CloneId, Arc<Snapshot>>,
    run: Option<Arc<Run>>,
    last_id: u64,
    balance: Balance,
}

impl Follower {
    pub(super) fn new(
        sim: &Arc<Scheduler>,
        network: &Arc<Network>,
        shape: Option<FollowerShape>,
        mut rng: Rng,
    ) -> Self {
        let data = Data::new(shape.map_or(0, |shape| shape.files), shape, rng.fork());
        Self {
            sim: Arc::clone(sim),
            network: Arc::clone(network),
            shape,
            system: Mutex::default(),
            data: Mutex::new(data),
        }
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.shape.is_some() && !self.system().is_uninstalled
    }

    pub(crate) fn uninstall(&self) {
        self.system().is_uninstalled = true;
    }

    /// Whether nothing of any clone is left.
    pub(crate) fn is_idle(&self) -> bool {
        let system = self.system();
        system.snapshots.is_empty() && system.run.is_none()
    }

    pub(crate) fn balance(&self) -> Balance {
        self.system().balance
    }

    /// What a clone of this server has to contain.
    pub(crate) fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }

    fn system(&self) -> MutexGuard<'_, System> {
        self.system.lock().unwrap()
    }

    fn shape(&self) -> FollowerShape {
        self.shape.expect("an engine that is there")
    }

    /// Lets a test interfere; a failure is raised.
    fn step(&self, session: &SimSession, step: FollowerStep) -> Result<Action> {
        self.sim.pause();
        match self.network.ask(&Event::Follower(step)) {
            Action::Fail(number) => Err(session.raise_text(number, "interference")),
            action => Ok(action),
        }
    }

    fn snapshot(&self, locator: &[u8]) -> Result<Arc<Snapshot>> {
        match Locator::parse(locator)? {
            Locator::Clone { id, .. } => self.find(id),
            Locator::Version => Err(unknown()),
        }
    }

    fn find(&self, id: CloneId) -> Result<Arc<Snapshot>> {
        self.system().snapshots.get(&id).cloned().ok_or_else(unknown)
    }

    fn run(&self, locator: &[u8]) -> Result<Arc<Run>> {
        match Locator::parse(locator)? {
            Locator::Clone { id, .. } => self.run_of(id),
            Locator::Version => Err(protocol("version locator")),
        }
    }

    fn run_of(&self, id: CloneId) -> Result<Arc<Run>> {
        let run = self.system().run.clone();
        run.filter(|run| run.id == id).ok_or_else(|| protocol("clone that is not running"))
    }

    fn new_snapshot(&self) -> CloneId {
        let mut system = self.system();
        system.last_id += 1;
        let id = CloneId::new(system.last_id).unwrap();
        system.snapshots.insert(id, Arc::new(Snapshot::new(&self.sim)));
        id
    }

    /// A call that begins something has succeeded.
    fn count(&self, mode: Mode, task: u32, is_source: bool) {
        let mut system = self.system();
        system.balance.begun += u32::from(is_source || mode != Mode::Restart);
        system.balance.added += u32::from(task != MAIN);
        system.balance.restarted += u32::from(is_source && mode == Mode::Restart);
    }
}

impl ServerEngine<SimSession> for FollowerEngine {
    fn db_type(&self) -> u8 {
        FOLLOWER
    }

    fn name(&self) -> String {
        "ROCKSDB".to_owned()
    }

    fn follows(&self) -> bool {
        true
    }
}

impl Engine<SimSession> for FollowerEngine {
    fn begin(
        &self,
        session: &SimSession,
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun> {
        let _ = ddl_timeout;
        session.host.sim.pause();
        let follower = &session.host.follower;
        let locator = locator.map(Locator::parse).transpose()?;
        let (id, task) = match (mode, locator) {
            (Mode::Start, None | Some(Locator::Version)) => (follower.new_snapshot(), MAIN),
            (Mode::AddTask, Some(Locator::Clone { id, .. })) => {
                (id, follower.find(id)?.add_worker()?)
            }
            (Mode::Restart, Some(Locator::Clone { id, states })) => {
                follower.find(id)?.take_over(session, &states)?;
                (id, MAIN)
            }
            (mode, locator) => panic!("begun with {mode:?} and {locator:?}"),
        };
        follower.count(mode, task, true);
        Ok(Begun { locator: Locator::of(id).to_bytes(), task })
    }

    fn prepare_point(&self, session: &SimSession, locator: &[u8]) -> Result<()> {
        let follower = &session.host.follower;
        follower.step(session, FollowerStep::Prepare)?;
        let duration = follower.data().duration(follower.shape().checkpoint);
        session.host.sim.sleep(duration);
        follower.snapshot(locator)?.prepare_point(session)
    }

    fn fix_point(&self, session: &SimSession, locator: &[u8]) -> Result<()> {
        let follower = &session.host.follower;
        follower.step(session, FollowerStep::Fix)?;
        assert!(session.host.commits.are_blocked(), "a point while transactions commit");
        follower.snapshot(locator)?.fix_point(session)
    }

    fn copy(
        &self,
        session: &SimSession,
        task: TaskId<'_>,
        _: u32,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        let snapshot = session.host.follower.snapshot(task.locator)?;
        snapshot.send(session, task.number, callbacks)
    }

    fn ack(&self, session: &SimSession, locator: &[u8], error: u32, _: &[u8]) -> Result<()> {
        let snapshot = session.host.follower.snapshot(locator)?;
        match error {
            0 => return Err(protocol("acknowledgement without an error")),
            _ => snapshot.fail(&Error::Raised(error)),
        }
        Ok(())
    }

    fn end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        let follower = &session.host.follower;
        follower.system().balance.ended += 1;
        let snapshot = follower.snapshot(task.locator)?;
        if snapshot.end(session, task.number, error)
            && let Locator::Clone { id, .. } = Locator::parse(task.locator)?
        {
            follower.system().snapshots.remove(&id);
        }
        Ok(())
    }

    fn apply_begin(
        &self,
        session: &SimSession,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        session.host.sim.pause();
        let follower = &session.host.follower;
        let (locator, task) = match (mode, locator.map(Locator::parse).transpose()?) {
            (Mode::Version, None) => (Locator::Version, MAIN),
            (Mode::Start, Some(Locator::Clone { id, states })) if states.is_empty() => {
                let run = Run::start(session, id, &clone_directory(session, directory));
                let other = follower.system().run.replace(Arc::new(run));
                assert!(other.is_none(), "two clones at once");
                (Locator::of(id), MAIN)
            }
            (Mode::AddTask, Some(Locator::Clone { id, .. })) => {
                (Locator::of(id), follower.run_of(id)?.add_task()?)
            }
            (Mode::Restart, Some(Locator::Clone { id, .. })) => {
                (follower.run_of(id)?.restart(), MAIN)
            }
            (mode, locator) => panic!("apply begun with {mode:?} and {locator:?}"),
        };
        follower.count(mode, task, false);
        Ok(Begun { locator: locator.to_bytes(), task })
    }

    fn apply(
        &self,
        session: &SimSession,
        task: TaskId<'_>,
        descriptor: &[u8],
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        session.host.sim.pause();
        session.host.follower.run(task.locator)?.apply(session, task.number, descriptor, callbacks)
    }

    fn apply_error(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        session.host.follower.run(task.locator)?.fail(&Error::Raised(error));
        Ok(())
    }

    fn apply_end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        let follower = &session.host.follower;
        follower.system().balance.ended += 1;
        if Locator::parse(task.locator)? == Locator::Version {
            return Ok(());
        }
        let run = follower.run(task.locator)?;
        if task.number != MAIN {
            run.end_worker(task.number, error);
            return Ok(());
        }
        let ended = run.end(session, error);
        follower.system().run = None;
        if error == 0 { ended } else { Ok(()) }
    }
}

/// The main task.
const MAIN: u32 = 0;

fn protocol(what: &str) -> Error {
    Error::Protocol(format!("Wrong Clone RPC: {what}"))
}

fn unknown() -> Error {
    protocol("unknown RocksDB clone")
}
