// SPDX-License-Identifier: GPL-2.0-only

//! Clones over a server's data, which the server keeps until the clone is complete.

use clone_core::error::number::ER_CLONE_DISK_SPACE;
use clone_core::settings::KeepData;
use clone_protocol::innodb::SnapshotState;

use super::super::faults::{Action, Event, Step};
use super::super::world::{Setup, Target, World};
use super::Tally;

/// The disk has no room for the first clone.
fn fill_disk(world: &World) -> Tally {
    let attempts = Tally::default();
    let counted = attempts.clone();
    world.interfere(move |event| match event {
        Event::Engine(Step::Follow(SnapshotState::FileCopy)) if counted.add() == 1 => {
            Action::Fail(ER_CLONE_DISK_SPACE)
        }
        _ => Action::Pass,
    });
    attempts
}

#[test]
fn without_room_for_both_the_data_is_dropped_first() {
    for seed in 0..4 {
        Setup::new(seed).run(|world| {
            let attempts = fill_disk(world);
            world.clone_remote(Target::Server).assert_ok();
            assert_eq!(attempts.count(), 2);
            let log = world.recipient.log_lines().join("\n");
            assert!(log.contains("The data is dropped before the clone is copied"), "{log}");
            assert!(world.recipient.facts().has_dropped_data);
        });
    }
}

#[test]
fn without_room_for_the_clone_alone_the_data_stays() {
    Setup::new(1).run(|world| {
        let attempts = fill_disk(world);
        world.recipient.facts().space_without_data = 1;
        world.clone_remote(Target::Server).assert_error(ER_CLONE_DISK_SPACE);
        assert_eq!(attempts.count(), 1);
        assert!(!world.recipient.facts().has_dropped_data);
    });
}

#[test]
fn data_that_must_stay_is_not_dropped() {
    let mut setup = Setup::new(2);
    setup.settings.keep_data = KeepData::On;
    setup.run(|world| {
        let attempts = fill_disk(world);
        world.clone_remote(Target::Server).assert_error(ER_CLONE_DISK_SPACE);
        assert_eq!(attempts.count(), 1);
        assert!(!world.recipient.facts().has_dropped_data);
    });
}

#[test]
fn a_clone_that_keeps_the_data_until_its_end() {
    let mut setup = Setup::new(3);
    setup.settings.keep_data = KeepData::On;
    setup.run(|world| {
        world.clone_remote(Target::Server).assert_ok();
        assert!(!world.recipient.facts().has_dropped_data);
    });
}

#[test]
fn a_second_engine_cannot_keep_its_data() {
    let mut setup = Setup::new(4).follower();
    setup.settings.keep_data = KeepData::On;
    setup.run(|world| {
        world.clone_remote(Target::Server).assert_error(1235);
        assert!(!world.recipient.facts().has_dropped_data);
    });
}
