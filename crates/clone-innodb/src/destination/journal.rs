// SPDX-License-Identifier: GPL-2.0-only

//! The journal of a clone: what took effect, so that another process can go on with the clone.
//!
//! A record is appended after its descriptor took effect. So the journal never names a block that
//! is not in its file, as long as the machine does not lose its memory. The last step may have
//! taken effect without a record; then the donor sends its descriptor again.
//!
//! | Bytes | |
//! |---|---|
//! | 8 | `CLONEJ01`, once at the beginning |
//! | | records: |
//! | 4, little-endian | number of the task, which is 0 for the master |
//! | 4, little-endian | length of the descriptor; 0: the task has ended or begins anew |
//! | | the descriptor, as the donor sent it |
//! | 4, little-endian | CRC-32C of all of that |
//!
//! Descriptors that hold a key are not written, and neither is anything after them: the clone
//! cannot be resumed then.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clone_io::Checksum;

use super::operations::failed;
use crate::error::{Error, FileOperation, Result};
use crate::lock;

/// What a journal begins with.
const MAGIC: [u8; 8] = *b"CLONEJ01";

/// The longest descriptor, in bytes: file metadata with a name of 4000 bytes, and some.
const MAX_DESCRIPTOR: usize = 8 << 10;

/// Bytes of a record without its descriptor.
const HEAD: usize = 8;
const TAIL: usize = 4;

/// A journal that is written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// None when the clone cannot be resumed any more.
    file: Mutex<Option<File>>,
}

impl Journal {
    /// Begins a journal.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let created = File::options().append(true).create_new(true).mode(0o600).open(path);
        let mut file = created.map_err(failed(FileOperation::Create, path))?;
        file.write_all(&MAGIC).map_err(failed(FileOperation::Write, path))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(Some(file)) })
    }

    /// Goes on with a journal that [`read`] has read: `len` bytes of it are whole records.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn reopen(path: &Path, len: u64) -> Result<Self> {
        let opened = File::options().append(true).open(path);
        let file = opened.map_err(failed(FileOperation::Open, path))?;
        file.set_len(len).map_err(failed(FileOperation::Write, path))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(Some(file)) })
    }

    /// Notes that a descriptor took effect. An empty one: the task has ended or begins anew.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn append(&self, task: u32, descriptor: &[u8]) -> Result<()> {
        let mut file = lock(&self.file);
        let Some(file) = file.as_mut() else { return Ok(()) };
        let len = u32::try_from(descriptor.len()).unwrap_or(u32::MAX);
        let mut record = Vec::with_capacity(HEAD + descriptor.len() + TAIL);
        record.extend(task.to_le_bytes());
        record.extend(len.to_le_bytes());
        record.extend(descriptor);
        record.extend(clone_io::checksum(&record).to_le_bytes());
        file.write_all(&record).map_err(failed(FileOperation::Write, &self.path))
    }

    /// The clone cannot be resumed from here on: the journal is removed.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(super) fn give_up(&self) -> Result<()> {
        if lock(&self.file).take().is_none() {
            return Ok(());
        }
        std::fs::remove_file(&self.path).map_err(failed(FileOperation::Delete, &self.path))
    }
}

/// A record of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the task; the master's is 0.
    pub task: u32,
    /// The descriptor. Empty: the task has ended or begins anew.
    pub descriptor: Vec<u8>,
}

/// The records of a journal, in their order.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes up to the end of the last whole record.
    len: u64,
    is_over: bool,
}

/// Reads a journal.
///
/// A record that is not whole ends the journal: the program was killed while it wrote the record.
///
/// # Errors
/// The file cannot be read, or is no journal. A record that is damaged is the error of its item.
pub fn read(path: &Path) -> Result<Records> {
    let file = File::open(path).map_err(failed(FileOperation::Open, path))?;
    let mut records = Records {
        path: path.to_owned(),
        file: BufReader::new(file),
        len: MAGIC.len() as u64,
        is_over: false,
    };
    let mut magic = [0; MAGIC.len()];
    match records.fill(&mut magic)? {
        true if magic == MAGIC => Ok(records),
        _ => Err(damaged(path, "it does not begin as a journal")),
    }
}

impl Records {
    /// Bytes up to the end of the last record that was read.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills the buffer. False if the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.file.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(failed(FileOperation::Read, &self.path)(error)),
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        let mut head = [0; HEAD];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = number(4) as usize;
        if len > MAX_DESCRIPTOR {
            return Err(damaged(&self.path, "a descriptor is too long"));
        }
        let mut descriptor = vec![0; len];
        let mut tail = [0; TAIL];
        if !self.fill(&mut descriptor)? || !self.fill(&mut tail)? {
            return Ok(None);
        }
        let mut checksum = Checksum::default();
        checksum.update(&head);
        checksum.update(&descriptor);
        if checksum.finish() != u32::from_le_bytes(tail) {
            return Err(damaged(&self.path, "a checksum is wrong"));
        }
        self.len += (HEAD + len + TAIL) as u64;
        Ok(Some(Record { task: number(0), descriptor }))
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_record().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

fn damaged(path: &Path, how: &str) -> Error {
    Error::Damaged { path: path.to_owned(), how: how.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn written(records: &[(u32, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let journal = Journal::create(&path).unwrap();
        for (task, descriptor) in records {
            journal.append(*task, descriptor).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn a_torn_record_ends_a_journal_that_then_goes_on() {
        let (_directory, path) = written(&[(0, vec![1; 40]), (3, vec![]), (3, vec![2; 9])]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut records = read(&path).unwrap();
        assert_eq!(records.by_ref().filter(Result::is_ok).count(), 2);
        let journal = Journal::reopen(&path, records.len()).unwrap();
        journal.append(7, &[5]).unwrap();
        let last = read(&path).unwrap().last().unwrap().unwrap();
        assert_eq!(last, Record { task: 7, descriptor: vec![5] });
        assert_eq!(read(&path).unwrap().count(), 3);
    }

    #[test]
    fn a_journal_that_was_given_up_is_gone() {
        let (_directory, path) = written(&[]);
        let journal = Journal::reopen(&path, 8).unwrap();
        journal.give_up().unwrap();
        journal.append(0, &[1]).unwrap();
        journal.give_up().unwrap();
        assert!(!path.exists());
        assert_eq!(read(&path).unwrap_err().number(), 1016);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            records in prop::collection::vec((0..9_u32, prop::collection::vec(any::<u8>(), 0..90)), 0..20)
        ) {
            let (_directory, path) = written(&records);
            let found: Vec<_> = read(&path).unwrap().map(|record| {
                let record = record.unwrap();
                (record.task, record.descriptor)
            }).collect();
            prop_assert_eq!(found, records);
        }

        #[test]
        fn a_changed_byte_is_found(
            len in 1..60_usize, at in 8..200_usize, bit in 0..8_u32,
        ) {
            let records: Vec<_> = (0..3).map(|task| (task, vec![7; len])).collect();
            let (_directory, path) = written(&records);
            let mut bytes = fs::read(&path).unwrap();
            let at = at % (bytes.len() - 8) + 8;
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            // A longer length may also end the journal early.
            let found: Vec<_> = read(&path).unwrap().flatten().collect();
            prop_assert!(found.len() < 3);
            for (record, (task, descriptor)) in found.iter().zip(&records) {
                prop_assert_eq!((&record.task, &record.descriptor), (task, descriptor));
            }
        }
    }
}
