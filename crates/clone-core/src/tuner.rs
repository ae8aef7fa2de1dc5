// SPDX-License-Identifier: GPL-2.0-only

//! Finds the number of threads with which a clone is fast (`clone_autotune_concurrency`).

use crate::meter::{Sample, mib};

/// Evaluations between two decisions: about five seconds.
const EVALUATIONS: u32 = 5;

/// Threads added in one step.
const STEP: u32 = 4;

/// Bandwidth in MiB/s that a worker must be able to use, or it is not worth a thread while a limit
/// is set.
const WORKER_BANDWIDTH: u32 = 64;

/// The bandwidth limits of a clone in MiB/s, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `clone_max_data_bandwidth`.
    pub data: u32,
    /// `clone_max_network_bandwidth`.
    pub network: u32,
}

/// What [`Tuner::threads`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// Threads that the clone should run with, the master among them. Never fewer than it has.
    pub threads: u32,
    /// A line for the log, if there was something to decide.
    pub log: Option<String>,
}

/// How many workers to start at once if the number is not tuned: all of `max_workers`, or as many
/// as the limits leave 64 MiB/s each (`clone_client.cc:Client::limit_workers`).
///
/// Zero is valid: then the master does all of the work.
pub(crate) fn initial_workers(max_workers: u32, limits: Limits) -> u32 {
    [limits.data, limits.network]
        .into_iter()
        .filter(|limit| *limit != 0)
        .fold(max_workers, |workers, limit| workers.min(limit / WORKER_BANDWIDTH))
}

/// Adds threads as long as that makes the clone faster (`clone_client.cc:Client_Stat`).
///
/// The tuner goes from a number of threads to twice that number, in steps of four. At twice the
/// number, a quarter more speed is expected. Each step must bring its part of that, or the search
/// ends until the next state of the clone. Threads are never removed.
#[derive(Debug, Default)]
pub(crate) struct Tuner {
    /// Evaluations since the last decision.
    evaluations: u32,
    last: Speed,
    search: Search,
}

/// Whole MiB/s.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    data: u64,
    network: u64,
}

#[derive(Debug, Default)]
enum Search {
    /// Nothing was tried in this state of the clone.
    #[default]
    Init,
    Active(Attempt),
    Done,
}

/// The way from one number of threads to twice that number.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// Threads at the beginning.
    previous: u32,
    /// Threads now.
    current: u32,
    /// Threads at the end.
    target: u32,
    /// Data speed at the beginning, MiB/s.
    previous_speed: u64,
    /// Data speed before the last step, MiB/s.
    step_speed: u64,
}

impl Tuner {
    /// A tuner at the beginning of a state.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes what the [`Meter`](crate::meter::Meter) measured.
    pub(crate) fn observe(&mut self, sample: &Sample) {
        self.evaluations = self.evaluations.saturating_add(1);
        self.last = Speed { data: mib(sample.data_speed), network: mib(sample.network_speed) };
    }

    /// Whether a clone that runs with `current` threads, of at most `max`, should have more.
    pub(crate) fn threads(&mut self, current: u32, max: u32, limits: &Limits) -> Advice {
        let unchanged = Advice { threads: current, log: None };
        if self.evaluations < EVALUATIONS {
            return unchanged;
        }
        self.evaluations = 0;
        if matches!(self.search, Search::Done) {
            return unchanged;
        }
        if current >= max || self.last.saturates(limits) {
            self.finish();
            return unchanged;
        }
        let speed = self.last.data;
        let (attempt, verdict) = match self.search {
            Search::Active(attempt) if attempt.current != current => {
                self.finish();
                let expected = attempt.current;
                let log = format!("Tune stop, current: {current} expected: {expected}");
                return Advice { threads: current, log: Some(log) };
            }
            Search::Active(attempt) => {
                let wanted = attempt.wanted_speed();
                if speed < wanted {
                    self.finish();
                    let log =
                        format!("Tune stop, Data: {speed} MiB/sec, Target: {wanted} MiB/sec.");
                    return Advice { threads: current, log: Some(log) };
                }
                let verdict =
                    format!("Tune continue, Data: {speed} MiB/sec, Target: {wanted} MiB/sec; ");
                (attempt, verdict)
            }
            Search::Init | Search::Done => (Attempt::new(current, max, speed), String::new()),
        };
        let attempt = attempt.step(max, speed);
        self.search = Search::Active(attempt);
        let Attempt { previous, current: threads, target, .. } = attempt;
        let log = format!(
            "{verdict}Tune Threads from: {current} to: {threads} prev: {previous} target: {target}"
        );
        Advice { threads, log: Some(log) }
    }

    /// Begins anew, at the end of a state of the clone.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Adds no more threads in this state of the clone.
    pub(crate) fn finish(&mut self) {
        self.search = Search::Done;
    }
}

impl Speed {
    /// Returns true if more than nine tenths of a limit are used. More threads would not help.
    fn saturates(self, limits: &Limits) -> bool {
        let reached = |speed: u64, limit: u32| limit != 0 && speed > percent(limit.into(), 90);
        reached(self.data, limits.data) || reached(self.network, limits.network)
    }
}

impl Attempt {
    fn new(threads: u32, max: u32, speed: u64) -> Self {
        Attempt {
            previous: threads,
            current: threads,
            target: threads.saturating_mul(2).min(max),
            previous_speed: speed,
            step_speed: speed,
        }
    }

    /// The next step, towards a new target if this one is reached.
    fn step(self, max: u32, speed: u64) -> Self {
        let attempt =
            if self.current == self.target { Attempt::new(self.current, max, speed) } else { self };
        let current = attempt.current.saturating_add(STEP).min(attempt.target);
        Attempt { current, step_speed: speed, ..attempt }
    }

    /// The data speed that justifies the threads added so far, MiB/s.
    fn wanted_speed(&self) -> u64 {
        let whole = self.target - self.previous;
        let gone = self.current - self.previous;
        if gone == whole {
            percent(self.previous_speed, 125)
        } else if gone >= whole / 2 {
            percent(self.previous_speed, 110)
        } else if gone >= whole / 4 {
            percent(self.previous_speed, 105)
        } else {
            percent(self.step_speed, 95)
        }
    }
}

/// `percent` of `value`, rounded down.
fn percent(value: u64, percent: u64) -> u64 {
    value.saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: Limits = Limits { data: 0, network: 0 };

    fn observe(tuner: &mut Tuner, data: u64, network: u64) {
        let sample =
            Sample { data_speed: data << 20, network_speed: network << 20, ..Sample::default() };
        tuner.observe(&sample);
    }

    /// Five evaluations at `speed` MiB/s, and the decision after each.
    fn run(tuner: &mut Tuner, speed: u64, current: u32, max: u32) -> Advice {
        for _ in 0..4 {
            observe(tuner, speed, 0);
            let advice = tuner.threads(current, max, &NO_LIMITS);
            assert_eq!(advice, Advice { threads: current, log: None });
        }
        observe(tuner, speed, 0);
        tuner.threads(current, max, &NO_LIMITS)
    }

    fn log(advice: Advice) -> String {
        advice.log.unwrap_or_default()
    }

    #[test]
    fn doubles_in_steps_while_it_pays() {
        let mut tuner = Tuner::new();
        let advice = run(&mut tuner, 100, 1, 16);
        assert_eq!(advice.threads, 2);
        assert_eq!(log(advice), "Tune Threads from: 1 to: 2 prev: 1 target: 2");

        let advice = run(&mut tuner, 125, 2, 16);
        assert_eq!(advice.threads, 4);
        assert_eq!(
            log(advice),
            "Tune continue, Data: 125 MiB/sec, Target: 125 MiB/sec; \
             Tune Threads from: 2 to: 4 prev: 2 target: 4"
        );
        assert_eq!(run(&mut tuner, 200, 4, 16).threads, 8);
        assert_eq!(run(&mut tuner, 300, 8, 16).threads, 12);
        // Half of the way to 16: a tenth more than at 8 threads is enough.
        assert_eq!(run(&mut tuner, 330, 12, 16).threads, 16);
        // The maximum is reached, nothing is said any more.
        assert_eq!(run(&mut tuner, 999, 16, 16), Advice { threads: 16, log: None });
    }

    #[test]
    fn stops_when_a_step_does_not_pay() {
        let mut tuner = Tuner::new();
        run(&mut tuner, 100, 1, 16);
        let advice = run(&mut tuner, 124, 2, 16);
        assert_eq!(advice.threads, 2);
        assert_eq!(log(advice), "Tune stop, Data: 124 MiB/sec, Target: 125 MiB/sec.");
        assert_eq!(run(&mut tuner, 9_999, 2, 16), Advice { threads: 2, log: None });

        tuner.reset();
        assert_eq!(run(&mut tuner, 100, 2, 16).threads, 4);
    }

    #[test]
    fn expects_a_part_of_the_gain_at_each_part_of_the_way() {
        let attempt = |current| Attempt {
            previous: 32,
            current,
            target: 64,
            previous_speed: 1_000,
            step_speed: 2_000,
        };
        for (current, wanted) in [
            (36, 1_900),
            (39, 1_900),
            (40, 1_050),
            (47, 1_050),
            (48, 1_100),
            (63, 1_100),
            (64, 1_250),
        ] {
            assert_eq!(attempt(current).wanted_speed(), wanted, "{current}");
        }
    }

    #[test]
    fn early_steps_are_compared_with_the_step_before() {
        let mut tuner = Tuner::new();
        assert_eq!(run(&mut tuner, 1_000, 64, 128).threads, 68);
        assert_eq!(run(&mut tuner, 960, 68, 128).threads, 72);
        assert_eq!(run(&mut tuner, 912, 72, 128).threads, 76);
        let advice = run(&mut tuner, 865, 76, 128);
        assert_eq!(advice.threads, 76);
        assert_eq!(log(advice), "Tune stop, Data: 865 MiB/sec, Target: 866 MiB/sec.");
    }

    #[test]
    fn rounds_as_the_stock_plugin_does_in_floating_point() {
        for value in 0..200_000_u64 {
            for (part, factor) in [(125, 1.25), (110, 1.10), (105, 1.05), (95, 0.95), (90, 0.9)] {
                assert_eq!(
                    percent(value, part),
                    (value as f64 * factor) as u64,
                    "{value} {factor}"
                );
            }
        }
    }

    #[test]
    fn a_target_never_exceeds_the_maximum() {
        let mut tuner = Tuner::new();
        let advice = run(&mut tuner, 100, 5, 8);
        assert_eq!(advice.threads, 8);
        assert_eq!(log(advice), "Tune Threads from: 5 to: 8 prev: 5 target: 8");
    }

    #[test]
    fn stops_near_a_limit() {
        for (limits, data, network, threads) in [
            (Limits { data: 100, network: 0 }, 90, 900, 2),
            (Limits { data: 100, network: 0 }, 91, 0, 1),
            (Limits { data: 0, network: 100 }, 900, 90, 2),
            (Limits { data: 0, network: 100 }, 0, 91, 1),
            (Limits { data: 1, network: 1 }, 0, 0, 2),
        ] {
            let mut tuner = Tuner::new();
            (0..5).for_each(|_| observe(&mut tuner, data, network));
            let advice = tuner.threads(1, 16, &limits);
            assert_eq!(advice.threads, threads, "{limits:?} {data} {network}");
        }
    }

    #[test]
    fn stops_when_the_threads_are_not_those_it_asked_for() {
        let mut tuner = Tuner::new();
        run(&mut tuner, 100, 4, 16);
        let advice = run(&mut tuner, 999, 5, 16);
        assert_eq!(advice.threads, 5);
        assert_eq!(log(advice), "Tune stop, current: 5 expected: 8");
        assert_eq!(run(&mut tuner, 999, 5, 16), Advice { threads: 5, log: None });
    }

    #[test]
    fn finish_lasts_until_the_next_state() {
        let mut tuner = Tuner::new();
        tuner.finish();
        assert_eq!(run(&mut tuner, 100, 1, 16).threads, 1);
        tuner.reset();
        assert_eq!(run(&mut tuner, 100, 1, 16).threads, 2);
    }

    #[test]
    fn workers_need_bandwidth() {
        for (max, data, network, workers) in [
            (15, 0, 0, 15),
            (15, 63, 0, 0),
            (15, 64, 0, 1),
            (15, 0, 640, 10),
            (15, 640, 128, 2),
            (3, 6400, 0, 3),
            (0, 0, 0, 0),
        ] {
            assert_eq!(initial_workers(max, Limits { data, network }), workers);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_advises_fewer_threads_or_too_many(
            rounds in proptest::collection::vec((proptest::num::u64::ANY, 0..300_u32, 0..300_u32), 0..60),
            data: u32,
        ) {
            let mut tuner = Tuner::new();
            for (speed, current, max) in rounds {
                tuner.observe(&Sample { data_speed: speed, ..Sample::default() });
                let advice = tuner.threads(current, max, &Limits { data, network: 0 });
                proptest::prop_assert!(advice.threads >= current);
                proptest::prop_assert!(advice.threads <= current.max(max));
            }
        }
    }
}
