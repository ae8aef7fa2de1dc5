// SPDX-License-Identifier: GPL-2.0-only

//! The gate before InnoDB: what a recipient checks of a donor's descriptors.
//!
//! InnoDB's apply side (`storage/innobase/clone/clone0apply.cc`) believes its donor. Without this
//! gate a donor can crash the recipient or write over its memory in a release build:
//!
//! * a chunk number outside the state's total fails an assertion (`Chnunk_Bitmap::operator[]`);
//! * a file index outside the announced number of files is written behind the end of a vector
//!   (`Clone_Snapshot::add_file_from_desc`), or fails an assertion there for a file made by DDL;
//! * file metadata without a name is a null pointer (`build_file_path_unsafe`), and so is a file
//!   that was counted in a STATE but never described (`fix_all_renamed`, `extend_and_flush_files`);
//! * a short page 0 or redo header of an encrypted instance is read and written beyond its end, or
//!   fails an assertion (`encrypt_key_in_header`, `encrypt_key_in_log_header`);
//! * a count of files or chunks near 2^32 is allocated at once (`set_state_info`, `init_state`);
//! * pages of another size than the server's are written beyond their buffer
//!   (`fil_write_initial_pages`);
//! * a name can be that of any file that mysqld may write (`build_file_path`), and a name with a
//!   line break makes InnoDB remove another file (`clone_files_for_each_file`).
//!
//! All that a stock donor sends must pass. Each rule says from which line of the donor it follows;
//! where the donor's code leaves a doubt the rule is not made, and a comment says so.

use std::fmt;
use std::sync::Arc;
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
use super::SpacePlace;
use super::State;
use super::file;
use crate::MAX_BLOCK;
use crate::ProtocolError;
pub use directories::Directories;
use files::Files;
use files::KeyInData;
use totals::Totals;

mod directories;
mod files;
mod names;
mod totals;

/// What the recipient knows of its own server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// `innodb_page_size` in bytes. InnoDB goes by this one, whatever a tablespace says of itself.
    pub page_size: u32,
    /// Recipient and donor are InnoDB before 8.0.30. Its redo log had two files at least, so it
    /// announces that many, and describes the second only if there is something in it; the
    /// recipient does without.
    pub has_spare_redo_file: bool,
    /// Where the donor's files may lie. With `None` names may lead anywhere, as InnoDB before 9.7
    /// takes them.
    pub directories: Option<Directories>,
}

impl Recipient {
    /// A recipient of 8.0.30 or later, whose donor's files may lie anywhere.
    pub fn new(page_size: u32) -> Self {
        Self { page_size, has_spare_redo_file: false, directories: None }
    }
}

/// What the donor of one clone said so far, to all tasks of the recipient.
///
/// There is one for each clone, made before the first EXECUTE and kept over restarts. A task makes
/// a [`TaskCheck`] of its own for each EXECUTE. After a network failure the clone goes on with
/// [`resume`](Self::resume). Clones of this value share what it knows.
///
/// # Example
///
/// ```
/// use clone_protocol::innodb::{Descriptor, Recipient, StreamCheck, TaskMetadata, TaskRole};
///
/// let stream = StreamCheck::new(Recipient::new(16_384));
/// let mut master = stream.task(TaskRole::Master);
/// let mut bytes = Vec::new();
/// Descriptor::TaskMetadata(TaskMetadata { task: 0, chunk: 0, block: 0 }).encode(&mut bytes);
/// let checked = master.check(&bytes)?;
/// assert_eq!(checked.data_len, None);
/// # Ok::<(), clone_protocol::ProtocolError>(())
/// ```
#[derive(Debug, Clone)]
pub struct StreamCheck {
    stream: Arc<Mutex<Stream>>,
}

impl StreamCheck {
    /// For a clone whose recipient has just begun.
    pub fn new(recipient: Recipient) -> Self {
        Self { stream: Arc::new(Mutex::new(Stream::new(recipient))) }
    }

    /// For the answer to one EXECUTE of a task with this role.
    ///
    /// The role is the recipient's own knowledge. InnoDB takes the totals of a state and the files
    /// that DDL made from its master alone, so a worker must not be able to announce them.
    pub fn task(&self, role: TaskRole) -> TaskCheck {
        TaskCheck {
            stream: self.clone(),
            role,
            has_begun: false,
            ended: SnapshotState::None,
            started: SnapshotState::Init,
        }
    }

    /// Tells that the clone goes on after a network failure, and where InnoDB stands, from the
    /// locator that its `clone_apply_begin` gave for COM_REINIT. Due before the EXECUTE after it;
    /// the master's [`TaskCheck`] takes no TASK_METADATA otherwise. No task may be left from
    /// before.
    ///
    /// # Errors
    ///
    /// The bytes are no locator, or one of a state that the donor never started.
    pub fn resume(&self, locator: &[u8]) -> Result<(), ProtocolError> {
        let locator = Locator::parse(locator)?;
        self.stream().resume(locator.state)
    }

    /// Tells what took effect in another process, which has ended: the descriptors in the order in
    /// which they took effect, without TASK_METADATA. An empty one stands for a new EXECUTE of the
    /// master. Due before [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// The descriptors cannot have passed the check.
    pub fn replay<D: AsRef<[u8]>>(
        &self,
        descriptors: impl IntoIterator<Item = D>,
    ) -> Result<(), ProtocolError> {
        let begun = || TaskCheck { has_begun: true, ..self.task(TaskRole::Master) };
        let mut master = begun();
        for descriptor in descriptors {
            match descriptor.as_ref() {
                [] => master = begun(),
                descriptor => {
                    master.check(descriptor)?;
                }
            }
        }
        Ok(())
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

/// Checks the descriptors that one task of the recipient gets as the answer to one EXECUTE.
///
/// The task calls [`check`](Self::check) with each descriptor of InnoDB's, in the order in which
/// they came, gives it to InnoDB if it passes, and checks the next one only after InnoDB returned.
/// The checks of several tasks need no common order: the master's start of a state counts as soon
/// as it passed, and InnoDB lets no worker into a state before its master.
#[derive(Debug)]
pub struct TaskCheck {
    stream: StreamCheck,
    role: TaskRole,
    /// TASK_METADATA came.
    has_begun: bool,
    /// The last state that this task ended.
    ended: SnapshotState,
    /// The last state that this task started. INIT has no start.
    started: SnapshotState,
}

impl TaskCheck {
    /// Checks a descriptor.
    ///
    /// # Errors
    ///
    /// The descriptor must not reach InnoDB. The clone fails with the error.
    pub fn check(&mut self, descriptor: &[u8]) -> Result<Checked, ProtocolError> {
        let parsed = Descriptor::parse(descriptor)?;
        let stream = self.stream.clone();
        let mut stream = stream.stream();
        let mut checked = Checked { data_len: None, place: None, key: KeyInData::None };
        match &parsed {
            Descriptor::Locator(_) => {
                return Err(ProtocolError::new("Wrong Clone RPC: Invalid Descriptor Header"));
            }
            Descriptor::TaskMetadata(_) => self.begin(&mut stream)?,
            _ if !self.has_begun => return Err(invalid_task("not the first descriptor")),
            Descriptor::State(state) => self.state(&mut stream, state)?,
            Descriptor::FileMetadata(file) => {
                if file.state <= self.ended {
                    return Err(files::invalid(format_args!("after the end of {}", file.state)));
                }
                stream.file(self.role, file)?;
            }
            Descriptor::Data(data) => {
                if data.state <= self.ended {
                    return Err(invalid_data(format_args!("after the end of {}", data.state)));
                }
                checked.data_len = Some(data.data_len);
                checked.key = stream.data(data)?;
                checked.place = stream.files.places.of(data);
            }
        }
        Ok(checked)
    }

    /// TASK_METADATA comes first, and once (`Clone_Handle::copy`).
    ///
    /// Task numbers on one connection need not agree from packet to packet: InnoDB only asserts it
    /// in a debug build and otherwise prints them. A chunk in TASK_METADATA, which stock never has,
    /// only makes InnoDB believe that the task began it.
    fn begin(&mut self, stream: &mut Stream) -> Result<(), ProtocolError> {
        if self.has_begun {
            return Err(invalid_task("once more"));
        }
        if self.role == TaskRole::Master {
            stream.begin()?;
        }
        self.has_begun = true;
        Ok(())
    }

    /// Each task ends a state and starts the next one once. InnoDB counts the ends
    /// (`finish_state`), and a worker's second start would name a state to which no transition
    /// leads.
    fn state(&mut self, stream: &mut Stream, state: &State) -> Result<(), ProtocolError> {
        let named = state.state;
        match (state.ack, state.start) {
            // Keep-alive. InnoDB ignores it, and its sender may have filled it in while the master
            // was changing the state (`send_keep_alive`), so that nothing in it can be relied on.
            (true, _) => {}
            (false, false) if named <= self.ended => {
                return Err(invalid_state(format_args!("end of {named} once more")));
            }
            (false, false) => {
                stream.end(self.role, named)?;
                self.ended = named;
            }
            (false, true) if named <= self.started => {
                return Err(invalid_state(format_args!("start of {named} once more")));
            }
            // A restarted master may begin with a start: its end came before the restart.
            (false, true) if self.role == TaskRole::Worker && self.ended.next() != Some(named) => {
                let ended = self.ended;
                return Err(invalid_state(format_args!("start of {named} after end of {ended}")));
            }
            (false, true) => {
                stream.start(self.role, state)?;
                self.started = named;
            }
        }
        Ok(())
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
    /// A DATA packet must follow, with this many bytes after its code: at least one, at most
    /// [`MAX_BLOCK`].
    pub data_len: Option<u32>,
    /// Where these bytes belong in their tablespace; see [`FilePlaces::of`](super::FilePlaces::of).
    pub place: Option<SpacePlace>,
    key: KeyInData,
}

impl Checked {
    /// The DATA packet that follows is one in which InnoDB sends a key in clear if its file is
    /// encrypted: page 0 of a tablespace in PAGE_COPY, or the redo header. The buffer that it lies
    /// in should be wiped.
    pub fn key_in_data(&self) -> bool {
        self.key != KeyInData::None
    }

    /// Checks the data that followed, before InnoDB gets them.
    ///
    /// # Errors
    ///
    /// There are more or fewer than the descriptor said, or InnoDB would put a key into a page that
    /// cannot have one.
    pub fn check_data(&self, data: &[u8]) -> Result<(), ProtocolError> {
        if u32::try_from(data.len()).ok() != self.data_len {
            return Err(ProtocolError::new("Wrong Clone RPC: Invalid Data: length"));
        }
        self.key.check(data)
    }
}

/// What the donor said so far.
#[derive(Debug)]
struct Stream {
    /// The last state that the master's stream started. InnoDB is in it: its workers wait in their
    /// start of a state until the master applied its own, and the donor does not leave a state
    /// before all tasks of both sides ended it.
    state: SnapshotState,
    /// The last state that the master's stream ended. A donor changes DDL's files and starts the
    /// next state only after it has the acknowledgement of that. A restart keeps it: the donor does
    /// not end an acknowledged state again (`check_ack`).
    ended: SnapshotState,
    /// The master's EXECUTE begins, since the clone is new or [`StreamCheck::resume`] told so.
    expected: bool,
    totals: Totals,
    files: Files,
}

impl Stream {
    fn new(recipient: Recipient) -> Self {
        Self {
            state: SnapshotState::Init,
            ended: SnapshotState::None,
            expected: true,
            totals: Totals::default(),
            files: Files::new(recipient),
        }
    }

    /// The master's EXECUTE begins. Without [`StreamCheck::resume`] it would be unknown whether
    /// InnoDB took the last start of a state.
    fn begin(&mut self) -> Result<(), ProtocolError> {
        match std::mem::take(&mut self.expected) {
            true => Ok(()),
            false => Err(invalid_task("once more")),
        }
    }

    fn resume(&mut self, state: SnapshotState) -> Result<(), ProtocolError> {
        if state > self.state {
            return Err(invalid_state(format_args!("resumed in {state} after {}", self.state)));
        }
        self.state = state.max(SnapshotState::Init);
        self.expected = true;
        Ok(())
    }

    fn end(&mut self, role: TaskRole, state: SnapshotState) -> Result<(), ProtocolError> {
        match role {
            TaskRole::Master if state == self.state => self.ended = self.ended.max(state),
            TaskRole::Worker if state == self.state => {}
            // A worker that the donor has added, but that was not yet at work here when the state
            // was acknowledged, gets nothing but the state's end. The donor waits for it, and sends
            // the master's next start on another connection, which may be read first.
            TaskRole::Worker if state.next() == Some(self.state) => {}
            _ => return Err(self.out_of_order("end of", state)),
        }
        Ok(())
    }

    /// A worker's start may come before the master's and after it, but not before the master's end
    /// of the state before.
    fn start(&mut self, role: TaskRole, state: &State) -> Result<(), ProtocolError> {
        let is_next = Some(state.state) == self.state.next();
        let is_behind = role == TaskRole::Worker && state.state == self.state;
        if !is_next && !is_behind {
            return Err(self.out_of_order("start of", state.state));
        }
        if is_next && self.ended < self.state {
            let before = format_args!("start of {} before the end of {}", state.state, self.state);
            return Err(invalid_state(before));
        }
        self.totals.agree(state)?;
        if role == TaskRole::Master {
            Totals::require_estimate(state)?;
            self.files.require_all_before(state.state)?;
            self.files.announce(state);
            self.totals.announce(state);
            self.state = state.state;
        }
        Ok(())
    }

    fn file(&mut self, role: TaskRole, file: &FileMetadata<'_>) -> Result<(), ProtocolError> {
        use SnapshotState::{FileCopy, PageCopy, RedoCopy};

        let current = file.state == self.state;
        let total = self.totals.chunks(self.state);
        if self.is_ddl(file) {
            require_master(role)?;
            if self.ended < self.state {
                return Err(files::invalid(format_args!("DDL before the end of {}", self.state)));
            }
            return self.files.ddl(file, self.totals.chunks(FileCopy));
        }
        match self.state {
            FileCopy | PageCopy if current && file.deleted => self.files.dropped_file(file, total),
            FileCopy if current => {
                // What a worker described, InnoDB might not have taken yet when its master goes
                // through the files.
                require_master(role)?;
                self.files.data_file(file, total)
            }
            RedoCopy if current => self.files.redo_file(file),
            _ => Err(files::invalid(format_args!("state {} in {}", file.state, self.state))),
        }
    }

    /// Whether InnoDB takes file metadata for a change that DDL made. It does when the state is one
    /// ahead of its own (`apply_file_metadata`), and the donor sends such metadata before the
    /// starts of PAGE_COPY and REDO_COPY only (`send_all_ddl_metadata`).
    fn is_ddl(&self, file: &FileMetadata<'_>) -> bool {
        matches!(self.state, SnapshotState::FileCopy | SnapshotState::PageCopy)
            && Some(file.state) == self.state.next()
    }

    /// What key InnoDB may have put into these data.
    ///
    /// Blocks are not checked: InnoDB only notes the last one for a restart. File offsets are not
    /// compared with file sizes, since tablespaces grow while they are cloned.
    fn data(&mut self, data: &Data) -> Result<KeyInData, ProtocolError> {
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
        if data.data_len > MAX_BLOCK {
            return Err(invalid_data(format_args!("{} bytes at once", data.data_len)));
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

/// For what only the donor's master sends.
fn require_master(role: TaskRole) -> Result<(), ProtocolError> {
    match role {
        TaskRole::Worker => Err(files::invalid("from a worker")),
        TaskRole::Master => Ok(()),
    }
}

fn invalid_task(detail: impl fmt::Display) -> ProtocolError {
    ProtocolError::detailed("Wrong Clone RPC: Invalid Task Descriptor", detail)
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
