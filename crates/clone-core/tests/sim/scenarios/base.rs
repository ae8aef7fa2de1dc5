// SPDX-License-Identifier: GPL-2.0-only

//! A recipient with an older copy of the donor's data.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;

use clone_core::base::{Base, BaseFile};
use clone_core::error::number;
use clone_protocol::innodb::SnapshotState;
use clone_protocol::{BLOCK_HEAD, BlockForm, CommandCode, Packing, Response};

use super::Tally;
use crate::sim::engine::ContentShape;
use crate::sim::faults::{Action, Event};
use crate::sim::network::NetworkShape;
use crate::sim::world::{Setup, Target, World};

/// The smallest unit, in bytes: four pages.
const UNIT: u32 = 4096;

/// Blocks of four units.
fn setup(seed: u64) -> Setup {
    let mut setup = Setup::new(seed);
    setup.content = ContentShape { files: 6, pages: 300, pages_in_block: 16, ..setup.content };
    setup
}

/// Gives the recipient an older copy, of which every so manieth page differs.
fn give(world: &World, every: usize) -> Vec<BaseFile> {
    let files = world.donor.innodb.content().older_copy(&world.path("base"), every);
    let base = Base::read(files.clone(), UNIT, NonZeroUsize::MIN).unwrap();
    *world.recipient.base.lock().unwrap() = Some(Arc::new(base));
    files
}

fn used(world: &World) -> u64 {
    world.recipient.base.lock().unwrap().as_ref().map_or(0, |base| base.used())
}

#[test]
fn only_what_differs_is_sent() {
    for seed in 0..8 {
        for (threads, packing) in [(1, Packing::None), (4, Packing::Zstd(1)), (3, Packing::Auto)] {
            let mut setup = setup(seed).threads(threads);
            setup.settings.compression = packing;
            setup.run(move |world| {
                give(world, 20);
                world.clone_remote(Target::Directory("clone")).assert_ok();
                let needed = world.donor.innodb.content().transfer(SnapshotState::FileCopy);
                assert!(used(world) > needed / 4, "{} of {needed}", used(world));
            });
        }
    }
}

/// Each block has pages that differ and pages that are equal. Over a slow link what differs is
/// packed, by a fixed packing and by AUTO.
#[test]
fn what_differs_is_packed() {
    for packing in [Packing::Zstd(1), Packing::Auto] {
        let mut setup = setup(3).threads(2);
        setup.settings.compression = packing;
        setup.network = NetworkShape { rate: 50_000, window: 20_000, ..setup.network };
        setup.content =
            ContentShape { pages: 2000, pages_in_block: 128, is_text: true, ..setup.content };
        setup.run(move |world| {
            give(world, 7);
            world.clone_remote(Target::Directory("clone")).assert_ok();
            let lines = world.donor.log_lines();
            let line = lines.iter().find(|line| line.starts_with("Compression ")).unwrap();
            println!("{packing}: {line}");
            assert!(line.contains("ZSTD1: "), "{line}");
        });
    }
}

/// A network that fails again and again, also while the digests are sent.
#[test]
fn a_clone_with_a_base_goes_on() {
    let cut = Tally::default();
    for seed in 0..16 {
        let cut = cut.clone();
        setup(seed).threads(3).run(move |world| {
            give(world, 7);
            let (mut packets, mut bases) = (0, 0);
            world.interfere(move |event| match event {
                Event::Packet(wire) if wire.command() == Some(CommandCode::Base) => {
                    bases += 1;
                    if bases == 2 && seed % 2 == 0 { Action::Cut } else { Action::Pass }
                }
                Event::Packet(wire)
                    if matches!(wire.response(), Some(Response::Block(block))
                        if block.form == BlockForm::Base) =>
                {
                    packets += 1;
                    if packets % 9 == 5 && packets < 40 {
                        cut.add();
                        return Action::Cut;
                    }
                    Action::Pass
                }
                _ => Action::Pass,
            });
            world.clone_remote(Target::Directory("clone")).assert_ok();
            assert!(used(world) > 0);
        });
    }
    assert!(cut.count() > 16, "{} cuts", cut.count());
}

/// A damaged bit would make the recipient take the wrong bytes: the block is sent again.
#[test]
fn a_damaged_map_is_noticed() {
    for at in [BLOCK_HEAD, BLOCK_HEAD + 1] {
        setup(3).threads(2).run(move |world| {
            give(world, 20);
            let mut count = 0;
            world.interfere(move |event| match event {
                Event::Packet(wire)
                    if matches!(wire.response(), Some(Response::Block(block))
                        if block.form == BlockForm::Base) =>
                {
                    count += 1;
                    if count != 5 {
                        return Action::Pass;
                    }
                    let mut packet = wire.packet.to_vec();
                    packet[at] ^= 1;
                    Action::Replace(vec![packet])
                }
                _ => Action::Pass,
            });
            world.clone_remote(Target::Directory("clone")).assert_ok();
            assert_eq!(world.donor.innodb.balance().restarted, 1);
        });
    }
}

/// The base changes after it was read, or is gone: the clone fails, and nothing of it stays.
#[test]
fn a_base_that_changes_fails_the_clone() {
    for seed in 0..4 {
        setup(seed).threads(2).run(move |world| {
            let files = give(world, 50);
            for file in &files {
                match seed % 2 {
                    0 => fs::remove_file(&file.path).unwrap(),
                    _ => {
                        fs::write(&file.path, vec![7; usize::try_from(file.len).unwrap()]).unwrap()
                    }
                }
            }
            let outcome = world.clone_remote(Target::Directory("clone"));
            outcome.assert_error(number::ER_INTERNAL_ERROR);
            assert!(outcome.text().contains("The base has changed"), "{}", outcome.text());
            *world.recipient.base.lock().unwrap() = None;
            world.settle();
            world.clone_remote(Target::Directory("clone")).assert_ok();
        });
    }
}

/// A donor must not say that units are equal to a recipient without a base, nor which are not.
#[test]
fn maps_that_nobody_has_asked_for() {
    for has_base in [false, true] {
        setup(5).threads(2).run(move |world| {
            if has_base {
                give(world, 20);
            }
            let mut is_done = false;
            world.interfere(move |event| match event {
                Event::Packet(wire) if wire.descriptor().is_some() && !is_done => {
                    is_done = true;
                    let mut map = vec![0; BLOCK_HEAD];
                    map.extend_from_slice(&[0xff, 0, 0, 0, 0]);
                    clone_protocol::Block::frame(
                        &mut map,
                        BlockForm::Base,
                        8 * UNIT,
                        clone_io::checksum,
                    );
                    Action::Replace(vec![map, wire.packet.to_vec()])
                }
                _ => Action::Pass,
            });
            let outcome = world.clone_remote(Target::Directory("clone"));
            outcome.assert_error(number::ER_CLONE_PROTOCOL);
        });
    }
}
