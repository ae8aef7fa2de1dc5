// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull` from a donor that is hard to reach, that is gone, or that lies. A proxy is
//! between both.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use clone_protocol::Response;
use clone_protocol::innodb::{Data, Descriptor, FileMetadata, State};
use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::proxy::rewrite::Sent;
use clone_testkit::proxy::{How, Proxy, Target};
use clone_testkit::server::Server;
use clone_testkit::verify::Fingerprint;
use clone_testkit::{Mysqld, Plugin, check, clone, dataset, until};
use support::{Tool, boot, holds};

fn donor() -> Result<Mysqld> {
    let donor = Mysqld::builder().name("donor").plugin(Plugin::Stock).start()?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    Ok(donor)
}

/// A pull over the proxy. Without TLS the proxy can read what passes.
fn pull(proxy: &Proxy, directory: &Path) -> Tool {
    let address = format!("clone_donor@127.0.0.1:{}", proxy.port());
    Tool::new(["pull", &address, "--ssl-mode=DISABLED", "--datadir"]).arg(directory)
}

/// Waits until data have arrived.
fn await_data(directory: &Path) -> Result<()> {
    until("data", Duration::from_secs(60), || {
        let journal = fs::metadata(directory.join(".mysql-clone/journal"));
        Ok(journal.is_ok_and(|journal| journal.len() > 10_000).then_some(()))
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The network is gone for some seconds: the pull says so, and goes on.
#[test]
fn a_network_failure_is_survived() {
    check(|| {
        let donor = donor()?;
        let expected = Fingerprint::read(&mut donor.session()?)?;
        let proxy = Proxy::to(donor.port())?;
        let directory = donor.scratch("pulled");
        let child = pull(&proxy, &directory).args(["--max-rate", "30"]).start()?;
        await_data(&directory)?;
        proxy.refuse_for(Duration::from_secs(7))?;
        proxy.cut(Target::All, How::Reset);
        let output = child.wait_with_output()?;
        let said = stderr(&output);
        ensure!(output.status.success(), "{said}");
        ensure!(said.contains("Trying again every 5 seconds, for 5 minutes"), "{said}");
        ensure!(said.contains("connected again"), "{said}");
        holds(&boot(Server::locate()?, &directory, &[])?, &expected)
    });
}

/// The donor is gone for longer than it keeps the clone: an exit code of its own, and nothing is
/// left.
#[test]
fn a_donor_that_stays_away() {
    check(|| {
        let donor = donor()?;
        donor.session()?.run("SET GLOBAL clone_donor_timeout_after_network_failure = 0")?;
        let proxy = Proxy::to(donor.port())?;
        let directory = donor.scratch("pulled");
        let child = pull(&proxy, &directory).args(["--max-rate", "30"]).start()?;
        await_data(&directory)?;
        proxy.refuse(true)?;
        proxy.cut(Target::All, How::Reset);
        let output = child.wait_with_output()?;
        ensure!(output.status.code() == Some(4), "{output:?}");
        ensure!(!directory.exists(), "something is left");
        pull(&proxy, &directory).run()?.fails(4, "Can't connect")
    });
}

/// A donor that lies gets an error of the protocol. Nothing is written outside of the directory,
/// and nothing is left in it.
#[test]
fn a_donor_that_lies() {
    check(|| {
        let donor = donor()?;
        let proxy = Proxy::to(donor.port())?;
        let directory = donor.scratch("pulled");
        let outside = donor.scratch("evil.ibd");
        for lie in [Lie::NameAbove, Lie::NameOfAnotherKind, Lie::ManyFiles, Lie::FarBlock] {
            proxy.reset()?;
            proxy.rewrite(move |sent| lie.tell(sent));
            pull(&proxy, &directory).run()?.fails(1, "Wrong Clone RPC")?;
            ensure!(!directory.exists(), "{lie:?}: something is left");
            ensure!(!outside.exists(), "{lie:?}: a file outside of the directory");
            clone::await_donor_idle(&donor, Duration::from_secs(30))?;
        }
        proxy.reset()?;
        pull(&proxy, &directory).run()?.ok()?;
        Ok(())
    });
}

#[derive(Clone, Copy, Debug)]
enum Lie {
    /// A file in a directory above the target.
    NameAbove,
    /// A name that tablespaces do not have.
    NameOfAnotherKind,
    /// More files than there is memory for.
    ManyFiles,
    /// A block at the end of what a file can hold.
    FarBlock,
}

impl Lie {
    fn tell(self, sent: &Sent<'_>) -> Option<Vec<u8>> {
        let Response::DataDescriptor { db_type, locator_index, descriptor } = sent.response else {
            return None;
        };
        let lie = match (self, Descriptor::parse(descriptor).ok()?) {
            (Self::NameAbove, Descriptor::FileMetadata(file)) if is_table(&file) => {
                Descriptor::FileMetadata(FileMetadata { name: b"./shop/../../evil.ibd", ..file })
            }
            (Self::NameOfAnotherKind, Descriptor::FileMetadata(file)) if is_table(&file) => {
                Descriptor::FileMetadata(FileMetadata { name: b"./shop/mysqld-auto.cnf", ..file })
            }
            (Self::ManyFiles, Descriptor::State(state)) if state.start => {
                Descriptor::State(State { files: u32::MAX, ..state })
            }
            (Self::FarBlock, Descriptor::Data(data)) => {
                Descriptor::Data(Data { file_offset: u64::MAX - 5, ..data })
            }
            _ => return None,
        };
        let mut bytes = Vec::new();
        lie.encode(&mut bytes);
        let mut packet = Vec::new();
        Response::DataDescriptor { db_type, locator_index, descriptor: &bytes }.encode(&mut packet);
        Some(packet)
    }
}

fn is_table(file: &FileMetadata<'_>) -> bool {
    file.name.starts_with(b"./shop/")
}
