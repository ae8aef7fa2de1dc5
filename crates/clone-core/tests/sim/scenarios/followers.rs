// SPDX-License-Identifier: GPL-2.0-only

//! Clones of several engines: they come to one point, or the clone fails.

use crate::sim::world::{Setup, Target};

fn setup(seed: u64) -> Setup {
    Setup::new(seed).follower()
}

#[test]
fn clean() {
    for seed in 0..20 {
        for threads in [1, 4] {
            for target in [Target::Directory("clone"), Target::Server] {
                setup(seed).threads(threads).run(move |world| {
                    world.clone_remote(target).assert_ok();
                });
            }
            setup(seed).threads(threads).run(|world| {
                world.clone_local("clone").assert_ok();
            });
        }
    }
}
