// SPDX-License-Identifier: GPL-2.0-only

//! Errors end all tasks of a clone, and leave nothing.

use super::*;
use crate::database::WalFile;

#[test]
fn the_first_error_ends_all_tasks() {
    let (fake, donor) = donor(Fake::with_data(&[10_000; 10]), options());
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    let target = Mutex::default();
    let mut breaking = Recipient::breaking_after(&target, 15_000, 1026);
    let error = donor.copy(&session(), &locator, worker, 0, &mut breaking).unwrap_err();
    assert_eq!(error, Error::Raised(1026));
    donor.end(&session(), &locator, worker, 1026).unwrap();
    let error = donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target));
    let Err(Error::Internal(text)) = error else { panic!("{error:?}") };
    assert!(text.contains("1026"), "{text}: raised there, so to be raised here anew");
    donor.end(&session(), &locator, MAIN, 1815).unwrap();
    fake.assert_clean();
}

#[test]
fn an_acknowledged_error_ends_them_and_no_error_is_one() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    let locator = start(&donor);
    assert_eq!(donor.ack(&session(), &locator, 0, &[]).unwrap_err().number(), 3863);
    donor.ack(&session(), &locator, 1026, &[]).unwrap();
    let target = Mutex::default();
    let copied = donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target));
    assert_eq!(copied.unwrap_err().number(), 1815);
    donor.end(&session(), &locator, MAIN, 1815).unwrap();
    fake.assert_clean();
}

#[test]
fn an_error_stops_a_task_within_a_file() {
    let (fake, donor) = donor(Fake::with_data(&[5 << 20]), options());
    let locator = start(&donor);
    let target = Mutex::default();
    let mut chunks = 0;
    let mut recipient = Recipient::with_hook(&target, |_| {
        chunks += 1;
        if chunks == 2 {
            donor.ack(&session(), &locator, 1026, &[]).unwrap();
        }
    });
    let copied = donor.copy(&session(), &locator, MAIN, 0, &mut recipient);
    drop(recipient);
    assert_eq!(copied.unwrap_err().number(), 1815);
    assert_eq!(chunks, 2);
    donor.end(&session(), &locator, MAIN, 1815).unwrap();
    fake.assert_clean();
}

#[test]
fn kill_ends_a_task_that_waits() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    let killed = session();
    let target = Mutex::default();
    thread::scope(|scope| {
        let copied =
            scope.spawn(|| donor.copy(&killed, &locator, worker, 0, &mut Recipient::new(&target)));
        thread::sleep(Duration::from_millis(20));
        killed.killed.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(copied.join().unwrap().unwrap_err(), Error::Interrupted);
    });
    donor.end(&session(), &locator, worker, 1317).unwrap();
    donor.end(&session(), &locator, MAIN, 1317).unwrap();
    fake.assert_clean();
}

#[test]
fn a_log_that_is_shorter_than_the_cut_is_an_error() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    fake.book.lock().unwrap().pretended_cut =
        Some(WalFile { name: "000002.log".to_owned(), size: 5 });
    let locator = start(&donor);
    let target = Mutex::default();
    let copied = donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target));
    assert_eq!(copied.unwrap_err().number(), 1024);
    donor.end(&session(), &locator, MAIN, 1024).unwrap();
    fake.assert_clean();
}
