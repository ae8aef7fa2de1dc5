// SPDX-License-Identifier: GPL-2.0-only

//! Connections that break: the clone goes on where it was, as long as there is something to go on
//! with.

use std::time::Duration;

use clone_protocol::innodb::{Descriptor, SnapshotState};
use clone_protocol::{BLOCK_HEAD, BlockForm, CommandCode, Packing, Response};

use super::Tally;
use crate::sim::engine::ContentShape;
use crate::sim::faults::{Action, End, Event, Role, Step, Wire};
use crate::sim::world::{Setup, Target, World};

/// Enough of everything that a few lost packets are a small part of it.
fn large(seed: u64) -> Setup {
    let mut setup = Setup::new(seed);
    setup.network.window = 2048;
    setup.content = ContentShape {
        files: 6,
        pages: 400,
        pages_in_block: 1,
        blocks_in_chunk: 16,
        changes: 10,
        late_changes: 900,
        redo: 300 << 10,
        redo_files: 2,
        is_encrypted: false,
        is_text: false,
    };
    setup
}

const STATES: [SnapshotState; 3] =
    [SnapshotState::FileCopy, SnapshotState::PageCopy, SnapshotState::RedoCopy];

fn restarts(world: &World) -> u32 {
    world.donor.innodb.balance().restarted
}

#[test]
fn five_cuts_in_each_state_cost_little() {
    for (seed, state) in (0..).zip(STATES) {
        for threads in [1, 4] {
            large(seed).threads(threads).run(move |world| {
                let mut blocks = 0;
                world.interfere(move |event| match event {
                    Event::Packet(wire) if is_data_of(wire, state) => {
                        blocks += 1;
                        if blocks % 60 == 0 && blocks <= 300 { Action::Cut } else { Action::Pass }
                    }
                    _ => Action::Pass,
                });
                world.clone_remote(Target::Directory("clone")).assert_ok();
                assert_eq!(restarts(world), 5);
                let (sent, needed) = (world.network.data_sent(), world.transfer());
                assert!(sent > needed, "nothing was lost in five cuts?");
                let state_needed = world.donor.innodb.content().transfer(state);
                assert!(
                    (sent - needed) * 10 <= state_needed,
                    "{} of {state_needed} bytes of {state} were sent twice",
                    sent - needed
                );
            });
        }
    }
}

/// InnoDB asks for no descriptions any more when it knows the last file, so that those it was not
/// given must not be lost.
#[test]
fn a_cut_while_files_are_created() {
    for seed in 0..120 {
        let mut setup = Setup::new(seed).threads(4);
        setup.content = ContentShape { files: 20, pages: 8, ..setup.content };
        setup.run(move |world| {
            let (mut created, mut cuts) = (0, [seed % 20, 3 + seed % 17].into_iter().peekable());
            world.interfere(move |event| {
                created += u64::from(matches!(event, Event::Engine(Step::Create)));
                match cuts.next_if(|cut| created > *cut) {
                    Some(_) => Action::CutAll,
                    None => Action::Pass,
                }
            });
            world.clone_remote(Target::Directory("clone")).assert_ok();
            assert!(restarts(world) > 0);
        });
    }
}

fn is_data_of(wire: &Wire<'_>, state: SnapshotState) -> bool {
    matches!(wire.descriptor(), Some(Descriptor::Data(data)) if data.state == state)
}

/// A block whose checksum or packed form is wrong is asked for again over a new connection.
#[test]
fn damaged_blocks_are_sent_again() {
    for (seed, is_checksum, is_packed) in
        [(0, false, true), (1, true, true), (2, false, false), (3, true, false)]
    {
        let mut setup = large(seed).threads(2);
        setup.settings.compression = if is_packed { Packing::Zstd(1) } else { Packing::None };
        setup.run(move |world| {
            let mut damaged = 0;
            world.interfere(move |event| match event {
                Event::Packet(wire)
                    if matches!(wire.response(), Some(Response::Block(block))
                        if is_packed || block.form == BlockForm::Sparse) =>
                {
                    damaged += 1;
                    if damaged != 50 {
                        return Action::Pass;
                    }
                    let mut packet = wire.packet.to_vec();
                    let at = if is_checksum { packet.len() - 1 } else { BLOCK_HEAD };
                    packet[at] ^= 1;
                    Action::Replace(vec![packet])
                }
                _ => Action::Pass,
            });
            world.clone_remote(Target::Directory("clone")).assert_ok();
            assert_eq!(restarts(world), 1);
        });
    }
}

/// One cut before each packet in turn, on each connection: not one is at a bad moment.
#[test]
fn a_cut_anywhere_after_execute() {
    // How many packets a connection has at least, and how many of the cuts may be without effect: a
    // worker that has not begun, or that has ended, takes no other task with it.
    for (role, least, most_unnoticed) in
        [(Role::Master, 40, 0), (Role::Worker, 25, 15), (Role::Auxiliary, 6, 2)]
    {
        let (mut cuts, mut unnoticed) = (0, 0);
        for at in 1..=70 {
            let (seen, restarts) = (Tally::default(), Tally::default());
            let (seen_here, restarts_here) = (seen.clone(), restarts.clone());
            Setup::new(at).threads(3).run(move |world| {
                let mut executes = false;
                world.interfere(move |event| {
                    let Event::Packet(wire) = event else { return Action::Pass };
                    if wire.command() == Some(CommandCode::Reinit) {
                        restarts_here.add();
                    }
                    executes |= wire.command() == Some(CommandCode::Execute)
                        && wire.role == Role::Master
                        && wire.to == End::Donor;
                    // Without EXECUTE the donor has begun nothing; after EXIT it has ended it.
                    let leaves = wire.command() == Some(CommandCode::Exit);
                    if !executes || leaves || wire.role != role {
                        return Action::Pass;
                    }
                    if wire.command() == Some(CommandCode::Execute) && role == Role::Master {
                        return Action::Pass;
                    }
                    if seen_here.add() == at { Action::Cut } else { Action::Pass }
                });
                world.clone_remote(Target::Directory("clone")).assert_ok();
            });
            if seen.count() < at {
                // The connection has no more packets.
                break;
            }
            cuts += 1;
            unnoticed += u64::from(restarts.count() == 0);
        }
        assert!(
            cuts >= least && unnoticed <= most_unnoticed,
            "{role:?}: {cuts} cuts, {unnoticed} without effect"
        );
    }
}

#[test]
fn a_cut_at_each_turn_of_the_states() {
    use SnapshotState::{Done, FileCopy, Init, PageCopy, RedoCopy};
    for state in [Init, FileCopy, PageCopy, RedoCopy, Done] {
        for start in [false, true] {
            for (seed, role) in [Role::Master, Role::Worker].into_iter().enumerate() {
                Setup::new(seed as u64).run(move |world| {
                    let mut done = false;
                    world.interfere(move |event| match event {
                        Event::Packet(wire) if !done && wire.role == role => {
                            done = matches!(wire.descriptor(), Some(Descriptor::State(of))
                                if of.state == state && of.start == start && !of.ack);
                            if done { Action::Cut } else { Action::Pass }
                        }
                        _ => Action::Pass,
                    });
                    world.clone_remote(Target::Directory("clone")).assert_ok();
                });
            }
        }
    }
}

/// An acknowledgement that arrived, and one that did not: both look the same to the recipient.
#[test]
fn a_cut_of_an_acknowledgement() {
    for nth in 0..4 {
        for to in [End::Donor, End::Recipient] {
            Setup::new(nth).run(move |world| {
                let mut left = nth;
                let mut done = false;
                world.interfere(move |event| match event {
                    Event::Packet(wire)
                        if !done && wire.role == Role::Auxiliary && wire.to == to =>
                    {
                        done = left == 0;
                        left = left.saturating_sub(1);
                        if done { Action::Cut } else { Action::Pass }
                    }
                    _ => Action::Pass,
                });
                world.clone_remote(Target::Directory("clone")).assert_ok();
                assert_eq!(restarts(world), 1);
            });
        }
    }
}

/// INIT has no clone to go on with: the error is that of the network, and it comes at once.
#[test]
fn no_restart_before_there_is_a_clone() {
    let cuts = Tally::default();
    for at in 0..18 {
        for to in [End::Donor, End::Recipient] {
            let cuts = cuts.clone();
            Setup::new(at).run(move |world| {
                let mut left = at;
                let mut done = false;
                world.interfere(move |event| match event {
                    Event::Packet(wire) if wire.role == Role::Master && !done => {
                        assert_ne!(wire.command(), Some(CommandCode::Reinit));
                        if wire.command() == Some(CommandCode::Execute) {
                            done = true;
                        } else if wire.to == to {
                            done = left == 0;
                            left = left.saturating_sub(1);
                            if done {
                                return Action::Cut;
                            }
                        }
                        Action::Pass
                    }
                    Event::Packet(wire) => {
                        assert_ne!(wire.command(), Some(CommandCode::Reinit));
                        Action::Pass
                    }
                    _ => Action::Pass,
                });
                let outcome = world.clone_remote(Target::Server);
                if outcome.result.is_err() {
                    cuts.add();
                    assert!(
                        matches!(outcome.number(), Some(1158 | 1160)),
                        "{:?}",
                        outcome.warnings
                    );
                    assert!(outcome.took < Duration::from_secs(1), "{:?}", outcome.took);
                    assert!(world.settle() < Duration::from_secs(1));
                } else {
                    assert!(at > 0, "the cut came");
                }
                world.network.leave_alone();
            });
        }
    }
    assert!(cuts.count() >= 12, "{} cuts of 36", cuts.count());
}

/// The donor is away for some time, but not for longer than it said.
#[test]
fn a_donor_that_comes_back() {
    for (seed, away, minutes) in
        [(0, 30, 5), (1, 290, 5), (2, 301, 5), (3, 400, 5), (4, 100, 1), (5, 3, 0)]
    {
        large(seed).run(move |world| {
            let timeout = "clone_donor_timeout_after_network_failure";
            world.donor.set_variable(timeout, &minutes.to_string());
            refuse_after_cut(world, Duration::from_secs(away));
            let outcome = world.clone_remote(Target::Directory("clone"));
            let patience = Duration::from_secs(60 * minutes);
            if Duration::from_secs(away) <= patience {
                outcome.assert_ok();
                assert_eq!(restarts(world), 1);
            } else {
                outcome.assert_error(3862);
                assert!(outcome.text().contains(": Connect failed"), "{}", outcome.text());
                // One attempt may begin just before the time is over.
                let most = patience + Duration::from_secs(11);
                assert!(outcome.took < most, "{:?}", outcome.took);
                assert!(outcome.took >= patience, "{:?}", outcome.took);
            }
            world.network.leave_alone();
            world.settle();
            world.clone_remote(Target::Directory("next")).assert_ok();
        });
    }
}

/// Cuts the master's connection in FILE_COPY; then nobody can connect for a time.
fn refuse_after_cut(world: &World, away: Duration) {
    let (mut blocks, mut until) = (0, None);
    let sim = std::sync::Arc::clone(&world.sim);
    world.interfere(move |event| match event {
        Event::Packet(wire)
            if wire.role == Role::Master && is_data_of(wire, SnapshotState::FileCopy) =>
        {
            blocks += 1;
            if blocks != 20 {
                return Action::Pass;
            }
            until = Some(sim.now() + away);
            Action::Cut
        }
        Event::Connect if until.is_some_and(|until| sim.now() < until) => Action::Fail(2003),
        _ => Action::Pass,
    });
}

/// Attempts to connect are five seconds apart.
#[test]
fn a_donor_that_is_away_is_not_pestered() {
    large(1).run(|world| {
        refuse_after_cut(world, Duration::from_secs(100));
        world.clone_remote(Target::Directory("clone")).assert_ok();
        let log = world.recipient.log_lines();
        let attempts = log.iter().filter(|line| line.starts_with("Source re-connect failed"));
        assert_eq!(attempts.count(), 20);
    });
}

/// A network that always fails again ends the clone after a hundred connections.
#[test]
fn not_more_than_a_hundred_restarts() {
    Setup::new(2).threads(1).run(|world| {
        world.interfere(|event| match event {
            Event::Packet(wire) if wire.state().is_some() => Action::Cut,
            _ => Action::Pass,
        });
        let outcome = world.clone_remote(Target::Directory("clone"));
        assert!(matches!(outcome.number(), Some(1158 | 1160)), "{:?}", outcome.warnings);
        assert_eq!(restarts(world), 99);
    });
}

/// What ends the clone after a restart is what the user sees, not the failure of the network
/// before.
#[test]
fn the_last_error_counts() {
    // With more threads the master may hear of the error from its engine, without the text.
    large(3).threads(1).run(|world| {
        let (mut blocks, mut has_restarted) = (0, false);
        world.interfere(move |event| match event {
            Event::Packet(wire) if wire.command() == Some(CommandCode::Reinit) => {
                has_restarted = true;
                Action::Pass
            }
            Event::Packet(wire) if is_data_of(wire, SnapshotState::FileCopy) => {
                blocks += 1;
                if blocks == 30 { Action::Cut } else { Action::Pass }
            }
            Event::Engine(Step::Write(_)) if has_restarted => Action::DiskFull,
            _ => Action::Pass,
        });
        let outcome = world.clone_remote(Target::Directory("clone"));
        outcome.assert_error(1026);
        assert!(outcome.text().contains("No space left"), "{}", outcome.text());
    });
}

/// A donor that has lost the clone, for example because it was restarted, says so.
#[test]
fn a_donor_that_forgot() {
    large(4).run(|world| {
        let mut blocks = 0;
        world.interfere(move |event| match event {
            Event::Packet(wire) if is_data_of(wire, SnapshotState::PageCopy) => {
                blocks += 1;
                if blocks == 30 { Action::Cut } else { Action::Pass }
            }
            // A restarted InnoDB counts its clones from 1 again, and this is another clone.
            Event::Packet(wire) if wire.command() == Some(CommandCode::Reinit) => {
                let mut packet = wire.packet.to_vec();
                packet[14 + 19] ^= 0x40;
                Action::Replace(vec![packet])
            }
            _ => Action::Pass,
        });
        let outcome = world.clone_remote(Target::Directory("clone"));
        outcome.assert_error(3862);
        assert_eq!(outcome.text(), "1815 : Innodb Clone Restart could not find existing clone");
    });
}

/// Nobody says that a connection is dead. Both sides find out by their time-outs.
#[test]
fn a_connection_that_dies_silently() {
    for role in [Role::Master, Role::Worker, Role::Auxiliary] {
        for at in [0, 1, 2, 5, 10, 30] {
            let mut setup = Setup::new(at);
            // Less than what is left to send: a donor with everything in its sockets waits for the
            // acknowledgement, half an hour.
            setup.network.window = 16 << 10;
            setup.run(move |world| {
                let mut left = at;
                let mut done = false;
                world.interfere(move |event| match event {
                    Event::Packet(wire) if wire.role == role && !done => {
                        done = left == 0;
                        left = left.saturating_sub(1);
                        if done { Action::Dark } else { Action::Pass }
                    }
                    _ => Action::Pass,
                });
                let outcome = world.clone_remote(Target::Directory("clone"));
                if let Some(number) = outcome.number() {
                    // 3862: the donor had not noticed yet when the recipient was back.
                    assert!([1158, 1159, 3862].contains(&number), "{:?}", outcome.warnings);
                }
                // A worker whose connection dies in ATTACH fails only itself, but the donor counts
                // on it, and InnoDB's waits for other tasks end after half an hour.
                let most = if role == Role::Worker { 35 } else { 15 };
                assert!(
                    outcome.took < Duration::from_secs(60 * most),
                    "{role:?} {:?}",
                    outcome.took
                );
                world.network.leave_alone();
                assert!(world.settle() < Duration::from_secs(9 * 3600));
                world.clone_remote(Target::Directory("next")).assert_ok();
            });
        }
    }
}
