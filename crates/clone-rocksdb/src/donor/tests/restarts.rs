// SPDX-License-Identifier: GPL-2.0-only

//! A clone that was broken off goes on from where the recipient is.

use std::os::fd::BorrowedFd;

use clone_engine::View;
use clone_protocol::rocksdb::Descriptor;

use super::*;

fn patient() -> DonorOptions {
    DonorOptions { restart_timeout: Duration::from_secs(10), ..renewing(0) }
}

/// Breaks a clone off after `bytes`, and gives what its main task does then: waiting for a restart,
/// if `error` is the network's.
fn broken<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    donor: &'scope Donor,
    locator: &[u8],
    target: &'scope Mutex<Target>,
    bytes: u64,
    error: u32,
) -> thread::ScopedJoinHandle<'scope, ()> {
    let mut recipient = Recipient::breaking_after(target, bytes, error);
    let copied = donor.copy(&session(), locator, MAIN, 0, &mut recipient);
    assert_eq!(copied, Err(Error::Raised(error)));
    let locator = locator.to_vec();
    scope.spawn(move || donor.end(&session(), &locator, MAIN, error).unwrap())
}

/// Bytes of a whole clone of this database, descriptors and all.
fn whole_len(sizes: &[usize]) -> u64 {
    let (_fake, donor) = donor(Fake::with_data(sizes), renewing(0));
    let target = Mutex::default();
    let mut recipient = Recipient::new(&target);
    let locator = start(&donor);
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    u64::MAX - recipient.left
}

#[test]
fn a_clone_that_breaks_anywhere_goes_on() {
    let sizes = [1500, 700, 0, 300];
    let whole = whole_len(&sizes);
    for bytes in (0..whole).step_by(37).chain([whole - 1]) {
        let (fake, donor) = donor(Fake::with_data(&sizes), patient());
        let target = Mutex::default();
        let locator = start(&donor);
        thread::scope(|scope| {
            let ended = broken(scope, &donor, &locator, &target, bytes, 1158);
            let states = restart_locator(&locator, target.lock().unwrap().states());
            let begun = donor.begin(&session(), Some(&states), Mode::Restart).unwrap();
            assert_eq!((begun.task, &begun.locator), (MAIN, &locator));
            ended.join().unwrap();
            let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
            donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
            donor.copy(&session(), &locator, worker, 0, &mut Recipient::new(&target)).unwrap();
            donor.end(&session(), &locator, worker, 0).unwrap();
            donor.end(&session(), &locator, MAIN, 0).unwrap();
        });
        assert_same(&fake, &target);
        let target = target.into_inner().unwrap();
        let total: usize = target.content().values().map(Vec::len).sum();
        assert_eq!(target.estimate, total as u64, "broken after {bytes}");
        fake.assert_clean();
    }
}

#[test]
fn a_file_that_was_compacted_away_in_between_is_filled_up() {
    let (fake, donor) = donor(Fake::with_data(&[5000, 4000]), patient());
    let target = Mutex::default();
    let locator = start(&donor);
    thread::scope(|scope| {
        let mut recipient = Recipient::breaking_after(&target, 2000, 1158);
        let copied = donor.copy(&session(), &locator, MAIN, 1000, &mut recipient);
        assert_eq!(copied, Err(Error::Raised(1158)));
        let ended = scope.spawn(|| donor.end(&session(), &locator, MAIN, 1158).unwrap());
        // The old checkpoint holds on to it until the next one.
        fake.drop_file(&sst(0));
        fake.drop_file(&sst(1));
        fake.file(&sst(5), &content(&sst(5), 10));
        let states = restart_locator(&locator, target.lock().unwrap().states());
        donor.begin(&session(), Some(&states), Mode::Restart).unwrap();
        ended.join().unwrap();
        // A second failure, after a checkpoint without the file has been made.
        let snapshot = donor.find(&locator).unwrap();
        let mut recipient = Recipient::breaking_after(&target, 1000, 1158);
        assert!(donor.copy(&session(), &locator, MAIN, 500, &mut recipient).is_err());
        snapshot.renew_for_test();
        let ended = scope.spawn(|| donor.end(&session(), &locator, MAIN, 1158).unwrap());
        let states = restart_locator(&locator, target.lock().unwrap().states());
        donor.begin(&session(), Some(&states), Mode::Restart).unwrap();
        ended.join().unwrap();
        donor.copy(&session(), &locator, MAIN, 1000, &mut Recipient::new(&target)).unwrap();
        donor.end(&session(), &locator, MAIN, 0).unwrap();
    });
    let mut received = target.into_inner().unwrap().content();
    let obsolete = received.remove(&sst(0)).expect("begun, so ended");
    let good = obsolete.iter().zip(content(&sst(0), 5000)).take_while(|(a, b)| *a == b).count();
    assert!((1000..5000).contains(&good), "{good}");
    assert_eq!(obsolete.len(), 5000);
    assert!(obsolete[good + 1..].iter().all(|byte| *byte == 0));
    let mut expected = fake.content();
    expected.remove("000002.log");
    assert_eq!(received, expected, "{} was never begun", sst(1));
    fake.assert_clean();
}

#[test]
fn the_old_main_task_is_told_by_the_new_one() {
    let (fake, donor) = donor(Fake::with_data(&[1000; 30]), patient());
    let (lost, target) = (Mutex::default(), Mutex::default());
    let locator = start(&donor);
    thread::scope(|scope| {
        // Its connection is half open: it goes on sending until somebody tells it.
        let old = scope.spawn(|| {
            let mut recipient = Recipient::with_hook(&lost, |_| {
                thread::sleep(Duration::from_millis(20));
            });
            let copied = donor.copy(&session(), &locator, MAIN, 0, &mut recipient);
            assert_eq!(copied, Err(Error::Raised(1158)));
            donor.end(&session(), &locator, MAIN, 1158).unwrap();
        });
        thread::sleep(Duration::from_millis(50));
        let states = restart_locator(&locator, Vec::new());
        donor.begin(&session(), Some(&states), Mode::Restart).unwrap();
        old.join().unwrap();
        donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
        donor.end(&session(), &locator, MAIN, 0).unwrap();
    });
    assert_same(&fake, &target);
    fake.assert_clean();
}

#[test]
fn only_a_lost_connection_can_be_taken_up() {
    let (fake, donor) = donor(Fake::with_data(&[1000]), patient());
    let target = Mutex::default();
    let locator = start(&donor);
    thread::scope(|scope| {
        broken(scope, &donor, &locator, &target, 100, 1026).join().unwrap();
        let states = restart_locator(&locator, Vec::new());
        let again = donor.begin(&session(), Some(&states), Mode::Restart);
        assert_eq!(again.unwrap_err().number(), 3863);
    });
    fake.assert_clean();
}

#[test]
fn nobody_comes_and_everything_is_given_back() {
    let patience = DonorOptions { restart_timeout: Duration::from_millis(50), ..options() };
    let (fake, donor) = donor(Fake::with_data(&[1000]), patience);
    let target = Mutex::default();
    let locator = start(&donor);
    thread::scope(|scope| {
        broken(scope, &donor, &locator, &target, 100, 1160).join().unwrap();
        let again = donor.begin(&session(), Some(&locator), Mode::Restart);
        assert_eq!(again.unwrap_err().number(), 3863);
    });
    fake.assert_clean();
}

#[test]
fn wrong_states_are_refused_and_right_ones_still_welcome() {
    let (fake, donor) = donor(Fake::with_data(&[1000]), patient());
    let target = Mutex::default();
    let locator = start(&donor);
    thread::scope(|scope| {
        let ended = broken(scope, &donor, &locator, &target, 300, 1158);
        for (file, applied) in [(0, 1001), (1, 0), (u64::MAX, 0)] {
            let state = FileState { file, applied: FileSize::new(applied).unwrap() };
            let states = restart_locator(&locator, vec![state]);
            let error = donor.begin(&session(), Some(&states), Mode::Restart).unwrap_err();
            assert_eq!(error.number(), 3863, "{file} {applied}");
        }
        let states = restart_locator(&locator, target.lock().unwrap().states());
        donor.begin(&session(), Some(&states), Mode::Restart).unwrap();
        ended.join().unwrap();
        donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
        donor.end(&session(), &locator, MAIN, 0).unwrap();
    });
    assert_same(&fake, &target);
    fake.assert_clean();
}

#[test]
fn a_later_error_takes_the_place_of_the_networks() {
    let (fake, donor) = donor(Fake::with_data(&[1000]), patient());
    let target = Mutex::default();
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    let mut recipient = Recipient::breaking_after(&target, 100, 1158);
    assert!(donor.copy(&session(), &locator, worker, 0, &mut recipient).is_err());
    donor.end(&session(), &locator, worker, 1158).unwrap();
    donor.ack(&session(), &locator, 1026, &[]).unwrap();
    let began = Instant::now();
    donor.end(&session(), &locator, MAIN, 1158).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "there is nothing to wait for");
    fake.assert_clean();
}

#[test]
fn an_estimate_may_be_lost_with_its_connection() {
    let (fake, donor) = donor(Fake::with_data(&[100, 200]), patient());
    let locator = start(&donor);
    let target = Mutex::default();
    donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
    let again = restart_locator(&locator, target.lock().unwrap().states());
    thread::scope(|scope| {
        let old = scope.spawn(|| donor.end(&session(), &locator, MAIN, 1160));
        donor.begin(&session(), Some(&again), Mode::Restart).unwrap();
        old.join().unwrap().unwrap();
    });
    // It is not said again how much it is, but that there is an estimate, without which a recipient
    // does not end.
    let estimates = Mutex::new(Vec::new());
    donor.copy(&session(), &locator, MAIN, 0, &mut Estimates(&estimates)).unwrap();
    assert_eq!(*estimates.lock().unwrap(), [0]);
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    fake.assert_clean();
}

/// Notes estimates; there is nothing else to come.
struct Estimates<'a>(&'a Mutex<Vec<u64>>);

impl BlockOutput for Estimates<'_> {
    fn file(&mut self, _: &View<'_>, _: BorrowedFd<'_>, _: u32) -> Result<()> {
        panic!("all files have arrived")
    }

    fn buffer(&mut self, view: &View<'_>, _: &[u8]) -> Result<()> {
        let Descriptor::AddEstimate(estimate) = Descriptor::parse(view.descriptor)? else {
            panic!("all files have arrived")
        };
        self.0.lock().unwrap().push(estimate.bytes);
        Ok(())
    }
}
