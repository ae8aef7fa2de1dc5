// SPDX-License-Identifier: GPL-2.0-only

//! The donor's tables, and how they change during the clone.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clone_testkit::anyhow::{Result, anyhow};
use clone_testkit::{Mysqld, Session};

/// How often tables change at most.
const ROUNDS: usize = 12;
/// How long one round takes: InnoDB flushes dirty pages once a second. A statement
/// that takes longer waits for the clone; before 8.0.27 all DDL does.
pub(crate) const ROUND: Duration = Duration::from_millis(1500);

const TABLES: [&str; 15] = [
    "SET SESSION sql_log_bin = 0",
    "CREATE DATABASE d",
    "CREATE TABLE d.plain (id INT PRIMARY KEY, v VARBINARY(4000))",
    "CREATE TABLE d.packed (id INT PRIMARY KEY, v VARBINARY(2000)) \
     ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 4",
    "CREATE TABLE d.squeezed (id INT PRIMARY KEY, v VARBINARY(2000)) COMPRESSION = 'zlib'",
    "CREATE TABLE d.parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2",
    "CREATE TABLESPACE ts_in ADD DATAFILE 'ts_in.ibd'",
    "CREATE TABLESPACE ts_out ADD DATAFILE '../ts_out.ibd'",
    "CREATE TABLE d.within (id INT PRIMARY KEY) TABLESPACE ts_in",
    "CREATE TABLE d.outside (id INT PRIMARY KEY) TABLESPACE ts_out",
    "CREATE UNDO TABLESPACE undo_user ADD DATAFILE 'undo_user.ibu'",
    "INSERT INTO d.plain WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s \
     WHERE n + 1 < 500) SELECT n, RANDOM_BYTES(1000) FROM s",
    "INSERT INTO d.packed SELECT id, REPEAT(v, 2) FROM d.plain WHERE id < 100",
    "INSERT INTO d.squeezed SELECT id, REPEAT('v', 2000) FROM d.plain WHERE id < 100",
    "SET GLOBAL innodb_buffer_pool_dump_now = ON",
];

/// Makes all tables, also those that change later. All pages that change are written soon, so that
/// PAGE_COPY has some.
pub(crate) fn fill(donor: &Mysqld) -> Result<()> {
    let mut session = donor.session()?;
    session.run_all(TABLES)?;
    for round in 0..ROUNDS {
        for name in ["dropped", "renamed", "rebuilt", "truncated"] {
            session.run(format!("CREATE TABLE d.{name}_{round} (id INT PRIMARY KEY)"))?;
        }
    }
    session
        .run("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0, GLOBAL innodb_max_dirty_pages_pct = 0")
}

/// The statements of one round. Rows come first: DDL may have to wait for the clone.
fn statements(round: usize) -> Vec<String> {
    vec![
        format!("UPDATE d.plain SET v = RANDOM_BYTES(1000) WHERE id % {ROUNDS} = {round}"),
        format!("UPDATE d.packed SET v = RANDOM_BYTES(1024) WHERE id % {ROUNDS} = {round}"),
        format!("INSERT INTO d.outside VALUES ({round})"),
        format!("CREATE TABLE d.new_{round} (id INT PRIMARY KEY, v VARBINARY(1000))"),
        format!("INSERT INTO d.new_{round} SELECT id, v FROM d.plain WHERE id < 50"),
        format!("RENAME TABLE d.renamed_{round} TO d.other_{round}"),
        format!("ALTER TABLE d.rebuilt_{round} FORCE, ALGORITHM = COPY"),
        format!("TRUNCATE TABLE d.truncated_{round}"),
        format!("DROP TABLE d.dropped_{round}"),
        format!("CREATE TABLESPACE ts_{round} ADD DATAFILE 'ts_{round}.ibd'"),
    ]
}

/// A session that changes tables, round by round.
pub(crate) struct Changes {
    rounds: Sender<Vec<String>>,
    next: usize,
    thread: JoinHandle<Result<()>>,
}

impl Changes {
    /// Starts the session, which does nothing yet.
    pub(crate) fn start(donor: &Mysqld) -> Result<Self> {
        let (rounds, orders) = channel();
        let session = donor.session()?;
        let thread = thread::spawn(move || change(session, &orders));
        Ok(Self { rounds, next: 0, thread })
    }

    /// Begins the next round, if one is left, and returns after [`ROUND`].
    pub(crate) fn next_round(&mut self) {
        if self.next < ROUNDS {
            // It fails when the session has ended, and finish() tells why.
            let _ = self.rounds.send(statements(self.next));
            self.next += 1;
        }
        thread::sleep(ROUND);
    }

    /// Waits for the statements that had to wait for the clone.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.rounds);
        self.thread.join().map_err(|_| anyhow!("the thread that changes tables panicked"))?
    }
}

fn change(mut session: Session, rounds: &Receiver<Vec<String>>) -> Result<()> {
    for statements in rounds {
        for statement in &statements {
            session.run(statement)?;
        }
    }
    Ok(())
}
