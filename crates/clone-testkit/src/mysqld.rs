// SPDX-License-Identifier: GPL-2.0-only

//! One running mysqld with a data directory, socket and port of its own.

mod builder;
mod failures;

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::hosts::Host;
use crate::plugin::Plugin;
use crate::process::{self, Usage};
use crate::server::{Server, option};
use crate::sql::{Account, Session};

pub use builder::Builder;
pub use failures::check;

/// How long a start may take; recovery of a clone is part of it.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long each step of stopping may take: SHUTDOWN, then SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The status with which mysqld asks its supervisor to start it again (`MYSQLD_RESTART_EXIT`).
const RESTART_EXIT: i32 = 16;
/// How often a start is tried again: another process took the port, or the server asked for it.
const START_ATTEMPTS: usize = 5;

/// One instance. Dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Mysqld {
    server: &'static Server,
    /// Also tells the instances apart in messages.
    name: String,
    dir: TempDir,
    data_dir: PathBuf,
    plugin: Plugin,
    options: Vec<String>,
    port: u16,
    host: Option<Host>,
    supervised: bool,
    keep: bool,
    child: Option<Child>,
    /// Bytes of the error log that earlier runs wrote.
    log_start: usize,
}

impl Mysqld {
    /// Describes an instance to start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The name given to the builder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address by which other servers reach it: 127.0.0.1, or that of its [`Host`].
    pub fn address(&self) -> Ipv4Addr {
        self.host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::address)
    }

    /// The TCP port. It may change when the server is started again and another process
    /// took it meanwhile.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The binaries it runs.
    pub fn server(&self) -> &'static Server {
        self.server
    }

    /// The plugin this server loads.
    pub fn plugin(&self) -> Plugin {
        self.plugin
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A path outside the data directory that is removed with the instance.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch("sock")
    }

    /// Connects as root.
    pub fn session(&self) -> Result<Session> {
        self.session_as(&Account::root())
    }

    /// Connects as `account`.
    pub fn session_as(&self, account: &Account) -> Result<Session> {
        Session::connect(&self.socket(), account)
            .with_context(|| format!("connect to {} as {}", self.name, account.user))
    }

    /// Loads the plugin of this instance with `INSTALL PLUGIN`.
    pub fn install_plugin(&self) -> Result<()> {
        let file = self.plugin.file_name().context("this instance has no clone plugin")?;
        self.session()?.run(format!("INSTALL PLUGIN clone SONAME '{file}'"))
    }

    /// The server's process, for `/proc`.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child()?.id())
    }

    /// Memory, threads and open files of the server process.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child()?.id())
    }

    /// Sets how many files the server may have open from now on, until it is started again.
    pub fn limit_open_files(&self, limit: u64) -> Result<()> {
        process::limit_open_files(self.child()?, limit)
    }

    /// What the server wrote to its error log since it was last started.
    pub fn log(&self) -> Result<String> {
        let log = fs::read(self.log_file()).context("read the error log")?;
        Ok(String::from_utf8_lossy(log.get(self.log_start..).unwrap_or_default()).into_owned())
    }

    /// Adds an option, which takes effect at the next start.
    pub fn add_option(&mut self, option: &str) {
        self.options.push(option.into());
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        self.ensure_stopped()?;
        for _ in 0..START_ATTEMPTS {
            self.log_start = match fs::metadata(self.log_file()) {
                Ok(metadata) => usize::try_from(metadata.len())?,
                Err(error) if error.kind() == ErrorKind::NotFound => 0,
                Err(error) => return Err(error.into()),
            };
            let mut child = process::spawn(self.command())?;
            let Some(status) = self.wait_ready(&mut child)? else {
                self.child = Some(child);
                return Ok(());
            };
            let log = self.log().unwrap_or_default();
            if log.contains("Bind on TCP/IP port: Address already in use") {
                self.port = builder::free_port()?;
            } else if !(self.supervised && status.code() == Some(RESTART_EXIT)) {
                bail!("{} did not start: {status}\n{}", self.name, failures::tail(&log));
            }
        }
        bail!("{} did not start in {START_ATTEMPTS} attempts", self.name)
    }

    fn ensure_stopped(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            Some(status) => bail!("{} has ended by itself: {status}", self.name),
            None => bail!("{} is running already", self.name),
        }
    }

    /// Starts the server, and ends it after `time` as a crash would, whether it answers by then or
    /// not. Does nothing more if the server has ended by itself.
    pub fn start_and_kill(&mut self, time: Duration) -> Result<()> {
        self.start_and_signal(time, Signal::KILL)
    }

    /// As [`start_and_kill`](Self::start_and_kill), with SIGTERM.
    pub fn start_and_terminate(&mut self, time: Duration) -> Result<()> {
        self.start_and_signal(time, Signal::TERM)
    }

    fn start_and_signal(&mut self, time: Duration, signal: Signal) -> Result<()> {
        self.ensure_stopped()?;
        let child = self.child.insert(process::spawn(self.command())?);
        if process::wait_exit(child, time)?.is_none() {
            process::signal(child, signal)?;
        }
        self.await_exit().map(|_| ())
    }

    /// Stops all threads of the server (SIGSTOP): to its peers the server is silent, and its
    /// connections stay open.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a [frozen](Self::freeze) server go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.child.as_ref().context("the server does not run")?, signal)
    }

    /// Stops the server in order, or by force when it does not listen. Does nothing when it does
    /// not run. Fails when the server had to be killed or did not end cleanly.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let status = match process::wait_exit(&mut child, Duration::ZERO)? {
            Some(status) => status,
            None => self.shut_down(&mut child)?,
        };
        ensure!(
            status.success(),
            "{} ended with {status}\n{}",
            self.name,
            failures::tail(&self.log().unwrap_or_default())
        );
        Ok(())
    }

    /// Stops and starts the server.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Ends the server as a crash would, with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        process::signal(&child, Signal::KILL)?;
        child.wait()?;
        Ok(())
    }

    /// Asks the server to end with SIGTERM, as a service manager does.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Does what a supervisor does after `CLONE INSTANCE` replaced the data: waits for the server
    /// to end by itself and starts it again.
    ///
    /// A server without supervisor shuts down (error 3707); one with a supervisor exits with
    /// status 16.
    pub fn await_restart(&mut self) -> Result<()> {
        let status = self.await_exit()?;
        let expected = if self.supervised { RESTART_EXIT } else { 0 };
        ensure!(
            status.code() == Some(expected),
            "{} ended with {status} after its data was replaced\n{}",
            self.name,
            failures::tail(&self.log().unwrap_or_default())
        );
        self.start()
    }

    /// Waits for the server to end by itself.
    pub fn await_exit(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("the server does not run")?;
        let status = process::wait_exit(child, START_LIMIT)?
            .with_context(|| format!("{} does not end by itself", self.name))?;
        self.child = None;
        Ok(status)
    }

    /// Whether the server runs.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    fn child(&self) -> Result<&Child> {
        self.child.as_ref().context("the server does not run")
    }

    fn log_file(&self) -> PathBuf {
        self.scratch("error.log")
    }

    fn command(&self) -> Command {
        let mut command = self.server.command();
        if let Some(host) = &self.host {
            command = host.at(&command);
        }
        command
            .arg(format!("--bind-address={}", self.address()))
            .arg(option("datadir", &self.data_dir))
            .arg(option("plugin-dir", &self.scratch("plugin")))
            .arg(option("tmpdir", &self.scratch("tmp")))
            .arg(option("socket", &self.socket()))
            .arg(option("pid-file", &self.scratch("pid")))
            .arg(option("log-error", &self.log_file()))
            .arg(format!("--port={}", self.port))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_remove("MYSQLD_PARENT_PID");
        if self.supervised {
            command.env("MYSQLD_PARENT_PID", std::process::id().to_string());
        }
        command
    }

    /// `None` when the server answers, its exit status when it ended.
    fn wait_ready(&self, child: &mut Child) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = process::wait_exit(child, Duration::from_millis(20))? {
                return Ok(Some(status));
            }
            match Session::connect(&self.socket(), &Account::root()) {
                Ok(_) => return Ok(None),
                // The server answered, only not as we would like: a clone brought other accounts.
                Err(mysql::Error::MySqlError(error)) if error.code == 1045 => return Ok(None),
                Err(error) if Instant::now() >= deadline => {
                    process::signal(child, Signal::KILL)?;
                    child.wait()?;
                    let log = self.log().unwrap_or_default();
                    bail!("{} does not answer: {error}\n{}", self.name, failures::tail(&log));
                }
                Err(_) => {}
            }
        }
    }

    fn shut_down(&self, child: &mut Child) -> Result<ExitStatus> {
        if let Ok(mut session) = self.session() {
            // The connection may break before the answer arrives.
            let _ = session.run("SHUTDOWN");
            if let Some(status) = process::wait_exit(child, STOP_LIMIT)? {
                return Ok(status);
            }
        }
        for signal in [Signal::TERM, Signal::KILL] {
            process::signal(child, signal)?;
            if let Some(status) = process::wait_exit(child, STOP_LIMIT)? {
                return Ok(status);
            }
        }
        bail!("{} does not end, not even after SIGKILL", self.name)
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        // A test may have failed while the server was frozen.
        let _ = self.thaw();
        if !self.keep
            && self.child.is_some()
            && let Ok(mut session) = self.session()
        {
            // Nobody will read the data again: do not write out what has changed. If this fails,
            // the server only takes longer.
            let _ = session.run("SET GLOBAL innodb_fast_shutdown = 2");
        }
        let stopped = self.stop();
        failures::leave(self, stopped);
    }
}
