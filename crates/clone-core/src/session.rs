// SPDX-License-Identifier: GPL-2.0-only

//! What the clone logic needs of its server and of a session of it, by role: a program that is only
//! a recipient implements [`Host`], [`Session`] and [`RecipientSession`].
//!
//! mysqld is one implementation, a simulation another. Every call here may block. No call is made
//! with a lock of this crate held.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clone_protocol::HandoverKey;

use crate::engine::{Cancel, ServerEngine};
use crate::error::{Error, Result};
use crate::file_channel::{FileGiver, FileTaker};
use crate::link::{Donor, Link, LinkKind};
use crate::meter::Sample;
use crate::parameters::Parameters;
use crate::settings::{ReleaseFacts, Settings};

/// Time.
pub trait Clock {
    /// Monotonic time since any fixed moment.
    fn now(&self) -> Duration;

    /// Microseconds since the Unix epoch.
    fn unix_micros(&self) -> u64;

    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration);
}

/// What is the same for all sessions.
pub trait Host: Clock + Send + Sync + 'static {
    /// A session.
    type Session: Session<Host = Self>;
    /// A thread of the clone.
    type Thread: Thread;

    /// The plugin's variables as they are now.
    fn settings(&self) -> Settings;

    /// What the server's release has to do with a clone.
    fn release(&self) -> ReleaseFacts;

    /// Processors of this machine.
    fn processors(&self) -> u32 {
        1
    }

    /// Who wants to know how far a clone is.
    fn observer(&self) -> &dyn Observer;

    /// Runs `work` in a new thread with a session of its own.
    ///
    /// # Errors
    /// No thread was to be had; `work` did not run.
    fn spawn(
        self: &Arc<Self>,
        kind: WorkerKind,
        work: Work<Self::Session>,
    ) -> io::Result<Self::Thread>;
}

/// What a worker thread runs.
pub type Work<S> = Box<dyn FnOnce(&S) + Send>;

/// A thread that was [spawned](Host::spawn).
pub trait Thread: Send {
    /// Waits for its end. False if it panicked.
    fn join(self) -> bool;
}

impl Thread for std::thread::JoinHandle<()> {
    fn join(self) -> bool {
        std::thread::JoinHandle::join(self).is_ok()
    }
}

/// Is told how far a clone is: the `performance_schema` tables, or a progress bar.
pub trait Observer: Send + Sync {
    /// A stage begins with so many threads; `estimate` is in bytes.
    fn next_stage(&self, threads: u32, estimate: u64, unix_micros: u64);

    /// Bytes have been transferred since the last call.
    fn transferred(&self, sample: &Sample, threads: u32);

    /// The stage will have so many bytes more than was said.
    fn add_estimate(&self, bytes: u64);
}

/// A session of the server, used by the thread that owns it: what every role needs.
pub trait Session: Cancel + Sized + 'static {
    /// The server.
    type Host: Host<Session = Self>;
    /// A storage engine that can clone.
    type Engine: ServerEngine<Self>;

    /// The server that this session belongs to.
    fn host(&self) -> &Arc<Self::Host>;

    /// Puts `error` into the diagnostics area, unless the error is there already
    /// ([`Error::Raised`]).
    fn raise(&self, error: &Error);

    /// The error in the diagnostics area.
    fn raised(&self) -> Option<(u32, String)>;

    /// All engines that can clone, in the server's order; InnoDB is the first.
    fn engines(&self) -> Vec<Self::Engine>;
}

/// A session of a server whose own data is read or replaced.
pub trait ServerSession: Session {
    /// Blocks commits as long as it lives.
    type CommitBlock: CommitBlock;

    /// Takes the backup lock, which stops DDL.
    fn lock_backup(&self, timeout_seconds: u32) -> Result<()>;

    /// Gives the backup lock back.
    fn unlock_backup(&self);

    /// Keeps every transaction of the server from committing, in all engines, until the result is
    /// dropped. Waits for the statements that run, at most `timeout_seconds`, and calls `wait`
    /// meanwhile, at least once a second.
    ///
    /// # Errors
    /// It took too long; that of `wait`, which ends the wait; there is no way to do it on this
    /// server.
    fn block_commits(
        &self,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self::CommitBlock>;
}

/// See [`ServerSession::block_commits`].
pub trait CommitBlock {
    /// Whether commits have been blocked all the time. A server lets them go on after some seconds,
    /// whatever is not done by then.
    fn has_held(&self) -> bool;
}

/// Gives the values of variables.
pub trait Variables {
    /// The values of global variables, as text in utf8mb4, in the order of `names`.
    ///
    /// # Errors
    /// There is no such variable.
    fn variables(&self, names: &[&str]) -> Result<Vec<String>>;
}

/// A donor's session: what the donor tells of its server.
pub trait DonorSession: ServerSession + Variables {
    /// The names of all collations.
    fn collations(&self) -> Result<Vec<String>>;

    /// All active plugins in the server's order.
    fn plugins(&self) -> Result<Vec<PluginName>>;

    /// "LTS" or "INNOVATION", as the server was built (`MYSQL_VERSION_MATURITY`).
    fn maturity(&self) -> &'static str;

    /// The session's statement is a donor's: `statement/clone/server` in the performance schema.
    fn mark_donor_statement(&self);

    /// The engine with this `legacy_db_type`, if it can clone.
    fn engine(&self, db_type: u8) -> Option<Self::Engine>;

    /// Connects to a recipient on this machine that takes open files, by its key. None if the
    /// recipient cannot be reached: it is not where it seems to be.
    fn connect_files(&self, key: HandoverKey) -> Option<Box<dyn FileGiver>> {
        let giver = clone_io::FileGiver::connect(key.bytes()).ok()?;
        Some(Box::new(giver))
    }
}

/// A recipient's session.
pub trait RecipientSession: Session {
    /// A connection to a donor.
    type Link: Link<Self>;

    /// Connects to a donor and switches the connection to COM_CLONE. `compressed` asks for the
    /// compression of the classic protocol.
    fn connect(&self, donor: &Donor, kind: LinkKind, compressed: bool) -> Result<Self::Link>;

    /// Listens for open files of a donor on this machine. None if that is not possible.
    fn listen_for_files(&self) -> Option<Box<dyn FileTaker>> {
        Some(Box::new(clone_io::FileTaker::listen().ok()?))
    }

    /// Decides about a donor, by what the donor told of itself. Nothing has been changed yet.
    ///
    /// A server asks whether it could run with the donor's data
    /// ([`checks::check`](crate::checks::check)).
    ///
    /// # Errors
    /// What forbids the clone; the other reasons have been raised.
    fn accept(&self, donor: &Parameters) -> Result<()>;

    /// The clone is about to replace the server's own data, which must not change from now on.
    ///
    /// # Errors
    /// There is no such data, or somebody changes it.
    fn begin_replacing(&self) -> Result<()>;

    /// The clone has failed: the data may change again.
    fn end_replacing(&self);
}

/// Which thread class of the performance schema a worker belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    /// `thread/clone/client-task`.
    Client,
    /// `thread/clone/local-task`.
    Local,
}

/// A plugin, as a donor names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginName {
    /// Name in `INFORMATION_SCHEMA.PLUGINS`.
    pub name: String,
    /// File in the plugin directory, none for a built-in.
    pub library: Option<String>,
}
