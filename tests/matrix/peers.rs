// SPDX-License-Identifier: GPL-2.0-only

//! The servers of the matrix, and what happens in one cell.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Context, Result, bail, ensure};
use clone_testkit::clone::{self, Running, Statement, Status, Tls};
use clone_testkit::fastrand::Rng;
use clone_testkit::faults::SmallDisk;
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::mysqld::Builder;
use clone_testkit::own_data::{self, OwnData, Whose};
use clone_testkit::proxy::SnapshotState::{FileCopy, PageCopy, RedoCopy};
use clone_testkit::proxy::{Action, CommandCode, How, Point, Proxy, Target};
use clone_testkit::{Mysqld, SqlError, until};

use crate::cell::{Cell, End, Fault, Form, Moment};

/// How long a server may wait for one that is silent (`clone_peer_timeout`).
const PEER_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a connection to the donor may be without a command.
const FIRST_COMMAND: Duration = Duration::from_secs(60);
/// How much longer a server may take: it connects once more.
const REACTION: Duration = Duration::from_secs(8);
/// No wait is longer.
const SOON: Duration = Duration::from_secs(60);
/// 32 MiB.
const PAGES: [&str; 3] = [
    "CREATE TABLE theirs.pages (id INT PRIMARY KEY AUTO_INCREMENT, bytes LONGBLOB)",
    "INSERT INTO theirs.pages (bytes) VALUES (REPEAT(RANDOM_BYTES(1024), 16384))",
    "INSERT INTO theirs.pages (bytes) SELECT bytes FROM theirs.pages",
];
/// Room for a server, its data and a clone of the donor.
const DISK: u64 = 900 << 20;
/// `ER_RESTART_SERVER_FAILED`: the clone has succeeded, and the server ends.
const NO_SUPERVISOR: u16 = 3707;

/// A donor, a recipient, the network between them, and their disks.
pub(crate) struct Peers {
    donor: Mysqld,
    recipient: Mysqld,
    proxy: Proxy,
    donors_disk: SmallDisk,
    recipients_disk: SmallDisk,
    random: Rng,
    /// Somebody writes to the donor all the time.
    pub(crate) is_under_load: bool,
}

impl Peers {
    /// `None` where a disk cannot be limited. Each disk has room for so many servers.
    pub(crate) fn start(random: Rng, servers: u64) -> Result<Option<Self>> {
        let (Some(donors_disk), Some(recipients_disk)) =
            (SmallDisk::mount(servers * DISK)?, SmallDisk::mount(servers * DISK)?)
        else {
            return Ok(None);
        };
        let donor = server("donor", &donors_disk)?.start()?;
        own_data::make_donors(&donor)?;
        donor.session()?.run_all(PAGES)?;
        clone::make_donor(&donor)?;
        let proxy = Proxy::to(donor.port())?;
        let recipient = recipient(&donor, &proxy, &recipients_disk)?;
        let is_under_load = false;
        Ok(Some(Self {
            donor,
            recipient,
            proxy,
            donors_disk,
            recipients_disk,
            random,
            is_under_load,
        }))
    }

    pub(crate) fn donor(&self) -> &Mysqld {
        &self.donor
    }

    pub(crate) fn recipient(&self) -> &Mysqld {
        &self.recipient
    }

    /// One more recipient, for [`exchange`](Self::exchange).
    pub(crate) fn another_recipient(&self) -> Result<Mysqld> {
        recipient(&self.donor, &self.proxy, &self.recipients_disk)
    }

    /// `other` is the recipient now, and the recipient before is `other`.
    pub(crate) fn exchange(&mut self, other: &mut Mysqld) {
        std::mem::swap(&mut self.recipient, other);
    }

    /// One clone with one fault. Returns whose data the recipient has then.
    pub(crate) fn run(&mut self, cell: Cell) -> Result<Whose> {
        self.prepare(cell)?;
        let own = OwnData::of(&self.recipient)?;
        let before = clone::status(&mut self.recipient.session()?)?;
        let running = Running::start(&self.recipient, &self.statement(cell.form))?;
        if cell.moment.is_start() {
            self.await_end(cell, running)?;
            self.fault_at_start(cell)?;
        } else {
            if let Err(error) = self.reach(cell, &running) {
                let is_over = running.is_finished();
                let outcome =
                    if is_over { format!("{:?}", running.finish()) } else { String::new() };
                return Err(error.context(outcome));
            }
            self.inflict(cell, &running)?;
            self.await_end(cell, running)?;
        }
        if (cell.fault, cell.end) == (Fault::FullDisk, End::Donor) && !self.donor.is_running()? {
            // If the redo archiver cannot create its file, InnoDB may follow a null pointer in its
            // function `clone_copy`, and the server ends (9.7.4).
            self.donor.await_exit()?;
        }
        self.mend()?;

        let whose = Whose::of(&self.recipient)?;
        match whose {
            Whose::Recipients => own.assert_kept(&self.recipient)?,
            Whose::Donors if self.is_under_load => {
                own_data::assert_cloned_meanwhile(&self.recipient, &self.donor)?;
            }
            Whose::Donors => own_data::assert_cloned(&self.recipient, &self.donor)?,
            Whose::Nobodys => ensure!(cell.form == Form::Drop, "the data is lost"),
        }
        let status = clone::status(&mut self.recipient.session()?)?;
        // Otherwise the clone had not begun.
        if let Some(status) = status.filter(|status| Some(status) != before.as_ref()) {
            self.assert_status(cell, whose, &status)?;
        }
        self.assert_clones(cell).context("the next clone")?;
        Ok(whose)
    }

    /// The recipient tells how the clone has ended.
    fn assert_status(&self, cell: Cell, whose: Whose, status: &Status) -> Result<()> {
        let is_complete = match cell.form.is_in_place() {
            true => whose == Whose::Donors,
            // A server that starts tells of its last clone in place.
            false if ends_recipient(cell) => return Ok(()),
            false => self.directory().exists(),
        };
        let told = if is_complete { "Completed" } else { "Failed" };
        ensure!(status.state == told, "the data is {whose:?}, but {status:?}");
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.recipient.scratch("clone")
    }

    fn statement(&self, form: Form) -> Statement {
        let account = clone::donor_account();
        let instance = Statement::instance_at("127.0.0.1", self.proxy.port(), account);
        // The proxy reads what passes.
        let instance = instance.tls(Tls::Disabled);
        match form {
            Form::Keep | Form::Drop => instance,
            Form::Directory => instance.into_directory(&self.directory()),
            Form::Local => Statement::local(&self.directory()),
        }
    }

    /// The server that the fault meets.
    fn server(&mut self, end: End) -> (&mut Mysqld, &SmallDisk) {
        match end {
            End::Donor => (&mut self.donor, &self.donors_disk),
            End::Recipient => (&mut self.recipient, &self.recipients_disk),
        }
    }

    /// The recipient has data of its own, and the network stops at the moment of the fault.
    fn prepare(&mut self, cell: Cell) -> Result<()> {
        clone::await_donor_idle(&self.donor, SOON)?;
        self.proxy.reset()?;
        match Whose::of(&self.recipient)? {
            Whose::Recipients => {}
            Whose::Donors => OwnData::make(&self.recipient)?,
            // Not quite nothing: accounts and undo tablespaces are left.
            Whose::Nobodys => self.recipient = self.another_recipient()?,
        }
        let keep = if cell.form == Form::Drop { "OFF" } else { "ON" };
        self.recipient.session()?.run(format!("SET GLOBAL clone_keep_data = {keep}"))?;
        let bytes = self.random.u64(1..24) << 20;
        let point = match cell.moment {
            _ if cell.form == Form::Local => return Ok(()),
            Moment::Init => Point::Command(CommandCode::Init),
            Moment::Begin => Point::Complete(CommandCode::Init),
            Moment::FileCopy => Point::Data { state: FileCopy, bytes },
            Moment::PageCopy => Point::Start(PageCopy),
            Moment::RedoCopy => Point::Start(RedoCopy),
            Moment::FileSync => Point::End(RedoCopy),
            Moment::Swap | Moment::Restart | Moment::Recovery => return Ok(()),
        };
        self.proxy.at(point, Action::Hold);
        Ok(())
    }

    /// Waits until the clone has come to the moment. A clone that is quicker than the fault has
    /// then succeeded.
    fn reach(&mut self, cell: Cell, running: &Running) -> Result<()> {
        let by_chance = Duration::from_millis(self.random.u64(0..100));
        if cell.form == Form::Local {
            sleep(3 * by_chance);
        } else if cell.moment == Moment::Swap {
            // InnoDB's list of what is to be replaced.
            let list = self.recipient.data_dir().join("#clone").join("#replace_files");
            until("the swap", SOON, || Ok((list.exists() || running.is_finished()).then_some(())))?;
        } else {
            until("the moment", SOON, || {
                ensure!(!running.is_finished(), "the clone ended before {:?}", cell.moment);
                Ok(self.proxy.is_holding().then_some(()))
            })?;
            // The proxy sees when the recipient begins these, and not how far it is.
            if matches!(cell.moment, Moment::Begin | Moment::FileSync) {
                self.proxy.release();
                sleep(by_chance);
            }
        }
        Ok(())
    }

    fn inflict(&mut self, cell: Cell, running: &Running) -> Result<()> {
        match (cell.fault, cell.end) {
            (Fault::KillQuery, End::Recipient) => {
                let killed = running.kill_query(&self.recipient);
                // The statement may be faster than the fault, and then the server ends.
                ensure!(killed.is_ok() || cell.moment >= Moment::FileSync, "{killed:?}");
            }
            (Fault::KillQuery, End::Donor) => {
                let mut session = self.donor.session()?;
                let ids: Vec<u64> = session.rows(
                    "SELECT ID FROM performance_schema.processlist WHERE COMMAND = 'Clone'",
                )?;
                for id in ids {
                    // One may have ended meanwhile.
                    let _ = session.run(format!("KILL QUERY {id}"));
                }
            }
            (Fault::Terminate, end) => self.server(end).0.terminate()?,
            (Fault::Kill, end) => self.server(end).0.kill()?,
            (Fault::Cut, _) => {
                self.proxy.cut(Target::All, How::Reset);
                self.proxy.refuse(true)?;
            }
            (Fault::Silence, end) => self.server(end).0.freeze()?,
            (Fault::FullDisk, end) => self.server(end).1.fill()?,
        }
        self.proxy.release();
        Ok(())
    }

    /// Waits until the statement has ended, and until the recipient has ended if that is what comes
    /// next.
    fn await_end(&mut self, cell: Cell, running: Running) -> Result<()> {
        if (cell.fault, cell.end) == (Fault::Silence, End::Recipient) {
            // Before the clone has begun, the donor cannot know what the connection is for.
            let has_begun = cell.moment > Moment::Begin;
            let limit = if has_begun { PEER_TIMEOUT } else { FIRST_COMMAND };
            clone::await_donor_idle(&self.donor, limit + REACTION)?;
            self.recipient.thaw()?;
        }
        let began = Instant::now();
        until("the statement to end", SOON, || Ok(running.is_finished().then_some(())))?;
        if (cell.fault, cell.end) == (Fault::Silence, End::Donor) {
            let took = began.elapsed();
            ensure!(took < PEER_TIMEOUT + REACTION, "the recipient waited {took:?}");
        }
        let outcome = running.finish();
        if cell.fault == Fault::FullDisk {
            // A server that ends writes its binary log, and waits for space.
            self.server(cell.end).1.relieve()?;
        }
        let has_succeeded = match &outcome {
            Ok(()) => true,
            // Without an error of the server, the server has ended.
            Err(error) => {
                error.downcast_ref::<SqlError>().is_none_or(|error| error.number == NO_SUPERVISOR)
            }
        };
        let is_inflicted = !cell.moment.is_start();
        let is_killed = (cell.fault, cell.end) == (Fault::Kill, End::Recipient) && is_inflicted;
        let restarts = has_succeeded && cell.form.is_in_place() && !is_killed;
        if restarts {
            self.recipient.await_exit()?;
        }
        let is_terminated = cell.fault == Fault::Terminate && is_inflicted;
        if is_terminated && !(restarts && cell.end == End::Recipient) {
            self.server(cell.end).0.await_exit()?;
        }
        if let Err(error) = outcome {
            println!("{cell}: {error:#}");
            let text = format!("{error:#}");
            ensure!(!text.contains("Clone failed with error"), "the reason is not told: {text}");
        }
        Ok(())
    }

    /// The fault meets the server that starts with the clone.
    fn fault_at_start(&mut self, cell: Cell) -> Result<()> {
        // Reading the lists takes a tenth of a second, and recovery a second.
        let time = match cell.moment {
            Moment::Restart => self.random.u64(0..150),
            _ => self.random.u64(150..1500),
        };
        let time = Duration::from_millis(time);
        match cell.fault {
            Fault::Terminate => self.recipient.start_and_terminate(time),
            Fault::Kill => self.recipient.start_and_kill(time),
            Fault::FullDisk => {
                self.recipients_disk.fill()?;
                self.recipient.start_and_kill(10 * time)
            }
            Fault::KillQuery | Fault::Cut | Fault::Silence => bail!("there is no statement"),
        }
    }

    /// Everything works again, and both servers run.
    fn mend(&mut self) -> Result<()> {
        self.proxy.reset()?;
        self.proxy.release();
        for end in [End::Donor, End::Recipient] {
            let (server, disk) = self.server(end);
            disk.relieve()?;
            match server.is_running()? {
                true => server.thaw()?,
                // A server that has ended by itself cannot be started.
                false => server.start()?,
            }
        }
        Ok(())
    }

    /// The next clone works; into the same directory, if there is one.
    fn assert_clones(&mut self, cell: Cell) -> Result<()> {
        clone::await_donor_idle(&self.donor, SOON)?;
        if (cell.fault, cell.end) == (Fault::FullDisk, End::Donor) {
            // InnoDB's page archiver ends for good if it cannot write. Each later clone fails with
            // 1317.
            self.donor.restart()?;
        }
        if cell.form.is_in_place() {
            return fixture::assert_clones(&self.recipient, &self.donor);
        }
        if !self.directory().join("#clone/#status_in_progress").exists() {
            // The clone may have succeeded.
            fixture::remove_rest(&self.directory())?;
        }
        self.recipient.session()?.run(self.statement(cell.form).to_string())?;
        Ok(fs::remove_dir_all(self.directory())?)
    }
}

/// The recipient ends while it clones.
fn ends_recipient(cell: Cell) -> bool {
    cell.end == End::Recipient && matches!(cell.fault, Fault::Terminate | Fault::Kill)
}

/// A server that does not wait for one that is gone.
fn server(name: &str, disk: &SmallDisk) -> Result<Builder> {
    Ok(fixture::server(name)?
        .below(disk.path())
        .option(DISTANT)
        .option("--clone-donor-timeout-after-network-failure=0")
        .option("--connect-timeout=2")
        // Threads of sessions that have ended are no threads of the clone's.
        .option("--thread-cache-size=0")
        .option(format!("--loose-clone-peer-timeout={}", PEER_TIMEOUT.as_secs())))
}

/// A recipient with data of its own.
fn recipient(donor: &Mysqld, proxy: &Proxy, disk: &SmallDisk) -> Result<Mysqld> {
    let ports = [proxy.port(), donor.port()].map(|port| format!("127.0.0.1:{port}"));
    let recipient = server("recipient", disk)?
        .option(format!("--clone-valid-donor-list={}", ports.join(",")))
        .start()?;
    OwnData::make(&recipient)?;
    Ok(recipient)
}
