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
    /// Rows of sysbench: digits, and a secondary index.
    Sysbench,
    /// Sentences of English words.
    Words,
    /// What no compressor makes smaller.
    Random,
    /// The same rows as [`Data::Sysbench`], in pages that InnoDB has compressed.
    Packed,
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
            Data::Text | Data::Sysbench | Data::Words | Data::Random | Data::Packed => options.mib,
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
            Data::Sysbench => sysbench(options.mib * SYSBENCH_PER_MIB, ""),
            // Packed to about half of that.
            Data::Packed => {
                let format = "ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8";
                sysbench(options.mib * 2 * SYSBENCH_PER_MIB, format)
            }
            Data::Words => filled(options.mib * 12, &words()),
            Data::Small => small(options.tables),
        };
        for statement in &statements {
            session.run(statement)?;
        }
        session.run("ALTER INSTANCE ENABLE INNODB REDO_LOG")?;
        if matches!(self, Data::Text | Data::Sysbench) {
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

/// Rows of sysbench in a MiB, with the secondary index.
const SYSBENCH_PER_MIB: u32 = 4000;

/// The tables of sysbench's OLTP tests.
fn sysbench(rows: u32, format: &str) -> Vec<String> {
    let group = "LPAD(FLOOR(RAND() * 1e11), 11, '0')";
    let groups = |count| vec![group; count].join(", ");
    let rows = rows / TABLES;
    let create = |n| {
        format!(
            "CREATE TABLE bench.t{n} (id INT PRIMARY KEY AUTO_INCREMENT, k INT NOT NULL, \
             c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k)) {format}"
        )
    };
    let fill = |n| {
        format!(
            "INSERT INTO bench.t{n} (k, c, pad) WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL \
             SELECT id + 1 FROM s WHERE id < {rows}) SELECT FLOOR(RAND() * {rows}), \
             CONCAT_WS('-', {}), CONCAT_WS('-', {}) FROM s",
            groups(10),
            groups(5)
        )
    };
    (0..TABLES).flat_map(|n| [create(n), fill(n)]).collect()
}

/// Rows of 120 words, some of which are far more frequent than others.
fn words() -> String {
    const WORDS: &str = "the of and to in a is that for it as was with be by on not he his but at are this have \
        from or had an they which one you were all her she there would their we him been has when who will no more \
        if out so up said what its about than into them can only other time new some could these two may first then \
        do any like my now over such our man me even most made after also did many off before must well back through \
        years much where your way down should because long each just state those people too mr how little good world \
        make very year still see own work men day get here between both life being under three never know same last \
        another while us might great old come since go against came right used take states himself few house use \
        during without again place american around however home small found thought went say part once general high \
        upon school every does got united left number course war until always away something fact water less public \
        put think almost hand enough far took head yet government system set better told nothing night end why didn";
    let list: Vec<_> = WORDS.split_whitespace().map(|word| format!("'{word}'")).collect();
    let word = format!("ELT(1 + FLOOR(RAND() * RAND() * {}), {})", list.len(), list.join(", "));
    format!("CONCAT_WS(' ', {})", vec![word; 120].join(", "))
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
