// SPDX-License-Identifier: GPL-2.0-only

//! The files of a clone: those that are being written, and those that are complete.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use clone_engine::{Error, Result};
use clone_protocol::rocksdb::{FileChunk, FileNameMap, FileSize, FileState};

use super::protocol;
use crate::layout::Places;
use crate::storage::{attempt, failed};
use clone_swap::disk::FILE_MODE;

/// The most files in a clone: 64 TiB of SSTs of 64 MiB. A donor that names more is not believed;
/// each costs memory here.
const MAX_FILES: usize = 1 << 20;

/// The most files in progress. A task writes one after the other, so there are not more than tasks
/// (128), and after each restart as many again that were cut off. It is also the most descriptors
/// that are open here.
const MAX_IN_PROGRESS: usize = 1024;

/// What is known of a clone's files.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    in_progress: BTreeMap<u64, Arc<InProgress>>,
    /// With their sizes; for the restart locator.
    completed: BTreeMap<u64, FileSize>,
    /// All files, by name.
    names: HashMap<String, u64>,
    /// The sizes of all files, in bytes.
    total: u64,
    is_estimated: bool,
}

/// A file of which bytes are to come.
#[derive(Debug)]
struct InProgress {
    name: String,
    path: PathBuf,
    size: FileSize,
    /// Bytes that have come.
    applied: AtomicU64,
    /// Held by the task that writes. None before the first chunk, and after a restart before the
    /// next.
    file: Mutex<Option<File>>,
}

impl Files {
    /// The donor has said how much there is.
    pub(super) fn estimate(&self) {
        self.known().is_estimated = true;
    }

    /// Creates a file.
    pub(super) fn add(&self, places: &Places, map: FileNameMap<'_>) -> Result<()> {
        let mut known = self.known();
        if known.is_repeated(&map)? {
            return Ok(());
        }
        if known.names.contains_key(map.name.as_str()) {
            return Err(protocol("file name with two numbers"));
        }
        if known.names.len() >= MAX_FILES {
            return Err(protocol("too many files"));
        }
        if known.in_progress.len() >= MAX_IN_PROGRESS {
            return Err(protocol("too many files in progress"));
        }
        let total = known.total.checked_add(map.size.get()).and_then(FileSize::new);
        let total = total.ok_or_else(|| protocol("files of 8 EiB"))?;

        let path = places.of(map.name);
        let mut options = OpenOptions::new();
        let created = options.write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = attempt(&path, created)?;
        known.total = total.get();
        known.names.insert(map.name.as_str().to_owned(), map.file);
        if map.size.get() == 0 {
            attempt(&path, file.sync_all())?;
            known.completed.insert(map.file, map.size);
        } else {
            known.in_progress.insert(
                map.file,
                Arc::new(InProgress {
                    name: map.name.as_str().to_owned(),
                    path,
                    size: map.size,
                    applied: AtomicU64::new(0),
                    file: Mutex::new(None),
                }),
            );
        }
        Ok(())
    }

    /// Lets `receive` write the chunk to its file.
    pub(super) fn write(
        &self,
        chunk: FileChunk,
        receive: impl FnOnce(BorrowedFd<'_>, &Path) -> Result<()>,
    ) -> Result<()> {
        let found = self.known().in_progress.get(&chunk.file).cloned();
        let file = found.ok_or_else(|| protocol("chunk of an unknown file"))?;
        if file.write(chunk.len, receive)? {
            let mut known = self.known();
            known.in_progress.remove(&chunk.file);
            known.completed.insert(chunk.file, file.size);
        }
        Ok(())
    }

    /// Closes what is open, and says what has come of each file.
    pub(super) fn pause(&self) -> Result<Vec<FileState>> {
        let known = self.known();
        let mut states = Vec::with_capacity(known.names.len());
        for (file, size) in &known.completed {
            states.push(FileState { file: *file, applied: *size });
        }
        for (file, progress) in &known.in_progress {
            progress.writer()?.take();
            let applied = FileSize::new(progress.applied.load(Ordering::Relaxed));
            states.push(FileState { file: *file, applied: applied.unwrap_or_default() });
        }
        Ok(states)
    }

    /// Whether all has come.
    pub(super) fn check_complete(&self, required: Option<&str>) -> Result<()> {
        let known = self.known();
        if !known.is_estimated {
            return Err(protocol("end without an estimate"));
        }
        if let Some(file) = known.in_progress.values().next() {
            let InProgress { name, size, applied, .. } = &**file;
            let (applied, size) = (applied.load(Ordering::Relaxed), size.get());
            return Err(protocol(&format!("end with {applied} of {size} bytes of {name}")));
        }
        match required {
            Some(name) if !known.names.contains_key(name) => {
                Err(protocol(&format!("end without {name}")))
            }
            _ => Ok(()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether this only says again what is known: after a restart a donor sends the names anew of
    /// files of which nothing had come.
    fn is_repeated(&self, map: &FileNameMap<'_>) -> Result<bool> {
        let same_name = self.names.get(map.name.as_str()) == Some(&map.file);
        let (size, applied) = match self.in_progress.get(&map.file) {
            Some(file) => (file.size, file.applied.load(Ordering::Relaxed)),
            None => match self.completed.get(&map.file) {
                Some(size) => (*size, size.get()),
                None => return Ok(false),
            },
        };
        if same_name && size == map.size && applied == 0 {
            return Ok(true);
        }
        Err(protocol("file number used twice"))
    }
}

impl InProgress {
    /// Gives true when the file is complete, and on disk.
    fn write(
        &self,
        len: u32,
        receive: impl FnOnce(BorrowedFd<'_>, &Path) -> Result<()>,
    ) -> Result<bool> {
        let mut writer = self.writer()?;
        let from = self.applied.load(Ordering::Relaxed);
        let Some(to) = from.checked_add(u64::from(len)).filter(|to| *to <= self.size.get()) else {
            return Err(protocol("chunk past the end of its file"));
        };
        let mut file = match writer.take() {
            Some(file) => file,
            None => self.attempt(OpenOptions::new().write(true).open(&self.path))?,
        };
        // A chunk that was cut off may have left bytes and moved the offset.
        self.attempt(file.seek(SeekFrom::Start(from)))?;
        receive(file.as_fd(), &self.path)?;
        if self.attempt(file.stream_position())? != to {
            return Err(protocol("data length differs from its descriptor"));
        }
        self.applied.store(to, Ordering::Relaxed);
        if to < self.size.get() {
            *writer = Some(file);
            return Ok(false);
        }
        self.attempt(file.sync_all())?;
        Ok(true)
    }

    /// The right to write.
    fn writer(&self) -> Result<MutexGuard<'_, Option<File>>> {
        match self.file.try_lock() {
            Ok(file) => Ok(file),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(protocol("file that two tasks write")),
        }
    }

    fn attempt<T>(&self, outcome: std::io::Result<T>) -> Result<T, Error> {
        outcome.map_err(|error| failed(&self.path, &error))
    }
}
