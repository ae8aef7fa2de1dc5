// SPDX-License-Identifier: GPL-2.0-only

//! Blocks commits in all engines of mysqld.

use std::thread;
use std::time::{Duration, Instant};

use clone_core::error::{Error, Result};
use clone_core::session::Session;

use super::MysqldSession;
use crate::server::sql::{SqlError, SqlSession};

/// `FLUSH TABLES WITH READ LOCK`, until it is dropped.
pub(crate) struct CommitBlock(SqlSession);

/// How long one attempt waits for statements that run, seconds. Others queue up behind it, so that it must not be long.
const ATTEMPT: u32 = 3;

/// What these others get between two attempts.
const PAUSE: Duration = Duration::from_secs(6);

/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT_TIMEOUT: u32 = 1205;

impl CommitBlock {
    /// Waits for the statements that run, at most about `timeout_seconds`.
    ///
    /// # Errors
    /// It was too long; KILL of `session`.
    pub(super) fn new(session: &MysqldSession, timeout_seconds: u32) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(timeout_seconds.into());
        let mut sql = SqlSession::open().map_err(internal)?;
        let attempt = ATTEMPT.min(timeout_seconds.max(1));
        sql.run(&format!("SET SESSION lock_wait_timeout = {attempt}")).map_err(internal)?;
        loop {
            match sql.run("FLUSH TABLES WITH READ LOCK") {
                Ok(_) => return Ok(Self(sql)),
                Err(error) if error.number != LOCK_WAIT_TIMEOUT || Instant::now() >= deadline => {
                    return Err(internal(error));
                }
                Err(_) => {}
            }
            let next = Instant::now() + PAUSE;
            while Instant::now() < next {
                if session.is_killed() {
                    return Err(Error::Interrupted);
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

impl Drop for CommitBlock {
    fn drop(&mut self) {
        // The session's end gives the lock back in any case.
        let _ = self.0.run("UNLOCK TABLES");
    }
}

fn internal(error: SqlError) -> Error {
    Error::Internal(format!("Clone: {error}"))
}
