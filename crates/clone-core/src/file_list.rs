// SPDX-License-Identifier: GPL-2.0-only

//! The tables' files that InnoDB is still to create.
//!
//! A donor describes all files at the beginning of FILE COPY, and InnoDB's recipient creates each when it is given the description:
//! one after the other, with the workers kept out until the last of them (`clone0clone.cc:wait_before_add`). With 20,000 tables that is
//! 0.6 of 1.8 s, in which the network and all other processors are idle (`docs/performance.md`). So descriptions of tables are kept here, but
//! for the last one, which lets the workers in; and a file is created by the task that gets data for it, right before. What nobody
//! has had data for is created at the end of the state. It is still one file at a time, for InnoDB has a mutex, but data flow meanwhile.
//!
//! InnoDB believes then that it has all descriptions, and asks for none after a restart. So this list outlives connections, as the
//! checks of the stream do. A description may come to InnoDB more than once: it does nothing with that of a file that it has
//! (`clone0apply.cc:apply_file_metadata`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_protocol::innodb::{Compression, Descriptor, FileMetadata, SnapshotState};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::meeting::Boundary;
use crate::session::{Host, Session};

/// The data files of one clone that InnoDB's recipient has not been told of. All tasks share it.
#[derive(Default)]
pub(crate) struct FileList(Mutex<Files>);

#[derive(Default)]
struct Files {
    /// How many the donor has announced.
    total: u32,
    /// Descriptions by file index. There may be a key in one.
    waiting: BTreeMap<u32, Zeroizing<Box<[u8]>>>,
    /// Files that a task is having created.
    in_making: BTreeSet<u32>,
    /// Of the descriptions that wait.
    bytes: usize,
}

/// The most that descriptions may take here, bytes: about 100,000 files. InnoDB is given those beyond as they come.
const LIMIT: usize = 16 << 20;

/// How long to sleep while another task is having the file created.
const STEP: Duration = Duration::from_micros(50);

/// Where the donor describes files, and where all of them are there.
const BEGIN: Boundary = Boundary { state: SnapshotState::FileCopy, is_start: true };
const END: Boundary = Boundary { is_start: false, ..BEGIN };

/// The system tablespace (`TRX_SYS_SPACE`).
const SYSTEM_SPACE: u32 = 0;

/// Which files have to be there before InnoDB is given a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    File(u32),
    All,
}

impl Need {
    fn of(descriptor: &Descriptor<'_>) -> Self {
        match descriptor {
            Descriptor::Data(data) if data.state == SnapshotState::FileCopy => {
                Self::File(data.file_index)
            }
            // To name a file of the system tablespace InnoDB looks at the files before it, down to one of another tablespace, and takes it
            // that they are there (`clone0apply.cc:update_sys_file_name`).
            Descriptor::FileMetadata(file)
                if file.state == SnapshotState::FileCopy && file.space_id == SYSTEM_SPACE =>
            {
                file.file_index.checked_sub(1).map_or(Self::Nothing, Self::File)
            }
            // Of a file that was dropped, or of one that InnoDB knows already.
            Descriptor::FileMetadata(file) if file.state == SnapshotState::FileCopy => {
                Self::File(file.file_index)
            }
            _ if Boundary::of(descriptor) == Some(END) => Self::All,
            _ => Self::Nothing,
        }
    }
}

/// What the list has of what is needed.
enum Found<'a> {
    /// This file, to be created.
    File(Making<'a>),
    /// Another task is having it created.
    InMaking,
    Nothing,
}

/// A file that this task has InnoDB create; the description goes back if that fails.
struct Making<'a> {
    list: &'a FileList,
    index: u32,
    description: Zeroizing<Box<[u8]>>,
}

impl FileList {
    /// Takes note of a descriptor that the master has received. True if it is kept here, and nothing is to be done with it now.
    pub(crate) fn keeps(&self, descriptor: &Descriptor<'_>, bytes: &[u8]) -> bool {
        match descriptor {
            Descriptor::State(state) if Boundary::of(descriptor) == Some(BEGIN) => {
                *self.files() = Files { total: state.files, ..Files::default() };
                false
            }
            Descriptor::FileMetadata(file) => self.files().keep(file, bytes),
            _ => false,
        }
    }

    /// Has `create` create what must be there before InnoDB is given `descriptor`.
    ///
    /// # Errors
    /// That of `create`, or KILL.
    pub(crate) fn create_for<S: Session>(
        &self,
        session: &S,
        descriptor: &Descriptor<'_>,
        mut create: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let need = Need::of(descriptor);
        loop {
            match self.find(need) {
                Found::Nothing => return Ok(()),
                _ if session.is_killed() => return Err(Error::Interrupted),
                Found::File(file) => {
                    create(&file.description)?;
                    file.created();
                }
                Found::InMaking => session.host().sleep(STEP),
            }
        }
    }

    fn find(&self, need: Need) -> Found<'_> {
        let mut files = self.files();
        let index = match need {
            Need::Nothing => None,
            Need::File(index) => Some(index),
            Need::All => files.waiting.keys().next().or(files.in_making.first()).copied(),
        };
        let Some(index) = index else { return Found::Nothing };
        match files.waiting.remove(&index) {
            Some(description) => {
                files.bytes -= description.len();
                files.in_making.insert(index);
                Found::File(Making { list: self, index, description })
            }
            None if files.in_making.contains(&index) => Found::InMaking,
            None => Found::Nothing,
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn keep(&mut self, file: &FileMetadata<'_>, description: &[u8]) -> bool {
        let is_last = file.file_index.checked_add(1).is_none_or(|next| next >= self.total);
        if file.state != SnapshotState::FileCopy
            || file.deleted
            || is_last
            || !is_ordinary(file)
            || self.bytes.saturating_add(description.len()) > LIMIT
        {
            return false;
        }
        self.add(file.file_index, Zeroizing::new(description.into()));
        true
    }

    fn add(&mut self, index: u32, description: Zeroizing<Box<[u8]>>) {
        self.bytes += description.len();
        if let Some(before) = self.waiting.insert(index, description) {
            self.bytes -= before.len();
        }
    }
}

/// Whether a file is a table's in the data directory, of which InnoDB has nothing to complain that had better be known before anything is
/// copied: that an undo tablespace has the same name, that there is a file outside of the directory, or that a table cannot be encrypted
/// and compressed with the file system's blocks.
fn is_ordinary(file: &FileMetadata<'_>) -> bool {
    let is_table = file.name.starts_with(b"./") && file.name.ends_with(b".ibd");
    let is_refused = file.encrypted && file.compression != Compression::None;
    file.space_id != SYSTEM_SPACE && is_table && !is_refused
}

impl Making<'_> {
    fn created(mut self) {
        self.description = Zeroizing::default();
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut files = self.list.files();
        files.in_making.remove(&self.index);
        if !self.description.is_empty() {
            files.add(self.index, std::mem::take(&mut self.description));
        }
    }
}

#[cfg(test)]
mod tests {
    use clone_protocol::innodb::State;

    use super::*;

    fn file(file_index: u32) -> FileMetadata<'static> {
        FileMetadata {
            state: SnapshotState::FileCopy,
            file_size: 114_688,
            allocated_size: 114_688,
            fsp_flags: 0,
            block_size: 4096,
            compression: Compression::None,
            encrypted: false,
            renamed: false,
            deleted: false,
            space_id: 5,
            file_index,
            first_chunk: 1,
            last_chunk: 1,
            name: b"./test/t.ibd",
            key: None,
        }
    }

    fn list_of(files: u32) -> FileList {
        let list = FileList::default();
        let (state, start, ack, task) = (SnapshotState::FileCopy, true, false, 0);
        let start =
            State { state, start, ack, task, chunks: 1, files, estimate: 0, estimate_disk: 0 };
        assert!(!list.keeps(&Descriptor::State(start), b"start"));
        list
    }

    #[test]
    fn what_can_wait_waits() {
        let list = list_of(7);
        let keeps = |file| list.keeps(&Descriptor::FileMetadata(file), b"description");
        assert!(keeps(file(0)));
        assert!(keeps(file(0)), "once more after a restart");
        for name in ["/else/where.ibd", "ibdata1", "./undo_001", "ib_buffer_pool"] {
            assert!(!keeps(FileMetadata { name: name.as_bytes(), ..file(1) }), "{name}");
        }
        assert!(!keeps(FileMetadata { space_id: SYSTEM_SPACE, ..file(1) }));
        assert!(keeps(FileMetadata { encrypted: true, ..file(1) }));
        let compression = Compression::Zlib;
        assert!(!keeps(FileMetadata { encrypted: true, compression, ..file(2) }));
        assert!(!keeps(FileMetadata { deleted: true, ..file(2) }));
        assert!(!keeps(FileMetadata { state: SnapshotState::PageCopy, ..file(3) }));
        assert!(!list.keeps(&Descriptor::FileMetadata(file(4)), &vec![1; LIMIT]));
        assert!(keeps(file(5)));
        assert!(!keeps(file(6)), "workers wait for the last one");
        assert!(!keeps(file(7)) && !keeps(file(u32::MAX)));
        assert_eq!(list.files().waiting.keys().copied().collect::<Vec<_>>(), [0, 1, 5]);
        assert_eq!(list.files().bytes, 3 * b"description".len());
    }

    #[test]
    fn the_file_before_the_system_tablespace_comes_first() {
        let need = |file| Need::of(&Descriptor::FileMetadata(file));
        assert_eq!(need(file(3)), Need::File(3));
        assert_eq!(need(FileMetadata { space_id: SYSTEM_SPACE, ..file(3) }), Need::File(2));
        assert_eq!(need(FileMetadata { space_id: SYSTEM_SPACE, ..file(0) }), Need::Nothing);
        let state = SnapshotState::PageCopy;
        assert_eq!(need(FileMetadata { state, space_id: SYSTEM_SPACE, ..file(3) }), Need::Nothing);
    }

    #[test]
    fn a_file_is_found_once_and_comes_back_if_it_is_not_created() {
        let list = list_of(3);
        assert!(list.keeps(&Descriptor::FileMetadata(file(1)), b"description"));
        assert!(matches!(list.find(Need::File(0)), Found::Nothing));
        let Found::File(making) = list.find(Need::File(1)) else { panic!("it waits") };
        assert!(matches!(list.find(Need::File(1)), Found::InMaking));
        assert!(matches!(list.find(Need::All), Found::InMaking));
        assert_eq!(list.files().bytes, 0);
        drop(making);
        let Found::File(making) = list.find(Need::All) else { panic!("it has come back") };
        assert_eq!(&**making.description, b"description");
        making.created();
        assert!(matches!(list.find(Need::All), Found::Nothing));
    }
}
