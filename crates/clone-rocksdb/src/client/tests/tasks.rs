// SPDX-License-Identifier: GPL-2.0-only

//! Several tasks: their numbers, their errors, their ends, and restarts.

use super::*;

#[test]
fn a_restart_is_into_the_same_directory() {
    let fixture = Fixture::started();
    let other = fixture.directory.path().join("other");
    let restarted = fixture.client.apply_begin(
        &fixture.session,
        Some(&fixture.locator),
        Mode::Restart,
        Some(&other),
    );
    assert_protocol(restarted);
}

#[test]
fn a_restart_goes_on_where_it_broke() {
    let fixture = Fixture::started();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.estimate();
    fixture.file(0, "000001.sst", b"complete");
    fixture.map(1, "000002.sst", 6).unwrap();
    fixture.chunk(1, b"abc").unwrap();
    fixture.map(2, "CURRENT", 2).unwrap();
    // The packet breaks off in its middle.
    let broken = Error::Raised(number::ER_NET_READ_ERROR);
    let mut packet = Packet { data: b"X", error: Some(broken.clone()), ..Packet::default() };
    let chunk = Descriptor::FileChunk(FileChunk { file: 1, len: 3 });
    assert_eq!(fixture.apply(worker, chunk, &mut packet).unwrap_err(), broken);
    assert_eq!(fixture.chunk(2, b"ab").unwrap_err(), broken, "the others stop");
    fixture.end(worker, number::ER_NET_READ_ERROR).unwrap();

    assert_eq!(fixture.restart_states(), BTreeMap::from([(0, 8), (1, 3), (2, 0)]));
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.map(2, "CURRENT", 2).unwrap();
    fixture.chunk(2, b"ab").unwrap();
    let mut packet = Packet { data: b"def", ..Packet::default() };
    fixture.apply(worker, chunk, &mut packet).unwrap();
    fixture.end(worker, 0).unwrap();
    fixture.end(0, 0).unwrap();
    assert_eq!(fixture.read(".rocksdb.cloned/000002.sst").unwrap(), b"abcdef");
}

#[test]
fn an_error_that_is_not_the_networks_replaces_one_that_is() {
    let fixture = Fixture::started();
    let fail = |error| fixture.client.apply_error(&fixture.session, &fixture.locator, 0, error);
    fail(number::ER_NET_READ_ERROR).unwrap();
    assert_eq!(fixture.map(0, "a", 1).unwrap_err().number(), number::ER_NET_READ_ERROR);
    fail(number::ER_ERROR_ON_WRITE).unwrap();
    fail(number::ER_QUERY_INTERRUPTED).unwrap();
    assert_eq!(fixture.map(0, "a", 1).unwrap_err().number(), number::ER_ERROR_ON_WRITE);
    assert_eq!(fixture.begin(Mode::AddTask).unwrap_err().number(), number::ER_ERROR_ON_WRITE);
    assert_eq!(fixture.end(0, 0).unwrap_err().number(), number::ER_ERROR_ON_WRITE);
}

#[test]
fn task_numbers_are_verified() {
    let fixture = Fixture::started();
    let estimate = Descriptor::AddEstimate(AddEstimate { bytes: 1 });
    assert_protocol(fixture.apply(1, estimate, &mut Packet::default()));
    let one = fixture.begin(Mode::AddTask).unwrap().task;
    let two = fixture.begin(Mode::AddTask).unwrap().task;
    assert_eq!((one, two), (1, 2));
    fixture.apply(two, estimate, &mut Packet::default()).unwrap();
    fixture.end(two, 0).unwrap();
    assert_protocol(fixture.apply(two, estimate, &mut Packet::default()));
    assert_protocol(fixture.end(two, 0));
    assert_eq!(fixture.begin(Mode::AddTask).unwrap().task, 3, "numbers are not used again");
}

#[test]
fn the_main_task_waits_for_the_workers() {
    let fixture = Fixture::started();
    fixture.estimate();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.map(0, "CURRENT", 1).unwrap();
    thread::scope(|scope| {
        let main = scope.spawn(|| fixture.end(0, 0));
        thread::sleep(Duration::from_millis(50));
        assert!(!main.is_finished());
        let mut packet = Packet { data: b"x", ..Packet::default() };
        let chunk = Descriptor::FileChunk(FileChunk { file: 0, len: 1 });
        fixture.apply(worker, chunk, &mut packet).unwrap();
        fixture.end(worker, 0).unwrap();
        main.join().unwrap().unwrap();
    });
    assert!(!fixture.is_marked());
}

#[test]
fn a_waiting_main_task_can_be_killed() {
    let fixture = Fixture::started();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.session.is_killed.store(true, Ordering::Relaxed);
    assert_eq!(fixture.end(0, 0).unwrap_err(), Error::Interrupted);
    assert!(fixture.is_clean());
    // The worker finds that it has no clone any more.
    assert_protocol(fixture.end(worker, 0));
}

#[test]
fn a_killed_session_applies_nothing() {
    let fixture = Fixture::started();
    fixture.session.is_killed.store(true, Ordering::Relaxed);
    assert_eq!(fixture.map(0, "a", 1).unwrap_err(), Error::Interrupted);
}

#[test]
fn a_file_is_one_tasks_at_a_time() {
    let fixture = Fixture::started();
    let worker = fixture.begin(Mode::AddTask).unwrap().task;
    fixture.map(0, "CURRENT", 2).unwrap();

    /// Comes back to the client while the client takes its data.
    struct Intruder<'a>(&'a Fixture, u32);
    impl BlockInput for Intruder<'_> {
        fn change_state(&mut self, _: &View<'_>) -> Result<()> {
            panic!("this engine has no states")
        }
        fn apply_file(&mut self, _: &View<'_>, _: BorrowedFd<'_>) -> Result<()> {
            let chunk = Descriptor::FileChunk(FileChunk { file: 0, len: 1 });
            self.0.apply(self.1, chunk, &mut Packet { data: b"x", ..Packet::default() })
        }
        fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
            panic!("files are written, not read")
        }
    }
    let chunk = Descriptor::FileChunk(FileChunk { file: 0, len: 1 }).to_bytes();
    let mut intruder = Intruder(&fixture, worker);
    let client = &fixture.client;
    assert_protocol(client.apply(&fixture.session, &fixture.locator, 0, &chunk, &mut intruder));
}

#[test]
fn a_lost_connection_of_a_worker_fails_the_clone_even_if_nothing_seems_to_lack() {
    for has_all_it_knows in [true, false] {
        let fixture = Fixture::started();
        fixture.estimate();
        let worker = fixture.begin(Mode::AddTask).unwrap().task;
        fixture.map(0, "CURRENT", 2).unwrap();
        fixture.chunk(0, if has_all_it_knows { b"xx" } else { b"x" }).unwrap();
        // With it a file may have been lost whose name had not come yet.
        fixture.end(worker, number::ER_NET_READ_ERROR).unwrap();
        assert_eq!(fixture.end(0, 0), Err(Error::Raised(number::ER_NET_READ_ERROR)));
    }
}
