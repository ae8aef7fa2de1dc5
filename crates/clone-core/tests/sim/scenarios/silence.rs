// SPDX-License-Identifier: GPL-2.0-only

//! Peers that fall silent while their connections stay open, and peers that live and wait.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use clone_protocol::innodb::SnapshotState;
use clone_protocol::{CommandCode, Response};

use super::Tally;
use crate::sim::faults::{Action, End, Event, Role, Wire};
use crate::sim::world::{Setup, Target, World};

/// `clone_peer_timeout` of both servers: less than any other time-out.
const LIMIT: Duration = Duration::from_secs(20);

/// How much longer either end may take.
const MORE: Duration = Duration::from_secs(5);

/// How often a donor's InnoDB that waits sends something.
const INNODB: Duration = Duration::from_secs(5);

/// How long a connection without a command may take.
const FIRST_COMMAND: Duration = Duration::from_secs(60);

/// What a read may take of which only the server's variables decide.
const STOCK: Duration = Duration::from_secs(30);

/// A moment of the dialogue: a packet is about to be sent.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Command(CommandCode),
    Parameter,
    Locators,
    Data(SnapshotState),
    /// The donor ends a state.
    End(SnapshotState),
    /// The donor answers EXIT.
    Exited,
}

impl Moment {
    fn is(self, wire: &Wire<'_>, asked: Option<CommandCode>) -> bool {
        use clone_protocol::innodb::Descriptor;

        match (self, wire.response(), wire.descriptor()) {
            (Self::Command(code), ..) => wire.command() == Some(code),
            (Self::Parameter, Some(Response::Collation(_)), _) => true,
            (Self::Locators, Some(Response::Locators { .. }), _) => true,
            (Self::Data(state), _, Some(Descriptor::Data(data))) => data.state == state,
            (Self::End(state), _, Some(Descriptor::State(at))) => {
                at.state == state && !at.start && !at.ack
            }
            (Self::Exited, Some(Response::Complete), _) => asked == Some(CommandCode::Exit),
            _ => false,
        }
    }
}

const MOMENTS: [Moment; 16] = {
    use Moment::{Command, Data, End, Exited, Locators, Parameter};
    use SnapshotState::{FileCopy, Init, PageCopy, RedoCopy};
    [
        Command(CommandCode::Init),
        Parameter,
        Locators,
        Command(CommandCode::Execute),
        Command(CommandCode::Attach),
        End(Init),
        Command(CommandCode::Ack),
        Data(FileCopy),
        End(FileCopy),
        Data(PageCopy),
        End(PageCopy),
        Data(RedoCopy),
        End(RedoCopy),
        Command(CommandCode::Exit),
        Exited,
        Command(CommandCode::Heartbeat),
    ]
};

fn setup(seed: u64, threads: u32) -> Setup {
    let mut setup = Setup::new(seed).threads(threads);
    setup.settings.peer_timeout = seconds(LIMIT);
    setup.content.late_changes = 60;
    setup.content.redo = 60_000;
    setup
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap()
}

/// The donor does not wait for a recipient that was lost.
fn prepare(world: &World) {
    world.donor.set(|settings| settings.peer_timeout = seconds(LIMIT));
    world.donor.set_variable("clone_donor_timeout_after_network_failure", "0");
}

/// When the network fell silent.
#[derive(Clone, Copy)]
struct Silence {
    at: Duration,
    /// The donor has answered a heartbeat before.
    has_heartbeats: bool,
}

/// From the `after`-th such moment on nothing passes, and nobody can connect. Gives the time of
/// that.
fn fall_silent(world: &World, moment: Moment, after: u32) -> Arc<Mutex<Option<Silence>>> {
    let since = Arc::new(Mutex::new(None));
    let mut has_heartbeats = false;
    let (noted, sim) = (Arc::clone(&since), Arc::clone(&world.sim));
    let mut left = after;
    let mut asked = None;
    world.interfere(move |event| {
        let mut noted = noted.lock().unwrap();
        match event {
            Event::Connect if noted.is_some() => Action::Fail(2003),
            Event::Packet(wire) if noted.is_none() => {
                asked = wire.command().or(asked);
                has_heartbeats |= matches!(wire.response(), Some(Response::Heartbeat(_)));
                if !moment.is(wire, asked) {
                    return Action::Pass;
                }
                if left > 0 {
                    left -= 1;
                    return Action::Pass;
                }
                *noted = Some(Silence { at: sim.now(), has_heartbeats });
                Action::DarkAll
            }
            _ => Action::Pass,
        }
    });
    since
}

/// A network that falls silent is noticed at both ends in `clone_peer_timeout`, whatever the clone
/// does at the moment.
#[test]
fn both_ends_notice_silence_in_every_phase() {
    let (silent, known) = (Tally::default(), Tally::default());
    for moment in MOMENTS {
        for (seed, (threads, after)) in (0..).zip([(1, 0), (4, 0), (4, 1)]) {
            for target in [Target::Server, Target::Directory("clone")] {
                let (silent, known) = (silent.clone(), known.clone());
                let mut setup = setup(seed, threads);
                // So that heartbeats are sent meanwhile.
                setup.network.latency = Duration::from_millis(100);
                setup.run(move |world| {
                    prepare(world);
                    let since = fall_silent(world, moment, after);
                    let outcome = world.clone_remote(target);
                    let ended = world.sim.now();
                    let Some(since) = *since.lock().unwrap() else { return };

                    silent.add();
                    let took = ended - since.at;
                    // A donor that is asked for facts may take as long as a stock donor.
                    let is_asked =
                        matches!(moment, Moment::Command(CommandCode::Exit) | Moment::Exited)
                            && target == Target::Server;
                    let limit = if is_asked { STOCK } else { LIMIT };
                    assert!(took <= limit + MORE, "{moment:?}: {took:?} {:?}", outcome.warnings);
                    while !world.donor.session_ids().is_empty() {
                        world.sim.sleep(Duration::from_secs(1));
                    }
                    let took = world.sim.now() - since.at;
                    // The donor may have a connection that no heartbeat has come over or named.
                    let is_known = threads == 1 && since.has_heartbeats;
                    let limit = if is_known { LIMIT } else { FIRST_COMMAND };
                    known.0.fetch_add(u64::from(is_known), Ordering::Relaxed);
                    // InnoDB looks every 5 seconds whether its connection works.
                    assert!(took <= limit + MORE + INNODB, "{moment:?}: {took:?}");
                    if outcome.result.is_err() {
                        let is_named =
                            outcome.text().contains("donor:3306") || world.donor.name != "donor";
                        assert!(is_named, "{moment:?}: {:?}", outcome.warnings);
                    }
                });
            }
        }
    }
    assert!(silent.count() > 60, "{}", silent.count());
    assert!(known.count() > 12, "{}", known.count());
}

/// KILL within the time that the links take, which is none here.
#[test]
fn kill_needs_no_answer() {
    for seed in 0..4 {
        setup(seed, 4).run(move |world| {
            prepare(world);
            fall_silent(world, Moment::Data(SnapshotState::FileCopy), 3);
            let (recipient, sim) = (Arc::clone(&world.recipient), Arc::clone(&world.sim));
            let killer: JoinHandle<()> = world.sim.spawn("killer".to_owned(), move || {
                sim.sleep(Duration::from_secs(5));
                recipient.kill_users();
            });
            let outcome = world.clone_remote(Target::Directory("clone"));
            outcome.assert_error(1317);
            assert!(outcome.took <= LIMIT + MORE, "{:?}", outcome.took);
            killer.join().unwrap();
            world.settle();
        });
    }
}

/// DDL at the donor, for so long.
fn hold_ddl(world: &World, time: Duration) -> JoinHandle<()> {
    world.donor.set_ddl(true);
    let (donor, sim) = (Arc::clone(&world.donor), Arc::clone(&world.sim));
    world.sim.spawn("ddl".to_owned(), move || {
        sim.sleep(time);
        donor.set_ddl(false);
    })
}

/// Counts the connections that break: none may.
fn watch_for_restarts(world: &World) -> Tally {
    let restarts = Tally::default();
    let count = restarts.clone();
    world.interfere(move |event| {
        if let Event::Packet(wire) = event
            && wire.command() == Some(CommandCode::Reinit)
        {
            count.add();
        }
        Action::Pass
    });
    restarts
}

/// A donor that waits for its backup lock lives, and the recipient says so.
#[test]
fn a_donor_that_waits_is_waited_for() {
    for seed in 0..3 {
        let mut setup = setup(seed, 3);
        setup.settings.block_ddl = true;
        setup.run(move |world| {
            prepare(world);
            let restarts = watch_for_restarts(world);
            let ddl = hold_ddl(world, 4 * LIMIT);
            let outcome = world.clone_remote(Target::Directory("clone"));
            outcome.assert_ok();
            assert!(outcome.took >= 4 * LIMIT);
            assert_eq!(restarts.count(), 0);
            let lines = world.recipient.log_lines();
            let told = lines.iter().filter(|line| line.contains("waits for its backup lock"));
            assert!((3..=4).contains(&told.count()), "{lines:?}");
            ddl.join().unwrap();
        });
    }
}

/// A recipient that drops its data for long lives.
#[test]
fn a_recipient_that_drops_its_data_is_waited_for() {
    for seed in 0..3 {
        let mut setup = setup(seed, 3);
        setup.settings.delay_after_data_drop = 10 * seconds(LIMIT);
        setup.settings.keep_data = clone_core::settings::KeepData::Off;
        setup.run(move |world| {
            prepare(world);
            let restarts = watch_for_restarts(world);
            let outcome = world.clone_remote(Target::Server);
            outcome.assert_ok();
            assert!(outcome.took >= 10 * LIMIT);
            assert_eq!(restarts.count(), 0);
        });
    }
}

/// One connection of a worker is silent, the others are not: while the worker attaches, and later.
/// The donor does not keep the worker's task, for which its other tasks would wait for 30 minutes.
#[test]
fn a_worker_whose_connection_is_silent() {
    for moment in [Moment::Command(CommandCode::Attach), Moment::Locators] {
        for seed in 0..6 {
            let came = Tally::default();
            setup(seed, 3).run(move |world| {
                prepare(world);
                world.donor.set_variable("clone_donor_timeout_after_network_failure", "5");
                let counted = came.clone();
                world.interfere(move |event| match event {
                    Event::Packet(wire)
                        if wire.role == Role::Worker
                            && moment.is(wire, None)
                            && counted.count() == 0 =>
                    {
                        counted.add();
                        Action::Dark
                    }
                    _ => Action::Pass,
                });
                let outcome = world.clone_remote(Target::Directory("clone"));
                outcome.assert_ok();
                assert!(outcome.took <= 4 * (LIMIT + MORE), "{moment:?}: {:?}", outcome.took);
                world.settle();
            });
        }
    }
}

/// A donor that does not know heartbeats: the server's own time-outs count, where they are longer.
#[test]
fn a_stock_donor_that_falls_silent() {
    for moment in [
        Moment::Command(CommandCode::Init),
        Moment::Command(CommandCode::Execute),
        Moment::Data(SnapshotState::FileCopy),
        Moment::End(SnapshotState::PageCopy),
    ] {
        for seed in 0..3 {
            setup(seed, 3).run(move |world| {
                prepare(world);
                let since = Arc::new(Mutex::new(None));
                let (noted, sim) = (Arc::clone(&since), Arc::clone(&world.sim));
                world.interfere(move |event| {
                    let mut noted = noted.lock().unwrap();
                    match event {
                        Event::Connect if noted.is_some() => Action::Fail(2003),
                        Event::Packet(wire) if noted.is_none() && moment.is(wire, None) => {
                            *noted = Some(sim.now());
                            Action::DarkAll
                        }
                        Event::Packet(wire) => without_heartbeats(wire),
                        _ => Action::Pass,
                    }
                });
                let outcome = world.clone_remote(Target::Directory("clone"));
                assert!(outcome.result.is_err());
                let took = world.sim.now() - since.lock().unwrap().unwrap();
                assert!(took <= STOCK + MORE, "{moment:?}: {took:?}");
                world.settle();
            });
        }
    }
}

/// The recipient's wish for heartbeats does not reach the donor.
fn without_heartbeats(wire: &Wire<'_>) -> Action {
    if wire.to != End::Donor || wire.command() != Some(CommandCode::Init) {
        return Action::Pass;
    }
    let mut packet = wire.packet.to_vec();
    packet[3] = 0;
    Action::Replace(vec![packet])
}

/// A stock donor that takes long for INIT, and answers new connections, is waited for as long as
/// the stock plugin does.
#[test]
fn a_stock_donor_that_waits_in_init() {
    for seed in 0..3 {
        let mut setup = setup(seed, 3);
        setup.settings.block_ddl = true;
        setup.run(move |world| {
            prepare(world);
            world.interfere(|event| match event {
                Event::Packet(wire) => without_heartbeats(wire),
                _ => Action::Pass,
            });
            let ddl = hold_ddl(world, 5 * LIMIT);
            let outcome = world.clone_remote(Target::Directory("clone"));
            outcome.assert_ok();
            assert!(outcome.took >= 5 * LIMIT);
            ddl.join().unwrap();
        });
    }
}
