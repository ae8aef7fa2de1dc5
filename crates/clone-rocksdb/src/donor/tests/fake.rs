// SPDX-License-Identifier: GPL-2.0-only

//! A database that is a directory with files, and a recipient that is a map of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use clone_protocol::rocksdb::Descriptor;
use clone_protocol::rocksdb::FileState;
use tempfile::TempDir;

use super::*;
use crate::database::Connection;
use crate::database::Cut;
use crate::database::WalFile;

/// A session that can be killed.
#[derive(Default)]
pub(super) struct TestSession {
    pub(super) killed: AtomicBool,
}

impl Cancel for TestSession {
    fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

/// What a fake database has been asked for, and is to answer.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) connections: u32,
    pub(super) checkpoints: Vec<String>,
    pub(super) disabled: u32,
    /// How often deletions have been disabled and enabled.
    pub(super) disables: u32,
    pub(super) enables: u32,
    /// The checkpoint with this index fails.
    pub(super) failing_checkpoint: Option<usize>,
    /// What the cut is said to be, whatever the logs are.
    pub(super) pretended_cut: Option<WalFile>,
    /// Deletions that wait until they are enabled.
    deferred: Vec<String>,
}

/// A database: SSTs that come and go, a log that grows.
pub(super) struct Fake {
    pub(super) directory: TempDir,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) recycles_logs: bool,
}

impl Fake {
    /// With a CURRENT, a MANIFEST, and an empty log.
    pub(super) fn new() -> Self {
        let fake = Self {
            directory: tempfile::tempdir().unwrap(),
            book: Arc::default(),
            recycles_logs: false,
        };
        fake.file("CURRENT", b"MANIFEST-000001\n");
        fake.file("MANIFEST-000001", b"");
        fake.file("000002.log", b"");
        fake
    }

    /// With data files of these sizes, `000100.sst` and so on.
    pub(super) fn with_data(sizes: &[usize]) -> Self {
        let fake = Self::new();
        for (index, size) in sizes.iter().enumerate() {
            fake.file(&sst(index), &content(&sst(index), *size));
        }
        fake
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(super) fn append(&self, name: &str, bytes: &[u8]) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// RocksDB does not need the file any more.
    pub(super) fn drop_file(&self, name: &str) {
        let mut book = self.book.lock().unwrap();
        if book.disabled > 0 {
            book.deferred.push(name.to_owned());
        } else {
            fs::remove_file(self.path(name)).unwrap();
        }
    }

    /// The directories of clones that are there.
    pub(super) fn clone_directories(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        names.sort();
        names
    }

    /// The live data files and metadata, by name.
    pub(super) fn content(&self) -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    /// Nothing of any clone is left.
    #[track_caller]
    pub(super) fn assert_clean(&self) {
        let book = self.book.lock().unwrap();
        assert_eq!((book.connections, book.disabled), (0, 0), "{book:?}");
        assert_eq!(book.disables, book.enables, "{book:?}");
        drop(book);
        assert_eq!(self.clone_directories(), Vec::<String>::new());
    }
}

pub(super) fn sst(index: usize) -> String {
    format!("{:06}.sst", 100 + index)
}

/// Bytes that are only this file's.
pub(super) fn content(name: &str, size: usize) -> Vec<u8> {
    let seed = name.bytes().fold(7_usize, |seed, byte| seed * 31 % 65_521 + byte as usize);
    (0..size).map(|at| u8::try_from((at * 7 + at / 251 + seed) % 251).unwrap()).collect()
}

impl Database for Fake {
    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn wal_directory(&self) -> &Path {
        self.directory.path()
    }

    fn recycles_logs(&self) -> bool {
        self.recycles_logs
    }

    fn connect(&self) -> Result<Box<dyn Connection>> {
        self.book.lock().unwrap().connections += 1;
        Ok(Box::new(FakeConnection {
            directory: self.directory.path().to_owned(),
            book: Arc::clone(&self.book),
            has_checkpoint: false,
        }))
    }
}

struct FakeConnection {
    directory: std::path::PathBuf,
    book: Arc<Mutex<Book>>,
    has_checkpoint: bool,
}

impl Connection for FakeConnection {
    fn create_checkpoint(&mut self, directory: &Path) -> Result<()> {
        assert!(!self.has_checkpoint, "one at a time");
        assert!(!directory.exists());
        fs::create_dir(directory).unwrap();
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        let mut book = self.book.lock().unwrap();
        book.checkpoints.push(name);
        if book.failing_checkpoint == Some(book.checkpoints.len() - 1) {
            return Err(Error::Internal("as a test".into()));
        }
        for entry in fs::read_dir(&self.directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !entry.file_type().unwrap().is_file() || book.deferred.contains(&name) {
                continue;
            }
            let to = directory.join(&name);
            if name.ends_with(".sst") || name.ends_with(".blob") {
                fs::hard_link(entry.path(), to).unwrap();
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
        self.has_checkpoint = true;
        Ok(())
    }

    fn remove_checkpoint(&mut self, directory: &Path) -> Result<()> {
        self.has_checkpoint = false;
        fs::remove_dir_all(directory).unwrap();
        Ok(())
    }

    fn disable_file_deletions(&mut self) -> Result<()> {
        let mut book = self.book.lock().unwrap();
        book.disabled += 1;
        book.disables += 1;
        Ok(())
    }

    fn enable_file_deletions(&mut self) -> Result<()> {
        let mut book = self.book.lock().unwrap();
        book.disabled = book.disabled.checked_sub(1).expect("deletions are enabled");
        book.enables += 1;
        if book.disabled == 0 {
            for name in std::mem::take(&mut book.deferred) {
                fs::remove_file(self.directory.join(name)).unwrap();
            }
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<Cut> {
        if let Some(log) = self.book.lock().unwrap().pretended_cut.clone() {
            return Ok(Cut { logs: vec![log], sequence: None });
        }
        let mut logs: Vec<_> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().to_str().unwrap().ends_with(".log"))
            .map(|entry| WalFile {
                name: entry.file_name().into_string().unwrap(),
                size: entry.metadata().unwrap().len(),
            })
            .collect();
        logs.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Cut { logs, sequence: None })
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.book.lock().unwrap().connections -= 1;
    }
}

/// One file as a recipient has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) bytes: Vec<u8>,
}

/// What all tasks of a recipient have received.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub(super) files: BTreeMap<u64, Received>,
    /// In the order of their names' arrival.
    pub(super) order: Vec<String>,
    pub(super) estimate: u64,
    pub(super) largest_chunk: usize,
}

impl Target {
    /// As a restart locator says it.
    pub(super) fn states(&self) -> Vec<FileState> {
        self.files
            .iter()
            .map(|(file, received)| FileState {
                file: *file,
                applied: clone_protocol::rocksdb::FileSize::new(received.bytes.len() as u64)
                    .unwrap(),
            })
            .collect()
    }

    /// The files by name; all are whole.
    #[track_caller]
    pub(super) fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let content: BTreeMap<_, _> = self
            .files
            .values()
            .map(|file| {
                assert_eq!(file.bytes.len() as u64, file.size, "{}", file.name);
                (file.name.clone(), file.bytes.clone())
            })
            .collect();
        assert_eq!(content.len(), self.files.len(), "one name, one number");
        content
    }
}

/// What happens before each chunk: its file's name.
type Hook<'a> = Box<dyn FnMut(&str) + Send + 'a>;

/// A task of a recipient. It breaks off after so many bytes.
pub(super) struct Recipient<'a> {
    pub(super) target: &'a Mutex<Target>,
    pub(super) left: u64,
    pub(super) error: Error,
    pub(super) hook: Hook<'a>,
}

impl<'a> Recipient<'a> {
    pub(super) fn new(target: &'a Mutex<Target>) -> Self {
        Self { target, left: u64::MAX, error: Error::Raised(1160), hook: Box::new(|_| {}) }
    }

    pub(super) fn breaking_after(target: &'a Mutex<Target>, left: u64, error: u32) -> Self {
        Self { left, error: Error::Raised(error), ..Self::new(target) }
    }

    pub(super) fn with_hook(target: &'a Mutex<Target>, hook: impl FnMut(&str) + Send + 'a) -> Self {
        Self { hook: Box::new(hook), ..Self::new(target) }
    }

    fn receive(&mut self, descriptor: &[u8], data: &[u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub((descriptor.len() + data.len()) as u64)
            .ok_or_else(|| self.error.clone())?;
        let mut target = self.target.lock().unwrap();
        match Descriptor::parse(descriptor).unwrap() {
            Descriptor::AddEstimate(estimate) => {
                assert!(data.is_empty());
                target.estimate += estimate.bytes;
            }
            Descriptor::FileNameMap(map) => {
                assert!(data.is_empty());
                let name = map.name.as_str().to_owned();
                let known = target.files.insert(
                    map.file,
                    Received { name: name.clone(), size: map.size.get(), bytes: Vec::new() },
                );
                assert!(known.is_none_or(|known| known.name == name && known.bytes.is_empty()));
                target.order.push(name);
            }
            Descriptor::FileChunk(chunk) => {
                assert_eq!(data.len(), chunk.len as usize);
                target.largest_chunk = target.largest_chunk.max(data.len());
                let file = target.files.get_mut(&chunk.file).expect("a name comes first");
                file.bytes.extend_from_slice(data);
                assert!(file.bytes.len() as u64 <= file.size);
            }
        }
        Ok(())
    }
}

impl BlockOutput for Recipient<'_> {
    fn file(
        &mut self,
        view: &clone_engine::View<'_>,
        file: BorrowedFd<'_>,
        len: u32,
    ) -> Result<()> {
        (self.hook)(view.source_name);
        let mut data = vec![0; len as usize];
        // A duplicate has the same offset.
        let mut file = fs::File::from(file.try_clone_to_owned().unwrap());
        std::io::Read::read_exact(&mut file, &mut data)
            .map_err(|error| Error::file(false, view.source_name, &error))?;
        self.receive(view.descriptor, &data)
    }

    fn buffer(&mut self, view: &clone_engine::View<'_>, data: &[u8]) -> Result<()> {
        self.receive(view.descriptor, data)
    }
}
