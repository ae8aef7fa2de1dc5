// SPDX-License-Identifier: GPL-2.0-only

//! Counts what a clone moves, and how fast.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Least time between two evaluations within a state of the clone.
const INTERVAL: Duration = Duration::from_secs(1);

/// Over a shorter time the speed is not computed and counts as 0.
const SHORTEST_SPAN: Duration = Duration::from_millis(1);

/// The bytes of all tasks of a clone.
///
/// All tasks [`add`](Meter::add) to it; the master alone [evaluates](Meter::evaluate) it.
#[derive(Debug, Default)]
pub struct Meter {
    data_bytes: AtomicU64,
    network_bytes: AtomicU64,
    evaluation: Mutex<Option<Evaluation>>,
}

/// How far the master has evaluated the counters.
#[derive(Clone, Copy, Debug)]
struct Evaluation {
    started: Duration,
    at: Duration,
    data_bytes: u64,
    network_bytes: u64,
}

/// What was moved since the previous evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Bytes of data, as the engines see them.
    pub data_bytes: u64,
    /// Bytes on the network; fewer than the data if they were compressed there.
    pub network_bytes: u64,
    /// Data bytes per second.
    pub data_speed: u64,
    /// Network bytes per second.
    pub network_speed: u64,
}

/// What was moved since the clone began. Displayed, it is the line that the log gets at the end of
/// each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes on the network.
    pub network_bytes: u64,
    /// Time since the first evaluation.
    pub elapsed: Duration,
}

impl Meter {
    /// A meter at zero, whose time begins with the first evaluation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a task has moved, in bytes.
    pub fn add(&self, data: u64, network: u64) {
        self.data_bytes.fetch_add(data, Ordering::Relaxed);
        self.network_bytes.fetch_add(network, Ordering::Relaxed);
    }

    /// Returns what was moved since the previous evaluation. Without `reset`, this happens at most
    /// once a second; a call that comes too early returns none. With `reset`, which ends a state of
    /// the clone, it happens at once (`clone_client.cc:Client_Stat::update`).
    ///
    /// `now` is monotonic time since any fixed moment. The first call starts the time and returns
    /// none. If the first call has `reset`, it returns what was moved, without a speed; if nothing
    /// was moved, the call is ignored.
    pub fn evaluate(&self, now: Duration, reset: bool) -> Option<Sample> {
        let mut guard = self.evaluation.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = guard.is_none();
        if is_first && reset && self.is_idle() {
            return None;
        }
        let begun = Evaluation { started: now, at: now, data_bytes: 0, network_bytes: 0 };
        let last = guard.get_or_insert(begun);
        let elapsed = now.saturating_sub(last.at);
        if (is_first || elapsed < INTERVAL) && !reset {
            return None;
        }
        let totals = self.totals_since(now, last.started);
        let data_bytes = totals.data_bytes.saturating_sub(last.data_bytes);
        let network_bytes = totals.network_bytes.saturating_sub(last.network_bytes);
        last.at = now;
        last.data_bytes = totals.data_bytes;
        last.network_bytes = totals.network_bytes;
        Some(Sample {
            data_bytes,
            network_bytes,
            data_speed: speed(data_bytes, elapsed),
            network_speed: speed(network_bytes, elapsed),
        })
    }

    /// What was moved since the first evaluation.
    pub fn totals(&self, now: Duration) -> Totals {
        let evaluation = *self.evaluation.lock().unwrap_or_else(PoisonError::into_inner);
        self.totals_since(now, evaluation.map_or(now, |evaluation| evaluation.started))
    }

    /// Nothing was moved yet.
    fn is_idle(&self) -> bool {
        [&self.data_bytes, &self.network_bytes]
            .iter()
            .all(|bytes| bytes.load(Ordering::Relaxed) == 0)
    }

    fn totals_since(&self, now: Duration, started: Duration) -> Totals {
        Totals {
            data_bytes: self.data_bytes.load(Ordering::Relaxed),
            network_bytes: self.network_bytes.load(Ordering::Relaxed),
            elapsed: now.saturating_sub(started),
        }
    }
}

/// The text of `clone_client.cc:Client_Stat::update`, in whole MiB.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [data, network] = [self.data_bytes, self.network_bytes].map(mib);
        let [data_speed, network_speed] = [data, network].map(|mib| speed(mib, self.elapsed));
        write!(
            f,
            "Total Data: {data} MiB @ {data_speed} MiB/sec, \
             Network: {network} MiB @ {network_speed} MiB/sec"
        )
    }
}

/// Whole MiB in so many bytes.
pub(crate) fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Amount per second.
fn speed(amount: u64, elapsed: Duration) -> u64 {
    if elapsed < SHORTEST_SPAN {
        return 0;
    }
    u64::try_from(u128::from(amount) * 1_000_000 / elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn evaluates_at_most_once_a_second() {
        let meter = Meter::new();
        meter.add(10, 5);
        assert_eq!(meter.evaluate(millis(5_000), false), None);
        meter.add(1_000, 500);
        assert_eq!(meter.evaluate(millis(5_999), false), None);
        let sample =
            Sample { data_bytes: 1_010, network_bytes: 505, data_speed: 505, network_speed: 252 };
        assert_eq!(meter.evaluate(millis(7_000), false), Some(sample));
        assert_eq!(meter.evaluate(millis(7_999), false), None);
        assert_eq!(meter.evaluate(millis(8_000), false), Some(Sample::default()));
    }

    #[test]
    fn a_reset_evaluates_at_once() {
        let meter = Meter::new();
        meter.evaluate(Duration::ZERO, false);
        meter.add(300, 0);
        let sample = meter.evaluate(millis(100), true);
        assert_eq!(sample.map(|sample| sample.data_speed), Some(3_000));
        // Too early for a speed, but no byte is lost: the stock plugin drops these from
        // clone_progress.
        meter.add(7, 9);
        let sample = Sample { data_bytes: 7, network_bytes: 9, data_speed: 0, network_speed: 0 };
        assert_eq!(meter.evaluate(millis(100), true), Some(sample));
    }

    #[test]
    fn a_reset_before_the_first_evaluation_is_ignored() {
        let meter = Meter::new();
        assert_eq!(meter.evaluate(millis(1), true), None);
        assert_eq!(meter.totals(millis(9_000)).elapsed, Duration::ZERO);
        assert_eq!(meter.evaluate(millis(9_000), false), None);
        assert_eq!(meter.totals(millis(9_500)).elapsed, millis(500));
    }

    #[test]
    fn what_was_moved_before_the_first_evaluation_counts_at_a_reset() {
        let meter = Meter::new();
        meter.add(300, 200);
        let sample =
            Sample { data_bytes: 300, network_bytes: 200, data_speed: 0, network_speed: 0 };
        assert_eq!(meter.evaluate(millis(1), true), Some(sample));
        assert_eq!(meter.evaluate(millis(2), true), Some(Sample::default()));
    }

    #[test]
    fn totals_read_as_in_the_stock_log() {
        let meter = Meter::new();
        meter.evaluate(Duration::ZERO, false);
        meter.add(1_000 * MIB, 300 * MIB + 1);
        assert_eq!(
            meter.totals(millis(2_000)).to_string(),
            "Total Data: 1000 MiB @ 500 MiB/sec, Network: 300 MiB @ 150 MiB/sec"
        );
        assert_eq!(
            meter.totals(Duration::ZERO).to_string(),
            "Total Data: 1000 MiB @ 0 MiB/sec, Network: 300 MiB @ 0 MiB/sec"
        );
    }

    #[test]
    fn counts_the_bytes_of_all_threads() {
        let meter = Meter::new();
        meter.evaluate(Duration::ZERO, false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| meter.add(3, 1)));
            }
        });
        let sample = meter.evaluate(millis(1_000), false);
        assert_eq!(
            sample.map(|sample| (sample.data_bytes, sample.network_bytes)),
            Some((12_000, 4_000))
        );
    }

    #[test]
    fn speeds_do_not_overflow() {
        assert_eq!(speed(u64::MAX, millis(1)), u64::MAX);
        assert_eq!(speed(u64::MAX, Duration::MAX), 0);
    }
}
