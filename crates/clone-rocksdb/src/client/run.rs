// SPDX-License-Identifier: GPL-2.0-only

//! One clone, from START to the main task's end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clone_engine::{BlockInput, Cancel, Error, Result, Tasks, View};
use clone_protocol::rocksdb::{CloneId, Descriptor, FileChunk, Locator};

use super::files::Files;
use super::protocol;
use crate::layout::Places;
use crate::storage::Storage;
use crate::swap;
use clone_swap::disk::RealDisk;

/// A clone that is running.
pub(super) struct Run {
    id: CloneId,
    places: Places,
    required: Option<String>,
    tasks: Tasks,
    files: Files,
    /// What a task failed with; ends all of them.
    failure: Mutex<Option<Error>>,
}

impl Run {
    /// Makes the directories, which are not there or left over.
    pub(super) fn start(id: CloneId, places: Places, required: Option<String>) -> Result<Self> {
        swap::check_idle(Storage(&RealDisk), &places)?;
        Storage(&RealDisk).prepare(&places)?;
        let run = Self {
            id,
            places,
            required,
            tasks: Tasks::new(),
            files: Files::default(),
            failure: Mutex::new(None),
        };
        run.tasks.add_main();
        Ok(run)
    }

    pub(super) fn id(&self) -> CloneId {
        self.id
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn add_task(&self) -> Result<u32> {
        self.check_failure()?;
        self.tasks.add_worker()
    }

    /// Forgets the network's failure, and says what has come.
    pub(super) fn restart(&self) -> Result<Locator> {
        let states = self.files.pause()?;
        *self.failure() = None;
        Ok(Locator::Clone { id: self.id, states })
    }

    pub(super) fn apply(
        &self,
        session: &dyn Cancel,
        task: u32,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        self.tasks.verify(task)?;
        self.check_failure()?;
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        let outcome = match Descriptor::parse(descriptor)? {
            Descriptor::AddEstimate(estimate) => {
                self.files.estimate();
                input.add_estimate(estimate.bytes);
                Ok(())
            }
            Descriptor::FileNameMap(map) => self.files.add(&self.places, map),
            Descriptor::FileChunk(chunk) => self.apply_chunk(chunk, descriptor, input),
        };
        outcome.inspect_err(|error| self.fail(error))
    }

    fn apply_chunk(
        &self,
        chunk: FileChunk,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        self.files.write(chunk, |file, path| {
            let view = View {
                descriptor,
                destination_name: &path.to_string_lossy(),
                is_os_buffer_cached: true,
                ..View::default()
            };
            input.apply_file(&view, file)
        })
    }

    /// Remembers why the clone cannot go on. Of two reasons the first counts, unless it was the
    /// network: that one may heal, and then the other is still there.
    pub(super) fn fail(&self, error: &Error) {
        let mut failure = self.failure();
        if failure.as_ref().is_none_or(Error::is_network) {
            *failure = Some(error.clone());
        }
    }

    pub(super) fn end_worker(&self, task: u32, error: u32) -> Result<()> {
        if error != 0 {
            self.fail(&Error::Raised(error));
        }
        if self.tasks.remove(task) { Ok(()) } else { Err(protocol("unknown task")) }
    }

    /// The main task's end: makes the clone complete, or removes it.
    pub(super) fn end(&self, session: &dyn Cancel, error: u32) -> Result<()> {
        if error != 0 {
            self.fail(&Error::Raised(error));
        }
        let outcome = self
            .tasks
            .wait_for_workers(session)
            // Also if only a worker's connection was lost: what was lost with it may be a file of
            // which not even the name has come.
            .and_then(|()| self.check_failure())
            .and_then(|()| self.files.check_complete(self.required.as_deref()))
            .and_then(|()| Storage(&RealDisk).complete(&self.places));
        self.tasks.remove(Tasks::MAIN);
        if let Err(error) = &outcome {
            self.fail(error);
            // What is left has the marker, and goes when the next clone or the server starts.
            let _ = Storage(&RealDisk).discard(&self.places);
        }
        outcome
    }

    fn check_failure(&self) -> Result<()> {
        self.failure().clone().map_or(Ok(()), Err)
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
