// SPDX-License-Identifier: GPL-2.0-only

//! Two engines with one common point.

use super::*;

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
    let early = donor.set_logs(&locator, &[]);
    assert_eq!(early.unwrap_err().number(), 3863, "before the last checkpoint");
    precopy(worker);
    precopy(MAIN);
    assert_eq!(target.lock().unwrap().order.len(), 2, "SSTs and nothing else");
    fake.append("000002.log", b" the point");
    let log = WalFile { name: "000002.log".to_owned(), size: 16 };
    donor.set_logs(&locator, std::slice::from_ref(&log)).unwrap();
    assert!(donor.set_logs(&locator, &[log]).is_err(), "there is one point");
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
fn logs_have_the_names_of_logs() {
    for name in ["../000002.log", "CURRENT", "000001.sst"] {
        let (fake, donor) = donor(Fake::with_data(&[10]), options());
        let locator = start(&donor);
        let target = Mutex::default();
        donor.precopy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
        let log = WalFile { name: name.to_owned(), size: 1 };
        assert!(donor.set_logs(&locator, &[log]).is_err(), "{name}");
        donor.end(&session(), &locator, MAIN, 1815).unwrap();
        fake.assert_clean();
    }
}
