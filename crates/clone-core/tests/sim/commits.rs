// SPDX-License-Identifier: GPL-2.0-only

//! The transactions of a server, and what keeps them from committing.
//!
//! There is always one that wants to commit, and it does so at every moment at which it may:
//! whoever looks at the number of committed transactions twice sees two numbers, unless commits
//! were blocked all the time in between.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::error::{Result, number};
use clone_core::session;

use super::faults::{Action, Event, FollowerStep};
use super::scheduler::Scheduler;
use super::server::SimHost;
use super::session::SimSession;

/// Who commits at a server.
pub(crate) struct Commits {
    sim: Arc<Scheduler>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    committed: u64,
    /// When each of those ends that block commits, whatever is not done by then; by number.
    blocks: Vec<(u64, Duration)>,
    last_block: u64,
    longest: Duration,
    /// A statement runs, for which a block has to wait.
    statement: bool,
}

/// The longest time for which a server lets commits be blocked.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// How often who waits for a block is called.
const POLL: Duration = Duration::from_millis(500);

impl Commits {
    pub(super) fn new(sim: &Arc<Scheduler>) -> Self {
        Self { sim: Arc::clone(sim), state: Mutex::default() }
    }

    /// The number of committed transactions at this moment.
    pub(crate) fn look(&self) -> u64 {
        let are_blocked = self.are_blocked();
        let mut state = self.state();
        state.committed += u64::from(!are_blocked);
        state.committed
    }

    pub(crate) fn are_blocked(&self) -> bool {
        let now = self.sim.now();
        self.state().blocks.iter().any(|(_, ends)| now < *ends)
    }

    /// Whether somebody has not given a block back, be it over or not.
    pub(crate) fn has_block(&self) -> bool {
        !self.state().blocks.is_empty()
    }

    /// The longest time for which somebody had a block.
    pub(crate) fn longest_block(&self) -> Duration {
        self.state().longest
    }

    /// A statement begins or ends. It does not wait for blocks, whose part this is not.
    pub(crate) fn set_statement(&self, runs: bool) {
        self.state().statement = runs;
    }

    /// The number of a new block; none while a statement runs.
    fn block(&self) -> Option<u64> {
        let ends = self.sim.now() + LIMIT;
        let mut state = self.state();
        if state.statement {
            return None;
        }
        state.last_block += 1;
        let number = state.last_block;
        state.blocks.push((number, ends));
        Some(number)
    }

    fn unblock(&self, number: u64) {
        let now = self.sim.now();
        let mut state = self.state();
        let at = state.blocks.iter().position(|block| block.0 == number).unwrap();
        let (_, ends) = state.blocks.swap_remove(at);
        state.longest = state.longest.max(now + LIMIT - ends);
        state.committed += u64::from(state.blocks.is_empty());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Nobody commits as long as this lives, up to a limit.
pub(crate) struct CommitBlock {
    host: Arc<SimHost>,
    number: u64,
}

impl CommitBlock {
    /// Waits for the statement that runs.
    pub(super) fn new(
        session: &SimSession,
        timeout: Duration,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
        let host = &session.host;
        host.sim.pause();
        if let Action::Fail(number) = host.network.ask(&Event::Follower(FollowerStep::Block)) {
            return Err(session.raise_text(number, "interference"));
        }
        let deadline = host.sim.now() + timeout;
        loop {
            if let Some(number) = host.commits.block() {
                host.network.trace(|| "commits are blocked".to_owned());
                return Ok(Self { host: Arc::clone(host), number });
            }
            if host.sim.now() >= deadline {
                let text = "Lock wait timeout exceeded";
                return Err(session.raise_text(number::ER_LOCK_WAIT_TIMEOUT, text));
            }
            host.sim.sleep(POLL);
            wait()?;
        }
    }
}

impl session::CommitBlock for CommitBlock {
    fn has_held(&self) -> bool {
        let now = self.host.sim.now();
        let state = self.host.commits.state();
        state.blocks.iter().any(|(number, ends)| *number == self.number && now < *ends)
    }
}

impl Drop for CommitBlock {
    fn drop(&mut self) {
        self.host.commits.unblock(self.number);
        self.host.network.trace(|| "commits go on".to_owned());
        self.host.sim.pause();
    }
}
