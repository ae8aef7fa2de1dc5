// SPDX-License-Identifier: GPL-2.0-only

//! Several tasks share the files of one clone.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A whole clone with `workers` tasks besides the main one.
fn clone_with(donor: &Donor, target: &Mutex<Target>, workers: u32) {
    let locator = start(donor);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let begun = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap();
                assert_eq!(begun.locator, locator);
                let mut recipient = Recipient::new(target);
                donor.copy(&session(), &locator, begun.task, 0, &mut recipient).unwrap();
                donor.end(&session(), &locator, begun.task, 0).unwrap();
            });
        }
        // The last worker may come while the main task is at its end, which is an error for it and
        // not of this test.
        thread::sleep(Duration::from_millis(20));
        donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(target)).unwrap();
    });
    donor.end(&session(), &locator, MAIN, 0).unwrap();
}

#[test]
fn four_tasks_send_each_file_once() {
    let sizes: Vec<usize> = (0..60).map(|i| 1000 * (i % 7) + i).collect();
    let (fake, donor) = donor(Fake::with_data(&sizes), renewing(10));
    fake.append("000002.log", b"log");
    let target = Mutex::default();
    clone_with(&donor, &target, 3);
    assert_same(&fake, &target);
    let order = &target.lock().unwrap().order;
    assert_eq!(order.len(), 63, "{order:?}");
    fake.assert_clean();
}

#[test]
fn several_clones_at_once_do_not_see_each_other() {
    let (fake, donor) = donor(Fake::with_data(&[5000; 20]), renewing(5));
    fake.append("000002.log", b"log");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let target = Mutex::default();
                clone_with(&donor, &target, 2);
                assert_same(&fake, &target);
            });
        }
    });
    fake.assert_clean();
}

#[test]
fn a_worker_waits_for_the_main_tasks_last_checkpoint() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    let target = Mutex::default();
    let copied = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            donor.copy(&session(), &locator, worker, 0, &mut Recipient::new(&target)).unwrap();
            copied.store(true, Ordering::Relaxed);
            donor.end(&session(), &locator, worker, 0).unwrap();
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while target.lock().unwrap().files.is_empty() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        assert!(!copied.load(Ordering::Relaxed), "the SST is sent, and more is to come");
        donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
        donor.end(&session(), &locator, MAIN, 0).unwrap();
        assert!(copied.load(Ordering::Relaxed), "the main task ends last");
    });
    assert_same(&fake, &target);
}

#[test]
fn the_main_task_sees_a_workers_last_file_fail() {
    let (fake, donor) = donor(Fake::with_data(&[2 << 20]), options());
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    let target = Mutex::default();
    let has_begun = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        let main = scope.spawn(|| {
            has_begun.wait();
            donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target))
        });
        let mut chunks = 0;
        let mut recipient = Recipient::with_hook(&target, |_| {
            chunks += 1;
            match chunks {
                1 => drop(has_begun.wait()),
                _ => thread::sleep(Duration::from_millis(50)),
            }
        });
        recipient.left = 3 << 19;
        let copied = donor.copy(&session(), &locator, worker, 0, &mut recipient);
        assert_eq!(copied, Err(Error::Raised(1160)));
        assert_eq!(main.join().unwrap(), Err(Error::Raised(1160)));
        donor.end(&session(), &locator, worker, 1160).unwrap();
        donor.end(&session(), &locator, MAIN, 1160).unwrap();
    });
    fake.assert_clean();
}

#[test]
fn nobody_calls_in_the_name_of_a_task_that_is_not() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    assert_eq!(worker, 1);
    let target = Mutex::default();
    let copy = |task| donor.copy(&session(), &locator, task, 0, &mut Recipient::new(&target));
    assert_eq!(copy(2).unwrap_err().number(), 3863);
    donor.end(&session(), &locator, worker, 0).unwrap();
    assert_eq!(copy(worker).unwrap_err().number(), 3863);
    assert_eq!(donor.end(&session(), &locator, worker, 0).unwrap_err().number(), 3863);
    copy(MAIN).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    assert_eq!(copy(MAIN).unwrap_err().number(), 3863);
    let added = donor.begin(&session(), Some(&locator), Mode::AddTask);
    assert_eq!(added.unwrap_err().number(), 3863);
    fake.assert_clean();
}
