// SPDX-License-Identifier: GPL-2.0-only

use std::thread;

use super::*;
use crate::clock::SystemClock;

const RUNS: fn() -> bool = || false;

fn tasks(is_source: bool) -> Arc<Tasks> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Arc::new(Tasks::new(&clock, is_source))
}

/// A clock that jumps: whoever waits finds that the time is over.
struct JumpingClock(Mutex<Duration>);

impl Clock for JumpingClock {
    fn now(&self) -> Duration {
        *lock(&self.0)
    }

    fn notifications(&self) -> u64 {
        0
    }

    fn wait(&self, _: u64, until: Duration) {
        let mut now = lock(&self.0);
        *now = until.max(*now);
    }

    fn notify(&self) {}
}

#[test]
fn a_network_error_gives_way_to_any_other() {
    let tasks = tasks(false);
    for (error, saved) in [(0, 0), (1158, 1158), (1026, 1026), (1158, 1026), (3862, 1026)] {
        tasks.set_error(error);
        assert_eq!(tasks.saved_error(), saved);
    }
    assert_eq!(tasks.check_error(&RUNS).unwrap_err().number(), 1026);
    assert_eq!(tasks.check_error(&|| true).unwrap_err().number(), 1317);
}

#[test]
fn all_tasks_enter_a_state_together() {
    let tasks = tasks(false);
    for number in 0..3 {
        let donor = if number == 0 { SnapshotState::Init } else { SnapshotState::FileCopy };
        assert_eq!(tasks.add(&RUNS, Some(donor)).unwrap(), number);
        if number == 0 {
            let enter = tasks.enter(&RUNS, 0, SnapshotState::FileCopy, || Ok(()), || Ok(9));
            enter.unwrap();
            tasks.all_metadata_arrived();
        }
    }
    let followers: Vec<_> = [1, 2]
        .into_iter()
        .map(|task| {
            let tasks = Arc::clone(&tasks);
            thread::spawn(move || {
                tasks.finish_state(&RUNS, task).unwrap();
                let not_mine = || panic!("a worker does not prepare a state");
                tasks.enter(&RUNS, task, SnapshotState::PageCopy, || Ok(()), not_mine).unwrap();
                assert_eq!(tasks.state(), SnapshotState::PageCopy);
            })
        })
        .collect();
    tasks.finish_state(&RUNS, 0).unwrap();
    tasks.enter(&RUNS, 0, SnapshotState::PageCopy, || Ok(()), || Ok(1)).unwrap();
    followers.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_task_that_waits_learns_of_the_error_of_another() {
    let tasks = tasks(false);
    tasks.add(&RUNS, Some(SnapshotState::Init)).unwrap();
    let master = {
        let tasks = Arc::clone(&tasks);
        // A second task that never finishes the state.
        tasks.shared().tasks.insert(1, Position::default());
        thread::spawn(move || tasks.finish_state(&RUNS, 0))
    };
    tasks.set_error(1026);
    assert_eq!(master.join().unwrap().unwrap_err().number(), 1026);
}

#[test]
fn a_wait_has_a_keep_alive_every_five_seconds_and_ends_after_half_an_hour() {
    let clock: Arc<dyn Clock> = Arc::new(JumpingClock(Mutex::default()));
    let tasks = Tasks::new(&clock, true);
    tasks.add(&RUNS, None).unwrap();
    let mut sent = Vec::new();
    let keep_alive = || {
        sent.push(clock.now().as_secs());
        Ok(())
    };
    let waited = tasks.wait_for_acknowledgement(&RUNS, MASTER, keep_alive);
    assert_eq!(waited.unwrap_err().number(), 1815);
    assert_eq!(sent, (1..360).map(|turn| turn * 5).collect::<Vec<_>>());
}

#[test]
fn what_a_peer_may_not_say_is_an_error() {
    let tasks = tasks(true);
    tasks.add(&RUNS, None).unwrap();
    assert_eq!(tasks.acknowledge(SnapshotState::PageCopy).unwrap_err().number(), 3863);
    for chunk in [0, 1, u32::MAX] {
        assert_eq!(tasks.check_chunk(chunk).unwrap_err().number(), 3863);
    }
    let mut locator = Locator {
        version: 100,
        clone_id: 1,
        snapshot_id: 2,
        index: 0,
        state: SnapshotState::RedoCopy,
        metadata_transferred: true,
        progress: None,
    };
    assert_eq!(tasks.restart_source(&locator).unwrap_err().number(), 1815, "tasks run");
    tasks.drop_task(&RUNS, MASTER);
    assert_eq!(tasks.restart_source(&locator).unwrap_err().number(), 3863);
    locator.state = SnapshotState::Init;
    tasks.restart_source(&locator).unwrap();
    let huge = tasks.enter(&RUNS, MASTER, SnapshotState::FileCopy, || Ok(()), || Ok(u32::MAX));
    assert_eq!(huge.unwrap_err().number(), 3863);
}

/// Without this the task would wait for half an hour for a state that is over.
#[test]
fn a_task_for_a_state_that_is_over_is_refused_at_once() {
    let tasks = tasks(false);
    tasks.add(&RUNS, Some(SnapshotState::Init)).unwrap();
    let late = {
        let tasks = Arc::clone(&tasks);
        thread::spawn(move || tasks.add(&RUNS, Some(SnapshotState::FileCopy)))
    };
    for state in [SnapshotState::FileCopy, SnapshotState::PageCopy] {
        tasks.enter(&RUNS, MASTER, state, || Ok(()), || Ok(1)).unwrap();
    }
    assert_eq!(late.join().unwrap().unwrap_err().number(), 3863);
}
