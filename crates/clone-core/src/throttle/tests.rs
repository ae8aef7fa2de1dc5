// SPDX-License-Identifier: GPL-2.0-only

//! Tasks under a simulated clock: they move blocks without any delay of their own, sleep as they
//! are told, and oversleep.

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
    /// When a task runs that could run at a time.
    runs_at: &'a dyn Fn(Duration) -> Duration,
}

const USUAL: Simulation<'static> = Simulation {
    tasks: 1,
    block: 64 * KIB,
    oversleep: Duration::from_millis(1),
    patience: Patience::Whole,
    rate: &|_| MIB,
    runs_at: &|now| now,
};

impl Simulation<'_> {
    /// Runs until `end` and calls `moved` for each block, with its time.
    fn run(&self, end: Duration, mut moved: impl FnMut(Duration, u64)) {
        let throttle = Throttle::new();
        // Wake-up time, task, until when it has to wait, and whether that was all of it.
        let mut events: BinaryHeap<_> = (0..self.tasks)
            .map(|task| Reverse((Duration::ZERO, task, Duration::ZERO, true)))
            .collect();
        while let Some(Reverse((now, task, until, is_all))) = events.pop() {
            let now = (self.runs_at)(now);
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

    /// The blocks until `end`, with their times.
    fn moves(&self, end: Duration) -> Vec<(Duration, u64)> {
        let mut moves = Vec::new();
        self.run(end, |now, bytes| moves.push((now, bytes)));
        moves
    }
}

/// Bytes in the busiest span of this length.
fn busiest(span: Duration, moves: &[(Duration, u64)]) -> u64 {
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for &(at, bytes) in moves {
        sum += bytes;
        while moves[first].0 + span < at {
            sum -= moves[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// In no span more than is promised, whatever happens: one block for each task besides.
fn assert_bounds(moves: &[(Duration, u64)], rate: u64, outstanding: u64, what: &str) {
    for (span, percent) in [(100, 218), (1_000, 118), (3_000, 110), (10_000, 108)] {
        let bytes = busiest(Duration::from_millis(span), moves);
        let allowed = rate * span / 1_000 * percent / 100 + outstanding;
        assert!(bytes <= allowed, "{what}: {bytes} of {allowed} in {span} ms");
    }
}

fn assert_within_ten_percent(bytes: u64, rate: u64, span: Duration, what: &str) {
    let share = bytes as f64 / (rate as f64 * span.as_secs_f64());
    assert!((0.9..1.1).contains(&share), "{what}: {share}");
}

/// At least ten seconds, and long enough that the last block of each task, moved but not yet paid,
/// does not count.
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
                    let simulation =
                        Simulation { tasks, block, oversleep, rate: &|_| rate, ..USUAL };
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
            patience: Patience::Slices,
            rate: &|now| limits[phase(now)],
            ..USUAL
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
fn a_stall_is_made_up_for_without_a_burst() {
    let rate = 256 * MIB;
    let stall = Duration::from_secs(2)..Duration::from_secs(3);
    // A tenth of it at once, the rest at 6% more than the limit.
    let end = stall.end + Duration::from_secs(15);
    for (tasks, block) in [(1, 64 * KIB), (4, 64 * KIB), (16, 64 * KIB), (4, MIB)] {
        let simulation = Simulation {
            tasks,
            block,
            rate: &|_| rate,
            runs_at: &|now| if stall.contains(&now) { stall.end } else { now },
            ..USUAL
        };
        let what = format!("{tasks} tasks, block {block}");
        let moves = simulation.moves(end);
        let bytes: u64 = moves.iter().map(|(_, bytes)| bytes).sum();
        let share = bytes as f64 / (rate as f64 * end.as_secs_f64());
        assert!((0.998..1.001).contains(&share), "{what}: {share}");
        assert_bounds(&moves, rate, tasks as u64 * block, &what);
    }
}

#[test]
fn frequent_stalls_cost_little() {
    let rate = 1024 * MIB;
    // Not soon after a stall.
    let end = Duration::from_millis(29_500);
    // Milliseconds from one stall to the next, how many of them nothing moves, and which part of
    // the limit is still reached.
    for (period, stall, least) in [(400, 95, 0.995), (3_000, 250, 0.995), (3_000, 510, 0.9)] {
        let stall = Duration::from_millis(stall);
        for tasks in [1, 4, 16] {
            let runs_at = |now: Duration| {
                let next = (now.as_millis() / period + 1) * period;
                let next = Duration::from_millis(next as u64);
                if now + stall >= next { next } else { now }
            };
            let simulation =
                Simulation { tasks, block: MIB, rate: &|_| rate, runs_at: &runs_at, ..USUAL };
            let what = format!("{stall:?}, {tasks} tasks");
            let moves = simulation.moves(end);
            let bytes: u64 = moves.iter().map(|(_, bytes)| bytes).sum();
            let share = bytes as f64 / (rate as f64 * end.as_secs_f64());
            assert!((least..1.001).contains(&share), "{what}: {share}");
            assert_bounds(&moves, rate, tasks as u64 * MIB, &what);
        }
    }
}

#[test]
fn an_idle_hour_leads_to_no_burst() {
    let rate = 100 * MIB;
    let hour = Duration::from_secs(3600);
    for tasks in [1, 4, 16] {
        let simulation = Simulation {
            tasks,
            rate: &|_| rate,
            runs_at: &|now| if now > Duration::from_secs(1) { now.max(hour) } else { now },
            ..USUAL
        };
        let moves = simulation.moves(hour + Duration::from_secs(200));
        assert_bounds(&moves, rate, tasks as u64 * 64 * KIB, &format!("{tasks} tasks"));
        // Ten seconds are made up for, not the hour.
        let bytes: u64 = moves.iter().filter(|(at, _)| *at >= hour).map(|(_, bytes)| bytes).sum();
        let seconds = bytes as f64 / rate as f64;
        assert!((209.9..210.1).contains(&seconds), "{tasks} tasks: {seconds}");
    }
}

#[test]
fn unused_bandwidth_of_a_tenth_of_a_second_may_be_used_at_once() {
    let rate = 100_000_000;
    let throttle = Throttle::new();
    throttle.reserve(Duration::ZERO, 0, rate);
    let now = Duration::from_secs(3600);
    // At the peak, which is 106 bytes in a microsecond.
    assert_eq!(throttle.reserve(now, 10_600_000, rate), Duration::ZERO);
    assert_eq!(throttle.reserve(now, 10_600_000, rate), Duration::from_millis(100));
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
    // Ten seconds of the new limit are left, to be used at its peak.
    let wait = throttle.reserve(now, 106 * MIB, 100 * MIB);
    assert_eq!(wait, Duration::from_millis(900));
    let wait = throttle.reserve(now, 1060 * MIB, 100 * MIB);
    assert_eq!(wait, Duration::from_millis(10_900));
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
    fn never_exceeds_the_bounds(
        tasks in 1..20_usize,
        block in 512..4 * MIB,
        mib in 1..2000_u64,
        oversleep in 0..200_u64,
        stall in 0..4_000_u64,
    ) {
        let rate = mib * MIB;
        let block = block.max(rate / 50_000);
        let outstanding = tasks as u64 * block;
        let stall = Duration::from_secs(1)..Duration::from_millis(1_000 + stall);
        let simulation = Simulation {
            tasks,
            block,
            oversleep: Duration::from_millis(oversleep),
            rate: &|_| rate,
            runs_at: &|now| if stall.contains(&now) { stall.end } else { now },
            ..USUAL
        };
        let moves = simulation.moves(stall.end + Duration::from_secs(1));
        let mut total = 0;
        for (now, bytes) in &moves {
            total += bytes;
            let allowed = rate as f64 * (now.as_secs_f64() + 0.005) + outstanding as f64;
            prop_assert!(total as f64 <= allowed, "{total} of {allowed} at {now:?}");
        }
        for span in [1, 10, 100, 1_000] {
            let bytes = busiest(Duration::from_millis(span), &moves);
            let allowed = rate as f64 * 1.06 * (span as f64 / 1e3 + 0.105) + outstanding as f64;
            prop_assert!(bytes as f64 <= allowed, "{bytes} of {allowed} in {span} ms");
        }
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
