// SPDX-License-Identifier: GPL-2.0-only

//! Tasks under a simulated clock: they move blocks without any delay of their own, sleep as they are told, and oversleep.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What a task does between two blocks.
#[derive(Clone, Copy)]
enum Patience {
    /// Sleeps as long as it was told, and asks again only after a wait of [`MAX_WAIT`].
    Whole,
    /// Sleeps in slices of 100 ms, and shortens its wait if the account is even before.
    Slices,
}

struct Simulation<'a> {
    tasks: usize,
    block: u64,
    oversleep: Duration,
    patience: Patience,
    /// Bytes per second at a time.
    rate: &'a dyn Fn(Duration) -> u64,
}

impl Simulation<'_> {
    /// Runs until `end` and calls `moved` for each block, with its time.
    fn run(&self, end: Duration, mut moved: impl FnMut(Duration, u64)) {
        let throttle = Throttle::new();
        // Wake-up time, task, until when it has to wait, and whether that was all of it.
        let mut events: BinaryHeap<_> = (0..self.tasks)
            .map(|task| Reverse((Duration::ZERO, task, Duration::ZERO, true)))
            .collect();
        while let Some(Reverse((now, task, until, is_all))) = events.pop() {
            if now >= end {
                break;
            }
            let rate = (self.rate)(now);
            let mut left = until.saturating_sub(now);
            if !left.is_zero() {
                left = left.min(throttle.reserve(now, 0, rate));
            } else if !is_all {
                left = throttle.reserve(now, 0, rate);
            }
            while left.is_zero() {
                moved(now, self.block);
                left = throttle.reserve(now, self.block, rate);
            }
            let until = now + left;
            let slept = match self.patience {
                Patience::Whole => left + self.oversleep,
                Patience::Slices => left.min(Duration::from_millis(100)) + self.oversleep,
            };
            events.push(Reverse((now + slept, task, until, left < MAX_WAIT)));
        }
    }

    fn bytes(&self, end: Duration) -> u64 {
        let mut total = 0;
        self.run(end, |_, bytes| total += bytes);
        total
    }
}

fn assert_within_ten_percent(bytes: u64, rate: u64, span: Duration, what: &str) {
    let share = bytes as f64 / (rate as f64 * span.as_secs_f64());
    assert!((0.9..1.1).contains(&share), "{what}: {share}");
}

/// At least ten seconds, and long enough that the last block of each task, moved but not yet paid, does not count.
fn span(rate: u64, tasks: usize, block: u64) -> Duration {
    let outstanding = tasks as u64 * block;
    Duration::from_secs(10.max(25 * outstanding / rate))
}

#[test]
fn holds_every_limit_with_any_number_of_tasks() {
    for mib in [1, 2, 10, 64, 100, 1000, 4095, 4096, 4097, 10240] {
        for tasks in [1, 4, 16] {
            for block in [512, 64 * KIB, MIB, 4 * MIB] {
                let rate = mib * MIB;
                // The simulation of many small blocks takes long.
                let (span, oversleep) = match rate / block {
                    0..12_000 => (span(rate, tasks, block), &[1, 20][..]),
                    12_000..100_000 => (Duration::from_secs(2), &[1, 20][..]),
                    _ => (Duration::from_millis(100), &[1][..]),
                };
                for &oversleep in oversleep {
                    let oversleep = Duration::from_millis(oversleep);
                    let simulation = Simulation {
                        tasks,
                        block,
                        oversleep,
                        patience: Patience::Whole,
                        rate: &|_| rate,
                    };
                    let what =
                        format!("{mib} MiB/s, {tasks} tasks, block {block}, over by {oversleep:?}");
                    assert_within_ten_percent(simulation.bytes(span), rate, span, &what);
                }
            }
        }
    }
}

#[test]
fn follows_changes_of_the_limit() {
    const PHASE: Duration = Duration::from_secs(10);
    let limits = [100, 10, 10240, 3, 1000, 50].map(|mib| mib * MIB);
    let phase = |now: Duration| (now.as_nanos() / PHASE.as_nanos()) as usize;
    for (tasks, block) in [(1, 64 * KIB), (4, 64 * KIB), (16, 64 * KIB), (16, MIB)] {
        let mut moved = vec![0; limits.len()];
        let simulation = Simulation {
            tasks,
            block,
            oversleep: Duration::from_millis(1),
            patience: Patience::Slices,
            rate: &|now| limits[phase(now)],
        };
        simulation.run(PHASE * 6, |now, bytes| moved[phase(now)] += bytes);
        for (index, (&bytes, rate)) in moved.iter().zip(limits).enumerate() {
            // What is booked in the end of a phase and paid in the next belongs to it.
            let slack = tasks as u64 * block;
            let what = format!("{tasks} tasks, block {block}, phase {index}");
            let nearest =
                (rate * PHASE.as_secs()).clamp(bytes.saturating_sub(slack), bytes + slack);
            assert_within_ten_percent(nearest, rate, PHASE, &what);
        }
    }
}

#[test]
fn the_first_second_has_no_burst() {
    let rate = 100 * MIB;
    let throttle = Throttle::new();
    assert_eq!(
        throttle.reserve(Duration::from_secs(7), 50 * MIB, rate),
        Duration::from_millis(500)
    );
}

#[test]
fn idle_time_builds_up_a_tenth_of_a_second() {
    let rate = 100 * MIB;
    let throttle = Throttle::new();
    throttle.reserve(Duration::ZERO, MIB, rate);
    let now = Duration::from_secs(3600);
    assert_eq!(throttle.reserve(now, 10 * MIB, rate), Duration::ZERO);
    assert_eq!(throttle.reserve(now, 10 * MIB, rate), Duration::from_millis(100));
}

#[test]
fn small_debts_gather_before_anybody_sleeps() {
    let throttle = Throttle::new();
    let waits: Vec<_> =
        (0..6).map(|_| throttle.reserve(Duration::ZERO, 1_000, 1_000_000).as_millis()).collect();
    assert_eq!(waits, [0, 0, 0, 0, 0, 6]);
}

#[test]
fn tasks_wait_behind_each_other() {
    let throttle = Throttle::new();
    let waits: Vec<_> =
        (0..3).map(|_| throttle.reserve(Duration::ZERO, MIB, MIB).as_secs()).collect();
    assert_eq!(waits, [1, 2, 3]);
}

#[test]
fn a_long_wait_is_paid_in_parts() {
    let throttle = Throttle::new();
    assert_eq!(throttle.reserve(Duration::ZERO, 50 * MIB, MIB), MAX_WAIT);
    assert_eq!(throttle.reserve(MAX_WAIT, 0, MIB), MAX_WAIT);
    assert_eq!(throttle.reserve(2 * MAX_WAIT, 0, MIB), Duration::from_secs(10));
    assert_eq!(throttle.reserve(Duration::from_secs(50), 0, MIB), Duration::ZERO);
}

#[test]
fn a_raise_shortens_what_is_due_and_a_cut_does_not_lengthen_it() {
    let throttle = Throttle::new();
    throttle.reserve(Duration::ZERO, 8 * MIB, MIB);
    assert_eq!(throttle.reserve(Duration::ZERO, 0, 8 * MIB), Duration::from_secs(1));
    assert_eq!(throttle.reserve(Duration::ZERO, 0, MIB), Duration::from_secs(1));
}

#[test]
fn a_cut_takes_saved_credit_away() {
    let throttle = Throttle::new();
    throttle.reserve(Duration::ZERO, 0, 10240 * MIB);
    let now = Duration::from_secs(9);
    assert_eq!(throttle.reserve(now, MIB, MIB), Duration::from_millis(900));
}

#[test]
fn no_limit_means_no_wait_and_no_memory() {
    let throttle = Throttle::new();
    throttle.reserve(Duration::ZERO, 100 * MIB, MIB);
    assert_eq!(throttle.reserve(Duration::ZERO, u64::MAX, 0), Duration::ZERO);
    assert_eq!(throttle.reserve(Duration::ZERO, MIB, MIB), Duration::from_secs(1));
}

#[test]
fn a_clock_that_steps_back_costs_no_time() {
    let throttle = Throttle::new();
    throttle.reserve(Duration::from_millis(10), 0, MIB);
    let wait = throttle.reserve(Duration::from_millis(9), MIB, MIB);
    assert_eq!(wait, Duration::from_millis(1001));
    assert_eq!(throttle.reserve(Duration::from_millis(10), 0, MIB), Duration::from_secs(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_exceeds_the_bound(
        tasks in 1..20_usize,
        block in 512..4 * MIB,
        mib in 1..2000_u64,
        oversleep in 0..200_u64,
    ) {
        let rate = mib * MIB;
        let block = block.max(rate / 50_000);
        let end = Duration::from_secs(2);
        let mut total = 0;
        let simulation = Simulation {
            tasks,
            block,
            oversleep: Duration::from_millis(oversleep),
            patience: Patience::Whole,
            rate: &|_| rate,
        };
        let mut worst = 0.0_f64;
        simulation.run(end, |now, bytes| {
            total += bytes;
            let allowed = rate as f64 * (now.as_secs_f64() + 0.105) + (tasks as u64 * block) as f64;
            worst = worst.max(total as f64 / allowed);
        });
        prop_assert!(worst <= 1.0, "{worst}");
    }

    #[test]
    fn takes_any_numbers(calls in proptest::collection::vec(any::<(u64, u32, u64, u64)>(), 1..50)) {
        let throttle = Throttle::new();
        for (seconds, nanos, bytes, rate) in calls {
            let now = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()));
            prop_assert!(throttle.reserve(now, bytes, rate) <= MAX_WAIT);
        }
    }
}
