// SPDX-License-Identifier: GPL-2.0-only

//! The worker threads of a clone: how many there are, and whether more would help.

use crate::log_target::CLIENT;
use crate::meter::Meter;
use crate::session::{Host, Session, Thread, Work, WorkerKind};
use crate::settings::Settings;
use crate::tuner::{Limits, Tuner, initial_workers};

/// The workers of a clone. The master is one thread more.
pub(crate) struct Workers<H: Host> {
    threads: Vec<H::Thread>,
    tuner: Tuner,
    /// `clone_max_concurrency` when the clone began.
    max_threads: u32,
}

impl<H: Host> Workers<H> {
    pub(crate) fn new(max_threads: u32) -> Self {
        Self { threads: Vec::new(), tuner: Tuner::new(), max_threads: max_threads.max(1) }
    }

    /// How many workers to start with; see [`initial`].
    pub(crate) fn initial(&self, settings: &Settings, processors: u32) -> u32 {
        initial(self.max_threads, settings, processors)
    }

    /// Called before each block: evaluates the speed about once a second. Returns the number of
    /// workers that the clone should have.
    pub(crate) fn tune(&mut self, session: &H::Session, meter: &Meter) -> u32 {
        let host = session.host();
        let now = self.count();
        let Some(sample) = meter.evaluate(host.now(), false) else { return now };
        host.observer().transferred(&sample, now + 1);
        self.tuner.observe(&sample);
        let settings = host.settings();
        if !settings.autotune_concurrency {
            return now;
        }
        let advice = self.tuner.threads(now + 1, self.max_threads, &limits(&settings));
        if let Some(text) = advice.log {
            log::info!(target: CLIENT, "{text}");
        }
        advice.threads.saturating_sub(1)
    }

    /// Brings the number of workers up to `wanted`; it is never reduced.
    pub(crate) fn grow(
        &mut self,
        session: &H::Session,
        kind: WorkerKind,
        wanted: u32,
        work: impl Fn() -> Work<H::Session>,
    ) {
        let host = session.host();
        while self.count() < wanted.min(self.max_threads - 1) {
            match host.spawn(kind, work()) {
                Ok(worker) => self.threads.push(worker),
                Err(error) => {
                    let number = self.count() + 1;
                    log::warn!(target: CLIENT, "Failed to spawn worker: {number}: {error}");
                    self.tuner.finish();
                    return;
                }
            }
        }
    }

    /// A stage begins; `estimate` is in bytes.
    pub(crate) fn next_stage(&self, session: &H::Session, estimate: u64) {
        let host = session.host();
        host.observer().next_stage(self.count() + 1, estimate, host.unix_micros());
    }

    /// A stage has ended: counts its last bytes, and tuning begins anew.
    pub(crate) fn finish_stage(&mut self, session: &H::Session, meter: &Meter) {
        let host = session.host();
        if let Some(sample) = meter.evaluate(host.now(), true) {
            host.observer().transferred(&sample, self.count() + 1);
            log::info!(target: CLIENT, "{}", meter.totals(host.now()));
        }
        self.tuner.reset();
    }

    /// Waits for all workers. None may outlive the clone: the plugin could be unloaded after it.
    pub(crate) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if !thread.join() {
                log::error!(target: CLIENT, "Worker panicked");
            }
        }
        self.tuner.reset();
    }

    fn count(&self) -> u32 {
        u32::try_from(self.threads.len()).unwrap_or(u32::MAX)
    }
}

/// A master that panics leaves no threads behind in a plugin that may be unloaded.
impl<H: Host> Drop for Workers<H> {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// How many workers to start with, of a clone with at most `max_threads`. With auto-tuning the
/// clone begins with a thread for every second one of the `processors`, else with
/// `clone_max_concurrency`. So both ends have room if they share the processors. With a bandwidth
/// limit the clone may begin with fewer ([`initial_workers`]).
fn initial(max_threads: u32, settings: &Settings, processors: u32) -> u32 {
    let threads = match settings.autotune_concurrency {
        true => max_threads.min((processors / 2).max(1)),
        false => max_threads,
    };
    initial_workers(threads - 1, limits(settings))
}

fn limits(settings: &Settings) -> Limits {
    Limits { data: settings.max_data_bandwidth, network: settings.max_network_bandwidth }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(autotune_concurrency: bool, max_data_bandwidth: u32) -> Settings {
        Settings { autotune_concurrency, max_data_bandwidth, ..Settings::default() }
    }

    #[test]
    fn a_tuned_clone_begins_with_a_thread_for_every_second_processor() {
        let initial = |processors| initial(16, &settings(true, 0), processors);
        assert_eq!([0, 1, 2, 3, 4, 8, 64].map(initial), [0, 0, 0, 0, 1, 3, 15]);
    }

    #[test]
    fn limits_and_the_variable_decide_too() {
        assert_eq!(initial(16, &settings(false, 0), 2), 15);
        assert_eq!(initial(16, &settings(false, 200), 2), 3);
        assert_eq!(initial(3, &settings(true, 0), 8), 2);
    }
}
