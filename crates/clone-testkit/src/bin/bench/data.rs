// SPDX-License-Identifier: GPL-2.0-only

//! What there is to clone.

use clone_testkit::anyhow::Result;
use clone_testkit::{Mysqld, clone, dataset};

use crate::options::Options;

/// The kinds of data. Each has a donor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Rows as an application has them: half of it digits of hashes, half of it words. And what the
    /// writers work on.
    Text,
    /// What no compressor makes smaller.
    Random,
    /// Very many tablespaces of some pages each.
    Small,
}

/// Rows of about 7.5 KiB, two in a page.
fn text() -> String {
    let digits: Vec<_> = (0..28).map(|n| format!("SHA2(id * 32 + {n}, 512)")).collect();
    let words =
        "REPEAT(CONCAT('Order ', id, ' of customer ', id % 977, ', placed at the counter; '), 70)";
    format!("CONCAT({}, {words})", digits.join(", "))
}
const RANDOM: &str = "CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(1000), RANDOM_BYTES(1000), RANDOM_BYTES(1000), \
    RANDOM_BYTES(1000), RANDOM_BYTES(1000), RANDOM_BYTES(1000))";
const ROWS_PER_MIB: u32 = 128;
/// Number of tables that share the data of [`Data::Text`] and [`Data::Random`].
const TABLES: u32 = 8;
/// Tablespaces of one table in [`Data::Small`].
const PARTITIONS: u32 = 1000;

/// Of the small tables, about this many fit in a MiB.
const SMALL_PER_MIB: u32 = 9;

impl Data {
    /// About how many MiB it is, without what every server has.
    pub(crate) fn mib(self, options: &Options) -> u32 {
        match self {
            Data::Small => options.tables / SMALL_PER_MIB,
            Data::Text | Data::Random => options.mib,
        }
    }

    /// Creates and fills the tables. The pages are on disk when this returns.
    pub(crate) fn load(self, donor: &mut Mysqld, options: &Options) -> Result<()> {
        clone::make_donor(donor)?;
        let mut session = donor.session()?;
        session.run_all([
            "SET SESSION sql_log_bin = 0, cte_max_recursion_depth = 100000000",
            "ALTER INSTANCE DISABLE INNODB REDO_LOG",
            "CREATE DATABASE bench",
        ])?;
        let statements = match self {
            Data::Text => filled(options.mib, &text()),
            Data::Random => filled(options.mib, RANDOM),
            Data::Small => small(options.tables),
        };
        for statement in &statements {
            session.run(statement)?;
        }
        session.run("ALTER INSTANCE ENABLE INNODB REDO_LOG")?;
        if self == Data::Text {
            dataset::load_small(donor)?;
        }
        // Whatever is written later would be counted as the clone's.
        session.run("SET GLOBAL innodb_fast_shutdown = 0")?;
        drop(session);
        donor.restart()
    }
}

/// Tables of `mib` in all, with rows that hold what the SQL expression `body` makes.
fn filled(mib: u32, body: &str) -> Vec<String> {
    let rows = mib * ROWS_PER_MIB / TABLES;
    let create = |n| format!("CREATE TABLE bench.t{n} (id INT PRIMARY KEY, body BLOB NOT NULL)");
    let fill = |n| {
        format!(
            "INSERT INTO bench.t{n} WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s \
             WHERE id < {rows}) SELECT id, {body} FROM s"
        )
    };
    (0..TABLES).flat_map(|n| [create(n), fill(n)]).collect()
}

/// Partitioned tables without rows; each partition is a tablespace.
fn small(tables: u32) -> Vec<String> {
    let full = (0..tables / PARTITIONS).map(|_| PARTITIONS);
    let rest = Some(tables % PARTITIONS).filter(|rest| *rest != 0);
    let create = |(n, partitions)| {
        format!(
            "CREATE TABLE bench.s{n} (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS {partitions}"
        )
    };
    full.chain(rest).enumerate().map(create).collect()
}
