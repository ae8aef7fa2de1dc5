// SPDX-License-Identifier: GPL-2.0-only

//! Donor and recipient on one machine: the donor hands its files over where their blocks can be
//! shared.

use clone_protocol::Packing;

use crate::sim::engine::ContentShape;
use crate::sim::faults::{Action, Event};
use crate::sim::world::{Setup, Target};

/// Both servers on one machine, with blocks as long as InnoDB's: 64 pages.
fn setup(seed: u64, shares_files: bool) -> Setup {
    let mut setup = Setup::new(seed).threads(3);
    setup.network.is_within_host = true;
    setup.network.shares_files = shares_files;
    let shape = ContentShape { files: 8, pages: 200, pages_in_block: 64, ..setup.content };
    setup.content = shape;
    setup
}

#[test]
fn files_are_handed_over() {
    for seed in 0..20 {
        for compression in [Packing::Auto, Packing::None, Packing::Zstd(1)] {
            let mut setup = setup(seed, true);
            setup.settings.compression = compression;
            setup.run(|world| {
                world.clone_remote(Target::Directory("clone")).assert_ok();
                // Each of the three tasks has a trial first.
                assert!(world.network.files.copied() > 4, "{}", world.network.files.copied());
            });
        }
    }
}

#[test]
fn files_that_cannot_be_shared_are_sent() {
    for seed in 0..20 {
        setup(seed, false).run(|world| {
            world.clone_remote(Target::Directory("clone")).assert_ok();
            assert_eq!(world.network.files.copied(), 0);
        });
    }
}

#[test]
fn the_variable_forbids_it() {
    let mut setup = setup(1, true);
    setup.settings.file_handover = false;
    setup.run(|world| {
        world.clone_remote(Target::Directory("clone")).assert_ok();
        assert_eq!(world.network.files.copied(), 0);
    });
}

/// Wherever the hand-over stops, the rest is sent.
#[test]
fn a_hand_over_that_fails_is_no_error() {
    type Stop = fn(&Event<'_>) -> bool;
    // Whether there is one such event for each block, or for each connection.
    let stops: [(Stop, bool); 4] = [
        (|event| matches!(event, Event::Listen), false),
        (|event| matches!(event, Event::ConnectFiles), false),
        (|event| matches!(event, Event::HandOver), true),
        (|event| matches!(event, Event::TakeFile), true),
    ];
    for ((stop, is_of_block), at) in
        stops.into_iter().flat_map(|stop| (0..20).map(move |at| (stop, at)))
    {
        setup(at, true).run(move |world| {
            let mut seen = 0;
            world.interfere(move |event| {
                seen += u64::from(stop(event));
                if stop(event) && seen > at { Action::Fail(0) } else { Action::Pass }
            });
            world.clone_remote(Target::Directory("clone")).assert_ok();
            let copied = u64::from(world.network.files.copied());
            let most = if is_of_block || at == 0 { at } else { u64::MAX };
            assert!(copied <= most, "{copied} of {at}");
        });
    }
}
