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
    /// One large table.
    Large,
    /// Compressed pages, which leave holes in their file.
    Holes,
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
/// So many tables share the data, where it is not one table that matters.
const TABLES: u32 = 8;
/// Tablespaces of one table in [`Data::Small`].
const PARTITIONS: u32 = 1000;

/// Of the small tables, about this many fit in a MiB.
const SMALL_PER_MIB: u32 = 9;

impl Data {
    /// About how many MiB it is, without what every server has.
    pub(crate) fn mib(self, options: &Options) -> u32 {
        match self {
            Data::Large => options.large_mib,
            Data::Small => options.tables / SMALL_PER_MIB,
            Data::Text | Data::Random | Data::Holes => options.mib,
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
        let tables = |count: u32, mib: u32, attributes: &str, body: &str| -> Vec<String> {
            let rows = mib * ROWS_PER_MIB / count;
            let create = move |n| {
                format!(
                    "CREATE TABLE bench.t{n} (id INT PRIMARY KEY, body BLOB NOT NULL) {attributes}"
                )
            };
            let fill = move |n| {
                format!(
                    "INSERT INTO bench.t{n} WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s \
                     WHERE id < {rows}) SELECT id, {body} FROM s"
                )
            };
            (0..count).flat_map(|n| [create(n), fill(n)]).collect()
        };
        let statements = match self {
            Data::Text => tables(TABLES, options.mib, "", &text()),
            Data::Random => tables(TABLES, options.mib, "", RANDOM),
            Data::Large => tables(1, options.large_mib, "", &text()),
            Data::Holes => tables(TABLES, options.mib, "COMPRESSION = 'zlib'", &text()),
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
