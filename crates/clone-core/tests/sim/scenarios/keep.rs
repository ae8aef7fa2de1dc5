// SPDX-License-Identifier: GPL-2.0-only

//! Clones over a server's data, which the server keeps until the clone is complete.

use clone_core::error::number::{ER_CLONE_DISK_SPACE, ER_CLONE_SYS_CONFIG};
use clone_core::parameters::AccountPlugin;
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

fn account_plugin(name: &str) -> AccountPlugin {
    AccountPlugin { name: name.to_owned(), accounts: 2 }
}

#[test]
fn accounts_that_cannot_log_in() {
    Setup::new(5).run(|world| {
        world.donor.facts().account_plugins = vec![account_plugin("mysql_native_password")];
        // A directory may be for another server.
        world.clone_remote(Target::Directory("clone")).assert_ok();
        let outcome = world.clone_remote(Target::Server);
        outcome.assert_error(ER_CLONE_SYS_CONFIG);
        assert!(outcome.warnings[0].1.contains("mysql_native_password=2"), "{outcome:?}");
        assert!(!world.recipient.facts().has_dropped_data);
        // Somebody can.
        world.donor.facts().account_plugins.push(account_plugin("semisync"));
        world.clone_remote(Target::Server).assert_ok();
        let log = world.recipient.log_lines().join("\n");
        assert!(log.contains("will not be able to log in here"), "{log}");
    });
}

#[test]
fn all_reasons_against_a_replacement_come_together() {
    Setup::new(6).run(|world| {
        world.donor.facts().account_plugins = vec![account_plugin("mysql_native_password")];
        world.donor.set_variable("lower_case_table_names", "1");
        world.recipient.set_variable("innodb_force_recovery", "1");
        let outcome = world.clone_remote(Target::Server);
        assert_eq!(outcome.numbers(), [3869, 3869, 3868], "{outcome:?}");
        assert!(!world.recipient.facts().has_dropped_data);
    });
}
