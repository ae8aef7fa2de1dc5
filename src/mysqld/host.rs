// SPDX-License-Identifier: GPL-2.0-only

//! The server that the plugin is loaded into.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clone_core::board::StatusBoard;
use clone_core::checks::Finding;
use clone_core::donor::DonorClones;
use clone_core::session::{self, Clock, Host, Observer, Work, WorkerKind};
use clone_core::settings::{ReleaseFacts, Settings};
use clone_swap::replacement::Replacement;

use super::connector::Connector;
use super::engine::MysqldEngine;
use super::interrupter::Interrupter;
use super::session::MysqldSession;
use crate::guard;
use crate::plugin::variables;
use crate::server::error_log::CLIENT;
use crate::server::psi::Keys;
use crate::server::services::services;
use crate::server::thd::Thd;
use crate::server::thread::Thread;

/// The one server of this process.
pub(crate) struct MysqldHost {
    pub(super) keys: Keys,
    board: StatusBoard,
    donor_clones: DonorClones<MysqldEngine>,
    pub(super) connector: Connector,
    pub(super) interrupter: Interrupter,
    started: Instant,
    /// Held while `clone_ddl_timeout` is lent, so that two donors' sessions do not restore each
    /// other's value.
    ddl_timeout_lent: Mutex<()>,
    /// The clone that takes the place of the server's data at the next start.
    replacement: Mutex<Option<Replacement>>,
    /// The results of the last checks.
    findings: Mutex<Arc<[Finding]>>,
}

impl MysqldHost {
    /// Reads what the last clone left in the data directory, which is mysqld's working directory.
    pub(crate) fn new(keys: Keys) -> Arc<Self> {
        Arc::new(Self {
            keys,
            board: StatusBoard::load(PathBuf::from(".")),
            donor_clones: DonorClones::default(),
            connector: Connector::default(),
            interrupter: Interrupter::default(),
            started: Instant::now(),
            ddl_timeout_lent: Mutex::new(()),
            replacement: Mutex::default(),
            findings: Mutex::default(),
        })
    }

    /// What the `performance_schema` tables show.
    pub(crate) fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// The clones that this server gives.
    pub(crate) fn donor_clones(&self) -> &DonorClones<MysqldEngine> {
        &self.donor_clones
    }

    /// Lets engines see `seconds` as `clone_ddl_timeout` while `begin` runs: InnoDB reads the
    /// variable by name, and the recipient's value counts.
    pub(super) fn with_ddl_timeout<R>(&self, seconds: u32, begin: impl FnOnce() -> R) -> R {
        let _lent = self.ddl_timeout_lent.lock().unwrap_or_else(PoisonError::into_inner);
        let own = variables::swap_ddl_timeout(seconds);
        let begun = begin();
        variables::restore_ddl_timeout(seconds, own);
        begun
    }

    /// The results of the checks of a clone, or none when a clone begins.
    pub(crate) fn set_findings(&self, findings: Vec<Finding>) {
        *self.findings.lock().unwrap_or_else(PoisonError::into_inner) = findings.into();
    }

    /// The results of the checks of the last clone over the network.
    pub(crate) fn findings(&self) -> Arc<[Finding]> {
        Arc::clone(&self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A clone takes the place of the server's data at the next start.
    pub(super) fn set_replacement(&self, replacement: Replacement) {
        *self.replacement.lock().unwrap_or_else(PoisonError::into_inner) = Some(replacement);
    }

    /// The server shuts down, and has closed its binary log.
    pub(crate) fn finish_replacement(&self) {
        let replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = replacement.map(|replacement| replacement.at_shutdown()) {
            log::error!(
                target: CLIENT,
                "The index of the binary logs could not be emptied for the clone. The next start may \
                 fail: {error}"
            );
        }
    }

    /// The keys of the instruments.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }
}

impl Clock for MysqldHost {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Host for MysqldHost {
    type Session = MysqldSession;
    type Thread = Thread;

    fn settings(&self) -> Settings {
        let settings = variables::settings();
        Settings { block_ddl: settings.block_ddl || !self.release().allows_ddl, ..settings }
    }

    fn release(&self) -> ReleaseFacts {
        services().layout.release
    }

    fn processors(&self) -> u32 {
        thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
    }

    fn observer(&self) -> &dyn Observer {
        &self.board
    }

    fn spawn(self: &Arc<Self>, kind: WorkerKind, work: Work<MysqldSession>) -> io::Result<Thread> {
        let (name, key) = match kind {
            WorkerKind::Client => (c"clone_client", self.keys.client_task),
            WorkerKind::Heartbeat => (c"clone_heartbeat", self.keys.client_task),
            WorkerKind::Local => (c"clone_local", self.keys.local_task),
        };
        // Such a worker opens files. The clone can do without the worker.
        if matches!(kind, WorkerKind::Client | WorkerKind::Local) {
            check_open_files()?;
        }
        let host = Arc::clone(self);
        // SAFETY: a statement's thread waits for its workers before its session ends.
        let statement = Thd::with_current(|thd| unsafe { thd.kill_flag() });
        Thread::spawn(name, move || {
            // The session must end before the thread: then mysqld's state of the thread ends, too.
            let Some(own) = MysqldSession::start(key, statement, host) else { return };
            // A panic has been logged and raised. The master sees the task's error in the engine,
            // or misses the task's part.
            let _ = guard::caught(|| work(&own));
        })
    }
}

/// Fails if few files may be opened. Without `/proc` nobody knows, and nothing fails.
fn check_open_files() -> io::Result<()> {
    match clone_io::check_free_descriptors() {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => Err(error),
        _ => Ok(()),
    }
}

impl session::Thread for Thread {
    fn join(self) -> bool {
        // Dropping the thread waits for its end. A panic has been logged and raised in the thread.
        drop(self);
        true
    }
}
