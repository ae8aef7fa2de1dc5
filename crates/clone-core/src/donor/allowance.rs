// SPDX-License-Identifier: GPL-2.0-only

//! The processor time in which a donor may pack blocks: of all clones of a server together.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::session::Host;

/// Time between two looks at the machine: 40 of the kernel's ticks with two processors.
const INTERVAL: Duration = Duration::from_millis(200);

/// After so much time the previous look says nothing about now.
const STALE: Duration = Duration::from_secs(2);

/// The mean of so many looks counts. The kernel's ticks are coarse, and a server has moments in
/// which it is busy.
const LOOKS: usize = 3;

/// So much of the machine stays idle. Sessions that wait for each other and for the disk get slower
/// before all processors are busy.
const RESERVE: f64 = 0.2;

/// A smaller share of the machine is of no use.
const LEAST_SHARE: f64 = 0.005;

/// Processor time that was not used is kept for this long, in seconds.
const CREDIT: f64 = 0.1;

/// Comparing leaves at most so much debt, in seconds of one processor.
const MAX_DEBT_OF_COMPARING: f64 = 1.0;

/// The processor time for packing. Others come first: packing may use what it uses already, and
/// what is idle. Packing gives way within a second when nothing is idle.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<Machine>);

/// What the last looks at the machine showed, and what packing has used.
#[derive(Debug, Default)]
struct Machine {
    /// When the last look was.
    at: Option<Duration>,
    /// The counters of the last look; none if this machine has no counters.
    counters: Option<Counters>,
    /// Processors that this process may use, from the last look. Asking for each block would cost
    /// as much as sending one.
    processors: u32,
    /// Processor time of packing since the last look.
    used: Duration,
    /// The share of the machine that packing may use, from the last looks; empty if not known.
    shares: VecDeque<f64>,
    /// Processor time that packing has used and that was not paid for yet, in seconds. Negative:
    /// credit.
    debt: f64,
    /// Up to when was paid.
    paid_until: Duration,
}

/// Processor time since some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Of this process.
    own: Duration,
    /// In which the machine's processors were idle.
    idle: Duration,
}

impl Allowance {
    /// Looks at the machine, if it is time for that. A clone calls this some time before it sends
    /// its first block, so that the first block knows what is idle.
    pub(super) fn look<H: Host>(&self, host: &H) {
        let now = host.now();
        drop(self.look_if_due(self.machine(), host, now));
    }

    /// Whether a block may be packed now: packing may use processors, and what it has used is paid
    /// for.
    pub(super) fn may_pack<H: Host>(&self, host: &H) -> bool {
        let (now, most) = (host.now(), most(host));
        let mut machine = self.look_if_due(self.machine(), host, now);
        let allowed = machine.allowed(most);
        machine.pay(now, allowed);
        allowed > 0.0 && machine.debt <= 0.0
    }

    /// Counts the processor time of packing a block. Returns the processors that packing may use
    /// from now on.
    pub(super) fn spend<H: Host>(&self, host: &H, time: Duration) -> f64 {
        let (now, most) = (host.now(), most(host));
        let mut machine = self.machine();
        machine.spend(time);
        self.look_if_due(machine, host, now).allowed(most)
    }

    /// Counts the processor time that comparing a block with a base took. Packing gives way to
    /// comparing, but comparing goes on without leave, so it must not forbid packing for long.
    pub(super) fn spend_comparing(&self, time: Duration) {
        let mut machine = self.machine();
        let most = machine.debt.max(MAX_DEBT_OF_COMPARING);
        machine.spend(time);
        machine.debt = machine.debt.min(most);
    }

    /// Looks at the machine if it is time for that, without the lock: the host may block.
    fn look_if_due<'a, H: Host>(
        &'a self,
        machine: MutexGuard<'a, Machine>,
        host: &H,
        now: Duration,
    ) -> MutexGuard<'a, Machine> {
        if !machine.is_due(now) {
            return machine;
        }
        drop(machine);
        let own = host.process_time();
        let counters = host.idle_time().map(|idle| Counters { own, idle });
        let processors = host.processors();
        let mut machine = self.machine();
        // Another task may have looked meanwhile.
        if machine.is_due(now) {
            machine.look(now, counters, processors);
        }
        machine
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The largest share of the machine that packing may use.
fn most<H: Host>(host: &H) -> f64 {
    f64::from(host.settings().compression_max_cpu.min(100)) / 100.0
}

impl Machine {
    fn is_due(&self, now: Duration) -> bool {
        self.at.is_none_or(|at| now.saturating_sub(at) >= INTERVAL)
    }

    /// Takes what the machine shows now.
    fn look(&mut self, now: Duration, counters: Option<Counters>, processors: u32) {
        let since = self.at.map(|at| now.saturating_sub(at)).filter(|since| *since < STALE);
        let earlier = self.counters;
        let used = std::mem::take(&mut self.used);
        (self.at, self.counters, self.processors) = (Some(now), counters, processors);
        let (Some(since), Some(counters), Some(earlier)) = (since, counters, earlier) else {
            return self.shares.clear();
        };
        let all = since.as_secs_f64() * f64::from(processors);
        let passed = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / all;
        // This process may have fewer processors than the machine. What it does not use of its own
        // is idle only as far as the machine is.
        let idle = passed(counters.idle, earlier.idle);
        let idle = idle.min(1.0 - passed(counters.own, earlier.own)).max(0.0);
        // A block counts when it ends, though it may have begun before the last look.
        let used = (used.as_secs_f64() / all).min(1.0 - idle);
        if self.shares.len() == LOOKS {
            self.shares.pop_front();
        }
        self.shares.push_back((used + idle - RESERVE).max(0.0));
    }

    /// The share of the machine that packing may use, which is at most `most`.
    fn share(&self, most: f64) -> f64 {
        match self.shares.len() {
            0 => most,
            looks => (self.shares.iter().sum::<f64>() / looks as f64).min(most),
        }
    }

    /// The processors that packing may use, if its share of the machine is at most `most`.
    fn allowed(&self, most: f64) -> f64 {
        let share = self.share(most);
        if share < LEAST_SHARE { 0.0 } else { share * f64::from(self.processors) }
    }

    /// Counts processor time that was used.
    fn spend(&mut self, time: Duration) {
        self.used += time;
        self.debt += time.as_secs_f64();
    }

    /// Pays for the time up to `now` with so many processors.
    fn pay(&mut self, now: Duration, processors: f64) {
        let elapsed = now.saturating_sub(self.paid_until);
        self.paid_until += elapsed;
        self.debt = (self.debt - elapsed.as_secs_f64() * processors).max(-CREDIT * processors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A machine of which this process has all processors or some.
    #[derive(Default)]
    struct World {
        machine: Machine,
        now: Duration,
        counters: Counters,
        /// Processors of this process.
        processors: u32,
    }

    impl World {
        fn new(processors: u32) -> Self {
            let mut world = Self { processors, ..Self::default() };
            world.pass(0.0, 0.0);
            world
        }

        /// An interval passes, in which so many processors are idle and this process uses so many.
        fn pass(&mut self, idle: f64, own: f64) {
            self.now += INTERVAL;
            self.counters.idle += INTERVAL.mul_f64(idle);
            self.counters.own += INTERVAL.mul_f64(own);
            self.machine.look(self.now, Some(self.counters), self.processors);
        }

        /// Some intervals pass, in which packing uses all that it may of so many processors that
        /// others leave. Says what share it may use then.
        fn pack(&mut self, intervals: u32, most: f64, free: f64) -> f64 {
            for _ in 0..intervals {
                let wanted = self.machine.allowed(most);
                let used = wanted.min(free.max(0.1));
                self.machine.used = INTERVAL.mul_f64(used);
                self.pass((free - used).max(0.0), f64::from(self.processors) - free + used);
            }
            self.machine.share(most)
        }
    }

    #[test]
    fn packing_gives_way_and_comes_back() {
        let mut world = World::new(2);
        assert_eq!(world.pack(10, 0.5, 1.5), 0.5);
        // Somebody else wants all processors.
        assert!(world.pack(5, 0.5, 0.0) < 0.05);
        // Half of the machine is free for packing, of which the reserve stays idle.
        let share = world.pack(20, 0.5, 1.0);
        assert!((0.25..0.35).contains(&share), "{share}");
        assert_eq!(world.pack(5, 0.5, 2.0), 0.5);
        // The variable counts at once, in both directions.
        let shares = [0.1, 0.0, 0.5].map(|most| world.machine.share(most));
        assert_eq!(shares, [0.1, 0.0, 0.5]);
    }

    #[test]
    fn one_busy_moment_is_not_enough() {
        let mut world = World::new(2);
        world.pack(5, 0.1, 1.0);
        assert!(world.pack(1, 0.1, 0.0) > 0.05);
        assert!(world.pack(4, 0.1, 0.0) < LEAST_SHARE);
    }

    #[test]
    fn a_busy_machine_is_known_before_the_first_block() {
        let mut world = World::new(2);
        world.pass(0.05, 1.95);
        assert!(world.machine.share(0.5) < LEAST_SHARE);
        // What was seen long ago says nothing.
        world.now += STALE;
        world.pass(0.05, 1.95);
        assert_eq!(world.machine.share(0.5), 0.5);
    }

    #[test]
    fn a_part_of_a_machine_is_what_counts() {
        // 4 of 64 processors. The others are busy, these are not.
        let mut world = World::new(4);
        world.pass(9.6, 0.0);
        assert_eq!(world.machine.share(0.5), 0.5);
        // These are busy, the others are not.
        let mut world = World::new(4);
        world.pass(58.0, 4.0);
        assert_eq!(world.machine.share(0.5), 0.0);
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
    fn comparing_forbids_packing_for_a_moment_only() {
        let allowance = Allowance::default();
        for _ in 0..1000 {
            allowance.spend_comparing(Duration::from_millis(300));
        }
        assert!(allowance.machine().debt <= MAX_DEBT_OF_COMPARING);
        allowance.machine().spend(Duration::from_secs(5));
        allowance.spend_comparing(Duration::from_millis(300));
        assert!((5.0..=6.0).contains(&allowance.machine().debt));
    }

    #[test]
    fn the_machine_is_looked_at_now_and_then() {
        let mut machine = Machine::default();
        assert!(machine.is_due(Duration::ZERO));
        machine.look(Duration::ZERO, None, 4);
        assert!(!machine.is_due(INTERVAL - MS));
        assert!(machine.is_due(INTERVAL));
        assert_eq!(machine.processors, 4);
    }

    /// Tasks pack blocks, each as soon as it may. A block is known to have taken long when it ends.
    #[test]
    fn no_more_is_spent_than_there_is() {
        for (block, tasks) in [(3, 1), (350, 8), (900, 16)] {
            let mut machine = Machine::default();
            machine.look(Duration::ZERO, None, 2);
            let block = MS * block;
            let (mut now, mut allowed, mut spent) = (Duration::ZERO, 0.0, Duration::ZERO);
            let mut ends = vec![None; tasks];
            while now < Duration::from_secs(60) {
                now += MS;
                // Now and then packing may use nothing, which forgives no debt.
                let most = if now.as_secs() % 5 == 4 { 0.0 } else { 0.25 };
                let processors = machine.allowed(most);
                allowed += processors * MS.as_secs_f64();
                machine.pay(now, processors);
                for end in &mut ends {
                    if end.take_if(|end| *end <= now).is_some() {
                        machine.debt += block.as_secs_f64();
                        spent += block;
                    }
                    if end.is_none() && processors > 0.0 && machine.debt <= 0.0 {
                        *end = Some(now + block);
                    }
                }
            }
            let (spent, burst) = (spent.as_secs_f64(), block.as_secs_f64() * tasks as f64);
            let name = format!("{block:?} {tasks}: {spent} of {allowed}");
            assert!(spent <= allowed + burst + CREDIT, "{name}");
            assert!(spent >= 0.9 * allowed - burst, "{name}");
        }
    }
}
