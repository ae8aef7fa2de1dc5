// SPDX-License-Identifier: GPL-2.0-only

//! An older copy of the donor's data at the recipient, the *base*, and its digests
//! ([`clone_protocol::Base`]).

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
use clone_protocol::{Digest, EqualUnits, MAX_DIGESTS, RUN_COST, Run, Units};

use crate::log_target::CLIENT;

/// Bytes that one thread digests before it takes the next part.
const PART: u64 = 16 << 20;

/// Bytes that are read at once: a multiple of each unit, which has 64 pages of 64 KiB at most.
const PIECE: usize = 4 << 20;

/// The most pages of a unit: a donor sends that many at once. Larger units never lie in one block.
const MAX_PAGES: u32 = 64;

/// Digests by their places, in order.
#[derive(Debug)]
pub(crate) struct Digests {
    unit: u32,
    runs: Vec<Known>,
    /// What counts for [`MAX_DIGESTS`].
    cost: usize,
}

#[derive(Debug)]
struct Known {
    space_id: u32,
    first: u64,
    digests: Vec<Digest>,
}

impl Known {
    fn end(&self) -> u64 {
        self.first + self.digests.len() as u64
    }
}

/// Why digests are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// There are [`MAX_DIGESTS`].
    Full,
    /// They do not lie behind those before.
    Order,
    /// No memory.
    Memory,
}

impl Digests {
    pub(crate) fn new(unit: u32) -> Self {
        Self { unit, runs: Vec::new(), cost: 0 }
    }

    /// Bytes of a unit.
    pub(crate) fn unit(&self) -> u32 {
        self.unit
    }

    /// Adds a run, which lies behind all others.
    ///
    /// # Errors
    /// See [`NotTaken`]. Nothing was added.
    pub(crate) fn push(&mut self, run: &Run<'_>) -> Result<(), NotTaken> {
        let last = self.runs.last().map(|last| (last.space_id, last.end()));
        if last.is_some_and(|last| last > (run.space_id, run.first)) {
            return Err(NotTaken::Order);
        }
        let cost = self.cost.saturating_add(run.cost());
        if cost > MAX_DIGESTS {
            return Err(NotTaken::Full);
        }
        let mut digests = Vec::new();
        digests.try_reserve_exact(run.digests.len()).map_err(|_| NotTaken::Memory)?;
        self.runs.try_reserve(1).map_err(|_| NotTaken::Memory)?;
        digests.extend_from_slice(run.digests);
        self.runs.push(Known { space_id: run.space_id, first: run.first, digests });
        self.cost = cost;
        Ok(())
    }

    /// The digest of a unit.
    pub(crate) fn get(&self, space_id: u32, unit: u64) -> Option<&Digest> {
        let behind = self.runs.partition_point(|run| (run.space_id, run.first) <= (space_id, unit));
        let run = self.runs[..behind].last().filter(|run| run.space_id == space_id)?;
        run.digests.get(usize::try_from(unit - run.first).ok()?)
    }

    /// Whether a block at this place has units with digests.
    pub(crate) fn concern(&self, place: SpacePlace, len: u32) -> bool {
        let units = self.units(place, len);
        let mut numbers = (units.first..).take(units.count);
        numbers.any(|unit| self.get(place.space_id, unit).is_some())
    }

    /// The units of a block at this place.
    pub(crate) fn units(&self, place: SpacePlace, len: u32) -> Units {
        Units::of(place.offset, len, self.unit)
    }

    /// Which units of the block have the digests that are known of them.
    pub(crate) fn compare(
        &self,
        digester: &Digester,
        place: SpacePlace,
        block: &[u8],
    ) -> Option<EqualUnits> {
        let units = self.units(place, u32::try_from(block.len()).ok()?);
        EqualUnits::find(units, |index| {
            let known = self.get(place.space_id, units.first + index as u64);
            known.is_some_and(|known| digester.digest(&block[units.range(index)]) == *known)
        })
    }

    /// All runs, in order.
    fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().map(|run| Run {
            space_id: run.space_id,
            first: run.first,
            digests: &run.digests,
        })
    }
}

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
    /// warning, and so is what lies behind the most digests that a donor takes.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn read(files: Vec<BaseFile>, page_size: u32, threads: NonZeroUsize) -> io::Result<Self> {
        let mut files = files;
        files.sort();
        // Copies of a tablespace: the first counts.
        files.dedup_by(|later, first| later.place == first.place);
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
            if !made.is_empty()
                && let Err(why) = digests.push(&run)
            {
                let path = file.path.display();
                log::warn!(target: CLIENT, "The base is used up to '{path}' only: {why:?}");
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
        let opened = match self.opened.take().filter(|(last, _)| last == path) {
            Some(opened) => opened,
            None => (path.to_owned(), File::open(path)?),
        };
        Ok(self.opened.insert(opened).1.as_fd())
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
        let mut buffer = std::mem::take(&mut self.buffer);
        let opened = self.open(&file.path)?;
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
        self.buffer = buffer;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
