// SPDX-License-Identifier: GPL-2.0-only

//! Threads that run one at a time, in an order that a seed decides, and a clock that only their
//! waits move.
//!
//! The clone logic uses real threads, and so does the simulation. But a thread runs only while it
//! holds the baton. It passes the baton on where it waits, and sometimes at a
//! [`pause`](Scheduler::pause): the seed picks who gets it. When all threads wait, the clock jumps
//! to the earliest time-out. So eight hours of waiting cost nothing, a busy machine changes
//! nothing, and a seed repeats every step. When all wait and none has a time-out, that is a
//! deadlock, which is reported at once.
//!
//! One wait is out of reach: the clone logic joins its workers with [`JoinHandle::join`]. The
//! supervisor finds it out from `/proc`: the C library waits for a thread with a futex whose
//! expected value is the thread's number. It then passes the baton on for the thread that joins.

mod tests;

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
    /// A thread that has ended while its parent joins it or a sibling: the baton waits until the
    /// parent has noticed.
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
    /// Its directory in `/proc`, whose name is its number.
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
const LOOK: Duration = Duration::from_micros(150);

/// A simulation that does nothing for so long in real time hangs in something that the scheduler
/// does not see.
const STUCK: Duration = Duration::from_secs(40);

impl Scheduler {
    pub(crate) fn new(mut rng: Rng, limit: Duration) -> Arc<Self> {
        let restlessness = [1, 5, 20, 60][rng.below(4)];
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
            self.offer(state);
        }
    }

    /// Offers the baton to all that can use it, in which this thread takes part.
    pub(crate) fn give_way(&self) {
        self.offer(self.enter());
    }

    fn offer(&self, mut state: MutexGuard<'_, State>) {
        let me = current();
        state.threads[me].status = Status::Ready;
        drop(self.switch(state, me));
    }

    pub(crate) fn sleep(&self, duration: Duration) {
        let deadline = self.now() + duration;
        self.wait(SLEEP, Some(deadline));
    }

    /// Waits for a [`notify`](Scheduler::notify) of `key`; false if the deadline came first. As
    /// with a condition variable, the caller has to look whether what it waits for is true.
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

    /// The state, for a thread that holds the baton: one that comes back from a join has to get it
    /// first.
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
            let what = format!("thread {} panicked", state.threads[me].name);
            state.fail(what);
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
        let mut seen = state.turns;
        let mut moved = Instant::now();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.live == 0 {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap().0;
            if seen != state.turns {
                seen = state.turns;
                moved = Instant::now();
                continue;
            }
            let joins = match (state.running, state.leaving) {
                (Some(holder), _) => state.joins_child(holder),
                // Either the parent comes, or it goes on to join another child.
                (None, Some(left)) if !state.threads[left].proc.exists() => {
                    state.threads[left].parent.is_some_and(|parent| state.joins_child(parent))
                }
                _ => false,
            };
            if joins {
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
    /// Gives the baton to one of the threads that can use it, and lets time pass until there is
    /// one.
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

    /// Whether the thread is in `pthread_join` for one of those that it started: a wait (0x109:
    /// with absolute time, shared) for a word in memory to be no more the number of the child
    /// (`proc(5)`, `/proc/pid/syscall`).
    fn joins_child(&self, thread: usize) -> bool {
        const FUTEX_WAIT_FOR_EXIT: &str = "0x109";
        let Ok(call) = fs::read_to_string(self.threads[thread].proc.join("syscall")) else {
            return false;
        };
        let mut fields = call.split(' ').skip(2);
        if fields.next() != Some(FUTEX_WAIT_FOR_EXIT) {
            return false;
        }
        let expected = fields.next().unwrap_or_default();
        let children = self.threads.iter().filter(|child| child.parent == Some(thread));
        // The join of one that has ended is about to return.
        children.filter(|child| child.status != Status::Ended).any(|child| {
            let number = child.proc.file_name().and_then(|name| name.to_str());
            let number = number.and_then(|name| name.parse::<u32>().ok());
            number.is_some_and(|number| format!("{number:#x}") == expected)
        })
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
