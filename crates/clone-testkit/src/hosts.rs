// SPDX-License-Identifier: GPL-2.0-only

//! Two machines on this one: two network namespaces, and a cable between them.
//!
//! A server that is started at a [`Host`] has that host's address only. Neither server can reach
//! the other one by loopback or by an abstract Unix socket, as between two machines. They do share
//! the file system; that is how the test talks to them, by their Unix sockets.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process;

/// The name of each host's end of the cable.
const DEVICE: &str = "eth0";

/// One of two machines. The namespace lives until the last clone of this and the last server at it
/// are gone.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Arc<Namespace>,
    address: Ipv4Addr,
}

/// A process that does nothing but live in a network namespace of its own.
#[derive(Debug)]
struct Namespace {
    holder: Child,
}

/// Makes two hosts that reach each other.
///
/// # Errors
/// What keeps this machine from having them: no right to make namespaces (root has it, mostly), no
/// `ip` (Debian's iproute2), or no veth in the kernel.
pub fn pair() -> Result<[Host; 2]> {
    let host = |last| -> Result<Host> {
        let namespace = Arc::new(Namespace::new()?);
        Ok(Host { namespace, address: Ipv4Addr::new(192, 0, 2, last) })
    };
    let hosts = [host(1)?, host(2)?];
    let [one, other] = &hosts;
    let other_pid = other.namespace.holder.id().to_string();
    one.run(&[
        "ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", &other_pid,
    ])?;
    for host in &hosts {
        host.run(&["ip", "address", "add", &format!("{}/24", host.address), "dev", DEVICE])?;
        for device in ["lo", DEVICE] {
            host.run(&["ip", "link", "set", device, "up"])?;
        }
    }
    Ok(hosts)
}

impl Host {
    /// The address by which the other host reaches this one.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Lets no more than `mbit` million bits per second leave this host. 0: no limit.
    ///
    /// # Errors
    /// No `tc`, or no token bucket filter in the kernel.
    pub fn limit(&self, mbit: u32) -> Result<()> {
        if mbit == 0 {
            // `tc` knows no "delete if there is one".
            return self.run(&["tc", "qdisc", "replace", "dev", DEVICE, "root", "pfifo"]);
        }
        let rate = format!("{mbit}mbit");
        // A burst is what the rate makes in a hundredth of a second, and at least some packets.
        let burst = (mbit * 1250).max(64 << 10).to_string();
        self.run(&[
            "tc", "qdisc", "replace", "dev", DEVICE, "root", "tbf", "rate", &rate, "burst", &burst,
            "latency", "100ms",
        ])
    }

    /// Moves this thread to this host: its new sockets are there.
    ///
    /// # Errors
    /// The host is gone, or this process may not.
    pub fn enter(&self) -> Result<()> {
        let namespace = fs::File::open(self.namespace.path())?;
        let kind = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
    }

    /// The command, run at this host.
    pub fn at(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("nsenter");
        wrapped.arg(format!("--net={}", self.namespace.path().display())).arg("--");
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    fn run(&self, command: &[&str]) -> Result<()> {
        let mut inner = Command::new(command[0]);
        inner.args(&command[1..]);
        process::succeed(&mut self.at(&inner)).with_context(|| command.join(" "))
    }
}

impl Namespace {
    fn new() -> Result<Self> {
        // The one that says why not.
        process::succeed(Command::new("unshare").args(["--net", "--", "true"]))?;
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sleep", "infinity"]).stdin(Stdio::null());
        let namespace = Self { holder: process::spawn(command)? };
        let own = fs::read_link("/proc/self/ns/net")?;
        crate::until("a network namespace", Duration::from_secs(10), || {
            let theirs = fs::read_link(namespace.path())?;
            Ok((theirs != own).then_some(()))
        })?;
        Ok(namespace)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It has nothing to lose, and may be gone.
        let _ = process::signal(&self.holder, Signal::KILL);
        let _ = self.holder.wait();
    }
}
