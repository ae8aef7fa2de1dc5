// SPDX-License-Identifier: GPL-2.0-only

//! Clones of InnoDB and a second engine, whose handlerton has the functions that our library exports (`tests/c/notes_engine.c`).

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

/// A server with the engine, not started yet. The plugin `clone` is there before.
fn server(name: &str, adopt: Option<&Path>) -> Result<Mysqld> {
    let mut builder = fixture::server(name)?.supervised();
    if let Some(directory) = adopt {
        builder = builder.adopt(directory);
    }
    let mut server = builder.create()?;
    compile(&server.scratch("plugin"))?;
    server.add_option("--plugin-load-add=notes=notes_engine.so");
    Ok(server)
}

fn compile(plugins: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = fs::canonicalize(plugins.join("libmysql_clone.so"))?;
    let directory = library.parent().context("a file is in a directory")?;
    let compiled = Command::new("cc")
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-g",
            "-shared",
            "-fPIC",
            "-pthread",
            "-I",
        ])
        .arg(root.join("include"))
        .arg(root.join("tests/c/notes_engine.c"))
        .arg("-o")
        .arg(plugins.join("notes_engine.so"))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", directory.display()))
        .output()?;
    ensure!(compiled.status.success(), "{compiled:?}");
    Ok(())
}

/// The engine's database.
fn notes(server: &Mysqld) -> Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(server.data_dir().join("notes"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let content = fs::read_to_string(entry.path())?;
            files.insert(entry.file_name().into_string().unwrap(), content);
        }
    }
    Ok(files)
}

/// Writes to the log as the engine would.
fn write(server: &Mysqld, note: &str) -> Result<()> {
    let log = server.data_dir().join("notes/000100.log");
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    Ok(log.write_all(note.as_bytes())?)
}

fn donor() -> Result<Mysqld> {
    let mut donor = server("donor", None)?;
    donor.start()?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    write(&donor, "the donor's\n")?;
    Ok(donor)
}

#[test]
fn both_are_cloned_to_a_directory() {
    check(|| {
        let donor = donor()?;
        let mut recipient = server("recipient", None)?;
        recipient.start()?;
        clone::allow_donor(&recipient, &donor)?;
        for (statement, name) in
            [(Statement::instance(&donor), "remote"), (Statement::local(Path::new("")), "local")]
        {
            let by = if name == "local" { &donor } else { &recipient };
            let directory = by.scratch(name);
            let statement = match name {
                "local" => Statement::local(&directory),
                _ => statement.into_directory(&directory),
            };
            by.session()?.run(statement.to_string())?;
            let mut cloned = server(name, Some(&directory))?;
            cloned.start()?;
            ensure!(notes(&cloned)? == notes(&donor)?, "{name}");
            verify::assert_equal(&donor, &cloned)?;
        }
        Ok(())
    });
}

#[test]
fn both_replace_what_the_recipient_had() {
    check(|| {
        let donor = donor()?;
        let mut recipient = server("recipient", None)?;
        recipient.start()?;
        write(&recipient, "the recipient's\n")?;
        clone::allow_donor(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        ensure!(notes(&recipient)? == notes(&donor)?);
        verify::assert_equal(&donor, &recipient)?;
        // The next start makes sure that what was there before is not needed.
        recipient.restart()?;
        ensure!(!recipient.data_dir().join("notes/.clone_saved").exists());
        ensure!(notes(&recipient)? == notes(&donor)?);
        Ok(())
    });
}

/// Commits 1, 2, 3, ... to InnoDB and, after each commit and before the next, writes the number to the engine's log.
fn count(donor: &Mysqld, stop: &AtomicBool) -> Result<()> {
    let mut session = donor.session()?;
    session.run("CREATE TABLE IF NOT EXISTS test.counter (n INT PRIMARY KEY)")?;
    let from: u64 = session.one("SELECT COALESCE(MAX(n), 0) FROM test.counter")?;
    for number in from + 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        session.run(format!("INSERT INTO test.counter VALUES ({number})"))?;
        write(donor, &format!("{number}\n"))?;
    }
    Ok(())
}

/// The last number in InnoDB, and in the engine.
fn counted(cloned: &Mysqld) -> Result<(u64, u64)> {
    let innodb = cloned.session()?.one("SELECT MAX(n) FROM test.counter")?;
    let files = notes(cloned)?;
    let last = files["000100.log"].lines().last().context("a number")?.parse()?;
    Ok((innodb, last))
}

#[test]
fn both_come_to_one_point() {
    check(|| {
        let donor = donor()?;
        donor.session()?.run("CREATE DATABASE IF NOT EXISTS test")?;
        let mut recipient = server("recipient", None)?;
        recipient.start()?;
        clone::allow_donor(&recipient, &donor)?;
        for name in ["remote", "local", "replaced"] {
            let stop = AtomicBool::new(false);
            let by = if name == "local" { &donor } else { &recipient };
            let directory = by.scratch(name);
            thread::scope(|scope| {
                let writer = scope.spawn(|| count(&donor, &stop));
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
                "replaced" => counted(&recipient)?,
                _ => {
                    let mut cloned = server(&format!("cloned-{name}"), Some(&directory))?;
                    cloned.start()?;
                    counted(&cloned)?
                }
            };
            let (all, _) = counted(&donor)?;
            println!("{name}: InnoDB has {innodb}, the engine {engine}, of {all}");
            // The engine may miss the number whose commit was the last.
            ensure!(engine <= innodb && innodb <= engine + 1, "{name}: torn");
            ensure!(innodb < all, "{name}: commits went on after the point");
        }
        Ok(())
    });
}

#[test]
fn a_peer_without_the_engine_is_refused_and_keeps_its_data() {
    check(|| {
        let donor = donor()?;
        let plain = fixture::server("plain")?.start()?;
        clone::allow_donor(&plain, &donor)?;
        let directory = plain.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory).to_string();
        let error = plain.session()?.error(&statement)?;
        println!("{error}");
        ensure!(error.number == 3862 || error.number == 3863 || error.number == 3870, "{error}");
        Ok(())
    });
}
