// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB as the recipient's engine: [`clone_innodb`] behind the interface that clone-core has for
//! engines.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clone_core::engine::{self, Begun, Engine, Mode, ServerEngine, TaskId, View};
use clone_core::error::{Error, Result};
use clone_innodb::clock::SystemClock;
use clone_innodb::destination::{
    BlockInput, Destination, DestinationTask, EncryptedFiles, Options, Target, version_locator,
};
use clone_innodb::error::FileOperation;
use clone_protocol::innodb::{DB_TYPE, Descriptor, Locator, SnapshotState};

use super::session::PullSession;

/// The first task.
const MASTER: u32 = 0;

/// InnoDB of the directory that is pulled into. Copies stand for the same engine.
#[derive(Clone, Debug)]
pub(crate) struct Innodb(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    options: Options,
    /// The clone was begun by another process.
    is_resumed: bool,
    clone: Mutex<Clone>,
}

#[derive(Debug, Default)]
struct Clone {
    destination: Option<Arc<Destination>>,
    /// The tasks by their numbers. A task at work is not here.
    tasks: BTreeMap<u32, DestinationTask>,
}

impl Innodb {
    /// An engine for one clone into `directory`. With `is_resumed` another process has begun the
    /// clone, and [`Options::journal`] tells how far the clone is.
    pub(crate) fn new(directory: PathBuf, options: Options, is_resumed: bool) -> Self {
        Self(Arc::new(Inner { directory, options, is_resumed, clone: Mutex::default() }))
    }

    /// A panic of another task leaves at worst a task out, which then fails.
    fn clone(&self) -> MutexGuard<'_, Clone> {
        self.0.clone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destination(&self) -> Result<Arc<Destination>> {
        self.clone().destination.clone().ok_or_else(|| lost("the clone has not begun"))
    }

    fn take_task(&self, number: u32) -> Result<DestinationTask> {
        self.clone().tasks.remove(&number).ok_or_else(|| lost("a task that is not there"))
    }

    fn put_task(&self, task: DestinationTask) {
        self.clone().tasks.insert(task.number(), task);
    }

    /// Whether keys are encrypted with a master key.
    pub(super) fn has_keyring(&self) -> bool {
        matches!(self.0.options.encrypted, EncryptedFiles::Wrap(_))
    }

    /// Makes a clone that another process has copied whole one that a server can open.
    ///
    /// # Errors
    /// The journal does not say so; a file cannot be written.
    pub(super) fn complete(&self, locator: &[u8]) -> Result<()> {
        let locator =
            Locator::parse(locator).map_err(|error| Error::Protocol(error.to_string()))?;
        let Inner { directory, options, .. } = &*self.0;
        let clock = Arc::new(SystemClock::default());
        let destination = Destination::reopen(&locator, directory, options.clone(), clock);
        destination.and_then(|destination| destination.complete()).map_err(core_error)
    }

    fn start(&self, donor: &Locator) -> Result<Begun> {
        let Inner { directory, options, is_resumed, .. } = &*self.0;
        let clock = Arc::new(SystemClock::default());
        let destination = match is_resumed {
            false => Destination::create(donor, directory, options.clone(), clock),
            true => Destination::reopen(donor, directory, options.clone(), clock),
        };
        let destination = destination.map_err(core_error)?;
        // The master of a clone that goes on begins where this recipient is.
        let from = if *is_resumed { destination.locator() } else { donor.clone() };
        self.clone().destination = Some(Arc::clone(&destination));
        let task = destination.add_task(&never, &from).map_err(core_error)?;
        self.put_task(task);
        Ok(Begun { locator: encode(destination.locator()), task: MASTER })
    }

    fn add(&self, donor: &Locator) -> Result<Begun> {
        let task = self.destination()?.add_task(&never, donor).map_err(core_error)?;
        let number = task.number();
        self.put_task(task);
        Ok(Begun { locator: encode(donor.clone()), task: number })
    }

    fn restart(&self) -> Result<Begun> {
        let mut task = self.take_task(MASTER)?;
        let locator = task.restart();
        self.put_task(task);
        Ok(Begun { locator: encode(locator.map_err(core_error)?), task: MASTER })
    }
}

impl ServerEngine<PullSession> for Innodb {
    fn db_type(&self) -> u8 {
        DB_TYPE
    }

    fn name(&self) -> String {
        "InnoDB".to_owned()
    }
}

impl Engine<PullSession> for Innodb {
    fn apply_begin(
        &self,
        session: &PullSession,
        locator: Option<&[u8]>,
        mode: Mode,
        _: Option<&Path>,
    ) -> Result<Begun> {
        let named = locator.map(Locator::parse).transpose();
        let named = named.map_err(|error| Error::Protocol(error.to_string()))?;
        match (mode, named) {
            (Mode::Version, _) => Ok(Begun { locator: version_locator(), task: MASTER }),
            (Mode::Start, Some(donor)) => {
                session.note_start(locator.unwrap_or_default())?;
                self.start(&donor)
            }
            (Mode::AddTask, Some(donor)) => self.add(&donor),
            (Mode::Restart, _) => self.restart(),
            (Mode::Start | Mode::AddTask, None) => Err(lost("a clone without a locator")),
        }
    }

    fn apply(
        &self,
        _: &PullSession,
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn engine::BlockInput,
    ) -> Result<()> {
        let mut working = self.take_task(task.number)?;
        let applied = working.apply(&never, descriptor, &mut Input(input));
        self.put_task(working);
        applied.map_err(core_error)
    }

    fn apply_error(&self, _: &PullSession, _: TaskId<'_>, error: u32) -> Result<()> {
        self.destination()?.fail(error);
        Ok(())
    }

    fn apply_end(&self, _: &PullSession, task: TaskId<'_>, error: u32) -> Result<()> {
        // The end of a begin that only asked for the version has no task.
        if self.clone().destination.is_none() {
            return Ok(());
        }
        self.take_task(task.number)?.end(&never, error).map_err(core_error)
    }
}

/// The blocks of a task come from its connection.
struct Input<'a>(&'a mut dyn engine::BlockInput);

fn view<'a>(target: &Target<'a>) -> View<'a> {
    View {
        destination_name: target.name,
        is_os_buffer_cached: true,
        is_zero_copy: true,
        ..View::default()
    }
}

impl BlockInput for Input<'_> {
    fn write_to(
        &mut self,
        target: &Target<'_>,
        file: BorrowedFd<'_>,
    ) -> clone_innodb::error::Result<()> {
        self.0.apply_file(&view(target), file).map_err(carried)
    }

    fn read(&mut self, target: &Target<'_>) -> clone_innodb::error::Result<&mut [u8]> {
        self.0.apply_buffer(&view(target)).map_err(carried)
    }

    fn state_changed(&mut self, _: SnapshotState, estimate: u64) {
        let view = View { state_change: Some(estimate), ..View::default() };
        // Beginning a stage cannot fail; see `Applier::next_state`.
        let _ = self.0.change_state(&view);
    }

    fn acknowledge(&mut self, descriptor: &[u8]) -> clone_innodb::error::Result<()> {
        self.0.change_state(&View { descriptor, ..View::default() }).map_err(carried)
    }
}

/// A signal ends the whole process, so that no task is ever told to stop.
fn never() -> bool {
    false
}

fn encode(locator: Locator) -> Vec<u8> {
    let mut bytes = Vec::new();
    Descriptor::Locator(locator).encode(&mut bytes);
    bytes
}

/// An error of clone-core on its way through clone-innodb.
fn carried(error: Error) -> clone_innodb::error::Error {
    clone_innodb::error::Error::caller(error.number(), error)
}

/// The error of clone-innodb in clone-core.
pub(crate) fn core_error(error: clone_innodb::error::Error) -> Error {
    use clone_innodb::error::Error as Innodb;

    let text = error.to_string();
    match error {
        Innodb::Caller { number, source } => {
            source.downcast::<Error>().map_or(Error::Raised(number), |error| *error)
        }
        Innodb::DiskSpace { needed, free } => Error::DiskSpace { needed, free },
        Innodb::FileExists(path) => Error::FileExists(path.display().to_string()),
        Innodb::Interrupted => Error::Interrupted,
        Innodb::Io { what, path, source } => {
            let write = what != FileOperation::Read;
            Error::file(write, &path.to_string_lossy(), &source)
        }
        Innodb::NotSupported(what) => Error::NotSupported(what.into()),
        Innodb::OtherTask(number) => Error::Raised(number),
        Innodb::Protocol(error) => Error::Protocol(error.to_string()),
        _ => Error::Internal(text),
    }
}

fn lost(what: &str) -> Error {
    Error::Internal(format!("Clone lost its destination: {what}"))
}
