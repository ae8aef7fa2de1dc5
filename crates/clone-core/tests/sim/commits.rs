// SPDX-License-Identifier: GPL-2.0-only

//! The transactions of a server, and what keeps them from committing.
//!
//! There is always one that wants to commit, and it does so at every moment at which it may: whoever looks at the number of
//! committed transactions twice sees two numbers, unless commits were blocked all the time in between.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::error::{Result, number};

use super::faults::{Action, Event, FollowerStep};
use super::scheduler::{Key, Scheduler};
use super::server::SimHost;
use super::session::{INTERRUPTED, SimSession};

/// Who commits at a server.
pub(crate) struct Commits {
    sim: Arc<Scheduler>,
    key: Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    committed: u64,
    /// Sessions that block commits.
    blocks: u32,
    /// When the first of them began.
    since: Duration,
    longest: Duration,
    /// A statement that runs, for which a block has to wait.
    statement: bool,
}

impl Commits {
    pub(super) fn new(sim: &Arc<Scheduler>) -> Self {
        Self { sim: Arc::clone(sim), key: sim.key(), state: Mutex::default() }
    }

    /// The number of committed transactions at this moment.
    pub(crate) fn look(&self) -> u64 {
        let mut state = self.state();
        if state.blocks == 0 {
            state.committed += 1;
        }
        state.committed
    }

    pub(crate) fn are_blocked(&self) -> bool {
        self.state().blocks != 0
    }

    /// The longest time for which they have been blocked.
    pub(crate) fn longest_block(&self) -> Duration {
        self.state().longest
    }

    /// A statement begins or ends. It does not wait for blocks, whose part this is not.
    pub(crate) fn set_statement(&self, runs: bool) {
        self.state().statement = runs;
        self.sim.notify(self.key);
    }

    /// False if a statement did not end in time, or the session was killed.
    fn block(&self, session: &SimSession, timeout: Duration) -> bool {
        let deadline = self.sim.now() + timeout;
        loop {
            let now = self.sim.now();
            {
                let mut state = self.state();
                if session.handle.is_killed() {
                    return false;
                }
                if !state.statement {
                    if state.blocks == 0 {
                        state.since = now;
                    }
                    state.blocks += 1;
                    return true;
                }
            }
            if now >= deadline {
                return false;
            }
            self.sim.wait(self.key, Some(deadline));
        }
    }

    fn unblock(&self) {
        let now = self.sim.now();
        let mut state = self.state();
        state.blocks -= 1;
        if state.blocks == 0 {
            state.longest = state.longest.max(now - state.since);
            state.committed += 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Nobody commits as long as this lives.
pub(crate) struct CommitBlock(Arc<SimHost>);

impl CommitBlock {
    /// Waits for the statement that runs.
    pub(super) fn new(session: &SimSession, timeout: Duration) -> Result<Self> {
        let host = &session.host;
        host.sim.pause();
        if let Action::Fail(number) = host.network.ask(&Event::Follower(FollowerStep::Block)) {
            return Err(session.raise_text(number, "interference"));
        }
        if host.commits.block(session, timeout) {
            host.network.trace(|| "commits are blocked".to_owned());
            return Ok(Self(Arc::clone(host)));
        }
        Err(match session.handle.is_killed() {
            true => session.raise_text(number::ER_QUERY_INTERRUPTED, INTERRUPTED),
            false => session.raise_text(number::ER_LOCK_WAIT_TIMEOUT, "Lock wait timeout exceeded"),
        })
    }
}

impl Drop for CommitBlock {
    fn drop(&mut self) {
        self.0.commits.unblock();
        self.0.network.trace(|| "commits go on".to_owned());
        self.0.sim.pause();
    }
}
