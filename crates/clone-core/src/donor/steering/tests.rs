// SPDX-License-Identifier: GPL-2.0-only

//! Whole clones in virtual time: tasks with few processors, a link with buffers, a recipient with a
//! disk. Each is run with AUTO and with each fixed packing.

use std::collections::VecDeque;
use std::time::Duration;

use clone_protocol::Packing;

use super::{LADDER, Measured, Sampled, Steering, Survey};

/// What a packing makes of some data: the ratio, and bytes per second.
type Outcomes = [(f64, f64); 5];

/// Rows of sysbench: digits, in which nothing but their frequency can be used.
const SYSBENCH: Outcomes = [(0.94, 0.0), (0.73, 500e6), (0.40, 350e6), (0.42, 120e6), (0.41, 60e6)];
const TEXT: Outcomes = [(1.0, 0.0), (0.35, 600e6), (0.22, 450e6), (0.18, 250e6), (0.16, 90e6)];
/// A sample of a block shows that nothing helps.
const RANDOM: Outcomes = [(1.0, 0.0), (1.0, 20e9), (1.0, 15e9), (1.0, 8e9), (1.0, 4e9)];

/// Bytes per second of a task that reads and sends.
const OWN: f64 = 1.5e9;
/// Bytes per second of a task that unpacks.
const UNPACK: f64 = 900e6;
/// Bytes that one end of a connection holds.
const BUFFER: f64 = 3e6;
const BLOCK: f64 = 1_048_576.0;

const MBIT: f64 = 1e6 / 8.0;

/// Bytes per second at a moment.
type Link = fn(f64) -> f64;

/// The data of a task, by the bytes that it has sent.
type Data = fn(usize, f64) -> Outcomes;

#[derive(Clone, Copy)]
struct World {
    tasks: usize,
    /// Processors of each server.
    cores: f64,
    /// Threads of others at the donor that always want to run.
    others: f64,
    /// Processors that packing may use.
    allowed: f64,
    link: Link,
    /// Bytes per second of the recipient's disk.
    disk: f64,
    data: Data,
    /// Bytes of data in all.
    volume: f64,
    seed: u64,
}

const PLAIN: World = World {
    tasks: 2,
    cores: 4.0,
    others: 0.0,
    allowed: 4.0,
    link: |_| 1e12,
    disk: 1e12,
    data: |_, _| SYSBENCH,
    volume: 1e9,
    seed: 1,
};

/// Who chooses.
enum Policy {
    Fixed(Packing),
    Auto(Box<Steering>),
}

impl Policy {
    /// How to pack the next block, and the processor seconds of a survey with it. `outcomes` is
    /// what the packings make of it.
    fn choose(&mut self, now: f64, outcomes: &Outcomes) -> (Packing, f64) {
        match self {
            Policy::Fixed(packing) => (*packing, 0.0),
            Policy::Auto(steering) => {
                let (packing, survey) = steering.choose();
                let Some(mut survey) = survey else { return (packing, 0.0) };
                let took = take_sample(&mut survey, outcomes);
                steering.surveyed(Duration::from_secs_f64(now), survey);
                (packing, took)
            }
        }
    }
}

/// The seconds that a survey takes with a block.
fn take_sample(survey: &mut Survey, outcomes: &Outcomes) -> f64 {
    let mut took = 0.0;
    let result: Result<(), ()> = survey.sample(|packing| {
        let (ratio, seconds) = outcome(outcomes, packing);
        took += seconds;
        let pack = Duration::from_secs_f64(seconds);
        let (raw, packed) = (BLOCK as u64, (ratio * BLOCK) as u64);
        Ok(Sampled { raw, packed, pack, pack_cpu: pack })
    });
    result.unwrap();
    took
}

/// The ratio, and the seconds to pack a block.
fn outcome(outcomes: &Outcomes, packing: Packing) -> (f64, f64) {
    let (ratio, speed) = outcomes[LADDER.iter().position(|rung| *rung == packing).unwrap()];
    (ratio, if speed == 0.0 { 0.0 } else { BLOCK / speed })
}

/// How a clone went.
#[derive(Clone, Copy, Debug)]
struct Run {
    seconds: f64,
    /// Processor seconds of packing.
    packing: f64,
}

/// A task of the donor, its connection, and the task of the recipient.
#[derive(Default)]
struct Task {
    doing: Doing,
    /// Bytes of data of the blocks so far.
    offset: f64,
    packing: Option<Packing>,
    outcome: (f64, f64),
    begun: f64,
    pack: f64,
    pack_cpu: f64,
    blocked: f64,
    /// Processor seconds of packing that were not counted yet.
    uncounted: f64,
    /// Bytes in the donor's buffer, and in the recipient's.
    sending: f64,
    received: f64,
    /// Blocks that the recipient has not read: their bytes, and whether they are packed.
    queue: VecDeque<(f64, bool)>,
    unpacking: f64,
    writing: f64,
}

#[derive(Default, PartialEq, Clone, Copy)]
enum Doing {
    #[default]
    Next,
    /// Processor seconds left.
    Own(f64),
    Pack(f64),
    /// Bytes left.
    Send(f64),
    Done,
}

fn xorshift(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

impl World {
    /// The clone, or its beginning if it takes longer than `limit` seconds.
    fn run(self, mut policy: Policy, limit: f64) -> Run {
        let mut tasks: Vec<Task> = (0..self.tasks).map(|_| Task::default()).collect();
        let mut rng = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (mut now, mut taken, mut packing) = (0.0, 0.0, 0.0);
        loop {
            // Fine enough for the time that a block takes.
            let step = (BLOCK / (self.link)(now) / 20.0).clamp(5e-5, 4e-3);
            self.donor(&mut tasks, &mut policy, now, step, &mut taken, &mut rng);
            packing +=
                tasks.iter_mut().map(|task| std::mem::take(&mut task.uncounted)).sum::<f64>();
            self.network(&mut tasks, now, step);
            self.recipient(&mut tasks, step);
            now += step;
            if now > limit || tasks.iter().all(Task::is_over) {
                return Run { seconds: now, packing };
            }
        }
    }

    fn donor(
        &self,
        tasks: &mut [Task],
        policy: &mut Policy,
        now: f64,
        step: f64,
        taken: &mut f64,
        rng: &mut u64,
    ) {
        let runs = |task: &&Task| matches!(task.doing, Doing::Own(_) | Doing::Pack(_));
        let running = tasks.iter().filter(runs).count() as f64 + self.others;
        let share = step * (self.cores / running.max(1.0)).min(1.0);
        for (index, task) in tasks.iter_mut().enumerate() {
            match &mut task.doing {
                Doing::Next if *taken >= self.volume => task.doing = Doing::Done,
                Doing::Next => {
                    *taken += BLOCK;
                    let outcomes = (self.data)(index, task.offset);
                    let (chosen, survey) = policy.choose(now, &outcomes);
                    let (ratio, pack) = outcome(&outcomes, chosen);
                    task.offset += BLOCK;
                    let noise = 0.85 + 0.3 * xorshift(rng);
                    task.outcome = ((ratio * (0.97 + 0.06 * xorshift(rng))).min(1.0), pack * noise);
                    task.packing = Some(chosen);
                    task.begun = now;
                    (task.pack, task.pack_cpu, task.blocked) = (0.0, 0.0, 0.0);
                    task.uncounted += survey;
                    task.doing = Doing::Own(BLOCK / OWN + survey);
                }
                Doing::Own(left) => {
                    *left -= share;
                    if *left <= 0.0 {
                        task.doing = Doing::Pack(task.outcome.1);
                    }
                }
                Doing::Pack(left) => {
                    task.pack += step;
                    task.pack_cpu += share.min(*left);
                    task.uncounted += share.min(*left);
                    *left -= share;
                    if *left <= 0.0 {
                        let (ratio, pack) = task.outcome;
                        task.queue.push_back((ratio * BLOCK, pack != 0.0 && ratio < 1.0));
                        task.doing = Doing::Send(ratio * BLOCK);
                    }
                }
                Doing::Send(left) => {
                    let put = left.min((BUFFER - task.sending).max(0.0));
                    *left -= put;
                    task.sending += put;
                    if *left > 0.0 {
                        task.blocked += step;
                    } else {
                        task.finish_block(policy, now + step, self);
                    }
                }
                Doing::Done => {}
            }
        }
    }

    /// Moves bytes from the donor's buffers to the recipient's, evenly.
    fn network(&self, tasks: &mut [Task], now: f64, step: f64) {
        let mut left = (self.link)(now) * step;
        for _ in 0..3 {
            let can = |task: &Task| task.sending.min(BUFFER - task.received).max(0.0);
            let open = tasks.iter().filter(|task| can(task) > 0.0).count();
            if open == 0 || left < 1.0 {
                return;
            }
            let part = left / open as f64;
            for task in tasks.iter_mut() {
                let moved = can(task).min(part);
                task.sending -= moved;
                task.received += moved;
                left -= moved;
            }
        }
    }

    fn recipient(&self, tasks: &mut [Task], step: f64) {
        let unpacking = tasks.iter().filter(|task| task.unpacking > 0.0).count() as f64;
        let share = step * (self.cores / unpacking.max(1.0)).min(1.0);
        let writing = tasks.iter().filter(|task| task.writing > 0.0).count() as f64;
        let disk = self.disk * step / writing.max(1.0);
        for task in tasks {
            if task.unpacking > 0.0 {
                task.unpacking -= share;
            } else if task.writing > 0.0 {
                task.writing -= disk;
            } else if task.queue.front().is_some_and(|(len, _)| *len <= task.received + 1.0) {
                let (len, is_packed) = task.queue.pop_front().unwrap();
                task.received -= len;
                task.unpacking = BLOCK / if is_packed { UNPACK } else { OWN };
                task.writing = BLOCK;
            }
        }
    }
}

impl Task {
    fn is_over(&self) -> bool {
        let is_idle = self.unpacking <= 0.0 && self.writing <= 0.0;
        self.doing == Doing::Done && self.queue.is_empty() && is_idle
    }

    fn finish_block(&mut self, policy: &mut Policy, now: f64, world: &World) {
        let seconds = Duration::from_secs_f64;
        if let Policy::Auto(steering) = policy {
            let one = Measured {
                packing: self.packing.unwrap(),
                raw: BLOCK as u64,
                sent: (self.outcome.0 * BLOCK) as u64,
                pack: seconds(self.pack),
                pack_cpu: seconds(self.pack_cpu),
                blocked: seconds(self.blocked),
                elapsed: seconds(now - self.begun),
            };
            steering.sent(seconds(now), &one, world.tasks as u32, world.allowed);
        }
        self.doing = Doing::Next;
    }
}

/// The time of each fixed packing, and of AUTO.
struct Compared {
    fixed: [Run; 5],
    auto: Run,
    /// Seconds to fill all buffers, and to look around.
    start: f64,
}

fn compare(name: &str, world: World) -> Compared {
    let mut limit = 1e4;
    let fixed = LADDER.map(|packing| {
        let run = world.run(Policy::Fixed(packing), limit);
        // What is slower than this is of no interest.
        limit = limit.min(1.5 * run.seconds);
        run
    });
    let auto = world.run(Policy::Auto(Box::new(Steering::new(|_| true))), 1e4);
    let times = fixed.map(|run| format!("{:.2}", run.seconds)).join(" ");
    let plain = fixed[0].seconds;
    let best = fixed.iter().map(|run| run.seconds).fold(f64::MAX, f64::min);
    println!(
        "{name:40} fixed {times}, AUTO {:.2}: {:.3} of plain, {:.3} of the best; packing {:.2} s",
        auto.seconds,
        auto.seconds / plain,
        auto.seconds / best,
        auto.packing
    );
    let start = 1.5 + 2.0 * BUFFER * world.tasks as f64 / (world.link)(0.0);
    Compared { fixed, auto, start }
}

impl Compared {
    /// AUTO is not slower than plain, and at most by `factor` slower than the best fixed packing,
    /// and the time to find out.
    #[track_caller]
    fn assert(&self, factor: f64) {
        let plain = self.fixed[0].seconds;
        let best = self.fixed.iter().map(|run| run.seconds).fold(f64::MAX, f64::min);
        let auto = self.auto.seconds;
        assert!(auto <= 1.03 * plain, "{auto:.2} s, plain {plain:.2} s");
        assert!(auto <= factor * best + self.start, "{auto:.2} s, best {best:.2} s");
    }
}

#[test]
fn steady_links() {
    let links: [(&str, Link, f64); 6] = [
        ("100 Mbit/s", |_| 100.0 * MBIT, 0.6e9),
        ("200 Mbit/s", |_| 200.0 * MBIT, 0.8e9),
        ("1 Gbit/s", |_| 1000.0 * MBIT, 2e9),
        ("2.5 Gbit/s", |_| 2500.0 * MBIT, 3e9),
        ("10 Gbit/s", |_| 10_000.0 * MBIT, 3e9),
        ("no limit", |_| 1e12, 3e9),
    ];
    let kinds: [(&str, Data); 3] =
        [("sysbench", |_, _| SYSBENCH), ("text", |_, _| TEXT), ("random", |_, _| RANDOM)];
    for (link_name, link, volume) in links {
        for (data_name, data) in kinds {
            for tasks in [1, 8] {
                let world = World { link, data, volume, tasks, ..PLAIN };
                compare(&format!("{link_name}, {data_name}, {tasks} tasks"), world).assert(1.12);
            }
        }
    }
}

/// The rate changes between two, every five seconds.
fn jumps(now: f64, one: f64, other: f64) -> f64 {
    if now % 10.0 < 5.0 { one * MBIT } else { other * MBIT }
}

#[test]
fn links_that_change() {
    let links: [(&str, Link); 4] = [
        ("200 Mbit/s and 10 Gbit/s", |now| jumps(now, 200.0, 10_000.0)),
        ("1 Gbit/s and 100 Mbit/s", |now| jumps(now, 1000.0, 100.0)),
        ("1 Gbit/s, for 10 s, then 20", |now| if now < 10.0 { 125e6 } else { 2.5e9 }),
        ("5 Gbit/s, for 3 s, then 50 Mbit/s", |now| if now < 3.0 { 625e6 } else { 50.0 * MBIT }),
    ];
    for (name, link) in links {
        for tasks in [2, 4] {
            let (sysbench, text) = (|_, _| SYSBENCH, |_, _| TEXT);
            let world = World { link, tasks, volume: 6e9, ..PLAIN };
            compare(&format!("{name}, sysbench, {tasks} tasks"), World { data: sysbench, ..world })
                .assert(1.25);
            compare(&format!("{name}, text, {tasks} tasks"), World { data: text, ..world })
                .assert(1.25);
        }
    }
}

/// Which data comes, of three kinds in turn, 200 MB of each.
fn mixed(task: usize, offset: f64) -> Outcomes {
    [TEXT, RANDOM, SYSBENCH][((offset / 2e8) as usize + task) % 3]
}

#[test]
fn data_that_changes() {
    let together: Data = |_, offset| mixed(0, offset);
    for mbit in [100.0, 1000.0, 10_000.0] {
        let link: Link = match mbit as u32 {
            100 => |_| 100.0 * MBIT,
            1000 => |_| 1000.0 * MBIT,
            _ => |_| 10_000.0 * MBIT,
        };
        for (name, data, tasks) in
            [("of one task", mixed as _, 1), ("of each", mixed as _, 4), ("of all", together, 4)]
        {
            let world = World { link, data, tasks, volume: 4e9, ..PLAIN };
            compare(&format!("{mbit} Mbit/s, data {name}"), world).assert(1.15);
        }
    }
}

/// The recipient's disk is slower than the link: packing cannot help, and is given up.
#[test]
fn a_slow_disk_at_the_recipient() {
    let world = World { disk: 60e6, link: |_| 1.25e9, tasks: 2, volume: 3e9, ..PLAIN };
    let compared = compare("disk of 60 MB/s", world);
    compared.assert(1.03);
    let always = compared.fixed[2].packing;
    assert!(compared.auto.packing < 0.15 * always, "{:?}", compared.auto);
}

/// Others want all processors of the donor.
#[test]
fn a_donor_without_spare_processors() {
    for (name, link) in [("1 Gbit/s", (|_| 125e6) as Link), ("10 Gbit/s", |_| 1250e6)] {
        for (others, allowed) in [(8.0, 0.0), (8.0, 0.2), (30.0, 0.05)] {
            let world = World { others, allowed, link, cores: 2.0, volume: 3e9, ..PLAIN };
            let compared = compare(&format!("{name}, {others} others, {allowed} allowed"), world);
            let plain = compared.fixed[0].seconds;
            assert!(compared.auto.seconds <= 1.03 * plain, "{:?}", compared.auto);
            let most = 1.05 * allowed * compared.auto.seconds + 0.05;
            assert!(compared.auto.packing <= most, "{:?}", compared.auto);
        }
    }
}

/// The outcome does not hang on chance.
#[test]
fn other_seeds() {
    for seed in 2..6 {
        let world = World { seed, link: |_| 125e6, volume: 2e9, ..PLAIN };
        compare(&format!("1 Gbit/s, seed {seed}"), world).assert(1.1);
        let world = World { data: mixed, ..world };
        compare(&format!("1 Gbit/s, all data, seed {seed}"), world).assert(1.15);
    }
}

/// Tells of a block that one of two tasks has sent over 1 Gbit/s.
fn send(steering: &mut Steering, now: &mut f64, packing: Packing, outcomes: &Outcomes) {
    const TASKS: f64 = 2.0;
    let seconds = Duration::from_secs_f64;
    let (ratio, pack) = outcome(outcomes, packing);
    let wire = ratio * BLOCK / 125e6;
    *now += wire;
    let elapsed = (TASKS * wire).max(pack);
    let one = Measured {
        packing,
        raw: BLOCK as u64,
        sent: (ratio * BLOCK) as u64,
        pack: seconds(pack),
        pack_cpu: seconds(pack),
        blocked: seconds(elapsed - pack),
        elapsed: seconds(elapsed),
    };
    steering.sent(seconds(*now), &one, TASKS as u32, 1.0);
}

/// The first blocks of each survey hold hardly anything: they must not decide.
#[test]
fn a_survey_looks_for_blocks_like_the_recent_ones() {
    const EMPTY: Outcomes = [(0.06, 0.0), (0.01, 5e9), (0.01, 4e9), (0.01, 3e9), (0.01, 2e9)];
    let mut steering = Steering::new(|_| true);
    let (mut now, mut empty, mut tried) = (0.0, 0, Vec::new());
    while now < 3.0 {
        let (packing, survey) = steering.choose();
        let is_empty = survey.is_some() && empty < 3;
        let outcomes = if is_empty { &EMPTY } else { &SYSBENCH };
        if let Some(mut survey) = survey {
            empty = if is_empty { empty + 1 } else { 0 };
            take_sample(&mut survey, outcomes);
            steering.surveyed(Duration::from_secs_f64(now), survey);
        }
        send(&mut steering, &mut now, packing, outcomes);
        if tried.last() != Some(&packing) {
            tried.push(packing);
        }
    }
    assert_eq!(tried, [Packing::None, Packing::Zstd(1)]);
}

/// The connections are lost in the middle of a trial. The clone goes on five minutes later.
#[test]
fn an_outage_says_nothing_of_a_trial() {
    let mut steering = Steering::new(|_| true);
    let (mut now, mut is_over, mut tried) = (0.0, false, Vec::new());
    while now < 303.0 {
        let (packing, survey) = steering.choose();
        if let Some(mut survey) = survey {
            take_sample(&mut survey, &SYSBENCH);
            steering.surveyed(Duration::from_secs_f64(now), survey);
        }
        send(&mut steering, &mut now, packing, &SYSBENCH);
        if steering.trial.is_some() && !is_over {
            now += 300.0;
            steering.pause();
            is_over = true;
        }
        if tried.last() != Some(&packing) {
            tried.push(packing);
        }
    }
    assert!(is_over);
    assert_eq!(tried, [Packing::None, Packing::Zstd(1)]);
    assert!(steering.spent < 0.5, "{}", steering.spent);
}
