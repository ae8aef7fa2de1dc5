// SPDX-License-Identifier: GPL-2.0-only

//! Child processes that do not outlive this one.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit,
    set_parent_process_death_signal,
};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts `command` so that the kernel kills it when this process dies, however that happens.
///
/// The kernel ties that signal to the thread that started the child. So all children are started by
/// one thread, which lives as long as the process. The child gets a process group of its own: a
/// Ctrl-C in the terminal reaches only us, and we shut the servers down in order.
pub(crate) fn spawn(mut command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();

    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and makes only one system call, prctl, which
    // takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The one who asked waits for the answer; it cannot be gone.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let program = command.get_program().to_owned();
    let (answer, result) = channel();
    spawner.send((command, answer)).map_err(|_| anyhow!("the spawner thread is gone"))?;
    result.recv()?.with_context(|| format!("start {}", program.display()))
}

/// Waits up to `limit` for `child` to end. `None` when it still runs.
pub(crate) fn wait_exit(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end. What it says if it fails is part of the error.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {name}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}, {}", output.status, text.trim());
    Ok(())
}

/// Sends `signal` to a child that has not been waited for yet, so that its pid cannot be another's.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(child), signal)
        .with_context(|| format!("send {signal:?} to process {}", child.id()))
}

/// Sets how many files a child that has not been waited for may have open.
pub(crate) fn limit_open_files(child: &Child, limit: u64) -> Result<()> {
    // Its maximum is our own, unless it has changed that.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limits = Rlimit { current: Some(limit), maximum };
    let before = prlimit(Some(Pid::from_child(child)), Resource::Nofile, limits);
    before.map(drop).with_context(|| format!("limit the open files of process {}", child.id()))
}

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// Resident set size in KiB.
    pub rss_kib: u64,
    /// The largest resident set size that the process ever had, in KiB.
    pub peak_rss_kib: u64,
    /// Number of threads.
    pub threads: u64,
    /// Number of open file descriptors.
    pub descriptors: u64,
}

impl Usage {
    /// Reads the usage of process `pid` from `/proc`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        Self::parse(&status, descriptors)
            .with_context(|| format!("VmRSS, VmHWM or Threads missing in {path}"))
    }

    fn parse(status: &str, descriptors: u64) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            rss_kib: field("VmRSS:")?,
            peak_rss_kib: field("VmHWM:")?,
            threads: field("Threads:")?,
            descriptors,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn usage_is_parsed() {
        let status = "Name:\tmysqld\nVmHWM:\t  654321 kB\nVmRSS:\t  123456 kB\nThreads:\t41\n";
        let usage = Usage { rss_kib: 123_456, peak_rss_kib: 654_321, threads: 41, descriptors: 7 };
        assert_eq!(Usage::parse(status, 7), Some(usage));
        assert_eq!(Usage::parse("Name:\tmysqld\n", 7), None);
        assert!(Usage::of(std::process::id()).unwrap().rss_kib > 0);
    }

    #[test]
    fn child_outlives_the_thread_that_asked_for_it() {
        let start = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            spawn(command).unwrap()
        };
        let mut child = thread::spawn(start).join().unwrap();
        assert_eq!(wait_exit(&mut child, Duration::from_millis(100)).unwrap(), None);
        signal(&child, Signal::KILL).unwrap();
        assert!(wait_exit(&mut child, Duration::from_secs(5)).unwrap().is_some());
    }
}
