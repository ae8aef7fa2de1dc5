// SPDX-License-Identifier: GPL-2.0-only

//! What is refused before data moves, and with which error.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use clone_testkit::anyhow::Result;
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::sql::Account;
use clone_testkit::{Session, check, fixture};

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

#[test]
fn wrong_directories() {
    check(|| {
        let (donor, recipient) = fixture::pair()?;
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
        fixture::assert_clones(&recipient, &donor)
    });
}

#[test]
fn donors_that_are_not_listed() {
    check(|| {
        let (donor, recipient) = fixture::pair()?;
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
        let (donor, recipient) = fixture::pair()?;
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
        fixture::assert_clones(&recipient, &donor)
    });
}

#[test]
fn donors_without_plugin() {
    check(|| {
        let (donor, recipient) = fixture::pair()?;
        donor.session()?.run("UNINSTALL PLUGIN clone")?;
        assert_fails(
            &mut recipient.session()?,
            Statement::instance(&donor).into_directory(&recipient.scratch("clone")),
            3862,
            "Clone Donor Error: 1524 : Plugin 'clone' is not loaded.",
        )?;
        donor.install_plugin()?;
        fixture::assert_clones(&recipient, &donor)
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
        let (donor, recipient) = fixture::pair()?;
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
        fixture::assert_clones(&server, &server)
    });
}

/// The errors of the last statement, without its warnings.
fn errors(session: &mut Session) -> Result<Vec<(String, u16, String)>> {
    let all = session.warnings()?.into_iter();
    Ok(all.filter(|(level, ..)| level == "Error").collect())
}

/// What is not fitting is found before the recipient's data is dropped.
#[test]
fn configurations_that_do_not_fit() {
    check(|| {
        let (donor, recipient) = fixture::pair()?;
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
        let warnings = errors(&mut session)?;
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
        let warnings = errors(&mut session)?;
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
        fixture::assert_clones(&recipient, &donor)
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
        let running = Running::start_copying(
            &first,
            &Statement::instance(&donor).into_directory(&directory),
        )?;

        let text = "Too many concurrent clone operations. Maximum allowed - 1.";
        // As a recipient, by itself, as a donor: each has one clone.
        for statement in [
            Statement::instance(&donor),
            Statement::instance(&donor).into_directory(&first.scratch("other")),
            Statement::local(&first.scratch("other")),
        ] {
            assert_fails(&mut first.session()?, statement, 3634, text)?;
        }
        assert_fails(
            &mut second.session()?,
            Statement::instance(&donor).into_directory(&second.scratch("clone")),
            3862,
            &format!("Clone Donor Error: 3634 : {text}."),
        )?;
        let local = Statement::local(&donor.scratch("clone"));
        assert_fails(&mut donor.session()?, local, 3634, text)?;

        // The first one is not disturbed.
        fixture::speed_up(&first)?;
        running.finish()?;
        assert_eq!(clone::status(&mut first.session()?)?.unwrap().state, "Completed");
        fixture::assert_clones(&second, &donor)
    });
}
