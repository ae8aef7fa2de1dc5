// SPDX-License-Identifier: GPL-2.0-only

//! Clones that nothing disturbs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clone_core::progress::Stage;
use clone_core::settings::KeepData;
use clone_protocol::Packing;

use crate::sim::engine::ContentShape;
use crate::sim::faults::{Action, Event, Step};
use crate::sim::network::NetworkShape;
use crate::sim::server::SimHost;
use crate::sim::world::{Setup, Target};

/// So much that it takes a while.
fn slow(seed: u64) -> Setup {
    let mut setup = Setup::new(seed);
    setup.network =
        NetworkShape { latency: Duration::from_millis(250), window: 1, ..setup.network };
    setup.content = ContentShape { files: 6, pages: 60, pages_in_block: 1, ..setup.content };
    setup
}

#[test]
fn any_number_of_threads() {
    for threads in 1..=8 {
        for target in [Target::Directory("clone"), Target::Server] {
            Setup::new(threads.into()).threads(threads).run(move |world| {
                world.clone_remote(target).assert_ok();
                assert_eq!(world.network.data_sent(), world.transfer(), "bytes sent");
                let started = world.recipient.innodb.balance().added;
                assert_eq!(started, threads - 1, "workers");
            });
        }
    }
}

/// With next to no data, workers come when a state is over already.
#[test]
fn more_threads_than_chunks() {
    for seed in 0..60 {
        let mut setup = Setup::new(seed).threads(6);
        setup.network.latency = Duration::from_millis(400);
        setup.content = ContentShape { files: 0, redo: 0, redo_files: 1, ..setup.content };
        setup.run(|world| {
            world.clone_remote(Target::Directory("clone")).assert_ok();
            let progress = world.recipient.board().progress().unwrap();
            let data: u64 = progress.rows().map(|(_, row)| row.data).sum();
            assert_eq!(data, world.transfer());
        });
    }
}

#[test]
fn progress_tells_of_every_byte() {
    for seed in 0..10 {
        slow(seed).threads(1).run(|world| {
            world.clone_remote(Target::Directory("clone")).assert_ok();
            let progress = world.recipient.board().progress().unwrap();
            let data: u64 = progress.rows().map(|(_, row)| row.data).sum();
            let network: u64 = progress.rows().map(|(_, row)| row.network).sum();
            assert_eq!(data, world.transfer());
            // The zeros of hollow pages stay where they are.
            assert!((data / 4..data).contains(&network), "{network} on the network for {data}");
            for stage in [Stage::FileCopy, Stage::PageCopy, Stage::RedoCopy] {
                let row = progress.stage(stage);
                assert!(row.begin_us <= row.end_us && row.threads == 1, "{stage:?}: {row:?}");
            }
        });
    }
}

#[test]
fn autotuning_adds_threads() {
    let mut setup = slow(1).threads(8);
    setup.settings.autotune_concurrency = true;
    setup.run(|world| {
        world.clone_remote(Target::Directory("clone")).assert_ok();
        let added = world.recipient.innodb.balance().added;
        assert!((1..8).contains(&added), "{added} workers");
        let log = world.recipient.log_lines();
        let tuned = log.iter().filter(|line| line.starts_with("Tune Threads from: 1 to: 2"));
        assert_ne!(tuned.count(), 0, "{log:?}");
    });
}

#[test]
fn a_clone_needs_no_worker() {
    Setup::new(3).run(|world| {
        world.interfere(|event| match event {
            Event::Spawn => Action::Fail(0),
            _ => Action::Pass,
        });
        world.clone_remote(Target::Directory("clone")).assert_ok();
        assert_eq!(world.recipient.innodb.balance().added, 0);
        let log = world.recipient.log_lines();
        assert!(log.iter().any(|line| line.starts_with("Failed to spawn worker: 1")), "{log:?}");
    });
}

#[test]
fn limits_hold_over_all_threads() {
    const MIB: u64 = 1 << 20;
    for (data, network) in [(1, 0), (0, 1), (64, 1)] {
        let mut setup = Setup::new(4);
        setup.network.latency = Duration::ZERO;
        setup.settings.max_data_bandwidth = data;
        setup.settings.max_network_bandwidth = network;
        setup.content = ContentShape {
            files: 2,
            pages: 400,
            pages_in_block: 16,
            redo: 3 << 20,
            redo_files: 1,
            ..setup.content
        };
        setup.run(|world| {
            let outcome = world.clone_remote(Target::Directory("clone"));
            outcome.assert_ok();
            let bytes = world.network.data_sent();
            assert!(bytes > 3 * MIB);
            let waits: Duration = Duration::from_secs_f64(bytes as f64 / MIB as f64);
            // The donor may have waited for its binary log meanwhile.
            assert!(outcome.took + Duration::from_millis(105) > waits, "{:?}", outcome.took);
            assert!(outcome.took < waits + Duration::from_secs(50), "{:?}", outcome.took);
        });
    }
}

#[test]
fn the_donor_keeps_its_backup_lock_while_it_copies() {
    for block_ddl in [false, true] {
        let mut setup = Setup::new(5);
        setup.settings.block_ddl = block_ddl;
        setup.run(move |world| {
            world.donor.facts().loses_backup_lock = true;
            let donor = Arc::clone(&world.donor);
            world.interfere(move |event| {
                if matches!(event, Event::Engine(Step::Copy(_) | Step::Enter(_))) {
                    assert_eq!(donor.backup_lock_holders().len(), usize::from(block_ddl));
                }
                Action::Pass
            });
            world.clone_remote(Target::Directory("clone")).assert_ok();
        });
    }
}

/// Before 8.0.27 InnoDB does not cope with DDL.
#[test]
fn an_old_donor_keeps_ddl_out_though_nobody_asks() {
    Setup::new(5).run(move |world| {
        world.donor.facts().release.allows_ddl = false;
        let donor = Arc::clone(&world.donor);
        world.interfere(move |event| {
            if matches!(event, Event::Engine(Step::Copy(_) | Step::Enter(_))) {
                assert_eq!(donor.backup_lock_holders().len(), 1);
            }
            Action::Pass
        });
        world.clone_remote(Target::Directory("clone")).assert_ok();
    });
}

#[test]
fn a_pause_after_the_data_is_dropped() {
    let mut setup = Setup::new(6);
    setup.settings.delay_after_data_drop = 150;
    setup.settings.keep_data = KeepData::Off;
    setup.run(|world| {
        assert!(world.clone_remote(Target::Directory("clone")).took < Duration::from_secs(60));
        let outcome = world.clone_remote(Target::Server);
        outcome.assert_ok();
        assert!(outcome.took >= Duration::from_secs(150));
        let log = world.recipient.log_lines().join("\n");
        for line in [
            "Begin Delay after data drop",
            "Wait time remaining is 2 minutes and 30 seconds.",
            "Wait time remaining is 1 minutes.",
            "End Delay after data drop",
        ] {
            assert!(log.contains(line), "{line}\n{log}");
        }
    });
}

#[test]
fn one_at_a_time() {
    slow(7).run(|world| {
        let (first, second) = (Arc::clone(world), Arc::clone(world));
        let refused = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&refused);
        let other = world.sim.spawn("second user".to_owned(), move || {
            second.sim.sleep(Duration::from_secs(4));
            second.clone_remote(Target::Directory("other")).assert_error(3634);
            // The donor is as busy for a second recipient, which it serves as a local clone here.
            second.donor.set(|settings| settings.max_concurrency = 1);
            second.clone_local("local").assert_error(3634);
            count.fetch_add(1, Ordering::Relaxed);
        });
        first.clone_remote(Target::Directory("clone")).assert_ok();
        other.join().unwrap();
        assert_eq!(refused.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_replaced_server_takes_no_further_clone() {
    Setup::new(8).run(|world| {
        world.clone_remote(Target::Directory("first")).assert_ok();
        world.clone_remote(Target::Server).assert_ok();
        // Until it restarts.
        world.clone_remote(Target::Directory("second")).assert_error(3634);
    });
}

#[test]
fn a_seed_repeats_every_step() {
    for seed in 0..6 {
        let trace = || {
            let trace = Arc::new(std::sync::Mutex::new(Vec::new()));
            let result = Arc::clone(&trace);
            Setup::new(seed).run(move |world| {
                world.network.start_trace();
                world.clone_remote(Target::Directory("clone")).assert_ok();
                *result.lock().unwrap() = world.network.take_trace();
            });
            Arc::into_inner(trace).unwrap().into_inner().unwrap()
        };
        let first = trace();
        assert!(first.len() > 100);
        assert_eq!(first, trace(), "seed {seed}");
    }
}

/// Over a slow link AUTO is faster than no packing, and nearly as fast as a fixed packing. Over a
/// fast link with a recipient that takes its time nothing is lost.
#[test]
fn packing_that_decides_for_itself() {
    let took = |compression, network: NetworkShape, max_cpu| {
        let mut setup = Setup::new(7).threads(2);
        setup.network = network;
        setup.content = ContentShape {
            files: 4,
            pages: 1000,
            pages_in_block: 8,
            is_text: true,
            ..setup.content
        };
        setup.settings.compression = compression;
        let took = Arc::new(Mutex::new(Duration::ZERO));
        let result = Arc::clone(&took);
        setup.run(move |world| {
            world.donor.set(|settings| settings.compression_max_cpu = max_cpu);
            let outcome = world.clone_remote(Target::Directory("clone"));
            *result.lock().unwrap() = outcome.assert_ok().took;
            let is_packed =
                |line: &&String| line.starts_with("Compression AUTO: ") && line.contains("ZSTD");
            let has_line = |host: &SimHost| host.log_lines().iter().find(is_packed).is_some();
            // With an unlimited link, AUTO may have looked at a few blocks.
            if network.rate != 0 {
                let is_auto = compression == Packing::Auto && max_cpu != 0;
                assert_eq!(has_line(&world.donor), is_auto, "{compression} {max_cpu}");
            }
        });
        let took = took.lock().unwrap().as_secs_f64();
        println!("{compression} {network:?} {max_cpu}: {took:.2} s");
        took
    };
    let quick = Setup::new(0).network;
    let slow = NetworkShape { rate: 50_000, window: 20_000, ..quick };
    let [off, auto, fixed] = [Packing::None, Packing::Auto, Packing::Zstd(1)]
        .map(|compression| took(compression, slow, 50));
    assert!(auto < 0.8 * off, "AUTO {auto}, OFF {off}");
    assert!(auto < 1.3 * fixed, "AUTO {auto}, ZSTD1 {fixed}");
    let forbidden = took(Packing::Auto, slow, 0);
    assert!((forbidden / off - 1.0).abs() < 0.02, "no processor time {forbidden}, OFF {off}");
    let [off, auto] =
        [Packing::None, Packing::Auto].map(|compression| took(compression, quick, 50));
    assert!(auto < 1.03 * off, "AUTO {auto}, OFF {off}");
}
