// SPDX-License-Identifier: GPL-2.0-only

//! What the master does as the head of the clone's threads; a worker does nothing here.

use std::sync::Arc;

use super::task::{Master, Task};
use crate::session::{Host, RecipientSession, Work, WorkerKind};

impl<S: RecipientSession> Task<'_, S> {
    /// Starts the workers that the clone begins with.
    pub(super) fn spawn_initial_workers(&mut self) {
        let host = self.session.host();
        let (settings, processors) = (host.settings(), host.processors());
        let initial = |master: &Master<S>| master.workers.initial(&settings, processors);
        let wanted = self.master.as_ref().map_or(0, initial);
        self.grow(wanted);
    }

    /// Before each block: more workers, if they have helped so far.
    pub(super) fn tune(&mut self) {
        let Some(master) = &mut self.master else { return };
        let wanted = master.workers.tune(self.session, &self.shared.traffic.meter);
        self.grow(wanted);
    }

    fn grow(&mut self, wanted: u32) {
        let Some(master) = &mut self.master else { return };
        master.workers.grow(self.session, WorkerKind::Client, wanted, || -> Work<S> {
            let shared = Arc::clone(&self.shared);
            // A worker's error is in the engine by then, where the master finds it.
            Box::new(move |session| drop(Task::worker(session, shared).run()))
        });
    }

    /// A stage begins; `estimate` is in bytes.
    pub(super) fn next_stage(&self, estimate: u64) {
        if let Some(master) = &self.master {
            master.workers.next_stage(self.session, estimate);
        }
    }

    /// A stage has ended.
    pub(super) fn finish_stage(&mut self) {
        if let Some(master) = &mut self.master {
            master.workers.finish_stage(self.session, &self.shared.traffic.meter);
        }
    }

    /// Waits for all workers.
    pub(super) fn join_workers(&mut self) {
        if let Some(master) = &mut self.master {
            master.workers.join();
        }
    }
}
