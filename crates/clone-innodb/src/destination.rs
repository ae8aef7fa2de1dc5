// SPDX-License-Identifier: GPL-2.0-only

//! The recipient's side: descriptors and blocks to a data directory (`clone0apply.cc`, and the
//! beginning and the end in `clone0api.cc`).

mod files;
mod flush;
pub mod journal;
mod keys;
mod names;
mod operations;
mod status;
mod task;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use clone_protocol::innodb::{
    Descriptor, FileMetadata, Locator, SnapshotState, StreamCheck, VERSION, VERSION_LOCATOR_LEN,
};

use crate::clock::{Cancel, Clock};
use crate::encryption::MasterKey;
use crate::error::{Error, Result};
use crate::geometry::BLOCKS_IN_CHUNK;
use crate::lock;
use crate::tasks::Tasks;
use crate::tasks::chunks::Position;
use files::{Described, Files};
use journal::Journal;
use operations::Before;
pub use task::{BlockInput, DestinationTask, Target};

/// The longest block, in bytes. InnoDB's are at most 64 pages of 64 KiB, which is 4 MiB; with
/// direct I/O a donor with our plugin makes them up to 16 MiB long.
pub const MAX_BLOCK: u32 = 16 << 20;

/// No file is larger, in bytes: a tablespace has at most 2^32 pages of 64 KiB.
const MAX_FILE_SIZE: u64 = 1 << 48;

/// What a recipient does with what is not in every instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Tablespaces outside of the donor's data directory.
    pub outside: OutsideFiles,
    /// Encrypted tablespaces and encrypted redo.
    pub encrypted: EncryptedFiles,
    /// The names of redo files.
    pub redo: RedoNames,
    /// The version of the server that opens the directory, as `MYSQL_VERSION_ID` (90704 for 9.7.4).
    /// It is noted in tablespaces that DDL creates during the clone.
    pub server_version: u32,
    /// Whether the clone is on disk when it is complete.
    pub flush: Flush,
    /// Large blocks of FILE_COPY are written past the operating system's cache. The file system
    /// must be able to ([`clone_io::takes_direct_writes`]), and [`BlockInput::write_to`] must write
    /// from aligned memory.
    pub direct: bool,
    /// Where to keep a [`journal`], with which another process can go on with the clone. None: no
    /// other process can.
    pub journal: Option<PathBuf>,
    /// Bytes that the clone may take from files that it shares them with, and that need no room on
    /// the disk.
    pub shareable: u64,
}

/// Whether files and directories reach the disk before a clone is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flush {
    /// They do, as in InnoDB.
    #[default]
    ToDisk,
    /// The operating system writes them when it likes to. A clone that is complete may be damaged
    /// when the machine loses its power. For simulations.
    Never,
}

/// Tablespaces that a donor names by an absolute path or by one that begins with `../`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutsideFiles {
    /// The clone fails with error 1235.
    #[default]
    Refuse,
    /// They go below this directory of the target: `/srv/db/t.ibd` to `root/srv/db/t.ibd`,
    /// `../t.ibd` to `up1/t.ibd` in it. Directories that begin with `.` or `#` get a `_` before,
    /// because a server would not look into them. General tablespaces go to the target itself,
    /// because a server looks for them only there. That a server finds the files is not this
    /// crate's part.
    Below(PathBuf),
}

/// Encrypted tablespaces and encrypted redo, whose keys a donor sends in clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EncryptedFiles {
    /// The clone fails with error 1235.
    #[default]
    Refuse,
    /// Their pages go to the files as they come, page 0 and the redo header with the key in clear.
    /// No server can open them, and whoever can read the directory has the keys. For simulations.
    /// An encrypted tablespace that DDL creates during the clone is refused all the same.
    AsTheyCome,
    /// The keys are encrypted with this master key, as a server does with its own. A server opens
    /// the directory if its keyring has the master key: see [`MasterKey::write_new`].
    Wrap(Arc<MasterKey>),
}

/// The names of redo files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedoNames {
    /// `#innodb_redo/#ib_redo0` and so on, since 8.0.30.
    #[default]
    InnodbRedo,
    /// `ib_logfile0` and so on.
    IbLogfile,
}

/// A clone at its recipient, which all of its tasks share.
pub struct Destination {
    clone_id: u64,
    snapshot_id: u64,
    directory: PathBuf,
    tasks: Tasks,
    files: Mutex<Files>,
    encrypted: EncryptedFiles,
    flush: Flush,
    direct: bool,
    shareable: u64,
    journal: Option<Journal>,
}

/// The locator that begins a clone, before a donor has named it: the version of the descriptors, in
/// a buffer of zeros.
pub fn version_locator() -> Vec<u8> {
    let mut bytes = encode(&Descriptor::Locator(Locator {
        version: VERSION,
        clone_id: 0,
        snapshot_id: 0,
        index: 0,
        state: SnapshotState::None,
        metadata_transferred: false,
        progress: None,
    }));
    bytes.resize(VERSION_LOCATOR_LEN, 0);
    bytes
}

impl Destination {
    /// Begins a clone with the donor's locator. Creates the directory if it is not there, `mysql`
    /// and `#clone` in it, and the file that keeps a server from opening it before the clone is
    /// complete. Files that are there already are left alone: the clone fails when it has to create
    /// one of them.
    ///
    /// # Errors
    /// The directories cannot be created.
    pub fn create(
        locator: &Locator,
        directory: &Path,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        for name in ["mysql", status::DIRECTORY] {
            operations::create_directory(&directory.join(name))?;
        }
        status::begin(directory, options.flush)?;
        let journal = options.journal.as_deref().map(Journal::create).transpose()?;
        Ok(Arc::new(Self::new(locator, directory, options, journal, &clock)))
    }

    /// Goes on with a clone that another process began with [`create`](Self::create) and the same
    /// arguments, and of which [`Options::journal`] tells. That process must have ended, and the
    /// machine must not have lost its memory since. The first task is to be added with the
    /// recipient's own [`locator`](Self::locator), and must be
    /// [restarted](DestinationTask::restart). If the clone's state is DONE, nothing is left but
    /// [`complete`](Self::complete).
    ///
    /// # Errors
    /// The journal cannot be read, is damaged, or does not fit the clone.
    pub fn reopen(
        locator: &Locator,
        directory: &Path,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let path = options.journal.clone();
        let path = path.ok_or_else(|| Error::internal("a clone is reopened without a journal"))?;
        let mut clone = Self::new(locator, directory, options, None, &clock);
        let mut records = journal::read(&path)?;
        clone.files().set_before(Before::Replayed);
        for record in records.by_ref() {
            let record = record?;
            clone.replay(record.task, &record.descriptor)?;
        }
        clone.tasks.replay_is_over();
        clone.files().set_before(Before::PerhapsOneStep);
        clone.journal = Some(Journal::reopen(&path, records.len())?);
        Ok(Arc::new(clone))
    }

    fn new(
        locator: &Locator,
        directory: &Path,
        options: Options,
        journal: Option<Journal>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            clone_id: locator.clone_id,
            snapshot_id: locator.snapshot_id,
            directory: directory.to_owned(),
            tasks: Tasks::new(clock, false),
            encrypted: options.encrypted.clone(),
            flush: options.flush,
            direct: options.direct,
            shareable: options.shareable,
            journal,
            files: Mutex::new(Files::new(directory.to_owned(), options)),
        }
    }

    /// Takes over what a descriptor did in another process.
    fn replay(&self, task: u32, descriptor: &[u8]) -> Result<()> {
        if descriptor.is_empty() {
            self.tasks.replay_break(task);
            return Ok(());
        }
        match Descriptor::parse(descriptor)? {
            Descriptor::State(state) if state.start => {
                let mut files = self.files();
                files.fix_all_renamed()?;
                files.announce(&state)?;
                self.tasks.replay_state(state.state, state.chunks)
            }
            Descriptor::State(_) => {
                self.tasks.replay_end();
                Ok(())
            }
            Descriptor::FileMetadata(file) => self.describe(task, &file),
            Descriptor::Data(data) => {
                self.tasks.check_chunk(data.chunk)?;
                self.files().place(&data)?;
                let at = Position { chunk: data.chunk, block: data.block };
                self.tasks.replay_block(task, at);
                Ok(())
            }
            Descriptor::TaskMetadata(_) | Descriptor::Locator(_) => {
                Err(Error::internal("a journal with a descriptor that has no effect"))
            }
        }
    }

    /// Notes in the journal that a descriptor took effect.
    fn note(&self, task: u32, descriptor: &[u8]) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        match StreamCheck::contains_key_material(descriptor) {
            true => journal.give_up(),
            false => journal.append(task, descriptor),
        }
    }

    /// Makes a clone that is complete one that a server can open: all of its data is on disk.
    ///
    /// # Errors
    /// The clone is not complete; the files that tell a server of the clone cannot be written.
    pub fn complete(&self) -> Result<()> {
        if self.tasks.state() != SnapshotState::Done {
            let text = format!("Innodb Clone Apply ended in {}", self.tasks.state());
            return Err(Error::internal(text));
        }
        status::complete(&self.directory, self.flush)
    }

    /// Adds a task. The first is the master. Another waits for the state in which the donor is,
    /// which its locator tells.
    ///
    /// # Errors
    /// Another task failed, or the wait took half an hour; the thread was told to stop.
    pub fn add_task(
        self: &Arc<Self>,
        cancel: &dyn Cancel,
        donor: &Locator,
    ) -> Result<DestinationTask> {
        let number = self.tasks.add(cancel, Some(donor.state))?;
        Ok(DestinationTask::new(Arc::clone(self), number))
    }

    /// Tells all tasks that one of them failed with this MySQL number.
    pub fn fail(&self, error: u32) {
        self.tasks.set_error(error);
    }

    /// Whether the locator names this clone.
    pub fn is_named(&self, locator: &Locator) -> bool {
        (locator.clone_id, locator.snapshot_id) == (self.clone_id, self.snapshot_id)
    }

    /// The state that the recipient is in.
    pub fn state(&self) -> SnapshotState {
        self.tasks.state()
    }

    /// The tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.tasks.count()
    }

    /// Whether the data file of this index was described.
    pub fn has_data_file(&self, index: u32) -> bool {
        self.files().has_data_file(index)
    }

    /// The recipient's locator.
    pub fn locator(&self) -> Locator {
        Locator {
            version: VERSION,
            clone_id: self.clone_id,
            snapshot_id: self.snapshot_id,
            index: 1,
            state: self.tasks.state(),
            metadata_transferred: false,
            progress: None,
        }
    }

    /// A file, as a task of the donor describes it.
    fn describe(&self, task: u32, file: &FileMetadata<'_>) -> Result<()> {
        let tasks = &self.tasks;
        let state = tasks.state();
        if file.file_size > MAX_FILE_SIZE {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid File Descriptor: {} bytes",
                file.file_size
            )));
        }
        let may_change = matches!(state, SnapshotState::FileCopy | SnapshotState::PageCopy);
        if may_change && Some(file.state) == state.next() {
            return self.files().change(file);
        }
        if file.state != state || !(may_change || state == SnapshotState::RedoCopy) {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid File Descriptor: state {} in {state}",
                file.state
            )));
        }
        if state == SnapshotState::RedoCopy {
            return self.files().describe_redo(file);
        }
        let described = self.files().describe(state, file)?;
        match described {
            Described::Noted => {}
            Described::Complete => tasks.all_metadata_arrived(),
            Described::Dropped { first, last } => {
                let is_page = state == SnapshotState::PageCopy;
                let block = if is_page { 0 } else { BLOCKS_IN_CHUNK };
                tasks.skipped(task, first, last, block);
            }
        }
        Ok(())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        lock(&self.files)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("clone_id", &self.clone_id)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

fn encode(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    descriptor.encode(&mut bytes);
    bytes
}
