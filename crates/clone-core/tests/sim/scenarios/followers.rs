// SPDX-License-Identifier: GPL-2.0-only

//! Clones of several engines that nothing disturbs, and those that are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use clone_core::progress::Stage;
use clone_core::status::State;
use clone_protocol::innodb::SnapshotState;

use crate::sim::faults::{Action, Event, FollowerStep, Role, Step};
use crate::sim::follower::FollowerShape;
use crate::sim::network::NetworkShape;
use crate::sim::world::{Setup, Target};

/// Both servers have an engine that follows InnoDB.
fn setup(seed: u64) -> Setup {
    Setup::new(seed).follower()
}

/// So much in the follower that it takes minutes.
fn slow(seed: u64) -> Setup {
    let mut setup = setup(seed);
    setup.network =
        NetworkShape { latency: Duration::from_millis(400), window: 1, ..setup.network };
    setup.follower =
        Some(FollowerShape { files: 300, size: 1000, compactions: 0, ..FollowerShape::default() });
    setup
}

#[test]
fn all_engines_come_to_one_point() {
    for seed in 0..6 {
        for threads in [1, 4] {
            for target in [Target::Directory("clone"), Target::Server] {
                setup(seed).threads(threads).run(move |world| {
                    world.clone_remote(target).assert_ok();
                    assert_eq!(world.recipient.follower.balance().added, threads - 1, "workers");
                });
            }
            setup(seed).threads(threads).run(move |world| {
                world.donor.set(|settings| settings.max_concurrency = threads);
                world.clone_local("clone").assert_ok();
                assert_eq!(world.donor.follower.balance().added, 2 * (threads - 1), "workers");
            });
        }
    }
}

/// Transactions commit until the point, and after it.
#[test]
fn commits_are_blocked_for_a_moment() {
    for is_local in [false, true] {
        setup(1).run(move |world| {
            let donor = Arc::clone(&world.donor);
            world.interfere(move |event| {
                let expected = match event {
                    Event::Follower(FollowerStep::Fix)
                    | Event::Engine(Step::Enter(SnapshotState::RedoCopy)) => true,
                    // A worker may copy before the master has unblocked commits.
                    Event::Engine(Step::Copy(SnapshotState::RedoCopy)) => return Action::Pass,
                    Event::Follower(FollowerStep::Prepare | FollowerStep::Complete)
                    | Event::Engine(Step::Copy(_)) => false,
                    _ => return Action::Pass,
                };
                assert_eq!(donor.commits.are_blocked(), expected, "{event:?}");
                Action::Pass
            });
            let before = world.donor.commits.look();
            match is_local {
                true => world.clone_local("clone").assert_ok(),
                false => world.clone_remote(Target::Directory("clone")).assert_ok(),
            };
            assert!(world.donor.commits.look() > before);
            let blocked = world.donor.commits.longest_block();
            assert!(blocked < Duration::from_secs(1), "{blocked:?}");
        });
    }
}

#[test]
fn workers_help_with_all_engines() {
    slow(2).run(|world| {
        let sent = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let count = Arc::clone(&sent);
        world.interfere(move |event| {
            if let Event::Packet(wire) = event
                && wire.followers_descriptor().is_some()
            {
                count[usize::from(wire.role == Role::Worker)].fetch_add(1, Ordering::Relaxed);
            }
            Action::Pass
        });
        world.clone_remote(Target::Directory("clone")).assert_ok();
        assert_eq!(world.recipient.follower.balance().added, 3, "workers");
        let [master, workers] = sent.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert!(workers > 2 * master, "{workers} packets of workers, {master} of the master");
    });
}

/// What comes after InnoDB's last byte is shown where InnoDB's last stage is.
#[test]
fn progress_tells_of_both_engines() {
    for is_local in [false, true] {
        slow(3).threads(2).run(move |world| {
            let host = Arc::clone(if is_local { &world.donor } else { &world.recipient });
            let (seen, shown) = (Arc::new(AtomicBool::new(false)), Arc::clone(&host));
            let looked = Arc::clone(&seen);
            let mut writes = 0;
            world.interfere(move |event| {
                writes += u32::from(matches!(event, Event::Follower(FollowerStep::Write)));
                if writes == 200 && !looked.swap(true, Ordering::Relaxed) {
                    let progress = shown.board().progress().unwrap();
                    assert_eq!(progress.stage(Stage::DropData).state, State::Completed);
                    assert_eq!(progress.stage(Stage::RedoCopy).state, State::Completed);
                    let row = progress.stage(Stage::FileSync);
                    assert_eq!(row.state, State::InProgress);
                    assert!(is_local || 0 < row.data, "{row:?}");
                    assert!(row.data < row.estimate, "{row:?}");
                }
                Action::Pass
            });
            match is_local {
                true => world.clone_local("clone").assert_ok(),
                false => world.clone_remote(Target::Directory("clone")).assert_ok(),
            };
            assert!(seen.load(Ordering::Relaxed));
            let progress = host.board().progress().unwrap();
            let data: u64 = progress.rows().map(|(_, row)| row.data).sum();
            let estimate: u64 = progress.rows().map(|(_, row)| row.estimate).sum();
            let follower = world.donor.follower.data().newest_len();
            assert_eq!(data, world.transfer() + follower);
            assert_eq!(estimate, data);
            assert_eq!(progress.stage(Stage::FileSync).estimate, follower);
        });
    }
}

/// A clone without it would be half of one.
#[test]
fn a_recipient_without_the_engine() {
    setup(4).run(|world| {
        world.recipient.follower.uninstall();
        let outcome = world.clone_remote(Target::Server);
        outcome.assert_error(3862);
        assert_eq!(
            outcome.text(),
            "3863 : Wrong Clone RPC: the donor's engine ROCKSDB is not asked for; the recipient needs that engine and this clone \
             plugin"
        );
        assert_eq!(world.donor.innodb.balance().begun, 0);
        assert_eq!(world.recipient.innodb.balance().begun, 1, "only the handle for the version");
        assert!(world.recipient.board().progress().is_none());
        assert!(world.settle() < Duration::from_secs(1));
    });
}

/// It says as little as the stock plugin, and the recipient more.
#[test]
fn a_donor_without_the_engine() {
    setup(5).run(|world| {
        world.donor.follower.uninstall();
        let outcome = world.clone_remote(Target::Server);
        outcome.assert_error(3862);
        assert_eq!(
            outcome.text(),
            "3863 : Wrong Clone RPC: Init buffer length (to be cloned with ROCKSDB, the donor needs this clone plugin and the \
             engine)"
        );
        assert!(world.recipient.board().progress().is_none());
        assert!(world.settle() < Duration::from_secs(1));
    });
}
