// SPDX-License-Identifier: GPL-2.0-only

//! Starts a server once on the copy, alone and without network, so that it recovers the data and
//! tells the replication coordinates.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clone_classic::{Address, ConnectOptions, Connection, SslMode, TlsOptions};
use clone_core::recovery::Recovery;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use zeroize::Zeroizing;

use super::report::OPTION_FILE;
use crate::failure::{Failure, Kind, Result};
use crate::signals;

/// The server's socket and its error log, in the data directory. Hidden names, at which InnoDB does
/// not look.
const SOCKET: &str = ".mysql-clone-prepare.sock";
const LOG: &str = "mysql-clone-prepare.log";

/// The longest path of a Unix socket, in bytes, as mysqld takes it.
const MAX_SOCKET: usize = 103;

/// The longest wait for the end of the server, once it was told to end.
const SHUTDOWN: Duration = Duration::from_secs(600);

/// Time between two looks at the server.
const POLL: Duration = Duration::from_millis(100);

/// Where a replica of the donor begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Coordinates {
    /// The donor's binary log. None if the donor has no binary log.
    binlog_file: Option<String>,
    /// The position in it, bytes.
    binlog_position: u64,
    /// `gtid_executed`; may be empty.
    gtid_executed: String,
}

/// Runs the server until it has recovered the data.
///
/// # Errors
/// The server cannot be started, or cannot recover the data: see its log.
pub(super) fn run(mysqld: &Path, arguments: &[String], directory: &Path) -> Result<Coordinates> {
    let directory = fs::canonicalize(directory).map_err(|error| failed(&error))?;
    let log = directory.join(LOG);
    let link = socket_directory(&directory)?;
    let socket = link.as_ref().map_or(directory.as_path(), |link| link.path()).join(SOCKET);
    let mut server = Server { child: start(mysqld, arguments, &directory, &log)? };
    let outcome = server
        .wait_until_up(&socket, &log)
        .and_then(|mut connection| coordinates(&mut connection, &directory));
    let ended = server.stop(&log);
    let _ = fs::remove_file(directory.join(SOCKET));
    let coordinates = outcome?;
    ended?;
    Ok(coordinates)
}

fn start(mysqld: &Path, arguments: &[String], directory: &Path, log: &Path) -> Result<Child> {
    let output = || File::options().create(true).append(true).open(log);
    let (out, err) = (output().map_err(|error| failed(&error))?, output());
    let mut command = Command::new(mysqld);
    // The options of the copy come first: mysqld takes --defaults-file only there.
    command
        .arg(format!("--defaults-file={}", directory.join(OPTION_FILE).display()))
        .args(arguments)
        .args(["--skip-networking", "--skip-grant-tables", "--skip-log-bin"])
        .args(["--event-scheduler=OFF", "--loose-mysqlx=OFF", "--secure-file-priv=NULL"])
        // The name of 8.0.26 and later, and the one before.
        .args(["--loose-skip-replica-start", "--loose-skip-slave-start"])
        .arg(format!("--socket={SOCKET}"))
        .arg("--pid-file=.mysql-clone-prepare.pid")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err.map_err(|error| failed(&error))?);
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    command.spawn().map_err(|error| {
        Failure::new(Kind::Other, format!("cannot start '{}': {error}", mysqld.display()))
    })
}

/// A server of ours.
struct Server {
    child: Child,
}

impl Server {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Recovery may take long: there is no limit as long as the server runs.
    fn wait_until_up(&mut self, socket: &Path, log: &Path) -> Result<Connection> {
        signals::set_child(self.pid());
        let options = ConnectOptions {
            address: Address::Socket(socket.to_owned()),
            user: "root".to_owned(),
            password: Zeroizing::new(String::new()),
            tls: TlsOptions { mode: SslMode::Disabled, ..TlsOptions::default() },
            zstd_level: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            cancel: Arc::new(|| false),
        };
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(in_log(&format!("the server ended while it started ({status})"), log));
            }
            if let Ok(connection) = Connection::connect(&options) {
                return Ok(connection);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends the server in order.
    fn stop(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + SHUTDOWN;
        let mut is_told = false;
        let outcome = loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => break Ok(()),
                Ok(Some(status)) => {
                    break Err(in_log(&format!("the server failed ({status})"), log));
                }
                Err(error) => break Err(failed(&error)),
                Ok(None) if Instant::now() >= deadline => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break Err(in_log("the server did not end in 10 minutes", log));
                }
                Ok(None) => {}
            }
            if !is_told && let Some(pid) = self.pid() {
                is_told = kill_process(pid, Signal::TERM).is_ok();
            }
            std::thread::sleep(POLL);
        };
        signals::set_child(None);
        outcome
    }
}

/// A panic must not leave the server behind.
impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A shorter way to the data directory, if the path of the socket would be too long.
fn socket_directory(directory: &Path) -> Result<Option<ShortWay>> {
    let len = directory.join(SOCKET).as_os_str().len();
    if len <= MAX_SOCKET { Ok(None) } else { ShortWay::new(directory).map(Some) }
}

/// A symbolic link in the directory for temporary files.
struct ShortWay(std::path::PathBuf);

impl ShortWay {
    fn new(directory: &Path) -> Result<Self> {
        let link = std::env::temp_dir().join(format!("mysql-clone.{}", std::process::id()));
        std::os::unix::fs::symlink(directory, &link).map_err(|error| failed(&error))?;
        Ok(Self(link))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ShortWay {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn coordinates(connection: &mut Connection, directory: &Path) -> Result<Coordinates> {
    let notes = fs::read(directory.join("#clone").join("#status_recovery"));
    let notes = notes.map_err(|error| failed(&error))?;
    let recovery = Recovery::parse(&notes);
    if !recovery.has_succeeded() {
        return Err(Failure::new(Kind::Other, "the server has started, but not recovered a clone"));
    }
    // A server that wrote no GTIDs beside knows them all the same.
    let gtid_executed = match recovery.gtid_executed {
        Some(set) => set,
        None => {
            let rows = connection.query("SELECT @@global.gtid_executed");
            let rows = rows.map_err(|error| Failure::new(Kind::Other, error.to_string()))?;
            rows.into_iter().flatten().flatten().next().unwrap_or_default()
        }
    };
    let binlog_file = recovery.binlog_file.map(|file| file.to_string());
    let binlog_file = binlog_file.filter(|file| !file.is_empty());
    Ok(Coordinates {
        binlog_file: binlog_file.map(|file| file.trim_start_matches("./").to_owned()),
        binlog_position: recovery.binlog_position.unwrap_or(0),
        gtid_executed: gtid_executed.replace('\n', ""),
    })
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.binlog_file {
            Some(file) => writeln!(f, "  binary log   {file}, position {}", self.binlog_position)?,
            None => writeln!(f, "  binary log   none at the donor")?,
        }
        writeln!(f, "  GTIDs        {}", self.gtid_executed)
    }
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Disk, format!("cannot prepare the copy: {error}"))
}

fn in_log(what: &str, log: &Path) -> Failure {
    Failure::new(Kind::Other, format!("{what}. Its log is '{}'{}", log.display(), last_lines(log)))
}

/// The last errors of the server.
fn last_lines(log: &Path) -> String {
    const LINES: usize = 3;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let errors: Vec<_> = text.lines().filter(|line| line.contains("[ERROR]")).collect();
    let last = errors.len().saturating_sub(LINES);
    errors[last..].iter().map(|line| format!("\n  {line}")).collect()
}
