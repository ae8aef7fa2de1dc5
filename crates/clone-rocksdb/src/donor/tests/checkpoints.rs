// SPDX-License-Identifier: GPL-2.0-only

//! Checkpoints are made, renewed, and given back.

use super::*;

#[test]
fn names_are_of_the_clone_and_its_count() {
    let (fake, donor) = donor(Fake::with_data(&[10, 10, 10]), renewing(2));
    let locator = start(&donor);
    let Locator::Clone { id, .. } = Locator::parse(&locator).unwrap() else { panic!() };
    let target = Mutex::default();
    let mut seen = Vec::new();
    let mut recipient = Recipient::with_hook(&target, |_| seen.push(fake.clone_directories()));
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    drop(recipient);
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    let name = |which: &str| format!(".clone_checkpoint-{id}-{which}");
    assert_eq!(fake.book.lock().unwrap().checkpoints, [name("0"), name("1"), name("2")]);
    assert_eq!(seen[0], [name("0")], "one at a time");
    assert_eq!(seen[1], [name("1")], "renewed after the first file");
    assert_eq!(seen[2], [name("1")], "and no second time");
    assert_eq!(seen[3], [name("2"), name("logs")]);
    fake.assert_clean();
}

#[test]
fn the_count_has_the_meaning_of_upstreams() {
    for (count, checkpoints) in [(1, 1), (2, 2), (4, 4), (0, 6)] {
        let (fake, donor) = donor(Fake::with_data(&[10; 5]), renewing(count));
        clone(&donor, &Mutex::default());
        let made = fake.book.lock().unwrap().checkpoints.len();
        assert_eq!(made, checkpoints + 1, "{count}, and the last");
    }
    let (fake, donor) = donor(Fake::with_data(&[10; 5]), options());
    clone(&donor, &Mutex::default());
    assert_eq!(fake.book.lock().unwrap().checkpoints.len(), 2, "age 0: never renewed");
}

#[test]
fn a_renewed_checkpoint_drops_dead_files_and_brings_new_ones() {
    let (fake, donor) = donor(Fake::with_data(&[30, 20, 10]), renewing(0));
    let target = Mutex::default();
    let mut files = 0;
    let mut recipient = Recipient::with_hook(&target, |_| {
        files += 1;
        if files == 1 {
            // A compaction while the first file is sent: two become one.
            fake.drop_file(&sst(0));
            fake.drop_file(&sst(1));
            fake.file(&sst(7), &content(&sst(7), 45));
        }
    });
    let locator = start(&donor);
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    drop(recipient);
    let target = target.into_inner().unwrap();
    let mut expected = fake.content();
    expected.remove("000002.log");
    let mut obsolete = target.content();
    obsolete.retain(|name, _| !expected.contains_key(name));
    assert_eq!(
        obsolete.into_iter().collect::<Vec<_>>(),
        [(sst(0), content(&sst(0), 30))],
        "an open file is sent to its end"
    );
    assert!(!target.order.contains(&sst(1)), "a dropped one is not begun");
    let mut content = target.content();
    content.remove(&sst(0));
    assert_eq!(content, expected);
    let first = 30 + 20 + 10;
    let metadata: usize = ["CURRENT", "MANIFEST-000001"].map(|n| expected[n].len()).iter().sum();
    assert_eq!(target.estimate, (first + 45 + metadata) as u64, "known files count once");
}

#[test]
fn deletions_are_disabled_until_the_logs_are_linked() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    fake.append("000002.log", b"log");
    let target = Mutex::default();
    let mut seen = Vec::new();
    let mut recipient = Recipient::with_hook(&target, |name| {
        let book = fake.book.lock().unwrap();
        seen.push((name.to_owned(), book.disables, book.disabled));
    });
    let locator = start(&donor);
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    drop(recipient);
    assert_eq!(seen[0], (sst(0), 0, 0));
    assert_eq!(seen[1], ("000002.log".to_owned(), 1, 0));
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    fake.assert_clean();
}

#[test]
fn deletions_stay_disabled_where_logs_are_written_over() {
    let (fake, donor) = donor(Fake { recycles_logs: true, ..Fake::with_data(&[10]) }, options());
    fake.append("000002.log", b"log");
    let target = Mutex::default();
    let mut recipient = Recipient::with_hook(&target, |name| {
        if name == "000002.log" {
            assert_eq!(fake.book.lock().unwrap().disabled, 1);
            fake.drop_file("000002.log");
        }
    });
    let locator = start(&donor);
    donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap();
    drop(recipient);
    assert_eq!(fake.book.lock().unwrap().disabled, 1);
    donor.end(&session(), &locator, MAIN, 0).unwrap();
    assert_eq!(target.into_inner().unwrap().content()["000002.log"], b"log");
    fake.assert_clean();
}

#[test]
fn a_checkpoint_that_fails_ends_the_clone_and_leaves_nothing() {
    for failing in 0..3 {
        let (fake, donor) = donor(Fake::with_data(&[10, 10]), renewing(2));
        fake.book.lock().unwrap().failing_checkpoint = Some(failing);
        let locator = start(&donor);
        let target = Mutex::default();
        let mut recipient = Recipient::new(&target);
        let error = donor.copy(&session(), &locator, MAIN, 0, &mut recipient).unwrap_err();
        assert_eq!(error, Error::Internal("as a test".into()));
        donor.end(&session(), &locator, MAIN, error.number()).unwrap();
        assert_eq!(fake.book.lock().unwrap().checkpoints.len(), failing + 1);
        fake.assert_clean();
    }
}

#[test]
fn a_new_donor_removes_what_a_dead_one_left() {
    let fake = Fake::with_data(&[10]);
    std::fs::create_dir(fake.path(".clone_checkpoint-9-0")).unwrap();
    std::fs::write(fake.path(".clone_checkpoint-9-0/000001.sst"), "x").unwrap();
    let (fake, _donor) = donor(fake, options());
    fake.assert_clean();
}
