// SPDX-License-Identifier: GPL-2.0-only

//! This crate's donor and this crate's recipient, several tasks in threads, with DDL during the
//! clone and with connections that break in each state.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clone_innodb::clock::SystemClock;
use clone_innodb::destination::{Destination, DestinationTask, Flush, Options, journal};
use clone_innodb::error::{Error, is_network_error};
use clone_innodb::source::{SourceOptions, SourceTask, Sources};
use clone_protocol::innodb::{
    Descriptor, Locator, Recipient, SnapshotState, StreamCheck, TaskRole,
};
use support::{GEOMETRY, Input, PAGE, Packet, Sender, Server};

const RUNS: fn() -> bool = || false;

/// How long a donor waits for its recipient.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn one_task() {
    assert_eq!(Clone::new(1).run(&[]), BTreeSet::new());
}

#[test]
fn four_tasks() {
    let mut workers = 0;
    for _ in 0..10 {
        let clone = Clone::new(4);
        assert_eq!(clone.run(&[]), BTreeSet::new());
        workers += clone.workers.load(Ordering::Relaxed);
    }
    assert!(workers > 0, "each worker came too late in ten clones");
}

/// One cut in a clone, each time after three packets more than before, so that each state is cut.
#[test]
fn a_cut_anywhere() {
    let mut states = BTreeSet::new();
    let whole = {
        let clone = Clone::new(1);
        clone.run(&[]);
        clone.sent.load(Ordering::Relaxed)
    };
    assert!(whole > 50, "{whole} packets");
    for at in (1..whole).step_by(3) {
        states.extend(Clone::new(1).run(&[at]));
    }
    use SnapshotState::{FileCopy, Init, PageCopy, RedoCopy};
    assert!(states.is_superset(&[Init, FileCopy, PageCopy, RedoCopy].into()), "{states:?}");
}

#[test]
fn several_cuts_with_several_tasks() {
    for seed in 0..12 {
        let cuts: Vec<_> = (0..3).map(|cut| 10 + (seed * 13 + cut * 29) % 60).collect();
        let states = Clone::new(3).run(&cuts);
        assert!(!states.is_empty(), "{cuts:?}");
    }
}

/// The recipient's process is killed once, each time after two packets more than before.
#[test]
fn a_kill_anywhere() {
    let whole = {
        let clone = Clone::killed(1);
        clone.run(&[]);
        clone.sent.load(Ordering::Relaxed)
    };
    for (turn, at) in (1..whole).step_by(2).enumerate() {
        let lost = [Lost::Nothing, Lost::LastRecord, Lost::HalfOfLastRecord][turn % 3];
        let clone = Clone { lost, ..Clone::killed(1) };
        clone.run(&[at]);
        // What was sent again is at most the block at which the process was killed.
        let sent = clone.total.load(Ordering::Relaxed);
        assert!(sent <= whole + 12, "{sent} packets instead of {whole}, killed at {at}");
    }
}

#[test]
fn several_kills_with_several_tasks() {
    for seed in 0..12 {
        let cuts: Vec<_> = (0..3).map(|cut| 10 + (seed * 13 + cut * 29) % 60).collect();
        Clone::killed(3).run(&cuts);
    }
}

/// What a process that is killed has done, but not written into its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Nothing,
    LastRecord,
    HalfOfLastRecord,
}

struct Clone {
    tasks: usize,
    /// A cut kills the recipient's process, too.
    is_killed: bool,
    lost: Lost,
    server: Arc<Server>,
    sources: Sources,
    directory: tempfile::TempDir,
    /// Packets of the donor since the last cut.
    sent: AtomicUsize,
    /// All packets of the donor.
    total: AtomicUsize,
    /// Tasks beside the master that took part.
    workers: AtomicUsize,
    /// The state that the recipient's master has seen.
    state: Mutex<SnapshotState>,
}

impl Clone {
    fn new(tasks: usize) -> Self {
        let clock = Arc::new(SystemClock::default());
        let options = SourceOptions { max_clones: 1, geometry: GEOMETRY, first_id: 77 };
        Self {
            tasks,
            is_killed: false,
            lost: Lost::Nothing,
            total: AtomicUsize::new(0),
            server: Arc::new(Server::new()),
            sources: Sources::new(clock, options),
            directory: tempfile::tempdir().unwrap(),
            sent: AtomicUsize::new(0),
            workers: AtomicUsize::new(0),
            state: Mutex::new(SnapshotState::Init),
        }
    }

    fn killed(tasks: usize) -> Self {
        Self { is_killed: true, ..Self::new(tasks) }
    }

    fn options(&self) -> Options {
        let journal = self.is_killed.then(|| self.directory.path().join("journal"));
        Options { journal, flush: Flush::Never, ..Options::default() }
    }

    /// What another process makes of the clone.
    fn reopen(&self, donor: &Locator, target: &Path) -> (StreamCheck, DestinationTask) {
        let options = self.options();
        let path = options.journal.as_ref().unwrap();
        self.lose(path);
        let stream = StreamCheck::new(Recipient::new(4096));
        let records = journal::read(path).unwrap().map(Result::unwrap);
        let takes = records.filter(|one| one.task == 0 || !one.descriptor.is_empty());
        stream.replay(takes.map(|one| one.descriptor)).unwrap();
        let clock = Arc::new(SystemClock::default());
        let destination = Destination::reopen(donor, target, options, clock).unwrap();
        let master = destination.add_task(&RUNS, &destination.locator()).unwrap();
        (stream, master)
    }

    /// Removes what the killed process had not written. The end of a state is written before the
    /// donor learns of it.
    fn lose(&self, path: &Path) {
        let whole = fs::read(path).unwrap();
        let last = journal::read(path).unwrap().last().map(Result::unwrap);
        let is_end = |one: &journal::Record| match Descriptor::parse(&one.descriptor) {
            Ok(Descriptor::State(state)) => !state.start,
            _ => false,
        };
        let last = last.filter(|one| !is_end(one)).map_or(0, |one| one.descriptor.len() + 12);
        let lost = match self.lost {
            Lost::Nothing => 0,
            Lost::LastRecord => last,
            Lost::HalfOfLastRecord => last / 2,
        };
        fs::write(path, &whole[..whole.len() - lost]).unwrap();
    }

    /// Clones, with cuts after so many packets each, and compares. Gives the states that were cut.
    fn run(&self, cuts: &[usize]) -> BTreeSet<SnapshotState> {
        let mut cut_states = BTreeSet::new();
        let target = self.directory.path().join("target");
        let mut source = self.sources.start(&RUNS).unwrap();
        let donor = source.locator();
        let clock = Arc::new(SystemClock::default());
        let destination = Destination::create(&donor, &target, self.options(), clock).unwrap();
        let mut stream = StreamCheck::new(Recipient::new(4096));
        let mut master = destination.add_task(&RUNS, &donor).unwrap();
        let mut cuts = cuts.iter().copied();
        loop {
            let cut = cuts.next();
            let (task, error, ended) = self.execute(source, master, &stream, cut);
            master = task;
            if error == 0 {
                ended.join().unwrap();
                break;
            }
            assert!(cut.is_some() && is_network_error(error), "error {error}");
            cut_states.insert(*self.state.lock().unwrap());
            self.total.fetch_add(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
            if self.is_killed {
                drop(master);
                (stream, master) = self.reopen(&donor, &target);
            }
            let locator = master.restart().unwrap();
            let bytes = encode(&locator);
            stream.resume(&bytes).unwrap();
            let locator = Locator::parse(&bytes).unwrap();
            source = self.sources.restart(&RUNS, &locator).unwrap();
            ended.join().unwrap();
        }
        self.total.fetch_add(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
        master.end(&RUNS, 0).unwrap();
        assert!(self.sources.is_empty(), "a clone is left at the donor");
        self.compare(&target);
        cut_states
    }

    /// One EXECUTE of all tasks. The donor's master ends in a thread of its own, because it waits
    /// for the recipient to come back after a network error.
    fn execute(
        &self,
        source: SourceTask,
        master: DestinationTask,
        stream: &StreamCheck,
        cut: Option<usize>,
    ) -> (DestinationTask, u32, thread::JoinHandle<()>) {
        self.sent.store(0, Ordering::Relaxed);
        let is_broken = AtomicBool::new(false);
        let donor = source.locator();
        let destination = Arc::clone(master.destination());
        let (given_back, error, end) = thread::scope(|scope| {
            let connect = |mut source: SourceTask, task: DestinationTask| {
                let (sender, receiver) = sync_channel::<Packet>(4);
                let donor_task = scope.spawn(move || {
                    let mut output = Sender { packets: sender };
                    let copied = source.copy(&RUNS, &*self.server, &mut output);
                    (source, copied)
                });
                let (is_broken, donor) = (&is_broken, &donor);
                let role = if task.is_master() { TaskRole::Master } else { TaskRole::Worker };
                let recipient_task = scope.spawn(move || {
                    let mut task = task;
                    let mut checks = stream.task(role);
                    let outcome = loop {
                        let Ok((descriptor, bytes)) = receiver.recv() else { break 0 };
                        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
                        if cut.is_some_and(|cut| number >= cut) {
                            is_broken.store(true, Ordering::Relaxed);
                        }
                        if is_broken.load(Ordering::Relaxed) {
                            break 1158;
                        }
                        checks.check(&descriptor).unwrap();
                        let acknowledge = |descriptor: &[u8]| {
                            self.sources.acknowledge(&RUNS, donor, 0, descriptor)
                        };
                        let mut input = Input { bytes, acknowledge: &acknowledge };
                        if let Err(error) = task.apply(&RUNS, &descriptor, &mut input) {
                            break error.number();
                        }
                        if let Some(state) = started(&descriptor).filter(|_| task.is_master()) {
                            *self.state.lock().unwrap() = state;
                        }
                    };
                    drop(receiver);
                    // The other tasks must not wait for this one.
                    task.destination().fail(outcome);
                    (task, outcome)
                });
                (donor_task, recipient_task)
            };
            let first = connect(source, master);
            let mut others = Vec::new();
            for _ in 1..self.tasks {
                // A task may come too late for a clone that is nearly over or that has failed.
                let Ok(source) = self.sources.add_task(&RUNS, &donor.clone()) else { break };
                match destination.add_task(&RUNS, &source.locator()) {
                    Ok(task) => {
                        self.workers.fetch_add(1, Ordering::Relaxed);
                        others.push(connect(source, task));
                    }
                    Err(error) => {
                        source.end(&RUNS, error.number(), PATIENCE);
                        break;
                    }
                }
            }
            for (donor_task, recipient_task) in others {
                let (task, outcome) = recipient_task.join().unwrap();
                task.end(&RUNS, outcome).unwrap();
                let (source, copied) = donor_task.join().unwrap();
                source.end(&RUNS, copied.err().map_or(0, |error| error.number()), PATIENCE);
            }
            let (task, outcome) = first.1.join().unwrap();
            let (source, copied) = first.0.join().unwrap();
            let error = copied.as_ref().err().map_or(0, Error::number);
            (task, if outcome == 0 { error } else { outcome }, (source, error.max(outcome)))
        });
        let (source, donor_error) = end;
        let ended = thread::spawn(move || source.end(&RUNS, donor_error, PATIENCE));
        (given_back, error, ended)
    }

    fn compare(&self, target: &Path) {
        let (files, redo) = self.server.expected();
        assert_eq!(files.len(), 6);
        for file in files {
            let found = fs::read(target.join(file.name.trim_start_matches("./")));
            let found = found.unwrap_or_else(|error| panic!("{}: {error}", file.name));
            // The undo tablespace was not created by DDL, and none is larger than an extent.
            assert!(file.bytes.len() < 256 * PAGE);
            assert!(found == file.bytes, "{} differs", file.name);
        }
        for name in ["b.ibd", "c.ibd"] {
            assert!(!target.join("db").join(name).exists(), "{name}");
        }
        for (index, bytes) in redo.iter().enumerate() {
            let path = target.join(format!("#innodb_redo/#ib_redo{index}"));
            let found = fs::read(path).unwrap();
            assert_eq!(found.len(), bytes.len());
            let end = if index == 0 { bytes.len() } else { 30_512 };
            assert!(found[..end] == bytes[..end], "redo file {index} differs");
            assert!(found[end..].iter().all(|byte| *byte == 0));
        }
        assert!(target.join("#clone/#status_fix").exists());
        assert!(!target.join("#clone/#status_in_progress").exists());
    }
}

fn encode(locator: &Locator) -> Vec<u8> {
    let mut bytes = Vec::new();
    Descriptor::Locator(locator.clone()).encode(&mut bytes);
    bytes
}

/// The state that a descriptor starts, if it does.
fn started(descriptor: &[u8]) -> Option<SnapshotState> {
    match Descriptor::parse(descriptor).unwrap() {
        Descriptor::State(state) if state.start && !state.ack => Some(state.state),
        _ => None,
    }
}
