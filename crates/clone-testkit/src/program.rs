// SPDX-License-Identifier: GPL-2.0-only

//! The program `mysql-clone`, and `mysql-clone serve` as it runs.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use crate::process;
use crate::server::workspace;
use crate::sql::Account;

/// How long the program may take to say something.
const SAY_LIMIT: Duration = Duration::from_secs(60);

/// Where the program is: `$MYSQL_CLONE_PROGRAM`, or else a build of the checkout as it stands.
pub fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("no program mysql-clone: {error}"))
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(program) = env::var_os("MYSQL_CLONE_PROGRAM") {
        let program = PathBuf::from(program);
        return fs::canonicalize(&program)
            .with_context(|| format!("find MYSQL_CLONE_PROGRAM '{}'", program.display()));
    }
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "-p", "clone-cli", "--target-dir"])
        .arg(&target)
        .current_dir(workspace())
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "cargo build failed with {status}");
    let program = target.join("release/mysql-clone");
    fs::canonicalize(&program).with_context(|| format!("find {}", program.display()))
}

/// A directory that `mysql-clone serve` serves, at a port of its own of 127.0.0.1. Dropping it ends
/// the program.
#[derive(Debug)]
pub struct Served {
    child: Child,
    port: u16,
    lines: Vec<String>,
    log: Arc<Mutex<String>>,
}

impl Served {
    /// Serves `directory`, and waits until recipients can connect.
    pub fn start(directory: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Self::spawn(directory, "127.0.0.1:0", arguments)?;
        let log = Arc::<Mutex<String>>::default();
        collect(&mut child, &log)?;
        let lines = child.stdout.take().map(lines).context("no standard output")?;
        let mut served = Self { child, port: 0, lines: Vec::new(), log };
        loop {
            let Ok(line) = lines.recv_timeout(SAY_LIMIT) else {
                bail!("mysql-clone serve does not serve: {}", served.log());
            };
            if let Some(address) = line.strip_prefix("Address: 127.0.0.1:") {
                served.port = address.parse().context("the address")?;
            }
            let is_last = line.starts_with("Certificate SHA-256: ");
            served.lines.push(line);
            if is_last {
                return Ok(served);
            }
        }
    }

    /// Runs the program where it is expected to refuse, and returns how it ended and what it said.
    pub fn refusal(directory: &Path, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let mut child = Self::spawn(directory, "127.0.0.1:0", arguments)?;
        let log = Arc::<Mutex<String>>::default();
        let reader = collect(&mut child, &log)?;
        let Some(status) = process::wait_exit(&mut child, SAY_LIMIT)? else {
            process::signal(&child, Signal::KILL)?;
            bail!("mysql-clone serve did not refuse: {}", text(&log));
        };
        let _ = reader.join();
        Ok((status, text(&log)))
    }

    fn spawn(directory: &Path, bind: &str, arguments: &[&str]) -> Result<Child> {
        let Account { user, password } = Self::account();
        let mut command = Command::new(program()?);
        command
            .arg("serve")
            .arg("--datadir")
            .arg(directory)
            .args(["--bind", bind, "--user", &user])
            .args(arguments)
            .env("MYSQL_CLONE_PASSWORD", password)
            .env("RUST_LOG", env::var_os("RUST_LOG").unwrap_or_else(|| "info".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        process::spawn(command)
    }

    /// The account that recipients use.
    pub fn account() -> Account {
        Account::new("cold_donor", "a 'quoted' secret")
    }

    /// Where recipients connect to, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the program said when it began.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What the program has logged.
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// The program's process, for `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the program to end, as systemd does, and waits for that.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        process::signal(&self.child, Signal::TERM)?;
        self.wait()
    }

    /// Waits for the program to end by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let status = process::wait_exit(&mut self.child, SAY_LIMIT)?;
        status.with_context(|| format!("mysql-clone serve does not end: {}", self.log()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = process::signal(&self.child, Signal::KILL);
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("mysql-clone serve said:\n{}", self.log());
        }
    }
}

fn text(log: &Mutex<String>) -> String {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Keeps what a child writes to standard error.
fn collect(child: &mut Child, log: &Arc<Mutex<String>>) -> Result<thread::JoinHandle<()>> {
    let errors = child.stderr.take().context("no standard error")?;
    let log = Arc::clone(log);
    Ok(thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    }))
}

/// The lines that a child writes.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens after the first lines.
            let _ = sender.send(line);
        }
    });
    receiver
}
