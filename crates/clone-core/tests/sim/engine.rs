// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's clone interface, as far as the clone logic can tell it from the real one (`clone0api.cc`).
//!
//! Locators and descriptors are InnoDB's own, byte for byte. The states, who waits for whom, what an error of one task does to
//! the others, and what a restart sends again are learned from `storage/innobase/clone`; files, pages and redo are bytes from a
//! seed. Where InnoDB would crash on what a caller does wrong, there is a panic here.

mod content;
mod destination;
mod source;
mod tasks;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::engine::{Begun, BlockInput, BlockOutput, Engine, Mode, ServerEngine, TaskId};
use clone_core::error::{Error, Result, number};
use clone_core::session::{Host, Variables};
use clone_protocol::innodb::{
    DB_TYPE, Descriptor, Locator, SnapshotState, VERSION, VERSION_LOCATOR_LEN,
};

pub(crate) use content::{Content, ContentShape, committed, compare};

use super::faults::{Action, Event, Step};
use super::network::Network;
use super::rng::Rng;
use super::scheduler::{Key, Scheduler};
use super::session::{INTERRUPTED, SimSession};
use destination::Destination;
use source::Source;

/// The handle to an InnoDB; which one it is comes with the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InnodbEngine;

/// The InnoDB of a server.
pub(crate) struct Innodb {
    sim: Arc<Scheduler>,
    network: Arc<Network>,
    system: Mutex<System>,
    /// Notified when a clone comes, goes, or changes between idle and active.
    key: Key,
    content: Mutex<Content>,
    rng: Mutex<Rng>,
}

/// The clones of a server: at most one of each kind (`MAX_CLONES`).
#[derive(Default)]
struct System {
    source: Option<Arc<Source>>,
    destination: Option<Arc<Destination>>,
    /// `apply_begin(VERSION)` without its end.
    has_version_handle: bool,
    last_id: u64,
    /// What began and what ended: tasks and version handles.
    balance: Balance,
    /// What `clone_ddl_timeout` looks like at the moment.
    ddl_timeout: Option<u32>,
}

/// Calls that must pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Successful begins, of tasks and of version handles; a restart begins no task.
    pub(crate) begun: u32,
    /// Ends.
    pub(crate) ended: u32,
    /// How often a task was more than a clone's first.
    pub(crate) added: u32,
    /// Successful restarts at a donor.
    pub(crate) restarted: u32,
}

impl Innodb {
    pub(super) fn new(sim: &Arc<Scheduler>, network: &Arc<Network>, mut rng: Rng) -> Self {
        Self {
            sim: Arc::clone(sim),
            network: Arc::clone(network),
            system: Mutex::default(),
            key: sim.key(),
            content: Mutex::new(Content::new(ContentShape::default(), rng.fork())),
            rng: Mutex::new(rng),
        }
    }

    /// Replaces all data.
    pub(crate) fn fill(&self, shape: ContentShape) {
        let rng = self.rng().fork();
        *self.content() = Content::new(shape, rng);
    }

    /// What a clone of this server has to contain: the files, and the redo of the last clone that finished here.
    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// Whether nothing of any clone is left.
    pub(crate) fn is_idle(&self) -> bool {
        let system = self.system();
        system.source.is_none() && system.destination.is_none() && !system.has_version_handle
    }

    pub(crate) fn has_source(&self) -> bool {
        self.system().source.is_some()
    }

    pub(crate) fn balance(&self) -> Balance {
        self.system().balance
    }

    /// Runs `begin` with the recipient's `clone_ddl_timeout`.
    fn with_ddl_timeout<R>(&self, seconds: u32, begin: impl FnOnce() -> R) -> R {
        let before = self.system().ddl_timeout.replace(seconds);
        let begun = begin();
        self.system().ddl_timeout = before;
        begun
    }

    fn system(&self) -> MutexGuard<'_, System> {
        self.system.lock().unwrap()
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap()
    }

    /// True in `percent` of a hundred cases.
    fn chance(&self, percent: usize) -> bool {
        self.rng().chance(percent)
    }

    /// Lets a test interfere; a failure is raised.
    fn step(&self, session: &SimSession, step: Step) -> Result<Action> {
        match self.network.ask(&Event::Engine(step)) {
            Action::Fail(number) => Err(session.raise_text(number, "interference")),
            action => Ok(action),
        }
    }

    /// `clone0clone.cc:Clone_Sys::wait`: until `is_done`, or the time is over (false).
    fn wait_until(
        &self,
        limit: Duration,
        mut is_done: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let deadline = self.sim.now() + limit;
        loop {
            if is_done()? {
                return Ok(true);
            }
            if self.sim.now() >= deadline {
                return Ok(false);
            }
            self.sim.wait(self.key, Some(deadline));
        }
    }

    /// The clone that a locator names. A caller that names one which is gone crashes InnoDB.
    fn source(&self, locator: &[u8]) -> Arc<Source> {
        let named = Locator::parse(locator).unwrap();
        let source = self.system().source.clone();
        source.filter(|source| source.is_named(&named)).expect("the locator of a clone that runs")
    }

    fn destination(&self, locator: &[u8]) -> Arc<Destination> {
        let named = Locator::parse(locator).unwrap();
        let destination = self.system().destination.clone();
        destination.filter(|one| one.is_named(&named)).expect("the locator of a clone that runs")
    }
}

impl ServerEngine<SimSession> for InnodbEngine {
    fn db_type(&self) -> u8 {
        DB_TYPE
    }

    fn name(&self) -> String {
        "InnoDB".to_owned()
    }
}

impl Engine<SimSession> for InnodbEngine {
    fn begin(
        &self,
        session: &SimSession,
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun> {
        session.host.sim.pause();
        let locator = locator.map(|bytes| parse_locator(session, bytes)).transpose()?;
        let innodb = &session.host.innodb;
        innodb
            .with_ddl_timeout(ddl_timeout, || innodb.begin_source(session, locator.as_ref(), mode))
    }

    fn copy(
        &self,
        session: &SimSession,
        task: TaskId<'_>,
        _: u32,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        session.host.sim.pause();
        assert_eq!(task.index, 0);
        let source = session.host.innodb.source(task.locator);
        source.copy(session, task.number, callbacks)
    }

    fn ack(
        &self,
        session: &SimSession,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        session.host.sim.pause();
        let locator = parse_locator(session, locator)?;
        let source = session.host.innodb.system().source.clone();
        let Some(source) = source.filter(|source| source.is_named(&locator)) else {
            return Err(internal(session, "Innodb Clone ACK refers non-existing clone"));
        };
        if session.handle.is_killed() {
            source.tasks.set_error(number::ER_QUERY_INTERRUPTED);
            return Err(interrupted(session));
        }
        if error != 0 {
            source.tasks.set_error(error);
            return Ok(());
        }
        match Descriptor::parse(descriptor) {
            Ok(Descriptor::State(state)) if state.ack => source.tasks.acknowledge(state.state),
            other => panic!("acknowledged with {other:?}"),
        }
        Ok(())
    }

    fn end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        session.host.innodb.end_source(session, task.locator, task.number, error);
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
        let locator = locator.map(|bytes| parse_locator(session, bytes)).transpose()?;
        session.host.innodb.begin_destination(session, locator, mode, directory)
    }

    fn apply(
        &self,
        session: &SimSession,
        task: TaskId<'_>,
        descriptor: &[u8],
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        session.host.sim.pause();
        assert_eq!(task.index, 0);
        let destination = session.host.innodb.destination(task.locator);
        destination.apply(session, task.number, descriptor, callbacks)
    }

    fn apply_error(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        assert_ne!(error, 0);
        session.host.innodb.destination(task.locator).tasks.set_error(error);
        Ok(())
    }

    fn apply_end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        session.host.innodb.end_destination(session, task.locator, task.number, error)
    }
}

/// The locator before there is a clone: InnoDB's format version, in a buffer of zeros.
fn version_locator() -> Vec<u8> {
    let locator = Locator {
        version: VERSION,
        clone_id: 0,
        snapshot_id: 0,
        index: 0,
        state: SnapshotState::None,
        metadata_transferred: false,
        progress: None,
    };
    let mut bytes = encode(&Descriptor::Locator(locator));
    bytes.resize(VERSION_LOCATOR_LEN, 0);
    bytes
}

fn encode(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    descriptor.encode(&mut bytes);
    bytes
}

fn parse_locator(session: &SimSession, bytes: &[u8]) -> Result<Locator> {
    Locator::parse(bytes).map_err(|_| {
        session.raise_text(number::ER_CLONE_PROTOCOL, "Wrong Clone RPC: Invalid Locator")
    })
}

fn internal(session: &SimSession, text: &str) -> Error {
    session.raise_text(number::ER_INTERNAL_ERROR, text)
}

fn interrupted(session: &SimSession) -> Error {
    session.raise_text(number::ER_QUERY_INTERRUPTED, INTERRUPTED)
}

/// Minutes that a donor keeps a clone after a network failure. InnoDB reads the variable by name.
fn donor_timeout(session: &SimSession) -> Duration {
    let minutes = session.variables(&["clone_donor_timeout_after_network_failure"]).unwrap();
    Duration::from_secs(60 * minutes[0].parse::<u64>().unwrap())
}

/// The lent `clone_ddl_timeout`, or the server's own.
fn ddl_timeout(session: &SimSession) -> u32 {
    let lent = session.host.innodb.system().ddl_timeout;
    lent.unwrap_or_else(|| session.host.settings().ddl_timeout)
}
