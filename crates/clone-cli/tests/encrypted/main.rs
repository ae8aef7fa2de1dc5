// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull` and `serve` of encrypted instances, from and into servers with
//! `component_keyring_file`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod serve;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::keyring::WithKeyring;
use clone_testkit::server::Server;
use clone_testkit::verify;
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Plugin, check, clone, dataset, releases, replica, until};
use serve::crashed;
use support::{Tool, holds, is_exact, mysqld_program};

/// A donor on which all is encrypted that can be.
fn encrypted_donor(servers: &WithKeyring, options: &[&str]) -> Result<Mysqld> {
    let mut builder = Mysqld::builder().name("donor").server(servers.server);
    builder = builder.plugin(Plugin::Stock).option("--default-table-encryption=ON");
    for option in options {
        builder = builder.option(*option);
    }
    let donor = builder.create()?;
    let donor = servers.start_with_keyring(donor, "donor-keyring")?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    replica::make_source(&donor)?;
    let mut session = donor.session()?;
    session.run_all([
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, t TEXT) ENCRYPTION = 'Y'",
        "CREATE TABLE d.zip (id INT PRIMARY KEY, t TEXT) ROW_FORMAT = COMPRESSED",
        "CREATE TABLE d.packed (id INT PRIMARY KEY, t TEXT) COMPRESSION = 'zlib'",
        "CREATE TABLE d.plain (id INT PRIMARY KEY, t TEXT) ENCRYPTION = 'N'",
        "CREATE TABLESPACE general ADD DATAFILE 'general.ibd' ENCRYPTION = 'Y'",
        "CREATE TABLE d.general (id INT PRIMARY KEY, t TEXT) TABLESPACE general",
        "ALTER TABLESPACE mysql ENCRYPTION = 'Y'",
    ])?;
    for table in TABLES {
        session.run(format!(
            "INSERT INTO d.{table} WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 \
             FROM n WHERE id < 900) SELECT id, REPEAT(SHA2(id, 256), 20) FROM n"
        ))?;
    }
    session.run_all([
        "SET GLOBAL innodb_redo_log_encrypt = ON",
        "SET GLOBAL innodb_undo_log_encrypt = ON",
        "ALTER INSTANCE ROTATE INNODB MASTER KEY",
    ])?;
    Ok(donor)
}

fn boot(servers: &WithKeyring, directory: &Path, options: &[&str]) -> Result<Mysqld> {
    let builder = Mysqld::builder().name("copy").server(servers.server).plugin(Plugin::Stock);
    let mut builder = builder.adopt(directory);
    for option in options {
        builder = builder.option(*option);
    }
    servers.start(builder.create()?)
}

const TABLES: [&str; 5] = ["t", "zip", "packed", "plain", "general"];

fn checksums(server: &Mysqld) -> Result<Vec<(String, Option<u64>)>> {
    let tables = TABLES.map(|table| format!("d.{table}")).join(", ");
    server.session()?.rows(format!("CHECKSUM TABLE {tables}"))
}

releases! {
    crashed;
    #[ignore = "make compat"]
    served_8_0_36: "8.0.36";
    served_8_0: "8.0";
    #[ignore = "make compat"]
    served_8_4: "8.4";
    served_9_7: "9.7";
}

releases! {
    under_load;
    #[ignore = "make compat"]
    encrypted_8_0_36: "8.0.36";
    encrypted_8_0: "8.0";
    #[ignore = "make compat"]
    encrypted_8_4: "8.4";
    encrypted_9_7: "9.7";
}

/// With write load, and encrypted tables that come and go. A server opens the copy with the new
/// keyring, and only with that.
fn under_load(server: &'static Server) -> Result<()> {
    let servers = WithKeyring::new(server)?;
    let donor = encrypted_donor(&servers, &[])?;
    let expected = checksums(&donor)?;
    let directory = donor.scratch("pulled");
    let keyring = servers.path("copy-keyring");
    let writers = Writers::start(&donor, Load { ddl: true, ..Load::default() })?;
    writers.await_transactions(50)?;
    let is_over = AtomicBool::new(false);
    let mysqld = mysqld_program(servers.server, donor.data_dir().parent().unwrap())?;
    let (created, report) = thread::scope(|scope| {
        let creator = scope.spawn(|| create_tables(&donor, &is_over));
        let pull = Tool::pull(&donor, &directory).args(["--json", "--max-rate", "40"]);
        let pull = pull.arg("--keyring-file").arg(&keyring).arg("--prepare").arg(&mysqld);
        let plugins = donor.data_dir().parent().unwrap().join("plugin");
        let pull = pull.arg("--prepare-argument");
        let pulled = pull.arg(format!("--plugin-dir={}", plugins.display())).run();
        is_over.store(true, Ordering::Relaxed);
        let created = creator.join().unwrap()?;
        let outcome = pulled?.ok()?;
        let report = outcome.report()?;
        ensure!(report["keyring_file"] == *keyring.to_string_lossy(), "{report}");
        Ok((created, report))
    })?;
    let mode = fs::metadata(&keyring)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "mode {mode:o}");
    ensure!(!directory.join(".mysql-clone").exists(), "the state is left");

    let verified = |directory: &Path| {
        let tool = Tool::new(["verify", "--json", "--keyring-file"]);
        tool.arg(&keyring).arg(directory).run()
    };
    verified(&directory)?.ok()?;

    let encrypted =
        ["--server-id=2", "--innodb-redo-log-encrypt=ON", "--innodb-undo-log-encrypt=ON"];
    let mut copy = boot(&servers, &directory, &encrypted)?;
    ensure!(checksums(&copy)? == expected, "{:?} {expected:?}", checksums(&copy)?);
    is_exact(&copy, &donor, &report, writers)?;
    verify::assert_sound(&copy)?;
    let tables: Vec<(String,)> = copy
        .session()?
        .rows("SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'Y'")?;
    eprintln!("{created} tables were created; encrypted in the copy: {}", tables.len());
    ensure!(tables.iter().any(|(name,)| name == "mysql"), "{tables:?}");
    copy.session()?.run_all([
        "INSERT INTO d.t VALUES (100000, 'after')",
        "CREATE TABLE d.later (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
    ])?;
    copy.stop()?;
    verified(copy.data_dir())?.ok()?;

    copy.start()?;
    copy.session()?.run("ALTER INSTANCE ROTATE INNODB MASTER KEY")?;
    copy.stop()?;
    copy.start()?;
    verify::assert_sound(&copy)?;
    copy.stop()?;
    verified(copy.data_dir())?.ok()?;

    // No server opens the data without the keyring.
    fs::write(&keyring, "")?;
    ensure!(copy.start().is_err(), "the data are not encrypted");
    Ok(())
}

/// Encrypted tables that are created, filled and dropped until the pull is over.
fn create_tables(donor: &Mysqld, is_over: &AtomicBool) -> Result<u32> {
    let mut session = donor.session()?;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        session.run(format!("CREATE TABLE d.new_{count} LIKE d.t"))?;
        session.run(format!("INSERT INTO d.new_{count} SELECT * FROM d.t LIMIT 50"))?;
        if count >= 10 {
            session.run(format!("DROP TABLE d.new_{}", count - 10))?;
        }
        count += 1;
        sleep(Duration::from_millis(20));
    }
    Ok(count)
}

/// What cannot work is refused before anything is written.
#[test]
fn refusals() {
    check(|| {
        let servers = WithKeyring::new(Server::locate()?)?;
        let donor = encrypted_donor(&servers, &[])?;
        let directory = donor.scratch("pulled");
        let keyring = servers.path("copy-keyring");
        let pull = || Tool::pull(&donor, &directory);
        let with = |path: &Path| pull().arg("--keyring-file").arg(path);

        pull().run()?.fails(3, "--keyring-file PATH")?;
        pull().arg("--ssl-mode=DISABLED").run()?.fails(3, "PATH and with TLS")?;
        with(&keyring).arg("--ssl-mode=DISABLED").run()?.fails(3, "--ssl-mode=REQUIRED")?;
        with(&directory.join("keyring")).run()?.fails(3, "in the data directory")?;
        fs::write(&keyring, "mine")?;
        with(&keyring).run()?.fails(3, "is never overwritten")?;
        ensure!(fs::read(&keyring)? == b"mine", "the file was changed");
        fs::remove_file(&keyring)?;
        with(&keyring).arg("--check").run()?.ok()?;
        ensure!(!directory.exists() && !keyring.exists(), "something was written");

        // The clone finds out what the account may not ask.
        donor.session()?.run_all([
            "SET GLOBAL innodb_redo_log_encrypt = OFF",
            "SET GLOBAL innodb_undo_log_encrypt = OFF",
        ])?;
        pull().run()?.fails(3, "Pull with --keyring-file PATH and with TLS")?;
        ensure!(!directory.exists(), "something is left");
        let outcome = pull().arg("--ssl-mode=DISABLED").run()?;
        ensure!(outcome.stderr.contains("3872"), "{outcome:?}");
        outcome.fails(5, "Pull with --keyring-file PATH")?;
        ensure!(!directory.exists(), "something is left");

        // A donor without TLS.
        let plain = encrypted_donor(&servers, &["--tls-version="])?;
        let pull = Tool::pull(&plain, &directory).arg("--keyring-file").arg(&keyring);
        pull.run()?.fails(3, "SSL is required but the server doesn't support it")?;
        ensure!(!keyring.exists(), "a keyring is left");
        Ok(())
    });
}

/// A pull that was killed goes on with its keyring file, or begins anew without it. What is given
/// up takes its keyring file along.
#[test]
fn killed_and_again() {
    check(|| {
        let servers = WithKeyring::new(Server::locate()?)?;
        let donor = encrypted_donor(&servers, &[])?;
        let expected = checksums(&donor)?;
        let keyring = servers.path("copy-keyring");
        for (turn, loses_keyring) in [false, true].into_iter().enumerate() {
            let directory = donor.scratch(&format!("pulled-{turn}"));
            let pull = || {
                let tool = Tool::pull(&donor, &directory).args(["--max-rate", "20"]);
                tool.arg("--keyring-file").arg(&keyring)
            };
            let mut child = pull().start()?;
            until("data", Duration::from_secs(60), || {
                Ok(directory.join("ibdata1").exists().then_some(()))
            })?;
            sleep(Duration::from_millis(500));
            child.kill()?;
            child.wait()?;
            ensure!(keyring.exists(), "no keyring");
            // Another keyring file is another pull.
            Tool::pull(&donor, &directory).run()?.fails(3, "interrupted pull from")?;
            if loses_keyring {
                fs::remove_file(&keyring)?;
            }
            let outcome = pull().run()?.ok()?;
            let text = outcome.stdout.clone() + &outcome.stderr;
            let expects = if loses_keyring { "begins anew" } else { "going on with" };
            ensure!(text.contains(expects), "{outcome:?}");
            let copy = boot(&servers, &directory, &[])?;
            ensure!(checksums(&copy)? == expected, "{:?} {expected:?}", checksums(&copy)?);
            verify::assert_sound(&copy)?;
            drop(copy);
            fs::remove_file(&keyring)?;
        }

        let directory = donor.scratch("discarded");
        let slow = Tool::pull(&donor, &directory).args(["--max-rate", "20"]);
        let mut child = slow.arg("--keyring-file").arg(&keyring).start()?;
        until("data", Duration::from_secs(60), || {
            Ok(directory.join("ibdata1").exists().then_some(()))
        })?;
        child.kill()?;
        child.wait()?;
        Tool::new(["pull", "--discard", "--datadir"]).arg(&directory).run()?.ok()?;
        ensure!(!directory.exists() && !keyring.exists(), "something is left");
        Ok(())
    });
}

/// A tablespace that is created in PAGE_COPY comes with its key, after which the journal is given
/// up. A pull that is killed then begins anew, and says why.
#[test]
fn killed_when_a_key_has_come() {
    check(|| {
        let servers = WithKeyring::new(Server::locate()?)?;
        let donor = encrypted_donor(&servers, &[])?;
        let keyring = servers.path("copy-keyring");
        let directory = donor.scratch("pulled");
        let journal = directory.join(".mysql-clone/journal");
        let pull = |rate| {
            let tool = Tool::pull(&donor, &directory).args(["--max-rate", rate]);
            tool.arg("--keyring-file").arg(&keyring)
        };
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let creator = scope.spawn(|| create_tables(&donor, &is_over));
            let mut child = pull("10").start()?;
            let given_up = until("a key", Duration::from_secs(120), || {
                let has_begun = directory.join("ibdata1").exists();
                let is_gone = has_begun && directory.join(".mysql-clone").exists();
                let ended = child.try_wait()?.is_some();
                ensure!(!ended, "the pull was over before a key came");
                Ok((is_gone && !journal.exists()).then_some(()))
            });
            child.kill()?;
            child.wait()?;
            is_over.store(true, Ordering::Relaxed);
            creator.join().unwrap()?;
            given_up
        })?;
        let expected = checksums(&donor)?;
        let outcome = pull("0").run()?.ok()?;
        ensure!(outcome.stderr.contains("the journal of a pull never holds a key"), "{outcome:?}");
        let copy = boot(&servers, &directory, &[])?;
        ensure!(checksums(&copy)? == expected, "{:?} {expected:?}", checksums(&copy)?);
        verify::assert_sound(&copy)
    });
}

/// A donor on which nothing is encrypted: no keyring is left that nobody needs.
#[test]
fn a_keyring_that_is_not_needed() {
    check(|| {
        let server = Server::locate()?;
        let donor = Mysqld::builder().name("donor").server(server).plugin(Plugin::Stock).start()?;
        clone::make_donor(&donor)?;
        let expected = verify::Fingerprint::read(&mut donor.session()?)?;
        let (directory, keyring) = (donor.scratch("pulled"), donor.scratch("keyring"));
        let pull = Tool::pull(&donor, &directory).arg("--keyring-file").arg(&keyring);
        pull.run()?.ok().context("a pull")?;
        ensure!(!keyring.exists() && !directory.join("mysqld.my").exists(), "a keyring is left");
        holds(&support::boot(server, &directory, &[])?, &expected)
    });
}

/// The donor's master key changes again and again during the pull. The copy has a key of its own.
#[test]
fn rotated_at_the_donor() {
    check(|| {
        let servers = WithKeyring::new(Server::locate()?)?;
        let donor = encrypted_donor(&servers, &[])?;
        let expected = checksums(&donor)?;
        let (directory, keyring) = (donor.scratch("pulled"), servers.path("copy-keyring"));
        let is_over = AtomicBool::new(false);
        let rotated = thread::scope(|scope| {
            let rotor = scope.spawn(|| rotate(&donor, &is_over));
            let tool = Tool::pull(&donor, &directory).args(["--max-rate", "20"]);
            let outcome = tool.arg("--keyring-file").arg(&keyring).run();
            is_over.store(true, Ordering::Relaxed);
            let rotated = rotor.join().unwrap();
            outcome?.ok()?;
            rotated
        })?;
        ensure!(rotated > 3, "{rotated} rotations");
        let copy = boot(&servers, &directory, &[])?;
        ensure!(checksums(&copy)? == expected, "{:?} {expected:?}", checksums(&copy)?);
        verify::assert_sound(&copy)
    });
}

fn rotate(donor: &Mysqld, is_over: &AtomicBool) -> Result<u32> {
    let mut session = donor.session()?;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        session.run("ALTER INSTANCE ROTATE INNODB MASTER KEY")?;
        count += 1;
        sleep(Duration::from_millis(100));
    }
    Ok(count)
}
