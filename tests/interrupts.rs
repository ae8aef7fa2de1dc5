// SPDX-License-Identifier: GPL-2.0-only

//! What breaks a clone off in its midst, the error that tells of it, and that both sides can clone
//! afterwards.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::ensure;
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::faults::SmallDisk;
use clone_testkit::sql::server_error;
use clone_testkit::{Plugin, check, fastrand, fixture, skip, verify};

#[test]
fn kill_query_at_any_moment() {
    const KILLS: u64 = 10;
    /// What the stock plugin now and then tells instead: that its own connections broke.
    const STOCK_NETWORK_ERRORS: [u16; 4] = [1158, 1159, 1160, 1161];

    check(|| {
        let donor = fixture::donor()?;
        let mut recipient = fixture::recipient(&donor)?;
        // Long enough to be hit in its midst, by one thread and by several.
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 50")?;
        let mut random = fastrand::Rng::with_seed(17);
        let mut hits = 0;
        for kill in 0..KILLS {
            let autotune = if kill % 2 == 0 { "ON" } else { "OFF" };
            recipient
                .session()?
                .run(format!("SET GLOBAL clone_autotune_concurrency = {autotune}"))?;
            let directory = recipient.scratch(&format!("killed-{kill}"));
            let statement = if kill % 3 == 2 {
                Statement::local(&directory)
            } else {
                Statement::instance(&donor).into_directory(&directory)
            };
            let running = Running::start(&recipient, &statement)?;
            sleep(Duration::from_millis(random.u64(..1500)));
            running.kill_query(&recipient)?;
            let result = running.finish();
            let status = clone::status(&mut recipient.session()?)?.unwrap();
            match result {
                Ok(()) => assert_eq!(status.state, "Completed"),
                Err(error) => {
                    hits += 1;
                    let error = server_error(&error).unwrap();
                    if STOCK_NETWORK_ERRORS.contains(&error.number)
                        && recipient.plugin() == Plugin::Stock
                    {
                        continue;
                    }
                    assert_eq!(
                        (error.number, &*error.message),
                        (1317, "Query execution was interrupted"),
                        "kill {kill}"
                    );
                    assert_eq!((&*status.state, status.error_number), ("Failed", 1317));
                }
            }
            if directory.exists() {
                fixture::remove_rest(&directory)?;
            }
            // The donor learns of the kill a moment later.
            clone::await_donor_idle(&donor, Duration::from_secs(30))?;
        }
        assert!(hits >= 3, "only {hits} of {KILLS} clones were killed in time");

        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 0")?;
        fixture::assert_clones(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        verify::assert_sound(&recipient)?;
        verify::assert_equal(&donor, &recipient)
    });
}

/// A host that takes connections, and never says a word.
#[test]
fn kill_query_while_the_donor_does_not_answer() {
    check(|| {
        let mut recipient = fixture::server("recipient")?.start()?;
        let silent = TcpListener::bind("127.0.0.1:0")?;
        let port = silent.local_addr()?.port();
        clone::allow_address(&recipient, &format!("127.0.0.1:{port}"))?;
        let statement = Statement::instance_at("127.0.0.1", port, clone::donor_account());
        let statement = statement.into_directory(&recipient.scratch("clone"));
        let running = Running::start(&recipient, &statement)?;
        let _connection = silent.accept()?;
        let killed = Instant::now();
        running.kill_query(&recipient)?;
        let error = running.failure()?;
        assert_eq!((error.number, &*error.message), (1317, "Query execution was interrupted"));
        // The stock plugin waits for connect_timeout, 10 seconds.
        assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
        // The thread that waits for the donor holds nobody up.
        recipient.session()?.run("SELECT 1")?;
        recipient.stop()
    });
}

/// A server does not start on what a killed clone left, if the directory stays.
#[test]
fn incomplete_directory_does_not_start() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = fixture::server("recipient")?;
        let builder = builder.option("--loose-clone-keep-failed-directory=ON");
        let recipient = fixture::recipient_from(builder, &donor)?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        sleep(Duration::from_millis(300));
        running.kill_query(&recipient)?;
        running.finish().unwrap_err();
        assert!(directory.join("#clone/#status_in_progress").exists());
        let error = fixture::server("half a clone")?.adopt(&directory).start().unwrap_err();
        assert!(error.to_string().contains("did not start"), "{error}");
        fixture::speed_up(&recipient)?;
        fixture::assert_clones(&recipient, &donor)
    });
}

/// Where data is dropped first, a killed clone leaves a server without data that can clone again.
#[test]
fn kill_while_replacing() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = fixture::server("recipient")?.option("--loose-clone-keep-data=OFF");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        recipient.session()?.run("CREATE DATABASE old")?;
        fixture::slow_down(&recipient)?;
        let running = Running::start_copying(&recipient, &Statement::instance(&donor))?;
        sleep(Duration::from_millis(300));
        running.kill_query(&recipient)?;
        let error = running.failure()?;
        assert_eq!(error.number, 1317, "{error}");
        assert!(recipient.is_running()?);
        let schemas: Vec<String> = recipient.session()?.rows("SHOW DATABASES")?;
        assert_eq!(schemas, ["information_schema", "mysql", "performance_schema", "sys"]);
        recipient.restart()?;
        clone::allow_donor(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        verify::assert_sound(&recipient)?;
        verify::assert_equal(&donor, &recipient)
    });
}

/// The donor side of a clone is a session that can be killed like any other.
#[test]
fn kill_at_the_donor() {
    check(|| {
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        let mut session = donor.session()?;
        let ids: Vec<u32> = session.rows(
            "SELECT ID FROM performance_schema.processlist WHERE USER = 'clone_donor' ORDER BY ID",
        )?;
        // The first connection is that of the data.
        session.run(format!("KILL QUERY {}", ids[0]))?;
        let error = running.failure()?;
        let expected =
            "Clone Donor Error: 1317 : Query execution was interrupted (by KILL at the donor; ";
        ensure!(error.number == 3862 && error.message.starts_with(expected), "{error}");
        fixture::remove_rest(&directory)?;
        fixture::speed_up(&recipient)?;
        fixture::assert_clones(&recipient, &donor)
    });
}

/// With `clone_donor_timeout_after_network_failure = 0` the recipient tries once to find the donor
/// again.
#[test]
fn donor_dies() {
    check(|| {
        let builder =
            fixture::server("donor")?.option("--clone-donor-timeout-after-network-failure=0");
        let mut donor = fixture::donor_from(builder)?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        donor.kill()?;
        let error = running.failure()?;
        assert_eq!(error.number, 3862, "{error}");
        assert!(error.message.contains("Connect failed: 2003"), "{error}");
        fixture::remove_rest(&directory)?;

        donor.start()?;
        clone::allow_donor(&recipient, &donor)?;
        fixture::speed_up(&recipient)?;
        fixture::assert_clones(&recipient, &donor)
    });
}

/// `clone_ddl_timeout = 0` lets DDL at the donor end the clone.
#[test]
fn ddl_ends_the_clone_on_request() {
    check(|| {
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        recipient.session()?.run("SET GLOBAL clone_ddl_timeout = 0")?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        donor.session()?.run("ALTER TABLE shop.orders ADD COLUMN more INT, ALGORITHM = COPY")?;
        let error = running.failure()?;
        assert_eq!(
            (error.number, &*error.message),
            (
                3862,
                "Clone Donor Error: 3633 : Concurrent DDL is performed during clone operation. Please try again.."
            )
        );
        fixture::remove_rest(&directory)?;
        fixture::speed_up(&recipient)?;
        fixture::assert_clones(&recipient, &donor)
    });
}

#[test]
fn disk_that_is_too_small() {
    check(|| {
        let Some(disk) = SmallDisk::mount(40 << 20)? else {
            skip!("not allowed to mount a tmpfs");
        };
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        let mut session = recipient.session()?;
        for (name, statement) in [
            ("remote", Statement::instance(&donor).into_directory(&disk.path().join("remote"))),
            ("local", Statement::local(&disk.path().join("local"))),
        ] {
            let error = session.error(statement.to_string())?;
            assert_eq!(error.number, 3873, "{error}");
            assert!(error.message.starts_with("Clone estimated database size is "), "{error}");
            assert!(error.message.contains("Available space "), "{error}");
            let status = clone::status(&mut session)?.unwrap();
            assert_eq!((&*status.state, status.error_number), ("Failed", 3873), "{name}");
        }
        fixture::assert_clones(&recipient, &donor)
    });
}

/// The space is there at first, and taken by somebody else meanwhile.
#[test]
fn disk_that_fills_up() {
    check(|| {
        const SIZE: u64 = 400 << 20;
        let Some(disk) = SmallDisk::mount(SIZE)? else {
            skip!("not allowed to mount a tmpfs");
        };
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        let error = fixture::fill_disk_under_clone(&recipient, &donor, &disk)?;
        assert_eq!(error.number, 1026, "{error}");
        assert!(error.message.contains("errno: 28 - No space left on device"), "{error}");
        let status = clone::status(&mut recipient.session()?)?.unwrap();
        assert_eq!((&*status.state, status.error_number), ("Failed", 1026));
        fixture::assert_clones(&recipient, &donor)
    });
}
