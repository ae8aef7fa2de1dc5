// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's clone interface over a [`ColdDirectory`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_core::engine::{Begun, BlockOutput, Cancel, Engine, Mode, ServerEngine, TaskId, View};
use clone_core::error::{Error, NetworkError, Result, number};
use clone_innodb::clock::SystemClock;
use clone_innodb::cold::ColdDirectory;
use clone_innodb::error::{Error as InnodbError, Result as InnodbResult};
use clone_innodb::source::{self, Output, SourceOptions, SourceTask, Sources};
use clone_protocol::innodb::{DB_TYPE, Descriptor, Locator, SnapshotState};
use rustix::rand::{GetRandomFlags, getrandom};

use super::facts::RECONNECT_MINUTES;
use super::host::ColdSession;

/// The most clones at once.
const MAX_CLONES: usize = 64;

/// The first task.
const MASTER: u32 = 0;

/// The handle of the engine. All copies stand for one.
#[derive(Clone, Debug)]
pub(super) struct ColdInnodb {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: ColdDirectory,
    sources: Sources,
    /// By the id of the clone and the number of the task. A task at work is not here.
    tasks: Mutex<BTreeMap<(u64, u32), SourceTask>>,
    /// Clones that a recipient has got whole.
    completed: AtomicU64,
}

impl ColdInnodb {
    /// # Errors
    /// The system gives no random number.
    pub(super) fn new(directory: ColdDirectory) -> io::Result<Self> {
        // A recipient that comes back is known by the id of its clone alone: an id that nobody can
        // guess, and that no other run of this program has.
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let first_id = (u64::from_le_bytes(random) >> 1).max(1);
        let geometry = directory.geometry();
        let options = SourceOptions { max_clones: MAX_CLONES, geometry, first_id };
        let shared = Shared {
            directory,
            sources: Sources::new(Arc::new(SystemClock::default()), options),
            tasks: Mutex::default(),
            completed: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn directory(&self) -> &ColdDirectory {
        &self.shared.directory
    }

    /// Clones that a recipient has got whole.
    pub(super) fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::Relaxed)
    }

    /// Whether no clone is left.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.sources.is_empty()
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<(u64, u32), SourceTask>> {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, task: TaskId<'_>) -> Result<SourceTask> {
        let key = (parse(task.locator)?.clone_id, task.number);
        let found = self.tasks().remove(&key);
        found.ok_or_else(|| Error::Internal("a task that has ended".into()))
    }

    fn put(&self, task: SourceTask) {
        let key = (task.locator().clone_id, task.number());
        self.tasks().insert(key, task);
    }
}

impl ServerEngine<ColdSession> for ColdInnodb {
    fn db_type(&self) -> u8 {
        DB_TYPE
    }

    fn name(&self) -> String {
        "InnoDB".to_owned()
    }
}

impl Engine<ColdSession> for ColdInnodb {
    fn begin(
        &self,
        session: &ColdSession,
        locator: Option<&[u8]>,
        mode: Mode,
        _: u32,
    ) -> Result<Begun> {
        let cancel = || session.is_killed();
        let locator = locator.map(parse).transpose()?;
        let sources = &self.shared.sources;
        let begun = match (mode, &locator) {
            (Mode::Start, _) => sources.start(&cancel),
            (Mode::AddTask, Some(locator)) => sources.add_task(&cancel, locator),
            (Mode::Restart, Some(locator)) => sources.restart(&cancel, locator),
            _ => return Err(Error::Protocol("Wrong Clone RPC: Init buffer length".into())),
        };
        let task = begun.map_err(told)?;
        let (number, locator) = (task.number(), task.locator());
        self.put(task);
        let mut bytes = Vec::new();
        Descriptor::Locator(locator).encode(&mut bytes);
        Ok(Begun { locator: bytes, task: number })
    }

    fn copy(
        &self,
        session: &ColdSession,
        task: TaskId<'_>,
        _: u32,
        callbacks: &mut dyn BlockOutput,
    ) -> Result<()> {
        let mut source = self.take(task)?;
        let mut output = Callbacks { callbacks };
        let copied = source.copy(&|| session.is_killed(), &self.shared.directory, &mut output);
        self.put(source);
        copied.map_err(told)
    }

    fn ack(
        &self,
        session: &ColdSession,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        let cancel = || session.is_killed();
        let acknowledged =
            self.shared.sources.acknowledge(&cancel, &parse(locator)?, error, descriptor);
        acknowledged.map_err(told)
    }

    fn end(&self, session: &ColdSession, task: TaskId<'_>, error: u32) -> Result<()> {
        let source = self.take(task)?;
        let is_whole = error == 0
            && source.number() == MASTER
            && source.locator().state == SnapshotState::Done;
        source.end(&|| session.is_killed(), error, Duration::from_secs(60 * RECONNECT_MINUTES));
        if is_whole {
            self.shared.completed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What a task of clone-innodb sends, for the callbacks of clone-core.
struct Callbacks<'a> {
    callbacks: &'a mut dyn BlockOutput,
}

impl source::BlockOutput for Callbacks<'_> {
    fn file(&mut self, output: &Output<'_>, file: BorrowedFd<'_>, len: u32) -> InnodbResult<()> {
        self.callbacks.file(&view(output), file, len).map_err(carried)
    }

    fn buffer(&mut self, output: &Output<'_>, data: &[u8]) -> InnodbResult<()> {
        self.callbacks.buffer(&view(output), data).map_err(carried)
    }
}

fn view<'a>(output: &Output<'a>) -> View<'a> {
    View {
        descriptor: output.descriptor,
        source_name: output.name,
        is_secure: output.is_secure,
        is_os_buffer_cached: true,
        is_zero_copy: true,
        ..View::default()
    }
}

/// An error of clone-core on its way through clone-innodb.
fn carried(error: Error) -> InnodbError {
    InnodbError::caller(error.number(), error)
}

/// An error of clone-innodb, for clone-core.
fn told(error: InnodbError) -> Error {
    match error {
        InnodbError::Caller { source, .. } => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::Internal(error.to_string()),
        },
        InnodbError::Interrupted => Error::Interrupted,
        InnodbError::Protocol(error) => error.into(),
        InnodbError::TooManyClones(_) => Error::TooManyClones,
        InnodbError::OtherTask(number) => other_task(number),
        InnodbError::Io { .. } | InnodbError::Refused(_) => {
            log::error!("{error}");
            Error::Internal(error.to_string())
        }
        other => Error::Internal(other.to_string()),
    }
}

/// The error of another connection of the same clone.
fn other_task(number: u32) -> Error {
    match number {
        number::ER_QUERY_INTERRUPTED => Error::Interrupted,
        number::ER_NET_READ_ERROR => NetworkError::Read.into(),
        number::ER_NET_READ_INTERRUPTED => NetworkError::ReadTimeout.into(),
        number::ER_NET_ERROR_ON_WRITE => NetworkError::Write.into(),
        number::ER_NET_WRITE_INTERRUPTED => NetworkError::WriteTimeout.into(),
        number => Error::Internal(format!("another connection of the clone: error {number}")),
    }
}

fn parse(locator: &[u8]) -> Result<Locator> {
    Locator::parse(locator).map_err(|_| Error::Protocol("Wrong Clone RPC: Invalid Locator".into()))
}
