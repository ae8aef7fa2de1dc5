// SPDX-License-Identifier: GPL-2.0-only

//! The recipient's side: one clone (`clone-rocksdb`, `client/run.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use clone_core::engine::{BlockInput, View};
use clone_core::error::{Error, Result};
use clone_protocol::rocksdb::{
    CloneId, Descriptor, FileChunk, FileNameMap, FileSize, FileState, Locator,
};

use super::data::{complete, incomplete};
use super::protocol;
use crate::sim::faults::{Action, FollowerStep};
use crate::sim::scheduler::{Key, Scheduler};
use crate::sim::session::SimSession;

/// A clone at its recipient.
pub(super) struct Run {
    pub(super) id: CloneId,
    sim: Arc<Scheduler>,
    key: Key,
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    workers: BTreeSet<u32>,
    last_worker: u32,
    is_closed: bool,
    failure: Option<Error>,
    is_estimated: bool,
    files: BTreeMap<u64, Arriving>,
}

#[derive(Clone)]
struct Arriving {
    name: String,
    size: u64,
    applied: u64,
    /// A task is at it.
    is_busy: bool,
}

impl Run {
    pub(super) fn start(session: &SimSession, id: CloneId, directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        fs::create_dir(incomplete(directory)).expect("nothing is left of another clone");
        Self {
            id,
            sim: Arc::clone(&session.host.sim),
            key: session.host.sim.key(),
            directory: directory.to_owned(),
            state: Mutex::default(),
        }
    }

    pub(super) fn add_task(&self) -> Result<u32> {
        let mut state = self.state();
        state.check_failure()?;
        if state.is_closed {
            return Err(protocol("task for a clone that has ended"));
        }
        state.last_worker += 1;
        let worker = state.last_worker;
        state.workers.insert(worker);
        Ok(worker)
    }

    /// Forgets the network's failure, and says what has come.
    pub(super) fn restart(&self) -> Locator {
        let mut state = self.state();
        assert!(state.workers.is_empty(), "restarted while workers run");
        state.failure = None;
        let states = state.files.iter().map(|(file, arriving)| {
            assert!(!arriving.is_busy, "restarted while a file is written");
            FileState { file: *file, applied: FileSize::new(arriving.applied).unwrap() }
        });
        Locator::Clone { id: self.id, states: states.collect() }
    }

    pub(super) fn apply(
        &self,
        session: &SimSession,
        task: u32,
        descriptor: &[u8],
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        {
            let state = self.state();
            assert!(task == super::MAIN || state.workers.contains(&task), "an unknown task");
            state.check_failure()?;
        }
        if session.handle.is_killed() {
            return Err(Error::Interrupted);
        }
        let outcome = match Descriptor::parse(descriptor)? {
            Descriptor::AddEstimate(estimate) => {
                self.state().is_estimated = true;
                callbacks.add_estimate(estimate.bytes);
                Ok(())
            }
            Descriptor::FileNameMap(map) => self.add(&map),
            Descriptor::FileChunk(chunk) => self.write(session, chunk, descriptor, callbacks),
        };
        outcome.inspect_err(|error| self.fail(error))
    }

    fn add(&self, map: &FileNameMap<'_>) -> Result<()> {
        let mut state = self.state();
        let name = map.name.as_str().to_owned();
        let arriving = Arriving { name, size: map.size.get(), applied: 0, is_busy: false };
        if let Some(known) = state.files.get(&map.file) {
            // After a restart a donor says the name again of a file of which nothing had come.
            let is_same = (&known.name, known.applied) == (&arriving.name, 0);
            return if is_same { Ok(()) } else { Err(protocol("file number used twice")) };
        }
        if state.files.values().any(|known| known.name == arriving.name) {
            return Err(protocol("file name with two numbers"));
        }
        File::create_new(self.path(&arriving.name)).unwrap();
        state.files.insert(map.file, arriving);
        Ok(())
    }

    fn write(
        &self,
        session: &SimSession,
        chunk: FileChunk,
        descriptor: &[u8],
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        let step = session.host.follower.step(session, FollowerStep::Write)?;
        let arriving = self.busy(chunk.file, true)?;
        let path = self.path(&arriving.name);
        let mut file = match step {
            Action::DiskFull => File::options().write(true).open("/dev/full").unwrap(),
            _ => File::options().write(true).open(&path).unwrap(),
        };
        file.seek(SeekFrom::Start(arriving.applied)).unwrap();
        let name = path.to_string_lossy();
        let view = View {
            descriptor,
            destination_name: &name,
            is_os_buffer_cached: true,
            ..View::default()
        };
        let outcome = callbacks.apply_file(&view, file.as_fd());
        self.busy(chunk.file, false)?;
        outcome?;
        let applied = arriving.applied + u64::from(chunk.len);
        if applied > arriving.size || file.stream_position().unwrap() != applied {
            return Err(protocol("data length differs from its descriptor"));
        }
        self.state().files.get_mut(&chunk.file).unwrap().applied = applied;
        Ok(())
    }

    /// A task begins or ends with a file.
    fn busy(&self, file: u64, is_busy: bool) -> Result<Arriving> {
        let mut state = self.state();
        let found = state.files.get_mut(&file);
        let arriving = found.ok_or_else(|| protocol("chunk of an unknown file"))?;
        if arriving.is_busy && is_busy {
            return Err(protocol("file that two tasks write"));
        }
        arriving.is_busy = is_busy;
        Ok(arriving.clone())
    }

    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.state();
        if state.failure.as_ref().is_none_or(Error::is_network) {
            state.failure = Some(error.clone());
        }
    }

    pub(super) fn end_worker(&self, task: u32, error: u32) {
        if error != 0 {
            self.fail(&Error::Raised(error));
        }
        assert!(self.state().workers.remove(&task), "a task that has not ended");
        self.sim.notify(self.key);
    }

    /// The main task's end: makes the clone complete, or removes it.
    pub(super) fn end(&self, session: &SimSession, error: u32) -> Result<()> {
        if error != 0 {
            self.fail(&Error::Raised(error));
        }
        self.state().is_closed = true;
        while !self.state().workers.is_empty() {
            if session.handle.is_killed() {
                return Err(Error::Interrupted);
            }
            self.sim.wait(self.key, None);
        }
        let outcome = self.check_complete(session);
        let from = incomplete(&self.directory);
        match &outcome {
            Ok(()) => {
                let _ = fs::remove_dir_all(complete(&self.directory));
                fs::rename(from, complete(&self.directory)).unwrap();
            }
            Err(_) => fs::remove_dir_all(from).unwrap(),
        }
        outcome
    }

    fn check_complete(&self, session: &SimSession) -> Result<()> {
        // A worker's connection, too, may have been lost with a file in it whose name had not come.
        self.state().check_failure()?;
        session.host.follower.step(session, FollowerStep::Complete)?;
        let state = self.state();
        if !state.is_estimated {
            return Err(protocol("end without an estimate"));
        }
        match state.files.values().find(|file| file.applied != file.size) {
            None => Ok(()),
            Some(file) => Err(protocol(&format!("end with {} of {}", file.applied, file.name))),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        incomplete(&self.directory).join(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn check_failure(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}
