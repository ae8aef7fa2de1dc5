// SPDX-License-Identifier: GPL-2.0-only

//! What an engine does in a clone.

use std::path::Path;

use clone_core::error::{Error, Result};
use clone_core::session::{Begun, Callbacks, Mode};

/// The session in which an engine is called.
pub trait Session {
    /// KILL, or the server shuts down. Whatever waits has to ask this at least once a second.
    fn is_killed(&self) -> bool;
}

/// The clone interface of a storage engine (`sql/handler.h:Clone_interface_t`), both sides of it.
///
/// All functions are called by many threads at once: one for each task of each clone.
///
/// A *locator* is the engine's name for one clone, in bytes that mean something only to the engine. A *task* is one thread's
/// part in a clone; the first, number 0, is the main task, which begins before all others and ends after them.
///
/// An error that a callback returned is to be returned as it is. What these functions return is not raised yet, unless it is
/// [`Error::Raised`](clone_core::error::Error::Raised).
pub trait StorageEngine: Send + Sync + 'static {
    /// Donor: begins a clone (`Start`), joins it (`AddTask`), or resumes it after a network failure (`Restart`).
    ///
    /// `locator` is, for `Start`, the recipient's version locator, or none in a local clone; else the clone's.
    fn begin(&self, session: &dyn Session, locator: Option<&[u8]>, mode: Mode) -> Result<Begun>;

    /// Donor, in a server that clones other engines too: does what takes time and has to be done before the point of the clone.
    fn prepare_point(&self, session: &dyn Session, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Ok(())
    }

    /// Donor: makes this moment, at which nobody commits, the point of the clone; [`copy`](StorageEngine::copy) comes after it. Without
    /// it there is no clone together with other engines.
    fn fix_point(&self, session: &dyn Session, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Err(Error::NotSupported("Clone of an engine without a point".into()))
    }

    /// Donor: copies until nothing is left for this task, handing all data to `callbacks`. Without a point that was fixed before, it
    /// chooses its own.
    ///
    /// `buffer_size` is the applying side's, in bytes, in a local clone; 0 in a remote one.
    fn copy(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        buffer_size: u32,
        callbacks: &mut dyn Callbacks,
    ) -> Result<()>;

    /// Donor: the recipient has finished what `descriptor` says (`error` 0), or has failed. Comes from another thread than the
    /// task's.
    fn ack(
        &self,
        session: &dyn Session,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()>;

    /// Donor: the task ends, with `error` or 0.
    fn end(&self, session: &dyn Session, locator: &[u8], task: u32, error: u32) -> Result<()>;

    /// Recipient: as [`begin`](StorageEngine::begin); also `Version`, which only asks for the version locator.
    ///
    /// Without `directory` the server's own data is to be replaced. `Restart` gives a locator that says what has arrived.
    fn apply_begin(
        &self,
        session: &dyn Session,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun>;

    /// Recipient: applies one descriptor, taking its data from `callbacks`.
    fn apply(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        descriptor: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<()>;

    /// Recipient: this task failed with `error`, in this engine or another; all others are to stop.
    fn apply_error(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()>;

    /// Recipient: the task ends, with `error` or 0. The main task's end without error makes the clone complete: what was applied
    /// is durable then.
    fn apply_end(&self, session: &dyn Session, locator: &[u8], task: u32, error: u32)
    -> Result<()>;
}
