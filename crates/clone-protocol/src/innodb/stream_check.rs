// SPDX-License-Identifier: GPL-2.0-only

//! The gate before InnoDB: what a recipient checks of a donor's descriptors.
//!
//! InnoDB's apply side (`storage/innobase/clone/clone0apply.cc`) believes its donor. Without this
//! gate a donor can crash the recipient or write over its memory in a release build:
//!
//! * a chunk number outside the state's total fails an assertion (`Chnunk_Bitmap::operator[]`);
//! * a file index outside the announced number of files is written behind the end of a vector
//!   (`Clone_Snapshot::add_file_from_desc`), or fails an assertion there for a file made by DDL;
//! * file metadata without a name is a null pointer (`build_file_path_unsafe`), and so is a file that
//!   was counted in a STATE but never described (`fix_all_renamed`, `extend_and_flush_files`);
//! * a short page 0 or redo header of an encrypted instance is read and written beyond its end, or
//!   fails an assertion (`encrypt_key_in_header`, `encrypt_key_in_log_header`);
//! * a count of files or chunks near 2^32 is allocated at once (`set_state_info`, `init_state`).
//!
//! All that a stock donor sends must pass. Each rule says from which line of the donor it follows;
//! where the donor's code leaves a doubt the rule is not made, and a comment says so.

use std::fmt;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::Data;
use super::Descriptor;
use super::DescriptorKind;
use super::FileMetadata;
use super::Header;
use super::Locator;
use super::SnapshotState;
use super::State;
use super::TaskMetadata;
use super::file;
use crate::ProtocolError;
use files::Files;
use totals::Totals;

mod files;
mod names;
mod totals;

/// Checks the descriptors of one clone, whichever task receives them.
///
/// There is one for each clone, made before the first EXECUTE and kept over restarts. A task calls
/// [`check_from`](Self::check_from) with each descriptor right before it gives it to InnoDB, and
/// reads the next one only after InnoDB returned: which state InnoDB is in, and so what a
/// descriptor means to it, is known from that order alone. After a network failure the clone goes on
/// with [`resume`](Self::resume).
///
/// # Example
///
/// ```
/// use clone_protocol::innodb::{Descriptor, StreamCheck, TaskMetadata, TaskRole};
///
/// let stream = StreamCheck::new();
/// let mut bytes = Vec::new();
/// Descriptor::TaskMetadata(TaskMetadata { task: 0, chunk: 0, block: 0 }).encode(&mut bytes);
/// let checked = stream.check_from(TaskRole::Master, &bytes)?;
/// assert_eq!(checked.data_len, None);
/// # Ok::<(), clone_protocol::ProtocolError>(())
/// ```
#[derive(Debug, Default)]
pub struct StreamCheck {
    stream: Mutex<Stream>,
}

impl StreamCheck {
    /// For a clone whose recipient has just begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// For InnoDB before 8.0.30, of recipient and donor. Its redo log had two files at least, so it announces that many, and
    /// describes the second only if there is something in it; the recipient does without.
    #[must_use]
    pub fn with_spare_redo_file(self) -> Self {
        self.stream().files.has_spare_redo = true;
        self
    }

    /// Checks a descriptor that came on the connection of a task with this role.
    ///
    /// The role is the recipient's own knowledge, and worth giving: InnoDB takes the totals of a
    /// state and the files that DDL made from its master alone, so a worker must not be able to
    /// announce them.
    ///
    /// # Errors
    ///
    /// The descriptor must not reach InnoDB. The clone fails with the error.
    pub fn check_from(&self, role: TaskRole, descriptor: &[u8]) -> Result<Checked, ProtocolError> {
        self.checked(Sender::Known(role), descriptor)
    }

    /// Checks a descriptor of a task whose role the caller does not know: the donor's word is taken
    /// that its task 0 is the master, and that a second TASK_METADATA of it is a restart. After that
    /// it is unknown whether InnoDB took the last start of a state, and what fits either case is let
    /// through until the next one. So this keeps out mistakes, and less of a donor that lies.
    ///
    /// # Errors
    ///
    /// As for [`check_from`](Self::check_from).
    pub fn check(&self, descriptor: &[u8]) -> Result<Checked, ProtocolError> {
        self.checked(Sender::Unknown, descriptor)
    }

    fn checked(&self, sender: Sender, descriptor: &[u8]) -> Result<Checked, ProtocolError> {
        let parsed = Descriptor::parse(descriptor)?;
        let mut checked = Checked::of(&parsed);
        let mut stream = self.stream();
        match &parsed {
            Descriptor::Locator(_) => {
                return Err(ProtocolError::new("Wrong Clone RPC: Invalid Descriptor Header"));
            }
            Descriptor::TaskMetadata(task) => stream.task(sender, task)?,
            Descriptor::State(state) => stream.state(sender, state)?,
            Descriptor::FileMetadata(file) => stream.file(sender, file)?,
            Descriptor::Data(data) => checked.key_in_data = stream.data(data)?,
        }
        Ok(checked)
    }

    /// Tells that the clone goes on after a network failure, and where InnoDB stands, from the
    /// locator that its `clone_apply_begin` gave for COM_REINIT. Due before the EXECUTE after it;
    /// [`check_from`](Self::check_from) takes no second TASK_METADATA from the master otherwise. No
    /// task may be left from before.
    ///
    /// # Errors
    ///
    /// The bytes are no locator, or one of a state that the donor never started.
    pub fn resume(&self, locator: &[u8]) -> Result<(), ProtocolError> {
        let locator = Locator::parse(locator)?;
        self.stream().resume(locator.state)
    }

    /// Whether this descriptor, which need not be whole, holds a key in clear, so that the buffer
    /// that it lies in should be wiped. The DATA packet after one may hold a key as well; see
    /// [`Checked::key_in_data`].
    pub fn contains_key_material(descriptor: &[u8]) -> bool {
        Header::kind_of(descriptor) == Some(DescriptorKind::FileMetadata)
            && file::holds_key(descriptor)
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        // No check panics, and if one did, what it had noted is still what the donor said.
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a task of the recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskRole {
    /// The task that sent INIT or REINIT.
    Master,
    /// A task that sent ATTACH.
    Worker,
}

/// What the caller needs to know of a descriptor that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// What it is.
    pub kind: DescriptorKind,
    /// A DATA packet must follow, with this many bytes after its code, at least one.
    pub data_len: Option<u32>,
    /// A state starts, with the bytes to copy in it. A worker's start has 0 there.
    pub state_started: Option<(SnapshotState, u64)>,
    /// A state ends. The recipient's master acknowledges it.
    pub state_ended: Option<SnapshotState>,
    /// The descriptor holds a tablespace's key in clear.
    pub key_in_descriptor: bool,
    /// The DATA packet that follows is one in which InnoDB sends a key in clear if its file is
    /// encrypted: page 0 of a tablespace in PAGE_COPY, or the redo header.
    pub key_in_data: bool,
}

impl Checked {
    fn of(descriptor: &Descriptor<'_>) -> Self {
        let mut checked = Self {
            kind: descriptor.kind(),
            data_len: None,
            state_started: None,
            state_ended: None,
            key_in_descriptor: false,
            key_in_data: false,
        };
        match descriptor {
            Descriptor::State(state) if state.ack => {}
            Descriptor::State(state) if state.start => {
                checked.state_started = Some((state.state, state.estimate));
            }
            Descriptor::State(state) => checked.state_ended = Some(state.state),
            Descriptor::FileMetadata(file) => checked.key_in_descriptor = file.key.is_some(),
            Descriptor::Data(data) => checked.data_len = Some(data.data_len),
            Descriptor::Locator(_) | Descriptor::TaskMetadata(_) => {}
        }
        checked
    }
}

/// Who sent a descriptor.
#[derive(Debug, Clone, Copy)]
enum Sender {
    Known(TaskRole),
    Unknown,
}

impl Sender {
    /// `task` is the donor's number for its task. Its master has 0: tasks take the first free
    /// number, the master comes first and leaves last (`clone0clone.cc:reserve_task, drop_task`).
    fn is_master(self, task: u32) -> bool {
        match self {
            Self::Known(role) => role == TaskRole::Master,
            Self::Unknown => task == 0,
        }
    }

    /// For what only the donor's master sends.
    fn require_master(self) -> Result<(), ProtocolError> {
        match self {
            Self::Known(TaskRole::Worker) => Err(files::invalid("from a worker")),
            Self::Known(TaskRole::Master) | Self::Unknown => Ok(()),
        }
    }
}

/// What the donor said so far.
#[derive(Debug)]
struct Stream {
    /// The last state that the master's stream started. InnoDB is in it: its workers wait in their
    /// start of a state until the master applied its own, and the donor does not leave a state
    /// before all tasks of both sides ended it.
    state: SnapshotState,
    /// After a restart of which nobody told: InnoDB may still be one state behind, when the start
    /// of `state` failed in it because another task had lost its connection.
    unsettled: bool,
    /// The master's EXECUTE begins, since the clone is new or [`StreamCheck::resume`] told so.
    expected: bool,
    totals: Totals,
    files: Files,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            state: SnapshotState::Init,
            unsettled: false,
            expected: true,
            totals: Totals::default(),
            files: Files::default(),
        }
    }
}

impl Stream {
    /// Task numbers on one connection need not agree from packet to packet: InnoDB only asserts it
    /// in a debug build and otherwise prints them. A chunk in TASK_METADATA, which stock never has,
    /// only makes InnoDB believe that the task began it.
    fn task(&mut self, sender: Sender, task: &TaskMetadata) -> Result<(), ProtocolError> {
        if !sender.is_master(task.task) {
            return Ok(());
        }
        match sender {
            _ if self.expected => self.unsettled = false,
            Sender::Unknown => self.unsettled = true,
            Sender::Known(_) => {
                return Err(ProtocolError::detailed(
                    "Wrong Clone RPC: Invalid Task Descriptor",
                    "once more",
                ));
            }
        }
        self.expected = false;
        Ok(())
    }

    fn resume(&mut self, state: SnapshotState) -> Result<(), ProtocolError> {
        if state > self.state {
            return Err(invalid_state(format_args!("resumed in {state} after {}", self.state)));
        }
        self.state = state.max(SnapshotState::Init);
        self.unsettled = false;
        self.expected = true;
        Ok(())
    }

    fn state(&mut self, sender: Sender, state: &State) -> Result<(), ProtocolError> {
        // Keep-alive. InnoDB ignores it, and its sender may have filled it in while the master was
        // changing the state (`send_keep_alive`), so that nothing in it can be relied on.
        if state.ack {
            return Ok(());
        }
        if !state.start {
            // A worker that the donor has added, but that was not yet at work here when the state was acknowledged, gets
            // nothing but the state's end. The donor waits for it, and sends the master's next start on another connection,
            // which may be read first.
            let is_late = !sender.is_master(state.task) && state.state.next() == Some(self.state);
            if state.state != self.state && !is_late {
                return Err(self.out_of_order("end of", state.state));
            }
            return Ok(());
        }
        // A worker's start may come before the master's and after it. The master's comes again only
        // if InnoDB did not take it: it would go through files that are not there yet. INIT has none.
        let is_master = sender.is_master(state.task);
        let again = state.state == self.state
            && state.state > SnapshotState::Init
            && (!is_master || self.unsettled);
        if !again && Some(state.state) != self.state.next() {
            return Err(self.out_of_order("start of", state.state));
        }
        self.totals.agree(state)?;
        if is_master {
            self.files.require_all_before(state.state)?;
            self.files.announce(state);
            self.totals.announce(state);
            self.state = state.state;
            self.unsettled = false;
        }
        Ok(())
    }

    fn file(&mut self, sender: Sender, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        use SnapshotState::{FileCopy, PageCopy, RedoCopy};

        let current = file.state == self.state;
        let total = self.totals.chunks(self.state);
        if self.is_ddl(file) {
            sender.require_master()?;
            return self.files.ddl(file, self.totals.chunks(FileCopy));
        }
        match self.state {
            FileCopy | PageCopy if current && file.deleted => self.files.dropped_file(file, total),
            FileCopy if current => {
                // What a worker described, InnoDB might not have taken yet when its master goes
                // through the files.
                sender.require_master()?;
                self.files.data_file(file, total)
            }
            RedoCopy if current => self.files.redo_file(file),
            _ => Err(files::invalid(format_args!("state {} in {}", file.state, self.state))),
        }
    }

    /// Whether InnoDB takes file metadata for a change that DDL made. It does when the state is one
    /// ahead of its own (`apply_file_metadata`), and the donor sends such metadata before the starts
    /// of PAGE_COPY and REDO_COPY only (`send_all_ddl_metadata`).
    fn is_ddl(&self, file: &FileMetadata<'_>) -> bool {
        use SnapshotState::{FileCopy, PageCopy, RedoCopy};

        let ahead =
            matches!(self.state, FileCopy | PageCopy) && Some(file.state) == self.state.next();
        let behind = self.unsettled
            && file.state == self.state
            && match self.state {
                // A notice of a dropped file looks the same; DDL is the wider meaning.
                PageCopy => true,
                RedoCopy => file.space_id != file::SPACE_ID_REDO,
                _ => false,
            };
        ahead || behind
    }

    /// Whether InnoDB may have put a key into these data.
    ///
    /// Blocks are not checked: InnoDB only notes the last one for a restart. File offsets are not
    /// compared with file sizes, since tablespaces grow while they are cloned.
    fn data(&self, data: &Data) -> Result<bool, ProtocolError> {
        if data.state != self.state {
            return Err(invalid_data(format_args!("state {} in {}", data.state, self.state)));
        }
        let total = self.totals.chunks(data.state);
        if data.chunk == 0 || data.chunk > total {
            return Err(invalid_data(format_args!(
                "chunk {} of {total} in {}",
                data.chunk, data.state
            )));
        }
        // A donor that has nothing to send sends no descriptor (`process_chunk`).
        if data.data_len == 0 {
            return Err(invalid_data("no data"));
        }
        // File offsets are signed in the end (`off_t`).
        let end = data.file_offset.checked_add(u64::from(data.data_len));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(invalid_data(format_args!("offset {}", data.file_offset)));
        }
        self.files.data(data)
    }

    fn out_of_order(&self, what: &str, state: SnapshotState) -> ProtocolError {
        invalid_state(format_args!("{what} {state} in {}", self.state))
    }
}

fn invalid_state(detail: impl fmt::Display) -> ProtocolError {
    ProtocolError::detailed("Wrong Clone RPC: Invalid State Descriptor", detail)
}

fn invalid_data(detail: impl fmt::Display) -> ProtocolError {
    ProtocolError::detailed("Wrong Clone RPC: Invalid Data Descriptor", detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
