// SPDX-License-Identifier: GPL-2.0-only

//! All engines of a server under one type.

use clone_core::error::Result;
use clone_core::session::{Begun, Callbacks, Engine, Mode};

use super::engine::InnodbEngine;
use super::follower::FollowerEngine;
use super::session::SimSession;

/// The handle to an engine; that of which server comes with the session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimEngine {
    Innodb,
    Follower,
}

/// Has the engine itself answer.
macro_rules! ask {
    ($handle:expr, $engine:ident => $answer:expr) => {
        match $handle {
            SimEngine::Innodb => {
                let $engine = InnodbEngine;
                $answer
            }
            SimEngine::Follower => {
                let $engine = FollowerEngine;
                $answer
            }
        }
    };
}

/// The same. As in `src/mysqld/engine.rs` the errors of an engine of this project are raised by who calls it.
macro_rules! raised {
    ($handle:expr, $session:expr, $engine:ident => $answer:expr) => {
        match $handle {
            SimEngine::Innodb => ask!($handle, $engine => $answer),
            SimEngine::Follower => {
                ask!($handle, $engine => $answer).inspect_err(|error| $session.raise_any(error))
            }
        }
    };
}

impl Engine<SimSession> for SimEngine {
    fn db_type(&self) -> u8 {
        ask!(self, engine => engine.db_type())
    }

    fn name(&self) -> String {
        ask!(self, engine => engine.name())
    }

    fn begin(&self, session: &SimSession, locator: Option<&[u8]>, mode: Mode) -> Result<Begun> {
        raised!(self, session, engine => engine.begin(session, locator, mode))
    }

    fn follows(&self) -> bool {
        ask!(self, engine => engine.follows())
    }

    fn prepare_point(&self, session: &SimSession, locator: &[u8]) -> Result<()> {
        raised!(self, session, engine => engine.prepare_point(session, locator))
    }

    fn fix_point(&self, session: &SimSession, locator: &[u8]) -> Result<()> {
        raised!(self, session, engine => engine.fix_point(session, locator))
    }

    fn copy(
        &self,
        session: &SimSession,
        locator: &[u8],
        task: u32,
        buffer_size: u32,
        index: usize,
        callbacks: &mut dyn Callbacks,
    ) -> Result<()> {
        raised!(self, session, engine => engine.copy(session, locator, task, buffer_size, index, callbacks))
    }

    fn ack(
        &self,
        session: &SimSession,
        locator: &[u8],
        error: i32,
        descriptor: &[u8],
    ) -> Result<()> {
        raised!(self, session, engine => engine.ack(session, locator, error, descriptor))
    }

    fn end(&self, session: &SimSession, locator: &[u8], task: u32, error: u32) -> Result<()> {
        raised!(self, session, engine => engine.end(session, locator, task, error))
    }

    fn apply_begin(
        &self,
        session: &SimSession,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&str>,
    ) -> Result<Begun> {
        raised!(self, session, engine => engine.apply_begin(session, locator, mode, directory))
    }

    fn apply(
        &self,
        session: &SimSession,
        locator: &[u8],
        task: u32,
        index: usize,
        descriptor: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<()> {
        raised!(self, session, engine => engine.apply(session, locator, task, index, descriptor, callbacks))
    }

    fn apply_error(
        &self,
        session: &SimSession,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        raised!(self, session, engine => engine.apply_error(session, locator, task, error))
    }

    fn apply_end(&self, session: &SimSession, locator: &[u8], task: u32, error: u32) -> Result<()> {
        raised!(self, session, engine => engine.apply_end(session, locator, task, error))
    }
}
