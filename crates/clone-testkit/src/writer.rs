// SPDX-License-Identifier: GPL-2.0-only

//! A load of transactions that goes on while a clone is made.
//!
//! Each writer moves money between two accounts of different tables and notes it in the ledger, all
//! in one transaction, and now and then changes large rows. So three sums hold in each committed
//! state, and a clone in which one of them does not hold is torn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::mysqld::Mysqld;
use crate::sql::{Session, server_error};

/// Accounts in both tables of `bank` together; the first half is in `accounts`.
const ACCOUNTS: u32 = 400;
/// What each account starts with.
const OPENING: i64 = 1000;
/// Rows of `bank.notes`.
const NOTES: u32 = 500;

/// `ER_LOCK_WAIT_TIMEOUT`, `ER_LOCK_DEADLOCK`: the server asks to try again.
const RETRY: [u16; 2] = [1205, 1213];

/// One turn of the thread that changes tables. Ends where it began.
const DDL: [&str; 10] = [
    "CREATE TABLE ddl.t (id INT PRIMARY KEY, v VARCHAR(100)) AS \
     SELECT n AS id, SHA2(n, 256) AS v FROM shop.numbers",
    "ALTER TABLE ddl.t ADD COLUMN instant INT DEFAULT 7, ALGORITHM = INSTANT",
    "ALTER TABLE ddl.t ADD KEY by_v (v), ALGORITHM = INPLACE",
    "ALTER TABLE ddl.t MODIFY v VARCHAR(200) CHARACTER SET latin1, ALGORITHM = COPY",
    "RENAME TABLE ddl.t TO ddl.renamed",
    "DELETE FROM ddl.renamed WHERE id % 2 = 0",
    "OPTIMIZE TABLE ddl.renamed",
    "TRUNCATE TABLE ddl.renamed",
    "INSERT INTO ddl.renamed (id, v) SELECT n, 'again' FROM shop.numbers WHERE n < 100",
    "DROP TABLE ddl.renamed",
];

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of threads that write rows.
    pub threads: u32,
    /// Pause of each thread after each transaction.
    pub pause: Duration,
    /// Whether one more thread creates, alters, renames, truncates and drops tables.
    pub ddl: bool,
    /// The writers stop by themselves after this time.
    pub limit: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            threads: 2,
            pause: Duration::from_millis(2),
            ddl: false,
            limit: Duration::from_secs(600),
        }
    }
}

/// Running writers. They stop when this is dropped.
#[derive(Debug)]
pub struct Writers {
    has_ddl: bool,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    deadline: Instant,
    transactions: AtomicU64,
    statements: AtomicU64,
}

impl Shared {
    fn go_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && Instant::now() < self.deadline
    }
}

/// What writers have done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    /// Committed transactions that change rows.
    pub transactions: u64,
    /// DDL statements.
    pub ddl_statements: u64,
}

impl Writers {
    /// Starts to write to a server that has the data set.
    pub fn start(server: &Mysqld, load: Load) -> Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            deadline: Instant::now() + load.limit,
            transactions: AtomicU64::new(0),
            statements: AtomicU64::new(0),
        });
        let mut writers =
            Self { has_ddl: load.ddl, shared: Arc::clone(&shared), threads: Vec::new() };
        for seed in 0..load.threads {
            let (session, shared) = (server.session()?, Arc::clone(&shared));
            let write = move || write_rows(session, u64::from(seed), load.pause, &shared);
            writers.threads.push(thread::spawn(write));
        }
        if load.ddl {
            let session = server.session()?;
            writers.threads.push(thread::spawn(move || change_tables(session, &shared)));
        }
        Ok(writers)
    }

    /// Whether there is DDL among the statements.
    pub fn has_ddl(&self) -> bool {
        self.has_ddl
    }

    /// What has been done so far.
    pub fn written(&self) -> Written {
        Written {
            transactions: self.shared.transactions.load(Ordering::Relaxed),
            ddl_statements: self.shared.statements.load(Ordering::Relaxed),
        }
    }

    /// Waits until the writers have committed `count` more transactions.
    pub fn await_transactions(&self, count: u64) -> Result<()> {
        let goal = self.written().transactions + count;
        crate::until("the writers to commit", Duration::from_secs(60), || {
            if self.threads.iter().any(JoinHandle::is_finished) {
                bail!("a writer has stopped");
            }
            Ok((self.written().transactions >= goal).then_some(()))
        })
    }

    /// Stops, and fails if a writer failed.
    pub fn stop(mut self) -> Result<Written> {
        self.join()?;
        Ok(self.written())
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            result = result.and(thread.join().map_err(|_| anyhow!("a writer panicked"))?);
        }
        result
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // Who wants to know the result calls stop().
        let _ = self.join();
    }
}

fn write_rows(mut session: Session, seed: u64, pause: Duration, shared: &Shared) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    while shared.go_on() {
        match transaction(&mut session, &mut random) {
            Ok(()) => {
                shared.transactions.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if server_error(&error).is_some_and(|e| RETRY.contains(&e.number)) => {
                session.run("ROLLBACK")?;
            }
            Err(error) => return Err(error),
        }
        thread::sleep(pause);
    }
    Ok(())
}

fn transaction(session: &mut Session, random: &mut fastrand::Rng) -> Result<()> {
    let debit = random.u32(..ACCOUNTS / 2);
    let credit = random.u32(ACCOUNTS / 2..ACCOUNTS);
    let amount = random.i64(-50..=50);
    session.run("START TRANSACTION")?;
    session
        .run(format!("UPDATE bank.accounts SET balance = balance - {amount} WHERE id = {debit}"))?;
    session.run(format!(
        "INSERT INTO bank.ledger (debit, credit, amount) VALUES ({debit}, {credit}, {amount})"
    ))?;
    session.run(format!(
        "UPDATE bank.accounts_packed SET balance = balance + {amount} WHERE id = {credit}"
    ))?;
    match random.u32(..20) {
        // A row that is deleted and inserted again, with a body that may need pages of its own.
        0 => {
            let (note, bytes) = (random.u32(..NOTES), random.u32(100..1000));
            session.run(format!("DELETE FROM bank.notes WHERE id = {note}"))?;
            session.run(format!(
                "INSERT INTO bank.notes VALUES \
                 ({note}, REPEAT(RANDOM_BYTES({bytes}), {}), {amount} + 50)",
                random.u32(1..30)
            ))?;
        }
        1 => session.run(format!(
            "UPDATE shop.customers SET credit = credit + 1, doc = JSON_SET(doc, '$.last', {amount}) \
             WHERE id = {}",
            random.u32(1..100)
        ))?,
        2 => session.run(format!("CALL shop.pay({})", random.u32(1..100)))?,
        3 => session.run(format!(
            "REPLACE INTO shop.articles VALUES \
             ({}, 'Rewritten', CONCAT('words ', SHA2({amount}, 256)))",
            random.u32(1..100)
        ))?,
        4 => {
            // Fills undo and comes to nothing.
            session.run("UPDATE shop.archive SET payload = RANDOM_BYTES(1000) WHERE id < 50")?;
            session.run("ROLLBACK")?;
            return Ok(());
        }
        _ => {}
    }
    session.run("COMMIT")
}

fn change_tables(mut session: Session, shared: &Shared) -> Result<()> {
    while shared.go_on() {
        for statement in DDL {
            session.run(statement)?;
            shared.statements.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Checks on any server what holds in each committed state of the bank.
pub fn check_invariants(session: &mut Session) -> Result<()> {
    let expected = i64::from(ACCOUNTS) * OPENING;
    let total: i64 = session.one(
        "SELECT CAST(SUM(balance) AS SIGNED) FROM (SELECT balance FROM bank.accounts \
         UNION ALL SELECT balance FROM bank.accounts_packed) AS a",
    )?;
    if total != expected {
        bail!("the accounts hold {total} together instead of {expected}");
    }
    let wrong: Option<(u32, i64, i64)> = session.first(format!(
        "SELECT a.id, a.balance, CAST({OPENING} + IFNULL(l.moved, 0) AS SIGNED) AS expected \
         FROM (SELECT id, balance FROM bank.accounts \
               UNION ALL SELECT id, balance FROM bank.accounts_packed) AS a \
         LEFT JOIN (SELECT id, SUM(amount) AS moved FROM (SELECT credit AS id, amount FROM bank.ledger \
               UNION ALL SELECT debit, -amount FROM bank.ledger) AS m GROUP BY id) AS l ON l.id = a.id \
         WHERE a.balance <> {OPENING} + IFNULL(l.moved, 0) LIMIT 1"
    ))?;
    if let Some((id, balance, expected)) = wrong {
        bail!("account {id} holds {balance}, but the ledger says {expected}");
    }
    let notes: u32 = session.one("SELECT COUNT(*) FROM bank.notes")?;
    if notes != NOTES {
        bail!("{notes} notes instead of {NOTES}");
    }
    Ok(())
}
