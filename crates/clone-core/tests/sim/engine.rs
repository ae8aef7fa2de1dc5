// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's clone interface in a simulated server: [`clone_innodb`], which is the code that works
//! on real data directories, behind the interface that clone-core has for mysqld's InnoDB.
//!
//! What is simulated is around it: files, pages and redo are bytes from a seed ([`content`]), time
//! is that of the scheduler, and a test can interfere with each step. Where InnoDB would crash on
//! what a caller does wrong, `clone_innodb` gives an error and this file panics.

mod content;
mod destination;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::engine::{Begun, BlockInput, BlockOutput, Engine, Mode, ServerEngine, TaskId};
use clone_core::error::{Error, Result, number};
use clone_core::session::{Host, Variables};
use clone_innodb::clock::Clock;
use clone_innodb::destination::{
    Destination, DestinationTask, EncryptedFiles, Flush, Options, version_locator,
};
use clone_innodb::source::{SourceOptions, SourceTask, Sources};
use clone_protocol::innodb::{DB_TYPE, Descriptor, Locator, SnapshotState};
use tempfile::TempDir;

pub(crate) use content::{Content, ContentShape, committed, compare};

use super::faults::{Action, Event, Step};
use super::network::Network;
use super::rng::Rng;
use super::scheduler::{Key, Scheduler};
use super::session::{INTERRUPTED, SimSession};
use destination::SimInput;
use source::{SimFiles, SimOutput};

/// Time between two keep-alives of a donor that waits (`CLONE_DEF_ALERT_INTERVAL`).
const ALERT: Duration = Duration::from_secs(5);

/// The first task.
const MASTER: u32 = 0;

/// The handle to an InnoDB; which one it is comes with the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InnodbEngine;

/// The InnoDB of a server.
pub(crate) struct Innodb {
    sim: Arc<Scheduler>,
    network: Arc<Network>,
    clock: Arc<SimClock>,
    system: Mutex<System>,
    content: Mutex<Content>,
    rng: Mutex<Rng>,
}

/// The clones of a server: at most one of each kind (`MAX_CLONES`).
struct System {
    sources: Sources,
    /// By the id of the clone and the number of the task. A task at work is not here.
    source_tasks: BTreeMap<(u64, u32), SourceTask>,
    /// Here are the files of the donor's clone.
    source_directory: Option<Arc<TempDir>>,
    destination: Option<Arc<Destination>>,
    /// Tasks that use the destination, or wait to be added to it.
    destination_users: u32,
    destination_tasks: BTreeMap<u32, DestinationTask>,
    /// `apply_begin(VERSION)` without its end.
    has_version_handle: bool,
    /// What began and what ended: tasks and version handles.
    balance: Balance,
    /// What `clone_ddl_timeout` looks like at the moment.
    ddl_timeout: Option<u32>,
}

/// The scheduler's time.
struct SimClock {
    sim: Arc<Scheduler>,
    key: Key,
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.sim.now()
    }

    /// Only one thread runs at a time, so no notification can be lost before a wait.
    fn notifications(&self) -> u64 {
        0
    }

    fn wait(&self, _: u64, until: Duration) {
        self.sim.wait(self.key, Some(until));
    }

    fn notify(&self) {
        self.sim.notify(self.key);
    }
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
        let clock = Arc::new(SimClock { sim: Arc::clone(sim), key: sim.key() });
        let shape = ContentShape::default();
        Self {
            sim: Arc::clone(sim),
            network: Arc::clone(network),
            system: Mutex::new(System {
                sources: sources(&clock, &shape),
                source_tasks: BTreeMap::new(),
                source_directory: None,
                destination: None,
                destination_users: 0,
                destination_tasks: BTreeMap::new(),
                has_version_handle: false,
                balance: Balance::default(),
                ddl_timeout: None,
            }),
            clock,
            content: Mutex::new(Content::new(shape, rng.fork())),
            rng: Mutex::new(rng),
        }
    }

    /// Replaces all data.
    pub(crate) fn fill(&self, shape: ContentShape) {
        let rng = self.rng().fork();
        *self.content() = Content::new(shape, rng);
        self.system().sources = sources(&self.clock, &shape);
    }

    /// What a clone of this server has to contain: the files, and the redo of the last clone that
    /// finished here.
    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// Whether nothing of any clone is left.
    pub(crate) fn is_idle(&self) -> bool {
        let system = self.system();
        system.sources.is_empty() && system.destination.is_none() && !system.has_version_handle
    }

    pub(crate) fn has_source(&self) -> bool {
        !self.system().sources.is_empty()
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

    fn begin_source(
        &self,
        session: &SimSession,
        locator: Option<&Locator>,
        mode: Mode,
    ) -> Result<Begun> {
        let cancel = || session.handle.is_killed();
        let sources = self.system().sources.clone();
        let begun = match (mode, locator) {
            (Mode::Start, _) => {
                assert!(ddl_timeout(session) < u32::MAX);
                sources.start(&cancel)
            }
            (Mode::AddTask, Some(locator)) => sources.add_task(&cancel, locator),
            (Mode::Restart, Some(locator)) => sources.restart(&cancel, locator),
            (mode, locator) => panic!("begun with {mode:?} and {locator:?}"),
        };
        let task = begun.map_err(|error| raised(session, error))?;
        if mode == Mode::Start && session.host.facts().loses_backup_lock {
            session.host.release_backup_lock(session.handle.id);
        }
        let (number, locator) = (task.number(), task.locator());
        let mut system = self.system();
        system.balance.begun += 1;
        system.balance.added += u32::from(number != MASTER);
        system.balance.restarted += u32::from(mode == Mode::Restart);
        if mode == Mode::Start {
            system.source_directory = Some(Arc::new(tempfile::tempdir().unwrap()));
        }
        let before = system.source_tasks.insert((locator.clone_id, number), task);
        assert!(before.is_none(), "a task that began twice");
        Ok(Begun { locator: encode(&Descriptor::Locator(locator)), task: number })
    }

    /// Takes a task out while it works. A caller that names one which is gone crashes InnoDB.
    fn take_source_task(&self, locator: &[u8], task: u32) -> SourceTask {
        let clone_id = Locator::parse(locator).unwrap().clone_id;
        let task = self.system().source_tasks.remove(&(clone_id, task));
        task.expect("the locator of a clone that runs, and a task that has not ended")
    }

    fn put_source_task(&self, task: SourceTask) {
        let key = (task.locator().clone_id, task.number());
        self.system().source_tasks.insert(key, task);
    }

    fn begin_destination(
        &self,
        session: &SimSession,
        locator: Option<Locator>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        let found = {
            let destination = self.system().destination.clone();
            destination.filter(|one| locator.as_ref().is_some_and(|named| one.is_named(named)))
        };
        match (mode, locator, found) {
            (Mode::Version, None, _) => {
                self.check_single(session)?;
                let mut system = self.system();
                system.has_version_handle = true;
                system.balance.begun += 1;
                Ok(Begun { locator: version_locator(), task: MASTER })
            }
            (Mode::Start, Some(named), None) => {
                self.check_single(session)?;
                let destination = self.new_destination(session, &named, directory)?;
                self.add_destination_task(session, &destination, &named)
            }
            (Mode::AddTask, Some(named), Some(destination)) => {
                self.system().destination_users += 1;
                self.add_destination_task(session, &destination, &named)
            }
            (Mode::AddTask, Some(_), None) => {
                let text = "Innodb Clone Apply add task to non-existing clone";
                Err(internal(session, text))
            }
            (Mode::Restart, Some(_), Some(_)) => {
                let mut task = self.take_destination_task(MASTER);
                let locator = task.restart();
                self.put_destination_task(task);
                let locator = locator.map_err(|error| raised(session, error))?;
                Ok(Begun { locator: encode(&Descriptor::Locator(locator)), task: MASTER })
            }
            (mode, locator, _) => panic!("apply begun with {mode:?} and {locator:?}"),
        }
    }

    /// At most one clone is applied, and the handle for the version counts.
    fn check_single(&self, session: &SimSession) -> Result<()> {
        let system = self.system();
        if system.destination.is_none() && !system.has_version_handle {
            return Ok(());
        }
        drop(system);
        let number = number::ER_CLONE_TOO_MANY_CONCURRENT_CLONES;
        Err(session.raise_text(number, "Too many concurrent clone operations"))
    }

    fn new_destination(
        &self,
        session: &SimSession,
        named: &Locator,
        directory: Option<&Path>,
    ) -> Result<Arc<Destination>> {
        let directory = match directory {
            Some(directory) => PathBuf::from(directory),
            None => {
                // What mysqld's InnoDB does before it replaces the data of its server.
                let replaced = session.host.directory.join("replaced");
                let _ = fs::remove_dir_all(&replaced);
                session.host.facts().has_dropped_data = true;
                replaced
            }
        };
        let options = Options {
            encrypted: EncryptedFiles::AsTheyCome,
            flush: Flush::Never,
            ..Options::default()
        };
        let clock: Arc<SimClock> = Arc::clone(&self.clock);
        let created = Destination::create(named, &directory, options, clock);
        let destination = created.map_err(|error| raised(session, error))?;
        let mut system = self.system();
        system.destination = Some(Arc::clone(&destination));
        system.destination_users = 1;
        Ok(destination)
    }

    fn add_destination_task(
        &self,
        session: &SimSession,
        destination: &Arc<Destination>,
        named: &Locator,
    ) -> Result<Begun> {
        let added = destination.add_task(&|| session.handle.is_killed(), named);
        let task = added.map_err(|error| {
            self.release_destination();
            raised(session, error)
        })?;
        let number = task.number();
        let mut system = self.system();
        system.balance.begun += 1;
        system.balance.added += u32::from(number != MASTER);
        let before = system.destination_tasks.insert(number, task);
        assert!(before.is_none(), "a task that began twice");
        let locator = if number == MASTER { destination.locator() } else { named.clone() };
        Ok(Begun { locator: encode(&Descriptor::Locator(locator)), task: number })
    }

    /// The clone that a locator names. A caller that names one which is gone crashes InnoDB.
    fn destination(&self, locator: &[u8]) -> Arc<Destination> {
        let named = Locator::parse(locator).unwrap();
        let destination = self.system().destination.clone();
        destination.filter(|one| one.is_named(&named)).expect("the locator of a clone that runs")
    }

    fn take_destination_task(&self, task: u32) -> DestinationTask {
        let task = self.system().destination_tasks.remove(&task);
        task.expect("a task that has not ended")
    }

    fn put_destination_task(&self, task: DestinationTask) {
        self.system().destination_tasks.insert(task.number(), task);
    }

    /// Lets a test interfere with what a descriptor is about to do.
    fn interfere_with_apply(
        &self,
        session: &SimSession,
        destination: &Destination,
        task: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        match Descriptor::parse(descriptor).expect("checked before InnoDB sees it") {
            Descriptor::State(state) if state.start && !state.ack && task == MASTER => {
                self.step(session, Step::Follow(state.state))?;
            }
            Descriptor::FileMetadata(file)
                if destination.state() != SnapshotState::RedoCopy
                    && !destination.has_data_file(file.file_index) =>
            {
                self.step(session, Step::Create)?;
                // Other tasks run meanwhile, and must not be given data for the file.
                session.host.sim.pause();
            }
            _ => {}
        }
        Ok(())
    }

    fn end_destination(
        &self,
        session: &SimSession,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        self.system().balance.ended += 1;
        if Locator::parse(locator).unwrap().clone_id == 0 {
            let mut system = self.system();
            assert!(system.has_version_handle && task == MASTER);
            system.has_version_handle = false;
            return Ok(());
        }
        let destination = self.destination(locator);
        if task == MASTER && error == 0 {
            assert_eq!(destination.state(), SnapshotState::Done, "ended as if complete");
        }
        let cancel = || session.handle.is_killed();
        let ended = self.take_destination_task(task).end(&cancel, error);
        self.release_destination();
        ended.map_err(|error| raised(session, error))
    }

    fn release_destination(&self) {
        let mut system = self.system();
        system.destination_users -= 1;
        if system.destination_users == 0 {
            let destination = system.destination.take().unwrap();
            assert_eq!(destination.tasks(), 0, "a clone without users has no tasks");
        }
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
        let innodb = &session.host.innodb;
        let mut source = innodb.take_source_task(task.locator, task.number);
        let directory = innodb.system().source_directory.clone().unwrap();
        let files = SimFiles { session, directory: directory.path() };
        let mut output = SimOutput { session, callbacks };
        let copied = source.copy(&|| session.handle.is_killed(), &files, &mut output);
        innodb.put_source_task(source);
        copied.map_err(|error| raised(session, error))
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
        let sources = session.host.innodb.system().sources.clone();
        let cancel = || session.handle.is_killed();
        let acknowledged = sources.acknowledge(&cancel, &locator, error, descriptor);
        acknowledged.map_err(|error| raised(session, error))
    }

    fn end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        let innodb = &session.host.innodb;
        let source = innodb.take_source_task(task.locator, task.number);
        innodb.system().balance.ended += 1;
        source.end(&|| session.handle.is_killed(), error, donor_timeout(session));
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
        let innodb = &session.host.innodb;
        let destination = innodb.destination(task.locator);
        let interfered =
            innodb.interfere_with_apply(session, &destination, task.number, descriptor);
        interfered.inspect_err(|error| destination.fail(error.number()))?;
        let mut one = innodb.take_destination_task(task.number);
        let mut input = SimInput { session, callbacks, state: destination.state() };
        let applied = one.apply(&|| session.handle.is_killed(), descriptor, &mut input);
        innodb.put_destination_task(one);
        applied.map_err(|error| raised(session, error))
    }

    fn apply_error(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        assert_ne!(error, 0);
        session.host.innodb.destination(task.locator).fail(error);
        Ok(())
    }

    fn apply_end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        session.host.sim.pause();
        session.host.innodb.end_destination(session, task.locator, task.number, error)
    }
}

fn sources(clock: &Arc<SimClock>, shape: &ContentShape) -> Sources {
    let clock: Arc<SimClock> = Arc::clone(clock);
    let geometry = shape.geometry();
    Sources::new(clock, SourceOptions { max_clones: 1, geometry, first_id: 1 })
}

/// An error of clone-core on its way through `clone_innodb`.
fn carried(error: Error) -> clone_innodb::error::Error {
    clone_innodb::error::Error::caller(error.number(), error)
}

/// Raises what InnoDB raises, which is not always what it returns, and nothing at all for an error
/// of the donor. Panics where InnoDB would crash.
fn raised(session: &SimSession, error: clone_innodb::error::Error) -> Error {
    use clone_innodb::error::Error as Innodb;

    match error {
        Innodb::Caller { source, .. } => *source.downcast::<Error>().unwrap(),
        Innodb::Interrupted => interrupted(session),
        Innodb::OtherTask(saved) => {
            match saved {
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
            Error::Raised(saved)
        }
        Innodb::Protocol(error) => panic!("InnoDB would crash, or write over its memory: {error}"),
        other => session.raise_text(other.number(), &other.to_string()),
    }
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
