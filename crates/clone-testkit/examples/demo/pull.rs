// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull`, the program beside the plugin: a clone without a server at the recipient's
//! end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clone_testkit::Mysqld;
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{Report, Status, donor_account};
use serde_json::Value;

use crate::display::{line, mib};

/// What a clone took.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Seconds until the data were there.
    pub(crate) seconds: f64,
    /// Bytes of data.
    pub(crate) bytes: u64,
    /// Seconds for the restart of a recipient whose data were replaced.
    pub(crate) restart: Option<f64>,
}

impl From<&Report> for Measured {
    fn from(report: &Report) -> Self {
        let restart = report.restart.as_secs_f64();
        Self {
            seconds: report.elapsed.as_secs_f64(),
            bytes: report.data(),
            restart: (restart > 0.0).then_some(restart),
        }
    }
}

/// Pulls into the directory. The program shows its progress itself.
pub(crate) fn pull(tool: &Path, donor: &Mysqld, directory: &Path) -> Result<Measured> {
    let account = donor_account();
    let address = format!("{}@{}:{}", account.user, donor.address(), donor.port());
    line(&format!("$ mysql-clone pull {address} --datadir {}", directory.display()));
    let begin = Instant::now();
    let status = Command::new(tool)
        .args(["pull", &address, "--no-defaults", "--datadir"])
        .arg(directory)
        .env("MYSQL_PWD", account.password)
        .status()
        .with_context(|| format!("run {}", tool.display()))?;
    ensure!(status.success(), "mysql-clone pull: {status}");
    let seconds = begin.elapsed().as_secs_f64();
    let report: Value = serde_json::from_slice(&fs::read(directory.join("mysql-clone.json"))?)?;
    let bytes = report["bytes"].as_u64().context("the report has no bytes")?;
    line(&format!("{:10} {seconds:6.2} s {:6.0} MiB", "pulled", mib(bytes)));
    Ok(Measured { seconds, bytes, restart: None })
}

/// Checks the files with the program, before a server has opened them.
pub(crate) fn verify(tool: &Path, directory: &Path) -> Result<()> {
    line(&format!("$ mysql-clone verify {}", directory.display()));
    let status = Command::new(tool).arg("verify").arg(directory).status()?;
    ensure!(status.success(), "mysql-clone verify: {status}");
    Ok(())
}

/// Where the clone stands, as a server on it says before anything was written.
pub(crate) fn status(server: &Mysqld) -> Result<Status> {
    let gtid_executed = server.session()?.one("SELECT @@GLOBAL.gtid_executed")?;
    Ok(Status { gtid_executed, ..Status::default() })
}
