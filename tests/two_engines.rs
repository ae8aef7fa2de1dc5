// SPDX-License-Identifier: GPL-2.0-only

//! Clones of InnoDB and a second engine:
//!
//! * NOTES puts the functions that our library exports into its handlerton
//!   (`tests/c/notes_engine.c`).
//! * ROCKSDB has none, and gets them from the plugin (`tests/c/rocksdb_stand_in.cc`). With MyRocks
//!   itself: `tests/myrocks.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clone_testkit::anyhow::{Context, Result, anyhow, ensure};
use clone_testkit::clone::{self, Statement};
use clone_testkit::{Mysqld, check, dataset, fixture, verify};

type Files = BTreeMap<String, String>;

/// The second engine.
#[derive(Clone, Copy, PartialEq)]
enum Second {
    Notes,
    RocksDb,
}

impl Second {
    /// Its database, in the data directory.
    fn directory(self) -> &'static str {
        match self {
            Second::Notes => "notes",
            Second::RocksDb => ".rocksdb",
        }
    }

    /// Adds the engine to the plugins.
    fn compile(self, plugins: &Path) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (compiler, source, to, flags): (_, _, _, &[&str]) = match self {
            Second::Notes => ("cc", "notes_engine.c", "notes_engine.so", &["-std=gnu11"]),
            Second::RocksDb => ("c++", "rocksdb_stand_in.cc", "ha_rocksdb.so", &["-std=c++17"]),
        };
        let mut command = Command::new(compiler);
        command
            .args(flags)
            .args(["-Wall", "-Wextra", "-Werror", "-g", "-shared", "-fPIC", "-pthread", "-I"])
            .arg(root.join("include"))
            .arg(root.join("tests/c").join(source))
            .arg("-o")
            .arg(plugins.join(to));
        if self == Second::Notes {
            let library = fs::canonicalize(plugins.join("libmysql_clone.so"))?;
            let directory = library.parent().context("a file is in a directory")?;
            command.arg(&library).arg(format!("-Wl,-rpath,{}", directory.display()));
        }
        let compiled = command.output()?;
        ensure!(compiled.status.success(), "{compiled:?}");
        Ok(())
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Second::Notes => &["--plugin-load-add=notes=notes_engine.so"],
            Second::RocksDb => &[
                "--plugin-load-add=rocksdb=ha_rocksdb.so",
                "--early-plugin-load=clone_swap=libmysql_clone.so",
                "--clone-swap=ON",
            ],
        }
    }
}

/// A server with the engine, not started yet.
fn server(second: Second, name: &str, adopt: Option<&Path>) -> Result<Mysqld> {
    let mut builder = fixture::server(name)?.supervised();
    if let Some(directory) = adopt {
        builder = builder.adopt(directory);
    }
    let mut server = builder.create()?;
    second.compile(&server.scratch("plugin"))?;
    for option in second.options() {
        server.add_option(option);
    }
    Ok(server)
}

fn started(second: Second, name: &str, adopt: Option<&Path>) -> Result<Mysqld> {
    let mut server = server(second, name, adopt)?;
    server.start()?;
    Ok(server)
}

/// The engine's database.
fn files(second: Second, server: &Mysqld) -> Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(server.data_dir().join(second.directory()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let content = fs::read_to_string(entry.path())?;
            files.insert(entry.file_name().into_string().unwrap(), content);
        }
    }
    Ok(files)
}

/// Writes to the log as the engine would.
fn write(second: Second, server: &Mysqld, note: &str) -> Result<()> {
    let log = server.data_dir().join(second.directory()).join("000100.log");
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    Ok(log.write_all(note.as_bytes())?)
}

fn donor(second: Second) -> Result<Mysqld> {
    let donor = started(second, "donor", None)?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    write(second, &donor, "the donor's\n")?;
    Ok(donor)
}

fn cloned_to_a_directory(second: Second) -> Result<()> {
    let donor = donor(second)?;
    let recipient = started(second, "recipient", None)?;
    clone::allow_donor(&recipient, &donor)?;
    for name in ["remote", "local"] {
        let (by, directory) = match name {
            "local" => (&donor, donor.scratch(name)),
            _ => (&recipient, recipient.scratch(name)),
        };
        let statement = match name {
            "local" => Statement::local(&directory),
            _ => Statement::instance(&donor).into_directory(&directory),
        };
        by.session()?.run(statement.to_string())?;
        let cloned = started(second, &format!("cloned-{name}"), Some(&directory))?;
        ensure!(files(second, &cloned)? == files(second, &donor)?, "{name}");
        verify::assert_equal(&donor, &cloned)?;
    }
    Ok(())
}

#[test]
fn both_are_cloned_to_a_directory() {
    check(|| cloned_to_a_directory(Second::Notes));
}

#[test]
fn innodb_and_rocksdb_are_cloned_to_a_directory() {
    check(|| cloned_to_a_directory(Second::RocksDb));
}

fn replaced(second: Second) -> Result<()> {
    let donor = donor(second)?;
    let mut recipient = started(second, "recipient", None)?;
    write(second, &recipient, "the recipient's\n")?;
    clone::allow_donor(&recipient, &donor)?;
    clone::run(&mut recipient, &Statement::instance(&donor))?;
    ensure!(files(second, &recipient)? == files(second, &donor)?);
    verify::assert_equal(&donor, &recipient)?;
    // The next start makes sure that what was there before is not needed.
    recipient.restart()?;
    ensure!(!recipient.data_dir().join(second.directory()).join(".clone_saved").exists());
    ensure!(files(second, &recipient)? == files(second, &donor)?);
    Ok(())
}

#[test]
fn both_replace_what_the_recipient_had() {
    check(|| replaced(Second::Notes));
}

#[test]
fn innodb_and_rocksdb_replace_what_the_recipient_had() {
    check(|| replaced(Second::RocksDb));
}

/// Commits 1, 2, 3, ... to InnoDB and, after each commit and before the next, writes the number to
/// the engine's log.
fn count(second: Second, donor: &Mysqld, stop: &AtomicBool) -> Result<()> {
    let mut session = donor.session()?;
    session.run("CREATE TABLE IF NOT EXISTS test.counter (n INT PRIMARY KEY)")?;
    let from: u64 = session.one("SELECT COALESCE(MAX(n), 0) FROM test.counter")?;
    for number in from + 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        session.run(format!("INSERT INTO test.counter VALUES ({number})"))?;
        write(second, donor, &format!("{number}\n"))?;
    }
    Ok(())
}

/// The last number in InnoDB, and in the engine.
fn counted(second: Second, cloned: &Mysqld) -> Result<(u64, u64)> {
    let innodb = cloned.session()?.one("SELECT MAX(n) FROM test.counter")?;
    let files = files(second, cloned)?;
    let last = files["000100.log"].lines().last().context("a number")?.parse()?;
    Ok((innodb, last))
}

fn come_to_one_point(second: Second) -> Result<()> {
    let donor = donor(second)?;
    donor.session()?.run("CREATE DATABASE IF NOT EXISTS test")?;
    let mut recipient = started(second, "recipient", None)?;
    clone::allow_donor(&recipient, &donor)?;
    for name in ["remote", "local", "replaced"] {
        let stop = AtomicBool::new(false);
        let by = if name == "local" { &donor } else { &recipient };
        let directory = by.scratch(name);
        thread::scope(|scope| {
            let writer = scope.spawn(|| count(second, &donor, &stop));
            // So that there is something in the log before the clone begins.
            thread::sleep(Duration::from_millis(300));
            let cloned = match name {
                "remote" => {
                    let statement = Statement::instance(&donor).into_directory(&directory);
                    recipient.session()?.run(statement.to_string())
                }
                "local" => donor.session()?.run(Statement::local(&directory).to_string()),
                _ => clone::run(&mut recipient, &Statement::instance(&donor)).map(drop),
            };
            stop.store(true, Ordering::Relaxed);
            writer.join().map_err(|_| anyhow!("the writer panicked"))?.and(cloned)
        })?;
        let (innodb, engine) = match name {
            "replaced" => counted(second, &recipient)?,
            _ => {
                let cloned = started(second, &format!("cloned-{name}"), Some(&directory))?;
                counted(second, &cloned)?
            }
        };
        let (all, _) = counted(second, &donor)?;
        println!("{name}: InnoDB has {innodb}, the engine {engine}, of {all}");
        // The engine may miss the number whose commit was the last.
        ensure!(engine <= innodb && innodb <= engine + 1, "{name}: torn");
        ensure!(innodb < all, "{name}: commits went on after the point");
    }
    Ok(())
}

#[test]
fn both_come_to_one_point() {
    check(|| come_to_one_point(Second::Notes));
}

#[test]
fn innodb_and_rocksdb_come_to_one_point() {
    check(|| come_to_one_point(Second::RocksDb));
}

#[test]
fn a_server_that_could_not_put_rocksdb_in_place_keeps_its_data() {
    check(|| {
        let donor = donor(Second::RocksDb)?;
        let mut recipient = fixture::server("recipient")?.supervised().create()?;
        Second::RocksDb.compile(&recipient.scratch("plugin"))?;
        recipient.add_option("--plugin-load-add=rocksdb=ha_rocksdb.so");
        recipient.start()?;
        recipient.session()?.run("CREATE DATABASE kept")?;
        clone::allow_donor(&recipient, &donor)?;
        let error = recipient.session()?.error(Statement::instance(&donor).to_string())?;
        ensure!(error.number == 1235 && error.message.contains("early-plugin-load"), "{error}");
        recipient.session()?.run("DROP DATABASE kept")
    });
}

#[test]
fn what_was_lent_is_taken_back() {
    check(|| {
        let donor = started(Second::RocksDb, "donor", None)?;
        for round in 0..3 {
            let directory = donor.scratch(&format!("clone-{round}"));
            donor.session()?.run(Statement::local(&directory).to_string())?;
            ensure!(directory.join(".rocksdb/CURRENT").exists(), "round {round}");
            match round {
                0 => donor.session()?.run_all([
                    "UNINSTALL PLUGIN clone",
                    "INSTALL PLUGIN clone SONAME 'libmysql_clone.so'",
                ])?,
                // An engine that was installed anew has a handlerton that knows nothing.
                1 => donor.session()?.run_all([
                    "UNINSTALL PLUGIN rocksdb",
                    "INSTALL PLUGIN rocksdb SONAME 'ha_rocksdb.so'",
                ])?,
                _ => donor.session()?.run("UNINSTALL PLUGIN clone")?,
            }
        }
        // The stock plugin finds an engine that cannot clone, as before.
        donor.session()?.run("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")?;
        let directory = donor.scratch("stock");
        donor.session()?.run(Statement::local(&directory).to_string())?;
        ensure!(!directory.join(".rocksdb").exists());
        Ok(())
    });
}

#[test]
fn a_peer_without_the_engine_is_refused_and_keeps_its_data() {
    check(|| {
        let donor = donor(Second::Notes)?;
        let plain = fixture::server("plain")?.start()?;
        clone::allow_donor(&plain, &donor)?;
        let directory = plain.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory).to_string();
        let error = plain.session()?.error(&statement)?;
        println!("{error}");
        ensure!(
            error.number == 3862 && error.message.contains("notes is not asked for"),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn a_stock_donor_is_not_asked_for_an_engine_that_it_would_crash_for() {
    check(|| {
        let mut donor = fixture::server("donor")?.install_later().create()?;
        Second::RocksDb.compile(&donor.scratch("plugin"))?;
        donor.add_option("--plugin-load-add=rocksdb=ha_rocksdb.so");
        donor.start()?;
        donor.session()?.run("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")?;
        clone::make_donor(&donor)?;
        let recipient = started(Second::RocksDb, "recipient", None)?;
        clone::allow_donor(&recipient, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory).to_string();
        let error = recipient.session()?.error(&statement)?;
        println!("{error}");
        ensure!(error.number == 1235, "{error}");
        ensure!(
            error.message.contains("ROCKSDB from a donor without this clone plugin"),
            "{error}"
        );
        donor.session()?.run("DO 1")
    });
}
