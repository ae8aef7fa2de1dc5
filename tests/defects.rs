// SPDX-License-Identifier: GPL-2.0-only

//! Known defects of the stock plugin that ours must not have. They are skipped when the stock
//! plugin is under test.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::Result;
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::mysqld::Builder;
use clone_testkit::{Mysqld, Plugin, check, fixture, skip, until};

/// Runs `test` with our plugin only.
fn check_ours(test: impl FnOnce() -> Result<()>) {
    check(|| match Plugin::under_test()? {
        Plugin::Ours => test(),
        _ => skip!("a known defect of the stock plugin"),
    });
}

/// A donor with the server's own tables only.
fn empty_donor(builder: Builder) -> Result<Mysqld> {
    let donor = builder.start()?;
    clone::make_donor(&donor)?;
    Ok(donor)
}

/// Measures how fast a local clone is with `clone_max_data_bandwidth` at `limit`, MiB/s.
fn local_speed(server: &Mysqld, limit: u32) -> Result<f64> {
    let directory = server.scratch("limited");
    let mut session = server.session()?;
    session.run(format!("SET GLOBAL clone_max_data_bandwidth = {limit}"))?;
    session.run(Statement::local(&directory).to_string())?;
    fs::remove_dir_all(directory)?;
    let stages = clone::progress(&mut session)?;
    let copy = clone::file_copy(&stages);
    Ok(copy.data as f64 / copy.elapsed.unwrap().as_secs_f64() / f64::from(1 << 20))
}

#[test]
fn bandwidth_limits_are_exact() {
    check_ours(|| {
        let server = empty_donor(fixture::server("donor")?)?;
        for limit in [8, 16, 32] {
            let speed = local_speed(&server, limit)?;
            let deviation = speed / f64::from(limit) - 1.0;
            assert!(deviation.abs() < 0.1, "asked {limit} MiB/s, measured {speed:.2} MiB/s");
        }
        Ok(())
    });
}

/// Stock computes limits in 32 bits of bytes per second, so that 4097 MiB/s is 1 MiB/s: 75 s for
/// this clone.
#[test]
fn high_bandwidth_limits_do_not_wrap_around() {
    check_ours(|| {
        let server = empty_donor(fixture::server("donor")?)?;
        for limit in [4097, 1_048_576] {
            let speed = local_speed(&server, limit)?;
            assert!(speed > 8.0, "asked {limit} MiB/s, measured {speed:.2} MiB/s");
        }
        Ok(())
    });
}

/// InnoDB gives back all backup locks of the session when it has to open tablespaces first.
#[test]
fn ddl_stays_blocked_when_tablespaces_had_to_be_opened() {
    check_ours(|| {
        let builder = fixture::server("donor")?.option("--innodb-validate-tablespace-paths=OFF");
        let mut donor = fixture::donor_from(builder)?;
        // The first clone after a start is the one that opens them.
        donor.restart()?;
        let mut session = donor.session()?;
        session.run_all([
            "SET GLOBAL clone_block_ddl = ON",
            "SET GLOBAL clone_max_data_bandwidth = 16",
            "SET SESSION lock_wait_timeout = 1",
        ])?;
        let running = Running::start_copying(&donor, &Statement::local(&donor.scratch("clone")))?;
        let error = session.error("CREATE TABLE mysql.not_now (id INT PRIMARY KEY)")?;
        assert_eq!(error.number, 1205, "{error:?}");
        assert!(!running.is_finished(), "the clone was too fast for this test");
        session.run("SET GLOBAL clone_max_data_bandwidth = 0")?;
        running.finish()?;
        session.run("CREATE TABLE mysql.now (id INT PRIMARY KEY)")
    });
}

#[test]
fn sessions_read_the_tables_without_disturbing_each_other() {
    check_ours(|| {
        let server = empty_donor(fixture::server("donor")?)?;
        server.session()?.run(Statement::local(&server.scratch("clone")).to_string())?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| -> Result<u32> {
                        let mut session = server.session()?;
                        let mut reads = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let rows: Vec<(String, String)> = session.rows(
                                "SELECT STAGE, SLEEP(0.001) FROM performance_schema.clone_progress",
                            )?;
                            assert_eq!(rows.len(), 7, "{rows:?}");
                            reads += 1;
                        }
                        Ok(reads)
                    })
                })
                .collect();
            thread::sleep(Duration::from_secs(2));
            stop.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap()? > 10);
            }
            Ok(())
        })
    });
}

/// A block of 64 pages is 4 MiB at 64 KiB pages, but the stock plugin asks for 2 MiB and fails in
/// mid-clone.
#[test]
fn packets_that_are_too_small_for_a_block_are_refused_at_once() {
    check_ours(|| {
        let big_pages = |name| -> Result<Builder> {
            Ok(fixture::server(name)?
                .initialise_with("--innodb-page-size=64k")
                .option("--innodb-buffer-pool-size=128M"))
        };
        let donor = empty_donor(big_pages("donor")?)?;
        let recipient = big_pages("recipient")?.option("--max-allowed-packet=4M").start()?;
        clone::allow_donor(&recipient, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory).to_string();
        let mut session = recipient.session()?;
        let error = session.error(&statement)?;
        assert_eq!(
            (error.number, &*error.message),
            (
                3957,
                "Clone needs max_allowed_packet value to be 8388608 or more. Current value is 4194304"
            )
        );
        session.run("SET GLOBAL max_allowed_packet = 8388608")?;
        session.run(&statement)
    });
}

#[test]
fn donors_can_be_listed_by_ipv6_address() {
    check_ours(|| {
        if fs::read_to_string("/proc/net/if_inet6").unwrap_or_default().is_empty() {
            skip!("this machine has no IPv6");
        }
        let donor = empty_donor(fixture::server("donor")?.option("--bind-address=127.0.0.1,::1"))?;
        let recipient = fixture::server("recipient")?.start()?;
        let port = donor.port();
        let mut session = recipient.session()?;
        let spelling = format!("[::1]:{port}");
        // In the list, and in the statement.
        for (index, (listed, host)) in [
            (format!("[::1]:{port}"), "::1"),
            (format!("::1:{port}"), "::1"),
            (format!("::1:{port}"), "[::1]"),
            (format!("a:1,0:0:0:0:0:0:0:1:{port}"), "0::1"),
        ]
        .iter()
        .enumerate()
        {
            clone::allow_address(&recipient, listed)?;
            let statement = Statement::instance_at(host, port, clone::donor_account());
            let directory = recipient.scratch(&format!("clone{index}"));
            session.run(statement.into_directory(&directory).to_string())?;
            let source: String =
                session.one("SELECT SOURCE FROM performance_schema.clone_status")?;
            assert_eq!(source, spelling, "{listed} {host}");
        }
        clone::allow_address(&recipient, "::1:1")?;
        let statement = Statement::instance_at("[::1]", port, clone::donor_account());
        let error =
            session.error(statement.into_directory(&recipient.scratch("clone")).to_string())?;
        let text = format!(
            "Clone system configuration: {spelling} is not found in clone_valid_donor_list: ::1:1"
        );
        assert_eq!((error.number, error.message), (3869, text));
        Ok(())
    });
}

/// The variable is Percona's.
#[test]
fn plugins_that_are_excluded_may_be_missing() {
    check_ours(|| {
        let (donor, recipient) = fixture::pair()?;
        for name in ["semisync_source.so", "rewrite_example.so"] {
            fs::remove_file(recipient.scratch("plugin").join(name))?;
        }
        donor.session()?.run_all([
            "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
            "INSTALL PLUGIN rewrite_example SONAME 'rewrite_example.so'",
        ])?;
        let mut session = recipient.session()?;
        let statement = |name: &str| {
            Statement::instance(&donor).into_directory(&recipient.scratch(name)).to_string()
        };
        session.run("SET GLOBAL clone_exclude_plugins_list = 'Rewrite_Example'")?;
        let error = session.error(statement("one"))?;
        let text = "Clone Donor plugin rpl_semi_sync_source is not active in Recipient.";
        assert_eq!((error.number, &*error.message), (3870, text));
        assert_eq!(session.warnings()?.len(), 1);
        session.run(
            "SET GLOBAL clone_exclude_plugins_list = 'rewrite_example, RPL_SEMI_SYNC_SOURCE'",
        )?;
        session.run(statement("two"))?;
        let line = "'Client: Donor plugin rewrite_example is not active here, and is in \
            clone_exclude_plugins_list.'";
        assert!(recipient.log()?.contains(line));
        Ok(())
    });
}

#[test]
fn a_crash_in_mid_clone_leaves_a_failed_status() {
    check_ours(|| {
        let donor = fixture::donor()?;
        let mut recipient = fixture::recipient(&donor)?;
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 8")?;
        let running = Running::start_copying(&recipient, &Statement::instance(&donor))?;
        recipient.kill()?;
        assert!(running.finish().is_err());
        recipient.start()?;
        let mut session = recipient.session()?;
        let status = clone::status(&mut session)?.unwrap();
        assert_eq!((&*status.state, status.error_number), ("Failed", 1317));
        assert_eq!(status.error_message, "Query execution was interrupted");
        let stages = clone::progress(&mut session)?;
        assert!(stages.iter().any(|stage| stage.state == "Failed"), "{stages:?}");
        assert!(stages.iter().all(|stage| stage.state != "In Progress"), "{stages:?}");
        Ok(())
    });
}

/// KILL of a clone that is held back by a limit works within a moment, not after the rest of the
/// wait.
#[test]
fn a_limited_clone_is_killed_at_once() {
    check_ours(|| {
        let donor = empty_donor(fixture::server("donor")?)?;
        let recipient = fixture::recipient(&donor)?;
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 1")?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        let killed = Instant::now();
        running.kill_query(&recipient)?;
        until("the clone to end", Duration::from_secs(20), || {
            Ok(running.is_finished().then_some(()))
        })?;
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
        assert!(running.finish().is_err());
        Ok(())
    });
}
