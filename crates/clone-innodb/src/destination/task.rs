// SPDX-License-Identifier: GPL-2.0-only

//! A task of a recipient: what it does with each descriptor and its block.

use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use clone_io::ALIGNMENT;
use clone_protocol::innodb::{Data, Descriptor, Locator, SnapshotState, State};

use super::files::Place;
use super::operations::{self, failed};
use super::{Destination, MAX_BLOCK, MAX_FILE_SIZE, encode};
use crate::clock::Cancel;
use crate::error::{Error, FileOperation, Result, number};
use crate::tasks::MASTER;
use crate::tasks::chunks::Position;

/// The least bytes of a block that is written past the operating system's cache. A task waits for
/// the disk with each such block.
const LEAST_DIRECT: u32 = 256 << 10;

/// Where the blocks of a recipient's task come from, and who hears of its states.
///
/// Of each DATA descriptor one of [`write_to`](Self::write_to) and [`read`](Self::read) is called,
/// once.
pub trait BlockInput {
    /// Writes the block to `file`, from its current offset on: `target.len` bytes, neither more nor
    /// less. With [`Options::direct`](super::Options::direct) the file may be one that takes
    /// aligned memory only ([`clone_io::is_direct`]).
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
    /// Writes go past the operating system's cache.
    is_direct: bool,
}

impl DestinationTask {
    pub(super) fn new(destination: Arc<Destination>, number: u32) -> Self {
        Self { destination, number, current: None }
    }

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
            Descriptor::State(state) if state.start => {
                self.start_state(cancel, &state, descriptor, input)
            }
            Descriptor::State(state) => self.end_state(cancel, state, descriptor, input),
            Descriptor::FileMetadata(file) => {
                self.current = self.current.take().filter(|_| !file.deleted);
                self.destination.describe(self.number, &file)?;
                self.destination.note(self.number, descriptor)
            }
            Descriptor::Data(data) => self.write(cancel, &data, descriptor, input),
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
        self.destination.note(self.number, &[])?;
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
        // The number may be another task's as soon as this one is gone.
        let noted = destination.note(number, &[]);
        tasks.drop_task(cancel, number);
        if number != MASTER || error != 0 {
            return noted;
        }
        noted?;
        destination.complete()
    }

    fn start_state(
        &mut self,
        cancel: &dyn Cancel,
        state: &State,
        descriptor: &[u8],
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
            drop(files);
            destination.note(MASTER, descriptor)?;
            Ok(state.chunks)
        };
        destination.tasks.enter(cancel, self.number, state.state, || Ok(()), work)?;
        if self.number == MASTER && state.state == SnapshotState::FileCopy {
            if state.files == 0 {
                destination.tasks.all_metadata_arrived();
            }
            let needed = state.estimate_disk.saturating_sub(destination.shareable);
            check_space(&destination.directory, needed)?;
        }
        Ok(())
    }

    fn end_state(
        &mut self,
        cancel: &dyn Cancel,
        state: State,
        descriptor: &[u8],
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
        self.destination.note(MASTER, descriptor)?;
        input.acknowledge(&encode(&Descriptor::State(State { ack: true, ..state })))
    }

    fn write(
        &mut self,
        cancel: &dyn Cancel,
        data: &Data,
        descriptor: &[u8],
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
        let place = destination.files().place(data)?;
        match &place.path {
            Some(path) => self.write_block(data, path, &place, input)?,
            // The block has to be taken from the connection all the same.
            None => {
                let target = Target { name: "", offset: data.file_offset, len: data.data_len };
                input.read(&target)?;
            }
        }
        destination.note(self.number, descriptor)?;
        let at = Position { chunk: data.chunk, block: data.block };
        destination.tasks.applied(cancel, self.number, at)
    }

    fn write_block(
        &mut self,
        data: &Data,
        path: &Path,
        place: &Place,
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let destination = Arc::clone(&self.destination);
        let encrypted = &destination.encrypted;
        let key = place.key.filter(|key| key.concerns(encrypted));
        let name = path.to_string_lossy();
        let target = Target { name: &name, offset: data.file_offset, len: data.data_len };
        let is_redo = data.state == SnapshotState::RedoCopy;
        let is_as_it_comes = place.sparse.is_none() && key.is_none();
        let direct = destination.direct && is_as_it_comes && suits_direct(data);
        let file = self.file(is_redo, data.file_index, path, direct)?;
        if is_as_it_comes {
            let sought = file.seek(SeekFrom::Start(data.file_offset));
            sought.map_err(failed(FileOperation::Write, path))?;
            return input.write_to(&target, file.as_fd());
        }
        let bytes = input.read(&target)?;
        if bytes.len() as u64 != u64::from(data.data_len) {
            let text = format_args!("{} bytes instead of {}", bytes.len(), data.data_len);
            return Err(invalid_data(text));
        }
        if let Some(key) = key {
            key.apply(encrypted, data.file_offset, bytes)?;
        }
        let written = match place.sparse {
            Some(sparse) => sparse.write(file, bytes, data.file_offset),
            None => file.write_all_at(bytes, data.file_offset),
        };
        written.map_err(failed(FileOperation::Write, path))
    }

    /// The file of a block, which is mostly that of the block before. With `direct` it is written
    /// past the operating system's cache.
    fn file(&mut self, is_redo: bool, index: u32, path: &Path, direct: bool) -> Result<&mut File> {
        let current = self.current.take();
        let mut current = match current.filter(|one| (one.is_redo, one.index) == (is_redo, index)) {
            Some(current) => current,
            None => Current { is_redo, index, file: operations::open(path)?, is_direct: false },
        };
        if current.is_direct != direct {
            let set = clone_io::set_direct(current.file.as_fd(), direct);
            set.map_err(failed(FileOperation::Write, path))?;
            current.is_direct = direct;
        }
        Ok(&mut self.current.insert(current).file)
    }
}

/// Whether a block is large enough, and lies so, that it is written past the operating system's
/// cache. PAGE COPY writes single pages: the cache collects them, and the disk gets them together.
fn suits_direct(data: &Data) -> bool {
    let is_aligned = |bytes: u64| bytes.is_multiple_of(ALIGNMENT as u64);
    data.state == SnapshotState::FileCopy
        && data.data_len >= LEAST_DIRECT
        && is_aligned(data.file_offset)
        && is_aligned(data.data_len.into())
}

/// The estimate of the disk must be free. If the system does not tell what is free, the clone goes
/// on, as in InnoDB.
fn check_space(directory: &Path, needed: u64) -> Result<()> {
    let Ok(space) = rustix::fs::statvfs(directory) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed <= free { Ok(()) } else { Err(Error::DiskSpace { needed, free }) }
}

fn invalid_state(what: &str, state: SnapshotState, present: SnapshotState) -> Error {
    Error::protocol(format!(
        "Wrong Clone RPC: Invalid State Descriptor: {what} {state} in {present}"
    ))
}

fn invalid_data(detail: fmt::Arguments<'_>) -> Error {
    Error::protocol(format!("Wrong Clone RPC: Invalid Data Descriptor: {detail}"))
}
