// SPDX-License-Identifier: GPL-2.0-only

//! Clones of several engines that something disturbs: whatever comes of it, no clone has its
//! engines at different points.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clone_protocol::innodb::{Descriptor, SnapshotState};
use clone_protocol::{Command, CommandCode};

use super::Tally;
use crate::sim::faults::{Action, End, Event, FollowerStep, Role, Step, Wire};
use crate::sim::follower::FollowerShape;
use crate::sim::world::{Outcome, Setup, Target, World};

fn setup(seed: u64) -> Setup {
    Setup::new(seed).follower()
}

/// Does `action` at the first event that is meant.
fn once(
    action: Action,
    mut is_meant: impl FnMut(&Event<'_>) -> bool + Send + 'static,
) -> impl FnMut(&Event<'_>) -> Action + Send + 'static {
    let mut action = Some(action);
    move |event| match is_meant(event) {
        true => action.take().unwrap_or(Action::Pass),
        false => Action::Pass,
    }
}

fn step(step: FollowerStep) -> impl FnMut(&Event<'_>) -> bool + Send + 'static {
    move |event| matches!(event, Event::Follower(of) if *of == step)
}

/// Fails with `text` of the donor, soon, and the next clone succeeds.
#[track_caller]
fn assert_refused(world: &World, outcome: &Outcome, text: &str) {
    outcome.assert_error(3862);
    assert!(outcome.text().starts_with(text), "{}", outcome.text());
    assert_over_soon(world, outcome);
}

#[track_caller]
fn assert_over_soon(world: &World, outcome: &Outcome) {
    assert!(outcome.took < Duration::from_secs(60), "{:?}", outcome.took);
    let quiet = world.settle();
    assert!(quiet < Duration::from_secs(20), "the donor takes {quiet:?} after {outcome:?}");
    world.network.leave_alone();
    world.clone_remote(Target::Directory("next")).assert_ok();
}

#[test]
fn what_the_donor_cannot_do() {
    for (seed, failing) in (0..).zip([
        FollowerStep::Send,
        FollowerStep::Prepare,
        FollowerStep::Block,
        FollowerStep::Fix,
    ]) {
        for threads in [1, 4] {
            setup(seed).threads(threads).run(move |world| {
                world.interfere(once(Action::Fail(1030), step(failing)));
                let outcome = world.clone_remote(Target::Server);
                outcome.assert_error(3862);
                if failing != FollowerStep::Send {
                    assert_eq!(outcome.text(), "1030 : interference");
                }
                assert_over_soon(world, &outcome);
            });
            setup(seed).threads(threads).run(move |world| {
                world.interfere(once(Action::Fail(1030), step(failing)));
                let outcome = world.clone_local("clone");
                assert!([1030, 1815].contains(&outcome.number().unwrap()), "{outcome:?}");
                assert!(outcome.took < Duration::from_secs(60), "{:?}", outcome.took);
                world.network.leave_alone();
                world.clone_local("next").assert_ok();
            });
        }
    }
}

#[test]
fn what_the_recipient_cannot_do() {
    for (seed, failing) in (0..).zip([FollowerStep::Write, FollowerStep::Complete]) {
        for threads in [1, 4] {
            let mut setup = setup(seed).threads(threads);
            // The donor has gone on with InnoDB when it hears of it.
            setup.network.latency = Duration::from_millis(100);
            setup.run(move |world| {
                world.interfere(once(Action::Fail(1026), step(failing)));
                let outcome = world.clone_remote(Target::Directory("clone"));
                outcome.assert_error(1026);
                assert_over_soon(world, &outcome);
            });
        }
    }
}

/// A statement that does not end.
#[test]
fn commits_that_cannot_be_blocked() {
    for is_local in [false, true] {
        let mut setup = setup(1);
        setup.settings.ddl_timeout = 50;
        setup.run(move |world| {
            world.donor.set(|settings| settings.ddl_timeout = 50);
            world.donor.commits.set_statement(true);
            let text = "1205 : Lock wait timeout exceeded";
            let outcome = match is_local {
                true => world.clone_local("clone"),
                false => world.clone_remote(Target::Server),
            };
            world.donor.commits.set_statement(false);
            match is_local {
                true => drop(outcome.assert_error(1205)),
                false => assert_refused(world, &outcome, text),
            }
            assert!(outcome.took >= Duration::from_secs(50), "{:?}", outcome.took);
        });
    }
}

/// InnoDB waits for GTIDs for too long.
#[test]
fn innodb_that_does_not_come_to_its_point() {
    for is_local in [false, true] {
        setup(2).run(move |world| {
            world.donor.facts().gtid_rounds = Some(5);
            let text = "Clone: InnoDB took too long to begin REDO COPY, and commits could not be blocked any longer";
            let outcome = match is_local {
                true => world.clone_local("clone"),
                false => world.clone_remote(Target::Server),
            };
            world.donor.facts().gtid_rounds = Some(0);
            match is_local {
                true => drop(outcome.assert_error(1815)),
                false => assert_refused(world, &outcome, &format!("1815 : {text}")),
            }
        });
    }
}

/// From the acknowledgement that lets InnoDB go on to REDO COPY, until it is there.
struct Turn(bool);

impl Turn {
    fn sees(&mut self, event: &Event<'_>) -> bool {
        if let Event::Packet(wire) = event {
            self.0 |= is_acknowledgement(wire);
            self.0 &= wire.state() != Some(SnapshotState::RedoCopy);
        }
        self.0
    }
}

/// Of the end of PAGE COPY.
fn is_acknowledgement(wire: &Wire<'_>) -> bool {
    if wire.to != End::Donor || wire.role != Role::Auxiliary || wire.packet.is_empty() {
        return false;
    }
    let Ok(Command::Ack(ack)) = Command::parse(wire.packet[0], &wire.packet[1..]) else {
        return false;
    };
    matches!(Descriptor::parse(ack.descriptor), Ok(Descriptor::State(state))
        if state.state == SnapshotState::PageCopy)
}

/// One cut before each packet in turn, on each connection. The clone goes on, but where its point
/// was being chosen it may fail.
#[test]
fn a_cut_anywhere_after_execute() {
    // The last number is how many of the 30 cuts come before the connection has no more packets, at
    // least.
    for (role, packets, least) in
        [(Role::Master, 4, 15), (Role::Worker, 4, 10), (Role::Auxiliary, 1, 6)]
    {
        let cuts = Tally::default();
        for at in 0..30 {
            let cuts = cuts.clone();
            setup(at).threads(3).run(move |world| {
                let was_turn = Arc::new(AtomicBool::new(false));
                let note = Arc::clone(&was_turn);
                let (mut turn, mut executes, mut leaves) = (Turn(false), false, false);
                let mut left = 1 + at * packets;
                world.interfere(once(Action::Cut, move |event| {
                    let is_turn = turn.sees(event);
                    let Event::Packet(wire) = event else { return false };
                    let is_execute = wire.command() == Some(CommandCode::Execute);
                    executes |= is_execute && wire.role == Role::Master;
                    if wire.role != role {
                        return false;
                    }
                    // After EXIT the donor has ended it; a connection that breaks before the answer
                    // may fail the clone.
                    leaves |= executes && wire.command() == Some(CommandCode::Exit);
                    if !executes || is_execute || leaves || left == 0 {
                        return false;
                    }
                    left -= 1;
                    note.fetch_or(left == 0 && is_turn, Ordering::Relaxed);
                    if left == 0 {
                        cuts.add();
                    }
                    left == 0
                }));
                let outcome = world.clone_remote(Target::Directory("clone"));
                if !was_turn.load(Ordering::Relaxed) {
                    outcome.assert_ok();
                }
                assert!(outcome.took < Duration::from_secs(60), "{:?}", outcome.took);
            });
        }
        assert!(cuts.count() >= least, "{role:?}: {} cuts", cuts.count());
    }
}

/// All connections break while InnoDB chooses its point, or right after it. Commits go on then, and
/// the followers' point is not what InnoDB would choose next.
#[test]
fn a_break_at_the_point() {
    for (seed, away) in [(0, 0), (1, 2), (2, 12), (3, 40), (4, 200)] {
        for at in [Step::Enter(SnapshotState::RedoCopy), Step::Copy(SnapshotState::RedoCopy)] {
            setup(seed).run(move |world| {
                let (donor, sim) = (Arc::clone(&world.donor), Arc::clone(&world.sim));
                donor.facts().gtid_rounds = Some(1);
                let mut until = None;
                world.interfere(move |event| match event {
                    Event::Engine(of) if *of == at && until.is_none() => {
                        until = Some(sim.now() + Duration::from_secs(away));
                        Action::CutAll
                    }
                    Event::Connect if until.is_some_and(|until| sim.now() < until) => {
                        Action::Fail(2003)
                    }
                    _ => Action::Pass,
                });
                let outcome = world.clone_remote(Target::Directory("clone"));
                if at == Step::Copy(SnapshotState::RedoCopy) {
                    outcome.assert_ok();
                } else {
                    outcome.assert_error(3862);
                    let text =
                        "1815 : Clone lost its connection while its engines came to one point";
                    assert_eq!(outcome.text(), text);
                }
            });
        }
    }
}

/// So slow that the recipient gives the connection up meanwhile: it comes back.
#[test]
fn a_slow_checkpoint() {
    for seed in 0..4 {
        for seconds in [20, 40, 100] {
            let mut setup = setup(seed);
            let checkpoint = Duration::from_secs(seconds);
            setup.follower = Some(FollowerShape { checkpoint, ..FollowerShape::default() });
            setup.run(|world| {
                world.clone_remote(Target::Directory("clone")).assert_ok();
            });
        }
    }
}

/// A task fails while the donor waits for the acknowledgement: it need not wait any more.
#[test]
fn a_failure_before_the_acknowledgement() {
    for (seed, at_donor) in [(1, false), (2, true), (4, false), (5, true)] {
        let mut setup = setup(seed).threads(3);
        setup.content.late_changes = 200;
        setup.network.latency = Duration::from_millis(300);
        setup.run(move |world| {
            world.interfere(once(Action::Fail(1026), move |event| match event {
                Event::Engine(Step::Write(state)) => *state == SnapshotState::PageCopy && !at_donor,
                Event::Engine(Step::Copy(state)) => *state == SnapshotState::PageCopy && at_donor,
                _ => false,
            }));
            let outcome = world.clone_remote(Target::Directory("clone"));
            assert!(outcome.result.is_err());
            assert!(outcome.took < Duration::from_secs(25), "{outcome:?}");
            assert_over_soon(world, &outcome);
        });
    }
}

/// All connections break while the donor prepares, or waits for a statement to end. Two
/// acknowledgements come then.
#[test]
fn a_break_while_commits_are_to_be_blocked() {
    for seed in 0..4 {
        for at in [FollowerStep::Prepare, FollowerStep::Block, FollowerStep::Fix] {
            for seconds in [1, 7, 30] {
                setup(seed).run(move |world| {
                    world.donor.facts().gtid_rounds = Some(0);
                    world.interfere(once(Action::CutAll, step(at)));
                    let statement = world.run_statement(Duration::from_secs(seconds));
                    world.clone_remote(Target::Directory("clone")).assert_ok();
                    statement.join().unwrap();
                });
            }
        }
    }
}

/// At each event of a clone.
#[test]
fn a_kill_at_any_time() {
    let hits = Tally::default();
    for at in (6..420).step_by(6) {
        let hits = hits.clone();
        setup(at).threads(3).run(move |world| {
            let mut left = at;
            let action = match at % 9 {
                0 => Action::KillRecipient,
                3 => Action::KillDonor,
                _ => Action::KillAcknowledger,
            };
            world.interfere(once(action, move |event| {
                let counts = !matches!(event, Event::Connect | Event::Spawn) && left > 0;
                left -= u64::from(counts);
                counts && left == 0
            }));
            let outcome = world.clone_remote(Target::Directory("clone"));
            if let Some(number) = outcome.number() {
                hits.add();
                assert!([1317, 3862].contains(&number), "{outcome:?}");
                if number == 1317 || !outcome.numbers().contains(&1156) {
                    return assert_over_soon(world, &outcome);
                }
                // The session was killed that had just told InnoDB that all is well.
                assert!(outcome.took < Duration::from_secs(60), "{outcome:?}");
            }
        });
    }
    assert!(hits.count() >= 30, "{} kills of 69", hits.count());
}

/// Nobody waits for the statement any more, for which commits are to be blocked.
#[test]
fn a_kill_while_commits_are_to_be_blocked() {
    for (seed, is_local, at_donor) in [(1, false, false), (2, false, true), (4, true, false)] {
        setup(seed).run(move |world| {
            world.donor.commits.set_statement(true);
            let mut asked = 0;
            let kill = if at_donor { Action::KillDonor } else { Action::KillRecipient };
            world.interfere(once(kill, move |event| {
                asked += u32::from(matches!(event, Event::Follower(FollowerStep::Block)));
                // A keep-alive, or what else comes some time later.
                asked > 0 && (is_local || matches!(event, Event::Packet(_)))
            }));
            let outcome = match is_local {
                true => world.clone_local("clone"),
                false => world.clone_remote(Target::Directory("clone")),
            };
            world.donor.commits.set_statement(false);
            outcome.assert_error(if at_donor { 3862 } else { 1317 });
            assert!(outcome.took < Duration::from_secs(20), "{:?}", outcome.took);
            assert!(world.settle() < Duration::from_secs(20));
        });
    }
}

#[test]
fn a_kill_of_a_local_clone() {
    let hits = Tally::default();
    for at in (2..120).step_by(2) {
        let hits = hits.clone();
        setup(at).threads(3).run(move |world| {
            let mut left = at;
            world.interfere(once(Action::KillRecipient, move |event| {
                let counts = !matches!(event, Event::Connect | Event::Spawn) && left > 0;
                left -= u64::from(counts);
                counts && left == 0
            }));
            let outcome = world.clone_local("clone");
            if outcome.result.is_err() {
                hits.add();
                outcome.assert_error(1317);
            }
            assert!(outcome.took < Duration::from_secs(60), "{:?}", outcome.took);
        });
    }
    assert!(hits.count() >= 30, "{} kills of 59", hits.count());
}

/// Nobody waits any more for InnoDB to choose its point.
#[test]
fn a_kill_of_the_donor_ends_the_block() {
    setup(3).run(|world| {
        world.donor.facts().gtid_rounds = Some(1);
        world.interfere(once(Action::KillDonor, |event| {
            matches!(event, Event::Engine(Step::Enter(SnapshotState::RedoCopy)))
        }));
        let outcome = world.clone_remote(Target::Directory("clone"));
        assert_refused(world, &outcome, "1317 : Query execution was interrupted");
        let blocked = world.donor.commits.longest_block();
        assert!(blocked < Duration::from_secs(7), "{blocked:?}");
    });
}

/// Nothing but names and a log.
#[test]
fn a_follower_without_data() {
    let mut setup = setup(6);
    setup.follower = Some(FollowerShape { files: 0, ..FollowerShape::default() });
    setup.run(|world| {
        world.clone_remote(Target::Directory("clone")).assert_ok();
    });
}
