// SPDX-License-Identifier: GPL-2.0-only

//! `CLONE LOCAL`.

use std::sync::Arc;
use std::time::Duration;

use clone_core::session::Host;

use super::Tally;
use crate::sim::faults::{Action, Event, Step};
use crate::sim::world::{Setup, World};

fn setup(seed: u64, threads: u32) -> Setup {
    Setup::new(seed).threads(threads)
}

/// The server that clones itself is the donor.
fn adopt_settings(world: &World) {
    let settings = world.recipient.settings();
    world.donor.set(|own| *own = settings);
}

#[test]
fn with_any_number_of_threads() {
    for threads in 1..=8 {
        setup(threads.into(), threads).run(move |world| {
            adopt_settings(world);
            world.donor.set(|settings| settings.block_ddl = true);
            world.donor.facts().loses_backup_lock = true;
            let donor = Arc::clone(&world.donor);
            world.interfere(move |event| {
                if matches!(event, Event::Engine(Step::Copy(_))) {
                    assert_eq!(donor.backup_lock_holders().len(), 1);
                }
                Action::Pass
            });
            world.clone_local("clone").assert_ok();
        });
    }
}

/// A worker may wait in the destination for a state that a killed master never brings about.
#[test]
fn kill_ends_all_threads_soon() {
    let hits = Tally::default();
    for seed in 0..200 {
        let hits = hits.clone();
        let mut setup = setup(seed, 6);
        setup.content.files = 20;
        setup.content.pages = 2;
        setup.run(move |world| {
            adopt_settings(world);
            let (user, sim) = (Arc::clone(&world.donor), Arc::clone(&world.sim));
            let killer = world.sim.spawn("killer".to_owned(), move || {
                (0..seed % 50).for_each(|_| sim.give_way());
                user.kill_users();
            });
            let outcome = world.clone_local("clone");
            if outcome.result.is_err() {
                hits.add();
                outcome.assert_error(1317);
            }
            assert!(outcome.took < Duration::from_secs(60), "{:?}", outcome.took);
            killer.join().unwrap();
        });
    }
    assert!(hits.count() >= 150, "{} kills of 200", hits.count());
}
