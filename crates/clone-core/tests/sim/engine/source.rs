// SPDX-License-Identifier: GPL-2.0-only

//! The donor's side: how a clone begins there, waits for its recipient to come back, and ends (`clone0api.cc`).

mod copier;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clone_core::engine::{Begun, BlockOutput, Mode};
use clone_core::error::{Error, Result, number};
use clone_protocol::innodb::{Descriptor, Locator, VERSION};
use tempfile::TempDir;

use super::tasks::{MASTER, Tasks};
use super::{Innodb, ddl_timeout, donor_timeout, encode, internal, interrupted};
use crate::sim::session::SimSession;
use copier::{Copier, Snapshot};

/// A clone at its donor.
pub(super) struct Source {
    clone_id: u64,
    snapshot_id: u64,
    pub(super) tasks: Tasks,
    life: Mutex<Life>,
    /// Copying has begun: only then it can go on after a network failure.
    may_restart: AtomicBool,
    snapshot: Mutex<Snapshot>,
    /// Here are the files while they are copied.
    directory: TempDir,
}

struct Life {
    state: LifeState,
    /// Restarts, so that nobody misses one.
    epoch: u32,
    /// Sessions that use the clone.
    users: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LifeState {
    Active,
    /// The network failed, and the recipient may come back.
    Idle,
    Aborted,
}

impl Innodb {
    pub(super) fn begin_source(
        &self,
        session: &SimSession,
        locator: Option<&Locator>,
        mode: Mode,
    ) -> Result<Begun> {
        let found = {
            let source = self.system().source.clone();
            source.filter(|source| locator.is_some_and(|named| source.is_named(named)))
        };
        let source = match (mode, found) {
            (Mode::Start, None) => self.new_source(session)?,
            (Mode::AddTask | Mode::Restart, Some(source)) => {
                source.life.lock().unwrap().users += 1;
                source
            }
            (Mode::Restart, None) => {
                let text = "Innodb Clone Restart could not find existing clone";
                return Err(internal(session, text));
            }
            (Mode::AddTask, None) => {
                let text = "Innodb Clone add task refers non-existing clone";
                return Err(internal(session, text));
            }
            (mode, _) => panic!("begun with {mode:?}"),
        };
        let begun = match (mode, locator) {
            (Mode::Restart, Some(locator)) => self.restart_source(session, &source, locator),
            _ => Ok(()),
        };
        let begun = begun.and_then(|()| source.tasks.add(session, None));
        if begun.is_err() {
            self.release_source(&source);
        }
        let task = begun?;
        if mode == Mode::Start && session.host.facts().loses_backup_lock {
            session.host.release_backup_lock(session.handle.id);
        }
        let mut system = self.system();
        system.balance.begun += 1;
        system.balance.added += u32::from(task != MASTER);
        system.balance.restarted += u32::from(mode == Mode::Restart);
        Ok(Begun { locator: encode(&Descriptor::Locator(source.locator())), task })
    }

    /// A clone that failed or waits for its recipient gives way to a new one (`Clone_Sys::find_free_index`).
    fn new_source(&self, session: &SimSession) -> Result<Arc<Source>> {
        if let Some(other) = self.system().source.clone() {
            let is_idle = other.life.lock().unwrap().state == LifeState::Idle;
            if !is_idle && other.tasks.saved_error() == 0 {
                return Err(session.raise_text(
                    number::ER_CLONE_TOO_MANY_CONCURRENT_CLONES,
                    "Too many concurrent clone operations. Maximum allowed - 1",
                ));
            }
            other.life.lock().unwrap().state = LifeState::Aborted;
            self.sim.notify(self.key);
            let is_gone = self.wait_until(Duration::from_secs(5), || {
                if session.handle.is_killed() {
                    return Err(interrupted(session));
                }
                Ok(self.system().source.is_none())
            })?;
            if !is_gone {
                return Err(internal(session, "Innodb Clone Copy failed to abort idle clone"));
            }
        }
        assert!(ddl_timeout(session) < u32::MAX);
        let mut system = self.system();
        let clone_id = system.last_id + 1;
        system.last_id += 2;
        let source = Arc::new(Source {
            clone_id,
            snapshot_id: clone_id + 1,
            tasks: Tasks::new(&self.sim, true),
            life: Mutex::new(Life { state: LifeState::Active, epoch: 0, users: 1 }),
            may_restart: AtomicBool::new(false),
            snapshot: Mutex::default(),
            directory: tempfile::tempdir().unwrap(),
        });
        system.source = Some(Arc::clone(&source));
        Ok(source)
    }

    /// Waits until the connection that failed has ended, and takes the clone over from it.
    fn restart_source(
        &self,
        session: &SimSession,
        source: &Source,
        locator: &Locator,
    ) -> Result<()> {
        let is_idle =
            self.wait_until(Duration::from_secs(30), || match source.life.lock().unwrap().state {
                _ if session.handle.is_killed() => Err(interrupted(session)),
                LifeState::Idle => Ok(true),
                LifeState::Active => Ok(false),
                LifeState::Aborted => {
                    Err(internal(session, "Innodb Clone Restart failed, existing clone aborted"))
                }
            })?;
        if !is_idle {
            return Err(internal(session, "Clone restart wait for idle state timed out"));
        }
        source.tasks.restart_source(locator);
        let mut life = source.life.lock().unwrap();
        life.state = LifeState::Active;
        life.epoch += 1;
        drop(life);
        self.sim.notify(self.key);
        Ok(())
    }

    pub(super) fn end_source(&self, session: &SimSession, locator: &[u8], task: u32, error: u32) {
        let source = self.source(locator);
        self.system().balance.ended += 1;
        let error = if session.handle.is_killed() { number::ER_QUERY_INTERRUPTED } else { error };
        source.tasks.set_error(error);
        let may_restart = source.tasks.drop_task(session, task)
            && source.may_restart.load(Ordering::Relaxed)
            && source.life.lock().unwrap().state == LifeState::Active;
        let patience = donor_timeout(session);
        if !may_restart || patience.is_zero() {
            if task == MASTER && error != 0 {
                source.life.lock().unwrap().state = LifeState::Aborted;
                self.sim.notify(self.key);
            }
            self.release_source(&source);
            return;
        }
        let epoch = {
            let mut life = source.life.lock().unwrap();
            life.state = LifeState::Idle;
            life.epoch
        };
        self.network.trace(|| format!("clone idle for {patience:?}"));
        self.sim.notify(self.key);
        let has_restarted = self.wait_until(patience, || {
            let life = source.life.lock().unwrap();
            if session.handle.is_killed() || life.state == LifeState::Aborted {
                return Err(Error::Interrupted);
            }
            Ok(life.epoch != epoch)
        });
        if has_restarted != Ok(true) {
            source.life.lock().unwrap().state = LifeState::Aborted;
            self.sim.notify(self.key);
        }
        self.release_source(&source);
    }

    fn release_source(&self, source: &Arc<Source>) {
        let users = {
            let mut life = source.life.lock().unwrap();
            life.users -= 1;
            life.users
        };
        if users == 0 {
            assert_eq!(source.tasks.count(), 0, "a clone without users has no tasks");
            self.system().source = None;
            self.sim.notify(self.key);
        }
    }
}

impl Source {
    pub(super) fn is_named(&self, locator: &Locator) -> bool {
        (locator.clone_id, locator.snapshot_id) == (self.clone_id, self.snapshot_id)
    }

    fn locator(&self) -> Locator {
        Locator {
            version: VERSION,
            clone_id: self.clone_id,
            snapshot_id: self.snapshot_id,
            index: 0,
            state: self.tasks.state(),
            metadata_transferred: false,
            progress: None,
        }
    }

    pub(super) fn copy(
        &self,
        session: &SimSession,
        task: u32,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        let copier = Copier::new(self, session, task, callbacks);
        let outcome = self.tasks.check_error(session).and_then(|()| {
            self.may_restart.store(true, Ordering::Relaxed);
            copier.copy()
        });
        if let Err(error) = &outcome {
            self.tasks.set_error(error.number());
        }
        outcome
    }
}
