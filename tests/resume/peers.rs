// SPDX-License-Identifier: GPL-2.0-only

//! A donor, a recipient, and a network between them that breaks as told.

use std::path::PathBuf;
use std::time::Duration;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Running, Statement, Status, Tls};
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::proxy::SnapshotState::{FileCopy, PageCopy};
use clone_testkit::proxy::{Action, Point, Proxy};
use clone_testkit::verify::{Fingerprint, check_tables};
use clone_testkit::{Mysqld, Plugin, SqlError, dataset, until};

use crate::{MIB, NO_SUPERVISOR, SOON};

/// A table beside the data set, of 32 MiB, so that what is on its way at 20 cuts is little beside
/// the whole: with system tables and undo tablespaces a clone has 160 MiB.
const PAGES: [&str; 2] = [
    "CREATE TABLE shop.pages (id INT PRIMARY KEY, payload VARBINARY(2000) NOT NULL)",
    "INSERT INTO shop.pages SELECT 1000 * f.n + l.n, CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(900)) \
     FROM shop.numbers AS f JOIN shop.numbers AS l WHERE f.n < 16",
];
/// Changes all its pages, and makes twice as much redo.
const CHANGE: &str =
    "UPDATE shop.pages SET payload = CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(900))";

/// A donor, a recipient and the proxy between them.
pub(super) struct Peers {
    pub(super) donor: Mysqld,
    pub(super) recipient: Mysqld,
    pub(super) proxy: Proxy,
    clones: u32,
}

impl Peers {
    pub(super) fn start(tasks: u32) -> Result<Self> {
        Self::of(Plugin::under_test()?, Plugin::under_test()?, tasks)
    }

    pub(super) fn of(recipient: Plugin, donor: Plugin, tasks: u32) -> Result<Self> {
        let donor = Mysqld::builder().name("donor").plugin(donor).option(DISTANT).start()?;
        dataset::load_small(&donor)?;
        donor.session()?.run_all(PAGES)?;
        clone::make_donor(&donor)?;
        let proxy = Proxy::to(donor.port())?;
        let recipient = Mysqld::builder()
            .name("recipient")
            .plugin(recipient)
            .option(DISTANT)
            .option("--clone-autotune-concurrency=OFF")
            .option(format!("--clone-max-concurrency={tasks}"))
            .option(format!("--clone-valid-donor-list=127.0.0.1:{}", proxy.port()))
            .start()?;
        Ok(Self { donor, recipient, proxy, clones: 0 })
    }

    /// The next clone, into a directory of its own.
    pub(super) fn begin(&mut self) -> Result<(Running, PathBuf)> {
        self.clones += 1;
        let directory = self.recipient.scratch(&format!("clone{}", self.clones));
        let statement = self.statement().into_directory(&directory);
        Ok((Running::start(&self.recipient, &statement)?, directory))
    }

    /// A clone that is in the middle of FILE COPY, and stays there until it is released or cut.
    pub(super) fn begin_held(&mut self) -> Result<Running> {
        self.proxy.reset()?;
        self.proxy.at(Point::Data { state: FileCopy, bytes: 8 * MIB }, Action::Hold);
        let (running, _) = self.begin()?;
        self.await_hold(&running)?;
        Ok(running)
    }

    pub(super) fn await_hold(&self, running: &Running) -> Result<()> {
        until("the clone to be held", SOON, || {
            ensure!(!running.is_finished(), "the clone ended, {:?}", self.status()?);
            Ok(self.proxy.is_holding().then_some(()))
        })
    }

    /// The donor does not wait the five minutes in which a recipient may come back.
    pub(super) fn await_donor_idle(&self) -> Result<()> {
        clone::await_donor_idle(&self.donor, Duration::from_secs(10))
    }

    pub(super) fn statement(&self) -> Statement {
        let account = clone::donor_account();
        Statement::instance_at("127.0.0.1", self.proxy.port(), account).tls(Tls::Disabled)
    }

    /// A clone without a script, to show that the donor is free.
    pub(super) fn clone_undisturbed(&mut self) -> Result<()> {
        self.proxy.reset()?;
        let (running, directory) = self.begin()?;
        running.finish().context("a further clone")?;
        self.verify(directory)
    }

    /// Holds the clone where [`write_in_between`](Self::write_in_between) writes.
    pub(super) fn hold_for_writes(&self) {
        self.proxy.at(Point::Data { state: FileCopy, bytes: MIB }, Action::Hold);
        self.proxy.at(Point::Data { state: PageCopy, bytes: MIB }, Action::Hold);
    }

    /// Changes pages and has them written while FILE COPY is held, so that PAGE COPY has some; and
    /// changes rows while PAGE COPY is held, so that REDO COPY has some.
    pub(super) fn write_in_between(&self, running: &Running) -> Result<()> {
        self.await_hold(running)?;
        let mut session = self.donor.session()?;
        session.run(CHANGE)?;
        fixture::flush(&self.donor)?;
        self.proxy.release();
        self.await_hold(running)?;
        session.run(CHANGE)?;
        self.proxy.release();
        Ok(())
    }

    /// The recipient's row of the last clone.
    pub(super) fn status(&self) -> Result<Status> {
        clone::status(&mut self.recipient.session()?)?.context("no status")
    }

    /// The recipient shows the error with which the clone ended.
    pub(super) fn check_failed(&self, error: &SqlError) -> Result<()> {
        let Status { state, error_number, error_message, .. } = self.status()?;
        ensure!(
            state == "Failed" && error_number == i64::from(error.number),
            "{state} {error_number}"
        );
        ensure!(error_message == error.message, "{error_message}");
        Ok(())
    }

    /// The recipient's server ends after its data was replaced, and is started again.
    pub(super) fn await_restart(&mut self, result: Result<()>) -> Result<()> {
        let error: SqlError = result.err().context("no error")?.downcast()?;
        ensure!(error.number == NO_SUPERVISOR, "{error}");
        self.recipient.await_restart()
    }

    /// The clone in a directory is what the donor is.
    pub(super) fn verify(&self, directory: PathBuf) -> Result<()> {
        self.verify_server(&Mysqld::builder().name("clone").adopt(directory).start()?)
    }

    /// The recipient knows that it succeeded, and `clone` is what the donor is.
    pub(super) fn verify_server(&self, clone: &Mysqld) -> Result<()> {
        let status = self.status()?;
        ensure!(status.state == "Completed" && status.error_number == 0, "{status:?}");
        let mut session = clone.session()?;
        let (_, found) = check_tables(&mut session)?;
        ensure!(found.is_empty(), "{found:#?}");
        let expected = Fingerprint::read(&mut self.donor.session()?)?;
        let differences = expected.differences(&Fingerprint::read(&mut session)?);
        ensure!(differences.is_empty(), "{differences:#?}");
        Ok(())
    }
}
