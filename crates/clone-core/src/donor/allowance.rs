// SPDX-License-Identifier: GPL-2.0-only

//! The processor time in which a donor may pack blocks: of all clones of a server together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_io::MachineTime;

use crate::session::Host;
use crate::throttle::Throttle;

/// Time between two looks at the machine: 40 of the kernel's ticks with two processors.
const INTERVAL: Duration = Duration::from_millis(200);

/// After so much time the previous look says nothing about now.
const STALE: Duration = Duration::from_secs(2);

/// So much of the machine stays idle. Sessions that wait for each other and for the disk get slower
/// before all processors are busy.
const RESERVE: f64 = 0.2;

/// A smaller share of the machine is of no use.
const LEAST_SHARE: f64 = 0.005;

/// The processor time for packing. Others come first: packing may use what it uses already, and
/// what is idle. It gives way within a second when nothing is idle.
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
    /// Processor time of packing since then.
    used: Duration,
    /// The share of the machine that packing may use, if that is known.
    share: Option<f64>,
}

impl Allowance {
    /// Looks at the machine, if it is time for that. A clone calls this some time before it sends
    /// its first block, so that the first block knows what is idle.
    pub(super) fn look<H: Host>(&self, host: &H) {
        let now = host.now();
        let mut machine = self.machine();
        if machine.is_due(now) {
            machine.look(now, host.machine_time(), host.processors());
        }
    }

    /// The processors that packing may use now.
    pub(super) fn processors<H: Host>(&self, host: &H) -> f64 {
        let most = f64::from(host.settings().compression_max_cpu.min(100)) / 100.0;
        self.look(host);
        let machine = self.machine();
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
        self.machine().used += time;
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

    /// Takes what the machine shows now.
    fn look(&mut self, now: Duration, time: Option<MachineTime>, processors: u32) {
        let since = self.at.map(|at| now.saturating_sub(at)).filter(|since| *since < STALE);
        let idle = time.zip(self.time).and_then(|(time, earlier)| time.idle_since(earlier));
        let used = std::mem::take(&mut self.used);
        (self.at, self.time, self.processors) = (Some(now), time, processors);
        self.share = since.zip(idle).map(|(since, idle)| {
            let all = since.as_secs_f64() * f64::from(processors);
            (used.as_secs_f64() / all + idle - RESERVE).max(0.0)
        });
    }

    /// The share of the machine that packing may use, which is at most `most`.
    fn share(&self, most: f64) -> f64 {
        self.share.map_or(most, |share| share.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors for some intervals: so many ticks of 40 are idle besides packing, which uses
    /// all that it may.
    fn after(machine: &mut Machine, intervals: u32, most: f64, idle: u64) -> f64 {
        for _ in 0..intervals {
            let (at, time) = (machine.at.unwrap_or_default(), machine.time.unwrap_or_default());
            let wanted = (machine.share(most) * 40.0).round() as u64;
            let used = wanted.min(idle.max(1));
            machine.used = Duration::from_millis(10 * used);
            let time =
                MachineTime { idle: time.idle + idle.saturating_sub(used), total: time.total + 40 };
            machine.look(at + INTERVAL, Some(time), 2);
        }
        machine.share(most)
    }

    #[test]
    fn packing_gives_way_and_comes_back() {
        let mut machine = Machine::default();
        assert_eq!(after(&mut machine, 10, 0.5, 30), 0.5);
        // Somebody else wants all processors.
        assert!(after(&mut machine, 5, 0.5, 0) < 0.05);
        // Half of the machine is free for packing, of which the reserve stays idle.
        let share = after(&mut machine, 20, 0.5, 20);
        assert!((0.25..0.35).contains(&share), "{share}");
        assert_eq!(after(&mut machine, 5, 0.5, 40), 0.5);
        // The variable counts at once, in both directions.
        assert_eq!([machine.share(0.1), machine.share(0.0), machine.share(0.5)], [0.1, 0.0, 0.5]);
    }

    #[test]
    fn a_busy_machine_is_known_before_the_first_block() {
        let mut machine = Machine::default();
        machine.look(Duration::ZERO, Some(MachineTime { idle: 1000, total: 10_000 }), 2);
        machine.look(INTERVAL, Some(MachineTime { idle: 1001, total: 10_040 }), 2);
        assert!(machine.share(0.5) < LEAST_SHARE);
        // What was seen long ago says nothing.
        machine.look(INTERVAL + STALE, Some(MachineTime { idle: 1001, total: 10_440 }), 2);
        assert_eq!(machine.share(0.5), 0.5);
    }

    #[test]
    fn a_machine_without_counters_gives_all_that_is_allowed() {
        let mut machine = Machine::default();
        for second in 1..5 {
            machine.look(Duration::from_secs(second), None, 2);
        }
        assert_eq!(machine.share(0.3), 0.3);
    }

    #[test]
    fn the_machine_is_looked_at_now_and_then() {
        let mut machine = Machine::default();
        assert!(machine.is_due(Duration::ZERO));
        machine.look(Duration::ZERO, None, 4);
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
