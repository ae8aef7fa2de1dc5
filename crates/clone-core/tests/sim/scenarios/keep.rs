// SPDX-License-Identifier: GPL-2.0-only

//! Clones over a server's data, which the server keeps until the clone is complete.

use clone_core::checks::{Check, Outcome};
use clone_core::error::number::{
    ER_CLONE_DISK_SPACE, ER_CLONE_SYS_CONFIG, ER_OPTION_PREVENTS_STATEMENT,
};
use clone_core::facts::Question;
use clone_core::settings::KeepData;
use clone_protocol::innodb::SnapshotState;

use super::super::faults::{Action, Event, Step};
use super::super::server::Told;
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

/// Accounts of the donor.
fn accounts(plugins: &[(&'static str, u64)]) -> Told {
    vec![(Question::AccountPlugins, plugins.to_vec())]
}

#[test]
fn accounts_that_cannot_log_in() {
    Setup::new(5).run(|world| {
        world.donor.facts().told = accounts(&[("mysql_native_password", 2)]);
        // A directory may be for another server.
        world.clone_remote(Target::Directory("clone")).assert_ok();
        let outcome = world.clone_remote(Target::Server);
        outcome.assert_error(ER_CLONE_SYS_CONFIG);
        assert!(outcome.warnings[0].1.contains("mysql_native_password=2"), "{outcome:?}");
        assert!(!world.recipient.facts().has_dropped_data);
        // Somebody can.
        world.donor.facts().told = accounts(&[("mysql_native_password", 2), ("semisync", 1)]);
        world.clone_remote(Target::Server).assert_ok();
        let log = world.recipient.log_lines().join("\n");
        assert!(log.contains("will not be able to log in here"), "{log}");
    });
}

#[test]
fn all_reasons_against_a_replacement_come_together() {
    Setup::new(6).run(|world| {
        world.donor.facts().told = accounts(&[("mysql_native_password", 2)]);
        world.donor.set_variable("lower_case_table_names", "1");
        world.donor.facts().collations.push("klingon_ci".to_owned());
        world.recipient.set_variable("innodb_force_recovery", "1");
        world.recipient.set_variable("max_allowed_packet", "1048576");
        let outcome = world.clone_remote(Target::Server);
        assert_eq!(outcome.numbers(), [3867, 3957, 3869, 3869, 3868], "{outcome:?}");
        assert!(!world.recipient.facts().has_dropped_data);
    });
}

#[test]
fn a_dry_run_changes_nothing_and_shows_the_results() {
    for keep in [KeepData::Off, KeepData::On] {
        let mut setup = Setup::new(7);
        setup.settings.keep_data = keep;
        setup.run(|world| {
            world.recipient.facts().is_dry_run = true;
            world.donor.facts().told = vec![(Question::Events, vec![("a.e", 1)])];
            for target in [Target::Server, Target::Directory("clone")] {
                world.clone_remote(target).assert_error(ER_OPTION_PREVENTS_STATEMENT);
                assert!(!world.recipient.facts().has_dropped_data);
                let findings = world.recipient.facts().findings.clone();
                let found = |check| findings.iter().find(|finding| finding.check == check);
                let outcome = |check| found(check).map(|finding| finding.outcome);
                assert_eq!(outcome(Check::Events), Some(Outcome::Warning), "{findings:?}");
                assert_eq!(outcome(Check::Version), Some(Outcome::Passed));
                assert_eq!(outcome(Check::Keyring), Some(Outcome::NotChecked));
            }
            // And then the clone itself.
            world.recipient.facts().is_dry_run = false;
            world.clone_remote(Target::Server).assert_ok();
        });
    }
}
