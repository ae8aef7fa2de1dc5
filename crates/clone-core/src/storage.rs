// SPDX-License-Identifier: GPL-2.0-only

//! The engines of one clone, and the calling task's part in each.

use clone_protocol::{EngineLocator, innodb};

use crate::error::{Error, Result};
use crate::session::{Engine, Mode, Session};

/// An engine and its locator of the clone.
#[derive(Clone, Debug)]
pub(crate) struct Located<E> {
    pub(crate) engine: E,
    pub(crate) locator: Vec<u8>,
}

impl<E> Located<E> {
    /// The form in which peers exchange it.
    pub(crate) fn to_wire<S: Session>(&self) -> EngineLocator
    where
        E: Engine<S>,
    {
        EngineLocator { db_type: self.engine.db_type(), bytes: self.locator.clone() }
    }
}

/// The source side of a clone in this session: one task in each engine.
#[derive(Debug)]
pub(crate) struct Source<E> {
    pub(crate) located: Vec<Located<E>>,
    pub(crate) tasks: Vec<u32>,
}

impl<E> Source<E> {
    /// Begins a clone in all engines of the server.
    pub(crate) fn begin_all<S>(session: &S) -> Result<Self>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        Self::begin(
            session,
            session.engines().into_iter().map(|engine| (engine, None)),
            Mode::Start,
        )
    }

    /// Begins, joins or resumes the clone that the locators name.
    ///
    /// # Errors
    /// The engine's; what the other engines had begun is ended with it.
    pub(crate) fn begin<S>(
        session: &S,
        engines: impl Iterator<Item = (E, Option<Vec<u8>>)>,
        mode: Mode,
    ) -> Result<Self>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        let mut begun = Self { located: Vec::new(), tasks: Vec::new() };
        for (engine, locator) in engines {
            match engine.begin(session, locator.as_deref(), mode) {
                Ok(one) => {
                    begun.located.push(Located { engine, locator: one.locator });
                    begun.tasks.push(one.task);
                }
                Err(error) => {
                    begun.end(session, error.number());
                    return Err(error);
                }
            }
        }
        if begun.located.is_empty() {
            return Err(Error::NotSupported(
                "Clone without a storage engine that can clone".into(),
            ));
        }
        Ok(begun)
    }

    /// InnoDB's part.
    pub(crate) fn innodb<S>(&self) -> Option<&Located<E>>
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        self.located.iter().find(|one| one.engine.db_type() == innodb::DB_TYPE)
    }

    /// Ends the task in all engines, with `error` or 0.
    pub(crate) fn end<S>(self, session: &S, error: u32)
    where
        S: Session<Engine = E>,
        E: Engine<S>,
    {
        for (one, task) in self.located.iter().zip(&self.tasks) {
            // There is nobody left to tell: each engine gets its end, whatever the one before said.
            let _ = one.engine.end(session, &one.locator, *task, error);
        }
    }
}

/// The destination side of a clone in this session: one task in each engine.
#[derive(Debug)]
pub(crate) struct Destination {
    tasks: Vec<u32>,
}

impl Destination {
    /// Begins, joins or resumes the apply; the locators are replaced by the engines' answers, unless a task is added: its clone
    /// keeps the locator it has.
    ///
    /// # Errors
    /// The engine's; what the other engines had begun is ended with it.
    pub(crate) fn begin<S: Session>(
        session: &S,
        located: &mut [Located<S::Engine>],
        mode: Mode,
        directory: Option<&str>,
    ) -> Result<Self> {
        let mut tasks = Vec::with_capacity(located.len());
        for index in 0..located.len() {
            let one = &mut located[index];
            let locator = (!one.locator.is_empty()).then_some(one.locator.as_slice());
            match one.engine.apply_begin(session, locator, mode, directory) {
                Ok(begun) => {
                    if mode != Mode::AddTask {
                        one.locator = begun.locator;
                    }
                    tasks.push(begun.task);
                }
                Err(error) => {
                    let begun = Destination { tasks };
                    let _ = begun.end(session, &located[..index], error.number());
                    return Err(error);
                }
            }
        }
        Ok(Destination { tasks })
    }

    /// Resumes the apply after a network failure: same tasks, and locators that tell what has arrived.
    pub(crate) fn restart<S: Session>(
        &self,
        session: &S,
        located: &mut [Located<S::Engine>],
        directory: Option<&str>,
    ) -> Result<()> {
        for one in located {
            let locator = Some(one.locator.as_slice());
            one.locator =
                one.engine.apply_begin(session, locator, Mode::Restart, directory)?.locator;
        }
        Ok(())
    }

    /// The task's number in the engine at `index` of the clone's.
    pub(crate) fn task(&self, index: usize) -> Option<u32> {
        self.tasks.get(index).copied()
    }

    /// Tells the other tasks of the clone that this one failed.
    pub(crate) fn fail<S: Session>(&self, session: &S, located: &[Located<S::Engine>], error: u32) {
        for (one, task) in located.iter().zip(&self.tasks) {
            let _ = one.engine.apply_error(session, &one.locator, *task, error);
        }
    }

    /// Ends the task in all engines, with `error` or 0.
    ///
    /// InnoDB, which is the first of them, comes last: when the others are complete, the clone is. If one is not, it learns that in
    /// time to roll back.
    ///
    /// # Errors
    /// The first one that an engine gave for a clone that had succeeded so far; all engines are ended.
    pub(crate) fn end<S: Session>(
        self,
        session: &S,
        located: &[Located<S::Engine>],
        error: u32,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for (one, task) in located.iter().zip(&self.tasks).rev() {
            let failed = outcome.as_ref().err().map_or(error, Error::number);
            let ended = one.engine.apply_end(session, &one.locator, *task, failed);
            if failed == 0 {
                outcome = ended;
            }
        }
        outcome
    }
}
