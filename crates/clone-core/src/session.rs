// SPDX-License-Identifier: GPL-2.0-only

//! What the clone logic needs of the world: a server ([`Host`]), a session of it ([`Session`]), storage engines ([`Engine`]) and
//! connections ([`Link`], [`DonorLink`]).
//!
//! mysqld is one implementation, a simulation another. Every call here may block; none may be made with a lock of this crate held.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clone_protocol::{CommandCode, Version};
use zeroize::Zeroizing;

use crate::board::StatusBoard;
use crate::donor::DonorClones;
use crate::error::{Error, Result};

/// The server: what is the same for all of its sessions.
pub trait Host: Send + Sync + 'static {
    /// A session of this server.
    type Session: Session<Host = Self>;

    /// The plugin's variables as they are now.
    fn settings(&self) -> Settings;

    /// What this server's release has to do with a clone.
    fn release(&self) -> ReleaseFacts;

    /// The clones that this server gives.
    fn donor_clones(&self) -> &DonorClones<<Self::Session as Session>::Engine>;

    /// Processors of this machine.
    fn processors(&self) -> u32 {
        1
    }

    /// What the `performance_schema` tables show.
    fn board(&self) -> &StatusBoard;

    /// Monotonic time since any fixed moment.
    fn now(&self) -> Duration;

    /// Microseconds since the Unix epoch.
    fn unix_micros(&self) -> u64;

    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration);

    /// Runs `work` in a new thread with a session of its own.
    ///
    /// # Errors
    /// No thread was to be had; `work` did not run.
    fn spawn(
        self: &Arc<Self>,
        kind: WorkerKind,
        work: Work<Self::Session>,
    ) -> io::Result<JoinHandle<()>>;

    /// Lets engines see `seconds` as `clone_ddl_timeout` while `begin` runs: InnoDB reads the variable by name, and it is the
    /// recipient's value that counts.
    fn lend_ddl_timeout(&self, seconds: u32, begin: &mut dyn FnMut());

    /// Whether a DBUG keyword of MySQL's debug tests is set. Always false on a release server.
    fn debug_keyword(&self, keyword: &str) -> bool {
        let _ = keyword;
        false
    }
}

/// What a worker thread runs.
pub type Work<S> = Box<dyn FnOnce(&S) + Send>;

/// One session of the server, used by the thread that owns it.
pub trait Session: Sized + 'static {
    /// The server.
    type Host: Host<Session = Self>;
    /// A storage engine that can clone.
    type Engine: Engine<Self>;
    /// A connection to a donor.
    type Link: Link<Self>;
    /// What [`block_commits`](Session::block_commits) gives.
    type CommitBlock: CommitBlock;

    /// The server that this session belongs to.
    fn host(&self) -> &Arc<Self::Host>;

    /// The connection id of the session.
    fn id(&self) -> u32;

    /// KILL, or the server shuts down.
    fn is_killed(&self) -> bool;

    /// Puts `error` into the diagnostics area, unless it is there already ([`Error::Raised`]).
    fn raise(&self, error: &Error);

    /// The error in the diagnostics area.
    fn raised(&self) -> Option<(u32, String)>;

    /// The values of global variables, as text in utf8mb4, in the order of `names`.
    fn configs(&self, names: &[&str]) -> Result<Vec<String>>;

    /// The names of all collations.
    fn collations(&self) -> Result<Vec<String>>;

    /// Raises 3867 for each collation that this server lacks.
    fn check_collations(&self, names: &[String]) -> Result<()>;

    /// Raises 3865, 3866, 3868 (before 9.0 also 3864) for each variable whose value differs.
    fn check_configs(&self, configs: &[(String, String)]) -> Result<()>;

    /// Raises 3864 if a donor of version `donor` cannot be cloned by this server. Servers before 9.0 compare versions in
    /// [`check_configs`](Session::check_configs); there this does nothing.
    fn check_version(&self, recipient: &ServerRelease, donor: &ServerRelease) -> Result<()>;

    /// "LTS" or "INNOVATION", as the server was built (`MYSQL_VERSION_MATURITY`).
    fn maturity(&self) -> &'static str;

    /// The session's statement is a donor's: `statement/clone/server` in the performance schema.
    fn mark_donor_statement(&self);

    /// All active plugins in the server's order.
    fn plugins(&self) -> Result<Vec<PluginName>>;

    /// Whether a plugin of that name is installed.
    fn has_plugin(&self, name: &str) -> bool;

    /// Whether `library` lies in the plugin directory and could be loaded. Nothing of it is run: the name comes from the donor.
    fn can_load_plugin(&self, library: &str) -> bool;

    /// Takes the backup lock, which stops DDL.
    fn lock_backup(&self, timeout_seconds: u32) -> Result<()>;

    /// Gives the backup lock back.
    fn unlock_backup(&self);

    /// Keeps every transaction of the server from committing, in all engines, until the result is dropped. Waits for the statements
    /// that run, at most `timeout_seconds`, and calls `wait` meanwhile, at least once a second.
    ///
    /// # Errors
    /// It was too long; that of `wait`, which ends it; there is no way to do it on this server.
    fn block_commits(
        &self,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self::CommitBlock>;

    /// All engines that can clone, in the server's order.
    fn engines(&self) -> Vec<Self::Engine>;

    /// The engine with this `legacy_db_type`, if it can clone.
    fn engine(&self, db_type: u8) -> Option<Self::Engine>;

    /// Connects to a donor and switches the connection to COM_CLONE. `compressed` asks for the compression of the classic
    /// protocol.
    fn connect(&self, donor: &Donor, kind: LinkKind, compressed: bool) -> Result<Self::Link>;
}

/// Blocks commits as long as it lives.
pub trait CommitBlock {
    /// Whether commits have been blocked all the time. A server lets them go on after some seconds, whatever is not done by then.
    fn has_held(&self) -> bool;
}

/// A storage engine's clone interface (`sql/handler.h:Clone_interface_t`).
///
/// A locator is the engine's name for a running clone; its bytes mean something only to the engine.
pub trait Engine<S: Session>: Copy + Send + Sync + 'static {
    /// `legacy_db_type`; InnoDB is 12.
    fn db_type(&self) -> u8;

    /// What users call it.
    fn name(&self) -> String;

    /// Donor: begins, joins or resumes the copy of a clone. `locator` is what the peer sent, none for a local clone.
    fn begin(&self, session: &S, locator: Option<&[u8]>, mode: Mode) -> Result<Begun>;

    /// Donor: whether the point that this engine's part of a clone comes to is the caller's to choose. InnoDB chooses its own, which
    /// the others follow: [`fix_point`](Engine::fix_point).
    fn follows(&self) -> bool {
        false
    }

    /// Donor: does what takes time and has to be done before [`fix_point`](Engine::fix_point).
    fn prepare_point(&self, session: &S, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Ok(())
    }

    /// Donor: makes this moment, at which nobody commits, the point of the clone. [`copy`](Engine::copy) comes after it.
    fn fix_point(&self, session: &S, locator: &[u8]) -> Result<()> {
        let _ = (session, locator);
        Ok(())
    }

    /// Donor: copies until the end of the clone, handing all data to `callbacks`. `buffer_size` is the
    /// length of InnoDB's blocks with direct I/O in a local clone, in bytes; 0 in a remote one.
    fn copy(
        &self,
        session: &S,
        locator: &[u8],
        task: u32,
        buffer_size: u32,
        locator_index: usize,
        callbacks: &mut dyn Callbacks,
    ) -> Result<()>;

    /// Donor: the recipient finished a state (`error` 0 and the state's descriptor), or failed (`error`).
    fn ack(&self, session: &S, locator: &[u8], error: i32, descriptor: &[u8]) -> Result<()>;

    /// Donor: the task ends, with `error` or 0.
    fn end(&self, session: &S, locator: &[u8], task: u32, error: u32) -> Result<()>;

    /// Recipient: begins, joins or resumes the apply. `directory` none means: replace this server's data.
    fn apply_begin(
        &self,
        session: &S,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&str>,
    ) -> Result<Begun>;

    /// Recipient: applies one descriptor, taking its data from `callbacks`.
    fn apply(
        &self,
        session: &S,
        locator: &[u8],
        task: u32,
        locator_index: usize,
        descriptor: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<()>;

    /// Recipient: tells the other tasks of the clone that this one failed.
    fn apply_error(&self, session: &S, locator: &[u8], task: u32, error: u32) -> Result<()>;

    /// Recipient: the task ends, with `error` or 0.
    fn apply_end(&self, session: &S, locator: &[u8], task: u32, error: u32) -> Result<()>;
}

/// What an engine calls while it copies or applies (`sql/handler.h:Ha_clone_cbk`).
pub trait Callbacks {
    /// Donor: `len` bytes of `file`, from its current offset, are to be sent.
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()>;

    /// Donor: `data` is to be sent; may be empty for a descriptor alone. Recipient: a state begins or ended.
    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()>;

    /// Recipient: the data of the current descriptor is to be written to `file`, from its current offset.
    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()>;

    /// Recipient: the data of the current descriptor; valid until the engine's `apply` returns.
    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]>;

    /// Recipient: so many more bytes are to be expected. MySQL's interface has this only with a change of state; engines without
    /// states say it here (`storage/rocksdb/clone`: `add_to_data_size_estimate`).
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
    /// The file is read and written through the operating system's cache; otherwise buffers must be aligned
    /// ([`clone_io::ALIGNMENT`]).
    pub is_os_buffer_cached: bool,
    /// Data may go from file to file inside the kernel.
    pub is_zero_copy: bool,
    /// The descriptor carries a key: only over an encrypted connection.
    pub is_secure: bool,
    /// A snapshot state begins; the estimate is in bytes.
    pub state_change: Option<u64>,
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

/// A recipient's connection to a donor, in COM_CLONE.
pub trait Link<S: Session> {
    /// Sends a command. `is_data` is false on the auxiliary connection.
    fn send(&mut self, session: &S, is_data: bool, code: CommandCode, payload: &[u8])
    -> Result<()>;

    /// Waits for the next packet, at most `timeout_seconds` for each read (0: the server's `net_read_timeout`).
    fn receive(&mut self, session: &S, is_data: bool, timeout_seconds: u32) -> Result<Packet<'_>>;

    /// Whether the donor is on this machine, so that both share its processors.
    fn is_within_host(&self) -> bool {
        false
    }

    /// Asks the donor, over this connection, to kill the connection `other`.
    fn kill(&mut self, other: &mut Self) -> Result<()>;

    /// Ends the connection. `abort`: the dialogue is broken, so do not say goodbye. `clear_error`: forget errors of the session.
    /// `session` is none for the auxiliary connection.
    fn disconnect(self, session: Option<&S>, abort: bool, clear_error: bool);
}

/// A packet from a donor.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The payload, ours to overwrite until the next call. Best if what is behind its code is aligned for direct I/O.
    pub data: &'a mut [u8],
    /// Bytes that crossed the network for it.
    pub network_len: u64,
}

/// A donor's connection to a recipient, in COM_CLONE.
pub trait DonorLink {
    /// Waits for the next command; its payload replaces the content of `payload`.
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8>;

    /// Sends one packet; with `secure` only over an encrypted connection (error 3872 otherwise). The packet may be overwritten.
    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()>;

    /// Sends packets one behind the other: at once, where the connection is made for that.
    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        self.send(false, first)?;
        self.send(false, second)
    }

    /// Whether bytes cross the network as they are sent: without TLS and without the classic protocol's compression.
    fn is_plain(&mut self) -> bool;

    /// Sends the packet `descriptor`, and behind it one with `len` bytes of `file` from its current
    /// offset, past the server's own functions: a raw [`Block`](clone_protocol::Block), or DATA.
    /// False if this connection or this file is not made for that: then nothing was sent and read.
    ///
    /// # Errors
    /// The file's, or the connection's, which is closed in both cases.
    fn send_file(
        &mut self,
        descriptor: &[u8],
        file: BorrowedFd<'_>,
        len: u32,
        is_block: bool,
    ) -> Result<bool, TransferError> {
        let _ = (descriptor, file, len, is_block);
        Ok(false)
    }

    /// Sends the error in the diagnostics area and clears it there; with `fatal` closes the connection instead and gives the
    /// error back.
    fn send_error(&mut self, fatal: bool) -> Result<()>;
}

/// What went wrong between a file and a connection.
#[derive(Debug)]
pub enum TransferError {
    /// The connection's error, raised.
    Link(Error),
    /// The file could not be read.
    File(io::Error),
}

/// What differs by the release of MySQL that a server is. Donor and recipient are of releases for which it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// The highest version of the protocol that is spoken.
    pub protocol: Version,
    /// Whether InnoDB copes with DDL while it is cloned: since 8.0.27. Where it does not, donors keep DDL out whatever the recipient
    /// asks for.
    pub allows_ddl: bool,
    /// Whether InnoDB's redo log always has two files, of which a clone may leave out the second: before 8.0.30.
    pub has_spare_redo_file: bool,
}

impl ReleaseFacts {
    /// A release of today.
    pub const LATEST: Self =
        Self { protocol: Version::LATEST, allows_ddl: true, has_spare_redo_file: false };
}

/// The plugin's variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `clone_buffer_size`, bytes.
    pub buffer_size: u32,
    /// `clone_block_ddl`; always set where [`ReleaseFacts::allows_ddl`] says no.
    pub block_ddl: bool,
    /// `clone_ddl_timeout`, seconds.
    pub ddl_timeout: u32,
    /// `clone_max_concurrency`, threads including the master.
    pub max_concurrency: u32,
    /// `clone_max_network_bandwidth`, MiB/s, 0 without limit.
    pub max_network_bandwidth: u32,
    /// `clone_max_data_bandwidth`, MiB/s, 0 without limit.
    pub max_data_bandwidth: u32,
    /// `clone_autotune_concurrency`.
    pub autotune_concurrency: bool,
    /// `clone_delay_after_data_drop`, seconds.
    pub delay_after_data_drop: u32,
    /// `clone_enable_compression`.
    pub enable_compression: bool,
    /// `clone_file_handover`.
    pub file_handover: bool,
    /// `clone_compression_level`: 0 for LZ4, above it Zstandard's level. Between plugins of this project.
    pub compression_level: u8,
}

/// The `log` target of the recipient and of a local clone: MySQL's code 13272.
pub const CLIENT: &str = "clone::client";

/// The `log` target of the donor: MySQL's code 13273.
pub const SERVER: &str = "clone::server";

/// Which thread class of the performance schema a worker belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    /// `thread/clone/client-task`.
    Client,
    /// `thread/clone/local-task`.
    Local,
}

/// Which of the two connections of a recipient's master this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Acknowledgements and goodbyes.
    Auxiliary,
    /// Everything else; KILL wakes a thread that waits for it.
    Data,
}

/// Where to clone from.
#[derive(Debug)]
pub struct Donor {
    /// Host name or address, as the statement gave it (lower case).
    pub host: String,
    /// Port of the classic protocol.
    pub port: u16,
    /// Account with BACKUP_ADMIN.
    pub user: String,
    /// Wiped when dropped.
    pub password: Zeroizing<String>,
    /// `mysql_ssl_mode`: 1 disabled, 2 preferred, 3 required.
    pub ssl_mode: i32,
}

/// A server's release, as far as it decides who may clone whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRelease {
    /// The variable `version`.
    pub version: String,
    /// A long-term support release.
    pub is_lts: bool,
}

/// A plugin, as a donor names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginName {
    /// Name in `INFORMATION_SCHEMA.PLUGINS`.
    pub name: String,
    /// File in the plugin directory, none for a built-in.
    pub library: Option<String>,
}

/// Logs a step of a clone, with the error if the step failed. `target` is [`CLIENT`] or [`SERVER`].
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
