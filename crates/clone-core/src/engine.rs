// SPDX-License-Identifier: GPL-2.0-only

//! A storage engine in a clone: the eight functions of MySQL's `Clone_interface_t`
//! (`sql/handler.h`) once, for engines of a server and for those of this project.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::{Error, Result};

/// Whether the work should end early.
pub trait Cancel {
    /// KILL, or the server shuts down. Whatever waits asks this at least once a second.
    fn is_killed(&self) -> bool;
}

/// What a storage engine does in a clone, both sides of it.
///
/// All functions are called by many threads at once: one for each task of each clone. `S` is the
/// session as the engine needs it: an engine of mysqld needs mysqld's own, an engine of this
/// project only [`dyn Cancel`](Cancel).
///
/// A *locator* is the engine's name for one clone, in bytes that mean something only to the engine.
/// A *task* is one thread's part in a clone. The first task, number 0, is the master's: it begins
/// before all others and ends after them.
///
/// An engine returns the error of a callback as it is. Other errors are not raised yet, unless they
/// are [`Error::Raised`].
pub trait Engine<S: ?Sized>: Send + Sync + 'static {
    /// Donor: begins a clone (`Start`), joins it (`AddTask`), or resumes it after a network failure
    /// (`Restart`).
    ///
    /// `locator` is, for `Start`, the recipient's version locator, or none in a local clone; else
    /// the clone's. `ddl_timeout` is how long the engine may wait for DDL to end, in seconds; 0
    /// means the engine's own. C's `clone_begin` has no such argument, so it passes 0.
    fn begin(
        &self,
        session: &S,
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun>;

    /// Donor, in a server that clones other engines too: does what takes time and must be done
    /// before [`fix_point`](Engine::fix_point).
    fn prepare_point(&self, session: &S, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Ok(())
    }

    /// Donor: makes this moment, at which nobody commits, the consistency point of the clone.
    /// [`copy`](Engine::copy) comes after it.
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
    ) -> Result<()>;

    /// Donor: the recipient has finished what `descriptor` says (`error` 0), or has failed. Comes
    /// from another thread than the task's.
    fn ack(&self, session: &S, locator: &[u8], error: u32, descriptor: &[u8]) -> Result<()>;

    /// Donor: the task ends, with `error` or 0.
    fn end(&self, session: &S, task: TaskId<'_>, error: u32) -> Result<()>;

    /// Recipient: as [`begin`](Engine::begin); also `Version`, which only asks for the version
    /// locator. Without `directory` the server's own data is to be replaced. `Restart` gives a
    /// locator that says what has arrived.
    fn apply_begin(
        &self,
        session: &S,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun>;

    /// Recipient: applies one descriptor, taking its data from `input`.
    fn apply(
        &self,
        session: &S,
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()>;

    /// Recipient: this task failed with `error`, in this engine or another; all others are to stop.
    fn apply_error(&self, session: &S, task: TaskId<'_>, error: u32) -> Result<()>;

    /// Recipient: the task ends, with `error` or 0. The master's end without error makes the clone
    /// complete: what was applied is durable then.
    fn apply_end(&self, session: &S, task: TaskId<'_>, error: u32) -> Result<()>;
}

/// An engine of a server, by its place there.
pub trait ServerEngine<S>: Engine<S> + Clone {
    /// `legacy_db_type`; InnoDB is 12.
    fn db_type(&self) -> u8;

    /// What users call the engine.
    fn name(&self) -> String;

    /// Donor: whether the engine's consistency point is the caller's to choose. InnoDB chooses its
    /// own, which the others follow: [`fix_point`](Engine::fix_point).
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
    /// The engine's place among those of the clone.
    pub index: usize,
}

/// How to enter a clone (`sql/handler.h:Ha_clone_mode`).
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

/// What beginning gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The engine's locator of the clone.
    pub locator: Vec<u8>,
    /// The caller's task; the master is 0.
    pub task: u32,
}

/// Where a donor's engine puts its data (`sql/handler.h:Ha_clone_cbk`).
pub trait BlockOutput {
    /// `len` bytes of `file`, from its current offset, are to be sent.
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()>;

    /// `data` is to be sent; empty for a descriptor alone.
    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()>;
}

/// Where a recipient's engine gets its data (`sql/handler.h:Ha_clone_cbk`).
pub trait BlockInput {
    /// A state of the snapshot begins ([`View::state_change`]), or has ended: then the donor waits
    /// for the descriptor as an acknowledgement.
    fn change_state(&mut self, view: &View<'_>) -> Result<()>;

    /// The data of the current descriptor is to be written to `file`, from its current offset.
    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()>;

    /// The data of the current descriptor; valid until the engine's `apply` returns.
    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]>;

    /// So many more bytes are to be expected. MySQL's interface has this only with a change of
    /// state; engines without states say it here (`storage/rocksdb/clone`:
    /// `add_to_data_size_estimate`).
    fn add_estimate(&mut self, bytes: u64) {
        let _ = bytes;
    }
}

/// What an engine says of the data at hand.
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
    /// Data may go from file to file inside the kernel.
    pub is_zero_copy: bool,
    /// The descriptor carries a key: only over an encrypted connection.
    pub is_secure: bool,
    /// A snapshot state begins; the estimate is in bytes.
    pub state_change: Option<u64>,
}
