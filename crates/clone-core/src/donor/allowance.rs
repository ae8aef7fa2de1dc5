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

/// What the last look at the machine showed.
#[derive(Debug, Default)]
struct Machine {
    /// When that was.
    at: Option<Duration>,
    /// The counters; none if this machine has none.
    time: Option<MachineTime>,
    /// To ask for them takes as long as to send a block, so they are not asked for each block.
    processors: u32,
    /// The part of the allowed share that is withheld: 0 to 1.
    withheld: f64,
}

impl Allowance {
    /// The processors that packing may use now.
    pub(super) fn processors<H: Host>(&self, host: &H) -> f64 {
        let most = f64::from(host.settings().compression_max_cpu.min(100)) / 100.0;
        let now = host.now();
        let mut machine = self.machine();
        if machine.is_due(now) {
            machine.look(now, most, host.machine_time(), host.processors());
        }
        let share = machine.share(most);
        if share < LEAST_SHARE { 0.0 } else { share * f64::from(machine.processors) }
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
    fn is_due(&self, now: Duration) -> bool {
        self.at.is_none_or(|at| now.saturating_sub(at) >= INTERVAL)
    }

    /// Takes what the machine shows now. Packing may use the share `most` of it.
    fn look(&mut self, now: Duration, most: f64, time: Option<MachineTime>, processors: u32) {
        let idle = time.zip(self.time).and_then(|(time, earlier)| time.idle_since(earlier));
        (self.at, self.time, self.processors) = (Some(now), time, processors);
        match idle {
            Some(idle) if idle < LEAST_IDLE => self.withheld = 1.0 - (1.0 - self.withheld) * CUT,
            // With a share of 0 nothing is used and nothing is withheld.
            Some(_) => self.withheld = (self.withheld - RAISE / most).max(0.0),
            None => {}
        }
    }

    /// The share of the machine that packing may use, which is at most `most`.
    fn share(&self, most: f64) -> f64 {
        (1.0 - self.withheld) * most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors: so many ticks of 200 in a second are idle.
    fn after(machine: &mut Machine, seconds: u32, most: f64, idle: u64) -> f64 {
        for _ in 0..2 * seconds {
            let (at, time) = (machine.at.unwrap_or_default(), machine.time.unwrap_or_default());
            let time = MachineTime { idle: time.idle + idle / 2, total: time.total + 100 };
            machine.look(at + INTERVAL, most, Some(time), 2);
        }
        machine.share(most)
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
        assert!((machine.share(0.1) - 0.1).abs() < 1e-9);
        assert_eq!(machine.share(0.0), 0.0);
        after(&mut machine, 1, 0.0, 50);
        assert!((machine.share(0.5) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_machine_without_counters_gives_all_that_is_allowed() {
        let mut machine = Machine::default();
        for second in 1..5 {
            machine.look(Duration::from_secs(second), 0.3, None, 2);
        }
        assert!((machine.share(0.3) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn the_machine_is_looked_at_now_and_then() {
        let mut machine = Machine::default();
        assert!(machine.is_due(Duration::ZERO));
        machine.look(Duration::ZERO, 0.5, None, 4);
        assert!(!machine.is_due(INTERVAL - Duration::from_millis(1)));
        assert!(machine.is_due(INTERVAL));
        assert_eq!(machine.processors, 4);
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
