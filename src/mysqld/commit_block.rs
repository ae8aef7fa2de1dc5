// SPDX-License-Identifier: GPL-2.0-only

//! Blocks commits in all engines of mysqld: `FLUSH TABLES WITH READ LOCK`, in a session and a
//! thread of its own.
//!
//! The thread gives the lock back after [`LIMIT`] in any case. The session that asked for it may
//! be stuck inside InnoDB: an XA COMMIT that has announced itself there
//! (`sql/clone_handler.h:XA_Operation`) waits for this lock, and InnoDB waits for the XA COMMIT.
//!
//! An account with BACKUP_ADMIN may not block commits by itself, and a clone lets it. So the number
//! of attempts is limited, each is logged with the account, and an account whose clone could not
//! use the lock has to wait for [`PENALTY`].

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clone_core::error::{Error, Result, number};
use clone_core::session;

use crate::guard::caught;
use crate::server::error_log::SERVER;
use crate::server::services::services;
use crate::server::sql::{Rows, SqlError, SqlSession};
use crate::server::thread::Thread;

/// How long commits are blocked at most.
const LIMIT: Duration = Duration::from_secs(10);

/// How long one attempt waits for statements that run, seconds. Others queue up behind it, so that
/// it must not be long.
const ATTEMPT: u32 = 3;

/// How many attempts one clone has.
const ATTEMPTS: u32 = 3;

/// What the statements that have queued up get between two attempts.
const PAUSE: Duration = Duration::from_secs(6);

/// How long an account has to wait after a clone that could not use the lock.
const PENALTY: Duration = Duration::from_secs(60);

/// How often the caller's `wait` is called.
const POLL: Duration = Duration::from_millis(100);

/// The lock, until this is dropped.
pub(crate) struct CommitBlock {
    shared: Arc<Shared>,
    _thread: Thread,
}

impl CommitBlock {
    /// Waits for the statements that run, at most about `timeout_seconds`. `connection` is the id
    /// of the session that asks.
    ///
    /// # Errors
    /// It took too long; the account has to wait; that of `wait`.
    pub(super) fn new(
        connection: u64,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Ended(Arc::clone(&shared));
        let thread = Thread::spawn(c"clone_commits", move || {
            let shared = &theirs.0;
            // The session makes this a thread of mysqld. It ends before the thread does.
            let session = services().clone_protocol.start_session(0);
            let Some(_session) = session else { return };
            // A panic has been logged. `Ended` tells the caller that the thread has ended.
            let _ = caught(|| hold(connection, timeout_seconds, shared));
        })
        .map_err(|error| Error::Internal(format!("Clone: no thread: {error}")))?;
        let block = Self { shared, _thread: thread };
        loop {
            match block.shared.outcome(POLL) {
                Some(outcome) => return outcome.map(|()| block).map_err(internal),
                None => wait()?,
            }
        }
    }
}

impl session::CommitBlock for CommitBlock {
    fn has_held(&self) -> bool {
        !self.shared.state().has_ended_early
    }
}

impl Drop for CommitBlock {
    fn drop(&mut self) {
        // This ends the thread. Dropping `_thread` waits for its end.
        self.shared.change(|state| state.is_released = true);
    }
}

/// What the caller and the thread tell each other. A condition variable is used instead of a
/// channel, because a channel registers a thread-local destructor on the caller's thread: see
/// [`crate::server::thread`].
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether the lock is held, once that is known.
    outcome: Option<std::result::Result<(), SqlError>>,
    /// The caller needs the lock no longer.
    is_released: bool,
    /// Commits went on after [`LIMIT`].
    has_ended_early: bool,
    thread_has_ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until the thread says whether it has the lock, for at most `limit`.
    fn outcome(&self, limit: Duration) -> Option<std::result::Result<(), SqlError>> {
        let is_open = |state: &mut State| state.outcome.is_none() && !state.thread_has_ended;
        let waited = self.changed.wait_timeout_while(self.state(), limit, is_open);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let has_ended = state.thread_has_ended;
        state.outcome.take().or_else(|| {
            has_ended.then(|| Err(refusal("no answer from the thread that blocks commits")))
        })
    }

    /// Waits until the caller needs the lock no longer, for at most `limit`. False if it still
    /// does.
    fn released(&self, limit: Duration) -> bool {
        let is_needed = |state: &mut State| !state.is_released;
        let waited = self.changed.wait_timeout_while(self.state(), limit, is_needed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_released
    }
}

/// Says that the thread has ended, however that came.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.change(|state| state.thread_has_ended = true);
    }
}

/// The thread: takes the lock, says so, and keeps it until it is released.
fn hold(connection: u64, timeout_seconds: u32, shared: &Shared) {
    let mut account = None;
    let mut sql = None;
    let mut has_asked = false;
    let outcome = SqlSession::open().and_then(|mut session| {
        account = account_of(connection, &mut session);
        if let Some(account) = &account {
            check_penalty(account)?;
        }
        has_asked = true;
        lock(timeout_seconds, &mut session, &mut |pause| shared.released(pause))?;
        sql = Some(session);
        Ok(())
    });
    let who = account.clone().unwrap_or_else(|| format!("connection {connection}"));
    let failure = outcome.as_ref().err().map(ToString::to_string);
    // An account that was refused for its penalty has kept nobody waiting: no new penalty.
    let was_late = has_asked && failure.is_some() && !shared.state().is_released;
    if let Some(failure) = failure {
        log::warn!(target: SERVER, "Commits could not be blocked for the clone of {who}: {failure}");
    } else {
        log::warn!(
            target: SERVER,
            "Commits are blocked for the clone of {who}, for at most {} seconds",
            LIMIT.as_secs()
        );
    }
    shared.change(|state| state.outcome = Some(outcome));
    let mut is_lost = was_late;
    if let Some(mut sql) = sql {
        if !shared.released(LIMIT) {
            shared.change(|state| state.has_ended_early = true);
            is_lost = true;
            log::warn!(target: SERVER, "Commits go on before the clone of {who} is ready for it");
        }
        // The session's end gives the lock back in any case.
        let _ = sql.run("UNLOCK TABLES");
    }
    if let Some(account) = account.filter(|_| is_lost) {
        penalties().add(account, Instant::now());
    }
}

/// Runs statements.
trait Statements {
    fn run(&mut self, statement: &str) -> std::result::Result<Rows, SqlError>;
}

impl Statements for SqlSession {
    fn run(&mut self, statement: &str) -> std::result::Result<Rows, SqlError> {
        SqlSession::run(self, statement)
    }
}

/// Takes the lock. Between two attempts `pause` waits; if it returns true, nobody wants the lock
/// any more.
fn lock(
    timeout_seconds: u32,
    sql: &mut impl Statements,
    pause: &mut dyn FnMut(Duration) -> bool,
) -> std::result::Result<(), SqlError> {
    let deadline = Instant::now() + Duration::from_secs(timeout_seconds.into());
    let seconds = ATTEMPT.min(timeout_seconds.max(1));
    sql.run(&format!("SET SESSION lock_wait_timeout = {seconds}"))?;
    let mut attempts = 1;
    loop {
        let Err(error) = sql.run("FLUSH TABLES WITH READ LOCK") else { return Ok(()) };
        let is_over = attempts == ATTEMPTS || Instant::now() >= deadline;
        if error.number != number::ER_LOCK_WAIT_TIMEOUT || is_over || pause(PAUSE) {
            return Err(error);
        }
        attempts += 1;
    }
}

/// `user@host` of a connection; none if performance_schema does not know it.
fn account_of(connection: u64, sql: &mut impl Statements) -> Option<String> {
    let statement = format!(
        "SELECT PROCESSLIST_USER, PROCESSLIST_HOST FROM performance_schema.threads \
         WHERE PROCESSLIST_ID = {connection}"
    );
    let rows = sql.run(&statement).ok()?;
    let mut names = rows.into_iter().next()?.into_iter().map(Option::unwrap_or_default);
    let (user, host) = (names.next()?, names.next()?);
    Some(format!("{}@{}", user.escape_debug(), host.escape_debug()))
}

/// The accounts that have to wait, and since when.
static PENALTIES: Mutex<Penalties> = Mutex::new(Penalties(BTreeMap::new()));

fn penalties() -> MutexGuard<'static, Penalties> {
    PENALTIES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_penalty(account: &str) -> std::result::Result<(), SqlError> {
    match penalties().applies_to(account, Instant::now()) {
        true => {
            Err(refusal("the last clone of this account could not use it, less than a minute ago"))
        }
        false => Ok(()),
    }
}

struct Penalties(BTreeMap<String, Instant>);

impl Penalties {
    fn add(&mut self, account: String, now: Instant) {
        self.0.retain(|_, since| now.duration_since(*since) < PENALTY);
        self.0.insert(account, now);
    }

    fn applies_to(&self, account: &str, now: Instant) -> bool {
        self.0.get(account).is_some_and(|since| now.duration_since(*since) < PENALTY)
    }
}

fn refusal(reason: &str) -> SqlError {
    SqlError {
        number: number::ER_INTERNAL_ERROR,
        text: format!("FLUSH TABLES WITH READ LOCK: {reason}"),
    }
}

fn internal(error: SqlError) -> Error {
    Error::Internal(format!("Clone: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session in which the lock is never to be had.
    struct Busy {
        statements: Vec<String>,
        error: u32,
    }

    impl Busy {
        fn new(error: u32) -> Self {
            Self { statements: Vec::new(), error }
        }

        fn flushes(&self) -> usize {
            self.statements.iter().filter(|statement| statement.starts_with("FLUSH")).count()
        }
    }

    impl Statements for Busy {
        fn run(&mut self, statement: &str) -> std::result::Result<Rows, SqlError> {
            self.statements.push(statement.to_owned());
            match statement.starts_with("FLUSH") {
                true => Err(SqlError { number: self.error, text: String::new() }),
                false => Ok(vec![vec![Some("u'\n".to_owned()), Some("h".to_owned())]]),
            }
        }
    }

    /// The time-out comes from the recipient. The highest one is 68 years.
    #[test]
    fn a_lock_that_is_never_had_is_given_up() {
        let mut sql = Busy::new(1205);
        let mut pauses = Vec::new();
        let outcome = lock(u32::MAX >> 1, &mut sql, &mut |pause| {
            pauses.push(pause);
            assert!(pauses.len() < 100, "it is not given up");
            false
        });
        assert_eq!(outcome.err().map(|error| error.number), Some(1205));
        assert_eq!((sql.flushes(), pauses), (3, vec![PAUSE; 2]));
        assert_eq!(sql.statements[0], "SET SESSION lock_wait_timeout = 3");
    }

    #[test]
    fn other_ends_of_waiting() {
        // The caller needs the lock no longer.
        let mut sql = Busy::new(1205);
        assert!(lock(300, &mut sql, &mut |_| true).is_err());
        assert_eq!(sql.flushes(), 1);
        // Another error than that of a time-out.
        let mut sql = Busy::new(1317);
        assert!(lock(300, &mut sql, &mut |_| panic!("no pause")).is_err());
        assert_eq!(sql.flushes(), 1);
        // A time-out of 0.
        let mut sql = Busy::new(1205);
        assert!(lock(0, &mut sql, &mut |_| panic!("no pause")).is_err());
        assert_eq!(sql.statements[0], "SET SESSION lock_wait_timeout = 1");
    }

    #[test]
    fn accounts_are_named_on_one_line() {
        let mut sql = Busy::new(0);
        assert_eq!(account_of(7, &mut sql), Some("u\\'\\n@h".to_owned()));
        assert!(sql.statements[0].ends_with("PROCESSLIST_ID = 7"));
    }

    #[test]
    fn an_account_waits_a_minute() {
        let mut penalties = Penalties(BTreeMap::new());
        let start = Instant::now();
        penalties.add("a@h".to_owned(), start);
        let (soon, later) = (start + PENALTY / 2, start + PENALTY);
        assert!(penalties.applies_to("a@h", soon));
        assert!(!penalties.applies_to("b@h", soon));
        assert!(!penalties.applies_to("a@h", later));
        penalties.add("b@h".to_owned(), later);
        assert_eq!(penalties.0.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn the_thread_and_its_caller_hear_of_each_other() {
        let shared = Arc::new(Shared::default());
        assert!(shared.outcome(Duration::ZERO).is_none());
        assert!(!shared.released(Duration::ZERO));
        shared.change(|state| state.outcome = Some(Ok(())));
        assert_eq!(shared.outcome(Duration::ZERO), Some(Ok(())));
        shared.change(|state| state.is_released = true);
        assert!(shared.released(Duration::ZERO));
        // A thread that panics is not waited for.
        drop(Ended(Arc::clone(&shared)));
        assert!(shared.outcome(LIMIT).is_some_and(|outcome| outcome.is_err()));
    }
}
