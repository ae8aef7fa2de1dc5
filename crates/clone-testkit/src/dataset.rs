// SPDX-License-Identifier: GPL-2.0-only

//! Tables of every kind, with everything else that belongs to an instance: what a clone must carry
//! over.
//!
//! The statements are in `dataset/*.sql`, to be read as SQL.

use anyhow::{Context, Result};

use crate::mysqld::Mysqld;
use crate::sql::Session;
use crate::wait::go_on;

const TABLES: &str = include_str!("dataset/tables.sql");
const FILL: &str = include_str!("dataset/fill.sql");
const OBJECTS: &str = include_str!("dataset/objects.sql");

/// Only where a keyring is there.
const ENCRYPTED: [&str; 2] = [
    "CREATE TABLE shop.secrets (id INT PRIMARY KEY, secret VARCHAR(100)) ENCRYPTION = 'Y'",
    "INSERT INTO shop.secrets SELECT n, SHA2(n, 256) FROM shop.numbers",
];

/// Rows in `shop.numbers`, and so the most that a round can add to a table.
const MAX_ROWS: u64 = 1000;
/// What one round adds for each of its rows, in all tables together; only a rough size.
const BYTES_PER_ROW: u64 = 9 << 10;
/// A round is at most about this part of the whole, so that progress can be seen.
const ROUNDS: u64 = 40;

/// The size of the files of all user tablespaces, in bytes.
const SIZE: &str = "SELECT CAST(IFNULL(SUM(FILE_SIZE), 0) AS UNSIGNED) \
    FROM information_schema.INNODB_TABLESPACES \
    WHERE SPACE_TYPE IN ('Single', 'General') AND NAME NOT LIKE 'mysql%' AND NAME NOT LIKE 'sys/%'";

/// Loads the data set until its files have at least `size` bytes. `watch` is told the size so far.
/// Returns the size reached.
///
/// The load is not written to the binary log: a clone carries it, and replicas start from clones.
pub fn load(server: &Mysqld, size: u64, mut watch: impl FnMut(u64)) -> Result<u64> {
    let mut session = server.session()?;
    session.run("SET SESSION sql_log_bin = 0, cte_max_recursion_depth = 1000000")?;
    session.run_all(statements(TABLES)).context("create the tables of the data set")?;
    session.run(format!(
        "INSERT INTO shop.numbers WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s \
         WHERE n + 1 < {MAX_ROWS}) SELECT n FROM s"
    ))?;

    let rows = (size / BYTES_PER_ROW / ROUNDS).clamp(100, MAX_ROWS);
    session.run(format!("SET @first = 0, @rows = {rows}"))?;
    let reached = loop {
        for statement in statements(FILL) {
            go_on()?;
            session.run(statement).context("fill the data set")?;
        }
        session.run("SET @first = @first + @rows")?;
        let reached = self::size(&mut session)?;
        watch(reached);
        if reached >= size {
            break reached;
        }
    };

    session.run_all(statements(OBJECTS)).context("create the objects of the data set")?;
    if has_keyring(&mut session)? {
        session.run_all(ENCRYPTED)?;
    }
    Ok(reached)
}

/// Loads a data set for a test, of a few tens of MiB: one round, since each tablespace takes some
/// hundred KiB even when empty.
pub fn load_small(server: &Mysqld) -> Result<()> {
    load(server, 0, |_| {}).map(drop)
}

/// The size of the files of all user tablespaces, in bytes.
pub fn size(session: &mut Session) -> Result<u64> {
    session.one(SIZE)
}

fn has_keyring(session: &mut Session) -> Result<bool> {
    // Keyrings are components since 8.0.24.
    let has_components: bool = session.one(
        "SELECT COUNT(*) > 0 FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = 'performance_schema' AND TABLE_NAME = 'keyring_component_status'",
    )?;
    if !has_components {
        return Ok(false);
    }
    session.one(
        "SELECT COUNT(*) > 0 FROM performance_schema.keyring_component_status \
         WHERE STATUS_KEY = 'Component_status' AND STATUS_VALUE = 'Active'",
    )
}

/// The statements of a file of ours: separated by empty lines.
fn statements(file: &str) -> impl Iterator<Item = &str> {
    file.split("\n\n").map(|statement| statement.trim_end().trim_end_matches(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_split_at_empty_lines() {
        let file = "-- head\nSELECT 1;\n\nBEGIN\n  x;\nEND;\n";
        let split: Vec<_> = statements(file).collect();
        assert_eq!(split, ["-- head\nSELECT 1", "BEGIN\n  x;\nEND"]);
        assert!([TABLES, FILL, OBJECTS].iter().all(|file| statements(file).all(|s| !s.is_empty())));
    }
}
