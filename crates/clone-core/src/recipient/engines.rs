// SPDX-License-Identifier: GPL-2.0-only

//! A task's part in the engines: it begins and ends there, and each descriptor that arrives goes there.

use std::sync::Arc;

use clone_protocol::EngineLocator;
use clone_protocol::innodb::{self, Descriptor, StreamCheck, TaskRole};
use zeroize::Zeroize;

use super::apply::Applier;
use super::task::{Expected, Master, Storage, Task, locators_expected, unexpected};
use crate::apply_order::{Role, Turn};
use crate::error::{Error, Result, number};
use crate::params;
use crate::session::{Engine, Host, Mode, Session};
use crate::storage::{Destination, Located};

impl<S: Session> Task<'_, S> {
    /// Gives the descriptor at hand to its engine.
    pub(super) fn apply(&mut self, db_type: u8, locator_index: usize) -> Result<()> {
        let mut descriptor = std::mem::take(&mut self.descriptor);
        let outcome = self.apply_descriptor(db_type, locator_index, &descriptor);
        if StreamCheck::contains_key_material(&descriptor) {
            descriptor.zeroize();
        }
        self.descriptor = descriptor;
        if let Err(error) = &outcome {
            self.session.raise(error);
            if self.is_master() && error.number() != number::ER_CLONE_DONOR {
                self.report_local_error(error);
            }
        }
        outcome
    }

    fn apply_descriptor(
        &mut self,
        db_type: u8,
        locator_index: usize,
        descriptor: &[u8],
    ) -> Result<()> {
        let Storage::Active(destination) = &self.storage else { return Err(unexpected()) };
        let task = destination.task(locator_index);
        let Some(Located { engine, locator }) = self.shared.located().get(locator_index).cloned()
        else {
            return Err(unexpected());
        };
        if engine.db_type() != db_type {
            let text = "Remote descriptor handlerton type mismatch";
            return Err(Error::Protocol(text.to_owned()));
        }
        let (session, shared) = (self.session, Arc::clone(&self.shared));
        let (role, sender) = match &self.master {
            Some(Master { creates_late, .. }) => {
                (Role::Master { creates_late: *creates_late }, TaskRole::Master)
            }
            None => (Role::Worker, TaskRole::Worker),
        };
        self.expected = Expected::default();
        let mut innodb = None;
        if db_type == innodb::DB_TYPE {
            let checked = shared.stream.check_from(sender, descriptor)?;
            self.expected = Expected { len: checked.data_len, holds_key: checked.key_in_data };
            innodb = Descriptor::parse(descriptor).ok();
        }
        let Some(task) = task else {
            return match innodb {
                Some(Descriptor::State(_)) => Ok(()),
                _ => Err(unexpected()),
            };
        };
        let apply = |descriptor: &[u8]| {
            let mut callbacks = Applier::new(self, locator_index);
            let outcome =
                engine.apply(session, &locator, task, locator_index, descriptor, &mut callbacks);
            callbacks.finish(outcome)
        };
        match shared.order.apply(session, role, innodb.as_ref(), descriptor, apply)? {
            Turn::GoOn => {}
            Turn::Leave => {
                if let Storage::Active(destination) = &mut self.storage {
                    destination.leave(session, &Located { engine, locator }, locator_index)?;
                }
                self.seat = None;
            }
        }
        Ok(())
    }

    /// The engines of the donor's locators, which must be ours in the same order.
    pub(super) fn resolve(&self, locators: Vec<EngineLocator>) -> Result<Vec<Located<S::Engine>>> {
        let ours = self.shared.located().clone();
        if ours.len() != locators.len() {
            return Err(locators_expected());
        }
        ours.into_iter()
            .zip(locators)
            .map(|(one, theirs)| {
                if one.engine.db_type() != theirs.db_type || theirs.bytes.is_empty() {
                    return Err(locators_expected());
                }
                Ok(Located { engine: one.engine, locator: theirs.bytes })
            })
            .collect()
    }

    /// After INIT: everything is checked, and only then anything is changed.
    pub(super) fn begin_clone(&mut self, mut located: Vec<Located<S::Engine>>) -> Result<()> {
        let session = self.session;
        self.end_storage(0)?;
        let version = self.shared.version();
        if let Some(master) = &self.master {
            master.parameters.check(session, version)?;
        }
        params::check_packet_limit(session)?;
        if self.shared.replaces_server() {
            session.lock_backup(session.host().settings().ddl_timeout)?;
            if let Some(master) = &mut self.master {
                master.is_backup_locked = true;
            }
        }
        let creates_late = self.creates_late();
        if let Some(master) = &mut self.master {
            master.creates_late = creates_late;
        }
        self.next_stage(0);
        let directory = self.shared.directory.as_deref();
        let begun = Destination::begin(session, &mut located, Mode::Start, directory)?;
        self.storage = Storage::Active(begun);
        *self.shared.located() = located;
        Ok(())
    }

    /// Whether there is something to do while files are created. A donor on this machine has use for the processors, unless it has to
    /// wait for a limit: there the clone takes as long, and a sixth to a quarter more of the processors (`docs/performance.md`).
    fn creates_late(&self) -> bool {
        /// What a network of one Gbit/s carries, MiB/s.
        const SLOW: u32 = 128;
        let settings = self.session.host().settings();
        let is_slow = |limit| (1..=SLOW).contains(&limit);
        !self.is_within_host()
            || is_slow(settings.max_network_bandwidth)
            || is_slow(settings.max_data_bandwidth)
    }

    /// After ATTACH: the engine waits until this recipient has reached the state that the donor's locator names.
    pub(super) fn join_clone(&mut self, mut located: Vec<Located<S::Engine>>) -> Result<()> {
        let directory = self.shared.directory.as_deref();
        let begun = Destination::begin(self.session, &mut located, Mode::AddTask, directory)?;
        self.storage = Storage::Active(begun);
        self.seat = Some(self.shared.order.join());
        Ok(())
    }

    /// Lets the other tasks of the clone see that this one failed.
    pub(super) fn fail_storage(&self, error: &Error) {
        if let Storage::Active(destination) = &self.storage {
            let located = self.shared.located().clone();
            destination.fail(self.session, &located, error.number());
        }
    }

    /// Ends the task in the engines, with `error` or 0.
    pub(super) fn end_storage(&mut self, error: u32) -> Result<()> {
        self.seat = None;
        match std::mem::replace(&mut self.storage, Storage::None) {
            Storage::None => Ok(()),
            Storage::Version(destination) | Storage::Active(destination) => {
                let located = self.shared.located().clone();
                destination.end(self.session, &located, error)
            }
        }
    }

    /// The backup lock of a clone that failed; after success it is kept until the server restarts.
    pub(super) fn unlock_backup(&mut self) {
        if let Some(master) = &mut self.master
            && std::mem::take(&mut master.is_backup_locked)
        {
            self.session.unlock_backup();
        }
    }
}
