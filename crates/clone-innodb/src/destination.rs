// SPDX-License-Identifier: GPL-2.0-only

//! The recipient's side: descriptors and blocks to a data directory (`clone0apply.cc`, and the
//! beginning and the end in `clone0api.cc`).

mod files;
mod names;
mod status;
mod write;

use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use clone_protocol::innodb::{
    Data, Descriptor, FileMetadata, Locator, SnapshotState, State, VERSION, VERSION_LOCATOR_LEN,
};

use crate::clock::{Cancel, Clock};
use crate::error::{Error, FileOperation, Result, number};
use crate::geometry::{BLOCKS_IN_CHUNK, REDO_HEADER};
use crate::lock;
use crate::tasks::chunks::Position;
use crate::tasks::{MASTER, Tasks};
use files::{Described, Files, Place, failed};
use write::Sparse;

/// The longest block, in bytes. InnoDB's are at most 64 pages of 64 KiB, which is 4 MiB; with
/// direct I/O a donor with our plugin makes them up to 16 MiB long.
pub const MAX_BLOCK: u32 = 16 << 20;

/// No file is larger, in bytes: a tablespace has at most 2^32 pages of 64 KiB.
const MAX_FILE_SIZE: u64 = 1 << 48;

/// Where the key is in a redo header (`LOG_ENCRYPTION`, `LOG_HEADER_ENCRYPTION_INFO_OFFSET`), and
/// what it begins with (`Encryption::KEY_MAGIC_V1` to `V3`).
const REDO_KEY: usize = 1024 + 48;
const KEY_MAGIC: [&[u8]; 3] = [b"lCA", b"lCB", b"lCC"];

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
    /// `../t.ibd` to `up1/t.ibd` in it. That a server finds them there is not this crate's part.
    Below(PathBuf),
}

/// Encrypted tablespaces, whose keys a donor sends in clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncryptedFiles {
    /// The clone fails with error 1235.
    #[default]
    Refuse,
    /// Their pages go to the files as they come, page 0 and the redo header with the key in clear.
    /// No server can open them, and whoever can read the directory has the keys. For simulations.
    /// An encrypted tablespace that DDL creates during the clone is refused all the same.
    AsTheyCome,
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

/// Where the blocks of a recipient's task come from, and who hears of its states.
///
/// Of each DATA descriptor one of [`write_to`](Self::write_to) and [`read`](Self::read) is called,
/// once.
pub trait BlockInput {
    /// Writes the block to `file`, from its current offset on: `target.len` bytes, neither more nor
    /// less.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn write_to(&mut self, target: &Target<'_>, file: BorrowedFd<'_>) -> Result<()>;

    /// The block, `target.len` bytes.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn read(&mut self, target: &Target<'_>) -> Result<&mut [u8]>;

    /// The master starts a state, with so many bytes to come.
    fn state_changed(&mut self, state: SnapshotState, estimate: u64) {
        let _ = (state, estimate);
    }

    /// All tasks have finished a state: the descriptor goes to the donor with COM_ACK. Only the
    /// master's input is asked.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn acknowledge(&mut self, descriptor: &[u8]) -> Result<()>;
}

/// Where a block goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The file, for messages. Empty if the file was dropped and the block is thrown away.
    pub name: &'a str,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
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
            files::create_directory(&directory.join(name))?;
        }
        status::begin(directory, options.flush)?;
        Ok(Arc::new(Self {
            clone_id: locator.clone_id,
            snapshot_id: locator.snapshot_id,
            directory: directory.to_owned(),
            tasks: Tasks::new(&clock, false),
            encrypted: options.encrypted,
            flush: options.flush,
            files: Mutex::new(Files::new(directory.to_owned(), options)),
        }))
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
        Ok(DestinationTask { destination: Arc::clone(self), number, current: None })
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

/// A task of a recipient: what one connection carries.
///
/// It must be ended with [`end`](Self::end), or the master waits for it.
#[derive(Debug)]
#[must_use = "a task that is not ended keeps its master waiting"]
pub struct DestinationTask {
    destination: Arc<Destination>,
    number: u32,
    /// The file of the last block.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    is_redo: bool,
    index: u32,
    file: File,
}

impl DestinationTask {
    /// The task's number; the master's is 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is the clone's first task.
    pub fn is_master(&self) -> bool {
        self.number == MASTER
    }

    /// The clone.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// Applies one descriptor. At the end of a state the master waits for all other tasks, and at
    /// the start of a state all wait for each other.
    ///
    /// What reaches this should have passed [`StreamCheck`](clone_protocol::innodb::StreamCheck). A
    /// descriptor that did not is refused here as well if it would do harm.
    ///
    /// # Errors
    /// The descriptor does not fit the clone; a file cannot be written; that of `input`, that of
    /// another task of the clone, or a wait that took half an hour; the thread was told to stop.
    pub fn apply(
        &mut self,
        cancel: &dyn Cancel,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let outcome = self.destination.tasks.check_error(cancel);
        let outcome = outcome.and_then(|()| match Descriptor::parse(descriptor)? {
            Descriptor::TaskMetadata(_) => Ok(()),
            Descriptor::State(state) if state.ack => Ok(()),
            Descriptor::State(state) if state.start => self.start_state(cancel, &state, input),
            Descriptor::State(state) => self.end_state(cancel, state, input),
            Descriptor::FileMetadata(file) => self.describe(&file),
            Descriptor::Data(data) => self.write(cancel, &data, input),
            Descriptor::Locator(_) => {
                Err(Error::protocol("Wrong Clone RPC: Invalid Descriptor Header"))
            }
        });
        if let Err(error) = &outcome {
            self.current = None;
            self.destination.tasks.set_error(error.number());
        }
        outcome
    }

    /// After a network failure: the locator for COM_REINIT, which tells what has arrived. All other
    /// tasks must have ended.
    ///
    /// # Errors
    /// There are other tasks; this one is not the master.
    pub fn restart(&mut self) -> Result<Locator> {
        if !self.is_master() {
            return Err(Error::internal("restarted by a worker"));
        }
        self.current = None;
        let mut locator = self.destination.locator();
        self.destination.tasks.restart_destination(&mut locator)?;
        Ok(locator)
    }

    /// Ends the task, with the MySQL number of its error or 0. The master waits for all others. If
    /// the master has no error, a server may open the directory afterwards: what happens to the
    /// others after DONE, when everything is on disk, does not matter.
    ///
    /// # Errors
    /// The clone is not complete although the master has no error; the files that tell a server of
    /// the clone cannot be written.
    pub fn end(self, cancel: &dyn Cancel, error: u32) -> Result<()> {
        let Self { destination, number, .. } = self;
        let error = if cancel.is_cancelled() { number::ER_QUERY_INTERRUPTED } else { error };
        let tasks = &destination.tasks;
        tasks.set_error(error);
        tasks.drop_task(cancel, number);
        if number != MASTER || error != 0 {
            return Ok(());
        }
        if tasks.state() != SnapshotState::Done {
            let text = format!("Innodb Clone Apply ended in {}", tasks.state());
            return Err(Error::internal(text));
        }
        status::complete(&destination.directory, destination.flush)
    }

    fn start_state(
        &mut self,
        cancel: &dyn Cancel,
        state: &State,
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let destination = &self.destination;
        self.current = None;
        if Some(state.state) != destination.tasks.state().next() {
            return Err(invalid_state("start of", state.state, destination.tasks.state()));
        }
        if self.number == MASTER {
            input.state_changed(state.state, state.estimate);
            destination.files().fix_all_renamed()?;
        }
        let work = || {
            let mut files = destination.files();
            files.announce(state)?;
            if state.state == SnapshotState::Done {
                files.extend_and_flush()?;
            }
            Ok(state.chunks)
        };
        destination.tasks.enter(cancel, self.number, state.state, || Ok(()), work)?;
        if self.number == MASTER && state.state == SnapshotState::FileCopy {
            if state.files == 0 {
                destination.tasks.all_metadata_arrived();
            }
            check_space(&destination.directory, state.estimate_disk)?;
        }
        Ok(())
    }

    fn end_state(
        &mut self,
        cancel: &dyn Cancel,
        state: State,
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let tasks = &self.destination.tasks;
        self.current = None;
        if state.state != tasks.state() {
            return Err(invalid_state("end of", state.state, tasks.state()));
        }
        tasks.finish_state(cancel, self.number)?;
        if self.number != MASTER {
            return Ok(());
        }
        input.acknowledge(&encode(&Descriptor::State(State { ack: true, ..state })))
    }

    fn describe(&mut self, file: &FileMetadata<'_>) -> Result<()> {
        let Self { destination, number, .. } = self;
        let tasks = &destination.tasks;
        let state = tasks.state();
        if file.file_size > MAX_FILE_SIZE {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid File Descriptor: {} bytes",
                file.file_size
            )));
        }
        let may_change = matches!(state, SnapshotState::FileCopy | SnapshotState::PageCopy);
        if may_change && Some(file.state) == state.next() {
            return destination.files().change(file);
        }
        if file.state != state || !(may_change || state == SnapshotState::RedoCopy) {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid File Descriptor: state {} in {state}",
                file.state
            )));
        }
        if state == SnapshotState::RedoCopy {
            return destination.files().describe_redo(file);
        }
        let described = destination.files().describe(state, file)?;
        match described {
            Described::Noted => {}
            Described::Complete => tasks.all_metadata_arrived(),
            Described::Dropped { first, last } => {
                self.current = None;
                let is_page = state == SnapshotState::PageCopy;
                let block = if is_page { 0 } else { BLOCKS_IN_CHUNK };
                tasks.skipped(*number, first, last, block);
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        cancel: &dyn Cancel,
        data: &Data,
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let destination = Arc::clone(&self.destination);
        let state = destination.tasks.state();
        if data.state != state {
            return Err(invalid_data(format_args!("state {} in {state}", data.state)));
        }
        destination.tasks.check_chunk(data.chunk)?;
        if !(1..=MAX_BLOCK).contains(&data.data_len) {
            return Err(invalid_data(format_args!("{} bytes", data.data_len)));
        }
        let end = data.file_offset.saturating_add(u64::from(data.data_len));
        if end.max(data.file_size) > MAX_FILE_SIZE {
            return Err(invalid_data(format_args!(
                "offset {} in {} bytes",
                data.file_offset, data.file_size
            )));
        }
        let Place { path, sparse } = destination.files().place(data)?;
        match path {
            Some(path) => self.write_block(data, &path, sparse, input)?,
            // The block has to be taken from the connection all the same.
            None => {
                let target = Target { name: "", offset: data.file_offset, len: data.data_len };
                input.read(&target)?;
            }
        }
        let at = Position { chunk: data.chunk, block: data.block };
        destination.tasks.applied(cancel, self.number, at)
    }

    fn write_block(
        &mut self,
        data: &Data,
        path: &Path,
        sparse: Option<Sparse>,
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let encrypted = self.destination.encrypted;
        let name = path.to_string_lossy();
        let target = Target { name: &name, offset: data.file_offset, len: data.data_len };
        let is_redo = data.state == SnapshotState::RedoCopy;
        let is_redo_header =
            is_redo && data.file_index == 0 && data.file_offset < REDO_HEADER.into();
        let looks_for_key = is_redo_header && encrypted == EncryptedFiles::Refuse;
        let file = self.file(is_redo, data.file_index, path)?;
        if sparse.is_none() && !looks_for_key {
            let sought = file.seek(SeekFrom::Start(data.file_offset));
            sought.map_err(failed(FileOperation::Write, path))?;
            return input.write_to(&target, file.as_fd());
        }
        let bytes = input.read(&target)?;
        if bytes.len() as u64 != u64::from(data.data_len) {
            let text = format_args!("{} bytes instead of {}", bytes.len(), data.data_len);
            return Err(invalid_data(text));
        }
        if looks_for_key && holds_key(bytes, data.file_offset) {
            return Err(Error::NotSupported("encrypted redo".to_owned()));
        }
        let written = match sparse {
            Some(sparse) => sparse.write(file, bytes, data.file_offset),
            None => file.write_all_at(bytes, data.file_offset),
        };
        written.map_err(failed(FileOperation::Write, path))
    }

    /// The file of a block, which is mostly that of the block before.
    fn file(&mut self, is_redo: bool, index: u32, path: &Path) -> Result<&mut File> {
        let current = self.current.take();
        let current = match current.filter(|one| (one.is_redo, one.index) == (is_redo, index)) {
            Some(current) => current,
            None => Current { is_redo, index, file: files::open(path)? },
        };
        Ok(&mut self.current.insert(current).file)
    }
}

/// Whether a part of the first redo file, from `offset`, holds a key.
fn holds_key(bytes: &[u8], offset: u64) -> bool {
    let at = usize::try_from(offset).ok().and_then(|offset| REDO_KEY.checked_sub(offset));
    let key = at.and_then(|at| bytes.get(at..));
    key.is_some_and(|key| KEY_MAGIC.iter().any(|magic| key.starts_with(magic)))
}

/// The estimate of the disk must be free. If the system does not tell what is free, the clone goes
/// on, as in InnoDB.
fn check_space(directory: &Path, needed: u64) -> Result<()> {
    let Ok(space) = rustix::fs::statvfs(directory) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed <= free { Ok(()) } else { Err(Error::DiskSpace { needed, free }) }
}

fn encode(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    descriptor.encode(&mut bytes);
    bytes
}

fn invalid_state(what: &str, state: SnapshotState, present: SnapshotState) -> Error {
    Error::protocol(format!(
        "Wrong Clone RPC: Invalid State Descriptor: {what} {state} in {present}"
    ))
}

fn invalid_data(detail: fmt::Arguments<'_>) -> Error {
    Error::protocol(format!("Wrong Clone RPC: Invalid Data Descriptor: {detail}"))
}
