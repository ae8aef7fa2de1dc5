// SPDX-License-Identifier: GPL-2.0-only

//! An older copy of the donor's data at the recipient, the *base*. The recipient makes digests of
//! it, and tells them to the donor ([`clone_protocol::Base`]).

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use clone_io::{AlignedBuffer, Digester};
use clone_protocol::innodb::SpacePlace;
use clone_protocol::{Digest, EqualUnits, MAX_DIGESTS, RUN_COST, Run};

use crate::digests::Digests;
use crate::log_target::CLIENT;

/// Bytes that one thread digests before it takes the next part.
const PART: u64 = 16 << 20;

/// Bytes that are read at once: a multiple of each unit, which has 64 pages of 64 KiB at most.
const PIECE: usize = 4 << 20;

/// The most pages of a unit: a donor sends that many at once. Larger units never lie in one block.
const MAX_PAGES: u32 = 64;

/// A file of a base.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseFile {
    /// Where its first byte belongs in its tablespace.
    pub place: SpacePlace,
    /// Its bytes.
    pub len: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// An older copy of the donor's data at the recipient.
///
/// A base may change, be damaged, or be of another server. Bytes are taken from it only if they
/// have the digest that was made of them at first, and that the donor has found in its own data.
#[derive(Debug)]
pub struct Base {
    digester: Digester,
    /// In the order of their places.
    files: Vec<BaseFile>,
    digests: Digests,
    /// Whether files of the clone can share its blocks. The first block decides.
    shares: OnceLock<bool>,
    used: AtomicU64,
    shared: AtomicU64,
}

impl Base {
    /// Makes the digests, with so many threads. Files that cannot be read are left out, with a
    /// warning, and so is what lies behind the most digests that a donor takes. Of files that
    /// overlap, such as copies of a tablespace, the first counts.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn read(files: Vec<BaseFile>, page_size: u32, threads: NonZeroUsize) -> io::Result<Self> {
        let mut files = files;
        files.sort();
        files.dedup_by(|later, first| overlaps(first, later));
        let unit = unit(&files, page_size);
        let digester = Digester::random()?;
        let parts = parts(&files, unit);
        let made: Vec<_> = parts.iter().map(|_| Mutex::new(Vec::new())).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..threads.get().min(parts.len()) {
                scope.spawn(|| {
                    let mut reader = Reader::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(part), Some(made)) = (parts.get(number), made.get(number)) else {
                            return;
                        };
                        let digests = reader.digest(&files[part.file], part, unit, &digester);
                        *made.lock().unwrap_or_else(PoisonError::into_inner) = digests;
                    }
                });
            }
        });
        let mut digests = Digests::new(unit);
        for (part, made) in parts.iter().zip(made) {
            let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
            let file = &files[part.file];
            let run = Run { space_id: file.place.space_id, first: part.first, digests: &made };
            // The files are in order and do not overlap, and so are the runs. So if a run is not
            // taken, the digests are full or there is no memory, and no later run is taken either.
            if !made.is_empty()
                && let Err(why) = digests.push(&run)
            {
                let path = file.path.display();
                log::warn!(target: CLIENT, "The base is used up to '{path}' only: {why}");
                break;
            }
        }
        let (used, shared) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { digester, files, digests, shares: OnceLock::new(), used, shared })
    }

    /// Bytes of which there are digests.
    pub fn bytes(&self) -> u64 {
        let count: usize = self.digests.runs().map(|run| run.digests.len()).sum();
        count as u64 * u64::from(self.digests.unit())
    }

    /// Bytes that clones have taken from the base.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of these for which the file system shares the blocks of both files.
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// Whether files in `directory` can share the blocks of this base.
    pub fn can_share(&self, directory: &Path) -> bool {
        *self.shares.get_or_init(|| {
            let first = self.files.iter().find_map(|file| File::open(&file.path).ok());
            first.is_some_and(|first| clone_io::shares_blocks(first.as_fd(), directory))
        })
    }

    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Which units of the block are as in this base.
    pub(crate) fn compare(&self, place: SpacePlace, block: &[u8]) -> Option<EqualUnits> {
        self.digests.compare(&self.digester, place, block)
    }

    /// Notes that bytes were taken from the base.
    pub(crate) fn note(&self, len: u64, is_shared: bool) {
        self.used.fetch_add(len, Ordering::Relaxed);
        if is_shared {
            self.shared.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// The first unit of `bytes` that has not the digest of the unit with its number; `first` is
    /// the number of the first.
    pub(crate) fn find_changed(&self, space_id: u32, first: u64, bytes: &[u8]) -> Option<u64> {
        let units = bytes.chunks(self.digests.unit() as usize);
        (first..)
            .zip(units)
            .find(|(number, unit)| {
                self.digests.get(space_id, *number) != Some(&self.digester.digest(unit))
            })
            .map(|(number, _)| number)
    }

    /// The file with this place, by its number, and where the place is in it.
    pub(crate) fn locate(&self, place: SpacePlace) -> Option<(usize, u64)> {
        let behind = self.files.partition_point(|file| file.place <= place);
        let number = behind.checked_sub(1)?;
        let file = self.files.get(number)?;
        let at = place.offset - file.place.offset;
        (file.place.space_id == place.space_id && at < file.len).then_some((number, at))
    }

    pub(crate) fn file(&self, number: usize) -> Option<&BaseFile> {
        self.files.get(number)
    }

    /// The commands that tell a donor of the digests.
    pub(crate) fn commands(&self) -> Vec<clone_protocol::Base<'_>> {
        let (key, unit) = (self.digester.key(), self.digests.unit());
        let empty = || clone_protocol::Base { key, unit, runs: Vec::new() };
        let (mut commands, mut now, mut len) = (Vec::new(), empty(), 0);
        for mut run in self.digests.runs() {
            while !run.digests.is_empty() {
                let room = clone_protocol::Base::room(len);
                if room == 0 {
                    commands.push(std::mem::replace(&mut now, empty()));
                    len = 0;
                    continue;
                }
                let (part, rest) = run.digests.split_at(room.min(run.digests.len()));
                let taken = Run { digests: part, ..run };
                len += taken.encoded_len();
                now.runs.push(taken);
                run = Run { first: run.first + part.len() as u64, digests: rest, ..run };
            }
        }
        commands.push(now);
        commands
    }
}

/// Whether `later` begins in `first`, which is not behind it.
fn overlaps(first: &BaseFile, later: &BaseFile) -> bool {
    let behind = first.place.offset.saturating_add(first.len);
    later.place == first.place
        || (later.place.space_id == first.place.space_id && later.place.offset < behind)
}

/// One page, as long as all digests fit.
fn unit(files: &[BaseFile], page_size: u32) -> u32 {
    let page_size = page_size.max(4096);
    let cost = |unit: u32| -> u64 {
        let one = |file: &BaseFile| file.len / u64::from(unit) + RUN_COST as u64;
        let parts = |file: &BaseFile| RUN_COST as u64 * (file.len / PART);
        files.iter().map(|file| one(file) + parts(file)).sum()
    };
    let mut unit = page_size;
    while cost(unit) > MAX_DIGESTS as u64 && unit < MAX_PAGES * page_size {
        unit *= 2;
    }
    unit
}

/// What one thread digests at once.
struct ToDo {
    file: usize,
    /// The number of the first unit in the tablespace, and how many there are.
    first: u64,
    count: u64,
}

fn parts(files: &[BaseFile], unit: u32) -> Vec<ToDo> {
    let unit = u64::from(unit);
    let at_once = (PART / unit).max(1);
    let mut parts = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let first = file.place.offset.div_ceil(unit);
        let end = file.place.offset.saturating_add(file.len) / unit;
        let mut from = first;
        while from < end {
            let count = at_once.min(end - from);
            parts.push(ToDo { file: number, first: from, count });
            from += count;
        }
    }
    parts
}

/// Reads the files of a base for one thread.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The file that was read last, and its path.
    opened: Option<(PathBuf, File)>,
    buffer: AlignedBuffer,
}

impl Reader {
    /// The file, open.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn open(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        open(&mut self.opened, path)
    }

    fn digest(
        &mut self,
        file: &BaseFile,
        part: &ToDo,
        unit: u32,
        digester: &Digester,
    ) -> Vec<Digest> {
        let mut digests = Vec::new();
        let outcome = self.digest_into(file, part, unit, digester, &mut digests);
        if let Err(error) = outcome {
            let path = file.path.display();
            log::warn!(target: CLIENT, "A part of the base's '{path}' is not used: {error}");
        }
        digests
    }

    fn digest_into(
        &mut self,
        file: &BaseFile,
        part: &ToDo,
        unit: u32,
        digester: &Digester,
        digests: &mut Vec<Digest>,
    ) -> io::Result<()> {
        let Self { opened, buffer } = self;
        let opened = open(opened, &file.path)?;
        let mut at = part.first * u64::from(unit) - file.place.offset;
        let mut left = part.count * u64::from(unit);
        digests.try_reserve_exact(usize::try_from(part.count).unwrap_or(usize::MAX))?;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let bytes = buffer.aligned(piece)?;
            clone_io::read_exact_at(opened, bytes, at)?;
            digests.extend(bytes.chunks_exact(unit as usize).map(|unit| digester.digest(unit)));
            at += piece as u64;
            left -= piece as u64;
        }
        Ok(())
    }
}

/// The file, which stays open until another one is opened.
fn open<'o>(opened: &'o mut Option<(PathBuf, File)>, path: &Path) -> io::Result<BorrowedFd<'o>> {
    let file = match opened.take().filter(|(last, _)| last == path) {
        Some(same) => same,
        None => (path.to_owned(), File::open(path)?),
    };
    Ok(opened.insert(file).1.as_fd())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
