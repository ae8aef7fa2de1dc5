// SPDX-License-Identifier: GPL-2.0-only

//! Two engines with one common point.

use super::*;
use crate::database::WalFile;

#[test]
fn the_point_is_chosen_before_the_copy() {
    let (fake, donor) = donor(Fake::with_data(&[10, 20]), renewing(3));
    fake.append("000002.log", b"before");
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    donor.prepare_point(&locator).unwrap();
    fake.append("000002.log", b" the point");
    // A flush: what the log need not be kept for any more.
    fake.file("000400.sst", b"flushed");
    fake.append("MANIFEST-000001", b"000400.sst");
    donor.fix_point(&locator).unwrap();
    fake.append("000002.log", b", and after it");
    fake.append("MANIFEST-000001", b", 000500.sst");
    // A compaction replaces a file, which the checkpoint holds.
    fake.drop_file(&sst(0));
    fake.file("000500.sst", b"new");
    let target = Mutex::default();
    for task in [worker, MAIN] {
        donor.copy(&session(), &locator, task, 0, &mut Recipient::new(&target)).unwrap();
    }
    donor.end(&session(), &locator, worker, 0).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    let content = target.into_inner().unwrap().content();
    assert_eq!(content["000002.log"], b"before the point");
    assert_eq!(content[&sst(0)], fake::content(&sst(0), 10));
    assert_eq!(
        content["MANIFEST-000001"], b"000400.sst",
        "the last checkpoint is of the point, too"
    );
    assert_eq!(content["000400.sst"], b"flushed");
    assert_eq!(content.len(), 6);
    fake.assert_clean();
}

#[test]
fn a_connection_lost_before_or_after_the_point_changes_nothing() {
    let options = DonorOptions { restart_timeout: Duration::from_secs(10), ..options() };
    let (fake, donor) = donor(Fake::with_data(&[100, 200]), options);
    let locator = start(&donor);
    let again = restart_locator(&locator, vec![]);
    let reconnect = || {
        thread::scope(|scope| {
            let old = scope.spawn(|| donor.end(&session(), &locator, MAIN, 1159));
            donor.begin(&session(), Some(&again), Mode::Restart).unwrap();
            old.join().unwrap().unwrap();
        });
    };
    reconnect();
    donor.prepare_point(&locator).unwrap();
    reconnect();
    donor.prepare_point(&locator).unwrap();
    fake.append("000002.log", b"the point");
    donor.fix_point(&locator).unwrap();
    reconnect();
    fake.append("000002.log", b", and after it");
    let target = Mutex::default();
    donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    assert_eq!(target.into_inner().unwrap().content()["000002.log"], b"the point");
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
