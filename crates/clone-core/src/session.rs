// SPDX-License-Identifier: GPL-2.0-only

//! The traits of a server and of its sessions, split by role. A program that is only a recipient
//! implements [`Host`], [`Session`] and [`RecipientSession`]. A server whose own data can be
//! replaced implements [`OwnData`], too.
//!
//! mysqld implements these traits, and so does a simulation. Every method may block. This crate
//! calls no method while it holds one of its own locks.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clone_protocol::HandoverKey;

use crate::base::Base;
use crate::bell::Bell;
use crate::engine::{Cancel, ServerEngine};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::file_channel::{FileGiver, FileTaker};
use crate::link::{Link, LinkKind};
use crate::meter::Sample;
use crate::parameters::Parameters;
use crate::settings::{ReleaseFacts, Settings};

/// Time.
pub trait Clock {
    /// Monotonic time since any fixed moment.
    fn now(&self) -> Duration;

    /// Microseconds since the Unix epoch: by the clock of the machine, unless replaced.
    fn unix_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }

    /// Blocks the calling thread until `bell` is rung, at most for `limit`. Returns whether the
    /// bell was rung.
    fn wait_for(&self, bell: &Bell, limit: Duration) -> bool {
        bell.wait(limit)
    }

    /// The processor time that the calling thread has used.
    fn thread_time(&self) -> Duration {
        clone_io::thread_time()
    }

    /// The processor time that this process has used.
    fn process_time(&self) -> Duration {
        clone_io::process_time()
    }

    /// For how long the machine's processors were idle, all added; none if that is not known.
    fn idle_time(&self) -> Option<Duration> {
        clone_io::idle_time().ok()
    }
}

/// The server: what all of its sessions share.
pub trait Host: Clock + Send + Sync + 'static {
    /// A session.
    type Session: Session<Host = Self>;
    /// A thread of the clone.
    type Thread: Thread;

    /// The current values of the plugin's variables.
    fn settings(&self) -> Settings;

    /// The facts about the server's release that matter to a clone.
    fn release(&self) -> ReleaseFacts;

    /// Processors of this machine.
    fn processors(&self) -> u32 {
        1
    }

    /// The receiver of progress reports.
    fn observer(&self) -> &dyn Observer;

    /// Runs `work` in a new thread with a session of its own.
    ///
    /// # Errors
    /// No thread could be created. `work` did not run.
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
    /// Waits until the thread has ended. Returns false if the thread panicked.
    fn join(self) -> bool;
}

impl Thread for std::thread::JoinHandle<()> {
    fn join(self) -> bool {
        std::thread::JoinHandle::join(self).is_ok()
    }
}

/// Receives progress reports of a clone. Examples: the `performance_schema` tables, a progress bar.
pub trait Observer: Send + Sync {
    /// A stage begins with `threads` threads. It is expected to move `estimate` bytes.
    fn next_stage(&self, threads: u32, estimate: u64, unix_micros: u64);

    /// Bytes have been transferred since the last call.
    fn transferred(&self, sample: &Sample, threads: u32);

    /// The current stage will move `bytes` more than its estimate.
    fn add_estimate(&self, bytes: u64);

    /// The server's data stays until the clone is complete. The stage DROP DATA has begun, and is
    /// put off.
    fn keep_data(&self) {}

    /// The copied clone takes the place of the server's data: the stage DROP DATA.
    fn drop_data(&self, unix_micros: u64) {
        let _ = unix_micros;
    }

    /// The clone begins once more, with its first stage.
    fn begin_again(&self) {}
}

/// A session of the server, used only by the thread that owns it. Every role needs these methods.
pub trait Session: Cancel + Sized + 'static {
    /// The server.
    type Host: Host<Session = Self>;
    /// A storage engine that can clone.
    type Engine: ServerEngine<Self>;

    /// The server that this session belongs to.
    fn host(&self) -> &Arc<Self::Host>;

    /// Puts `error` into the diagnostics area. Nothing happens if `error` is there already, as
    /// [`Error::Raised`] is.
    fn raise(&self, error: &Error);

    /// The error in the diagnostics area.
    fn raised(&self) -> Option<(u32, String)>;

    /// All engines that can clone, in the server's order; InnoDB is the first.
    fn engines(&self) -> Vec<Self::Engine>;
}

/// A session of a server whose own data is read or replaced.
pub trait ServerSession: Session {
    /// While a value of this type exists, commits are blocked.
    type CommitBlock: CommitBlock;

    /// Takes the backup lock, which stops DDL.
    fn lock_backup(&self, timeout_seconds: u32) -> Result<()>;

    /// Gives the backup lock back.
    fn unlock_backup(&self);

    /// Blocks commits in all engines of the server until the result is dropped. First waits for
    /// running statements, at most `timeout_seconds`. Meanwhile calls `wait` at least once a
    /// second.
    ///
    /// # Errors
    /// The statements ran too long; `wait` failed, which ends the wait; this server cannot block
    /// commits.
    fn block_commits(
        &self,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self::CommitBlock>;
}

/// See [`ServerSession::block_commits`].
pub trait CommitBlock {
    /// Returns true if commits have been blocked from the beginning until now. A server unblocks
    /// commits after some seconds, even if the clone still needs the block.
    fn has_held(&self) -> bool;
}

/// Reads system variables.
pub trait Variables {
    /// The values of global variables, as text in utf8mb4, in the order of `names`.
    ///
    /// # Errors
    /// A variable does not exist.
    fn variables(&self, names: &[&str]) -> Result<Vec<String>>;
}

/// A donor's session. Most methods give the facts that the donor sends to the recipient.
pub trait DonorSession: ServerSession + Variables {
    /// The names of all collations.
    fn collations(&self) -> Result<Vec<String>>;

    /// All active plugins in the server's order.
    fn plugins(&self) -> Result<Vec<PluginName>>;

    /// "LTS" or "INNOVATION", as the server was built (`MYSQL_VERSION_MATURITY`).
    fn maturity(&self) -> &'static str;

    /// The answers to all [questions](crate::facts::Question) that this server can answer.
    fn facts(&self) -> Facts;

    /// Marks the session's statement as a donor's: `statement/clone/server` in the performance
    /// schema.
    fn mark_donor_statement(&self);

    /// The engine with this `legacy_db_type`, if it can clone.
    fn engine(&self, db_type: u8) -> Option<Self::Engine>;

    /// Connects to the socket where a recipient on this machine takes open files. `key` names the
    /// socket.
    ///
    /// # Errors
    /// The operating system's, for example because the recipient is in another container, or
    /// because this server may open few more files.
    fn connect_files(&self, key: HandoverKey) -> io::Result<Box<dyn FileGiver>> {
        Ok(Box::new(clone_io::FileGiver::connect(key.bytes())?))
    }
}

/// A recipient's session.
pub trait RecipientSession: Session {
    /// A connection to a donor.
    type Link: Link<Self>;
    /// What a connection to a donor needs: where the donor is, and as whom to log in.
    type Donor: Send + Sync + 'static;

    /// Connects to a donor and switches the connection to COM_CLONE. `compressed` asks for the
    /// compression of the classic protocol.
    ///
    /// # Errors
    /// [`Error::Connect`], which has not been raised: the clone may connect again.
    /// [`Error::Interrupted`] after KILL.
    fn connect(&self, donor: &Self::Donor, kind: LinkKind, compressed: bool) -> Result<Self::Link>;

    /// The donor as users name it, for example `host:port`.
    fn name_of(&self, donor: &Self::Donor) -> String;

    /// An older copy of the donor's data, of which nothing has to be sent again. The clone must go
    /// to files that can be read.
    fn base(&self) -> Option<Arc<Base>> {
        None
    }

    /// Opens a socket where a donor on this machine can hand over open files.
    ///
    /// # Errors
    /// The operating system's, for example because this server may open few more files.
    fn listen_for_files(&self) -> io::Result<Box<dyn FileTaker>> {
        Ok(Box::new(clone_io::FileTaker::listen()?))
    }

    /// Accepts or refuses a donor by the parameters that it sent. The clone has changed nothing
    /// yet.
    ///
    /// A server checks whether it could run with the donor's data, and if the clone is to replace
    /// the server's own data, whether it would start and let somebody log in
    /// ([`checks::check`](crate::checks::check)).
    ///
    /// # Errors
    /// The reason for the refusal. Further reasons have been raised.
    fn accept(&self, donor: &Parameters, replaces_data: bool) -> Result<()>;

    /// Whether the clone ends after the checks: `clone_dry_run`.
    fn is_dry_run(&self) -> bool {
        false
    }

    /// The data of this server, which a clone can replace.
    ///
    /// # Errors
    /// This program has no data of its own. That is what this method returns unless it is replaced.
    fn own_data(&self) -> Result<&dyn OwnData> {
        Err(Error::NotSupported("a clone without a directory".into()))
    }
}

/// The data of a server, as a clone replaces it.
pub trait OwnData {
    /// The directory where a clone waits that is to replace the server's own data. The directory
    /// does not exist yet. None if this server cannot keep its data during the clone.
    ///
    /// # Errors
    /// The directory could not be emptied.
    fn staging_directory(&self) -> Result<Option<PathBuf>>;

    /// Accepts or refuses a file of the donor's system tablespace, before it is copied. `index` is
    /// its place in `innodb_data_file_path`, `size` is in bytes.
    ///
    /// # Errors
    /// The server would not start with the file.
    fn accept_system_file(&self, index: usize, size: u64) -> Result<()>;

    /// Accepts or refuses a tablespace that lies outside of the donor's data directory. `path` is
    /// its path at the donor, as in [`OutsideFile`].
    ///
    /// # Errors
    /// The server would not look for tablespaces there (1525).
    fn accept_outside_file(&self, path: &Path) -> Result<()>;

    /// Returns `Ok` if a clone of `bytes` fits on the disk when the server's data is gone.
    ///
    /// # Errors
    /// The clone does not fit (3873).
    fn check_space_without_data(&self, bytes: u64) -> Result<()>;

    /// Accepts or refuses that the server's own data is dropped. The data is locked.
    ///
    /// # Errors
    /// Something must not be dropped. The data is as it was.
    fn check_replaceable(&self) -> Result<()>;

    /// The engines have written a complete clone over the server's data, and are about to end it.
    /// The pages of the old data in the doublewrite buffer must not get into the clone.
    ///
    /// # Errors
    /// A file operation failed. The clone then fails, too.
    fn empty_doublewrite_buffer(&self) -> Result<()>;

    /// The complete clone takes the place of the server's data at the next start. Between
    /// [`begin_replacing`](Self::begin_replacing) and the restart nobody else changes this data.
    ///
    /// # Errors
    /// The clone does not fit this server, or a file operation failed. The data is as it was.
    fn replace_data(&self, clone: &StagedClone) -> Result<()>;

    /// The clone is about to replace the server's own data. From now on nobody else may change this
    /// data.
    ///
    /// # Errors
    /// The data could not be locked in time.
    fn begin_replacing(&self) -> Result<()>;

    /// The clone has failed. The server's data may change again.
    fn end_replacing(&self);
}

/// A clone that waits in a staging directory to take the place of a server's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagedClone {
    /// The staging directory.
    pub directory: PathBuf,
    /// The names of the files of the system tablespace, in the donor's order.
    pub system_files: Vec<OsString>,
    /// The names of undo tablespaces.
    pub undo_files: Vec<OsString>,
    /// Files that lie outside of the donor's data directory.
    pub outside_files: Vec<OutsideFile>,
}

/// A tablespace that lies outside of the donor's data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideFile {
    /// Where it waits, below the staging directory.
    pub staged: PathBuf,
    /// Its path at the donor: an absolute one, or one relative to the data directory.
    pub path: PathBuf,
}

/// Which thread class of the performance schema a worker belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    /// `thread/clone/client-task`.
    Client,
    /// The same. Sends heartbeats, and moves no data.
    Heartbeat,
    /// `thread/clone/local-task`.
    Local,
}

/// A plugin, as a donor names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginName {
    /// Name in `INFORMATION_SCHEMA.PLUGINS`.
    pub name: String,
    /// File in the plugin directory; none for a built-in plugin.
    pub library: Option<String>,
}

/// Fails, and says so to the user, if the session is killed.
pub(crate) fn check_killed<S: Session>(session: &S) -> Result<()> {
    if !session.is_killed() {
        return Ok(());
    }
    session.raise(&Error::Interrupted);
    Err(Error::Interrupted)
}

/// Logs a step of a clone, with the error if the step failed. `target` is one of
/// [`log_target`](crate::log_target).
pub(crate) fn log_step<S: Session, T>(session: &S, target: &str, step: &str, outcome: &Result<T>) {
    match outcome {
        Ok(_) => log::info!(target: target, "{step}"),
        Err(error) => {
            let raised = session.raised().map(|(_, text)| text);
            let text = raised.unwrap_or_else(|| error.to_string());
            log::info!(target: target, "{step}: error: {}: {text}", error.number());
        }
    }
}
