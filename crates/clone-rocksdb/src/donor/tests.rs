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

mod fake;

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

mod whole {
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
                let copied =
                    donor.copy(&session(), &locator, worker, 0, &mut Recipient::new(&target));
                donor.end(&session(), &locator, worker, 0).unwrap();
                copied
            });
            donor.end(&session(), &locator, MAIN, 0).unwrap();
            assert_eq!(worker.join().unwrap().unwrap_err().number(), 3863);
        });
        fake.assert_clean();
    }
}

mod checkpoints {
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
        let metadata: usize =
            ["CURRENT", "MANIFEST-000001"].map(|n| expected[n].len()).iter().sum();
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
        let (fake, donor) =
            donor(Fake { recycles_logs: true, ..Fake::with_data(&[10]) }, options());
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
}

mod tasks {
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
            // The last worker may come while the main task is at its end, which is an error for it and not of this test.
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
        thread::scope(|scope| {
            let copied = scope.spawn(|| {
                donor.copy(&session(), &locator, worker, 0, &mut Recipient::new(&target)).unwrap();
                donor.end(&session(), &locator, worker, 0).unwrap();
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            while target.lock().unwrap().files.is_empty() {
                assert!(Instant::now() < deadline);
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(50));
            assert!(!copied.is_finished(), "the SST is sent, and more is to come");
            donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
            donor.end(&session(), &locator, MAIN, 0).unwrap();
            assert!(copied.is_finished(), "the main task ends last");
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
}

mod locators {
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
}

mod failures {
    use super::*;

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
            let copied = scope
                .spawn(|| donor.copy(&killed, &locator, worker, 0, &mut Recipient::new(&target)));
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
        let locator = start(&donor);
        let target = Mutex::default();
        donor.precopy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target)).unwrap();
        let log = WalFile { name: "000002.log".to_owned(), size: 5 };
        donor.set_logs(&locator, &[log]).unwrap();
        let copied = donor.copy(&session(), &locator, MAIN, 0, &mut Recipient::new(&target));
        assert_eq!(copied.unwrap_err().number(), 1024);
        donor.end(&session(), &locator, MAIN, 1024).unwrap();
        fake.assert_clean();
    }
}

mod several_engines {
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
}

mod restarts {
    use super::*;

    fn patient() -> DonorOptions {
        DonorOptions { restart_timeout: Duration::from_secs(10), ..renewing(0) }
    }

    /// Breaks a clone off after `bytes`, and gives what its main task does then: waiting for a restart, if `error` is the network's.
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
}
