// SPDX-License-Identifier: GPL-2.0-only

//! A server that changes plugins between two starts: the one takes over what the other left behind,
//! the rows of `clone_status` and `clone_progress` and a clone that waits for its first start.
//!
//! With `MYSQL_CLONE_PLUGIN=stock` the stock plugin takes the place of ours too.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Running, STAGES, Stage, Statement, Status};
use clone_testkit::proxy::{Action, Point, Proxy, SnapshotState, Target};
use clone_testkit::verify::Fingerprint;
use clone_testkit::{Mysqld, Plugin, check, dataset, fixture, until};

/// No wait in these tests is longer.
const SOON: Duration = Duration::from_secs(60);
/// In the middle of FILE COPY.
const MIDDLE: Point = Point::Data { state: SnapshotState::FileCopy, bytes: 8 << 20 };
/// `ER_QUERY_INTERRUPTED`.
const INTERRUPTED: i64 = 1317;
/// `ER_CLONE_DONOR`.
const DONOR_ERROR: u16 = 3862;
/// `ER_RESTART_SERVER_FAILED`.
const NO_SUPERVISOR: u16 = 3707;

/// (the plugin that clones, the plugin that is loaded then)
fn turns() -> Result<[(Plugin, Plugin); 2]> {
    let ours = Plugin::under_test()?;
    Ok([(Plugin::Stock, ours), (ours, Plugin::Stock)])
}

/// The donor has the plugin under test.
fn start_donor() -> Result<(Mysqld, Proxy)> {
    let donor = fixture::server("donor")?.start()?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    let proxy = Proxy::to(donor.port())?;
    Ok((donor, proxy))
}

/// A server that can load either plugin.
struct Recipient {
    server: Mysqld,
    plugin: Plugin,
    port: u16,
}

impl Recipient {
    fn start(plugin: Plugin, proxy: &Proxy) -> Result<Self> {
        let server = Mysqld::builder()
            .name("recipient")
            .plugin(Plugin::under_test()?)
            .install_later()
            .option(load(plugin)?)
            .option(format!("--clone-valid-donor-list=127.0.0.1:{}", proxy.port()))
            .start()?;
        let recipient = Self { server, plugin, port: proxy.port() };
        recipient.check_plugin()?;
        Ok(recipient)
    }

    /// Starts the server, which has ended, with this plugin.
    fn start_with(&mut self, plugin: Plugin) -> Result<()> {
        self.plugin = plugin;
        self.server.add_option(&load(plugin)?);
        self.server.start()?;
        self.check_plugin()?;
        // Until then the stock plugin loses the GTIDs if somebody looks.
        let pending = self.server.data_dir().join("#clone/#replace_files");
        until("the server to know its GTIDs", SOON, || Ok((!pending.exists()).then_some(())))
    }

    fn restart_with(&mut self, plugin: Plugin) -> Result<()> {
        self.server.stop()?;
        self.start_with(plugin)
    }

    fn check_plugin(&self) -> Result<()> {
        let library: String = self.server.session()?.one(
            "SELECT PLUGIN_LIBRARY FROM information_schema.PLUGINS \
             WHERE PLUGIN_NAME = 'clone' AND PLUGIN_STATUS = 'ACTIVE'",
        )?;
        ensure!(Some(&*library) == self.plugin.file_name(), "{library} is loaded");
        Ok(())
    }

    fn statement(&self) -> Statement {
        Statement::instance_at("127.0.0.1", self.port, clone::donor_account())
            .tls(clone::Tls::Disabled)
    }

    /// Replaces the data; the server ends and is not started again.
    fn replace(&mut self) -> Result<()> {
        let error = self.server.session()?.error(self.statement().to_string())?;
        ensure!(error.number == NO_SUPERVISOR, "{error}");
        ensure!(self.server.await_exit()?.success(), "the server did not end well");
        Ok(())
    }

    fn rows(&self) -> Result<Rows> {
        rows(&self.server)
    }
}

fn load(plugin: Plugin) -> Result<String> {
    // Unlike --plugin-load-add, the last one counts.
    Ok(format!("--plugin-load=clone={}", plugin.file_name().context("no plugin")?))
}

/// What both tables show.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rows {
    status: Status,
    stages: Vec<Stage>,
}

impl Rows {
    fn states(&self) -> Vec<&str> {
        self.stages.iter().map(|stage| &*stage.state).collect()
    }
}

fn rows(server: &Mysqld) -> Result<Rows> {
    let mut session = server.session()?;
    let status = clone::status(&mut session)?.context("clone_status is empty")?;
    Ok(Rows { status, stages: clone::progress(&mut session)? })
}

/// The rows of a clone that has been started.
fn check_success(rows: &Rows) -> Result<()> {
    let Rows { status, stages } = rows;
    ensure!(status.state == "Completed" && status.error_number == 0, "{status:?}");
    ensure!(status.pid == 0 && status.destination == "LOCAL INSTANCE", "{status:?}");
    ensure!(status.begin_time < status.end_time, "{status:?}");
    ensure!(!status.binlog_file.is_empty() && status.binlog_position > 0, "{status:?}");
    ensure!(!status.gtid_executed.is_empty(), "{status:?}");
    ensure!(stages.iter().map(|stage| &*stage.name).eq(STAGES), "{stages:?}");
    ensure!(stages.iter().all(|stage| stage.state == "Completed"), "{stages:?}");
    ensure!(stages.iter().all(|stage| stage.begin_time <= stage.end_time), "{stages:?}");
    ensure!(stages[1].data > 0 && stages[1].data == stages[1].estimate, "{stages:?}");
    Ok(())
}

fn check_content(donor: &Mysqld, clone: &Mysqld) -> Result<()> {
    let expected = Fingerprint::read(&mut donor.session()?)?;
    let differences = expected.differences(&Fingerprint::read(&mut clone.session()?)?);
    ensure!(differences.is_empty(), "{differences:#?}");
    Ok(())
}

/// One plugin replaces the data, the other one is there when the server starts with them.
#[test]
fn a_server_started_with_the_other_plugin() {
    check(|| {
        let (donor, proxy) = start_donor()?;
        for (first, second) in turns()? {
            let mut recipient = Recipient::start(first, &proxy)?;
            recipient.replace()?;
            recipient.start_with(second)?;
            let rows = recipient.rows()?;
            check_success(&rows)?;
            check_content(&donor, &recipient.server)?;
            for plugin in [first, second, second, first] {
                recipient.restart_with(plugin)?;
                let now = recipient.rows()?;
                ensure!(now == rows, "{plugin:?}: {now:#?}\n{rows:#?}");
            }
            // The other one can clone over it.
            recipient.restart_with(second)?;
            recipient.replace()?;
            recipient.start_with(first)?;
            check_success(&recipient.rows()?)?;
        }
        Ok(())
    });
}

/// One plugin clones to a directory, a server with the other one starts on it.
#[test]
fn a_directory_started_with_the_other_plugin() {
    check(|| {
        let (donor, proxy) = start_donor()?;
        for (first, second) in turns()? {
            let mut recipient = Recipient::start(first, &proxy)?;
            let directory = recipient.server.scratch("clone");
            let statement = recipient.statement().into_directory(&directory);
            let report = clone::run(&mut recipient.server, &statement)?;
            let server = Mysqld::builder()
                .name("clone")
                .plugin(Plugin::under_test()?)
                .install_later()
                .option(load(second)?)
                .adopt(&directory)
                .start()?;
            let mut recipient = Recipient { server, plugin: second, port: 0 };
            recipient.restart_with(second)?;
            let rows = recipient.rows()?;
            check_success(&rows)?;
            // What was known before the start is as it was.
            let begun = |stages: &[Stage]| stages[..5].to_vec();
            ensure!(begun(&rows.stages) == begun(&report.stages), "{rows:#?}\n{report:#?}");
            ensure!(rows.status.begin_time == report.status.begin_time, "{rows:#?}");
            recipient.restart_with(first)?;
            ensure!(recipient.rows()? == rows, "{first:?}: {:#?}\n{rows:#?}", recipient.rows()?);
            check_content(&donor, &recipient.server)?;
        }
        Ok(())
    });
}

/// A clone that broke off while it copied: the error stays.
#[test]
fn the_rows_of_a_failure() {
    check(|| {
        let (donor, proxy) = start_donor()?;
        // The donor drops the clone when the network breaks, and says so when the recipient comes
        // again.
        donor.session()?.run("SET GLOBAL clone_donor_timeout_after_network_failure = 0")?;
        for (first, second) in turns()? {
            let mut recipient = Recipient::start(first, &proxy)?;
            proxy.reset()?;
            proxy.at(MIDDLE, Action::reset(Target::All));
            let error = recipient.server.session()?.error(recipient.statement().to_string())?;
            ensure!(error.number == DONOR_ERROR, "{error}");
            let rows = recipient.rows()?;
            let Status { state, error_number, error_message, .. } = &rows.status;
            ensure!(state == "Failed" && *error_number == i64::from(error.number), "{rows:?}");
            ensure!(*error_message == error.message, "{rows:?}");
            ensure!(rows.states()[..3] == [dropped(first), "Failed", "Not Started"], "{rows:?}");
            // The session is gone.
            let expected = Rows { status: Status { pid: 0, ..rows.status }, ..rows };
            for plugin in [second, first, second] {
                recipient.restart_with(plugin)?;
                let now = recipient.rows()?;
                ensure!(now == expected, "{plugin:?}: {now:#?}\n{expected:#?}");
            }
            recipient.replace()?;
            recipient.start_with(first)?;
            check_success(&recipient.rows()?)?;
        }
        Ok(())
    });
}

/// The server dies while a clone replaces its data, and starts with the other plugin: the clone is
/// undone.
#[test]
fn a_crash_in_the_middle() {
    check(|| {
        let (_donor, proxy) = start_donor()?;
        for (first, second) in turns()? {
            let mut recipient = Recipient::start(first, &proxy)?;
            let running = begin_held(&recipient, &proxy)?;
            recipient.server.kill()?;
            proxy.release();
            ensure!(running.finish().is_err(), "it succeeded");
            recipient.start_with(second)?;
            let rows = recipient.rows()?;
            ensure!(rows.states()[..3] == [dropped(first), "Failed", "Not Started"], "{rows:?}");
            ensure!(rows.status.error_number == INTERRUPTED, "{rows:?}");
            // The stock plugin shows a clone that died as one that runs, for ever. Ours puts it
            // right.
            let state = if second == Plugin::Stock { "In Progress" } else { "Failed" };
            ensure!(rows.status.state == state, "{second:?}: {rows:?}");
            recipient.restart_with(first)?;
            let settled = recipient.rows()?;
            let one_is_ours = first != Plugin::Stock || second != Plugin::Stock;
            let state = if one_is_ours { "Failed" } else { "In Progress" };
            ensure!(settled.status.state == state, "{first:?}: {settled:?}");
            ensure!(settled.stages == rows.stages, "{settled:?}\n{rows:?}");
            recipient.replace()?;
            recipient.start_with(second)?;
            check_success(&recipient.rows()?)?;
        }
        Ok(())
    });
}

/// The state of DROP DATA while files are copied by `plugin`: ours drops the data last.
fn dropped(plugin: Plugin) -> &'static str {
    if plugin == Plugin::Ours { "Not Started" } else { "Completed" }
}

/// A clone over the recipient's data that is held in the middle of FILE COPY.
fn begin_held(recipient: &Recipient, proxy: &Proxy) -> Result<Running> {
    proxy.reset()?;
    proxy.at(MIDDLE, Action::Hold);
    let running = Running::start(&recipient.server, &recipient.statement())?;
    until("the clone to be held", SOON, || Ok(proxy.is_holding().then_some(())))?;
    Ok(running)
}
