// SPDX-License-Identifier: GPL-2.0-only

//! Data that only the recipient has and data that only the donor has, to show which of them a
//! server has after a clone over its own data.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::mysqld::Mysqld;
use crate::{verify, writer};

/// What only the donor has.
const OF_DONOR: [&str; 4] = [
    "CREATE DATABASE theirs",
    "CREATE TABLE theirs.t (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200))",
    "INSERT INTO theirs.t (text) VALUES ('a'), ('b'), ('c')",
    "CREATE DATABASE theirs_empty",
];

/// What only the recipient has, in all kinds of files.
const OF_RECIPIENT: [&str; 12] = [
    "CREATE DATABASE mine",
    "CREATE TABLE mine.t (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200))",
    "INSERT INTO mine.t (text) VALUES ('1'), ('2'), ('3'), ('4')",
    "CREATE TABLE mine.isam (id INT PRIMARY KEY) ENGINE = MyISAM",
    "INSERT INTO mine.isam VALUES (1), (2)",
    "CREATE TABLE mine.csv (id INT NOT NULL) ENGINE = CSV",
    "INSERT INTO mine.csv VALUES (1)",
    "CREATE TABLESPACE mine_general ADD DATAFILE 'mine_general.ibd'",
    "CREATE TABLE mine.general (id INT PRIMARY KEY) TABLESPACE mine_general",
    "CREATE UNDO TABLESPACE mine_undo ADD DATAFILE 'mine_undo.ibu'",
    "CREATE USER mine_user",
    "FLUSH BINARY LOGS",
];

/// The tables among these.
const TABLES_OF_RECIPIENT: u64 = 4;

/// Whose data a server has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    /// Those that it had before the clone.
    Recipients,
    /// The donor's.
    Donors,
    /// Neither: a clone that dropped the data first has failed, perhaps when a part was dropped.
    Nobodys,
}

impl Whose {
    /// Reads it from the schemas.
    pub fn of(server: &Mysqld) -> Result<Self> {
        let mut session = server.session()?;
        let schemas: Vec<String> = session
            .rows("SHOW DATABASES WHERE `Database` IN ('mine', 'theirs', 'theirs_empty')")?;
        let schemas: Vec<_> = schemas.iter().map(String::as_str).collect();
        // DROP DATABASE is not atomic with tables of MyISAM and CSV.
        let tables: u64 = session
            .one("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'mine'")?;
        Ok(match *schemas {
            ["mine"] if tables == TABLES_OF_RECIPIENT => Self::Recipients,
            ["theirs", "theirs_empty"] => Self::Donors,
            ["mine"] | [] => Self::Nobodys,
            _ => anyhow::bail!("{} has data of both: {schemas:?}", server.name()),
        })
    }
}

/// Makes what only the donor has.
pub fn make_donors(donor: &Mysqld) -> Result<()> {
    donor.session()?.run_all(OF_DONOR)
}

/// The recipient's own data, as far as a clone can lose it.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnData {
    rows: [u64; 4],
    users: u64,
    gtids: String,
    /// The oldest binary logs: a start begins a new one.
    logs: Vec<String>,
}

impl OwnData {
    /// Makes what only the recipient has, in place of the donor's data after a clone.
    pub fn make(recipient: &Mysqld) -> Result<()> {
        let mut session = recipient.session()?;
        session
            .run_all(["DROP DATABASE IF EXISTS theirs", "DROP DATABASE IF EXISTS theirs_empty"])?;
        session.run_all(OF_RECIPIENT)
    }

    /// Reads the data, and the beginning of each binary log.
    pub fn of(server: &Mysqld) -> Result<Self> {
        let mut session = server.session()?;
        let count = |table: &str| format!("SELECT COUNT(*) FROM {table}");
        let rows = [
            session.one(count("mine.t"))?,
            session.one(count("mine.isam"))?,
            session.one(count("mine.csv"))?,
            session.one(count("mine.general"))?,
        ];
        let users = session.one("SELECT COUNT(*) FROM mysql.user WHERE User = 'mine_user'")?;
        let gtids = gtids(server)?;
        let logs: Vec<(String, u64, String)> = session.rows("SHOW BINARY LOGS")?;
        for (log, ..) in &logs {
            session.run(format!("SHOW BINLOG EVENTS IN '{log}' LIMIT 1"))?;
        }
        let logs = logs.into_iter().map(|(log, ..)| log).take(2).collect();
        Ok(Self { rows, users, gtids, logs })
    }

    /// Fails unless the server has this data still, and nothing is left of a clone.
    pub fn assert_kept(&self, server: &Mysqld) -> Result<()> {
        let found = Self::of(server)?;
        ensure!(found == *self, "{} has {found:?} and had {self:?}", server.name());
        assert_no_rest(server.data_dir())
    }
}

/// Fails unless the server has the donor's data and nothing else, as after a clone by the stock
/// plugin.
pub fn assert_cloned(server: &Mysqld, donor: &Mysqld) -> Result<()> {
    let (cloned, donors) = (cloned_gtids(server)?, gtids(donor)?);
    ensure!(cloned == donors, "GTIDs {cloned}, the donor has {donors}");
    assert_usable(server)
}

/// As [`assert_cloned`], for a donor on which [writers](crate::writer) go on: the server has one
/// committed state of it.
pub fn assert_cloned_meanwhile(server: &Mysqld, donor: &Mysqld) -> Result<()> {
    let (cloned, donors) = (cloned_gtids(server)?, gtids(donor)?);
    let mut session = server.session()?;
    let is_part: bool = session.one(format!("SELECT GTID_SUBSET('{cloned}', '{donors}')"))?;
    ensure!(is_part && !cloned.is_empty(), "GTIDs {cloned}, the donor has {donors}");
    writer::check_invariants(&mut session)?;
    assert_usable(server)
}

fn gtids(server: &Mysqld) -> Result<String> {
    server.session()?.one("SELECT @@GLOBAL.gtid_executed")
}

/// The GTIDs of a server that has the donor's data, and new binary logs.
fn cloned_gtids(server: &Mysqld) -> Result<String> {
    let whose = Whose::of(server)?;
    ensure!(whose == Whose::Donors, "the data is {whose:?}");
    let logs: Vec<(String, u64, String)> = server.session()?.rows("SHOW BINARY LOGS")?;
    ensure!(logs.first().is_some_and(|(log, ..)| log == "binlog.000001"), "{logs:?}");
    gtids(server)
}

/// Fails unless the tables are sound, and nothing is left or in the way.
fn assert_usable(server: &Mysqld) -> Result<()> {
    // No directory is in the way.
    server.session()?.run_all([
        "CREATE DATABASE mine",
        "DROP DATABASE mine",
        "CREATE TABLE theirs_empty.t (id INT) ENGINE = MyISAM",
        "DROP TABLE theirs_empty.t",
    ])?;
    assert_no_rest(server.data_dir())?;
    verify::assert_sound(server)
}

/// Fails if files of a clone or of a swap are left.
pub fn assert_no_rest(directory: &Path) -> Result<()> {
    let mut found = Vec::new();
    collect_rest(directory, &mut found)?;
    ensure!(found.is_empty(), "left: {found:?}");
    Ok(())
}

fn collect_rest(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.contains(".#clone") || name == ".clone_staging" {
            found.push(entry.path());
        }
        if entry.file_type()?.is_dir() {
            collect_rest(&entry.path(), found)?;
        }
    }
    Ok(())
}
