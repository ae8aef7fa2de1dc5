// SPDX-License-Identifier: GPL-2.0-only

//! The files of one clone: which there are, which are still to be sent, and in which order.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;

use clone_engine::Error;
use clone_engine::Result;
use clone_protocol::rocksdb::FileName;
use clone_protocol::rocksdb::FileSize;
use clone_protocol::rocksdb::FileState;

/// What a file is, in the order in which files are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A write-ahead log. First, because its content may have to be kept from RocksDB.
    Log,
    /// MANIFEST, CURRENT, OPTIONS: the checkpoint's own copies.
    Metadata,
    /// An SST or blob file. Its number is never used again, so the same name has the same content.
    Data,
}

impl Kind {
    pub(super) fn of(name: &str) -> Self {
        match name.rsplit_once('.') {
            Some((_, "log")) => Self::Log,
            Some((_, "sst" | "blob")) => Self::Data,
            _ => Self::Metadata,
        }
    }
}

/// All files of a clone. A file's number is its index; neither number nor name is used twice.
#[derive(Debug, Default)]
pub(super) struct Files {
    records: Vec<Record>,
    numbers: HashMap<String, usize>,
    waiting: BTreeSet<Turn>,
    /// How many tasks have taken one and not sent all of it.
    taken: usize,
    /// How many checkpoints there have been.
    checkpoint: u32,
}

#[derive(Debug)]
struct Record {
    name: String,
    size: FileSize,
    kind: Kind,
    /// The last checkpoint that has it.
    checkpoint: u32,
    /// Where to begin: 0, or what the recipient of a restart has of it.
    offset: FileSize,
    /// The recipient knows the file: it has got its name.
    is_announced: bool,
    fate: Fate,
}

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It waits, or a task is at it.
    Pending,
    /// All of it has been sent, as far as this side can know.
    Sent,
    /// Its turn came when no checkpoint had it any more.
    LeftOut,
    /// As [`LeftOut`](Fate::LeftOut), but the recipient had part of it and got the rest as
    /// [`Content::Obsolete`].
    Filled,
}

/// The order of waiting files: large ones first within a kind, so that the tasks end together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    kind: Kind,
    size: Reverse<FileSize>,
    number: usize,
}

/// A file that a task has taken, open.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) size: u64,
    /// Where to begin, in bytes; the content stands there.
    pub(super) offset: u64,
    pub(super) is_announced: bool,
    pub(super) content: Content,
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(super) enum Content {
    File(File),
    /// The database has dropped the file, but the recipient has part of it and waits for the rest.
    /// No checkpoint from now on names it, so RocksDB will remove it when it opens the clone: its
    /// length has to be right, its bytes are never read.
    Obsolete,
}

impl Files {
    /// The files that are added from here on are those of another checkpoint.
    pub(super) fn begin_checkpoint(&mut self) {
        self.checkpoint = self.checkpoint.saturating_add(1);
    }

    /// Adds a file; `true` if there is none of this name yet.
    ///
    /// # Errors
    /// A name or size that the recipient would refuse. A file that had gone for good is back.
    pub(super) fn add(&mut self, name: &str, size: u64) -> Result<bool> {
        if let Some(&number) = self.numbers.get(name) {
            let record = &mut self.records[number];
            record.checkpoint = self.checkpoint;
            match record.fate {
                Fate::Pending | Fate::Sent => {}
                // RocksDB does not bring a file back, but nothing is lost if it does.
                Fate::LeftOut => {
                    record.fate = Fate::Pending;
                    self.enqueue(number);
                }
                Fate::Filled => {
                    return Err(Error::Internal(format!(
                        "RocksDB clone: '{name}' is in use again"
                    )));
                }
            }
            return Ok(false);
        }
        FileName::new(name.as_bytes())
            .ok_or_else(|| Error::Internal(format!("RocksDB clone: file name '{name}'")))?;
        let size = FileSize::new(size)
            .ok_or_else(|| Error::Internal(format!("RocksDB clone: size {size} of '{name}'")))?;
        let number = self.records.len();
        self.numbers.insert(name.to_owned(), number);
        self.records.push(Record {
            name: name.to_owned(),
            size,
            kind: Kind::of(name),
            checkpoint: self.checkpoint,
            offset: FileSize::default(),
            is_announced: false,
            fate: Fate::Pending,
        });
        self.enqueue(number);
        Ok(true)
    }

    /// Takes the next file and opens it. A data file that the last checkpoint has not, since a
    /// compaction has made it useless, is left out, unless the recipient has heard of it.
    ///
    /// `open` must find files as they are at the moment of this call: a checkpoint that is renewed
    /// between the choice of a file and its opening would make an error of what is none.
    ///
    /// # Errors
    /// A file that has to be there cannot be opened.
    pub(super) fn take(
        &mut self,
        open: impl Fn(&str, Kind) -> io::Result<File>,
    ) -> Result<Option<Taken>> {
        while let Some(Turn { number, .. }) = self.waiting.pop_first() {
            let record = &mut self.records[number];
            let opened = open(&record.name, record.kind).and_then(|mut file| {
                file.seek(SeekFrom::Start(record.offset.get()))?;
                Ok(Content::File(file))
            });
            let content = match opened {
                Ok(content) => content,
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && record.kind == Kind::Data
                        && record.checkpoint != self.checkpoint =>
                {
                    if !record.is_announced {
                        record.fate = Fate::LeftOut;
                        continue;
                    }
                    record.fate = Fate::Filled;
                    Content::Obsolete
                }
                Err(error) => return Err(Error::file(false, &record.name, &error)),
            };
            self.taken += 1;
            return Ok(Some(Taken {
                number: number as u64,
                name: record.name.clone(),
                size: record.size.get(),
                offset: record.offset.get(),
                is_announced: record.is_announced,
                content,
            }));
        }
        Ok(None)
    }

    /// All of a taken file has been sent.
    pub(super) fn sent(&mut self, taken: &Taken) {
        self.taken = self.taken.saturating_sub(1);
        let record = usize::try_from(taken.number).ok().and_then(|at| self.records.get_mut(at));
        if let Some(record) = record
            && record.fate == Fate::Pending
        {
            record.fate = Fate::Sent;
        }
    }

    /// Whether all that were taken have been sent.
    pub(super) fn are_all_sent(&self) -> bool {
        self.taken == 0
    }

    /// Begins again with what the recipient has; no file may be taken at this time. A file without
    /// a state is sent from its name on, whatever was sent of it before.
    ///
    /// # Errors
    /// States of files that there are not, or beyond their ends. Nothing changes then.
    pub(super) fn restart(&mut self, states: &[FileState]) -> Result<()> {
        let known: Vec<(usize, FileSize)> = states
            .iter()
            .map(|state| {
                let number = usize::try_from(state.file).unwrap_or(usize::MAX);
                match self.records.get(number) {
                    Some(record) if state.applied <= record.size => Ok((number, state.applied)),
                    Some(record) => Err(Error::Protocol(format!(
                        "Wrong Clone RPC: offset {} in RocksDB file {number} of {} bytes",
                        state.applied.get(),
                        record.size.get()
                    ))),
                    None => Err(Error::Protocol(format!(
                        "Wrong Clone RPC: unknown RocksDB file {}",
                        state.file
                    ))),
                }
            })
            .collect::<Result<_>>()?;
        self.taken = 0;
        for record in &mut self.records {
            record.offset = FileSize::default();
            record.is_announced = false;
            if record.fate == Fate::Sent {
                record.fate = Fate::Pending;
            }
        }
        for (number, applied) in known {
            let record = &mut self.records[number];
            record.offset = applied;
            record.is_announced = true;
            if applied == record.size && record.fate == Fate::Pending {
                record.fate = Fate::Sent;
            }
        }
        self.waiting.clear();
        for number in 0..self.records.len() {
            let Record { fate, is_announced, offset, size, .. } = self.records[number];
            let is_wanted = match fate {
                Fate::Pending => true,
                Fate::Sent => false,
                // What the recipient has begun it has to end.
                Fate::LeftOut | Fate::Filled => is_announced && offset != size,
            };
            if is_wanted {
                self.enqueue(number);
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, number: usize) {
        let Record { kind, size, .. } = self.records[number];
        self.waiting.insert(Turn { kind, size: Reverse(size), number });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use super::*;

    fn state(file: u64, applied: u64) -> FileState {
        FileState { file, applied: FileSize::new(applied).unwrap() }
    }

    fn take(files: &mut Files, directory: &Path) -> Option<Taken> {
        files.take(|name, _| File::open(directory.join(name))).unwrap()
    }

    fn names(files: &mut Files, directory: &Path) -> Vec<String> {
        std::iter::from_fn(|| take(files, directory).map(|taken| taken.name)).collect()
    }

    fn filled(directory: &Path, sizes: &[(&str, u64)]) -> Files {
        let mut files = Files::default();
        for (name, size) in sizes {
            std::fs::write(directory.join(name), vec![b'x'; usize::try_from(*size).unwrap()])
                .unwrap();
            assert!(files.add(name, *size).unwrap());
        }
        files
    }

    #[test]
    fn logs_then_metadata_then_data_and_large_files_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = filled(
            directory.path(),
            &[
                ("000007.sst", 10),
                ("000008.blob", 30),
                ("MANIFEST-000001", 5),
                ("CURRENT", 16),
                ("000009.log", 0),
                ("000010.log", 7),
                ("000011.sst", 20),
            ],
        );
        assert_eq!(
            names(&mut files, directory.path()),
            [
                "000010.log",
                "000009.log",
                "CURRENT",
                "MANIFEST-000001",
                "000008.blob",
                "000011.sst",
                "000007.sst"
            ]
        );
    }

    #[test]
    fn a_name_is_one_file_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = filled(directory.path(), &[("000007.sst", 10)]);
        assert!(!files.add("000007.sst", 10).unwrap());
        let taken = take(&mut files, directory.path()).unwrap();
        assert!(!files.add("000007.sst", 10).unwrap(), "taken");
        files.sent(&taken);
        assert!(!files.add("000007.sst", 10).unwrap(), "sent");
        assert!(take(&mut files, directory.path()).is_none());
        assert!(files.add("000008.sst", 10).unwrap());
    }

    #[test]
    fn names_and_sizes_that_no_recipient_takes_are_refused() {
        let mut files = Files::default();
        for name in ["", ".hidden", "a/b", "a b"] {
            assert_eq!(files.add(name, 1).unwrap_err().number(), 1815, "{name}");
        }
        assert!(files.add("000001.sst", u64::MAX).is_err());
    }

    #[test]
    fn a_data_file_that_was_compacted_away_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = filled(directory.path(), &[("000007.sst", 10), ("000008.sst", 9)]);
        std::fs::remove_file(directory.path().join("000007.sst")).unwrap();
        files.begin_checkpoint();
        files.add("000008.sst", 9).unwrap();
        assert_eq!(names(&mut files, directory.path()), ["000008.sst"]);
        // RocksDB does not do this.
        std::fs::write(directory.path().join("000007.sst"), "0123456789").unwrap();
        assert!(!files.add("000007.sst", 10).unwrap());
        assert_eq!(names(&mut files, directory.path()), ["000007.sst"]);
    }

    #[test]
    fn what_the_last_checkpoint_has_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = filled(directory.path(), &[("000007.sst", 10)]);
        files.begin_checkpoint();
        files.add("000007.sst", 10).unwrap();
        std::fs::remove_file(directory.path().join("000007.sst")).unwrap();
        let error = files.take(|name, _| File::open(directory.path().join(name))).unwrap_err();
        assert_eq!(error, Error::File { write: false, name: "000007.sst".into(), errno: 2 });
    }

    #[test]
    fn metadata_and_logs_have_to_be_there() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["CURRENT", "000003.log"] {
            let mut files = filled(directory.path(), &[(name, 10)]);
            std::fs::remove_file(directory.path().join(name)).unwrap();
            let error = files.take(|name, _| File::open(directory.path().join(name))).unwrap_err();
            assert_eq!(error, Error::File { write: false, name: name.into(), errno: 2 });
        }
    }

    #[test]
    fn a_restart_goes_on_where_the_recipient_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = filled(
            directory.path(),
            &[("000001.sst", 40), ("000002.sst", 30), ("000003.sst", 20), ("000004.sst", 10)],
        );
        while let Some(taken) = take(&mut files, directory.path()) {
            files.sent(&taken);
        }
        // All were sent; what arrived is the first whole, half of the second, and the name of the
        // third.
        files.restart(&[state(0, 40), state(1, 15), state(2, 0)]).unwrap();
        let second = take(&mut files, directory.path()).unwrap();
        assert_eq!((second.number, second.offset, second.is_announced), (1, 15, true));
        let Content::File(mut file) = second.content else { panic!("{second:?}") };
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 15, "the file stands at the offset");
        let third = take(&mut files, directory.path()).unwrap();
        assert_eq!((third.number, third.offset, third.is_announced), (2, 0, true));
        let fourth = take(&mut files, directory.path()).unwrap();
        assert_eq!((fourth.number, fourth.offset, fourth.is_announced), (3, 0, false));
        assert!(take(&mut files, directory.path()).is_none());
    }

    #[test]
    fn what_the_recipient_has_in_part_and_the_database_not_at_all_is_obsolete() {
        let directory = tempfile::tempdir().unwrap();
        let mut files =
            filled(directory.path(), &[("000001.sst", 40), ("000002.sst", 30), ("000003.sst", 20)]);
        files.restart(&[state(0, 39), state(1, 0)]).unwrap();
        for name in ["000001.sst", "000002.sst", "000003.sst"] {
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
        files.begin_checkpoint();
        for offset in [39, 0] {
            let taken = take(&mut files, directory.path()).unwrap();
            assert_eq!(taken.offset, offset);
            assert!(matches!(taken.content, Content::Obsolete));
            files.sent(&taken);
        }
        assert!(take(&mut files, directory.path()).is_none(), "nobody knows of the third");
        // And once more: of the first all has arrived.
        files.restart(&[state(0, 40), state(1, 3)]).unwrap();
        let taken = take(&mut files, directory.path()).unwrap();
        assert_eq!((taken.number, taken.offset), (1, 3));
        assert!(take(&mut files, directory.path()).is_none());
        assert_eq!(files.add("000001.sst", 40).unwrap_err().number(), 1815, "its bytes are wrong");
    }

    #[test]
    fn a_wrong_restart_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = filled(directory.path(), &[("000001.sst", 40), ("000002.sst", 30)]);
        for wrong in [
            vec![state(0, 40), state(2, 0)],
            vec![state(0, 10), state(1, 31)],
            vec![state(u64::MAX, 0)],
        ] {
            assert_eq!(files.restart(&wrong).unwrap_err().number(), 3863);
        }
        let first = take(&mut files, directory.path()).unwrap();
        assert_eq!((first.number, first.offset, first.is_announced), (0, 0, false));
    }
}
