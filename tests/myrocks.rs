// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB and MyRocks in one clone, on a server that has both. Neither Debian's nor Ubuntu's MySQL
//! does, so these tests are for a build of Percona Server:
//! `MYSQL_BASEDIR=DIRECTORY cargo nextest run --test myrocks --run-ignored all`. They pass on
//! 8.0.27-18.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clone_testkit::anyhow::{Result, anyhow, ensure};
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::{Mysqld, check, dataset, fixture, verify};

const STOCK: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";

/// A server with MyRocks, not started yet.
fn server(name: &str, adopt: Option<&Path>) -> Result<Mysqld> {
    let mut builder = fixture::server(name)?.install_later().supervised();
    if let Some(directory) = adopt {
        builder = builder.adopt(directory);
    }
    let mut server = builder.create()?;
    server.add_option("--plugin-load-add=rocksdb=ha_rocksdb.so");
    Ok(server)
}

/// As [`server`], with what puts clones in place when it starts.
fn replaceable(name: &str) -> Result<Mysqld> {
    let mut server = server(name, None)?;
    let file = server.plugin().file_name().ok_or_else(|| anyhow!("no plugin"))?;
    server.add_option(&format!("--early-plugin-load=clone_swap={file}"));
    server.add_option("--clone-swap=ON");
    server.start()?;
    server.install_plugin()?;
    Ok(server)
}

/// With data in both engines.
fn donor() -> Result<Mysqld> {
    let mut donor = server("donor", None)?;
    donor.start()?;
    donor.install_plugin()?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    replica::make_source(&donor)?;
    donor.session()?.run_all([
        "CREATE DATABASE both_engines",
        "CREATE TABLE both_engines.i (n INT PRIMARY KEY, t TEXT) ENGINE = InnoDB",
        "CREATE TABLE both_engines.r (n INT PRIMARY KEY, t TEXT, KEY (t(20))) ENGINE = ROCKSDB",
        // Enough for several SSTs.
        "INSERT INTO both_engines.r SELECT -1 - n, REPEAT(MD5(n), 40) FROM ( \
         WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 999) \
         SELECT a.n * 1000 + b.n AS n FROM (SELECT n FROM s WHERE n < 20) a, s b) AS numbers",
        "SET GLOBAL rocksdb_force_flush_memtable_now = ON",
    ])?;
    Ok(donor)
}

/// That may clone from `donor`, but has nothing that puts a clone in the place of its data.
fn recipient(donor: &Mysqld) -> Result<Mysqld> {
    let mut recipient = server("recipient", None)?;
    recipient.start()?;
    recipient.install_plugin()?;
    clone::allow_donor(&recipient, donor)?;
    Ok(recipient)
}

/// Transactions 1, 2, 3, ... each with a row in either engine.
fn write(donor: &Mysqld, stop: &AtomicBool) -> Result<()> {
    let mut session = donor.session()?;
    let from: i64 = session.one("SELECT GREATEST(0, MAX(n)) FROM both_engines.r")?;
    for number in from + 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        session.run_all([
            "BEGIN",
            &*format!("INSERT INTO both_engines.i VALUES ({number}, MD5({number}))"),
            &*format!("INSERT INTO both_engines.r VALUES ({number}, MD5({number}))"),
            "COMMIT",
        ])?;
    }
    Ok(())
}

/// The last transaction in InnoDB and in MyRocks, of which all others are there as well.
fn transactions(server: &Mysqld) -> Result<(i64, i64)> {
    let mut session = server.session()?;
    let mut last = |table: &str| -> Result<i64> {
        let (last, count): (i64, i64) = session.one(format!(
            "SELECT COALESCE(MAX(n), 0), COUNT(*) FROM both_engines.{table} WHERE n > 0"
        ))?;
        ensure!(last == count, "{table}: {count} transactions, and the last is {last}");
        Ok(last)
    };
    Ok((last("i")?, last("r")?))
}

/// Runs `work` while transactions are committed.
fn under_writes<T: Send>(donor: &Mysqld, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(donor, &stop));
        thread::sleep(Duration::from_millis(300));
        let done = work();
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        done
    })
}

fn is_at_one_point(name: &str, cloned: &Mysqld, donor: &Mysqld) -> Result<()> {
    let (innodb, myrocks) = transactions(cloned)?;
    let (all, _) = transactions(donor)?;
    println!("{name}: InnoDB has {innodb} transactions, MyRocks {myrocks}, of {all}");
    ensure!(innodb == myrocks, "{name}: torn");
    ensure!(0 < innodb && innodb < all, "{name}: the donor went on");
    let rows = "SELECT COUNT(*), SUM(CRC32(t)) FROM both_engines.r WHERE n < 0";
    let of = |server: &Mysqld| server.session()?.one::<(i64, i64)>(rows);
    ensure!(of(cloned)? == of(donor)?, "{name}: rows from before");
    Ok(())
}

#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY of a server with MyRocks"]
fn both_are_cloned_to_a_directory() {
    check(|| {
        let donor = donor()?;
        let recipient = recipient(&donor)?;
        for name in ["remote", "local"] {
            let directory = recipient.scratch(name);
            under_writes(&donor, || match name {
                "local" => donor.session()?.run(Statement::local(&directory).to_string()),
                _ => {
                    let statement = Statement::instance(&donor).into_directory(&directory);
                    recipient.session()?.run(statement.to_string())
                }
            })?;
            // It needs nothing but MyRocks: the files are in place.
            let mut cloned = server(&format!("cloned-{name}"), Some(&directory))?;
            cloned.start()?;
            is_at_one_point(name, &cloned, &donor)?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY of a server with MyRocks"]
fn both_replace_what_the_recipient_had_and_replicate_from_there() {
    check(|| {
        let donor = donor()?;
        let mut recipient = replaceable("recipient")?;
        recipient.session()?.run_all([
            "CREATE DATABASE old",
            "CREATE TABLE old.r (n INT PRIMARY KEY) ENGINE = ROCKSDB",
        ])?;
        clone::allow_donor(&recipient, &donor)?;
        let report =
            under_writes(&donor, || clone::run(&mut recipient, &Statement::instance(&donor)))?;
        is_at_one_point("in place", &recipient, &donor)?;
        let old = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'old'";
        ensure!(recipient.session()?.one::<u32>(old)? == 0);
        replica::attach(&recipient, &donor, &report.status, StartFrom::Gtid)?;
        replica::catch_up(&recipient, &donor)?;
        verify::assert_equal(&donor, &recipient)?;
        ensure!(transactions(&recipient)? == transactions(&donor)?);
        // What was there before goes with the next start at the latest.
        recipient.restart()?;
        ensure!(!recipient.data_dir().join(".rocksdb/.clone_saved").exists());
        ensure!(transactions(&recipient)? == transactions(&donor)?);
        Ok(())
    });
}

#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY of a server with MyRocks"]
fn a_server_that_could_not_put_it_in_place_keeps_its_data() {
    check(|| {
        let donor = donor()?;
        let mut recipient = server("recipient", None)?;
        recipient.start()?;
        recipient.install_plugin()?;
        recipient.session()?.run("CREATE DATABASE kept")?;
        clone::allow_donor(&recipient, &donor)?;
        let error = recipient.session()?.error(Statement::instance(&donor).to_string())?;
        println!("{error}");
        ensure!(error.number == 1235 && error.message.contains("early-plugin-load"), "{error}");
        recipient.session()?.run("DROP DATABASE kept")
    });
}

#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY of a server with MyRocks"]
fn a_stock_peer_gets_no_half_of_a_server() {
    check(|| {
        for stock_is_donor in [true, false] {
            let mut donor = server("donor", None)?;
            let mut recipient = server("recipient", None)?;
            for (server, is_stock) in
                [(&mut donor, stock_is_donor), (&mut recipient, !stock_is_donor)]
            {
                server.start()?;
                match is_stock {
                    true => {
                        server.session()?.run(STOCK)?;
                    }
                    false => server.install_plugin()?,
                }
            }
            clone::make_donor(&donor)?;
            clone::allow_donor(&recipient, &donor)?;
            let directory = recipient.scratch("clone");
            let statement = Statement::instance(&donor).into_directory(&directory).to_string();
            let error = recipient.session()?.error(&statement)?;
            println!("stock donor {stock_is_donor}: {error}");
            let expected = if stock_is_donor { 1235 } else { 3862 };
            ensure!(error.number == expected && error.message.contains("ROCKSDB"), "{error}");
            ensure!(error.message.contains("this clone plugin"), "{error}");
            donor.session()?.run("DO 1")?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY of a server with MyRocks"]
fn a_long_statement_is_waited_for_and_kill_ends_that() {
    check(|| {
        let donor = donor()?;
        let recipient = recipient(&donor)?;
        let mut blocker = donor.session()?;
        blocker.run_all(["BEGIN", "LOCK TABLES both_engines.i WRITE"])?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start(&recipient, &statement)?;
        thread::sleep(Duration::from_secs(8));
        ensure!(!running.is_finished(), "commits could not be blocked");
        running.kill_query(&recipient)?;
        let error = running.failure()?;
        ensure!(error.number == 1317, "{error}");
        blocker.run("UNLOCK TABLES")?;
        // Nothing is held any more, on either side.
        fixture::assert_clones(&recipient, &donor)?;
        donor.session()?.run("INSERT INTO both_engines.i VALUES (1000000, '')")
    });
}

#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY of a server with MyRocks"]
fn uninstall_takes_the_functions_back() {
    check(|| {
        let mut donor = server("donor", None)?;
        donor.start()?;
        for round in 0..3 {
            donor.install_plugin()?;
            let directory = donor.scratch(&format!("clone-{round}"));
            donor.session()?.run(Statement::local(&directory).to_string())?;
            ensure!(directory.join(".rocksdb/CURRENT").exists(), "round {round}");
            donor.session()?.run("UNINSTALL PLUGIN clone")?;
        }
        // The stock plugin finds an engine without a clone interface, as before.
        donor.session()?.run(STOCK)?;
        let directory = donor.scratch("stock");
        donor.session()?.run(Statement::local(&directory).to_string())?;
        ensure!(!directory.join(".rocksdb").exists());
        Ok(())
    });
}
