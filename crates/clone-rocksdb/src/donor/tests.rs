// SPDX-License-Identifier: GPL-2.0-only

//! Every rule of the donor, on a database that only has files.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use clone_protocol::rocksdb::FileSize;
use clone_protocol::rocksdb::FileState;

use super::*;
use fake::Fake;
use fake::Recipient;
use fake::Target;
use fake::TestSession;
use fake::content;
use fake::sst;

mod checkpoints;
mod failures;
mod fake;
mod locators;
mod restarts;
mod several_engines;
mod tasks;
mod whole;

const MAIN: u32 = 0;

/// As little waiting as there can be.
fn options() -> DonorOptions {
    DonorOptions {
        checkpoint_max_age: Duration::ZERO,
        checkpoint_max_count: 0,
        restart_timeout: Duration::ZERO,
        takeover_timeout: Duration::from_secs(10),
    }
}

/// A checkpoint is old at once, and there are at most `count`.
fn renewing(count: u32) -> DonorOptions {
    DonorOptions {
        checkpoint_max_age: Duration::from_nanos(1),
        checkpoint_max_count: count,
        ..options()
    }
}

fn donor(fake: Fake, options: DonorOptions) -> (Arc<Fake>, Donor) {
    let fake = Arc::new(fake);
    (Arc::clone(&fake), Donor::new(fake, options))
}

fn session() -> TestSession {
    TestSession::default()
}

fn start(donor: &Donor) -> Vec<u8> {
    let version = Locator::Version.to_bytes();
    let begun = donor.begin(&session(), Some(&version), Mode::Start).unwrap();
    assert_eq!(begun.task, MAIN);
    begun.locator
}

fn restart_locator(locator: &[u8], states: Vec<FileState>) -> Vec<u8> {
    let Locator::Clone { id, .. } = Locator::parse(locator).unwrap() else { panic!() };
    Locator::Clone { id, states }.to_bytes()
}

/// A whole clone with one task.
fn clone(donor: &Donor, target: &Mutex<Target>) {
    let locator = start(donor);
    donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(target)).unwrap();
    donor.end(&session(), &locator, MAIN, 0).unwrap();
}

#[track_caller]
fn assert_same(fake: &Fake, target: &Mutex<Target>) {
    let mut expected = fake.content();
    expected.retain(|name, bytes| !(name.ends_with(".log") && bytes.is_empty()));
    assert_eq!(target.lock().unwrap().content(), expected);
}
