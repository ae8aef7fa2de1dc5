// SPDX-License-Identifier: GPL-2.0-only

//! A storage engine in a clone. [`Engine`] has the eight functions of MySQL's `Clone_interface_t`
//! (`sql/handler.h`). Engines of a server implement it, and so do engines of this project.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::{Error, Result};

/// Tells whether work should stop early.
pub trait Cancel {
    /// Returns true after KILL, or when the server shuts down. Code that waits asks at least once a
    /// second.
    fn is_killed(&self) -> bool;
}

/// A storage engine in a clone, as donor and as recipient.
///
/// Many threads call these functions at once: one thread for each task of each clone. `S` is the
/// session as the engine needs it: an engine of mysqld needs mysqld's own, an engine of this
/// project only [`dyn Cancel`](Cancel).
///
/// A *locator* is the engine's name for one clone. Only the engine knows what its bytes mean. A
/// *task* is one thread's part in a clone. The first task, number 0, is the master's: it begins
/// before all others and ends after them.
///
/// An engine returns the error of a callback unchanged. Its own errors have not been raised in the
/// session, except [`Error::Raised`].
///
/// An engine that only gives clones leaves out the functions of a recipient, and an engine that
/// only takes clones those of a donor: they return [`Error::NotSupported`].
pub trait Engine<S: ?Sized>: Send + Sync + 'static {
    /// Donor: begins a clone (`Start`), joins it (`AddTask`), or resumes it after a network failure
    /// (`Restart`).
    ///
    /// With `Start`, `locator` is the recipient's version locator, or none in a local clone. With
    /// the other modes, `locator` names the clone. `ddl_timeout` is how long the engine may wait
    /// for DDL, in seconds. 0 means the engine's own time-out. The C function `clone_begin` has no
    /// such argument and passes 0.
    fn begin(
        &self,
        session: &S,
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun> {
        let _ = (session, locator, mode, ddl_timeout);
        Err(Error::NotSupported("CLONE from this engine".into()))
    }

    /// Donor, in a clone of several engines: does the slow work that must be done before
    /// [`fix_point`](Engine::fix_point). Commits still go on.
    fn prepare_point(&self, session: &S, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Ok(())
    }

    /// Donor: makes this moment the consistency point of the clone. Commits are blocked during this
    /// call. [`copy`](Engine::copy) is called later.
    fn fix_point(&self, session: &S, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Err(Error::NotSupported("Clone of an engine without a consistency point".into()))
    }

    /// Donor: copies until nothing is left for this task, handing all data to `output`.
    ///
    /// `buffer_size` is the length of blocks with direct I/O in a local clone, in bytes; 0 in a
    /// remote one.
    fn copy(
        &self,
        session: &S,
        task: TaskId<'_>,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        let _ = (session, task, buffer_size, output);
        Err(Error::NotSupported("CLONE from this engine".into()))
    }

    /// Donor: an acknowledgement has arrived. With `error` 0, the recipient has completed the state
    /// that `descriptor` names. Otherwise the recipient has failed. Another thread than the task's
    /// calls this.
    fn ack(&self, session: &S, locator: &[u8], error: u32, descriptor: &[u8]) -> Result<()> {
        let _ = (session, locator, error, descriptor);
        Err(Error::NotSupported("CLONE from this engine".into()))
    }

    /// Donor: the task ends, with `error` or 0.
    fn end(&self, session: &S, task: TaskId<'_>, error: u32) -> Result<()> {
        let _ = (session, task, error);
        Err(Error::NotSupported("CLONE from this engine".into()))
    }

    /// Recipient: begins, joins or resumes the apply, as [`begin`](Engine::begin) does at the
    /// donor. `Version` only asks for the version locator. Without `directory`, the clone replaces
    /// the server's own data. `Restart` returns a locator that says which data has arrived.
    fn apply_begin(
        &self,
        session: &S,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        let _ = (session, locator, mode, directory);
        Err(Error::NotSupported("CLONE into this engine".into()))
    }

    /// Recipient: applies one descriptor, taking its data from `input`.
    fn apply(
        &self,
        session: &S,
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let _ = (session, task, descriptor, input);
        Err(Error::NotSupported("CLONE into this engine".into()))
    }

    /// Recipient: this task has failed with `error`, in this engine or in another. The engine makes
    /// the other tasks stop.
    fn apply_error(&self, session: &S, task: TaskId<'_>, error: u32) -> Result<()> {
        let _ = (session, task, error);
        Err(Error::NotSupported("CLONE into this engine".into()))
    }

    /// Recipient: the task ends, with `error` or 0. When the master ends without error, the clone
    /// is complete and all of its data is durable.
    fn apply_end(&self, session: &S, task: TaskId<'_>, error: u32) -> Result<()> {
        let _ = (session, task, error);
        Err(Error::NotSupported("CLONE into this engine".into()))
    }
}

/// A handle of an engine in a server. Copies of the handle stand for the same engine.
pub trait ServerEngine<S>: Engine<S> + Clone {
    /// `legacy_db_type`; InnoDB is 12.
    fn db_type(&self) -> u8;

    /// What users call the engine.
    fn name(&self) -> String;

    /// Donor: returns true if the caller chooses the engine's consistency point, with
    /// [`fix_point`](Engine::fix_point). InnoDB returns false: it chooses its own point, and the
    /// other engines follow.
    fn follows(&self) -> bool {
        false
    }
}

/// A task, as an engine knows it.
#[derive(Clone, Copy, Debug)]
pub struct TaskId<'a> {
    /// The engine's locator of the clone.
    pub locator: &'a [u8],
    /// The task's number in the engine; the master's is 0.
    pub number: u32,
    /// The engine's index among the engines of the clone.
    pub index: usize,
}

/// How a task enters a clone (`sql/handler.h:Ha_clone_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// A new clone.
    Start = 0,
    /// After a network failure.
    Restart = 1,
    /// One more task for a running clone.
    AddTask = 2,
    /// Only to learn the recipient's format version.
    Version = 3,
}

/// The result of [`Engine::begin`] and [`Engine::apply_begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The engine's locator of the clone.
    pub locator: Vec<u8>,
    /// The number of the caller's task; the master's is 0.
    pub task: u32,
}

/// Takes the data of a donor's engine (`sql/handler.h:Ha_clone_cbk`).
pub trait BlockOutput {
    /// Sends `len` bytes of `file`, from the file's current offset on.
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()>;

    /// Sends `data`. If `data` is empty, sends the descriptor alone.
    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()>;
}

/// Gives a recipient's engine its data (`sql/handler.h:Ha_clone_cbk`).
pub trait BlockInput {
    /// A state of the snapshot begins if [`View::state_change`] is set. Otherwise a state has
    /// ended, and the donor waits for the descriptor as an acknowledgement.
    fn change_state(&mut self, view: &View<'_>) -> Result<()>;

    /// Writes the data of the current descriptor to `file`, from the file's current offset on.
    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()>;

    /// Returns the data of the current descriptor. It is valid until the engine's `apply` returns.
    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]>;

    /// Adds `bytes` to the estimate of the current stage. In MySQL's interface an estimate comes
    /// only with a change of state. Engines without states use this method
    /// (`storage/rocksdb/clone`: `add_to_data_size_estimate`).
    fn add_estimate(&mut self, bytes: u64) {
        let _ = bytes;
    }
}

/// What an engine says about the current data.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The engine's descriptor of the data.
    pub descriptor: &'a [u8],
    /// Name of the file that is read, for messages.
    pub source_name: &'a str,
    /// Name of the file that is written, for messages.
    pub destination_name: &'a str,
    /// The file is read and written through the operating system's cache; otherwise buffers must be
    /// aligned ([`clone_io::ALIGNMENT`]).
    pub is_os_buffer_cached: bool,
    /// The kernel may copy the data from file to file.
    pub is_zero_copy: bool,
    /// The descriptor may carry a key. It may be sent only over an encrypted connection.
    pub is_secure: bool,
    /// A snapshot state begins; the estimate is in bytes.
    pub state_change: Option<u64>,
}
