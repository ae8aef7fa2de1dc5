// SPDX-License-Identifier: GPL-2.0-only

//! Blocks commits in all engines of mysqld: `FLUSH TABLES WITH READ LOCK`, in a session and a thread of its own.
//!
//! The thread gives the lock back after [`LIMIT`] in any case. The one that asked for it may be stuck inside InnoDB: an XA COMMIT that
//! has announced itself there (`sql/clone_handler.h:XA_Operation`) waits for this lock, and InnoDB waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clone_core::error::{Error, Result};
use clone_core::session;

use crate::guard::caught;
use crate::server::services::services;
use crate::server::sql::{SqlError, SqlSession};

/// How long commits are blocked at most.
const LIMIT: Duration = Duration::from_secs(10);

/// How long one attempt waits for statements that run, seconds. Others queue up behind it, so that it must not be long.
const ATTEMPT: u32 = 3;

/// What these others get between two attempts.
const PAUSE: Duration = Duration::from_secs(6);

/// How often who waits is called.
const POLL: Duration = Duration::from_millis(100);

/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT_TIMEOUT: u32 = 1205;

/// The lock, until this is dropped.
pub(crate) struct CommitBlock {
    has_held: Arc<AtomicBool>,
    /// The thread ends when this is gone.
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CommitBlock {
    /// Waits for the statements that run, at most about `timeout_seconds`.
    ///
    /// # Errors
    /// It was too long; that of `wait`.
    pub(super) fn new(timeout_seconds: u32, wait: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let has_held = Arc::new(AtomicBool::new(true));
        let (release, released) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let holds = Arc::clone(&has_held);
        let thread = thread::Builder::new()
            .name("clone_commits".to_owned())
            .spawn(move || {
                // It makes this a thread of mysqld, and ends before the thread does.
                let Some(_session) = services().clone_protocol.start_session(0) else { return };
                // A panic has been logged; who waits hears no answer.
                let _ = caught(move || hold(timeout_seconds, &tell, &released, &holds));
            })
            .map_err(|error| Error::Internal(format!("Clone: no thread: {error}")))?;
        let block = Self { has_held, release: Some(release), thread: Some(thread) };
        loop {
            match told.recv_timeout(POLL) {
                Ok(outcome) => return outcome.map(|()| block).map_err(internal),
                Err(RecvTimeoutError::Timeout) => wait()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Internal("Clone: no answer from its thread".to_owned()));
                }
            }
        }
    }
}

impl session::CommitBlock for CommitBlock {
    fn has_held(&self) -> bool {
        self.has_held.load(Ordering::Acquire)
    }
}

impl Drop for CommitBlock {
    fn drop(&mut self) {
        self.release = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread: takes the lock, says so, and keeps it until it is released.
fn hold(
    timeout_seconds: u32,
    tell: &Sender<Result<(), SqlError>>,
    released: &Receiver<()>,
    holds: &AtomicBool,
) {
    match lock(timeout_seconds, released) {
        Ok(mut sql) => {
            let _ = tell.send(Ok(()));
            if released.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                holds.store(false, Ordering::Release);
            }
            // The session's end gives the lock back in any case.
            let _ = sql.run("UNLOCK TABLES");
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    }
}

fn lock(timeout_seconds: u32, released: &Receiver<()>) -> Result<SqlSession, SqlError> {
    let deadline = Instant::now() + Duration::from_secs(timeout_seconds.into());
    let mut sql = SqlSession::open()?;
    let attempt = ATTEMPT.min(timeout_seconds.max(1));
    sql.run(&format!("SET SESSION lock_wait_timeout = {attempt}"))?;
    loop {
        match sql.run("FLUSH TABLES WITH READ LOCK") {
            Ok(_) => return Ok(sql),
            Err(error) if error.number != LOCK_WAIT_TIMEOUT || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(error) => {
                if released.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
                    return Err(error);
                }
            }
        }
    }
}

fn internal(error: SqlError) -> Error {
    Error::Internal(format!("Clone: {error}"))
}
