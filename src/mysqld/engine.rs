// SPDX-License-Identifier: GPL-2.0-only

//! Storage engines of mysqld, and the callbacks between them and the clone logic.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use clone_core::engine::{
    Begun, BlockInput, BlockOutput, Engine, Mode, ServerEngine, TaskId, View,
};
use clone_core::error::{Error, Result};
use clone_core::session::Session;
use clone_engine::DynEngine;

use super::session::MysqldSession;
use crate::c_api;
use crate::server::callback::{self, CallbackView, CloneCallback};
use crate::server::engine::{self, CloneMode, HandlertonClone};
use crate::server::handlerton::Handlerton;
use crate::server::services::services;

/// An engine of mysqld that can clone.
#[derive(Clone, Copy)]
pub(crate) struct MysqldEngine {
    engine: HandlertonClone<'static>,
    /// The engine's clone interface is that of this library. The same as long as a clone runs.
    is_own: bool,
}

impl MysqldEngine {
    /// The clone interface of an engine, if it has one.
    pub(super) fn new(handlerton: Handlerton<'static>) -> Option<Self> {
        let is_own = c_api::engine_behind(handlerton).is_some();
        HandlertonClone::of(handlerton).map(|engine| Self { engine, is_own })
    }

    /// The engine itself, if its clone interface is that of this library.
    fn own(&self) -> Option<Arc<DynEngine>> {
        c_api::engine_behind(self.engine.handlerton())
    }
}

impl ServerEngine<MysqldSession> for MysqldEngine {
    fn db_type(&self) -> u8 {
        self.engine.handlerton().db_type()
    }

    fn name(&self) -> String {
        let engines = services().engines().unwrap_or_default();
        let own = engines.iter().find(|one| one.handlerton() == self.engine.handlerton());
        own.map_or_else(|| format!("engine {}", self.db_type()), |own| own.name().to_owned())
    }

    fn follows(&self) -> bool {
        self.is_own
    }
}

impl Engine<MysqldSession> for MysqldEngine {
    fn begin(
        &self,
        session: &MysqldSession,
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun> {
        let begin = || self.engine.begin(session.thd(), locator, clone_mode(mode));
        // Only Start and Restart wait for DDL.
        let begun = match mode {
            Mode::AddTask | Mode::Version => begin(),
            Mode::Start | Mode::Restart => session.host().with_ddl_timeout(ddl_timeout, begin),
        };
        begun.map(from_engine).map_err(Error::Raised)
    }

    fn prepare_point(&self, session: &MysqldSession, locator: &[u8]) -> Result<()> {
        self.own().map_or(Ok(()), |own| own.prepare_point(session, locator))
    }

    fn fix_point(&self, session: &MysqldSession, locator: &[u8]) -> Result<()> {
        self.own().map_or(Ok(()), |own| own.fix_point(session, locator))
    }

    fn copy(
        &self,
        session: &MysqldSession,
        task: TaskId<'_>,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        let mut adapter = OutputAdapter { session, output };
        let mut callback = CloneCallback::new(&mut adapter)
            .locator_index(index(task.index))
            .client_buffer_size(buffer_size);
        self.engine
            .copy(session.thd(), task.locator, task.number, &mut callback)
            .map_err(Error::Raised)
    }

    fn ack(
        &self,
        session: &MysqldSession,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        self.engine.ack(session.thd(), locator, error, descriptor).map_err(Error::Raised)
    }

    fn end(&self, session: &MysqldSession, task: TaskId<'_>, error: u32) -> Result<()> {
        self.engine.end(session.thd(), task.locator, task.number, error).map_err(Error::Raised)
    }

    fn apply_begin(
        &self,
        session: &MysqldSession,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        // The entry points take names of directories as UTF-8.
        let directory = directory.and_then(Path::to_str);
        self.engine
            .apply_begin(session.thd(), locator, clone_mode(mode), directory)
            .map(from_engine)
            .map_err(Error::Raised)
    }

    fn apply(
        &self,
        session: &MysqldSession,
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let mut adapter = InputAdapter { session, input };
        let mut callback = CloneCallback::new(&mut adapter)
            .locator_index(index(task.index))
            .descriptor(descriptor);
        if self.is_own {
            callback = callback.ask_for_estimate();
        }
        self.engine
            .apply(session.thd(), task.locator, task.number, &mut callback)
            .map_err(Error::Raised)
    }

    fn apply_error(&self, session: &MysqldSession, task: TaskId<'_>, error: u32) -> Result<()> {
        self.engine
            .apply_error(session.thd(), task.locator, task.number, error)
            .map_err(Error::Raised)
    }

    fn apply_end(&self, session: &MysqldSession, task: TaskId<'_>, error: u32) -> Result<()> {
        self.engine
            .apply_end(session.thd(), task.locator, task.number, error)
            .map_err(Error::Raised)
    }
}

fn clone_mode(mode: Mode) -> CloneMode {
    match mode {
        Mode::Start => CloneMode::Start,
        Mode::Restart => CloneMode::Restart,
        Mode::AddTask => CloneMode::AddTask,
        Mode::Version => CloneMode::Version,
    }
}

fn from_engine(begun: engine::Begun) -> Begun {
    Begun { locator: begun.locator, task: begun.task }
}

/// The index as engines take it. It is small: a clone has at most 16 engines.
fn index(locator_index: usize) -> u32 {
    u32::try_from(locator_index).unwrap_or(u32::MAX)
}

/// Passes the callbacks of an engine that copies on to the clone logic. An error there is raised
/// before the engine sees its number.
struct OutputAdapter<'a> {
    session: &'a MysqldSession,
    output: &'a mut dyn BlockOutput,
}

/// Passes the callbacks of an engine that applies on to the clone logic, and raises errors as
/// [`OutputAdapter`] does.
struct InputAdapter<'a> {
    session: &'a MysqldSession,
    input: &'a mut dyn BlockInput,
}

fn raised(session: &MysqldSession, error: &Error) -> u32 {
    session.raise(error);
    error.number()
}

/// An engine that copies called a function for engines that apply, or the other way round.
fn wrong_direction(session: &MysqldSession, what: &str) -> u32 {
    raised(session, &Error::Internal(what.to_owned()))
}

impl callback::Callbacks for OutputAdapter<'_> {
    fn file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>, len: u32) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.output.file(view, file, len));
        outcome.map_err(|error| raised(self.session, &error))
    }

    fn buffer(&mut self, view: &CallbackView<'_>, data: &[u8]) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.output.buffer(view, data));
        outcome.map_err(|error| raised(self.session, &error))
    }

    fn apply_file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>) -> Result<(), u32> {
        Err(wrong_direction(self.session, "Apply callback from Clone Server"))
    }

    fn apply_buffer(&mut self, _: &CallbackView<'_>) -> Result<&mut [u8], u32> {
        Err(wrong_direction(self.session, "Apply callback from Clone Server"))
    }
}

impl callback::Callbacks for InputAdapter<'_> {
    fn file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>, _: u32) -> Result<(), u32> {
        Err(wrong_direction(self.session, "Copy callback from Clone Client"))
    }

    fn buffer(&mut self, view: &CallbackView<'_>, _: &[u8]) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.input.change_state(view));
        outcome.map_err(|error| raised(self.session, &error))
    }

    fn apply_file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.input.apply_file(view, file));
        outcome.map_err(|error| raised(self.session, &error))
    }

    fn apply_buffer(&mut self, view: &CallbackView<'_>) -> Result<&mut [u8], u32> {
        let Self { session, input } = self;
        let outcome = with_view(view, |view| input.apply_buffer(view));
        outcome.map_err(|error| raised(session, &error))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.input.add_estimate(bytes);
    }
}

fn with_view<R>(view: &CallbackView<'_>, call: impl FnOnce(&View<'_>) -> R) -> R {
    call(&View {
        descriptor: view.descriptor(),
        source_name: &view.source_name(),
        destination_name: &view.dest_name(),
        is_os_buffer_cached: view.is_os_buffer_cached(),
        is_zero_copy: view.is_zero_copy(),
        is_secure: view.is_secure(),
        state_change: view.state_change(),
    })
}
