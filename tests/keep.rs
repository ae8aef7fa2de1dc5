// SPDX-License-Identifier: GPL-2.0-only

//! A recipient keeps its data until a clone over this data has succeeded (`clone_keep_data`).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::balancer::Balancer;
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::faults::SmallDisk;
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::mysqld::Builder;
use clone_testkit::own_data::{self, OwnData, Whose};
use clone_testkit::{Mysqld, Plugin, check, skip, until, verify};

/// A server whose clones come over the network.
fn server(name: &str) -> Result<Builder> {
    Ok(fixture::server(name)?.option(DISTANT))
}

/// A small donor that does not wait for a recipient that is gone.
fn donor() -> Result<Mysqld> {
    let builder = server("donor")?.option("--clone-donor-timeout-after-network-failure=0");
    let donor = builder.start()?;
    own_data::make_donors(&donor)?;
    clone::make_donor(&donor)?;
    Ok(donor)
}

/// A recipient with data of its own. `keep` is its `clone_keep_data`.
fn recipient(donor: &Mysqld, keep: &str) -> Result<Mysqld> {
    recipient_from(server("recipient")?, donor, keep)
}

fn recipient_from(builder: Builder, donor: &Mysqld, keep: &str) -> Result<Mysqld> {
    let builder = builder
        .option(format!("--clone-keep-data={keep}"))
        .option("--event-scheduler=OFF")
        .option("--clone-donor-timeout-after-network-failure=0");
    let recipient = fixture::recipient_from(builder, donor)?;
    OwnData::make(&recipient)?;
    Ok(recipient)
}

/// The server has its own data, and has it after a restart.
fn assert_kept(own: &OwnData, server: &mut Mysqld) -> Result<()> {
    own.assert_kept(server)?;
    server.restart()?;
    own.assert_kept(server)?;
    verify::assert_sound(server)
}

#[test]
fn a_clone_replaces_the_data() {
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor, "ON")?;
        let report = clone::run(&mut recipient, &Statement::instance(&donor))?;
        assert_eq!(report.status.state, "Completed");
        assert!(report.stages.iter().all(|stage| stage.state == "Completed"), "{report:?}");
        verify::assert_equal(&donor, &recipient)?;
        own_data::assert_cloned(&recipient, &donor)?;
        // And once more, over the clone.
        recipient.restart()?;
        OwnData::make(&recipient)?;
        clone::allow_donor(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        own_data::assert_cloned(&recipient, &donor)
    });
}

/// Until the clone takes the place of the data, the recipient reads and writes.
#[test]
fn the_recipient_serves_meanwhile() {
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor, "ON")?;
        let running = Running::start_copying(&recipient, &slow(&recipient, &donor)?)?;
        let mut session = recipient.session()?;
        for _ in 0..20 {
            session.run("INSERT INTO mine.t (text) VALUES ('meanwhile')")?;
            session.run("CREATE TABLE mine.more (id INT PRIMARY KEY)")?;
            session.run("DROP TABLE mine.more")?;
        }
        assert_eq!(session.one::<u64>("SELECT COUNT(*) FROM mine.t")?, 24);
        let stages = clone::progress(&mut session)?;
        assert_eq!((&*stages[0].name, &*stages[0].state), ("DROP DATA", "Not Started"));
        let own = OwnData::of(&recipient)?;
        running.kill_query(&recipient)?;
        assert_eq!(running.failure()?.number, 1317);
        assert_kept(&own, &mut recipient)
    });
}

/// A clone over the data of `recipient` that takes some seconds.
fn slow(recipient: &Mysqld, donor: &Mysqld) -> Result<Statement> {
    recipient.session()?.run_all([
        "SET GLOBAL clone_max_data_bandwidth = 8",
        "SET GLOBAL clone_autotune_concurrency = OFF",
        "SET GLOBAL clone_max_concurrency = 1",
    ])?;
    Ok(Statement::instance(donor))
}

/// A recipient refuses the donor's data (3869), and keeps its own.
fn refused(donor: &Mysqld, keep: &str, text: &str) -> Result<(Mysqld, OwnData)> {
    let mut recipient = recipient(donor, keep)?;
    let own = OwnData::of(&recipient)?;
    let error = recipient.session()?.error(Statement::instance(donor).to_string())?;
    assert_eq!(error.number, 3869, "{error}");
    assert!(error.message.contains(text), "{error}");
    assert_kept(&own, &mut recipient)?;
    Ok((recipient, own))
}

/// What a failure costs: all data with `OFF`, as with the stock plugin, and nothing with `AUTO`.
fn assert_cost(keep: &str, own: &OwnData, recipient: &mut Mysqld) -> Result<()> {
    if keep != "OFF" {
        return assert_kept(own, recipient);
    }
    let whose = Whose::of(recipient)?;
    ensure!(whose == Whose::Nobodys, "the data is {whose:?}: the failure came too early");
    Ok(())
}

#[test]
fn the_donor_is_killed() {
    check(|| {
        for keep in ["OFF", "AUTO"] {
            let mut donor = donor()?;
            let mut recipient = recipient(&donor, keep)?;
            let own = OwnData::of(&recipient)?;
            let running = Running::start_copying(&recipient, &slow(&recipient, &donor)?)?;
            donor.kill()?;
            assert_eq!(running.failure()?.number, 3862);
            assert_cost(keep, &own, &mut recipient)?;
        }
        Ok(())
    });
}

#[test]
fn the_donor_is_silent() {
    check(|| {
        for keep in ["OFF", "AUTO"] {
            let donor = donor()?;
            let mut recipient = recipient(&donor, keep)?;
            let own = OwnData::of(&recipient)?;
            let running = Running::start_copying(&recipient, &slow(&recipient, &donor)?)?;
            donor.freeze()?;
            sleep(Duration::from_secs(1));
            running.kill_query(&recipient)?;
            assert_eq!(running.failure()?.number, 1317);
            donor.thaw()?;
            assert_cost(keep, &own, &mut recipient)?;
        }
        Ok(())
    });
}

/// A load balancer gives the connections to different servers. The donor that answers the question
/// before the clone is compared with the one that begins the clone, and a heartbeat tells whether
/// the acknowledgements reach it. Without heartbeats InnoDB finds out in the middle of the copy.
#[test]
fn a_connection_reaches_another_server() {
    check(|| {
        let (one, other) = (donor()?, donor()?);
        let [first, second] = [one.port(), other.port()];
        // The question before the clone, data, acknowledgements.
        let data = [first, second, second];
        let acknowledgements = [first, first, second];
        for (turns, heartbeats, keep) in [
            (data, "60", "OFF"),
            (acknowledgements, "60", "OFF"),
            (acknowledgements, "0", "OFF"),
            (acknowledgements, "0", "AUTO"),
        ] {
            let is_early = heartbeats != "0";
            let balancer = Balancer::in_turn(turns.to_vec())?;
            let mut recipient = recipient(&one, keep)?;
            let set = format!("SET GLOBAL clone_peer_timeout = {heartbeats}");
            recipient.session()?.run(set)?;
            clone::allow_address(&recipient, &format!("127.0.0.1:{}", balancer.port()))?;
            let own = OwnData::of(&recipient)?;
            let account = clone::donor_account();
            let statement = Statement::instance_at("127.0.0.1", balancer.port(), account);
            let error = recipient.session()?.error(statement.to_string())?;
            let expected = match is_early {
                true => (3869, "have reached different servers"),
                false => (3862, "refers non-existing clone"),
            };
            assert_eq!(error.number, expected.0, "{error}");
            assert!(error.message.contains(expected.1), "{error}");
            assert!(is_early || error.message.contains("load balancer"), "{error}");
            // What is found early costs nothing, even without kept data.
            assert_cost(if is_early { "AUTO" } else { keep }, &own, &mut recipient)?;
            for donor in [&one, &other] {
                clone::await_donor_idle(donor, Duration::from_secs(60))?;
            }
        }
        Ok(())
    });
}

/// Two undo tablespaces of the donor have one file name. A donor of this project says so. InnoDB
/// finds that out in FILE COPY, when data that is dropped first is lost.
#[test]
fn undo_tablespaces_with_one_name() {
    check(|| {
        let outside = tempfile::tempdir()?;
        let twins = |donor: Builder, name: &str| -> Result<Mysqld> {
            let directories = format!("--innodb-directories={}", outside.path().display());
            let donor = donor.option(directories).start()?;
            clone::make_donor(&donor)?;
            let path = outside.path().join(format!("{name}.ibu"));
            donor.session()?.run_all([
                format!("CREATE UNDO TABLESPACE one ADD DATAFILE '{name}.ibu'").as_str(),
                &format!("CREATE UNDO TABLESPACE two ADD DATAFILE '{}'", path.display()),
            ])?;
            Ok(donor)
        };
        let ours = twins(server("donor")?, "twin")?;
        let stock = twins(server("stock")?.plugin(Plugin::Stock), "double")?;
        for keep in ["OFF", "AUTO"] {
            let (mut recipient, own) = refused(&ours, keep, "have the same file name")?;
            clone::allow_donor(&recipient, &stock)?;
            let error = recipient.session()?.error(Statement::instance(&stock).to_string())?;
            assert_eq!(error.number, 3869, "{error}");
            assert!(error.message.contains("multiple undo files"), "{error}");
            assert_cost(keep, &own, &mut recipient)?;
        }
        Ok(())
    });
}

/// A tablespace of the donor lies where the recipient does not look for tablespaces.
#[test]
fn a_tablespace_in_an_unknown_directory() {
    check(|| {
        let outside = tempfile::tempdir()?;
        let path = outside.path().canonicalize()?;
        let directories = format!("--innodb-directories={}", path.display());
        let donor = server("donor")?.option(&directories).start()?;
        clone::make_donor(&donor)?;
        donor.session()?.run_all([
            "CREATE DATABASE theirs",
            &format!(
                "CREATE TABLE theirs.far (id INT PRIMARY KEY) DATA DIRECTORY = '{}'",
                path.display()
            ),
        ])?;
        for keep in ["OFF", "AUTO"] {
            refused(&donor, keep, "/theirs/")?;
        }
        // A recipient that looks there is not refused.
        let known = recipient_from(server("known")?.option(&directories), &donor, "AUTO")?;
        let mut session = known.session()?;
        session.run("SET clone_dry_run = ON")?;
        let error = session.error(Statement::instance(&donor).to_string())?;
        assert_eq!(error.number, 1290, "{error}");
        Ok(())
    });
}

/// `lower_case_table_names` differs. A donor of this project says so, and of a stock donor the
/// copied dictionary tells. Without the check the server would never start again.
#[test]
fn names_of_tables_are_compared_in_another_way() {
    check(|| {
        for plugin in [Plugin::Ours, Plugin::Stock] {
            let builder = Mysqld::builder().name("donor").plugin(plugin);
            let donor = builder.initialise_with("--lower-case-table-names=1").start()?;
            own_data::make_donors(&donor)?;
            clone::make_donor(&donor)?;
            let mut recipient = recipient(&donor, "AUTO")?;
            let own = OwnData::of(&recipient)?;
            let error = recipient.session()?.error(Statement::instance(&donor).to_string())?;
            assert_eq!(
                (error.number, &*error.message),
                (
                    3868,
                    "Clone Configuration lower_case_table_names: Donor value: 1 is different from \
                     Recipient value: 0."
                )
            );
            assert_kept(&own, &mut recipient)?;
        }
        Ok(())
    });
}

/// All accounts of the donor use an authentication plugin that is off at the recipient.
#[test]
fn nobody_could_log_in() {
    check(|| {
        let donor = donor()?;
        let mut session = donor.session()?;
        session.run_all([
            "INSTALL PLUGIN auth_socket SONAME 'auth_socket.so'",
            "CREATE USER somebody IDENTIFIED WITH auth_socket",
            "UPDATE mysql.user SET account_locked = 'Y' WHERE plugin <> 'auth_socket'",
        ])?;
        refused(&donor, "AUTO", "no account of the donor could log in here").map(|_| ())
    });
}

/// `innodb_force_recovery` lets InnoDB read its data, and not replace it.
#[test]
fn a_recipient_with_force_recovery() {
    check(|| {
        let donor = donor()?;
        for keep in ["OFF", "AUTO"] {
            let mut recipient = recipient(&donor, keep)?;
            let own = OwnData::of(&recipient)?;
            recipient.add_option("--innodb-force-recovery=1");
            recipient.restart()?;
            clone::allow_donor(&recipient, &donor)?;
            let error = recipient.session()?.error(Statement::instance(&donor).to_string())?;
            assert_eq!(error.number, 3869, "{error}");
            assert!(error.message.contains("innodb_force_recovery=1"), "{error}");
            assert_eq!(OwnData::of(&recipient)?, own);
        }
        Ok(())
    });
}

/// The directory of a clone that failed is gone, and the next clone can have it.
#[test]
fn a_failed_clone_leaves_no_directory() {
    check(|| {
        let donor = donor()?;
        let recipient = recipient(&donor, "AUTO")?;
        let directory = recipient.scratch("clone");
        let limited = slow(&recipient, &donor)?.into_directory(&directory);
        for statement in [limited, Statement::local(&directory)] {
            let running = Running::start_copying(&recipient, &statement)?;
            running.kill_query(&recipient)?;
            assert_eq!(running.failure()?.number, 1317);
            assert!(!directory.exists(), "{statement}");
        }
        fixture::speed_up(&recipient)?;
        recipient.session()?.run(Statement::local(&directory).to_string())
    });
}

/// The disk has no room for the clone beside the data.
#[test]
fn a_disk_without_room_for_both() {
    check(|| {
        let Some(disk) = SmallDisk::mount(420 << 20)? else {
            skip!("not allowed to mount a tmpfs");
        };
        let donor = donor()?;
        donor.session()?.run_all([
            "CREATE TABLE theirs.big (id INT PRIMARY KEY AUTO_INCREMENT, text LONGBLOB)",
            "INSERT INTO theirs.big (text) VALUES (REPEAT(RANDOM_BYTES(1024), 8192))",
        ])?;
        for _ in 0..4 {
            donor.session()?.run("INSERT INTO theirs.big (text) SELECT text FROM theirs.big")?;
        }
        let builder =
            server("recipient")?.below(disk.path()).option("--innodb-redo-log-capacity=8388608");
        let mut recipient = recipient_from(builder, &donor, "ON")?;
        disk.fill()?;
        let own = OwnData::of(&recipient)?;
        let mut session = recipient.session()?;
        let error = session.error(Statement::instance(&donor).to_string())?;
        assert_eq!(error.number, 3873, "{error}");
        let result: String = session.one(
            "SELECT RESULT FROM performance_schema.clone_checks WHERE CHECK_NAME = 'disk_space'",
        )?;
        assert_eq!(result, "Warning");
        drop(session);
        disk.relieve()?;
        assert_kept(&own, &mut recipient)
    });
}

/// This server may open so few more files that it cannot connect. InnoDB ends a server that cannot
/// open a file of its own, so InnoDB must have nothing to do.
#[test]
fn files_run_short() {
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor, "AUTO")?;
        let own = OwnData::of(&recipient)?;
        fixture::flush(&recipient)?;
        for free in 0..3 {
            let session = recipient.session()?;
            recipient.limit_open_files(settled_descriptors(&recipient)? + free)?;
            let error = Running::start_in(session, &Statement::instance(&donor)).failure()?;
            recipient.limit_open_files(4096)?;
            assert_eq!(error.number, 3862, "{error}");
            assert!(error.message.contains("2004 : Can't create TCP/IP socket (24)"), "{error}");
        }
        assert_kept(&own, &mut recipient)?;
        clone::allow_donor(&recipient, &donor)?;
        fixture::assert_clones(&recipient, &donor)
    });
}

/// The number of open files, when it has been the same for a second, and so have the redo files.
/// Connections that have ended are closed a little later, and InnoDB makes redo files in the
/// background.
fn settled_descriptors(server: &Mysqld) -> Result<u64> {
    let directory = server.data_dir().join("#innodb_redo");
    let look = || -> Result<_> {
        let redo = fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name()));
        Ok((server.usage()?.descriptors, redo.collect::<Result<BTreeSet<_>>>()?))
    };
    let (mut seen, mut since) = (look()?, Instant::now());
    until("a server that opens no files", Duration::from_secs(60), || {
        let now = look()?;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        Ok((since.elapsed() >= Duration::from_secs(1)).then_some(seen.0))
    })
}

/// A server that is killed at any moment of a clone, of the swap and of the start that follows, has
/// its old data or the donor's. `KEEP_KILLS` is the number of kills, `KEEP_SEED` the seed.
#[test]
fn kills_at_any_moment() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("KEEP_KILLS").unwrap_or(12);
    let seed = number("KEEP_SEED").unwrap_or(1);
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor, "ON")?;
        let mut random = Random(seed.max(1));
        // How long the statement and the start that follows take without a kill.
        let report = clone::run(&mut recipient, &Statement::instance(&donor))?;
        let (statement, whole) = (report.elapsed, report.elapsed + report.restart);
        let mut outcomes = [0, 0];
        for kill in 0..kills {
            // As often in the statement as in the start.
            let limit = match kill % 2 {
                0 => random.part_of(statement),
                _ => statement + random.part_of(whole - statement),
            };
            let is_new = kill_once(&mut recipient, &donor, limit)?;
            outcomes[usize::from(is_new)] += 1;
            println!("kill {kill} of seed {seed}: {}", if is_new { "new" } else { "old" });
        }
        println!("{outcomes:?} of {kills} kills left the old and the new data");
        clone::allow_donor(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        own_data::assert_cloned(&recipient, &donor)
    });
}

/// One clone with one kill, `limit` after its begin. Returns true if the recipient has the donor's
/// data.
fn kill_once(recipient: &mut Mysqld, donor: &Mysqld, limit: Duration) -> Result<bool> {
    if Whose::of(recipient)? == Whose::Donors {
        OwnData::make(recipient)?;
    }
    clone::allow_donor(recipient, donor)?;
    let own = OwnData::of(recipient)?;
    let before = clone::status(&mut recipient.session()?)?;
    let begin = Instant::now();
    let running = Running::start(recipient, &Statement::instance(donor))?;
    let mut is_killed = false;
    while recipient.is_running()? && !is_killed {
        if begin.elapsed() >= limit {
            recipient.kill()?;
            is_killed = true;
        } else {
            sleep(Duration::from_millis(1));
        }
    }
    let _ = running.finish();
    if !is_killed {
        recipient.await_exit()?;
        recipient.start_and_kill(limit.saturating_sub(begin.elapsed()))?;
    }
    recipient.start()?;
    let status = clone::status(&mut recipient.session()?)?;
    let whose = Whose::of(recipient)?;
    let is_new = whose == Whose::Donors;
    if is_new {
        own_data::assert_cloned(recipient, donor)?;
    } else {
        own.assert_kept(recipient)?;
    }
    // Otherwise the kill came before the clone began.
    if let Some(status) = status.filter(|status| Some(status) != before.as_ref()) {
        let told = if is_new { "Completed" } else { "Failed" };
        assert_eq!(status.state, told, "{status:?}, but {whose:?}");
    }
    clone::await_donor_idle(donor, Duration::from_secs(60))?;
    Ok(is_new)
}

/// Random numbers: xorshift.
struct Random(u64);

impl Random {
    fn part_of(&mut self, whole: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        whole.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
