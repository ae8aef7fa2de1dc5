// SPDX-License-Identifier: GPL-2.0-only

//! A task's part in the engines: it begins and ends there, and each descriptor that arrives goes there.

use clone_protocol::EngineLocator;
use clone_protocol::innodb::{self, StreamCheck, TaskRole};
use zeroize::Zeroize;

use super::answer::{locators_expected, unexpected};
use super::apply::Applier;
use super::block::Expected;
use super::task::{Storage, Task};
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
        let Some(task) = task else { return Err(unexpected()) };
        self.expected = Expected::default();
        if db_type == innodb::DB_TYPE {
            let role = if self.is_master() { TaskRole::Master } else { TaskRole::Worker };
            let checked = self.shared.stream.check_from(role, descriptor)?;
            self.expected = Expected { len: checked.data_len, holds_key: checked.key_in_data };
        }
        let session = self.session;
        let mut applier = Applier::new(self, locator_index);
        let applied =
            engine.apply(session, &locator, task, locator_index, descriptor, &mut applier);
        applier.finish(applied)
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
        self.next_stage(0);
        let directory = self.shared.directory.as_deref();
        let begun = Destination::begin(session, &mut located, Mode::Start, directory)?;
        self.storage = Storage::Active(begun);
        *self.shared.located() = located;
        Ok(())
    }

    /// After ATTACH: the engine waits until this recipient has reached the state that the donor's locator names.
    pub(super) fn join_clone(&mut self, mut located: Vec<Located<S::Engine>>) -> Result<()> {
        let directory = self.shared.directory.as_deref();
        let begun = Destination::begin(self.session, &mut located, Mode::AddTask, directory)?;
        self.storage = Storage::Active(begun);
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
