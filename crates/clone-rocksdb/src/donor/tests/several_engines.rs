// SPDX-License-Identifier: GPL-2.0-only

//! Two engines with one common point.

use super::*;
use crate::database::WalFile;

#[test]
fn the_point_is_chosen_between_precopy_and_copy() {
    let (fake, donor) = donor(Fake::with_data(&[10, 20]), renewing(3));
    fake.append("000002.log", b"before");
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    let target = Mutex::default();
    let precopy = |task| {
        donor.precopy(&session(), &locator, task, 0, &mut Recipient::new(&target)).unwrap();
    };
    precopy(worker);
    precopy(MAIN);
    assert_eq!(target.lock().unwrap().order.len(), 2, "SSTs and nothing else");
    donor.prepare_point(&locator).unwrap();
    fake.append("000002.log", b" the point");
    donor.fix_point(&locator).unwrap();
    fake.append("000002.log", b", and after it");
    for task in [worker, MAIN] {
        donor.copy(&session(), &locator, task, 0, &mut Recipient::new(&target)).unwrap();
    }
    donor.end(&session(), &locator, worker, 0).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    let target = target.into_inner().unwrap();
    assert_eq!(target.content()["000002.log"], b"before the point");
    assert_eq!(target.files.len(), 5);
    fake.assert_clean();
}

#[test]
fn nothing_is_held_between_precopy_and_the_point() {
    let (fake, donor) = donor(Fake::with_data(&[10, 20]), options());
    let locator = start(&donor);
    let target = Mutex::default();
    let precopy = |task| {
        donor.precopy(&session(), &locator, task, 0, &mut Recipient::new(&target)).unwrap();
    };
    precopy(MAIN);
    assert_eq!(fake.clone_directories(), Vec::<String>::new());
    assert_eq!(fake.book.lock().unwrap().disabled, 0);
    // InnoDB's part may take hours. Meanwhile a compaction replaces a file, which the recipient has in vain.
    fake.drop_file(&sst(0));
    fake.file("000500.sst", b"new");
    // Who comes late finds nothing to do.
    let late = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    precopy(late);
    assert_eq!(target.lock().unwrap().order.len(), 2);
    donor.prepare_point(&locator).unwrap();
    donor.fix_point(&locator).unwrap();
    for task in [late, MAIN] {
        donor.copy(&session(), &locator, task, 0, &mut Recipient::new(&target)).unwrap();
    }
    donor.end(&session(), &locator, late, 0).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    let content = target.into_inner().unwrap().content();
    assert_eq!(content["000500.sst"], b"new");
    assert_eq!(content[&sst(1)], fake.content()[&sst(1)]);
    fake.assert_clean();
}

#[test]
fn a_connection_lost_before_the_point_costs_no_file() {
    let (fake, donor) = donor(
        Fake::with_data(&[100, 200]),
        DonorOptions { restart_timeout: Duration::from_secs(10), ..options() },
    );
    let locator = start(&donor);
    let target = Mutex::default();
    donor.precopy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
    // What was sent last has not arrived: of one file the second half, of the other nothing but its name.
    {
        let mut target = target.lock().unwrap();
        target.files.get_mut(&1).unwrap().bytes.truncate(100);
        target.files.get_mut(&0).unwrap().bytes.clear();
    }
    let again = restart_locator(&locator, target.lock().unwrap().states());
    thread::scope(|scope| {
        let old = scope.spawn(|| donor.end(&session(), &locator, MAIN, 1159));
        donor.begin(&session(), Some(&again), Mode::Restart).unwrap();
        old.join().unwrap().unwrap();
    });
    let seen = target.lock().unwrap().order.len();
    donor.precopy(&session(), &again, MAIN, 0, &mut Recipient::new(&target)).unwrap();
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    thread::scope(|scope| {
        let early = scope.spawn(|| {
            let mut recipient = Recipient::new(&target);
            donor.copy(&session(), &locator, worker, 0, &mut recipient)
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!early.is_finished(), "a worker does not take what is still there for lost");
        donor.prepare_point(&locator).unwrap();
        donor.fix_point(&locator).unwrap();
        donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
        early.join().unwrap().unwrap();
    });
    donor.end(&session(), &locator, worker, 0).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    assert_eq!(target.lock().unwrap().order.len(), seen + 2, "CURRENT and MANIFEST; no name twice");
    assert_same(&fake, &target);
    fake.assert_clean();
}

#[test]
fn a_point_is_prepared_and_fixed_once() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    let locator = start(&donor);
    let unprepared = donor.fix_point(&locator);
    assert_eq!(unprepared.unwrap_err().number(), 3863);
    let target = Mutex::default();
    let copied = donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target));
    assert_eq!(copied.unwrap_err().number(), 3863, "what could not be fixed ends the clone");
    donor.end(&session(), &locator, MAIN, 3863).unwrap();

    let locator = start(&donor);
    donor.prepare_point(&locator).unwrap();
    donor.prepare_point(&locator).unwrap();
    donor.fix_point(&locator).unwrap();
    assert_eq!(donor.fix_point(&locator).unwrap_err().number(), 3863);
    donor.end(&session(), &locator, MAIN, 3863).unwrap();
    fake.assert_clean();
}

#[test]
fn logs_have_the_names_of_logs() {
    for name in ["../000002.log", "CURRENT", "000001.sst"] {
        let (fake, donor) = donor(Fake::with_data(&[10]), options());
        fake.book.lock().unwrap().pretended_cut = Some(WalFile { name: name.to_owned(), size: 1 });
        let locator = start(&donor);
        donor.prepare_point(&locator).unwrap();
        assert!(donor.fix_point(&locator).is_err(), "{name}");
        donor.end(&session(), &locator, MAIN, 1815).unwrap();
        fake.assert_clean();
    }
}
