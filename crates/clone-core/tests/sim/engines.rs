// SPDX-License-Identifier: GPL-2.0-only

//! All engines of a server under one type.

use std::path::Path;

use clone_core::engine::{Begun, BlockInput, BlockOutput, Engine, Mode, ServerEngine, TaskId};
use clone_core::error::Result;

use super::engine::InnodbEngine;
use super::follower::FollowerEngine;
use super::session::SimSession;

/// The handle to an engine; that of which server comes with the session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimEngine {
    Innodb,
    Follower,
}

/// Has the engine itself answer. As in `src/mysqld/engine.rs` the errors of an engine of this
/// project are raised by its caller.
macro_rules! ask {
    ($handle:expr, $session:expr, $engine:ident => $answer:expr) => {
        match $handle {
            SimEngine::Innodb => {
                let $engine = InnodbEngine;
                $answer
            }
            SimEngine::Follower => {
                let $engine = FollowerEngine;
                $answer.inspect_err(|error| $session.raise_any(error))
            }
        }
    };
}

impl ServerEngine<SimSession> for SimEngine {
    fn db_type(&self) -> u8 {
        match self {
            SimEngine::Innodb => InnodbEngine.db_type(),
            SimEngine::Follower => FollowerEngine.db_type(),
        }
    }

    fn name(&self) -> String {
        match self {
            SimEngine::Innodb => InnodbEngine.name(),
            SimEngine::Follower => FollowerEngine.name(),
        }
    }

    fn follows(&self) -> bool {
        match self {
            SimEngine::Innodb => InnodbEngine.follows(),
            SimEngine::Follower => FollowerEngine.follows(),
        }
    }
}

impl Engine<SimSession> for SimEngine {
    fn begin(
        &self,
        session: &SimSession,
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun> {
        ask!(self, session, engine => engine.begin(session, locator, mode, ddl_timeout))
    }

    fn prepare_point(&self, session: &SimSession, locator: &[u8]) -> Result<()> {
        ask!(self, session, engine => engine.prepare_point(session, locator))
    }

    fn fix_point(&self, session: &SimSession, locator: &[u8]) -> Result<()> {
        ask!(self, session, engine => engine.fix_point(session, locator))
    }

    fn copy(
        &self,
        session: &SimSession,
        task: TaskId<'_>,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        ask!(self, session, engine => engine.copy(session, task, buffer_size, output))
    }

    fn ack(
        &self,
        session: &SimSession,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        ask!(self, session, engine => engine.ack(session, locator, error, descriptor))
    }

    fn end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        ask!(self, session, engine => engine.end(session, task, error))
    }

    fn apply_begin(
        &self,
        session: &SimSession,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        ask!(self, session, engine => engine.apply_begin(session, locator, mode, directory))
    }

    fn apply(
        &self,
        session: &SimSession,
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        ask!(self, session, engine => engine.apply(session, task, descriptor, input))
    }

    fn apply_error(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        ask!(self, session, engine => engine.apply_error(session, task, error))
    }

    fn apply_end(&self, session: &SimSession, task: TaskId<'_>, error: u32) -> Result<()> {
        ask!(self, session, engine => engine.apply_end(session, task, error))
    }
}
