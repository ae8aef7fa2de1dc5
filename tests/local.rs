// SPDX-License-Identifier: GPL-2.0-only

//! `CLONE LOCAL`: the donor copies its own data to a directory, and a server is started on that.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, Instant};

use clone_testkit::anyhow::Result;
use clone_testkit::clone::{self, Running, STAGES, Statement};
use clone_testkit::faults::StuckDdl;
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, check, dataset, fixture, verify};

/// Clones to a directory and starts a server on it.
fn clone_and_boot(donor: &mut Mysqld) -> Result<Mysqld> {
    let directory = donor.scratch("clone");
    clone::run(donor, &Statement::local(&directory))?;
    fixture::server("clone")?.adopt(&directory).start()
}

#[test]
fn everything_arrives() {
    check(|| {
        let mut donor = fixture::donor()?;
        let directory = donor.scratch("clone");
        let report = clone::run(&mut donor, &Statement::local(&directory))?;

        let status = &report.status;
        assert_eq!((status.id, &*status.state, status.error_number), (1, "Completed", 0));
        assert!(status.pid > 0, "{status:?}");
        assert_eq!(status.source, "LOCAL INSTANCE");
        assert_eq!(status.destination, format!("{}/", directory.display()));
        assert_eq!(status.error_message, "");
        assert!(status.begin_time.is_some() && status.end_time.is_some(), "{status:?}");
        // The coordinates are known only to the server that recovers the clone.
        assert_eq!((&*status.binlog_file, status.binlog_position), ("", 0));

        let names: Vec<_> = report.stages.iter().map(|stage| &*stage.name).collect();
        assert_eq!(names, STAGES);
        for stage in &report.stages {
            let later = ["RESTART", "RECOVERY"].contains(&&*stage.name);
            let state = if later { "Not Started" } else { "Completed" };
            assert_eq!(stage.state, state, "{stage:?}");
            assert_eq!(stage.elapsed.is_none(), later, "{stage:?}");
            assert_eq!(stage.network, 0, "{stage:?}");
            assert_eq!((stage.data_speed, stage.network_speed), (0, 0), "{stage:?}");
        }
        let copied = &report.stages[1];
        assert!(copied.data > dataset::size(&mut donor.session()?)?, "{copied:?}");
        assert!(copied.estimate >= copied.data, "{copied:?}");
        assert!(report.stages[3].data > 0, "redo: {:?}", report.stages[3]);

        let clone = fixture::server("clone")?.adopt(&directory).start()?;
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)?;

        let mut session = clone.session()?;
        let there = clone::status(&mut session)?.unwrap();
        assert_eq!((&*there.state, there.error_number, there.pid), ("Completed", 0, 0));
        assert_eq!(there.source, "LOCAL INSTANCE");
        assert_eq!(there.destination, "LOCAL INSTANCE");
        let (file, executed): (String, String) = donor.session()?.one(
            "SELECT SUBSTRING_INDEX(LOCAL -> '$.binary_log_file', '\"', -2), @@GLOBAL.gtid_executed \
             FROM performance_schema.log_status",
        )?;
        assert_eq!(there.binlog_file, file.trim_end_matches('"'));
        assert_eq!(there.gtid_executed, executed.replace('\n', ""));
        for stage in clone::progress(&mut session)? {
            assert_eq!(stage.state, "Completed", "{stage:?}");
        }
        let uuids = [&donor, &clone].map(|server| -> String {
            server.session().unwrap().one("SELECT @@server_uuid").unwrap()
        });
        assert_ne!(uuids[0], uuids[1]);
        Ok(())
    });
}

fn exact_under(load: Load, from: StartFrom) {
    check(|| {
        let mut donor = fixture::donor()?;
        let writers = Writers::start(&donor, load)?;
        writers.await_transactions(50)?;
        let clone = clone_and_boot(&mut donor)?;
        let status = clone::status(&mut clone.session()?)?.unwrap();
        replica::assert_exact(&clone, &donor, writers, &status, from)
    });
}

#[test]
fn exact_under_writes() {
    exact_under(Load { threads: 4, ..Load::default() }, StartFrom::File);
}

#[test]
fn exact_under_writes_and_ddl() {
    exact_under(Load { ddl: true, ..Load::default() }, StartFrom::Gtid);
}

/// Files that are read through the page cache may be copied by the kernel.
#[test]
fn buffered_files_by_one_thread() {
    check(|| {
        let builder = fixture::server("donor")?
            .option("--innodb-flush-method=fsync")
            .option("--clone-max-concurrency=1")
            .option("--clone-autotune-concurrency=OFF");
        let mut donor = fixture::donor_from(builder)?;
        let clone = clone_and_boot(&mut donor)?;
        assert!(clone::progress(&mut donor.session()?)?.iter().all(|stage| stage.threads <= 1));
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

#[test]
fn direct_io_by_eight_threads() {
    check(|| {
        let builder = fixture::server("donor")?
            .option("--innodb-flush-method=O_DIRECT")
            .option("--clone-max-concurrency=8")
            .option("--clone-autotune-concurrency=OFF")
            .option("--clone-buffer-size=1M");
        let mut donor = fixture::donor_from(builder)?;
        let clone = clone_and_boot(&mut donor)?;
        let stages = clone::progress(&mut donor.session()?)?;
        assert_eq!(stages[1].threads, 8, "{:?}", stages[1]);
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

#[test]
fn clone_of_a_clone() {
    check(|| {
        let mut donor = fixture::donor()?;
        let mut first = clone_and_boot(&mut donor)?;
        let second = clone_and_boot(&mut first)?;
        verify::assert_sound(&second)?;
        verify::assert_equal(&donor, &second)?;
        // One server can make several clones.
        drop(second);
        let third = clone_and_boot(&mut first)?;
        verify::assert_equal(&donor, &third)
    });
}

/// What is open is rolled back in the clone, what is prepared stays prepared.
#[test]
fn open_transactions() {
    check(|| {
        let mut donor = fixture::server("donor")?.start()?;
        let mut setup = donor.session()?;
        setup.run_all([
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v TEXT)",
            "INSERT INTO d.t VALUES (1, 'committed')",
        ])?;
        let mut open = donor.session()?;
        open.run_all([
            "BEGIN",
            "INSERT INTO d.t VALUES (2, 'open')",
            "DELETE FROM d.t WHERE id = 1",
        ])?;
        let mut prepared = donor.session()?;
        prepared.run_all([
            "XA START 'x1'",
            "INSERT INTO d.t VALUES (3, 'prepared')",
            "XA END 'x1'",
            "XA PREPARE 'x1'",
        ])?;

        let clone = clone_and_boot(&mut donor)?;
        let mut session = clone.session()?;
        let rows: Vec<(u32, String)> = session.rows("SELECT * FROM d.t")?;
        assert_eq!(rows, [(1, "committed".into())]);
        let xids: Vec<(u32, u32, u32, String)> = session.rows("XA RECOVER")?;
        assert_eq!(xids, [(1, 2, 0, "x1".into())]);
        session.run("XA COMMIT 'x1'")?;
        assert_eq!(session.one::<u32>("SELECT COUNT(*) FROM d.t")?, 2);
        Ok(())
    });
}

/// The server empties tables of other engines when it first starts on a clone; their files are not
/// copied.
#[test]
fn other_engines_arrive_empty() {
    check(|| {
        let mut donor = fixture::server("donor")?.start()?;
        donor.session()?.run_all([
            "CREATE DATABASE d",
            "CREATE TABLE d.myisam (id INT NOT NULL) ENGINE = MyISAM",
            "CREATE TABLE d.csv (id INT NOT NULL) ENGINE = CSV",
            "CREATE TABLE d.innodb (id INT NOT NULL)",
            "INSERT INTO d.myisam VALUES (1)",
            "INSERT INTO d.csv VALUES (1)",
            "INSERT INTO d.innodb VALUES (1)",
        ])?;
        let clone = clone_and_boot(&mut donor)?;
        for (table, rows) in [("myisam", 0), ("csv", 0), ("innodb", 1)] {
            let count: u32 = clone.session()?.one(format!("SELECT COUNT(*) FROM d.{table}"))?;
            assert_eq!(count, rows, "{table}");
        }
        Ok(())
    });
}

#[test]
fn without_binary_log() {
    check(|| {
        let mut donor = fixture::server("donor")?.option("--skip-log-bin").start()?;
        let clone = clone_and_boot(&mut donor)?;
        let status = clone::status(&mut clone.session()?)?.unwrap();
        assert_eq!((&*status.state, &*status.binlog_file), ("Completed", ""));
        assert_eq!(status.binlog_position, 0);
        verify::assert_equal(&donor, &clone)
    });
}

#[test]
fn directory_names() {
    check(|| {
        let donor = fixture::server("donor")?.start()?;
        let mut session = donor.session()?;
        let base = donor.scratch("not there yet");
        for name in ["plain", "with 'quotes' and spaces", "größe 数据", "trailing/"] {
            let directory = base.join(name);
            session.run(Statement::local(&directory).to_string())?;
            assert!(directory.join("ibdata1").exists(), "{name}");
            let status = clone::status(&mut session)?.unwrap();
            assert_eq!(status.destination, format!("{}/", directory.display()).replace("//", "/"));
            std::fs::remove_dir_all(&directory)?;
        }
        // The equals sign may be left out.
        let directory = base.join("no equals sign");
        session.run(format!("CLONE LOCAL DATA DIRECTORY '{}'", directory.display()))?;
        assert!(directory.join("ibdata1").exists());
        Ok(())
    });
}

#[test]
fn ddl_is_blocked_on_request() {
    check(|| {
        let donor = fixture::donor()?;
        let mut session = donor.session()?;
        session
            .run_all(["SET GLOBAL clone_block_ddl = ON", "SET SESSION lock_wait_timeout = 1"])?;
        fixture::slow_down(&donor)?;
        let running = Running::start_copying(&donor, &Statement::local(&donor.scratch("clone")))?;
        let error = session.error("CREATE DATABASE blocked")?;
        assert_eq!(error.number, 1205, "{error}");
        // Writing rows is not DDL.
        session.run("UPDATE shop.orders SET note = 'changed' WHERE id < 10")?;
        running.kill_query(&donor)?;
        running.finish().unwrap_err();
        session.run("CREATE DATABASE not_blocked")
    });
}

#[test]
fn clone_waits_for_ddl() {
    check(|| {
        let donor = fixture::server("donor")?.option("--clone-block-ddl=ON").start()?;
        let statement = Statement::local(&donor.scratch("clone"));
        let stuck = StuckDdl::start(&donor)?;
        let mut session = donor.session()?;
        session.run("SET GLOBAL clone_ddl_timeout = 1")?;
        let begin = Instant::now();
        let error = session.error(statement.to_string())?;
        assert_eq!(
            (error.number, &*error.message),
            (1205, "Lock wait timeout exceeded; try restarting transaction")
        );
        // mysqld counts the second by the system clock, which may be set meanwhile.
        assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
        let status = clone::status(&mut session)?.unwrap();
        assert_eq!((&*status.state, status.error_number), ("Failed", 1205));

        session.run("SET GLOBAL clone_ddl_timeout = 60")?;
        let running = Running::start(&donor, &statement)?;
        clone_testkit::until("the clone to wait for the lock", Duration::from_secs(20), || {
            session.first::<u32>(
                "SELECT 1 FROM performance_schema.processlist WHERE STATE = 'Waiting for backup lock'",
            )
        })?;
        stuck.release()?;
        running.finish()?;
        assert_eq!(clone::status(&mut session)?.unwrap().state, "Completed");
        Ok(())
    });
}
