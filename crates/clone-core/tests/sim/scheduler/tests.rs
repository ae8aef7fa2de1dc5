// SPDX-License-Identifier: GPL-2.0-only

//! The scheduler itself.

use super::*;

fn order(seed: u64) -> Vec<usize> {
    let scheduler = Scheduler::new(Rng::new(seed), Duration::MAX);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (inner, log) = (Arc::clone(&scheduler), Arc::clone(&seen));
    let outcome = scheduler.run(move || {
        let children: Vec<_> = (0..4)
            .map(|child| {
                let (scheduler, log) = (Arc::clone(&inner), Arc::clone(&log));
                inner.spawn(format!("child {child}"), move || {
                    for _ in 0..20 {
                        log.lock().unwrap().push(child);
                        scheduler.sleep(Duration::from_millis(7));
                    }
                })
            })
            .collect();
        for child in children {
            child.join().unwrap();
        }
        log.lock().unwrap().push(usize::try_from(inner.now().as_millis()).unwrap());
    });
    outcome.unwrap();
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

#[test]
fn a_seed_repeats_the_order() {
    let first = order(1);
    assert_eq!(first, order(1));
    assert_ne!(first, order(2));
    assert_eq!(first.last(), Some(&1_000_140), "20 times 7 ms after the start");
}

#[test]
fn finds_deadlocks_endless_waits_and_panics() {
    let failure = |work: fn(&Scheduler)| {
        let scheduler = Scheduler::new(Rng::new(0), Duration::from_secs(2000));
        let inner = Arc::clone(&scheduler);
        scheduler.run(move || work(&inner)).unwrap_err()
    };
    let deadlock = failure(|scheduler| {
        scheduler.wait(1, None);
    });
    assert!(deadlock.starts_with("deadlock"), "{deadlock}");
    let endless = failure(|scheduler| {
        loop {
            scheduler.sleep(Duration::from_secs(5));
        }
    });
    assert!(endless.starts_with("the simulation takes too long"), "{endless}");
    assert!(failure(|_| panic!("on purpose")).starts_with("thread root panicked"));
}
