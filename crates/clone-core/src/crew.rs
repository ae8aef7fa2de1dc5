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
    evidence: Evidence,
}

/// What the speed of a clone on one machine depends on, as its blocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Blocks come over a connection, not compressed: one task keeps a processor busy at each end.
    Network,
    /// Blocks are packed: each processor may have a task.
    Processors,
    /// Blocks are copied from disk to disk, past the cache, and that is all.
    Disk,
    /// So they are, and handed over. While the donor learns of one and tells of the next the disk is idle, unless another task uses it.
    Handover,
    /// The kernel copies blocks in its memory, or shares them. Tasks wait for their turn at a file there, so that one more than
    /// processors keeps these busy.
    Memory,
}

/// What blocks have shown so far.
#[derive(Debug, Default)]
struct Evidence {
    bytes: [u64; 5],
    is_decided: bool,
}

/// So many bytes decide. The first files are not like the others: `ib_buffer_pool` goes through the cache where data does not, and the
/// system's tablespaces shrink to 1.7 MiB of zeros and dictionary where data may not shrink at all.
const DECISIVE: u64 = 4 << 20;

impl Evidence {
    /// A block of `len` bytes, as it was moved, has shown `bound`. Gives the bound of most of them, once, when they are enough.
    fn add(&mut self, bound: Bound, len: u64) -> Option<Bound> {
        use Bound::{Disk, Handover, Memory, Network, Processors};
        if self.is_decided {
            return None;
        }
        let bytes = &mut self.bytes[bound as usize];
        *bytes = bytes.saturating_add(len);
        self.is_decided =
            self.bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)) >= DECISIVE;
        let bounds = [Network, Processors, Disk, Handover, Memory];
        bounds
            .into_iter()
            .max_by_key(|bound| self.bytes[*bound as usize])
            .filter(|_| self.is_decided)
    }
}

impl Crew {
    pub(crate) fn new(max_threads: u32) -> Self {
        let max_threads = max_threads.max(1);
        Self {
            workers: Vec::new(),
            tuner: Tuner::new(),
            max_threads,
            evidence: Evidence::default(),
        }
    }

    /// How many workers to start with: with auto-tuning a thread for each of the `processors`, so that it has less to find out (the
    /// stock plugin begins with one and decides every five seconds), else all; and no more than the bandwidth limits leave room for.
    ///
    /// If donor and recipient `share` the processors, each has half of them. More threads than that make no clone faster, but wait for
    /// each other, and InnoDB's stages wait for all of them.
    pub(crate) fn initial(&self, settings: &Settings, processors: u32, share: bool) -> u32 {
        self.of_threads(settings, if share { processors / 2 } else { processors })
    }

    /// How many workers to have after a block of `len` bytes, as it was moved, has shown a bound. Once that is decided, it is left to
    /// [`tune`](Self::tune).
    pub(crate) fn suit<S: Session>(&mut self, session: &S, bound: Bound, len: u64) -> u32 {
        let Some(bound) = self.evidence.add(bound, len) else { return self.workers() };
        let host = session.host();
        self.bound_workers(&host.settings(), host.processors(), bound)
    }

    fn bound_workers(&self, settings: &Settings, processors: u32, bound: Bound) -> u32 {
        let threads = match bound {
            Bound::Network | Bound::Disk => return self.workers(),
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
        // If the clone goes on, its blocks may come another way.
        self.evidence = Evidence::default();
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
    fn most_of_the_first_bytes_decide_once() {
        let mut evidence = Evidence::default();
        assert_eq!(evidence.add(Bound::Memory, 1_000_000), None);
        assert_eq!(evidence.add(Bound::Disk, DECISIVE - 1_000_001), None);
        assert_eq!(evidence.add(Bound::Memory, 1), Some(Bound::Disk));
        assert_eq!(evidence.add(Bound::Memory, u64::MAX), None);
        assert_eq!(Evidence::default().add(Bound::Handover, u64::MAX), Some(Bound::Handover));
        assert_eq!(Crew::new(16).bound_workers(&settings(true, 0), 8, Bound::Network), 0);
        assert_eq!(Crew::new(16).bound_workers(&settings(true, 0), 8, Bound::Disk), 0);
    }

    #[test]
    fn limits_and_the_variable_decide_too() {
        assert_eq!(Crew::new(16).initial(&settings(false, 0), 2, true), 15);
        assert_eq!(Crew::new(16).initial(&settings(false, 200), 2, true), 3);
        assert_eq!(Crew::new(3).initial(&settings(true, 0), 8, false), 2);
    }
}
