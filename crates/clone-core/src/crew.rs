// SPDX-License-Identifier: GPL-2.0-only

//! The threads of a clone, as its master sees them: how many work, what they have done, and whether more would help.

use std::thread::JoinHandle;

use crate::meter::Meter;
use crate::session::{Host, Session, Settings, Side, Work, WorkerKind};
use crate::tuner::{Limits, Tuner, initial_workers};

/// The workers of a clone. The master itself is one thread more.
pub(crate) struct Crew {
    workers: Vec<JoinHandle<()>>,
    tuner: Tuner,
    /// `clone_max_concurrency` when the clone began.
    max_threads: u32,
    /// Bytes of the blocks that have shown a bound.
    shown: u64,
}

/// So many bytes decide: `ib_buffer_pool` comes first, and goes through the cache where data does not.
const DECISIVE: u64 = 1 << 20;

/// What the speed of a clone on one machine depends on, as its blocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Blocks are packed: each processor may have a task.
    Processors,
    /// Blocks are handed over, and copied past the cache. While the donor learns of one and tells of the next the disk is idle, unless
    /// another task uses it.
    Handover,
    /// The kernel copies blocks in its memory, or shares them. Tasks wait for their turn at a file there, so that one more than
    /// processors keeps these busy.
    Memory,
}

impl Crew {
    pub(crate) fn new(max_threads: u32) -> Self {
        let max_threads = max_threads.max(1);
        Self { workers: Vec::new(), tuner: Tuner::new(), max_threads, shown: 0 }
    }

    /// How many workers to start with: with auto-tuning a thread for each of the `processors`, so that it has less to find out (the
    /// stock plugin begins with one and decides every five seconds), else all; and no more than the bandwidth limits leave room for.
    ///
    /// If donor and recipient `share` the processors, each has half of them. More threads than that make no clone faster, but wait for
    /// each other, and InnoDB's stages wait for all of them.
    pub(crate) fn initial(&self, settings: &Settings, processors: u32, share: bool) -> u32 {
        self.of_threads(settings, if share { processors / 2 } else { processors })
    }

    /// How many workers to have after a block of `len` bytes has shown a bound. When that is decided, it is left to [`tune`](Self::tune).
    pub(crate) fn suit<S: Session>(&mut self, session: &S, bound: Bound, len: u64) -> u32 {
        let is_decided = |shown| shown >= DECISIVE;
        let was_decided = is_decided(self.shown);
        self.shown = self.shown.saturating_add(len);
        if was_decided || !is_decided(self.shown) {
            return self.workers();
        }
        let host = session.host();
        self.bound_workers(&host.settings(), host.processors(), bound)
    }

    fn bound_workers(&self, settings: &Settings, processors: u32, bound: Bound) -> u32 {
        let threads = match bound {
            Bound::Processors | Bound::Handover => processors,
            Bound::Memory => processors.saturating_add(1),
        };
        self.of_threads(settings, threads)
    }

    /// The workers of a clone that would like to have so many `threads`.
    fn of_threads(&self, settings: &Settings, threads: u32) -> u32 {
        let threads = match settings.autotune_concurrency {
            true => self.max_threads.min(threads.max(1)),
            false => self.max_threads,
        };
        initial_workers(threads - 1, limits(settings))
    }

    /// Called before each block: evaluates the speed about once a second, and says how many workers there should be.
    pub(crate) fn tune<S: Session>(&mut self, session: &S, meter: &Meter) -> u32 {
        let host = session.host();
        let now = self.workers();
        let Some(sample) = meter.evaluate(host.now(), false) else { return now };
        host.board().transferred(&sample, now + 1);
        self.tuner.observe(&sample);
        let settings = host.settings();
        if !settings.autotune_concurrency {
            return now;
        }
        let advice = self.tuner.threads(now + 1, self.max_threads, &limits(&settings));
        if let Some(text) = advice.log {
            host.log(Side::Client, &text);
        }
        advice.threads.saturating_sub(1)
    }

    /// Brings the number of workers up to `wanted`; it is never reduced.
    pub(crate) fn grow<S: Session>(
        &mut self,
        session: &S,
        kind: WorkerKind,
        wanted: u32,
        work: impl Fn() -> Work<S>,
    ) {
        let host = session.host();
        while self.workers() < wanted.min(self.max_threads - 1) {
            match host.spawn(kind, work()) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    let number = self.workers() + 1;
                    host.log(Side::Client, &format!("Failed to spawn worker: {number}: {error}"));
                    self.tuner.finish();
                    return;
                }
            }
        }
    }

    /// A stage begins; `estimate` is in bytes.
    pub(crate) fn next_stage<S: Session>(&self, session: &S, estimate: u64) {
        let host = session.host();
        host.board().next_stage(self.workers() + 1, estimate, host.unix_micros());
    }

    /// A stage has ended: its last bytes are accounted, and tuning begins anew.
    pub(crate) fn finish_stage<S: Session>(&mut self, session: &S, meter: &Meter) {
        let host = session.host();
        if let Some(sample) = meter.evaluate(host.now(), true) {
            host.board().transferred(&sample, self.workers() + 1);
            host.log(Side::Client, &meter.totals(host.now()).to_string());
        }
        self.tuner.reset();
    }

    /// Waits for all workers: none may outlive the clone, because the plugin could be unloaded after it.
    pub(crate) fn join<S: Session>(&mut self, session: &S) {
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                session.host().log(Side::Client, "Worker panicked");
            }
        }
        self.tuner.reset();
    }

    fn workers(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }
}

/// A master that panics must not leave threads behind in a plugin that may be unloaded.
impl Drop for Crew {
    fn drop(&mut self) {
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits { data: settings.max_data_bandwidth, network: settings.max_network_bandwidth }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(autotune_concurrency: bool, max_data_bandwidth: u32) -> Settings {
        Settings {
            buffer_size: 4 << 20,
            block_ddl: false,
            ddl_timeout: 300,
            max_concurrency: 16,
            max_network_bandwidth: 0,
            max_data_bandwidth,
            autotune_concurrency,
            delay_after_data_drop: 0,
            enable_compression: false,
            compression_level: 1,
            file_handover: true,
        }
    }

    #[test]
    fn processors_decide_with_how_many_workers_a_tuned_clone_begins() {
        let initial =
            |processors, share| Crew::new(16).initial(&settings(true, 0), processors, share);
        assert_eq!([1, 2, 8, 64].map(|processors| initial(processors, false)), [0, 1, 7, 15]);
        assert_eq!([1, 2, 8, 64].map(|processors| initial(processors, true)), [0, 0, 3, 15]);
        assert_eq!(initial(0, true), 0);
        let bound = |bound| {
            move |processors| Crew::new(16).bound_workers(&settings(true, 0), processors, bound)
        };
        assert_eq!([1, 2, 8, 64].map(bound(Bound::Processors)), [0, 1, 7, 15]);
        assert_eq!([1, 2, 8, 64].map(bound(Bound::Memory)), [1, 2, 8, 15]);
    }

    #[test]
    fn limits_and_the_variable_decide_too() {
        assert_eq!(Crew::new(16).initial(&settings(false, 0), 2, true), 15);
        assert_eq!(Crew::new(16).initial(&settings(false, 200), 2, true), 3);
        assert_eq!(Crew::new(3).initial(&settings(true, 0), 8, false), 2);
    }
}
