// SPDX-License-Identifier: GPL-2.0-only

//! The recipient: `CLONE INSTANCE FROM`.
//!
//! The statement's thread is the master. It opens two connections to the donor, one for data and one, the auxiliary, for
//! acknowledgements; worker threads open one each. Every thread runs a `Task`: it sends commands, and
//! gives each descriptor that arrives to the storage engine, which calls back for the data (`apply`).
//!
//! After a network failure the master connects again, up to the donor's time-out, and resumes where the engine's locator says.

mod answer;
mod apply;
mod block;
mod engines;
mod probe;
mod task;
mod threads;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clone_io::FileWriter;
use clone_protocol::innodb::StreamCheck;
use clone_protocol::{CommandCode, Offer, Version};

use crate::error::{Error, Result, number};
use crate::link::{Donor, Link, LinkKind};
use crate::log_target::{CLIENT, log_step};
use crate::session::{Clock, Host, RecipientSession};
use crate::tasks::EngineClone;
use crate::traffic::{Traffic, sleep_until};
use crate::workers::Workers;
use task::{EngineSide, Task};

/// Clones the instance `donor` into `directory`, or, without one, over the data of this server.
///
/// A server runs the clone on its [`StatusBoard`](crate::board::StatusBoard::run).
///
/// # Errors
/// The first error of the clone, in the session's diagnostics area. Without a directory the user data of this server may be gone
/// by then (`performance_schema.clone_progress` tells: stage DROP DATA).
pub fn clone_instance<S: RecipientSession>(
    session: &S,
    donor: Donor,
    directory: Option<PathBuf>,
) -> Result<()> {
    let shared = Arc::new(Shared::new(session, donor, directory));
    let workers = Workers::new(session.host().settings().max_concurrency);
    Task::master(session, shared, workers).run()
}

/// Most connections in a row that may break before the clone gives up.
const MAX_RESTARTS: u32 = 100;

/// Least time between two attempts to connect again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);

/// What all tasks of a clone share.
struct Shared<S: RecipientSession> {
    donor: Donor,
    directory: Option<PathBuf>,
    /// What we offer, then what the donor and we agreed on, as a number of [`Version`].
    version: AtomicU32,
    clones: Mutex<Vec<EngineClone<S::Engine>>>,
    stream: StreamCheck,
    traffic: Traffic,
    /// Whether the donor may hand files over. False once the first file could not be shared.
    takes_files: AtomicBool,
    files: FileWriter,
    /// What we would like of a donor that understands it.
    offer: Offer,
    /// Whether connections are compressed as the classic protocol does; the master finds out before the first one.
    compressed: OnceLock<bool>,
}

impl<S: RecipientSession> Shared<S> {
    fn new(session: &S, donor: Donor, directory: Option<PathBuf>) -> Self {
        let host = session.host();
        let release = host.release();
        let settings = host.settings();
        let stream = match release.has_spare_redo_file {
            true => StreamCheck::new().with_spare_redo_file(),
            false => StreamCheck::new(),
        };
        Self {
            donor,
            directory,
            version: AtomicU32::new(release.protocol.number()),
            clones: Mutex::new(Vec::new()),
            stream,
            traffic: Traffic::new(),
            takes_files: AtomicBool::new(settings.file_handover),
            files: FileWriter::default(),
            offer: probe::offer(&settings),
            compressed: OnceLock::new(),
        }
    }

    /// The clone replaces the data of this server, which restarts afterwards.
    fn replaces_server(&self) -> bool {
        self.directory.is_none()
    }

    /// Where the files of the clone go: the directory, or the server's working directory.
    fn target(&self) -> &Path {
        self.directory.as_deref().unwrap_or(Path::new("."))
    }

    /// A panic of another task does not make the list wrong: it is replaced as a whole.
    fn clones(&self) -> MutexGuard<'_, Vec<EngineClone<S::Engine>>> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self) -> Version {
        Version::from_wire(self.version.load(Ordering::Relaxed)).unwrap_or(Version::LATEST)
    }
}

/// Whether the connection can no longer be used for COM_EXIT.
///
/// An interrupted task has left the donor in mid-stream, so its connection is of no more use either.
fn ends_connection(error: &Error) -> bool {
    error.ends_connection() || error.number() == number::ER_QUERY_INTERRUPTED
}

impl<S: RecipientSession> Task<'_, S> {
    /// The whole life of a task.
    fn run(mut self) -> Result<()> {
        let mut outcome;
        let mut restarts = 0;
        let mut is_restart = false;
        loop {
            restarts += 1;
            outcome = if is_restart { self.reconnect() } else { self.connect() };
            if outcome.is_err() {
                break;
            }
            outcome = self.clone_over_connection(is_restart);
            let was_killed = self.was_killed(&outcome);
            if was_killed {
                outcome = Err(Error::Interrupted);
            } else if let Err(error) = &outcome {
                // What goes wrong from here on must not be the first error that the user sees.
                self.session.raise(error);
            }
            // Before the engines have begun there is nothing that the donor could go on with.
            let again = self.is_master()
                && matches!(self.engine_side, EngineSide::Active(_))
                && matches!(&outcome, Err(error) if error.is_network())
                && restarts < MAX_RESTARTS
                && !self.session.is_killed();
            if again {
                self.log_outcome("Source Network issue", &outcome);
            } else if is_restart {
                self.log_outcome("Source break restart loop", &outcome);
            }
            self.disconnect(&outcome, was_killed);
            if let Err(error) = &outcome {
                self.fail_storage(error);
            }
            self.join_workers();
            if !again {
                break;
            }
            is_restart = true;
        }
        self.finish(outcome)
    }

    /// INIT, REINIT or ATTACH, then EXECUTE.
    fn clone_over_connection(&mut self, is_restart: bool) -> Result<()> {
        let command = match (self.is_master(), is_restart) {
            (true, false) => CommandCode::Init,
            (true, true) => CommandCode::Reinit,
            (false, _) => CommandCode::Attach,
        };
        let mut outcome = self.command(command);
        if outcome.is_ok() && command == CommandCode::Init {
            outcome = self.delay_after_data_drop();
        }
        let name = match command {
            CommandCode::Init => "Command COM_INIT",
            CommandCode::Reinit => "Command COM_REINIT",
            _ => "Command COM_ATTACH",
        };
        self.log_outcome(name, &outcome);
        outcome?;
        self.spawn_initial_workers();
        let outcome = self.command(CommandCode::Execute);
        self.log_outcome("Command COM_EXECUTE", &outcome);
        outcome
    }

    /// Opens the data connection and, for the master, the auxiliary one.
    fn connect(&mut self) -> Result<()> {
        self.meet_donor()?;
        let data = self.session.connect(&self.shared.donor, LinkKind::Data, self.is_compressed());
        let outcome = data.map(|link| self.data = Some(link));
        self.log_outcome("Task Connect", &outcome);
        outcome?;
        if !self.is_master() {
            return Ok(());
        }
        let auxiliary =
            self.session.connect(&self.shared.donor, LinkKind::Auxiliary, self.is_compressed());
        let outcome = auxiliary.map(|link| self.auxiliary = Some(link));
        self.log_outcome("Source ACK Connect", &outcome);
        if outcome.is_err() {
            let left = self.command(CommandCode::Exit);
            self.log_outcome("Source Task COM_EXIT", &left);
            self.disconnect_data("Source Task Disconnect:", left.is_err(), false);
        }
        outcome
    }

    /// Connects again, trying until the donor's time-out is over; a donor with time-out 0 gets one attempt.
    fn reconnect(&mut self) -> Result<()> {
        let host = self.session.host().clone();
        let started = host.now();
        let patience = self.reconnect_timeout();
        let mut attempts = 0;
        loop {
            let attempted = host.now();
            let Err(error) = self.connect() else { return Ok(()) };
            attempts += 1;
            log::info!(target: CLIENT, "Source re-connect failed: count: {attempts}");
            if patience.is_zero() || host.now().saturating_sub(started) > patience {
                return Err(error);
            }
            sleep_until(self.session, attempted + RECONNECT_INTERVAL)?;
        }
    }

    /// Whether what looks like a network failure is KILL, which closes the connection a moment before it marks the session.
    ///
    /// The donor must be told apart: after a network failure it waits for this recipient, and is there for no other one.
    fn was_killed(&self, outcome: &Result<()>) -> bool {
        const MOMENT: Duration = Duration::from_millis(100);
        if !self.is_master() || !matches!(outcome, Err(error) if error.is_network()) {
            return false;
        }
        sleep_until(self.session, self.session.host().now() + MOMENT).is_err()
    }

    /// Says goodbye on both connections and closes them. After KILL the network error that it looked like is forgotten.
    fn disconnect(&mut self, outcome: &Result<()>, was_killed: bool) {
        // A donor may be waiting for a block of which this task has not heard.
        self.receiver.close_files();
        if self.is_master() {
            let left = self.auxiliary_command(CommandCode::Exit, 0, &[]);
            self.log_outcome("Source ACK COM_EXIT", &left);
            let interrupted =
                matches!(outcome, Err(error) if error.number() == number::ER_QUERY_INTERRUPTED);
            let mut abort = left.is_err();
            if !abort
                && interrupted
                && let (Some(auxiliary), Some(data)) = (&mut self.auxiliary, &mut self.data)
            {
                let killed = auxiliary.kill(data);
                abort = killed.is_err();
                log_step(self.session, CLIENT, "Source Interrupt", &killed);
            }
            if let Some(auxiliary) = self.auxiliary.take() {
                auxiliary.disconnect(None, abort, false);
                log::info!(target: CLIENT, "Source ACK Disconnect : abort: {abort}");
            }
        }
        let mut abort = matches!(outcome, Err(error) if ends_connection(error));
        if abort {
            self.log_outcome("Task skip COM_EXIT", outcome);
        } else {
            let left = self.command(CommandCode::Exit);
            abort = left.is_err();
            self.log_outcome("Task COM_EXIT", &left);
        }
        self.disconnect_data("Task Disconnect :", abort, outcome.is_ok() || was_killed);
    }

    fn disconnect_data(&mut self, step: &str, abort: bool, clear_error: bool) {
        if let Some(data) = self.data.take() {
            data.disconnect(Some(self.session), abort, clear_error);
            log::info!(target: CLIENT, "{step} abort: {abort}");
        }
    }

    /// Ends the clone in the engines, and gives back what it holds.
    fn finish(&mut self, outcome: Result<()>) -> Result<()> {
        if self.shared.clones().len() > 1 {
            // What was sent after InnoDB's last state has ended.
            self.finish_stage();
        }
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let ended = self.end_storage(error);
        let outcome = outcome.and(ended);
        if outcome.is_err() {
            self.end_replacing();
        }
        outcome
    }

    /// `clone_delay_after_data_drop`: file systems that free space late get time for it.
    fn delay_after_data_drop(&self) -> Result<()> {
        let host = self.session.host();
        let seconds = u64::from(host.settings().delay_after_data_drop);
        if !self.shared.replaces_server() || seconds == 0 {
            return Ok(());
        }
        log::info!(target: CLIENT, "Begin Delay after data drop");
        let (minutes, rest) = (seconds / 60, seconds % 60);
        log::info!(
            target: CLIENT,
            "Wait time remaining is {minutes} minutes and {rest} seconds."
        );
        let end = host.now() + Duration::from_secs(seconds);
        let mut next_line = host.now() + Duration::from_secs(60);
        let mut outcome = Ok(());
        while outcome.is_ok() && host.now() < end {
            outcome = sleep_until(self.session, next_line.min(end));
            let left = end.saturating_sub(host.now());
            if outcome.is_ok() && !left.is_zero() {
                next_line += Duration::from_secs(60);
                let minutes = left.as_secs() / 60;
                log::info!(target: CLIENT, "Wait time remaining is {minutes} minutes.");
            }
        }
        log::info!(target: CLIENT, "End Delay after data drop");
        outcome
    }

    fn log_outcome(&self, step: &str, outcome: &Result<()>) {
        log_step(self.session, CLIENT, step, outcome);
    }
}
