// SPDX-License-Identifier: GPL-2.0-only

//! The calling task's part in each engine of a clone, on either side.

use std::path::Path;

use clone_protocol::{EngineLocator, innodb};

use crate::engine::{BlockInput, BlockOutput, Engine, Mode, ServerEngine, TaskId};
use crate::error::{Error, Result};
use crate::session::Session;

/// A clone in one engine.
#[derive(Clone, Debug)]
pub(crate) struct EngineClone<E> {
    pub(crate) engine: E,
    /// The engine's name of the clone.
    pub(crate) locator: Vec<u8>,
}

impl<E> EngineClone<E> {
    /// The form in which peers exchange locators.
    pub(crate) fn to_wire<S>(&self) -> EngineLocator
    where
        E: ServerEngine<S>,
    {
        EngineLocator { db_type: self.engine.db_type(), bytes: self.locator.clone() }
    }

    /// Whether the engine is InnoDB.
    pub(crate) fn is_innodb<S>(&self) -> bool
    where
        E: ServerEngine<S>,
    {
        self.engine.db_type() == innodb::DB_TYPE
    }
}

/// One task in a donor's engine. It must be [ended](Self::end).
#[derive(Debug)]
pub(crate) struct SourceTask<E> {
    pub(crate) clone: EngineClone<E>,
    number: u32,
    index: usize,
}

impl<E> SourceTask<E> {
    fn id(&self) -> TaskId<'_> {
        TaskId { locator: &self.clone.locator, number: self.number, index: self.index }
    }

    /// The engine's place among those of the clone.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Copies until nothing is left for this task.
    ///
    /// # Errors
    /// The engine's, and those of `output`.
    pub(crate) fn copy<S>(
        &self,
        session: &S,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()>
    where
        E: Engine<S>,
    {
        self.clone.engine.copy(session, self.id(), buffer_size, output)
    }

    /// Ends the task, with `error` or 0.
    fn end<S>(self, session: &S, error: u32)
    where
        E: Engine<S>,
    {
        // An error here is ignored: each engine must get its end, and nobody can be told any more.
        let _ = self.clone.engine.end(session, self.id(), error);
    }
}

/// A donor's task in each engine of a clone.
#[derive(Debug)]
pub(crate) struct SourceTasks<E>(Vec<SourceTask<E>>);

impl<E> SourceTasks<E> {
    /// Begins, joins or resumes the clone that the locators name.
    ///
    /// # Errors
    /// The engine's. The tasks in engines that had begun are ended with it.
    pub(crate) fn begin<S>(
        session: &S,
        engines: impl Iterator<Item = (E, Option<Vec<u8>>)>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Self>
    where
        S: Session<Engine = E>,
        E: ServerEngine<S>,
    {
        let mut tasks = Self(Vec::new());
        for (index, (engine, locator)) in engines.enumerate() {
            match engine.begin(session, locator.as_deref(), mode, ddl_timeout) {
                Ok(begun) => {
                    let clone = EngineClone { engine, locator: begun.locator };
                    tasks.0.push(SourceTask { clone, number: begun.task, index });
                }
                Err(error) => {
                    tasks.end(session, error.number());
                    return Err(error);
                }
            }
        }
        if tasks.0.is_empty() {
            return Err(Error::NotSupported(
                "Clone without a storage engine that can clone".into(),
            ));
        }
        Ok(tasks)
    }

    /// Begins a clone in all engines of the server.
    ///
    /// # Errors
    /// As [`begin`](Self::begin)'s.
    pub(crate) fn begin_all<S>(session: &S, ddl_timeout: u32) -> Result<Self>
    where
        S: Session<Engine = E>,
        E: ServerEngine<S>,
    {
        let engines = session.engines().into_iter().map(|engine| (engine, None));
        Self::begin(session, engines, Mode::Start, ddl_timeout)
    }

    /// The tasks, InnoDB's first.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, SourceTask<E>> {
        self.0.iter()
    }

    /// The clone in each engine.
    pub(crate) fn engine_clones(&self) -> Vec<EngineClone<E>>
    where
        E: Clone,
    {
        self.0.iter().map(|task| task.clone.clone()).collect()
    }

    /// Ends the tasks, with `error` or 0.
    pub(crate) fn end<S>(self, session: &S, error: u32)
    where
        E: Engine<S>,
    {
        for task in self.0 {
            task.end(session, error);
        }
    }
}

/// A recipient's task in each engine of a clone. They must be [ended](Self::end).
///
/// The clones themselves are shared by all tasks of the clone, because a restart changes the
/// locators.
#[derive(Debug)]
pub(crate) struct DestinationTasks {
    /// The task's number in each engine.
    numbers: Vec<u32>,
}

impl DestinationTasks {
    /// Begins, joins or resumes the apply. The locators are replaced by the engines' answers,
    /// unless a task is added: the clone of an added task keeps its locator.
    ///
    /// # Errors
    /// The engine's. The tasks in engines that had begun are ended with it.
    pub(crate) fn begin<S: Session>(
        session: &S,
        clones: &mut [EngineClone<S::Engine>],
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Self> {
        let mut numbers = Vec::with_capacity(clones.len());
        for index in 0..clones.len() {
            let one = &mut clones[index];
            let locator = (!one.locator.is_empty()).then_some(one.locator.as_slice());
            match one.engine.apply_begin(session, locator, mode, directory) {
                Ok(begun) => {
                    if mode != Mode::AddTask {
                        one.locator = begun.locator;
                    }
                    numbers.push(begun.task);
                }
                Err(error) => {
                    let begun = DestinationTasks { numbers };
                    let _ = begun.end(session, &clones[..index], error.number());
                    return Err(error);
                }
            }
        }
        Ok(DestinationTasks { numbers })
    }

    /// Resumes the apply after a network failure: the tasks stay, and the locators say what has
    /// arrived.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) fn restart<S: Session>(
        &self,
        session: &S,
        clones: &mut [EngineClone<S::Engine>],
        directory: Option<&Path>,
    ) -> Result<()> {
        for one in clones {
            let locator = Some(one.locator.as_slice());
            one.locator =
                one.engine.apply_begin(session, locator, Mode::Restart, directory)?.locator;
        }
        Ok(())
    }

    /// Applies one descriptor in the engine at `index` of the clone.
    ///
    /// # Errors
    /// The engine's, and those of `input`.
    pub(crate) fn apply<S: Session>(
        &self,
        session: &S,
        clone: &EngineClone<S::Engine>,
        index: usize,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let Some(number) = self.numbers.get(index).copied() else {
            return Err(Error::Internal("Clone lost its destination".to_owned()));
        };
        let task = TaskId { locator: &clone.locator, number, index };
        clone.engine.apply(session, task, descriptor, input)
    }

    /// Tells the other tasks of the clone that this one failed.
    pub(crate) fn fail<S: Session>(
        &self,
        session: &S,
        clones: &[EngineClone<S::Engine>],
        error: u32,
    ) {
        for (one, task) in self.with_ids(clones) {
            let _ = one.engine.apply_error(session, task, error);
        }
    }

    /// Ends the tasks, with `error` or 0.
    ///
    /// InnoDB, the first engine, ends last: its end completes the clone. If another engine has
    /// failed, InnoDB learns that in time to roll back.
    ///
    /// # Errors
    /// The first error of an engine, if the clone had not failed before. All engines are ended in
    /// any case.
    pub(crate) fn end<S: Session>(
        self,
        session: &S,
        clones: &[EngineClone<S::Engine>],
        error: u32,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for (one, task) in self.with_ids(clones).rev() {
            let failed = outcome.as_ref().err().map_or(error, Error::number);
            let ended = one.engine.apply_end(session, task, failed);
            if failed == 0 {
                outcome = ended;
            }
        }
        outcome
    }

    /// The engines, and the task in each.
    fn with_ids<'a, E>(
        &'a self,
        clones: &'a [EngineClone<E>],
    ) -> impl DoubleEndedIterator<Item = (&'a EngineClone<E>, TaskId<'a>)> {
        clones.iter().zip(&self.numbers).enumerate().map(|(index, (one, number))| {
            (one, TaskId { locator: &one.locator, number: *number, index })
        })
    }
}
