// SPDX-License-Identifier: GPL-2.0-only

//! What goes wrong, the errors that tell of it, and that both sides can clone afterwards.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use clone_testkit::anyhow::{Error, Result};
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::faults::SmallDisk;
use clone_testkit::sql::{Account, server_error};
use clone_testkit::{Mysqld, Plugin, Session, check, fastrand, fixture, until, verify};

/// How long a server may take to give up what a clone that was broken off holds.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);
/// `ER_CLONE_TOO_MANY_CONCURRENT_CLONES`.
const TOO_MANY_CLONES: u16 = 3634;

/// The statement must fail with exactly this number and text.
fn assert_fails(
    session: &mut Session,
    statement: impl ToString,
    number: u16,
    text: &str,
) -> Result<()> {
    let error = session.error(statement.to_string())?;
    assert_eq!((error.number, &*error.message), (number, text));
    Ok(())
}

/// Clones to a new directory, and again while the last clone is not quite over.
fn assert_clones(recipient: &Mysqld, donor: &Mysqld) -> Result<()> {
    let directory = recipient.scratch("proof");
    let statement = Statement::instance(donor).into_directory(&directory).to_string();
    let mut session = recipient.session()?;
    until("a clone to be possible", CLEAN_UP_LIMIT, || match session.run(&statement) {
        Ok(()) => Ok(Some(())),
        Err(error) if is_busy(&error) => Ok(None),
        Err(error) => Err(error),
    })?;
    assert_eq!(clone::status(&mut session)?.unwrap().state, "Completed");
    Ok(fs::remove_dir_all(directory)?)
}

/// Whether a clone that was broken off still goes on here or at the donor.
fn is_busy(error: &Error) -> bool {
    server_error(error).is_some_and(|error| {
        error.number == TOO_MANY_CLONES || error.message.contains("Too many concurrent clone")
    })
}

/// A donor without data of its own, and a recipient.
fn pair() -> Result<(Mysqld, Mysqld)> {
    let donor = fixture::server("donor")?.start()?;
    clone::make_donor(&donor)?;
    let recipient = fixture::recipient(&donor)?;
    Ok((donor, recipient))
}

#[test]
fn wrong_directories() {
    check(|| {
        let (donor, recipient) = pair()?;
        let mut session = recipient.session()?;
        let data_dir = recipient.data_dir();
        let inside = data_dir.join("below");
        let exists = recipient.scratch("exists");
        fs::create_dir(&exists)?;
        let too_long = format!("/tmp/{}", "a".repeat(600));
        let cases = [
            ("a/b", 1525, "Incorrect path value: 'a/b'".into()),
            ("", 1525, "Incorrect path value: ''".into()),
            (&*too_long, 1680, "The path specified for DATA DIRECTORY is too long.".into()),
            (
                inside.to_str().unwrap(),
                3632,
                format!("Path is within the current data directory '{}'", inside.display()),
            ),
            (
                data_dir.to_str().unwrap(),
                1007,
                format!("Can't create database '{}'; database exists", data_dir.display()),
            ),
            (
                exists.to_str().unwrap(),
                1007,
                format!("Can't create database '{}'; database exists", exists.display()),
            ),
            (
                "/dev/null/below",
                1006,
                "Can't create database '/dev/null/below/' (errno: 20 - Not a directory)".into(),
            ),
        ];
        for (directory, number, text) in &cases {
            let directory = Path::new(directory);
            assert_fails(&mut session, Statement::local(directory), *number, text)?;
            let remote = Statement::instance(&donor).into_directory(directory);
            assert_fails(&mut session, remote, *number, text)?;
        }
        assert_fails(
            &mut session,
            "CLONE INSTANCE FROM 'a'@'b' : 3 IDENTIFIED BY ''",
            1064,
            "You have an error in your SQL syntax; check the manual that corresponds to your MySQL \
             server version for the right syntax to use near ': 3 IDENTIFIED BY ''' at line 1",
        )?;
        assert_clones(&recipient, &donor)
    });
}

#[test]
fn donors_that_are_not_listed() {
    check(|| {
        let (donor, recipient) = pair()?;
        let mut session = recipient.session()?;
        let statement = Statement::instance(&donor).into_directory(&recipient.scratch("clone"));
        let address = format!("127.0.0.1:{}", donor.port());

        session.run("SET GLOBAL clone_valid_donor_list = NULL")?;
        assert_fails(
            &mut session,
            &statement,
            3869,
            &format!(
                "Clone system configuration: {address} is not found in clone_valid_donor_list: "
            ),
        )?;
        for list in ["127.0.0.1:1,localhost:2".to_owned(), format!("localhost:{}", donor.port())] {
            clone::allow_address(&recipient, &list)?;
            assert_fails(
                &mut session,
                &statement,
                3869,
                &format!(
                    "Clone system configuration: {address} is not found in \
                     clone_valid_donor_list: {list}"
                ),
            )?;
        }
        // Refused before anything began.
        assert_eq!(clone::status(&mut session)?, None);
        assert_eq!(clone::progress(&mut session)?, []);

        // Case does not matter, nor the place in the list.
        clone::allow_address(&recipient, &format!("a:1,LocalHost:{},b:2", donor.port()))?;
        let account = clone::donor_account();
        let statement = Statement::instance_at("LOCALHOST", donor.port(), account);
        session.run(statement.into_directory(&recipient.scratch("clone")).to_string())
    });
}

#[test]
fn donors_that_cannot_be_reached() {
    check(|| {
        let (donor, recipient) = pair()?;
        let mut session = recipient.session()?;
        let directory = recipient.scratch("clone");
        let wrong = Account::new("clone_donor", "wrong");
        assert_fails(
            &mut session,
            Statement::instance_at("127.0.0.1", donor.port(), wrong).into_directory(&directory),
            3862,
            "Clone Donor Error: Connect failed: 1045 : Access denied for user \
             'clone_donor'@'localhost' (using password: YES).",
        )?;
        clone::allow_address(&recipient, "127.0.0.1:1,no-such-host.invalid:1")?;
        let account = clone::donor_account;
        assert_fails(
            &mut session,
            Statement::instance_at("127.0.0.1", 1, account()).into_directory(&directory),
            3862,
            "Clone Donor Error: Connect failed: 2003 : Can't connect to MySQL server on \
             '127.0.0.1:1' (111).",
        )?;
        let nowhere = Statement::instance_at("no-such-host.invalid", 1, account());
        let error = session.error(nowhere.into_directory(&directory).to_string())?;
        assert_eq!(error.number, 3862, "{error}");
        assert!(error.message.contains("2005 : Unknown MySQL server host"), "{error}");

        let status = clone::status(&mut session)?.unwrap();
        assert_eq!((&*status.state, status.error_number), ("Failed", 3862));
        assert_eq!(status.error_message, error.message);
        assert_eq!(status.source, "no-such-host.invalid:1");
        assert_eq!(clone::progress(&mut session)?, []);
        assert!(!directory.exists());

        clone::allow_donor(&recipient, &donor)?;
        assert_clones(&recipient, &donor)
    });
}

#[test]
fn donors_without_plugin() {
    check(|| {
        let (donor, recipient) = pair()?;
        donor.session()?.run("UNINSTALL PLUGIN clone")?;
        assert_fails(
            &mut recipient.session()?,
            Statement::instance(&donor).into_directory(&recipient.scratch("clone")),
            3862,
            "Clone Donor Error: 1524 : Plugin 'clone' is not loaded.",
        )?;
        donor.install_plugin()?;
        assert_clones(&recipient, &donor)
    });
}

#[test]
fn missing_privileges() {
    fn denied(privilege: &str) -> String {
        format!(
            "Access denied; you need (at least one of) the {privilege} privilege(s) for this operation"
        )
    }

    check(|| {
        let (donor, recipient) = pair()?;
        let mut root = recipient.session()?;
        root.run_all([
            "CREATE USER nobody",
            "CREATE USER backup",
            "GRANT BACKUP_ADMIN ON *.* TO backup",
            "CREATE USER cloner",
            "GRANT CLONE_ADMIN ON *.* TO cloner",
        ])?;
        let as_user = |user: &str| recipient.session_as(&Account::new(user, ""));
        let directory = recipient.scratch("clone");
        let local = Statement::local(&directory);
        let to_directory = Statement::instance(&donor).into_directory(&directory);
        let replacing = Statement::instance(&donor);
        for (user, statement, privilege) in [
            ("nobody", &local, "BACKUP_ADMIN"),
            ("nobody", &to_directory, "BACKUP_ADMIN"),
            ("nobody", &replacing, "CLONE_ADMIN"),
            ("backup", &replacing, "CLONE_ADMIN"),
        ] {
            assert_fails(&mut as_user(user)?, statement, 1227, &denied(privilege))?;
        }

        donor.session()?.run("REVOKE BACKUP_ADMIN ON *.* FROM clone_donor")?;
        let text = format!("Clone Donor Error: 1227 : {}.", denied("BACKUP_ADMIN"));
        assert_fails(&mut root, &to_directory, 3862, &text)?;
        let status = clone::status(&mut root)?.unwrap();
        assert_eq!((&*status.state, &*status.error_message), ("Failed", &*text));

        donor.session()?.run("GRANT BACKUP_ADMIN ON *.* TO clone_donor")?;
        as_user("backup")?.run(to_directory.to_string())?;
        fs::remove_dir_all(&directory)?;
        as_user("backup")?.run(local.to_string())
    });
}

#[test]
fn donor_is_the_recipient() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        clone::make_donor(&server)?;
        clone::allow_donor(&server, &server)?;
        server.session()?.run("CREATE DATABASE precious")?;
        assert_fails(
            &mut server.session()?,
            Statement::instance(&server),
            3862,
            "Clone Donor Error: 3871 : Clone cannot use loop back connection while cloning into \
             current data directory..",
        )?;
        let kept: u32 = server.session()?.one(
            "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'precious'",
        )?;
        assert_eq!(kept, 1);
        // To a directory, a server can clone itself over the network.
        assert_clones(&server, &server)
    });
}

/// What is not fitting is found before the recipient's data is dropped.
#[test]
fn configurations_that_do_not_fit() {
    check(|| {
        let (donor, recipient) = pair()?;
        let mut at_donor = donor.session()?;
        let mut session = recipient.session()?;
        session.run("CREATE DATABASE precious")?;
        let replacing = Statement::instance(&donor);

        at_donor.run("SET GLOBAL character_set_server = latin1")?;
        assert_fails(
            &mut session,
            &replacing,
            3868,
            "Clone Configuration character_set_server: Donor value: latin1 is different from \
             Recipient value: utf8mb4.",
        )?;
        // All differences are told of, not only the first.
        let warnings = session.warnings()?;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].2.contains("collation_server"), "{warnings:?}");
        at_donor.run("SET GLOBAL character_set_server = DEFAULT")?;

        for name in ["semisync_source.so", "rewrite_example.so"] {
            fs::remove_file(recipient.scratch("plugin").join(name))?;
        }
        at_donor.run_all([
            "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
            "INSTALL PLUGIN rewrite_example SONAME 'rewrite_example.so'",
        ])?;
        assert_fails(
            &mut session,
            &replacing,
            3870,
            "Clone Donor plugin rpl_semi_sync_source is not active in Recipient.",
        )?;
        let warnings = session.warnings()?;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].2.contains("rewrite_example"), "{warnings:?}");
        at_donor.run_all([
            "UNINSTALL PLUGIN rpl_semi_sync_source",
            "UNINSTALL PLUGIN rewrite_example",
            // This one the recipient could load.
            "INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'",
        ])?;

        at_donor.run("SET GLOBAL max_allowed_packet = 1048576")?;
        let small = "Clone needs max_allowed_packet value to be 2097152 or more. \
            Current value is 1048576";
        let text = format!("Clone Donor Error: 3957 : {small}.");
        assert_fails(&mut session, &replacing, 3862, &text)?;
        at_donor.run("SET GLOBAL max_allowed_packet = DEFAULT")?;
        session.run("SET GLOBAL max_allowed_packet = 1048576")?;
        assert_fails(&mut recipient.session()?, &replacing, 3957, small)?;
        session.run("SET GLOBAL max_allowed_packet = DEFAULT")?;

        let kept: Vec<String> = session.rows("SHOW DATABASES LIKE 'precious'")?;
        assert_eq!(kept, ["precious"]);
        assert_clones(&recipient, &donor)
    });
}

#[test]
fn pages_of_another_size() {
    check(|| {
        let donor = fixture::server("donor")?.initialise_with("--innodb-page-size=4k").start()?;
        clone::make_donor(&donor)?;
        let recipient = fixture::recipient(&donor)?;
        assert_fails(
            &mut recipient.session()?,
            Statement::instance(&donor),
            3868,
            "Clone Configuration innodb_page_size: Donor value: 4096 is different from Recipient \
             value: 16384.",
        )
    });
}

#[test]
fn one_clone_at_a_time() {
    check(|| {
        let donor = fixture::donor()?;
        let first = fixture::recipient(&donor)?;
        let second = fixture::recipient(&donor)?;
        fixture::slow_down(&first)?;
        let directory = first.scratch("clone");
        let running =
            Running::start(&first, &Statement::instance(&donor).into_directory(&directory))?;
        running.await_stage(&first, "FILE COPY")?;

        let text = "Too many concurrent clone operations. Maximum allowed - 1.";
        // As a recipient, by itself, as a donor: each has one clone.
        for statement in [
            Statement::instance(&donor),
            Statement::instance(&donor).into_directory(&first.scratch("other")),
            Statement::local(&first.scratch("other")),
        ] {
            assert_fails(&mut first.session()?, statement, TOO_MANY_CLONES, text)?;
        }
        assert_fails(
            &mut second.session()?,
            Statement::instance(&donor).into_directory(&second.scratch("clone")),
            3862,
            &format!("Clone Donor Error: 3634 : {text}."),
        )?;
        let local = Statement::local(&donor.scratch("clone"));
        assert_fails(&mut donor.session()?, local, TOO_MANY_CLONES, text)?;

        // The first one is not disturbed.
        fixture::speed_up(&first)?;
        running.finish()?;
        assert_eq!(clone::status(&mut first.session()?)?.unwrap().state, "Completed");
        assert_clones(&second, &donor)
    });
}

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
            std::thread::sleep(Duration::from_millis(random.u64(..1500)));
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
                fs::remove_dir_all(&directory)?;
            }
        }
        assert!(hits >= 3, "only {hits} of {KILLS} clones were killed in time");

        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 0")?;
        assert_clones(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        verify::assert_sound(&recipient)?;
        verify::assert_equal(&donor, &recipient)
    });
}

/// A server does not start on what a killed clone left.
#[test]
fn incomplete_directory_does_not_start() {
    check(|| {
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start(&recipient, &statement)?;
        running.await_stage(&recipient, "FILE COPY")?;
        std::thread::sleep(Duration::from_millis(300));
        running.kill_query(&recipient)?;
        running.finish().unwrap_err();
        assert!(directory.join("#clone/#status_in_progress").exists());
        let error = fixture::server("half a clone")?.adopt(&directory).start().unwrap_err();
        assert!(error.to_string().contains("did not start"), "{error}");
        fixture::speed_up(&recipient)?;
        assert_clones(&recipient, &donor)
    });
}

/// A killed clone that was to replace data leaves a server without data that can clone again.
#[test]
fn kill_while_replacing() {
    check(|| {
        let donor = fixture::donor()?;
        let mut recipient = fixture::recipient(&donor)?;
        recipient.session()?.run("CREATE DATABASE old")?;
        fixture::slow_down(&recipient)?;
        let running = Running::start(&recipient, &Statement::instance(&donor))?;
        running.await_stage(&recipient, "FILE COPY")?;
        std::thread::sleep(Duration::from_millis(300));
        running.kill_query(&recipient)?;
        let error = running.finish().unwrap_err();
        assert_eq!(server_error(&error).unwrap().number, 1317, "{error}");
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
        let running = Running::start(&recipient, &statement)?;
        running.await_stage(&recipient, "FILE COPY")?;
        let mut session = donor.session()?;
        let ids: Vec<u32> = session.rows(
            "SELECT ID FROM performance_schema.processlist WHERE USER = 'clone_donor' ORDER BY ID",
        )?;
        // The first connection is that of the data.
        session.run(format!("KILL QUERY {}", ids[0]))?;
        let error = running.finish().unwrap_err();
        let error = server_error(&error).unwrap();
        assert_eq!(
            (error.number, &*error.message),
            (3862, "Clone Donor Error: 1317 : Query execution was interrupted.")
        );
        fs::remove_dir_all(&directory)?;
        fixture::speed_up(&recipient)?;
        assert_clones(&recipient, &donor)
    });
}

/// With `clone_donor_timeout_after_network_failure = 0` the recipient tries once to find the donor again.
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
        let running = Running::start(&recipient, &statement)?;
        running.await_stage(&recipient, "FILE COPY")?;
        donor.kill()?;
        let error = running.finish().unwrap_err();
        let error = server_error(&error).unwrap();
        assert_eq!(error.number, 3862, "{error}");
        assert!(error.message.contains("Connect failed: 2003"), "{error}");
        fs::remove_dir_all(&directory)?;

        donor.start()?;
        clone::allow_donor(&recipient, &donor)?;
        fixture::speed_up(&recipient)?;
        assert_clones(&recipient, &donor)
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
        let running = Running::start(&recipient, &statement)?;
        running.await_stage(&recipient, "FILE COPY")?;
        donor.session()?.run("ALTER TABLE shop.orders ADD COLUMN more INT, ALGORITHM = COPY")?;
        let error = running.finish().unwrap_err();
        let error = server_error(&error).unwrap();
        assert_eq!(
            (error.number, &*error.message),
            (
                3862,
                "Clone Donor Error: 3633 : Concurrent DDL is performed during clone operation. Please try again.."
            )
        );
        fs::remove_dir_all(&directory)?;
        fixture::speed_up(&recipient)?;
        assert_clones(&recipient, &donor)
    });
}

#[test]
fn disk_that_is_too_small() {
    check(|| {
        let Some(disk) = SmallDisk::mount(40 << 20)? else {
            println!("skipped: not allowed to mount a tmpfs");
            return Ok(());
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
        assert_clones(&recipient, &donor)
    });
}

/// The space is there at first, and taken by somebody else meanwhile.
#[test]
fn disk_that_fills_up() {
    check(|| {
        const SIZE: u64 = 400 << 20;
        let Some(disk) = SmallDisk::mount(SIZE)? else {
            println!("skipped: not allowed to mount a tmpfs");
            return Ok(());
        };
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        let directory = disk.path().join("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start(&recipient, &statement)?;
        running.await_stage(&recipient, "FILE COPY")?;
        fill(&disk.path().join("ballast"))?;
        fixture::speed_up(&recipient)?;
        let error = running.finish().unwrap_err();
        let error = server_error(&error).unwrap();
        assert_eq!(error.number, 1026, "{error}");
        assert!(error.message.contains("errno: 28 - No space left on device"), "{error}");
        let status = clone::status(&mut recipient.session()?)?.unwrap();
        assert_eq!((&*status.state, status.error_number), ("Failed", 1026));
        assert_clones(&recipient, &donor)
    });
}

/// Writes to a file until the disk is full.
fn fill(path: &Path) -> Result<()> {
    use std::io::{ErrorKind, Write};

    let mut file = fs::File::create(path)?;
    let block = vec![0; 1 << 20];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
