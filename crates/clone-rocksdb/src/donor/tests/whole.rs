// SPDX-License-Identifier: GPL-2.0-only

//! Clones from begin to end, and what must be in them.

use super::*;

#[test]
fn a_clone_has_every_file_and_every_byte() {
    let (fake, donor) = donor(Fake::with_data(&[100, 0, 3_000_000, 1 << 20]), options());
    fake.file("000200.blob", &content("000200.blob", 5000));
    fake.file("OPTIONS-000005", b"options");
    fake.append("000002.log", b"committed");
    let target = Mutex::default();
    clone(&donor, &target);
    assert_same(&fake, &target);
    let target = target.into_inner().unwrap();
    assert_eq!(target.largest_chunk, 1 << 20);
    let total: usize = target.content().values().map(Vec::len).sum();
    assert_eq!(target.estimate, total as u64);
    fake.assert_clean();
}

#[test]
fn ssts_come_first_then_logs_then_the_rest() {
    let (fake, donor) = donor(Fake::with_data(&[10, 20]), options());
    fake.file("000200.blob", b"blob");
    fake.append("000002.log", b"committed");
    let target = Mutex::default();
    clone(&donor, &target);
    assert_eq!(
        target.into_inner().unwrap().order,
        ["000101.sst", "000100.sst", "000002.log", "CURRENT", "MANIFEST-000001", "000200.blob"],
        "000002.log is cut when all SSTs are sent"
    );
}

#[test]
fn a_chunk_is_no_larger_than_the_applying_side_can_take() {
    let (fake, donor) = donor(Fake::with_data(&[100_000]), options());
    let target = Mutex::default();
    let locator = start(&donor);
    donor.copy(&session(), &locator, MAIN, 4096, &mut Recipient::new(&target)).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    assert_same(&fake, &target);
    assert_eq!(target.into_inner().unwrap().largest_chunk, 4096);
}

#[test]
fn a_log_is_sent_to_its_length_at_the_cut() {
    let (fake, donor) = donor(Fake::with_data(&[100]), options());
    fake.append("000002.log", b"before");
    let target = Mutex::default();
    let locator = start(&donor);
    let mut recipient = Recipient::with_hook(&target, |name| {
        // The SST goes before the cut, everything else after it.
        fake.append("000002.log", if name.ends_with(".sst") { b" the cut" } else { b"!" });
    });
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    drop(recipient);
    let content = target.into_inner().unwrap().content();
    assert_eq!(content["000002.log"], b"before the cut");
}

#[test]
fn what_is_compacted_after_the_last_checkpoint_stays_readable() {
    let (fake, donor) = donor(Fake::with_data(&[100]), options());
    fake.append("000002.log", b"log");
    fake.file("000300.blob", b"blob");
    let before = fake.content();
    let target = Mutex::default();
    let locator = start(&donor);
    let mut recipient = Recipient::with_hook(&target, |name| {
        if name == "000002.log" {
            fake.drop_file("000300.blob");
            fake.drop_file("000002.log");
        }
    });
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    drop(recipient);
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    assert_eq!(target.into_inner().unwrap().content(), before);
    fake.assert_clean();
}

#[test]
fn an_end_before_the_end_is_an_error_for_the_others() {
    let (fake, donor) = donor(Fake::with_data(&[100]), options());
    let locator = start(&donor);
    let worker = donor.begin(&session(), Some(&locator), Mode::AddTask).unwrap().task;
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let target = Mutex::default();
            let copied = donor.copy(&session(), &locator, worker, 0, &mut Recipient::new(&target));
            donor.end(&session(), &locator, worker, 0).unwrap();
            copied
        });
        donor.end(&session(), &locator, MAIN, 0).unwrap();
        assert_eq!(worker.join().unwrap().unwrap_err().number(), 3863);
    });
    fake.assert_clean();
}
