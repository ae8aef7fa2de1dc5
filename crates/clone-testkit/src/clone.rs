// SPDX-License-Identifier: GPL-2.0-only

//! The `CLONE` statement, its progress and its result.

mod monitor;

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::mysqld::Mysqld;
use crate::sql::{Account, Session, SqlError, literal, server_error};
use crate::wait::go_on;

pub use monitor::{STAGES, Stage, Status, file_copy, progress, status};

/// `ER_RESTART_SERVER_FAILED`: the data is cloned, and no supervisor is there to start the server.
const NO_SUPERVISOR: u16 = 3707;

/// `ER_NO_SUCH_THREAD`.
const NO_SUCH_THREAD: u16 = 1094;

/// The `REQUIRE` clause.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tls {
    /// `REQUIRE NO SSL`.
    Disabled,
    /// No clause: TLS if the donor offers it.
    #[default]
    Preferred,
    /// `REQUIRE SSL`.
    Required,
}

#[derive(Clone, Debug)]
enum Source {
    Instance { account: Account, host: String, port: u16, tls: Tls },
    Local,
}

/// A `CLONE` statement. Its `Display` is the SQL text.
#[derive(Clone, Debug)]
pub struct Statement {
    source: Source,
    directory: Option<PathBuf>,
}

impl Statement {
    /// `CLONE LOCAL`.
    pub fn local(directory: &Path) -> Self {
        Self { source: Source::Local, directory: Some(directory.into()) }
    }

    /// `CLONE INSTANCE` with the account that [`make_donor`] creates.
    pub fn instance(donor: &Mysqld) -> Self {
        Self::instance_at(&donor.address().to_string(), donor.port(), donor_account())
    }

    /// `CLONE INSTANCE` from any address.
    pub fn instance_at(host: &str, port: u16, account: Account) -> Self {
        let source = Source::Instance { account, host: host.into(), port, tls: Tls::default() };
        Self { source, directory: None }
    }

    /// Clones to a directory instead of replacing the recipient's data.
    pub fn into_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the `REQUIRE` clause. `CLONE LOCAL` has none.
    pub fn tls(mut self, clause: Tls) -> Self {
        if let Source::Instance { tls, .. } = &mut self.source {
            *tls = clause;
        }
        self
    }

    fn replaces_data(&self) -> bool {
        self.directory.is_none()
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clause = "";
        match &self.source {
            Source::Local => write!(f, "CLONE LOCAL")?,
            Source::Instance { account, host, port, tls } => {
                let (user, password) = (literal(&account.user), literal(&account.password));
                let host = literal(host);
                write!(f, "CLONE INSTANCE FROM {user}@{host}:{port} IDENTIFIED BY {password}")?;
                clause = match tls {
                    Tls::Disabled => " REQUIRE NO SSL",
                    Tls::Preferred => "",
                    Tls::Required => " REQUIRE SSL",
                };
            }
        }
        if let Some(directory) = &self.directory {
            write!(f, " DATA DIRECTORY = {}", literal(&directory.to_string_lossy()))?;
        }
        write!(f, "{clause}")
    }
}

/// The account that [`make_donor`] creates for recipients.
pub fn donor_account() -> Account {
    Account::new("clone_donor", "a 'quoted' secret")
}

/// Creates the donor's account, with BACKUP_ADMIN only.
pub fn make_donor(donor: &Mysqld) -> Result<()> {
    let Account { user, password } = donor_account();
    let user = literal(&user);
    donor.session()?.run_all([
        &*format!("CREATE USER {user} IDENTIFIED BY {}", literal(&password)),
        &*format!("GRANT BACKUP_ADMIN ON *.* TO {user}"),
    ])
}

/// Puts `donor`, and nobody else, on the recipient's list of valid donors.
pub fn allow_donor(recipient: &Mysqld, donor: &Mysqld) -> Result<()> {
    allow_address(recipient, &format!("{}:{}", donor.address(), donor.port()))
}

/// Sets the recipient's list of valid donors.
pub fn allow_address(recipient: &Mysqld, list: &str) -> Result<()> {
    recipient.session()?.run(format!("SET GLOBAL clone_valid_donor_list = {}", literal(list)))
}

/// Waits until the donor has given up all that it held for recipients, `limit` at most.
pub fn await_donor_idle(donor: &Mysqld, limit: Duration) -> Result<()> {
    crate::until("the donor to give the clone up", limit, || {
        Ok((recipients_at(donor)? == 0).then_some(()))
    })
}

/// How many connections of recipients the donor serves, or keeps for one to come back.
pub fn recipients_at(donor: &Mysqld) -> Result<u64> {
    let (count,) = donor
        .session()?
        .one("SELECT COUNT(*) FROM performance_schema.processlist WHERE COMMAND = 'Clone'")?;
    Ok(count)
}

/// A `CLONE` statement that runs in a thread of its own.
#[derive(Debug)]
pub struct Running {
    id: u32,
    thread: JoinHandle<Result<()>>,
}

impl Running {
    /// Starts the statement as root.
    pub fn start(recipient: &Mysqld, statement: &Statement) -> Result<Self> {
        Ok(Self::start_in(recipient.session()?, statement))
    }

    /// Starts the statement as root and waits until it is copying files.
    pub fn start_copying(recipient: &Mysqld, statement: &Statement) -> Result<Self> {
        let running = Self::start(recipient, statement)?;
        running.await_stage(recipient, "FILE COPY")?;
        Ok(running)
    }

    /// Starts the statement in a session, which it uses up.
    pub fn start_in(mut session: Session, statement: &Statement) -> Self {
        let statement = statement.to_string();
        let id = session.id();
        Self { id, thread: thread::spawn(move || session.run(statement)) }
    }

    /// The id of the session that runs the statement.
    pub fn session_id(&self) -> u32 {
        self.id
    }

    /// Sends `KILL QUERY`. The stock plugin notices it with the next block it receives, so not
    /// while the donor waits for a lock. Does nothing when the statement has ended.
    pub fn kill_query(&self, recipient: &Mysqld) -> Result<()> {
        self.kill_with("KILL QUERY", recipient)
    }

    /// Sends `KILL`, which breaks the connection to the donor. Does nothing when the statement has
    /// ended.
    pub fn kill(&self, recipient: &Mysqld) -> Result<()> {
        self.kill_with("KILL", recipient)
    }

    fn kill_with(&self, statement: &str, recipient: &Mysqld) -> Result<()> {
        match recipient.session()?.run(format!("{statement} {}", self.id)) {
            Err(error) if server_error(&error).is_some_and(|e| e.number == NO_SUCH_THREAD) => {
                Ok(())
            }
            result => result,
        }
    }

    /// Waits until the clone has come to the stage of this name.
    pub fn await_stage(&self, recipient: &Mysqld, name: &str) -> Result<()> {
        let mut monitor = recipient.session()?;
        crate::until(&format!("the stage {name}"), Duration::from_secs(60), || {
            let stages = progress(&mut monitor)?;
            let current = stages.iter().find(|stage| stage.name == name);
            let there = current.is_some_and(|stage| stage.state == "In Progress");
            if !there && self.is_finished() {
                bail!("the clone ended before the stage {name}");
            }
            Ok(there.then_some(()))
        })
    }

    /// Whether the statement has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the statement's end and returns its result.
    pub fn finish(self) -> Result<()> {
        self.thread.join().map_err(|_| anyhow!("the thread that ran CLONE panicked"))?
    }

    /// Waits for the end of a clone that must fail, and returns the server's error.
    pub fn failure(self) -> Result<SqlError> {
        match self.finish() {
            Ok(()) => bail!("the clone succeeded"),
            Err(error) => Ok(error.downcast()?),
        }
    }
}

/// A clone that succeeded.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long the statement took.
    pub elapsed: Duration,
    /// How long the recipient then took to end, start and recover. Zero for a clone to a directory.
    pub restart: Duration,
    /// The recipient's last `clone_progress`.
    pub stages: Vec<Stage>,
    /// The recipient's last `clone_status`.
    pub status: Status,
}

impl Report {
    /// Bytes of data copied in all stages.
    pub fn data(&self) -> u64 {
        self.stages.iter().map(|stage| stage.data).sum()
    }

    /// Bytes that came over the network in all stages.
    pub fn network(&self) -> u64 {
        self.stages.iter().map(|stage| stage.network).sum()
    }
}

/// Runs a clone to its end; when it replaces the recipient's data, starts the recipient again.
pub fn run(recipient: &mut Mysqld, statement: &Statement) -> Result<Report> {
    run_watched(recipient, statement, |_| {})
}

/// As [`run`]; shows the progress, read by a second session, ten times a second.
pub fn run_watched(
    recipient: &mut Mysqld,
    statement: &Statement,
    mut watch: impl FnMut(&[Stage]),
) -> Result<Report> {
    let begin = Instant::now();
    let mut monitor = recipient.session()?;
    let running = Running::start(recipient, statement)?;
    while !running.is_finished() {
        thread::sleep(Duration::from_millis(100));
        if let Err(interrupted) = go_on() {
            running.kill(recipient)?;
            // What the statement says about being killed does not matter.
            let _ = running.finish();
            return Err(interrupted);
        }
        // The server that replaced its data ends before we know that the statement has.
        if let Ok(stages) = progress(&mut monitor) {
            watch(&stages);
        }
    }
    let result = running.finish();
    let elapsed = begin.elapsed();
    let mut restart = Duration::ZERO;
    if statement.replaces_data() {
        if let Err(error) = result
            && !is_restart(&error)
        {
            return Err(error);
        }
        // A server that shuts down waits for its sessions to end.
        drop(monitor);
        let begin = Instant::now();
        recipient.await_restart()?;
        restart = begin.elapsed();
        monitor = recipient.session()?;
    } else {
        result?;
    }
    let stages = progress(&mut monitor)?;
    watch(&stages);
    let status = status(&mut monitor)?.context("clone_status is empty after a clone")?;
    Ok(Report { elapsed, restart, stages, status })
}

/// Whether a replacing clone ended as it should: the server said that nobody supervises it, or it
/// broke the connection because somebody does.
fn is_restart(error: &anyhow::Error) -> bool {
    server_error(error).is_none_or(|error| error.number == NO_SUPERVISOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_text() {
        let account = Account::new("u", "it's");
        let instance = Statement::instance_at("h", 3306, account);
        assert_eq!(instance.to_string(), "CLONE INSTANCE FROM 'u'@'h':3306 IDENTIFIED BY 'it''s'");
        assert_eq!(
            instance.into_directory(Path::new("/d")).tls(Tls::Required).to_string(),
            "CLONE INSTANCE FROM 'u'@'h':3306 IDENTIFIED BY 'it''s' DATA DIRECTORY = '/d' REQUIRE SSL"
        );
        let local = Statement::local(Path::new("/d"));
        assert_eq!(local.to_string(), "CLONE LOCAL DATA DIRECTORY = '/d'");
    }
}
