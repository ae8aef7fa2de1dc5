// SPDX-License-Identifier: GPL-2.0-only

//! The donor's side: how a clone begins there, waits for its recipient to come back, and ends
//! (`clone0api.cc`, `clone0clone.cc:Clone_Sys`).

mod copier;
mod files;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_protocol::innodb::{Descriptor, Locator, VERSION};

use crate::clock::{Cancel, Clock, wait_until};
use crate::error::{Error, Result, number};
use crate::geometry::Geometry;
use crate::lock;
use crate::tasks::{MASTER, Tasks};
use copier::{Copier, Snapshot};

pub use files::{
    FileChange, FileChangeKind, PageCopy, RedoCopy, RedoFile, SourceBlock, SourceFile, SourceFiles,
};

/// How long a new clone waits for one that gives way to it.
const GIVE_WAY: Duration = Duration::from_secs(5);

/// How long a restart waits until the connection that failed has ended.
const WAIT_FOR_IDLE: Duration = Duration::from_secs(30);

/// Where the descriptors and the blocks of a donor's task go.
pub trait BlockOutput {
    /// Sends the descriptor and behind it `len` bytes of `file`, from its current offset.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn file(&mut self, output: &Output<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()>;

    /// Sends the descriptor and behind it `data`. Without data it is a descriptor alone.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn buffer(&mut self, output: &Output<'_>, data: &[u8]) -> Result<()>;
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// InnoDB's descriptor.
    pub descriptor: &'a [u8],
    /// The file that the bytes are of, for messages. Empty for a descriptor alone.
    pub name: &'a str,
    /// The descriptor must go over TLS.
    pub is_secure: bool,
}

/// What does not change while a donor runs.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions {
    /// The most clones at once. A server allows one (`MAX_CLONES`).
    pub max_clones: usize,
    /// How files are cut.
    pub geometry: Geometry,
    /// The first clone has this id. A recipient that comes back is known by its ids alone. mysqld
    /// begins at 1 with each start, so that a recipient may take another clone for its own; a donor
    /// without a server begins with a random number.
    pub first_id: u64,
}

/// The clones of a donor.
#[derive(Clone, Debug)]
pub struct Sources {
    system: Arc<System>,
}

struct System {
    clock: Arc<dyn Clock>,
    options: SourceOptions,
    clones: Mutex<Clones>,
}

struct Clones {
    running: Vec<Arc<Source>>,
    next_id: u64,
}

/// A clone at its donor.
struct Source {
    clone_id: u64,
    snapshot_id: u64,
    tasks: Tasks,
    life: Mutex<Life>,
    /// Copying has begun: only then the clone can go on after a network failure.
    may_restart: AtomicBool,
    snapshot: Mutex<Snapshot>,
    geometry: Geometry,
}

struct Life {
    state: LifeState,
    /// Counts restarts, so that nobody misses one.
    epoch: u32,
    /// Tasks that use the clone.
    users: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LifeState {
    Active,
    /// The network failed, and the recipient may come back.
    Idle,
    Aborted,
}

impl Sources {
    /// No clones yet.
    pub fn new(clock: Arc<dyn Clock>, options: SourceOptions) -> Self {
        let clones = Clones { running: Vec::new(), next_id: options.first_id };
        Self { system: Arc::new(System { clock, options, clones: Mutex::new(clones) }) }
    }

    /// Whether no clone is left.
    pub fn is_empty(&self) -> bool {
        self.system.clones().running.is_empty()
    }

    /// Begins a clone (COM_INIT). The task is its master. If there are as many clones as allowed,
    /// one that failed or waits for its recipient gives way.
    ///
    /// # Errors
    /// All clones are at work; the thread was told to stop.
    pub fn start(&self, cancel: &dyn Cancel) -> Result<SourceTask> {
        self.system.make_room(cancel)?;
        let source = {
            let mut clones = self.system.clones();
            let clone_id = clones.next_id;
            let snapshot_id = clone_id.wrapping_add(1);
            clones.next_id = clone_id.wrapping_add(2);
            let source = Arc::new(Source {
                clone_id,
                snapshot_id,
                tasks: Tasks::new(&self.system.clock, true),
                life: Mutex::new(Life { state: LifeState::Active, epoch: 0, users: 1 }),
                may_restart: AtomicBool::new(false),
                snapshot: Mutex::default(),
                geometry: self.system.options.geometry,
            });
            clones.running.push(Arc::clone(&source));
            source
        };
        self.add(cancel, source)
    }

    /// Adds a task to a clone (COM_ATTACH), as soon as the clone copies.
    ///
    /// # Errors
    /// There is no such clone, or it failed; the thread was told to stop.
    pub fn add_task(&self, cancel: &dyn Cancel, locator: &Locator) -> Result<SourceTask> {
        let source = self.system.find(locator);
        let source = source
            .ok_or_else(|| Error::internal("Innodb Clone add task refers non-existing clone"))?;
        source.life().users += 1;
        self.add(cancel, source)
    }

    /// Goes on with a clone after a network failure (COM_REINIT). The task is its master.
    ///
    /// # Errors
    /// There is no such clone, its failed connection does not end, or the locator does not fit the
    /// clone; the thread was told to stop.
    pub fn restart(&self, cancel: &dyn Cancel, locator: &Locator) -> Result<SourceTask> {
        let source = self
            .system
            .find(locator)
            .ok_or_else(|| Error::internal("Innodb Clone Restart could not find existing clone"))?;
        source.life().users += 1;
        if let Err(error) = self.system.take_over(cancel, &source, locator) {
            self.system.release(&source);
            return Err(error);
        }
        self.add(cancel, source)
    }

    /// Takes the recipient's acknowledgement (COM_ACK): it has finished a state, or it failed with
    /// `error`.
    ///
    /// # Errors
    /// There is no such clone; what is acknowledged is not its state; the thread was told to stop.
    pub fn acknowledge(
        &self,
        cancel: &dyn Cancel,
        locator: &Locator,
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        let source = self.system.find(locator);
        let source =
            source.ok_or_else(|| Error::internal("Innodb Clone ACK refers non-existing clone"))?;
        if cancel.is_cancelled() {
            source.tasks.set_error(number::ER_QUERY_INTERRUPTED);
            return Err(Error::Interrupted);
        }
        if error != 0 {
            source.tasks.set_error(error);
            return Ok(());
        }
        match Descriptor::parse(descriptor)? {
            Descriptor::State(state) if state.ack => source.tasks.acknowledge(state.state),
            _ => Err(Error::protocol("Wrong Clone RPC: Invalid State Descriptor")),
        }
    }

    fn add(&self, cancel: &dyn Cancel, source: Arc<Source>) -> Result<SourceTask> {
        match source.tasks.add(cancel, None) {
            Ok(number) => Ok(SourceTask { system: Arc::clone(&self.system), source, number }),
            Err(error) => {
                self.system.release(&source);
                Err(error)
            }
        }
    }
}

impl System {
    fn clones(&self) -> MutexGuard<'_, Clones> {
        lock(&self.clones)
    }

    fn find(&self, locator: &Locator) -> Option<Arc<Source>> {
        self.clones().running.iter().find(|source| source.is_named(locator)).cloned()
    }

    /// `Clone_Sys::find_free_index`.
    fn make_room(&self, cancel: &dyn Cancel) -> Result<()> {
        let max = self.options.max_clones;
        let is_full = || self.clones().running.len() >= max;
        if !is_full() {
            return Ok(());
        }
        let running = self.clones().running.clone();
        let gives_way = running.into_iter().find(|source| {
            source.life().state == LifeState::Idle || source.tasks.saved_error() != 0
        });
        let gives_way = gives_way.ok_or(Error::TooManyClones(max))?;
        gives_way.life().state = LifeState::Aborted;
        drop(gives_way);
        self.clock.notify();
        let is_free = wait_until(&*self.clock, GIVE_WAY, || {
            if cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            Ok(!is_full())
        })?;
        if is_free {
            return Ok(());
        }
        Err(Error::internal("Innodb Clone Copy failed to abort idle clone"))
    }

    /// Waits until the connection that failed has ended, and takes the clone over from it.
    fn take_over(&self, cancel: &dyn Cancel, source: &Source, locator: &Locator) -> Result<()> {
        let is_idle = wait_until(&*self.clock, WAIT_FOR_IDLE, || {
            if cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            match source.life().state {
                LifeState::Idle => Ok(true),
                LifeState::Active => Ok(false),
                LifeState::Aborted => {
                    Err(Error::internal("Innodb Clone Restart failed, existing clone aborted"))
                }
            }
        })?;
        if !is_idle {
            return Err(Error::internal("Clone restart wait for idle state timed out"));
        }
        source.tasks.restart_source(locator)?;
        let mut life = source.life();
        life.state = LifeState::Active;
        life.epoch += 1;
        drop(life);
        self.clock.notify();
        Ok(())
    }

    fn release(&self, source: &Arc<Source>) {
        let users = {
            let mut life = source.life();
            life.users -= 1;
            life.users
        };
        if users == 0 {
            self.clones().running.retain(|one| !Arc::ptr_eq(one, source));
            self.clock.notify();
        }
    }
}

impl Source {
    fn is_named(&self, locator: &Locator) -> bool {
        (locator.clone_id, locator.snapshot_id) == (self.clone_id, self.snapshot_id)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        lock(&self.life)
    }

    fn snapshot(&self) -> MutexGuard<'_, Snapshot> {
        lock(&self.snapshot)
    }
}

/// A task of a donor: what one connection carries.
///
/// It must be ended with [`end`](Self::end), or the clone never ends.
#[derive(Debug)]
#[must_use = "a task that is not ended keeps its clone for ever"]
pub struct SourceTask {
    system: Arc<System>,
    source: Arc<Source>,
    number: u32,
}

impl SourceTask {
    /// The task's number; the master's is 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is the clone's first task.
    pub fn is_master(&self) -> bool {
        self.number == MASTER
    }

    /// The locator that the recipient gets.
    pub fn locator(&self) -> Locator {
        Locator {
            version: VERSION,
            clone_id: self.source.clone_id,
            snapshot_id: self.source.snapshot_id,
            index: 0,
            state: self.source.tasks.state(),
            metadata_transferred: false,
            progress: None,
        }
    }

    /// Copies until the end of the clone (COM_EXECUTE). All tasks of a clone give the same files.
    ///
    /// # Errors
    /// That of `files` or `output`, that of another task of the clone, or a wait that took half an
    /// hour; the thread was told to stop.
    pub fn copy(
        &mut self,
        cancel: &dyn Cancel,
        files: &dyn SourceFiles,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        let tasks = &self.source.tasks;
        let copier = Copier::new(&self.source, self.number, cancel, files, output);
        let outcome = tasks.check_error(cancel).and_then(|()| {
            self.source.may_restart.store(true, Ordering::Relaxed);
            copier.copy()
        });
        if let Err(error) = &outcome {
            tasks.set_error(error.number());
        }
        outcome
    }

    /// Ends the task, with the MySQL number of its error or 0. The master waits for all others.
    /// After a network error the master waits for the recipient to come back, for `patience`.
    pub fn end(self, cancel: &dyn Cancel, error: u32, patience: Duration) {
        let Self { system, source, number } = self;
        let error = if cancel.is_cancelled() { number::ER_QUERY_INTERRUPTED } else { error };
        source.tasks.set_error(error);
        let may_restart = source.tasks.drop_task(cancel, number)
            && source.may_restart.load(Ordering::Relaxed)
            && source.life().state == LifeState::Active
            && !patience.is_zero();
        if may_restart {
            let epoch = {
                let mut life = source.life();
                life.state = LifeState::Idle;
                life.epoch
            };
            system.clock.notify();
            let has_restarted = wait_until(&*system.clock, patience, || {
                let life = source.life();
                if cancel.is_cancelled() || life.state == LifeState::Aborted {
                    return Err(Error::Interrupted);
                }
                Ok(life.epoch != epoch)
            });
            if !matches!(has_restarted, Ok(true)) {
                source.life().state = LifeState::Aborted;
                system.clock.notify();
            }
        } else if number == MASTER && error != 0 {
            source.life().state = LifeState::Aborted;
            system.clock.notify();
        }
        system.release(&source);
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clones = self.clones().running.len();
        f.debug_struct("System").field("clones", &clones).finish_non_exhaustive()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("clone_id", &self.clone_id)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}
