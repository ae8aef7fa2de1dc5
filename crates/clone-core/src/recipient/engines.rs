// SPDX-License-Identifier: GPL-2.0-only

//! A task's part in the engines: it begins and ends there, and each descriptor that arrives goes there.

use clone_protocol::EngineLocator;
use clone_protocol::innodb::{StreamCheck, TaskRole};
use zeroize::Zeroize;

use super::answer::{locators_expected, unexpected};
use super::apply::Applier;
use super::block::Expected;
use super::task::{EngineSide, Task};
use crate::engine::{Mode, ServerEngine};
use crate::error::{Error, Result, number};
use crate::session::RecipientSession;
use crate::tasks::{DestinationTasks, EngineClone};

impl<S: RecipientSession> Task<'_, S> {
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
        let Some(clone) = self.shared.clones().get(locator_index).cloned() else {
            return Err(unexpected());
        };
        if clone.engine.db_type() != db_type {
            let text = "Remote descriptor handlerton type mismatch";
            return Err(Error::Protocol(text.to_owned()));
        }
        self.expected = Expected::default();
        if clone.is_innodb() {
            let role = if self.is_master() { TaskRole::Master } else { TaskRole::Worker };
            let checked = self.shared.stream.check_from(role, descriptor)?;
            self.expected = Expected { len: checked.data_len, holds_key: checked.key_in_data };
        }
        // The engine's callbacks use all of the task but this.
        let EngineSide::Active(tasks) = std::mem::replace(&mut self.engine_side, EngineSide::None)
        else {
            return Err(unexpected());
        };
        let session = self.session;
        let mut applier = Applier::new(self, locator_index);
        let applied = tasks.apply(session, &clone, locator_index, descriptor, &mut applier);
        let applied = applier.finish(applied);
        self.engine_side = EngineSide::Active(tasks);
        applied
    }

    /// The engines of the donor's locators, which must be ours in the same order.
    pub(super) fn resolve(
        &self,
        locators: Vec<EngineLocator>,
    ) -> Result<Vec<EngineClone<S::Engine>>> {
        let ours = self.shared.clones().clone();
        if ours.len() != locators.len() {
            return Err(locators_expected());
        }
        ours.into_iter()
            .zip(locators)
            .map(|(one, theirs)| {
                if one.engine.db_type() != theirs.db_type || theirs.bytes.is_empty() {
                    return Err(locators_expected());
                }
                Ok(EngineClone { engine: one.engine, locator: theirs.bytes })
            })
            .collect()
    }

    /// After INIT: everything is checked, and only then anything is changed.
    pub(super) fn begin_clone(&mut self, mut located: Vec<EngineClone<S::Engine>>) -> Result<()> {
        let session = self.session;
        self.end_storage(0)?;
        let version = self.shared.version();
        if let Some(master) = &mut self.master {
            master.parameters.version = version;
            session.accept(&master.parameters)?;
        }
        if self.shared.replaces_server() {
            session.begin_replacing()?;
            if let Some(master) = &mut self.master {
                master.is_replacing = true;
            }
        }
        self.next_stage(0);
        let directory = self.shared.directory.as_deref();
        let begun = DestinationTasks::begin(session, &mut located, Mode::Start, directory)?;
        self.engine_side = EngineSide::Active(begun);
        *self.shared.clones() = located;
        Ok(())
    }

    /// After ATTACH: the engine waits until this recipient has reached the state that the donor's locator names.
    pub(super) fn join_clone(&mut self, mut located: Vec<EngineClone<S::Engine>>) -> Result<()> {
        let directory = self.shared.directory.as_deref();
        let begun = DestinationTasks::begin(self.session, &mut located, Mode::AddTask, directory)?;
        self.engine_side = EngineSide::Active(begun);
        Ok(())
    }

    /// Lets the other tasks of the clone see that this one failed.
    pub(super) fn fail_storage(&self, error: &Error) {
        if let EngineSide::Active(destination) = &self.engine_side {
            let located = self.shared.clones().clone();
            destination.fail(self.session, &located, error.number());
        }
    }

    /// Ends the task in the engines, with `error` or 0.
    pub(super) fn end_storage(&mut self, error: u32) -> Result<()> {
        match std::mem::replace(&mut self.engine_side, EngineSide::None) {
            EngineSide::None => Ok(()),
            EngineSide::Version(destination) | EngineSide::Active(destination) => {
                let located = self.shared.clones().clone();
                destination.end(self.session, &located, error)
            }
        }
    }

    /// The server's data may change again after a clone that failed. After success it stays as it is
    /// until the server restarts.
    pub(super) fn end_replacing(&mut self) {
        if let Some(master) = &mut self.master
            && std::mem::take(&mut master.is_replacing)
        {
            self.session.end_replacing();
        }
    }
}
