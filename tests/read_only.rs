// SPDX-License-Identifier: GPL-2.0-only

//! Servers whose InnoDB changes nothing: they start with the plugin in the option file, and nothing
//! is cloned.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Statement};
use clone_testkit::{Mysqld, Plugin, check, fixture, skip};

/// Options, and how errors and the log name the setting.
const SETTINGS: [(&str, &str); 3] = [
    ("--innodb-force-recovery=4", "innodb_force_recovery=4"),
    ("--innodb-force-recovery=6", "innodb_force_recovery=6"),
    ("--innodb-read-only=ON", "innodb_read_only=ON"),
];

/// The stock plugin does not let such a server start.
fn check_ours(test: impl FnOnce() -> Result<()>) {
    check(|| match Plugin::under_test()? {
        Plugin::Ours => test(),
        _ => skip!("the stock plugin stops such a server"),
    });
}

fn refusal(setting: &str) -> String {
    format!(
        "Clone system configuration: with {setting} InnoDB changes nothing. Restart this server \
         without this setting to clone"
    )
}

/// Starts the server with one option more, which the next start does not have.
fn start_with(server: &mut Mysqld, option: &str) -> Result<()> {
    server.add_option(option);
    server.start()
}

#[test]
fn the_server_starts_and_refuses_to_clone() {
    check_ours(|| {
        for (option, setting) in SETTINGS {
            let builder = fixture::server("server")?.option("--clone=FORCE_PLUS_PERMANENT");
            let mut server = builder.start()?;
            if setting.contains("recovery") {
                // The tables stay in the data dictionary. (A server that must recover does not
                // start with `innodb_read_only`.)
                server.kill()?;
            } else {
                server.stop()?;
            }
            start_with(&mut server, option)?;
            let mut session = server.session()?;
            let status: String = session.one(
                "SELECT PLUGIN_STATUS FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'",
            )?;
            assert_eq!(status, "ACTIVE");
            for table in ["clone_status", "clone_progress"] {
                let error = session.error(format!("SELECT * FROM performance_schema.{table}"))?;
                assert_eq!(error.number, 1146, "{error}");
            }
            let warning = format!(
                "[Warning] [MY-013272] [Clone] Plugin Clone reported: 'Client: \
                 performance_schema.clone_status and clone_progress are absent, and CLONE is \
                 refused: with {setting} InnoDB changes nothing."
            );
            ensure!(server.log()?.contains(&warning), "{}", server.log()?);
            let directory = server.scratch("clone");
            let remote = Statement::instance(&server);
            for statement in [
                Statement::local(&directory).to_string(),
                remote.to_string(),
                remote.into_directory(&directory).to_string(),
            ] {
                let error = session.error(statement)?;
                assert_eq!((error.number, error.message), (3869, refusal(setting)));
            }
            ensure!(!directory.exists());
            drop(session);
            server.stop()?;
            server.add_option("--innodb-read-only=OFF");
            start_with(&mut server, "--innodb-force-recovery=0")?;
            let mut session = server.session()?;
            session.run(Statement::local(&directory).to_string())?;
            assert_eq!(clone::status(&mut session)?.context("a status")?.state, "Completed");
        }
        Ok(())
    });
}

#[test]
fn the_plugin_can_be_uninstalled() {
    check_ours(|| {
        let mut server = fixture::server("server")?.create()?;
        start_with(&mut server, "--innodb-read-only=ON")?;
        let mut session = server.session()?;
        session.run("UNINSTALL PLUGIN clone")?;
        let error = session.error("SELECT @@clone_block_ddl")?;
        assert_eq!(error.number, 1193, "{error}");
        Ok(())
    });
}

/// InnoDB itself gives clones with `innodb_force_recovery=4`, and aborts with 6.
#[test]
fn such_a_server_is_no_donor() {
    check_ours(|| {
        let (mut donor, recipient) = fixture::pair()?;
        for (option, setting) in SETTINGS {
            donor.stop()?;
            start_with(&mut donor, option)?;
            clone::allow_donor(&recipient, &donor)?;
            let statement = Statement::instance(&donor);
            let mut session = recipient.session()?;
            session.run("CREATE DATABASE IF NOT EXISTS mine")?;
            let error = session.error(statement.to_string())?;
            let text = format!("Clone Donor Error: 3869 : {}.", refusal(setting));
            assert_eq!((error.number, error.message), (3862, text));
            // Nothing has been dropped.
            session.run("USE mine")?;
            ensure!(donor.is_running()?);
            donor.stop()?;
            start_with(&mut donor, "--innodb-force-recovery=0")?;
        }
        Ok(())
    });
}
