// SPDX-License-Identifier: GPL-2.0-only

//! The processor time in which a donor may pack blocks: of all clones of a server together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_io::MachineTime;

use crate::session::Host;
use crate::throttle::Throttle;

/// Time between two looks at the machine.
const INTERVAL: Duration = Duration::from_millis(500);

/// While less of the machine than this is idle, packing takes from others.
const LEAST_IDLE: f64 = 0.05;

/// What remains of packing's share after an interval without idle time.
const CUT: f64 = 0.7;

/// What is added to packing's share after an interval with idle time.
const RAISE: f64 = 0.05;

/// A smaller share of the machine is of no use.
const LEAST_SHARE: f64 = 0.005;

/// The processor time for packing. Others come first: packing gives way within some seconds when
/// the machine has no idle time, and comes back when it has.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    spent: Throttle,
    machine: Mutex<Machine>,
}

#[derive(Debug, Default)]
struct Machine {
    /// When the counters were read, and what they said.
    seen: Option<(Duration, MachineTime)>,
    /// The part of the allowed share that is in use: 0 to 1.
    part: Option<f64>,
}

impl Allowance {
    /// The processors that packing may use now.
    pub(super) fn processors<H: Host>(&self, host: &H) -> f64 {
        let most = f64::from(host.settings().compression_max_cpu.min(100)) / 100.0;
        let share = self.machine().share(host.now(), most, || host.machine_time());
        if share < LEAST_SHARE { 0.0 } else { share * f64::from(host.processors()) }
    }

    /// Whether a block may be packed now, with so many [`processors`](Self::processors).
    pub(super) fn may_pack(&self, now: Duration, processors: f64) -> bool {
        let rate = rate(processors);
        rate != 0 && self.spent.reserve(now, 0, rate).is_zero()
    }

    /// Counts the processor time of a block.
    pub(super) fn spend(&self, now: Duration, processors: f64, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.spent.reserve(now, nanos, rate(processors));
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds of processor time in a second.
fn rate(processors: f64) -> u64 {
    (processors * 1e9) as u64
}

impl Machine {
    /// The share of the machine that packing may use, which is at most `most`.
    fn share(
        &mut self,
        now: Duration,
        most: f64,
        read: impl FnOnce() -> Option<MachineTime>,
    ) -> f64 {
        let is_due = self.seen.is_none_or(|(at, _)| now.saturating_sub(at) >= INTERVAL);
        let part = self.part.unwrap_or(1.0);
        if !is_due || most == 0.0 {
            return part * most;
        }
        let Some(time) = read() else { return most };
        let idle = self.seen.and_then(|(_, earlier)| time.idle_since(earlier));
        self.seen = Some((now, time));
        let part = match idle {
            Some(idle) if idle < LEAST_IDLE => part * CUT,
            Some(_) => (part + RAISE / most).min(1.0),
            None => part,
        };
        self.part = Some(part);
        part * most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors: so many ticks of 200 in a second are idle.
    fn after(machine: &mut Machine, seconds: u32, most: f64, idle: u64) -> f64 {
        let mut share = 0.0;
        for _ in 0..2 * seconds {
            let (at, time) = machine.seen.unwrap_or_default();
            let time = MachineTime { idle: time.idle + idle / 2, total: time.total + 100 };
            share = machine.share(at + INTERVAL, most, || Some(time));
        }
        share
    }

    #[test]
    fn packing_gives_way_and_comes_back() {
        let mut machine = Machine::default();
        assert!((after(&mut machine, 3, 0.5, 100) - 0.5).abs() < 1e-9);
        // Somebody else wants all processors.
        assert!(after(&mut machine, 3, 0.5, 2) < 0.1);
        assert!(after(&mut machine, 10, 0.5, 0) < LEAST_SHARE);
        assert!((after(&mut machine, 10, 0.5, 50) - 0.5).abs() < 1e-9);
        // The variable counts at once, in both directions.
        let at = machine.seen.unwrap_or_default().0;
        assert!((machine.share(at, 0.1, || None) - 0.1).abs() < 1e-9);
        assert_eq!(machine.share(at, 0.0, || None), 0.0);
    }

    #[test]
    fn a_machine_without_counters_gives_all_that_is_allowed() {
        assert!((Machine::default().share(Duration::ZERO, 0.3, || None) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn no_more_is_spent_than_there_is() {
        let allowance = Allowance::default();
        let (mut now, mut spent) = (Duration::ZERO, Duration::ZERO);
        let block = Duration::from_millis(3);
        // Two tasks' worth of blocks, each of which would be packed in 3 ms.
        for _ in 0..10_000 {
            now += Duration::from_millis(2);
            if allowance.may_pack(now, 0.5) {
                allowance.spend(now, 0.5, block);
                spent += block;
            }
        }
        let share = spent.as_secs_f64() / now.as_secs_f64();
        assert!((0.48..0.51).contains(&share), "{share}");
        assert!(!allowance.may_pack(now, 0.0));
    }
}
