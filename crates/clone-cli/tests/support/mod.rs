// SPDX-License-Identifier: GPL-2.0-only

//! Runs the program under test against real servers.

#![allow(dead_code, unreachable_pub, reason = "not all tests use all of it")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use clone_testkit::anyhow::{Context, Result, bail, ensure};
use clone_testkit::clone::Status;
use clone_testkit::program::Served;
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::server::Server;
use clone_testkit::sql::Account;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::writer::Writers;
use clone_testkit::{Mysqld, Plugin, clone};
use serde_json::Value;

/// A run of `mysql-clone`.
pub(crate) struct Tool {
    command: Command,
    password: String,
}

/// What a run has left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tool {
    pub(crate) fn new(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mysql-clone"));
        command.args(arguments).stdin(Stdio::null());
        Self { command, password: clone::donor_account().password }
    }

    /// A pull from this donor into `directory`.
    pub(crate) fn pull(donor: &Mysqld, directory: &Path) -> Self {
        Self::pull_as(&clone::donor_account(), donor, directory)
    }

    pub(crate) fn pull_as(account: &Account, donor: &Mysqld, directory: &Path) -> Self {
        let address = format!("{}@{}:{}", account.user, donor.address(), donor.port());
        Self::pull_at(&address, account, directory)
    }

    /// A pull from `mysql-clone serve` into `directory`.
    pub(crate) fn pull_served(served: &Served, directory: &Path) -> Self {
        let account = Served::account();
        let address = format!("{}@127.0.0.1:{}", account.user, served.port());
        Self::pull_at(&address, &account, directory)
    }

    fn pull_at(address: &str, account: &Account, directory: &Path) -> Self {
        let tool = Self::new(["pull", address, "--datadir"]).arg(directory);
        Self { password: account.password.clone(), ..tool }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Runs the program to its end.
    pub(crate) fn run(mut self) -> Result<Outcome> {
        let output = self.command.env("MYSQL_PWD", &self.password).output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        ensure!(!(stdout.clone() + &stderr).contains(&self.password), "the password was shown");
        Ok(Outcome { status: output.status, stdout, stderr })
    }

    /// Starts the program.
    pub(crate) fn start(mut self) -> Result<Child> {
        let command = self.command.env("MYSQL_PWD", &self.password);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }
}

impl Outcome {
    /// The run has succeeded.
    pub(crate) fn ok(self) -> Result<Self> {
        ensure!(self.status.success(), "{}\n{}", self.stdout, self.stderr);
        Ok(self)
    }

    /// The run has failed with this exit code, and with a message that holds `text`.
    pub(crate) fn fails(&self, code: i32, text: &str) -> Result<()> {
        ensure!(self.status.code() == Some(code), "{code} expected: {self:?}");
        ensure!(self.stderr.contains(text), "'{text}' expected: {}", self.stderr);
        Ok(())
    }

    /// The events of a run with `--json`.
    pub(crate) fn events(&self) -> Result<Vec<Value>> {
        self.stdout.lines().map(|line| serde_json::from_str(line).context("an event")).collect()
    }

    /// The report of a run with `--json`.
    pub(crate) fn report(&self) -> Result<Value> {
        let last = self.events()?.pop().context("no event")?;
        ensure!(last["event"] == "done", "{last}");
        Ok(last["report"].clone())
    }
}

/// A program that starts a server as `mysqld` does, for `--prepare`.
pub(crate) fn mysqld_program(server: &Server, directory: &Path) -> Result<PathBuf> {
    let command = server.command();
    let quote = |text: &OsStr| format!("'{}'", text.to_string_lossy());
    let mut before = vec![quote(command.get_program())];
    let mut behind = Vec::new();
    let mut is_behind = false;
    for argument in command.get_args() {
        if argument == "--defaults-file=/dev/null" {
            is_behind = true;
        } else if is_behind {
            behind.push(quote(argument));
        } else {
            before.push(quote(argument));
        }
    }
    let text = format!(
        "#!/bin/sh\nfirst=$1; shift\nexec {} \"$first\" {} \"$@\"\n",
        before.join(" "),
        behind.join(" ")
    );
    let path = directory.join("mysqld");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Starts a server on the copy.
pub(crate) fn boot(server: &'static Server, directory: &Path, options: &[&str]) -> Result<Mysqld> {
    let mut builder =
        Mysqld::builder().name("copy").server(server).plugin(Plugin::Stock).adopt(directory);
    for option in options {
        builder = builder.option(*option);
    }
    builder.start()
}

/// A server on the copy holds what is expected.
pub(crate) fn holds(copy: &Mysqld, expected: &Fingerprint) -> Result<()> {
    let found = Fingerprint::read(&mut copy.session()?)?;
    let differences = expected.differences(&found);
    if differences.is_empty() { Ok(()) } else { bail!("{}", differences.join("\n")) }
}

/// The copy boots, holds what is expected, and is sound.
pub(crate) fn is_whole(
    server: &'static Server,
    directory: &Path,
    expected: &Fingerprint,
) -> Result<()> {
    let copy = boot(server, directory, &[])?;
    holds(&copy, expected)?;
    verify::assert_sound(&copy)
}

/// Proves that a server on the copy is the donor at the coordinates of the report of `--prepare`.
pub fn is_exact(copy: &Mysqld, donor: &Mysqld, report: &Value, writers: Writers) -> Result<()> {
    let coordinates = &report["coordinates"];
    let text = |name: &str| coordinates[name].as_str().map(str::to_owned).context("a text");
    let status = Status {
        gtid_executed: text("gtid_executed")?,
        binlog_file: text("binlog_file")?,
        binlog_position: coordinates["binlog_position"].as_u64().context("a position")?,
        ..Status::default()
    };
    // During DDL the position in the binary log and the GTIDs can disagree, whatever the plugin.
    if !writers.has_ddl() {
        replica::check_coordinates(donor, &status)?;
    }
    replica::assert_exact(copy, donor, writers, &status, StartFrom::Gtid)
}
