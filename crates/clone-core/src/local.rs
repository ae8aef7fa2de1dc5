// SPDX-License-Identifier: GPL-2.0-only

//! `CLONE LOCAL DATA DIRECTORY`: donor and recipient in one server.
//!
//! Each task is both sides at once: the engine copies, and inside its callback the same engine
//! applies. Bytes go from file to file, inside the kernel where possible.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clone_io::{ALIGNMENT, AlignedBuffer, CopyError, FileWriter};

use crate::consistency_point::{ConsistencyPoint, PointEvent};
use crate::engine::{BlockInput, BlockOutput, Engine, Mode, View};
use crate::error::{Error, Result};
use crate::new_directory::NewDirectory;
use crate::session::{self, Host, ServerSession, Work, WorkerKind};
use crate::settings::Settings;
use crate::sink::{Origin, Sharing, Sink, TargetFile};
use crate::tasks::{DestinationTasks, EngineClone, SourceTask, SourceTasks};
use crate::traffic::Traffic;
use crate::workers::Workers;

/// Clones this server into `directory`.
///
/// A server runs the clone on its [`StatusBoard`](crate::board::StatusBoard::run).
///
/// # Errors
/// The first error of the clone, in the session's diagnostics area. What the clone has written is
/// removed.
pub fn clone_local<S: ServerSession>(session: &S, directory: PathBuf) -> Result<()> {
    let settings = session.host().settings();
    let shared = Arc::new(Shared {
        directory,
        new_directory: NewDirectory::default(),
        buffer_size: buffer_size(&settings),
        clone: OnceLock::new(),
        files: FileWriter::default(),
        sharing: Sharing::default(),
        traffic: Traffic::new(),
    });
    let workers = Workers::new(settings.max_concurrency);
    workers.next_stage(session, 0);
    let outcome = Task::new(session, Arc::clone(&shared), Some(workers)).master(settings);
    if outcome.is_err() && !settings.keep_failed_directory {
        shared.new_directory.remove(&shared.directory);
    }
    outcome
}

/// What all tasks of a local clone share.
struct Shared<S: ServerSession> {
    directory: PathBuf,
    new_directory: NewDirectory,
    buffer_size: u32,
    /// Set by the master before the first worker starts.
    clone: OnceLock<Sides<S>>,
    files: FileWriter,
    sharing: Sharing,
    traffic: Traffic,
}

impl<S: ServerSession> Shared<S> {
    fn point(&self) -> Option<&ConsistencyPoint<S::Engine>> {
        self.clone.get().and_then(|sides| sides.point.as_ref())
    }
}

/// Both sides' locators, in the same order.
struct Sides<S: ServerSession> {
    source: Vec<EngineClone<S::Engine>>,
    destination: Vec<EngineClone<S::Engine>>,
    /// Present if other engines follow InnoDB.
    point: Option<ConsistencyPoint<S::Engine>>,
}

/// All tasks together take at most this much buffer, bytes.
const MAX_BUFFERS: u32 = 128 * 1024 * 1024;

fn buffer_size(settings: &Settings) -> u32 {
    settings.buffer_size.min(MAX_BUFFERS / settings.max_concurrency.max(1))
}

/// One thread of a local clone.
struct Task<'s, S: ServerSession> {
    session: &'s S,
    shared: Arc<Shared<S>>,
    /// The master has this; a worker does not.
    workers: Option<Workers<S::Host>>,
    buffer: AlignedBuffer,
    /// Present from the end of PAGE COPY to the beginning of REDO COPY, if other engines follow
    /// InnoDB.
    commit_block: Option<S::CommitBlock>,
}

impl<'s, S: ServerSession> Task<'s, S> {
    fn new(session: &'s S, shared: Arc<Shared<S>>, workers: Option<Workers<S::Host>>) -> Self {
        Self { session, shared, workers, buffer: AlignedBuffer::new(), commit_block: None }
    }

    fn master(mut self, settings: Settings) -> Result<()> {
        let session = self.session;
        if !settings.block_ddl {
            return self.copy_as_master(settings);
        }
        session.lock_backup(settings.ddl_timeout)?;
        let outcome = self.copy_as_master(settings);
        session.unlock_backup();
        outcome
    }

    fn copy_as_master(&mut self, settings: Settings) -> Result<()> {
        let session = self.session;
        let source = SourceTasks::begin_all(session, settings.ddl_timeout)?;
        let mut clones = source.engine_clones();
        let destination = match self.begin_destination(&mut clones, settings) {
            Ok(destination) => destination,
            Err(error) => {
                source.end(session, error.number());
                return Err(error);
            }
        };
        let source_clones = source.engine_clones();
        let point = ConsistencyPoint::of(&source_clones, settings.ddl_timeout);
        let sides = Sides { source: source_clones, destination: clones, point };
        let _ = self.shared.clone.set(sides);
        let processors = session.host().processors();
        let initial =
            self.workers.as_ref().map_or(0, |workers| workers.initial(&settings, processors));
        self.grow(initial);
        self.copy(source, destination)
    }

    fn begin_destination(
        &self,
        clones: &mut [EngineClone<S::Engine>],
        settings: Settings,
    ) -> Result<DestinationTasks> {
        if settings.block_ddl {
            // InnoDB releases all backup locks of the session if it had to open tablespaces. So
            // take the lock again.
            self.session.lock_backup(settings.ddl_timeout)?;
        }
        let directory = self.shared.directory.as_path();
        self.shared.new_directory.note(directory);
        DestinationTasks::begin(self.session, clones, Mode::Start, Some(directory))
    }

    fn worker(mut self) -> Result<()> {
        let session = self.session;
        let shared = Arc::clone(&self.shared);
        let Some(sides) = shared.clone.get() else { return Ok(()) };
        let engines =
            sides.source.iter().map(|one| (one.engine.clone(), Some(one.locator.clone())));
        let source = SourceTasks::begin(session, engines, Mode::AddTask, 0)?;
        // The source's locator names the state that the destination must have reached before it
        // takes data of this task.
        let mut clones = source.engine_clones();
        let directory = Some(shared.directory.as_path());
        match DestinationTasks::begin(session, &mut clones, Mode::AddTask, directory) {
            Ok(destination) => self.copy(source, destination),
            Err(error) => {
                source.end(session, error.number());
                Err(error)
            }
        }
    }

    /// Copies until the end of the clone, and ends both sides.
    fn copy(
        &mut self,
        source: SourceTasks<S::Engine>,
        destination: DestinationTasks,
    ) -> Result<()> {
        let session = self.session;
        let shared = Arc::clone(&self.shared);
        let clones = shared.clone.get().map_or(&[][..], |sides| &sides.destination);
        let outcome = source.iter().zip(clones).try_for_each(|(from, to)| {
            let mut copier = Copier { task: self, from, to, destination: &destination };
            from.copy(session, shared.buffer_size, &mut copier)
        });
        // The block of commits still exists only if the clone has failed.
        self.commit_block = None;
        if let Err(error) = &outcome {
            session.raise(error);
            // A worker may wait in the engine for a state that will not come.
            destination.fail(session, clones, error.number());
        }
        if let Some(workers) = &mut self.workers {
            workers.join();
            if clones.len() > 1 {
                // Other engines copy their data after InnoDB's last state. That stage ends here.
                workers.finish_stage(session, &shared.traffic.meter);
            }
        }
        // InnoDB looks for KILL when it ends its task, gives the clone up, and does not say so.
        let outcome = outcome.and_then(|()| self.check_killed());
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let ended = destination.end(session, clones, error);
        source.end(session, error);
        outcome.and(ended).and_then(|()| self.check_killed())
    }

    /// The statement is killed: its clone fails, also if all data is copied.
    fn check_killed(&self) -> Result<()> {
        if self.workers.is_some() { session::check_killed(self.session) } else { Ok(()) }
    }

    fn grow(&mut self, wanted: u32) {
        let Some(workers) = &mut self.workers else { return };
        workers.grow(self.session, WorkerKind::Local, wanted, || -> Work<S> {
            let shared = Arc::clone(&self.shared);
            Box::new(move |session| {
                // The worker has reported its error to the engine, which gives it to the master.
                let _ = Task::new(session, shared, None).worker();
            })
        });
    }

    fn unblock_commits(&mut self) -> Result<()> {
        let Some(point) = self.shared.point() else { return Ok(()) };
        point.unblock_commits(self.commit_block.take())
    }

    fn tune(&mut self) {
        let Some(workers) = &mut self.workers else { return };
        let wanted = workers.tune(self.session, &self.shared.traffic.meter);
        self.grow(wanted);
    }
}

/// Takes the data that the source copies, and makes the destination apply them.
struct Copier<'a, 's, S: ServerSession> {
    task: &'a mut Task<'s, S>,
    from: &'a SourceTask<S::Engine>,
    to: &'a EngineClone<S::Engine>,
    destination: &'a DestinationTasks,
}

impl<S: ServerSession> Copier<'_, '_, S> {
    fn apply(&mut self, view: &View<'_>, block: Block<'_>) -> Result<()> {
        let session = self.task.session;
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        let from = &self.from.clone;
        let mut applier = Applier { task: self.task, from, source: *view, block, failure: None };
        let (to, index) = (self.to, self.from.index());
        let outcome = self.destination.apply(session, to, index, view.descriptor, &mut applier);
        match applier.failure {
            Some(error) if outcome.is_ok() => Err(error),
            _ => outcome,
        }
    }
}

impl<S: ServerSession> BlockOutput for Copier<'_, '_, S> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.apply(view, Block::File(file, len))
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        if self.task.workers.is_some()
            && self.from.clone.is_innodb()
            && PointEvent::of(view.descriptor) == Some(PointEvent::RedoCopyBegins)
        {
            self.task.unblock_commits()?;
        }
        self.apply(view, Block::Memory(data))
    }
}

/// A block of data at the source.
#[derive(Clone, Copy)]
enum Block<'a> {
    /// This many bytes, from the file's current offset on.
    File(BorrowedFd<'a>, u32),
    Memory(&'a [u8]),
}

impl Block<'_> {
    fn len(self) -> usize {
        match self {
            Block::File(_, len) => len as usize,
            Block::Memory(data) => data.len(),
        }
    }
}

/// Feeds the destination from a block of the source.
struct Applier<'a, 's, S: ServerSession> {
    task: &'a mut Task<'s, S>,
    from: &'a EngineClone<S::Engine>,
    source: View<'a>,
    block: Block<'a>,
    /// The error of a callback, in case the engine does not pass it on.
    failure: Option<Error>,
}

impl<S: ServerSession> Applier<'_, '_, S> {
    fn note(&mut self, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome {
            self.task.session.raise(error);
            self.failure = Some(Error::Raised(error.number()));
        }
        outcome
    }

    /// A state of the snapshot begins or ended.
    fn next_state(&mut self, view: &View<'_>) -> Result<()> {
        let Task { session, shared, workers, commit_block, .. } = &mut *self.task;
        let Some(workers) = workers else { return Ok(()) };
        if let Some(estimate) = view.state_change {
            workers.next_stage(*session, estimate);
            return Ok(());
        }
        workers.finish_stage(*session, &shared.traffic.meter);
        let is_turn = self.from.is_innodb()
            && PointEvent::of(view.descriptor) == Some(PointEvent::PageCopyAcknowledged);
        if let Some(point) = shared.point().filter(|_| is_turn) {
            let mut wait = || if session.is_killed() { Err(Error::Interrupted) } else { Ok(()) };
            *commit_block = Some(point.fix(*session, &mut wait)?);
        }
        self.from.engine.ack(*session, &self.from.locator, 0, view.descriptor)
    }

    fn write(&mut self, view: &View<'_>, to: BorrowedFd<'_>) -> Result<()> {
        self.task.tune();
        let sink = TargetFile::of(to).sink(self.origin(view));
        let Task { shared, buffer, .. } = &mut *self.task;
        let write_error = |error| Error::file(true, view.destination_name, &error);
        match self.block {
            Block::Memory(data) if sink == Sink::Islands => {
                shared.files.write_islands(to, data).map_err(write_error)?;
            }
            Block::Memory(data) if sink == Sink::Write => {
                shared.files.write_all(to, data).map_err(write_error)?;
            }
            Block::Memory(data) => {
                let aligned = aligned(buffer, data.len())?;
                aligned.copy_from_slice(data);
                shared.files.write_all(to, aligned).map_err(write_error)?;
            }
            Block::File(from, len) => {
                let (len, piece) = (u64::from(len), shared.buffer_size as usize);
                let inside_kernel = sink == Sink::Kernel;
                shared.files.copy(from, to, len, inside_kernel, buffer, piece).map_err(
                    |error| match error {
                        CopyError::Read(error) => {
                            Error::file(false, self.source.source_name, &error)
                        }
                        CopyError::Write(error) => write_error(error),
                    },
                )?;
            }
        }
        self.pace()
    }

    /// The facts that decide how the block gets into its file.
    fn origin(&self, view: &View<'_>) -> Origin {
        match self.block {
            Block::Memory(data) => {
                Origin::Memory { is_aligned: data.as_ptr().addr().is_multiple_of(ALIGNMENT) }
            }
            Block::File(from, _) => {
                let shared = &self.task.shared;
                let is_cached = self.source.is_os_buffer_cached && view.is_os_buffer_cached;
                Origin::File {
                    is_direct: clone_io::is_direct(from),
                    shares: shared.sharing.can_share(from, &shared.directory),
                    allows_kernel: !is_cached || self.source.is_zero_copy || view.is_zero_copy,
                }
            }
        }
    }

    /// Brings the block into memory that the engine may change.
    fn fill(&mut self) -> Result<()> {
        self.task.tune();
        let bytes = aligned(&mut self.task.buffer, self.block.len())?;
        match self.block {
            Block::Memory(data) => bytes.copy_from_slice(data),
            Block::File(from, _) => clone_io::read_exact(from, bytes)
                .map_err(|error| Error::file(false, self.source.source_name, &error))?,
        }
        self.pace()
    }

    fn pace(&self) -> Result<()> {
        self.task.shared.traffic.pace(self.task.session, self.block.len() as u64, 0)
    }
}

fn aligned(buffer: &mut AlignedBuffer, len: usize) -> Result<&mut [u8]> {
    buffer.aligned(len).map_err(|_| Error::OutOfMemory(len))
}

impl<S: ServerSession> BlockInput for Applier<'_, '_, S> {
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
        let outcome = self.next_state(view);
        self.note(outcome)
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let outcome = self.write(view, file);
        self.note(outcome)
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        let outcome = self.fill();
        self.note(outcome)?;
        aligned(&mut self.task.buffer, self.block.len())
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.task.session.host().observer().add_estimate(bytes);
    }
}
