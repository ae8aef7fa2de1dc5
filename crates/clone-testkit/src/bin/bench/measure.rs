// SPDX-License-Identifier: GPL-2.0-only

//! What one clone takes of the machine: time, processor, memory, network.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Statement};
use clone_testkit::hosts::Host;
use clone_testkit::writer::Writers;
use clone_testkit::{Mysqld, Session};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;

/// One clone, measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// From sending the statement to its answer, seconds.
    pub(crate) wall: f64,
    /// User and system time of both servers, seconds.
    pub(crate) cpu: f64,
    /// Peak of the resident set above what it was before the clone, MiB: the larger of both
    /// servers.
    pub(crate) rss: f64,
    /// Bytes of data that were copied, MiB.
    pub(crate) data: f64,
    /// Bytes that crossed the network, MiB.
    pub(crate) network: f64,
    /// MiB per second that crossed the network in FILE COPY; 0 for a pull.
    pub(crate) file_copy: f64,
    /// Transactions per second that the donor's clients committed meanwhile, if there were any.
    pub(crate) transactions: f64,
    /// And in the seconds before.
    pub(crate) before: f64,
}

impl Sample {
    /// What the clone leaves of the donor's throughput.
    pub(crate) fn left(&self) -> f64 {
        if self.before == 0.0 { 0.0 } else { self.transactions / self.before }
    }
}

/// Runs the statement at `recipient` and measures it, and `donor`, if that is another server.
pub(crate) fn clone(
    recipient: &Mysqld,
    donor: Option<&Mysqld>,
    statement: &Statement,
    writers: Option<&Writers>,
) -> Result<Sample> {
    let mut session = recipient.session()?;
    let pids = [Some(recipient), donor].into_iter().flatten().map(Mysqld::pid);
    let pids = pids.collect::<Result<Vec<_>>>()?;
    let before = pids.iter().map(|pid| Process::begin(*pid)).collect::<Result<Vec<_>>>()?;
    let written = writers.map(|writers| writers.written().transactions);

    let begin = Instant::now();
    session.run(statement.to_string())?;
    let wall = begin.elapsed();

    let mut sample = Sample { wall: wall.as_secs_f64(), ..Sample::default() };
    for process in before {
        let (cpu, rss) = process.end()?;
        sample.cpu += cpu.as_secs_f64();
        sample.rss = sample.rss.max(rss);
    }
    if let (Some(writers), Some(before)) = (writers, written) {
        sample.transactions = (writers.written().transactions - before) as f64 / sample.wall;
    }
    (sample.data, sample.network, sample.file_copy) = volume(&mut session)?;
    Ok(sample)
}

/// Runs `mysql-clone pull` at the recipient's host and measures that process.
pub(crate) fn pull(
    tool: &Path,
    host: Option<&Host>,
    donor: &Mysqld,
    directory: &Path,
    compress: &str,
) -> Result<Sample> {
    let account = clone::donor_account();
    let mut command = Command::new(tool);
    command
        .arg("pull")
        .arg(format!("{}@{}:{}", account.user, donor.address(), donor.port()))
        .args(["--no-defaults", "--no-login-paths", "--ssl-mode=DISABLED", "--json"])
        .args(["--compress", compress, "--datadir"])
        .arg(directory);
    if let Some(host) = host {
        command = host.at(&command);
    }
    command.env("MYSQL_PWD", &account.password).stdout(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {}", tool.display()))?;
    let pid = child.id();
    let mut sample = Sample::default();
    let id = || WaitId::Pid(Pid::from_child(&child));
    // The process is not taken off before its times are read.
    let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(id(), flags)?.is_none() {
        if let Ok(peak) = memory(pid, "VmHWM:") {
            sample.rss = sample.rss.max(peak);
        }
        thread::sleep(Duration::from_millis(2));
    }
    sample.wall = begin.elapsed().as_secs_f64();
    sample.cpu = cpu(pid)?.as_secs_f64();
    let mut events = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut events)?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "{}: {status}\n{events}", tool.display());
    let report = events.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(report).context("the report")?;
    let mib = |name: &str| report["report"][name].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    (sample.data, sample.network) = (mib("bytes"), mib("network_bytes"));
    Ok(sample)
}

/// Transactions per second while nothing else happens, in some seconds.
pub(crate) fn transactions(writers: &Writers) -> f64 {
    const MOMENT: Duration = Duration::from_secs(5);
    let (begin, written) = (Instant::now(), writers.written().transactions);
    thread::sleep(MOMENT);
    (writers.written().transactions - written) as f64 / begin.elapsed().as_secs_f64()
}

/// MiB of data and on the network, and the network's MiB per second in FILE COPY, from
/// `clone_progress`.
fn volume(session: &mut Session) -> Result<(f64, f64, f64)> {
    let stages = clone::progress(session)?;
    let file_copy = clone::file_copy(&stages);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok((
        mib(stages.iter().map(|stage| stage.data).sum()),
        mib(stages.iter().map(|stage| stage.network).sum()),
        mib(file_copy.network) / file_copy.elapsed.unwrap_or_default().as_secs_f64(),
    ))
}

/// A server process at the beginning of a clone.
struct Process {
    pid: u32,
    cpu: Duration,
    rss: f64,
}

impl Process {
    /// Reads the counters, and makes the kernel count the peak of the resident set from here on
    /// (`proc(5)`, `clear_refs`).
    fn begin(pid: u32) -> Result<Self> {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak memory")?;
        Ok(Self { pid, cpu: cpu(pid)?, rss: memory(pid, "VmRSS:")? })
    }

    /// Processor time since the beginning, and MiB of memory at the peak.
    fn end(self) -> Result<(Duration, f64)> {
        let rss = memory(self.pid, "VmHWM:")? - self.rss;
        Ok((cpu(self.pid)?.saturating_sub(self.cpu), rss.max(0.0)))
    }
}

/// User and system time of all threads, the ended ones too. `/proc/PID/stat` counts in ticks of 10
/// ms, `/proc/PID/schedstat` is exact but of one thread: so ticks it is.
fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu(&stat).with_context(|| format!("no times in {path}"))
}

/// Fields 14 and 15, counted behind the program's name, which may hold anything but ends with the
/// last parenthesis.
fn parse_cpu(stat: &str) -> Option<Duration> {
    /// `USER_HZ`, which is 100 on all of Linux' ABIs that MySQL runs on.
    const TICKS_PER_SECOND: u64 = 100;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * (1000 / TICKS_PER_SECOND)))
}

/// A line of `/proc/PID/status`, in MiB.
fn memory(pid: u32, name: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib: u32 = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no {name} in {path}"))?;
    Ok(f64::from(kib) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (my) sqld (x) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu("12 (mysqld) S 1"), None);
    }
}
