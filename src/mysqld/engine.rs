// SPDX-License-Identifier: GPL-2.0-only

//! Storage engines of mysqld, and the callbacks between them and the clone logic.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use clone_core::error::{Error, Result, number};
use clone_core::session::{Begun, Callbacks, Engine, Mode, Session, View};
use clone_engine::StorageEngine;

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
    /// Its clone interface is that of this library. Asked for each descriptor, and the same as long as a clone runs.
    is_own: bool,
}

impl MysqldEngine {
    /// The clone interface of an engine, if it has one.
    pub(super) fn new(handlerton: Handlerton<'static>) -> Option<Self> {
        let is_own = c_api::engine_behind(handlerton).is_some();
        HandlertonClone::of(handlerton).map(|engine| Self { engine, is_own })
    }

    /// The engine itself, if its clone interface is that of this library.
    fn own(&self) -> Option<Arc<dyn StorageEngine>> {
        c_api::engine_behind(self.engine.handlerton())
    }
}

impl Engine<MysqldSession> for MysqldEngine {
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

    fn prepare_point(&self, session: &MysqldSession, locator: &[u8]) -> Result<()> {
        self.own().map_or(Ok(()), |own| own.prepare_point(session, locator))
    }

    fn fix_point(&self, session: &MysqldSession, locator: &[u8]) -> Result<()> {
        self.own().map_or(Ok(()), |own| own.fix_point(session, locator))
    }

    fn begin(&self, session: &MysqldSession, locator: Option<&[u8]>, mode: Mode) -> Result<Begun> {
        self.engine
            .begin(session.thd(), locator, clone_mode(mode))
            .map(begun)
            .map_err(Error::Raised)
    }

    fn copy(
        &self,
        session: &MysqldSession,
        locator: &[u8],
        task: u32,
        buffer_size: u32,
        locator_index: usize,
        callbacks: &mut dyn Callbacks,
    ) -> Result<()> {
        let mut adapter = Adapter { session, callbacks };
        let mut callback = CloneCallback::new(&mut adapter)
            .locator_index(index(locator_index))
            .client_buffer_size(buffer_size);
        self.engine.copy(session.thd(), locator, task, &mut callback).map_err(Error::Raised)
    }

    fn ack(
        &self,
        session: &MysqldSession,
        locator: &[u8],
        error: i32,
        descriptor: &[u8],
    ) -> Result<()> {
        // A recipient that reports a negative number reports a failure all the same.
        let error = u32::try_from(error).unwrap_or(number::ER_INTERNAL_ERROR);
        self.engine.ack(session.thd(), locator, error, descriptor).map_err(Error::Raised)
    }

    fn end(&self, session: &MysqldSession, locator: &[u8], task: u32, error: u32) -> Result<()> {
        self.engine.end(session.thd(), locator, task, error).map_err(Error::Raised)
    }

    fn apply_begin(
        &self,
        session: &MysqldSession,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&str>,
    ) -> Result<Begun> {
        self.engine
            .apply_begin(session.thd(), locator, clone_mode(mode), directory)
            .map(begun)
            .map_err(Error::Raised)
    }

    fn apply(
        &self,
        session: &MysqldSession,
        locator: &[u8],
        task: u32,
        locator_index: usize,
        descriptor: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<()> {
        let mut adapter = Adapter { session, callbacks };
        let mut callback = CloneCallback::new(&mut adapter)
            .locator_index(index(locator_index))
            .descriptor(descriptor);
        if self.is_own {
            callback = callback.ask_for_estimate();
        }
        self.engine.apply(session.thd(), locator, task, &mut callback).map_err(Error::Raised)
    }

    fn apply_error(
        &self,
        session: &MysqldSession,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        self.engine.apply_error(session.thd(), locator, task, error).map_err(Error::Raised)
    }

    fn apply_end(
        &self,
        session: &MysqldSession,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        self.engine.apply_end(session.thd(), locator, task, error).map_err(Error::Raised)
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

fn begun(begun: engine::Begun) -> Begun {
    Begun { locator: begun.locator, task: begun.task }
}

/// There are at most 16 engines.
fn index(locator_index: usize) -> u32 {
    u32::try_from(locator_index).unwrap_or(u32::MAX)
}

/// Passes an engine's callbacks on to the clone logic. What fails there is raised before the engine sees the number.
struct Adapter<'a> {
    session: &'a MysqldSession,
    callbacks: &'a mut dyn Callbacks,
}

impl Adapter<'_> {
    fn raise(session: &MysqldSession, error: &Error) -> u32 {
        session.raise(error);
        error.number()
    }
}

impl callback::Callbacks for Adapter<'_> {
    fn file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>, len: u32) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.callbacks.file(view, file, len));
        outcome.map_err(|error| Self::raise(self.session, &error))
    }

    fn buffer(&mut self, view: &CallbackView<'_>, data: &[u8]) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.callbacks.buffer(view, data));
        outcome.map_err(|error| Self::raise(self.session, &error))
    }

    fn apply_file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>) -> Result<(), u32> {
        let outcome = with_view(view, |view| self.callbacks.apply_file(view, file));
        outcome.map_err(|error| Self::raise(self.session, &error))
    }

    fn apply_buffer(&mut self, view: &CallbackView<'_>) -> Result<&mut [u8], u32> {
        let Self { session, callbacks } = self;
        let outcome = with_view(view, |view| callbacks.apply_buffer(view));
        outcome.map_err(|error| Self::raise(session, &error))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.callbacks.add_estimate(bytes);
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
