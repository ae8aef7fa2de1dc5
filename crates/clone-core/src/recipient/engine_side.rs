// SPDX-License-Identifier: GPL-2.0-only

//! A recipient's task in the storage engines: begins and ends the task, checks each descriptor, and
//! gives it to its engine.

use clone_protocol::innodb::{
    DB_TYPE, Descriptor, Locator, Recipient, StreamCheck, TaskCheck, TaskRole,
};
use clone_protocol::{EngineLocator, MAX_ENGINES};

use zeroize::Zeroizing;

use super::answer::{locators_expected, unexpected};
use super::expected::Expected;
use super::placement::NewFile;
use super::shared::Shared;
use crate::engine::{BlockInput, Mode, ServerEngine};
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::session::{Host, RecipientSession};
use crate::tasks::{DestinationTasks, EngineClone};

/// A task's part in the engines.
#[derive(Default)]
pub(super) struct EngineSide {
    state: State,
    /// Checks the descriptors of the EXECUTE at hand; none before the first.
    check: Option<TaskCheck>,
}

/// The check of InnoDB's descriptors from this donor.
fn stream_check<S: RecipientSession>(session: &S, donor: &Parameters) -> Result<StreamCheck> {
    let has_spare_redo_file = session.host().release().has_spare_redo_file;
    let page_size = donor.page_size()?;
    Ok(StreamCheck::new(Recipient { page_size, has_spare_redo_file, directories: None }))
}

/// How far the task is in the engines.
#[derive(Default)]
enum State {
    #[default]
    None,
    /// Begun only to learn the format version.
    Version(DestinationTasks),
    Active(DestinationTasks),
}

impl EngineSide {
    /// Whether the task takes part in a clone.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    /// Before INIT: asks all engines of this server for their version locators.
    pub(super) fn begin_version<S: RecipientSession>(
        &mut self,
        session: &S,
        shared: &Shared<S>,
    ) -> Result<()> {
        let engines = session.engines();
        if engines.is_empty() {
            return Err(Error::NotSupported(
                "Clone without a storage engine that can clone".into(),
            ));
        }
        if engines.len() > MAX_ENGINES {
            let what = format!("a clone of more than {MAX_ENGINES} storage engines");
            return Err(Error::NotSupported(what.into()));
        }
        let none = |engine| EngineClone { engine, locator: Vec::new() };
        let mut clones: Vec<_> = engines.into_iter().map(none).collect();
        let directory = shared.target.own_directory();
        let begun = DestinationTasks::begin(session, &mut clones, Mode::Version, directory)?;
        self.state = State::Version(begun);
        *shared.clones() = clones;
        Ok(())
    }

    /// After INIT: the apply begins. It drops the server's data if that is to be replaced.
    pub(super) fn begin<S: RecipientSession>(
        &mut self,
        session: &S,
        shared: &Shared<S>,
        mut clones: Vec<EngineClone<S::Engine>>,
        donor: &Parameters,
    ) -> Result<()> {
        let _ = shared.stream.set(stream_check(session, donor)?);
        let directory = shared.target.directory();
        if let Some(directory) = directory {
            shared.new_directory.note(directory);
        }
        let begun = DestinationTasks::begin(session, &mut clones, Mode::Start, directory)?;
        self.state = State::Active(begun);
        *shared.clones() = clones;
        Ok(())
    }

    /// Before REINIT, if another process has begun the clone: the engine takes over what that
    /// process has applied.
    pub(super) fn begin_resumed<S: RecipientSession>(
        &mut self,
        session: &S,
        shared: &Shared<S>,
        donor: &Parameters,
        locator: Vec<u8>,
        descriptors: impl Iterator<Item = Vec<u8>>,
    ) -> Result<()> {
        let engine = session.engines().into_iter().find(|one| one.db_type() == DB_TYPE);
        let engine = engine.ok_or_else(|| Error::Internal("InnoDB is not there".to_owned()))?;
        let stream = stream_check(session, donor)?;
        stream.replay(descriptors)?;
        let _ = shared.stream.set(stream);
        shared.set_version(donor.version);
        let mut clones = vec![EngineClone { engine, locator }];
        let directory = shared.target.directory();
        let begun = DestinationTasks::begin(session, &mut clones, Mode::Start, directory)?;
        self.state = State::Active(begun);
        *shared.clones() = clones;
        Ok(())
    }

    /// After ATTACH: the engines wait until this recipient has reached the state that the donor's
    /// locators name.
    pub(super) fn join<S: RecipientSession>(
        &mut self,
        session: &S,
        shared: &Shared<S>,
        mut clones: Vec<EngineClone<S::Engine>>,
    ) -> Result<()> {
        let directory = shared.target.directory();
        let begun = DestinationTasks::begin(session, &mut clones, Mode::AddTask, directory)?;
        self.state = State::Active(begun);
        Ok(())
    }

    /// Before REINIT: asks the engines for locators that say what has arrived.
    pub(super) fn restart<S: RecipientSession>(
        &mut self,
        session: &S,
        shared: &Shared<S>,
    ) -> Result<()> {
        let State::Active(tasks) = &self.state else { return Ok(()) };
        let mut clones = shared.clones().clone();
        tasks.restart(session, &mut clones, shared.target.directory())?;
        if let Some(stream) = shared.stream.get() {
            for one in clones.iter().filter(|one| one.is_innodb()) {
                stream.resume(&one.locator)?;
            }
        }
        *shared.clones() = clones;
        Ok(())
    }

    /// Before EXECUTE: the descriptors of a new stream are checked from its beginning.
    pub(super) fn begin_stream<S: RecipientSession>(&mut self, shared: &Shared<S>, role: TaskRole) {
        self.check = shared.stream.get().map(|stream| stream.task(role));
    }

    /// Matches the donor's locators with this server's engines, which must be the same in the same
    /// order.
    pub(super) fn resolve<S: RecipientSession>(
        shared: &Shared<S>,
        locators: Vec<EngineLocator>,
    ) -> Result<Vec<EngineClone<S::Engine>>> {
        let ours = shared.clones().clone();
        if ours.len() != locators.len() {
            return Err(locators_expected());
        }
        ours.into_iter()
            .zip(locators)
            .map(|(one, theirs)| {
                let is_ours = one.engine.db_type() == theirs.db_type && !theirs.bytes.is_empty();
                // InnoDB checks the length of a locator, but not its content.
                if !is_ours || (one.is_innodb() && Locator::parse(&theirs.bytes).is_err()) {
                    return Err(locators_expected());
                }
                Ok(EngineClone { engine: one.engine, locator: theirs.bytes })
            })
            .collect()
    }

    /// Checks a descriptor. Returns the clone in the descriptor's engine, and what the descriptor
    /// says about its data.
    pub(super) fn check<S: RecipientSession>(
        &mut self,
        shared: &Shared<S>,
        db_type: u8,
        locator_index: usize,
        descriptor: &[u8],
    ) -> Result<(EngineClone<S::Engine>, Expected)> {
        if !self.is_active() {
            return Err(unexpected());
        }
        let clone = shared.clones().get(locator_index).cloned().ok_or_else(unexpected)?;
        if clone.engine.db_type() != db_type {
            let text = "Remote descriptor handlerton type mismatch";
            return Err(Error::Protocol(text.to_owned()));
        }
        if !clone.is_innodb() {
            return Ok((clone, Expected::default()));
        }
        let checked = self.check.as_mut().ok_or_else(unexpected)?.check(descriptor)?;
        Ok((clone, Expected::of(checked)))
    }

    /// What the engine is told instead of a checked descriptor of InnoDB, if the clone waits in a
    /// staging directory.
    ///
    /// # Errors
    /// This server does not accept the file that the descriptor describes.
    pub(super) fn place<S: RecipientSession>(
        session: &S,
        shared: &Shared<S>,
        descriptor: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        if !shared.target.is_staging() {
            return Ok(None);
        }
        if let Ok(Descriptor::State(state)) = Descriptor::parse(descriptor) {
            shared.note_disk_estimate(state.estimate_disk);
        }
        let data = session.own_data()?;
        let noted = shared.placement().note(descriptor);
        match noted.new_file {
            Some(NewFile::System { index, size }) => data.accept_system_file(index, size)?,
            Some(NewFile::Outside(path)) => data.accept_outside_file(path)?,
            None => {}
        }
        Ok(noted.descriptor)
    }

    /// Gives a descriptor to its engine, which takes the data from `input`.
    pub(super) fn apply<S: RecipientSession>(
        &self,
        session: &S,
        clone: &EngineClone<S::Engine>,
        locator_index: usize,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let State::Active(tasks) = &self.state else { return Err(unexpected()) };
        tasks.apply(session, clone, locator_index, descriptor, input)
    }

    /// Tells the other tasks of the clone that this one failed.
    pub(super) fn fail<S: RecipientSession>(&self, session: &S, shared: &Shared<S>, error: &Error) {
        if let State::Active(tasks) = &self.state {
            if !error.is_network() && !matches!(error, Error::Raised(_)) {
                let _ = shared.first_error.set(error.clone());
            }
            let clones = shared.clones().clone();
            tasks.fail(session, &clones, error.number());
        }
    }

    /// Ends the task in the engines, with `error` or 0.
    pub(super) fn end<S: RecipientSession>(
        &mut self,
        session: &S,
        shared: &Shared<S>,
        error: u32,
    ) -> Result<()> {
        match std::mem::take(&mut self.state) {
            State::None => Ok(()),
            State::Version(tasks) | State::Active(tasks) => {
                let clones = shared.clones().clone();
                tasks.end(session, &clones, error)
            }
        }
    }
}
