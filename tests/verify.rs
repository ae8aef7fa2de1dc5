// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone verify` on the directories of real servers: good ones, each with damage made here,
//! and beside innochecksum.
//!
//! `MYSQL_CLONE_VERIFY_FLIPS=1000` sets how many bytes are flipped.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "verify/damage.rs"]
mod damage;
#[path = "verify/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use clone_innodb::encryption::Keyring;
use clone_innodb::verify::{self, Fault, Observer, Options, Plan, Summary, redo};
use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, check, dataset, fastrand};

use table::Table;

/// Tables of each row format, with trees of more than one level and with pages that were freed.
const TABLES: [&str; 19] = [
    "CREATE DATABASE v",
    "USE v",
    "CREATE TABLE v.numbers (n INT PRIMARY KEY)",
    "INSERT INTO v.numbers WITH RECURSIVE s (n) AS \
     (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 12000) SELECT n FROM s",
    "CREATE TABLE v.dynamic (n INT PRIMARY KEY, a VARCHAR(200), b INT, c LONGTEXT, KEY (a(99)), KEY (b))",
    "INSERT INTO v.dynamic SELECT n, REPEAT(SHA2(n, 256), 3), n * 7 % 12000, \
     IF(n % 400 = 0, REPEAT(SHA2(n, 256), 1000), NULL) FROM v.numbers",
    "CREATE TABLE v.compact ROW_FORMAT=COMPACT SELECT n, REPEAT(SHA2(n, 256), 3) a FROM v.numbers",
    "ALTER TABLE v.compact ADD PRIMARY KEY (n), ADD KEY (a(99))",
    "CREATE TABLE v.redundant (n INT PRIMARY KEY, a VARCHAR(200), KEY (a(99))) ROW_FORMAT=REDUNDANT",
    "INSERT INTO v.redundant SELECT n, REPEAT(SHA2(n, 256), 3) FROM v.numbers",
    "CREATE TABLE v.zip (n INT PRIMARY KEY, a VARCHAR(200), KEY (a(99))) \
     ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
    "INSERT INTO v.zip SELECT n, REPEAT(SHA2(n, 256), 3) FROM v.numbers",
    "CREATE TABLE v.place (n INT PRIMARY KEY, p POINT NOT NULL SRID 0, SPATIAL KEY (p))",
    "INSERT INTO v.place SELECT n, POINT(n % 100, n DIV 100) FROM v.numbers",
    "DELETE FROM v.dynamic WHERE n BETWEEN 2000 AND 6000",
    "DELETE FROM v.redundant WHERE n % 3 = 0",
    "CREATE TABLE v.other LIKE v.dynamic",
    "INSERT INTO v.other SELECT * FROM v.dynamic",
    "DROP TABLE v.numbers",
];

/// Only where the file system can punch holes.
const HOLES: [&str; 4] = [
    "CREATE TABLE v.zlib (n INT PRIMARY KEY, a VARCHAR(200), KEY (a(99))) COMPRESSION='zlib'",
    "INSERT INTO v.zlib SELECT n, a FROM v.dynamic",
    "CREATE TABLE v.lz4 (n INT PRIMARY KEY, a VARCHAR(200), KEY (a(99))) COMPRESSION='lz4'",
    "INSERT INTO v.lz4 SELECT n, a FROM v.dynamic",
];

/// What was told.
#[derive(Debug, Default)]
struct Told(Mutex<(Vec<Fault>, Vec<String>)>);

impl Observer for Told {
    fn fault(&self, fault: &Fault) {
        self.0.lock().unwrap().0.push(fault.clone());
    }

    fn note(&self, note: &str) {
        self.0.lock().unwrap().1.push(note.into());
    }

    fn unreadable(&self, path: &Path, page: Option<u32>, error: &io::Error) {
        panic!("{}, page {page:?}: {error}", path.display());
    }

    fn progress(&self, _: u64) {}
}

/// Checks files with the redo log of `directory`.
fn verify(directory: &Path, paths: &[PathBuf]) -> (Summary, Vec<Fault>) {
    verify_with(directory, paths, None)
}

fn verify_with(
    directory: &Path,
    paths: &[PathBuf],
    keyring: Option<Keyring>,
) -> (Summary, Vec<Fault>) {
    let mut plan = Plan::find(paths);
    plan.redo = redo::find(directory).into_iter().collect();
    let told = Told::default();
    let summary = verify::run(&plan, &Options { threads: 2, keyring }, &told);
    let (faults, notes) = told.0.into_inner().unwrap();
    assert_eq!(summary.faults, faults.len() as u64, "{notes:?}");
    (summary, faults)
}

fn load(server: &Mysqld) -> Result<()> {
    dataset::load_small(server)?;
    let mut session = server.session()?;
    session
        .run_all(["SET SESSION cte_max_recursion_depth = 20000", "SET SESSION sql_log_bin = 0"])?;
    session.run_all(TABLES)?;
    for statement in HOLES {
        if session.run(statement).is_err() {
            break;
        }
    }
    Ok(())
}

/// A directory that was shut down cleanly has no fault, whatever the release; a crashed one has
/// none that recovery would repair.
fn good_directory(release: &'static Server, options: &[&str]) -> Result<()> {
    let mut builder = Mysqld::builder().name("verify").server(release);
    for option in options {
        builder = builder.initialise_with(*option);
    }
    let mut server = builder.start()?;
    load(&server)?;
    server.kill()?;
    let directory = server.data_dir().to_owned();
    let (summary, faults) = verify(&directory, std::slice::from_ref(&directory));
    ensure!(summary.redo.is_some_and(|end| !end.is_clean()), "{summary:?}");
    ensure!(faults.iter().all(|fault| fault.detail.contains("good copy")), "{faults:#?}");
    server.start()?;
    server.stop()?;
    let (summary, faults) = verify(&directory, std::slice::from_ref(&directory));
    ensure!(faults.is_empty(), "{faults:#?}");
    ensure!(summary.redo.is_some_and(|end| end.is_clean()) && summary.pages > 3000, "{summary:?}");
    beside_innochecksum(release, &directory)
}

/// innochecksum finds each file good that was found good.
fn beside_innochecksum(server: &Server, directory: &Path) -> Result<()> {
    let mut files = 0;
    for space in Plan::find(&[directory.to_owned()]).spaces {
        // innochecksum takes files of the system tablespace one by one, and counts from 0.
        for path in space.paths.iter().take(1) {
            ensure!(innochecksum(server, path)?, "innochecksum refuses {}", path.display());
            files += 1;
        }
    }
    ensure!(files > 15, "{files} files");
    Ok(())
}

fn innochecksum(server: &Server, path: &Path) -> Result<bool> {
    let program = server.root.join("usr/bin/innochecksum");
    let mut command = match &server.loader {
        Some(loader) => {
            let mut command = Command::new(loader);
            command.arg("--library-path").arg(&server.library_path).arg(program);
            command
        }
        None => Command::new(program),
    };
    Ok(command.arg(path).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
}

/// A good directory of each release.
macro_rules! releases {
    ($($(#[$attribute:meta])* $name:ident: $release:literal $(, $option:literal)*;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                check(|| good_directory(Server::release($release)?, &[$($option),*]));
            }
        )+
    };
}

releases! {
    release_8_0_19: "8.0.19";
    #[ignore = "make compat"]
    release_8_0_28: "8.0.28";
    #[ignore = "make compat"]
    release_8_0_36: "8.0.36", "--innodb-checksum-algorithm=none";
    #[ignore = "make compat"]
    release_8_0_42: "8.0.42", "--innodb-checksum-algorithm=innodb";
    release_8_0: "8.0", "--innodb-data-file-path=ibdata1:14M;ibdata2:12M:autoextend";
    #[ignore = "make compat"]
    release_8_4_4: "8.4.4";
    #[ignore = "make compat"]
    release_8_4_6: "8.4.6";
    #[ignore = "make compat"]
    release_8_4_7: "8.4.7";
    #[ignore = "make compat"]
    release_8_4_8: "8.4.8";
    #[ignore = "make compat"]
    release_8_4_10: "8.4.10";
    release_8_4: "8.4", "--innodb-page-size=8k";
    #[ignore = "make compat"]
    release_9_7: "9.7";
}

/// Encrypted tables, those with page compression among them: without their keys only headers are
/// checked, with their keys all is.
#[test]
fn release_8_0_encrypted() {
    check(|| {
        let release = Server::release("8.0")?;
        let keyring = tempfile::NamedTempFile::new()?;
        let file = keyring.path().display();
        let mut server = Mysqld::builder()
            .name("verify")
            .server(release)
            .option("--early-plugin-load=keyring_file.so")
            .option(format!("--keyring-file-data={file}"))
            .option("--default-table-encryption=ON")
            .option("--innodb-undo-log-encrypt=ON")
            .option("--innodb-redo-log-encrypt=ON")
            .start()?;
        let mut session = server.session()?;
        session.run("SET SESSION cte_max_recursion_depth = 20000")?;
        session.run_all(TABLES)?;
        session.run_all(HOLES)?;
        server.stop()?;
        let directory = server.data_dir();
        let (summary, faults) = verify(directory, &[directory.to_owned()]);
        ensure!(faults.is_empty() && summary.encrypted > 1000, "{summary:?} {faults:#?}");
        let keys = || Keyring::parse(&fs::read(keyring.path()).unwrap()).ok();
        let (summary, faults) = verify_with(directory, &[directory.to_owned()], keys());
        ensure!(faults.is_empty() && summary.encrypted == 0, "{summary:?} {faults:#?}");
        for table in ["dynamic", "zip", "lz4", "place"] {
            let path = directory.join(format!("v/{table}.ibd"));
            let mut bytes = fs::read(&path)?;
            let size = if table == "zip" { 4096 } else { 16_384 };
            bytes[8 * size + 200] ^= 4;
            fs::write(&path, bytes)?;
            let (_, faults) = verify_with(directory, &[path], keys());
            ensure!(faults.first().is_some_and(|fault| fault.page == Some(8)), "{faults:#?}");
        }
        Ok(())
    });
}

/// Each kind of structural damage is found, and none without damage. Each byte that is flipped is
/// found, and innochecksum agrees about some of them.
#[test]
fn damage_is_found() {
    check(|| {
        let server = Server::locate()?;
        let mut mysqld = Mysqld::builder().name("verify").start()?;
        load(&mysqld)?;
        mysqld.stop()?;
        let directory = mysqld.data_dir();
        let (_, faults) = verify(directory, &[directory.to_owned()]);
        ensure!(faults.is_empty(), "{faults:#?}");
        structures(directory)?;
        redo_log(directory)?;
        flips(server, directory)
    });
}

fn structures(directory: &Path) -> Result<()> {
    let good = Table::read(&directory.join("v/dynamic.ibd"))?;
    let other = Table::read(&directory.join("v/other.ibd"))?;
    let copy = directory.join("v/damaged.ibd");
    let (mut kinds, mut missed) = (BTreeMap::new(), Vec::new());
    for damage in damage::all() {
        let mut table = good.clone();
        (damage.make)(&mut table, &other);
        fs::write(&copy, table.bytes())?;
        let (_, faults) = verify(directory, std::slice::from_ref(&copy));
        let found: Vec<_> = faults.iter().map(|fault| fault.kind).collect();
        // A fault that makes a hundred others of itself tells nobody where to look.
        if !found.contains(&damage.kind) || faults.len() > 40 {
            let first: Vec<_> = faults.iter().take(9).map(ToString::to_string).collect();
            let (name, count) = (damage.name, faults.len());
            missed.push(format!("{name}: {count} faults\n{}", first.join("\n")));
        }
        kinds.insert(damage.name, faults.len());
    }
    ensure!(missed.is_empty(), "{}", missed.join("\n\n"));
    fs::write(&copy, good.bytes())?;
    let (_, faults) = verify(directory, std::slice::from_ref(&copy));
    ensure!(faults.is_empty(), "{faults:#?}");
    println!("{} kinds of damage, with the faults of each: {kinds:?}", kinds.len());
    Ok(fs::remove_file(copy)?)
}

fn redo_log(directory: &Path) -> Result<()> {
    let files = redo::find(directory).unwrap();
    let path = files.paths.first().unwrap();
    let before = fs::read(path)?;
    let mut bytes = before.clone();
    bytes[9] ^= 1;
    fs::write(path, &bytes)?;
    let (_, faults) = verify(directory, &[]);
    fs::write(path, before)?;
    ensure!(faults.iter().any(|fault| fault.kind == verify::Kind::RedoHeader), "{faults:#?}");
    Ok(())
}

fn flips(server: &Server, directory: &Path) -> Result<()> {
    let count =
        env::var("MYSQL_CLONE_VERIFY_FLIPS").map_or(Ok(100), |count| count.parse::<usize>())?;
    let files: Vec<_> = ["dynamic", "compact", "redundant", "zip", "place", "zlib", "lz4"]
        .map(|table| directory.join(format!("v/{table}.ibd")))
        .into_iter()
        .chain(["ibdata1", "undo_001", "mysql.ibd"].map(|name| directory.join(name)))
        .filter(|path| path.exists())
        .collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut agreed = 0;
    for number in 0..count {
        let path = &files[random.usize(..files.len())];
        let table = Table::read(path)?;
        let at = loop {
            let at = random.usize(..table.bytes().len());
            if table.is_checked(at) {
                break at;
            }
        };
        let bits = random.u8(1..);
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&[table.bytes()[at] ^ bits], at as u64)?;
        let (_, faults) = verify(directory, std::slice::from_ref(path));
        let what = format!("byte {at} of {} with {bits:#x}", path.display());
        ensure!(!faults.is_empty(), "not found: {what}");
        // What innochecksum finds is found here; here more is found.
        if number < 20 && !innochecksum(server, path)? {
            agreed += 1;
        }
        file.write_all_at(&table.bytes()[at..=at], at as u64)?;
    }
    ensure!(agreed > 10, "innochecksum found {agreed} of 20");
    println!("{count} flips found; of the first 20 innochecksum found {agreed}");
    Ok(())
}
