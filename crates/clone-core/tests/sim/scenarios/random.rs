// SPDX-License-Identifier: GPL-2.0-only

//! Whatever goes wrong: a clone completes, or ends in time with an error that belongs to what went
//! wrong, and the next one completes.

use std::env;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clone_core::session::Host;
use clone_core::settings::KeepData;
use clone_protocol::Packing;

use crate::sim::engine::ContentShape;
use crate::sim::faults::{Action, End, Event, FollowerStep, Role, Step};
use crate::sim::follower::FollowerShape;
use crate::sim::network::NetworkShape;
use crate::sim::rng::Rng;
use crate::sim::world::{Outcome, Setup, Target};

/// Seeds in an ordinary run.
const SEEDS: u64 = 240;

#[test]
fn random_faults() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("SIM_SEED") {
        return run(seed);
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let end = first + number("SIM_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for thread in 0..threads {
            let first = first + thread as u64;
            scope.spawn(move || (first..end).step_by(threads).for_each(run));
        }
    });
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut setup = random_setup(seed, &mut rng);
    let minutes = [0, 1, 5, 5][rng.below(4)];
    let loses_lock = rng.chance(30);
    let target = if rng.chance(30) { Target::Server } else { Target::Directory("first") };
    let is_local = rng.chance(15);
    let mut faults = random_faults_of(&mut rng);
    let mut rng = Rng::new(seed ^ 0x0f01_10e5);
    setup.follower = rng.chance(50).then(|| random_follower(&mut rng));
    if setup.follower.is_some() {
        let more = rng.below(3);
        faults.extend((0..more).map(|_| Fault::random_of_follower(&mut rng)));
    }
    setup.settings.keep_data = [KeepData::Auto, KeepData::Auto, KeepData::Off][rng.below(3)];
    let statement = rng.chance(20).then(|| rng.duration(Duration::from_secs(20)));
    setup.run(move |world| {
        let variable = "clone_donor_timeout_after_network_failure";
        world.donor.set_variable(variable, &minutes.to_string());
        world.donor.facts().loses_backup_lock = loses_lock;
        world.network.trace(|| format!("{faults:?}"));
        let mut pending = faults.clone();
        let fired = Arc::new(Mutex::new(Vec::new()));
        let fires = Arc::clone(&fired);
        world.interfere(move |event| {
            let due = pending.iter_mut().position(|fault| fault.is_due(event));
            due.map_or(Action::Pass, |due| {
                let fault = pending.remove(due);
                let action = fault.action(event);
                fires.lock().unwrap().push(fault);
                action
            })
        });
        let statement = statement.filter(|_| setup.follower.is_some());
        let statement = statement.map(|lasts| world.run_statement(lasts));
        let outcome = if is_local {
            let settings = world.recipient.settings();
            world.donor.set(|own| *own = settings);
            world.clone_local("first")
        } else {
            world.clone_remote(target)
        };
        world.network.leave_alone();
        let fired = std::mem::take(&mut *fired.lock().unwrap());
        check(&outcome, &fired);
        if let Some(statement) = statement {
            statement.join().unwrap();
        }
        let is_dark = fired.iter().any(|fault| matches!(fault.kind, Kind::Dark(_)));
        // InnoDB waits half an hour for an acknowledgement, and then the connection is idle.
        let patience = if is_dark { 8 * 3600 + 1800 } else { 60 * minutes } + 120;
        let quiet = world.settle();
        assert!(
            quiet <= Duration::from_secs(patience),
            "the donor needs {quiet:?} after {fired:?}"
        );
        if is_local || outcome.result.is_err() || target != Target::Server {
            world.clone_remote(Target::Directory("second")).assert_ok();
        }
    });
}

fn random_setup(seed: u64, rng: &mut Rng) -> Setup {
    let mut setup = Setup::new(seed).threads(u32::try_from(rng.between(1, 8)).unwrap());
    setup.settings.autotune_concurrency = rng.chance(30);
    setup.settings.block_ddl = rng.chance(40);
    let packings = [Packing::Auto, Packing::None, Packing::Lz4, Packing::Zstd(1)];
    setup.settings.compression = packings[rng.below(4)];
    setup.network = NetworkShape {
        latency: Duration::from_millis([0, 1, 50, 400][rng.below(4)]),
        window: [1, 9_000, 100_000][rng.below(3)],
        rate: 0,
        is_within_host: rng.chance(30),
        shares_files: rng.chance(50),
    };
    setup.content = ContentShape {
        files: rng.between(0, 5),
        pages: rng.between(1, 80),
        pages_in_block: rng.between(1, 8),
        blocks_in_chunk: rng.between(1, 6),
        changes: rng.below(60),
        late_changes: rng.below(30),
        redo: rng.below(12_000),
        redo_files: rng.between(1, 4),
        is_encrypted: rng.chance(20),
        is_text: false,
    };
    setup
}

fn random_follower(rng: &mut Rng) -> FollowerShape {
    FollowerShape {
        files: rng.below(12),
        size: rng.between(1, 6000),
        chunk: rng.between(300, 3000),
        compactions: rng.below(60),
        checkpoint: Duration::from_millis([0, 1, 3000][rng.below(3)]),
    }
}

/// Some faults of any kind, or some breaks of the network, which a clone survives.
fn random_faults_of(rng: &mut Rng) -> Vec<Fault> {
    let only_cuts = rng.chance(30);
    (0..rng.between(0, 4))
        .map(|_| match Fault::random(rng) {
            fault if only_cuts => Fault { kind: Kind::Cut(random_role(rng)), ..fault },
            fault => fault,
        })
        .collect()
}

fn random_role(rng: &mut Rng) -> Role {
    [Role::Master, Role::Worker, Role::Auxiliary][rng.below(3)]
}

/// Something that goes wrong once.
#[derive(Clone, Debug)]
struct Fault {
    kind: Kind,
    /// So many events of its kind pass before.
    after: usize,
    /// They count from when the follower is to come to its point.
    from_point: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cut(Role),
    Dark(Role),
    /// A packet to this end loses its tail.
    Truncate(End, usize),
    /// A packet to the recipient gets another code.
    Garble(u8),
    KillRecipient,
    KillDonor,
    KillAcknowledger,
    /// The follower fails.
    Follower(FollowerStep),
    /// Its disk is full.
    FollowerDiskFull,
    /// All connections break.
    CutAll,
    /// Nobody connects so many times.
    Refuse(usize),
    NoThread,
    DiskFull,
    CannotWrite,
    CannotRead,
    CannotEnter,
    NoSpace,
}

impl Fault {
    fn random(rng: &mut Rng) -> Self {
        let role = random_role(rng);
        let to = [End::Donor, End::Recipient][rng.below(2)];
        let kind = match rng.below(16) {
            0..=3 => Kind::Cut(role),
            4 => Kind::Dark(role),
            5 => Kind::Truncate(to, rng.below(40)),
            6 => Kind::Garble(u8::try_from(rng.below(101)).unwrap()),
            7 => Kind::KillRecipient,
            8 => Kind::KillDonor,
            9 => Kind::Refuse(rng.between(1, 100)),
            10 => Kind::NoThread,
            11 => Kind::DiskFull,
            12 => Kind::CannotWrite,
            13 => Kind::CannotRead,
            14 => Kind::CannotEnter,
            _ => Kind::NoSpace,
        };
        let most = [8, 60, 250][rng.below(3)];
        Self { kind, after: rng.below(most), from_point: false }
    }

    fn random_of_follower(rng: &mut Rng) -> Self {
        use FollowerStep::{Block, Complete, Fix, Prepare, Send, Write};
        let step = [Send, Write, Prepare, Fix, Block, Complete][rng.below(6)];
        let kind = match rng.below(6) {
            0 => Kind::KillAcknowledger,
            1 => Kind::FollowerDiskFull,
            2 | 3 => Kind::CutAll,
            _ => Kind::Follower(step),
        };
        let most = [8, 60, 250][rng.below(3)];
        let fault = Self { kind, after: rng.below(most), from_point: false };
        match rng.below(4) {
            0 => fault,
            1 => Self { after: rng.below(30), from_point: true, ..fault },
            _ => Self { after: rng.below(30), from_point: true, ..Self::random(rng) },
        }
    }

    /// Whether the fault happens to this event, which is counted.
    fn is_due(&mut self, event: &Event<'_>) -> bool {
        if self.from_point {
            self.from_point = !matches!(event, Event::Follower(FollowerStep::Prepare));
            return false;
        }
        let concerned = match (self.kind, event) {
            (Kind::Cut(role) | Kind::Dark(role), Event::Packet(wire)) => wire.role == role,
            (Kind::Truncate(to, _), Event::Packet(wire)) => wire.to == to,
            (Kind::Garble(_), Event::Packet(wire)) => wire.to == End::Recipient,
            (
                Kind::KillRecipient | Kind::KillDonor | Kind::KillAcknowledger | Kind::CutAll,
                Event::Packet(_) | Event::Engine(_) | Event::Follower(_),
            ) => true,
            (Kind::Follower(step), Event::Follower(of)) => step == *of,
            (Kind::FollowerDiskFull, Event::Follower(of)) => *of == FollowerStep::Write,
            (Kind::Refuse(_), Event::Connect) | (Kind::NoThread, Event::Spawn) => true,
            (Kind::DiskFull | Kind::CannotWrite, Event::Engine(Step::Write(_)))
            | (Kind::CannotWrite, Event::Engine(Step::Create))
            | (Kind::CannotRead, Event::Engine(Step::Copy(_)))
            | (Kind::CannotEnter, Event::Engine(Step::Enter(_)))
            | (Kind::NoSpace, Event::Engine(Step::Follow(_))) => true,
            _ => false,
        };
        if !concerned {
            return false;
        }
        let few = matches!(
            self.kind,
            Kind::Refuse(_)
                | Kind::NoThread
                | Kind::CannotEnter
                | Kind::NoSpace
                | Kind::Follower(_)
        );
        let is_due = self.after == 0 || (few && self.after.is_multiple_of(5));
        self.after = self.after.saturating_sub(1);
        is_due
    }

    fn action(&self, event: &Event<'_>) -> Action {
        match (self.kind, event) {
            (Kind::Cut(_), _) => Action::Cut,
            (Kind::Dark(_), _) => Action::Dark,
            (Kind::Truncate(_, len), Event::Packet(wire)) => {
                Action::Replace(vec![wire.packet[..len.min(wire.packet.len() - 1)].to_vec()])
            }
            (Kind::Garble(code), Event::Packet(wire)) => {
                let mut packet = wire.packet.to_vec();
                packet[0] = code;
                Action::Replace(vec![packet])
            }
            (Kind::KillRecipient, _) => Action::KillRecipient,
            (Kind::KillDonor, _) => Action::KillDonor,
            (Kind::KillAcknowledger, _) => Action::KillAcknowledger,
            (Kind::CutAll, _) => Action::CutAll,
            (Kind::Follower(_), _) => Action::Fail(1030),
            (Kind::FollowerDiskFull, _) => Action::DiskFull,
            (Kind::Refuse(_) | Kind::NoThread, _) => Action::Fail(2003),
            (Kind::DiskFull, _) => Action::DiskFull,
            (Kind::CannotWrite, _) => Action::Fail(1026),
            (Kind::CannotRead, _) => Action::Fail(1024),
            (Kind::CannotEnter, _) => Action::Fail(1815),
            (Kind::NoSpace, _) => Action::Fail(3873),
            _ => Action::Pass,
        }
    }

    /// The errors that it may end a clone with, as the user sees them.
    fn errors(&self) -> &'static [u32] {
        match self.kind {
            // 3862 is what the donor says of it, or that there was no connection to be had.
            Kind::Cut(_) | Kind::Dark(_) | Kind::CutAll => &[1158, 1159, 1160, 1161, 3862],
            // An offer that the donor does not understand is none, and then it cannot have other
            // engines.
            Kind::Truncate(..) => &[3863, 1156, 3862, 1158, 1815, 1235],
            // A collation that comes as a plugin is one that is missing.
            Kind::Garble(_) => &[3863, 1156, 3862, 1158, 1815, 3867, 3868, 3870, 1235],
            Kind::KillRecipient => &[1317],
            Kind::KillDonor | Kind::KillAcknowledger => &[3862, 1158, 1160],
            Kind::Refuse(_) => &[3862],
            Kind::NoThread => &[],
            Kind::DiskFull | Kind::CannotWrite | Kind::FollowerDiskFull => &[1026],
            // In a local clone it is the user's own error.
            Kind::Follower(_) => &[1030, 1815, 3862],
            Kind::CannotRead => &[3862, 1024],
            Kind::CannotEnter => &[3862, 1815],
            Kind::NoSpace => &[3873, 1815],
        }
    }
}

/// Only what has happened explains an error: without a fault the clone must succeed.
fn check(outcome: &Outcome, fired: &[Fault]) {
    // A worker whose connection dies silently can cost InnoDB's longest wait, which is half an
    // hour.
    assert!(outcome.took < Duration::from_secs(3 * 3600), "{:?} after {fired:?}", outcome.took);
    let Some(number) = outcome.number() else { return };
    let expected = fired.iter().any(|fault| fault.errors().contains(&number));
    assert!(expected, "{:?} after {fired:?}", outcome.warnings);
}
