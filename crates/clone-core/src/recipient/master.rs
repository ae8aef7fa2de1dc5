// SPDX-License-Identifier: GPL-2.0-only

//! What only the master of a clone has: the workers, the donor's parameters, and the lock on the
//! data that is replaced.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::session::{Clock, Host, RecipientSession, StagedClone, Work, WorkerKind};
use crate::workers::Workers;

/// The master's part of a clone.
pub(super) struct Master<S: RecipientSession> {
    workers: Workers<S::Host>,
    /// Makes the work of one worker thread.
    work: fn(Arc<Shared<S>>) -> Work<S>,
    pub(super) parameters: Parameters,
    is_replacing: bool,
}

impl<S: RecipientSession> Master<S> {
    pub(super) fn new(session: &S, work: fn(Arc<Shared<S>>) -> Work<S>) -> Self {
        Self {
            workers: Workers::new(session.host().settings().max_concurrency),
            work,
            parameters: Parameters::default(),
            is_replacing: false,
        }
    }

    /// How long the donor keeps the clone for us after a network failure.
    pub(super) fn reconnect_timeout(&self) -> Duration {
        Duration::from_secs(60 * self.parameters.reconnect_minutes())
    }

    /// Starts the workers that the clone begins with.
    pub(super) fn spawn_initial_workers(&mut self, session: &S, shared: &Arc<Shared<S>>) {
        let host = session.host();
        let wanted = self.workers.initial(&host.settings(), host.processors());
        self.grow(session, shared, wanted);
    }

    /// Called before each block: starts more workers as long as more workers make the clone faster.
    pub(super) fn tune(&mut self, session: &S, shared: &Arc<Shared<S>>) {
        let wanted = self.workers.tune(session, &shared.traffic.meter);
        self.grow(session, shared, wanted);
    }

    fn grow(&mut self, session: &S, shared: &Arc<Shared<S>>, wanted: u32) {
        let work = || (self.work)(Arc::clone(shared));
        self.workers.grow(session, WorkerKind::Client, wanted, work);
    }

    /// A stage begins; `estimate` is in bytes.
    pub(super) fn next_stage(&self, session: &S, estimate: u64) {
        self.workers.next_stage(session, estimate);
    }

    /// A stage has ended.
    pub(super) fn finish_stage(&mut self, session: &S, shared: &Shared<S>) {
        self.workers.finish_stage(session, &shared.traffic.meter);
    }

    /// Waits for all workers.
    pub(super) fn join_workers(&mut self) {
        self.workers.join();
    }

    /// The server's data is about to be replaced, and must not change any more.
    pub(super) fn begin_replacing(&mut self, session: &S) -> Result<()> {
        session.own_data()?.begin_replacing()?;
        self.is_replacing = true;
        Ok(())
    }

    /// Puts a clone that is complete in the place of the server's data, which cannot change any
    /// more.
    pub(super) fn replace_data(&mut self, session: &S, staged: &StagedClone) -> Result<()> {
        self.begin_replacing(session)?;
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        let host = session.host();
        host.observer().drop_data(host.unix_micros());
        session.own_data()?.replace_data(staged)
    }

    /// The server's data may change again after a clone that failed. After success it stays as it
    /// is until the server restarts.
    pub(super) fn end_replacing(&mut self, session: &S) {
        if std::mem::take(&mut self.is_replacing)
            && let Ok(data) = session.own_data()
        {
            data.end_replacing();
        }
    }
}
