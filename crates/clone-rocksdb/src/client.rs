// SPDX-License-Identifier: GPL-2.0-only

//! The recipient: fills directories beside the live ones, which [`swap`](crate::swap) puts in place
//! when the server starts.
//!
//! What is upstream's (facebook/mysql-5.6, `storage/rocksdb/clone/client.cc`): one clone at a time;
//! files are known by number from their FILE_NAME_MAP on and complete when as many bytes have come;
//! the main task waits for the others; a restart locator tells the donor what has come. What is
//! not: files of 0 bytes are complete at once, everything is on disk before the clone is called
//! complete, what the donor says is checked, and a clone that fails leaves nothing behind.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clone_engine::{Begun, BlockInput, Cancel, Error, Mode, Result, Tasks};
use clone_protocol::rocksdb::{CloneId, Locator};

use crate::layout::{Layout, Places};
use crate::swap::{self, Standing, Swap};
use run::Run;

mod files;
mod run;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

/// The recipient side of one engine: one clone at a time.
pub struct Client {
    layout: Layout,
    /// Where a server on a clone's directory looks for its files.
    home: Option<PathBuf>,
    may_replace: Box<Check>,
    running: Mutex<Option<Arc<Run>>>,
}

type Check = dyn Fn() -> Result<()> + Send + Sync;

impl Client {
    /// A client that puts what arrives where `layout` says.
    pub fn new(layout: Layout) -> Self {
        Self { layout, home: None, may_replace: Box::new(|| Ok(())), running: Mutex::new(None) }
    }

    /// A clone into a directory is put in place there when it is complete, in `home` below the
    /// directory: then a server needs no [`Swap`] to start on it.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// Asks `check`, before anything has begun in any engine, whether a clone may replace the
    /// server's data.
    #[must_use]
    pub fn replacing_if(mut self, check: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        self.may_replace = Box::new(check);
        self
    }

    /// See [`Engine::apply_begin`](clone_engine::Engine::apply_begin).
    ///
    /// # Errors
    /// Another clone is running (3634); `locator` does not go with `mode` (3863); directories could
    /// not be made.
    pub fn apply_begin(
        &self,
        _session: &dyn Cancel,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        match (mode, locator.map(Locator::parse).transpose()?) {
            (Mode::Version, _) => {
                if directory.is_none() {
                    (self.may_replace)()?;
                }
                // The server runs on what the last clone brought, so that is not going to be
                // undone.
                swap::commit(&self.layout.places(directory))?;
                Ok(Begun { locator: Locator::Version.to_bytes(), task: Tasks::MAIN })
            }
            (Mode::Start, Some(Locator::Clone { id, states })) if states.is_empty() => {
                self.start(id, directory)
            }
            (Mode::AddTask, Some(Locator::Clone { id, .. })) => {
                let run = self.find(id)?;
                Ok(Begun { locator: Locator::of(id).to_bytes(), task: run.add_task()? })
            }
            (Mode::Restart, Some(Locator::Clone { id, .. })) => {
                let run = self.find(id)?;
                if run.places() != &self.layout.places(directory) {
                    return Err(protocol("restart with another directory"));
                }
                Ok(Begun { locator: run.restart()?.to_bytes(), task: Tasks::MAIN })
            }
            _ => Err(protocol("locator that does not go with what is begun")),
        }
    }

    /// See [`Engine::apply`](clone_engine::Engine::apply).
    ///
    /// # Errors
    /// Also what another task failed with, since this one need not go on then.
    pub fn apply(
        &self,
        session: &dyn Cancel,
        locator: &[u8],
        task: u32,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        self.find(clone_id(locator)?)?.apply(session, task, descriptor, input)
    }

    /// See [`Engine::apply_error`](clone_engine::Engine::apply_error).
    ///
    /// # Errors
    /// There is no such clone.
    pub fn apply_error(&self, _: &dyn Cancel, locator: &[u8], _: u32, error: u32) -> Result<()> {
        self.find(clone_id(locator)?)?.fail(&Error::Raised(error));
        Ok(())
    }

    /// See [`Engine::apply_end`](clone_engine::Engine::apply_end).
    ///
    /// # Errors
    /// The clone had been said to be without error and is not complete.
    pub fn apply_end(
        &self,
        session: &dyn Cancel,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        let Locator::Clone { id, .. } = Locator::parse(locator)? else {
            // Asking for the version began nothing.
            return Ok(());
        };
        let run = self.find(id)?;
        if task != Tasks::MAIN {
            return run.end_worker(task, error);
        }
        let outcome = run.end(session, error).and_then(|()| self.put_in_place(run.places()));
        self.running().take_if(|running| Arc::ptr_eq(running, &run));
        if error == 0 { outcome } else { Ok(()) }
    }

    fn start(&self, id: CloneId, directory: Option<&Path>) -> Result<Begun> {
        let mut running = self.running();
        if running.is_some() {
            return Err(Error::TooManyClones);
        }
        let run = Run::start(
            id,
            self.layout.places(directory),
            self.layout.required().map(str::to_owned),
        )?;
        *running = Some(Arc::new(run));
        Ok(Begun { locator: Locator::of(id).to_bytes(), task: Tasks::MAIN })
    }

    /// A clone into a directory, where no server runs.
    fn put_in_place(&self, places: &Places) -> Result<()> {
        let Some(home) = &self.home else { return Ok(()) };
        if *places == self.layout.places(None) {
            return Ok(());
        }
        let swap = Swap::new(&self.layout.at(&places.root), home, None);
        swap.run(Standing::Settled)?;
        swap.settle(Standing::Settled)
    }

    fn find(&self, id: CloneId) -> Result<Arc<Run>> {
        match &*self.running() {
            Some(run) if run.id() == id => Ok(Arc::clone(run)),
            _ => Err(protocol("clone that is not running")),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Run>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clone_id(locator: &[u8]) -> Result<CloneId> {
    match Locator::parse(locator)? {
        Locator::Clone { id, .. } => Ok(id),
        Locator::Version => Err(protocol("version locator")),
    }
}

fn protocol(what: &str) -> Error {
    Error::Protocol(format!("Wrong Clone RPC: {what}"))
}
