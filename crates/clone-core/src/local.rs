// SPDX-License-Identifier: GPL-2.0-only

//! `CLONE LOCAL DATA DIRECTORY`: donor and recipient in one server.
//!
//! Each task is both sides at once: the engine copies, and inside its callback the same engine applies. Bytes go from file to
//! file, inside the kernel where it can.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use clone_io::{AlignedBuffer, CopyError, FileWriter};
use clone_protocol::innodb::{self, Descriptor};

use crate::apply_order::{ApplyOrder, Role, Turn};
use crate::board::Begin;
use crate::crew::{Bound, Crew};
use crate::error::{Error, Result};
use crate::meeting::Seat;
use crate::point::{Point, Sign};
use crate::session::{Callbacks, Engine, Host, Mode, Session, Settings, View, Work, WorkerKind};
use crate::storage::{Destination, Located, Source};
use crate::traffic::Traffic;

/// Clones this server into `directory`.
///
/// # Errors
/// The first error of the clone, in the session's diagnostics area.
pub fn clone_local<S: Session>(session: &S, directory: String) -> Result<()> {
    let settings = session.host().settings();
    let shared = Arc::new(Shared {
        directory,
        buffer_size: buffer_size(&settings),
        clone: OnceLock::new(),
        files: FileWriter::default(),
        order: ApplyOrder::default(),
        traffic: Traffic::new(),
    });
    let begin = Begin {
        pid: session.id(),
        source: None,
        destination: Some(&shared.directory),
        now_us: session.host().unix_micros(),
    };
    crate::run_on_board(session, begin, || {
        let crew = Crew::new(settings.max_concurrency);
        crew.next_stage(session, 0);
        let shared = Arc::clone(&shared);
        Task::new(session, shared, Some(crew)).master(settings)
    })
}

/// What all tasks of a local clone share.
struct Shared<S: Session> {
    directory: String,
    buffer_size: u32,
    /// Set by the master before the first worker starts.
    clone: OnceLock<Sides<S>>,
    files: FileWriter,
    order: ApplyOrder,
    traffic: Traffic,
}

impl<S: Session> Shared<S> {
    fn point(&self) -> Option<&Point<S::Engine>> {
        self.clone.get().and_then(|sides| sides.point.as_ref())
    }
}

/// Both sides' locators, in the same order.
struct Sides<S: Session> {
    source: Vec<Located<S::Engine>>,
    destination: Vec<Located<S::Engine>>,
    /// There if engines follow InnoDB.
    point: Option<Point<S::Engine>>,
}

/// All tasks together take at most this much buffer, bytes.
const MAX_BUFFERS: u32 = 128 * 1024 * 1024;

fn buffer_size(settings: &Settings) -> u32 {
    settings.buffer_size.min(MAX_BUFFERS / settings.max_concurrency.max(1))
}

/// One thread of a local clone.
struct Task<'s, S: Session> {
    session: &'s S,
    shared: Arc<Shared<S>>,
    /// The master has this; a worker does not.
    crew: Option<Crew>,
    /// A worker has this while it is one of the destination's tasks in InnoDB.
    seat: Option<Seat>,
    buffer: AlignedBuffer,
    /// From the end of PAGE COPY to the beginning of REDO COPY, if engines follow InnoDB.
    commits_are_blocked: Option<S::CommitBlock>,
}

impl<'s, S: Session> Task<'s, S> {
    fn new(session: &'s S, shared: Arc<Shared<S>>, crew: Option<Crew>) -> Self {
        Self {
            session,
            shared,
            crew,
            seat: None,
            buffer: AlignedBuffer::new(),
            commits_are_blocked: None,
        }
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
        let source = Source::begin_all(session)?;
        let begun = self.begin_destination(&source, settings);
        let (destination, located) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                source.end(session, error.number());
                return Err(error);
            }
        };
        let point = Point::of(&source.located, settings.ddl_timeout);
        let sides = Sides { source: source.located.clone(), destination: located, point };
        let _ = self.shared.clone.set(sides);
        let initial = self
            .crew
            .as_ref()
            .map_or(0, |crew| crew.initial(&settings, session.host().processors(), true));
        self.grow(initial);
        self.copy(source, destination)
    }

    fn begin_destination(
        &self,
        source: &Source<S::Engine>,
        settings: Settings,
    ) -> Result<(Destination, Vec<Located<S::Engine>>)> {
        if settings.block_ddl {
            // InnoDB gives back all backup locks of the session if it had to open tablespaces: take it again.
            self.session.lock_backup(settings.ddl_timeout)?;
        }
        let mut located = source.located.clone();
        let directory = Some(self.shared.directory.as_str());
        let begun = Destination::begin(self.session, &mut located, Mode::Start, directory)?;
        Ok((begun, located))
    }

    fn worker(mut self) -> Result<()> {
        let session = self.session;
        let shared = Arc::clone(&self.shared);
        let Some(sides) = shared.clone.get() else { return Ok(()) };
        let engines = sides.source.iter().map(|one| (one.engine, Some(one.locator.clone())));
        let source = Source::begin(session, engines, Mode::AddTask)?;
        // The source's locator names the state that the destination must have reached before it takes data of this task.
        let mut located = source.located.clone();
        let directory = Some(shared.directory.as_str());
        match Destination::begin(session, &mut located, Mode::AddTask, directory) {
            Ok(destination) => {
                self.seat = Some(shared.order.join());
                self.copy(source, destination)
            }
            Err(error) => {
                source.end(session, error.number());
                Err(error)
            }
        }
    }

    /// Copies until the end of the clone, and ends both sides.
    fn copy(&mut self, source: Source<S::Engine>, mut destination: Destination) -> Result<()> {
        let session = self.session;
        let shared = Arc::clone(&self.shared);
        let located = shared.clone.get().map_or(&[][..], |sides| &sides.destination);
        let outcome = self.copy_each_engine(&source, &mut destination);
        self.seat = None;
        // Still there only if the clone has failed.
        self.commits_are_blocked = None;
        if let Err(error) = &outcome {
            session.raise(error);
            // A worker may be waiting there for a state that will not come.
            destination.fail(session, located, error.number());
        }
        if let Some(crew) = &mut self.crew {
            crew.join(session);
            if located.len() > 1 {
                // What was copied after InnoDB's last state has ended.
                crew.finish_stage(session, &shared.traffic.meter);
            }
        }
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let ended = destination.end(session, located, error);
        source.end(session, error);
        outcome.and(ended)
    }

    fn copy_each_engine(
        &mut self,
        source: &Source<S::Engine>,
        destination: &mut Destination,
    ) -> Result<()> {
        let session = self.session;
        let shared = Arc::clone(&self.shared);
        let located = shared.clone.get().map_or(&[][..], |sides| &sides.destination);
        for (index, (from, task)) in source.located.iter().zip(&source.tasks).enumerate() {
            let Some(to) = located.get(index) else {
                return Err(Error::Internal("Clone lost its destination".to_owned()));
            };
            let destination = &mut *destination;
            let mut copier = Copier { task: self, from, to, destination, locator_index: index };
            let size = shared.buffer_size;
            from.engine.copy(session, &from.locator, *task, size, index, &mut copier)?;
        }
        Ok(())
    }

    fn grow(&mut self, wanted: u32) {
        let Some(crew) = &mut self.crew else { return };
        crew.grow(self.session, WorkerKind::Local, wanted, || -> Work<S> {
            let shared = Arc::clone(&self.shared);
            Box::new(move |session| {
                // A worker's error is in the engine by then, where the master finds it.
                let _ = Task::new(session, shared, None).worker();
            })
        });
    }

    fn let_commits_go(&mut self) -> Result<()> {
        let Some(point) = self.shared.point() else { return Ok(()) };
        point.let_commits_go(self.session, self.commits_are_blocked.take())
    }

    /// A block of so many bytes has shown a bound.
    fn suit(&mut self, bound: Bound, len: u64) {
        let Some(crew) = &mut self.crew else { return };
        let wanted = crew.suit(self.session, bound, len);
        self.grow(wanted);
    }

    fn tune(&mut self) {
        let Some(crew) = &mut self.crew else { return };
        let wanted = crew.tune(self.session, &self.shared.traffic.meter);
        self.grow(wanted);
    }
}

/// Takes what the source copies, and has the destination apply it.
struct Copier<'a, 's, S: Session> {
    task: &'a mut Task<'s, S>,
    from: &'a Located<S::Engine>,
    to: &'a Located<S::Engine>,
    destination: &'a mut Destination,
    locator_index: usize,
}

impl<S: Session> Copier<'_, '_, S> {
    fn apply(&mut self, view: &View<'_>, block: Block<'_>) -> Result<()> {
        let session = self.task.session;
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        let shared = Arc::clone(&self.task.shared);
        let is_innodb = self.to.engine.db_type() == innodb::DB_TYPE;
        let innodb = Descriptor::parse(view.descriptor).ok().filter(|_| is_innodb);
        let Some(to_task) = self.destination.task(self.locator_index) else {
            return match innodb {
                Some(Descriptor::State(_)) => Ok(()),
                _ => Err(Error::Internal("Clone lost its destination".to_owned())),
            };
        };
        let role = match self.task.crew {
            Some(_) => Role::Master { creates_late: true },
            None => Role::Worker,
        };
        let apply = |descriptor: &[u8]| {
            let mut applier =
                Applier { task: self.task, from: self.from, source: *view, block, failure: None };
            let outcome = self.to.engine.apply(
                session,
                &self.to.locator,
                to_task,
                self.locator_index,
                descriptor,
                &mut applier,
            );
            match applier.failure {
                Some(error) if outcome.is_ok() => Err(error),
                _ => outcome,
            }
        };
        let descriptor = view.descriptor;
        match shared.order.apply(session, role, innodb.as_ref(), descriptor, apply)? {
            Turn::GoOn => {}
            Turn::Leave => {
                self.destination.leave(session, self.to, self.locator_index)?;
                self.task.seat = None;
            }
        }
        Ok(())
    }
}

impl<S: Session> Callbacks for Copier<'_, '_, S> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.apply(view, Block::File(file, len))
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        if self.task.crew.is_some()
            && self.from.engine.db_type() == innodb::DB_TYPE
            && Sign::of(view.descriptor) == Some(Sign::RedoCopyBegins)
        {
            self.task.let_commits_go()?;
        }
        self.apply(view, Block::Memory(data))
    }

    fn apply_file(&mut self, _: &View<'_>, _: BorrowedFd<'_>) -> Result<()> {
        Err(Error::Internal("Apply callback from Clone Local".to_owned()))
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        Err(Error::Internal("Apply callback from Clone Local".to_owned()))
    }
}

/// A block of data at the source.
#[derive(Clone, Copy)]
enum Block<'a> {
    /// So many bytes from the current offset of the file.
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
struct Applier<'a, 's, S: Session> {
    task: &'a mut Task<'s, S>,
    from: &'a Located<S::Engine>,
    source: View<'a>,
    block: Block<'a>,
    /// What a callback failed with, should the engine not pass it on.
    failure: Option<Error>,
}

impl<S: Session> Applier<'_, '_, S> {
    fn note(&mut self, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome {
            self.task.session.raise(error);
            self.failure = Some(Error::Raised(error.number()));
        }
        outcome
    }

    /// A state of the snapshot begins or ended.
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
        let Task { session, shared, crew, commits_are_blocked, .. } = &mut *self.task;
        let Some(crew) = crew else { return Ok(()) };
        if let Some(estimate) = view.state_change {
            crew.next_stage(*session, estimate);
            return Ok(());
        }
        crew.finish_stage(*session, &shared.traffic.meter);
        let is_turn = self.from.engine.db_type() == innodb::DB_TYPE
            && Sign::of(view.descriptor) == Some(Sign::PageCopyAcknowledged);
        if let Some(point) = shared.point().filter(|_| is_turn) {
            let mut wait = || if session.is_killed() { Err(Error::Interrupted) } else { Ok(()) };
            *commits_are_blocked = Some(point.fix(*session, &mut wait)?);
        }
        self.from.engine.ack(*session, &self.from.locator, 0, view.descriptor)
    }

    fn write(&mut self, view: &View<'_>, to: BorrowedFd<'_>) -> Result<()> {
        self.task.tune();
        let write_error = |error| Error::file(true, view.destination_name, &error);
        match self.block {
            Block::Memory(data) => {
                let bytes = if view.is_os_buffer_cached {
                    data
                } else {
                    let aligned = self.task.buffer.aligned(data.len());
                    aligned.copy_from_slice(data);
                    aligned
                };
                self.task.shared.files.write_all(to, bytes).map_err(write_error)?;
            }
            Block::File(from, len) => {
                let inside_kernel = self.is_for_kernel(view, from, to);
                let bound = if inside_kernel { Bound::Memory } else { Bound::Disk };
                self.task.suit(bound, u64::from(len));
                let Task { shared, buffer, .. } = &mut *self.task;
                let copied = shared.files.copy(
                    from,
                    to,
                    u64::from(len),
                    inside_kernel,
                    buffer,
                    shared.buffer_size as usize,
                );
                copied.map_err(|error| match error {
                    CopyError::Read(error) => Error::file(false, self.source.source_name, &error),
                    CopyError::Write(error) => write_error(error),
                })?;
            }
        }
        self.account()
    }

    fn is_for_kernel(&self, view: &View<'_>, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
        if self.source.is_os_buffer_cached && view.is_os_buffer_cached {
            return self.source.is_zero_copy || view.is_zero_copy;
        }
        self.task.shared.files.suits_kernel(from, to)
    }

    /// Brings the block into memory that the engine may change.
    fn fill(&mut self) -> Result<()> {
        self.task.tune();
        let bytes = self.task.buffer.aligned(self.block.len());
        match self.block {
            Block::Memory(data) => bytes.copy_from_slice(data),
            Block::File(from, _) => clone_io::read_exact(from, bytes)
                .map_err(|error| Error::file(false, self.source.source_name, &error))?,
        }
        self.account()
    }

    fn account(&self) -> Result<()> {
        self.task.shared.traffic.account(self.task.session, self.block.len() as u64, 0)
    }
}

impl<S: Session> Callbacks for Applier<'_, '_, S> {
    fn file(&mut self, _: &View<'_>, _: BorrowedFd<'_>, _: u32) -> Result<()> {
        Err(Error::Internal("Copy callback from Clone Local".to_owned()))
    }

    fn buffer(&mut self, view: &View<'_>, _: &[u8]) -> Result<()> {
        let outcome = self.change_state(view);
        self.note(outcome)
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let outcome = self.write(view, file);
        self.note(outcome)
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        let outcome = self.fill();
        self.note(outcome)?;
        Ok(self.task.buffer.aligned(self.block.len()))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.task.session.host().board().add_estimate(bytes);
    }
}
