// SPDX-License-Identifier: GPL-2.0-only

//! Which locators begin, join and resume, and which are refused.

use super::*;

#[test]
fn only_the_right_ones_begin() {
    let (fake, donor) = donor(Fake::new(), options());
    let foreign = Locator::of(CloneId::new(1).unwrap()).to_bytes();
    let version = Locator::Version.to_bytes();
    for (locator, mode) in [
        (Some(&foreign[..]), Mode::Start),
        (Some(&foreign[..]), Mode::AddTask),
        (Some(&foreign[..]), Mode::Restart),
        (Some(&version[..]), Mode::AddTask),
        (Some(&version[..]), Mode::Restart),
        (None, Mode::AddTask),
        (None, Mode::Restart),
        (Some(&version[..]), Mode::Version),
        (Some(&foreign[..19]), Mode::Start),
        (Some(&[]), Mode::Start),
    ] {
        let error = donor.begin(&session(), locator, mode).unwrap_err();
        assert_eq!(error.number(), 3863, "{locator:?} {mode:?}");
    }
    assert_eq!(donor.ack(&session(), &version, 1317, &[]).unwrap_err().number(), 3863);
    assert_eq!(donor.end(&session(), &version, MAIN, 0).unwrap_err().number(), 3863);
    fake.assert_clean();
}

#[test]
fn a_local_clone_begins_without_one() {
    let (fake, donor) = donor(Fake::with_data(&[10]), options());
    let begun = donor.begin(&session(), None, Mode::Start).unwrap();
    let target = Mutex::default();
    let mut recipient = Recipient::new(&target);
    donor.copy(&session(), &begun.locator, begun.task, 1 << 22, &mut recipient).unwrap();
    donor.end(&session(), &begun.locator, begun.task, 0).unwrap();
    assert_same(&fake, &target);
    fake.assert_clean();
}

#[test]
fn ids_are_new_and_differ_between_donors() {
    let (_fake, one) = donor(Fake::new(), options());
    let (_fake, other) = donor(Fake::new(), options());
    let mut ids = std::collections::BTreeSet::new();
    for donor in [&one, &other] {
        for _ in 0..100 {
            let locator = start(donor);
            donor.end(&session(), &locator, MAIN, 0).unwrap();
            assert!(ids.insert(locator));
        }
    }
}
