// SPDX-License-Identifier: GPL-2.0-only

//! Threads that run one at a time, in an order that a seed decides, and a clock that only their waits move.
//!
//! The clone logic uses real threads, and so does the simulation. But a thread runs only while it holds the baton. It passes the
//! baton on where it waits, and sometimes at a [`pause`](Scheduler::pause): the seed picks who gets it. When all threads wait, the
//! clock jumps to the earliest time-out. So eight hours of waiting cost nothing, a busy machine changes nothing, and a seed
//! repeats every step. When all wait and none has a time-out, that is a deadlock, which is reported at once.
//!
//! One wait is out of reach: the clone logic joins its workers with [`JoinHandle::join`]. The supervisor finds it out from
//! `/proc`, where a thread that holds the baton but sleeps can be doing nothing else, and passes the baton on for it.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::rng::Rng;

/// The threads of one simulation.
pub(crate) struct Scheduler {
    state: Mutex<State>,
    /// Wakes the supervisor.
    changed: Condvar,
    /// Percentage of pauses that offer the baton to others.
    restlessness: usize,
}

/// What threads wait for and are woken by.
pub(crate) type Key = usize;

struct State {
    now: Duration,
    /// No simulation may take longer in its own time.
    limit: Duration,
    rng: Rng,
    threads: Vec<Thread>,
    /// Who holds the baton.
    running: Option<usize>,
    /// Counts how often the baton was passed, so that the supervisor sees whether anything goes on.
    turns: u64,
    /// A thread that has ended while its parent joins it or a sibling: the baton waits until the parent has noticed.
    leaving: Option<usize>,
    live: usize,
    keys: Key,
    failure: Option<String>,
}

struct Thread {
    name: String,
    status: Status,
    was_notified: bool,
    wake: Arc<Condvar>,
    parent: Option<usize>,
    /// Its directory in `/proc`.
    proc: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    Running,
    Waiting { key: Key, deadline: Option<Duration> },
    Joining,
    Ended,
}

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Nobody wakes a sleeper by this key.
const SLEEP: Key = 0;

/// How often the supervisor looks.
const LOOK: Duration = Duration::from_micros(400);

/// In how many looks in a row a thread must have been asleep, without waking in between, to count as joining.
const LOOKS: u32 = 3;

/// A simulation that does nothing for so long in real time hangs in something that the scheduler does not see.
const STUCK: Duration = Duration::from_secs(40);

impl Scheduler {
    pub(crate) fn new(mut rng: Rng, limit: Duration) -> Arc<Self> {
        let restlessness = [0, 5, 20, 60][rng.below(4)];
        Arc::new(Self {
            state: Mutex::new(State {
                now: Duration::from_secs(1000),
                limit,
                rng,
                threads: Vec::new(),
                running: None,
                turns: 0,
                leaving: None,
                live: 0,
                keys: SLEEP,
                failure: None,
            }),
            changed: Condvar::new(),
            restlessness,
        })
    }

    /// Runs `root` and all threads that come of it, until all have ended.
    ///
    /// # Errors
    /// A deadlock, a panic, or a simulation that takes too long.
    pub(crate) fn run(
        self: &Arc<Self>,
        root: impl FnOnce() + Send + 'static,
    ) -> Result<(), String> {
        let root = self.spawn("root".to_owned(), root);
        self.lock().dispatch();
        self.supervise()?;
        root.join().map_err(|_| "root panicked".to_owned())
    }

    /// Starts a thread; it runs when it gets the baton.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> JoinHandle<()> {
        let mut state = self.lock();
        let me = state.threads.len();
        let wake = Arc::new(Condvar::new());
        state.threads.push(Thread {
            name: name.clone(),
            status: Status::Ready,
            was_notified: false,
            wake,
            parent: CURRENT.get(),
            proc: PathBuf::new(),
        });
        state.live += 1;
        drop(state);
        let scheduler = Arc::clone(self);
        let thread = thread::Builder::new().name(name).spawn(move || {
            CURRENT.set(Some(me));
            let proc = fs::read_link("/proc/thread-self").unwrap();
            let mut state = scheduler.lock();
            state.threads[me].proc = PathBuf::from("/proc").join(proc);
            drop(scheduler.park(state, me));
            let outcome = catch_unwind(AssertUnwindSafe(work));
            scheduler.leave(me, outcome.is_err());
        });
        thread.unwrap()
    }

    /// Time since a fixed moment.
    pub(crate) fn now(&self) -> Duration {
        self.enter().now
    }

    /// A key that nobody else has.
    pub(crate) fn key(&self) -> Key {
        let mut state = self.lock();
        state.keys += 1;
        state.keys
    }

    /// Lets another thread go on, or not.
    pub(crate) fn pause(&self) {
        let mut state = self.enter();
        if state.rng.chance(self.restlessness) {
            let me = current();
            state.threads[me].status = Status::Ready;
            drop(self.switch(state, me));
        }
    }

    pub(crate) fn sleep(&self, duration: Duration) {
        let deadline = self.now() + duration;
        self.wait(SLEEP, Some(deadline));
    }

    /// Waits for a [`notify`](Scheduler::notify) of `key`; false if the deadline came first. As with a condition variable, the
    /// caller has to look whether what it waits for is true.
    pub(crate) fn wait(&self, key: Key, deadline: Option<Duration>) -> bool {
        let mut state = self.enter();
        let me = current();
        state.threads[me].status = Status::Waiting { key, deadline };
        let mut state = self.switch(state, me);
        std::mem::take(&mut state.threads[me].was_notified)
    }

    /// Wakes all that wait for `key`.
    pub(crate) fn notify(&self, key: Key) {
        self.wake(|waited_for| waited_for == key);
    }

    /// Wakes all that wait for anything but time, as a KILL does.
    pub(crate) fn notify_all(&self) {
        self.wake(|waited_for| waited_for != SLEEP);
    }

    fn wake(&self, is_meant: impl Fn(Key) -> bool) {
        let mut state = self.enter();
        for thread in &mut state.threads {
            if matches!(thread.status, Status::Waiting { key, .. } if is_meant(key)) {
                thread.status = Status::Ready;
                thread.was_notified = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The state, for a thread that holds the baton: one that comes back from a join has to get it first.
    fn enter(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let me = current();
        if state.running == Some(me) && state.failure.is_none() {
            return state;
        }
        state.threads[me].status = Status::Ready;
        if state.running.is_none() && state.failure.is_none() {
            state.leaving = None;
            state.dispatch();
        }
        self.park(state, me)
    }

    /// Gives the baton to somebody, and waits to get it back.
    fn switch<'s>(&self, mut state: MutexGuard<'s, State>, me: usize) -> MutexGuard<'s, State> {
        state.running = None;
        state.dispatch();
        self.changed.notify_one();
        self.park(state, me)
    }

    fn park<'s>(&self, mut state: MutexGuard<'s, State>, me: usize) -> MutexGuard<'s, State> {
        let wake = Arc::clone(&state.threads[me].wake);
        // After a failure everything stays as it is, for ever.
        while state.running != Some(me) || state.failure.is_some() {
            state = wake.wait(state).unwrap();
        }
        state
    }

    fn leave(&self, me: usize, panicked: bool) {
        let mut state = self.enter();
        if panicked {
            state.fail(format!("thread {} panicked", state.threads[me].name));
        }
        state.threads[me].status = Status::Ended;
        state.live -= 1;
        state.running = None;
        let parent = state.threads[me].parent;
        if parent.is_some_and(|parent| state.threads[parent].status == Status::Joining) {
            state.leaving = Some(me);
        } else if state.live > 0 {
            state.dispatch();
        }
        self.changed.notify_one();
    }

    /// Finds joins, and the end.
    fn supervise(&self) -> Result<(), String> {
        let mut state = self.lock();
        let mut seen = (state.turns, None, 0);
        let mut moved = Instant::now();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.live == 0 {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap().0;
            let suspect = match (state.running, state.leaving) {
                (Some(holder), _) => Some(holder),
                (None, Some(left)) if !state.threads[left].proc.exists() => {
                    state.threads[left].parent
                }
                _ => None,
            };
            let sleep = suspect.and_then(|thread| asleep_since(&state.threads[thread].proc));
            if seen.0 == state.turns && seen.1 == sleep && sleep.is_some() {
                seen.2 += 1;
            } else {
                if seen.0 != state.turns {
                    moved = Instant::now();
                }
                seen = (state.turns, sleep, 0);
            }
            if seen.2 == LOOKS {
                if let Some(holder) = state.running.take() {
                    state.threads[holder].status = Status::Joining;
                }
                state.leaving = None;
                state.dispatch();
            }
            if moved.elapsed() > STUCK {
                let dump = state.dump();
                return Err(format!("nothing happens any more\n{dump}"));
            }
        }
    }
}

impl State {
    /// Gives the baton to one of the threads that can use it, and lets time pass until there is one.
    fn dispatch(&mut self) {
        if self.failure.is_some() {
            return;
        }
        loop {
            let ready: Vec<_> = (0..self.threads.len())
                .filter(|thread| self.threads[*thread].status == Status::Ready)
                .collect();
            if !ready.is_empty() {
                let next = ready[self.rng.below(ready.len())];
                self.threads[next].status = Status::Running;
                self.running = Some(next);
                self.turns += 1;
                self.threads[next].wake.notify_one();
                return;
            }
            let deadlines = self.threads.iter().filter_map(|thread| match thread.status {
                Status::Waiting { deadline, .. } => deadline,
                _ => None,
            });
            let Some(next) = deadlines.min() else {
                self.turns += 1;
                self.fail("deadlock".to_owned());
                return;
            };
            self.now = self.now.max(next);
            if self.now > self.limit {
                self.fail("the simulation takes too long in its own time".to_owned());
                return;
            }
            let now = self.now;
            for thread in &mut self.threads {
                if matches!(thread.status, Status::Waiting { deadline: Some(due), .. } if due <= now)
                {
                    thread.status = Status::Ready;
                }
            }
        }
    }

    fn fail(&mut self, what: String) {
        let dump = self.dump();
        self.failure.get_or_insert(format!("{what}\n{dump}"));
    }

    fn dump(&self) -> String {
        let mut text = format!("at {:?}:", self.now);
        for thread in self.threads.iter().filter(|thread| thread.status != Status::Ended) {
            let _ = write!(text, "\n  {}: {:?}", thread.name, thread.status);
        }
        text
    }
}

fn current() -> usize {
    CURRENT.get().expect("only threads of the simulation may wait in it")
}

/// If the thread sleeps: how often it has gone to sleep so far.
fn asleep_since(proc: &std::path::Path) -> Option<u64> {
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start)
    };
    let sleeps = field("State:")?.starts_with('S');
    let switches = field("voluntary_ctxt_switches:")?.parse().ok()?;
    sleeps.then_some(switches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Vec<usize> {
        let scheduler = Scheduler::new(Rng::new(seed), Duration::MAX);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inner, log) = (Arc::clone(&scheduler), Arc::clone(&seen));
        let outcome = scheduler.run(move || {
            let children: Vec<_> = (0..4)
                .map(|child| {
                    let (scheduler, log) = (Arc::clone(&inner), Arc::clone(&log));
                    inner.spawn(format!("child {child}"), move || {
                        for _ in 0..20 {
                            log.lock().unwrap().push(child);
                            scheduler.sleep(Duration::from_millis(7));
                        }
                    })
                })
                .collect();
            for child in children {
                child.join().unwrap();
            }
            log.lock().unwrap().push(usize::try_from(inner.now().as_millis()).unwrap());
        });
        outcome.unwrap();
        Arc::into_inner(seen).unwrap().into_inner().unwrap()
    }

    #[test]
    fn a_seed_repeats_the_order() {
        let first = order(1);
        assert_eq!(first, order(1));
        assert_ne!(first, order(2));
        assert_eq!(first.last(), Some(&1_000_140), "20 times 7 ms after the start");
    }

    #[test]
    fn finds_deadlocks_endless_waits_and_panics() {
        let failure = |work: fn(&Scheduler)| {
            let scheduler = Scheduler::new(Rng::new(0), Duration::from_secs(2000));
            let inner = Arc::clone(&scheduler);
            scheduler.run(move || work(&inner)).unwrap_err()
        };
        assert!(failure(|scheduler| drop(scheduler.wait(1, None))).starts_with("deadlock"));
        let endless = failure(|scheduler| loop {
            scheduler.sleep(Duration::from_secs(5));
        });
        assert!(endless.starts_with("the simulation takes too long"), "{endless}");
        assert!(failure(|_| panic!("on purpose")).starts_with("thread root panicked"));
    }
}
