// SPDX-License-Identifier: GPL-2.0-only

//! The pass over a tablespace: opened once, read in pieces by any number of threads, and checked as
//! a whole when the last piece was read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use clone_protocol::innodb::PageSize;
use rustix::fs::{Advice, fadvise};

use super::directory::{SpaceFiles, beginning};
use super::examine::{Examiner, Expected, Found};
use super::fault::{Fault, Kind};
use super::observer::{Context, Observer};
use super::page_size::page_size;
use super::space::{PageRecord, Sink, State};
use super::{allocation, tree};
use crate::encryption::DataKey;
use crate::format::bytes::{u16_at, u32_at};
use crate::format::layout::{FSP_HDR, NUMBER, TYPE};
use crate::format::space_header::SpaceHeader;
use crate::lock;

/// Bytes of a piece.
const PIECE: u64 = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Faults that are told for each tablespace.
const MAX_FAULTS: u64 = 1000;

/// A file of a tablespace.
#[derive(Debug)]
struct Part {
    path: Arc<PathBuf>,
    file: File,
    pages: Range<u32>,
}

/// A tablespace that is read.
#[derive(Debug)]
pub(crate) struct Scan {
    parts: Vec<Part>,
    expected: Expected,
    bytes: u64,
    /// Pieces that are not read yet.
    left: AtomicUsize,
    state: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    pages: Vec<PageRecord>,
    found: Found,
    faults: u64,
}

/// A piece of a tablespace: pages of one of its files.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) scan: Arc<Scan>,
    part: usize,
    pages: Range<u32>,
}

/// What a tablespace came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
    pub(crate) faults: u64,
    pub(crate) opaque: u64,
}

/// What opening a tablespace gives.
pub(crate) enum Opened {
    /// Its pieces, and what is to be known of it.
    Pieces(Vec<Piece>, Vec<String>),
    /// It is not to be checked, and why.
    Skipped(String),
    /// It cannot be checked.
    Damaged(Fault),
}

impl Scan {
    /// Opens the files and finds out what is expected of their pages.
    pub(crate) fn open(
        files: &SpaceFiles,
        context: &Context<'_>,
    ) -> Result<Opened, (PathBuf, io::Error)> {
        let (mut parts, mut notes) = (Vec::new(), Vec::new());
        let (mut expected, mut bytes, mut pages) = (None::<Expected>, 0, 0_u32);
        for path in &files.paths {
            let failed = |error| (path.clone(), error);
            let file = File::open(path).map_err(failed)?;
            let len = file.metadata().map_err(failed)?.len();
            if expected.is_none() {
                let begin = beginning(&file).map_err(failed)?;
                if len == 0 {
                    let detail = "the file is empty";
                    return Ok(Opened::Damaged(Fault::of_file(path, Kind::Truncated, detail)));
                }
                let Some((page_size, _)) = page_size(&begin) else {
                    let detail = "no page size fits the pages";
                    return Ok(Opened::Damaged(Fault::of_file(path, Kind::Header, detail)));
                };
                let mut found = Expected::of(&begin, page_size, context.end_lsn);
                if SpaceHeader::parse(&begin).is_temporary() {
                    let why = format!("{}: a temporary tablespace, not checked", path.display());
                    return Ok(Opened::Skipped(why));
                }
                if let Some(keyring) = context.keyring
                    && SpaceHeader::parse(&begin).is_encrypted()
                {
                    match DataKey::of_page_0(&begin, page_size, keyring) {
                        Ok(key) => found.key = Some(Arc::new(key)),
                        Err(why) => notes.push(format!("{}: {why}", path.display())),
                    }
                }
                // The second file of a system tablespace whose first one is not there.
                if found.space_id == 0 && u16_at(&begin, TYPE) != FSP_HDR {
                    pages = u32_at(&begin, NUMBER);
                }
                expected = Some(found);
            }
            let Some(expected) = &expected else { continue };
            let whole = len / u64::from(expected.page_size.physical);
            let end = u32::try_from(u64::from(pages) + whole).unwrap_or(u32::MAX - 1);
            parts.push(Part { path: Arc::new(path.clone()), file, pages: pages..end });
            bytes += len;
            pages = end;
        }
        let Some(expected) = expected else { return Ok(Opened::Pieces(Vec::new(), notes)) };
        let state = Collected {
            pages: vec![PageRecord::default(); pages as usize],
            ..Collected::default()
        };
        let mut scan = Self { parts, expected, bytes, left: 0.into(), state: state.into() };
        let pieces = scan.pieces();
        scan.left = pieces.len().into();
        let scan = Arc::new(scan);
        let piece = |(part, pages)| Piece { scan: Arc::clone(&scan), part, pages };
        Ok(Opened::Pieces(pieces.into_iter().map(piece).collect(), notes))
    }

    /// At least one, so that a file without a whole page is checked too.
    fn pieces(&self) -> Vec<(usize, Range<u32>)> {
        let size = u32::try_from(PIECE / u64::from(self.expected.page_size.physical)).unwrap_or(1);
        let mut pieces = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let mut begin = part.pages.start;
            loop {
                let end = part.pages.end.min(begin.saturating_add(size));
                pieces.push((number, begin..end));
                if end == part.pages.end {
                    break;
                }
                begin = end;
            }
        }
        pieces
    }

    /// The checks of the whole tablespace.
    fn finish(&self, context: &Context<'_>, observer: &dyn Observer) -> Totals {
        let Collected { pages, found, mut faults } = std::mem::take(&mut *lock(&self.state));
        let totals = Totals {
            pages: pages.iter().filter(|page| page.state != State::Missing).count() as u64,
            bytes: self.bytes,
            opaque: found.opaque,
            ..Totals::default()
        };
        let mut sink = Tell { scan: self, context, observer, faults: &mut faults };
        self.lengths(found.header, &pages, &mut sink);
        if context.checks_structure {
            let space = found.into_space(pages, self.expected.page_size);
            let owners = allocation::check(&space, &mut sink);
            tree::check(&space, &owners, &mut sink);
        }
        if faults > MAX_FAULTS
            && let Some(part) = self.parts.first()
        {
            let more = faults - MAX_FAULTS;
            observer.note(&format!("{}: {more} more faults", part.path.display()));
        }
        Totals { faults, ..totals }
    }

    /// What the header says of the tablespace's size and number.
    fn lengths(&self, header: Option<SpaceHeader>, pages: &[PageRecord], sink: &mut impl Sink) {
        let physical = u64::from(self.expected.page_size.physical);
        for part in &self.parts {
            let whole = u64::from(part.pages.end - part.pages.start) * physical;
            let len = part.file.metadata().map_or(whole, |metadata| metadata.len());
            if len > whole {
                let detail = format!("{} bytes behind the last whole page", len - whole);
                sink.fault(Some(part.pages.end), None, Kind::Truncated, detail);
            }
        }
        let Some(header) = header else {
            if pages.first().is_some_and(|page| page.state == State::Zero) {
                sink.fault(Some(0), None, Kind::ZeroPage, "page 0 is zeros".into());
            }
            return;
        };
        if header.size as usize > pages.len() {
            let detail =
                format!("the tablespace has {} pages, the file has {}", header.size, pages.len());
            sink.fault(Some(0), None, Kind::Truncated, detail);
        }
        if header.header_space_id != self.expected.space_id {
            let detail = format!("FSP_SPACE_ID is {}", header.header_space_id);
            sink.fault(Some(0), None, Kind::Header, detail);
        }
        if PageSize::of(header.flags) != Some(self.expected.page_size) {
            let detail = format!("flags {:#x} are not of pages as these", header.flags);
            sink.fault(Some(0), None, Kind::Header, detail);
        }
        let limit = u64::from(header.size)
            .next_multiple_of(u64::from(self.expected.page_size.extent_pages()));
        if u64::from(header.free_limit) > limit {
            let detail =
                format!("FSP_FREE_LIMIT is {} of {} pages", header.free_limit, header.size);
            sink.fault(Some(0), None, Kind::Header, detail);
        }
    }

    fn path_of(&self, page: Option<u32>) -> Option<&Arc<PathBuf>> {
        let part = page.and_then(|page| self.parts.iter().find(|part| part.pages.contains(&page)));
        part.or(self.parts.last().filter(|_| page.is_some_and(|page| page > 0)))
            .or(self.parts.first())
            .map(|part| &part.path)
    }
}

impl Piece {
    /// Reads and examines the pages. Gives the tablespace's totals if this was the last piece.
    pub(crate) fn run(
        &self,
        examiner: &mut Examiner,
        context: &Context<'_>,
        observer: &dyn Observer,
    ) -> Option<Totals> {
        let scan = &*self.scan;
        let size = scan.expected.page_size.physical as usize;
        let part = scan.parts.get(self.part)?;
        let mut records = Vec::with_capacity(self.pages.len());
        let mut found = Found::default();
        let mut faults = 0;
        let mut sink = Tell { scan, context, observer, faults: &mut faults };
        // The advice only makes reading faster.
        let _ = fadvise(&part.file, 0, None, Advice::Sequential);
        let mut buffer = vec![0; CHUNK];
        let mut number = self.pages.start;
        while number < self.pages.end {
            let pages = (CHUNK / size).min((self.pages.end - number) as usize);
            let bytes = &mut buffer[..pages * size];
            let offset = u64::from(number - part.pages.start) * size as u64;
            if part.file.read_exact_at(bytes, offset).is_ok() {
                for page in bytes.chunks_exact(size) {
                    let record = examiner.page(&scan.expected, number, page, &mut found, &mut sink);
                    records.push(record);
                    number += 1;
                }
            } else {
                for page in bytes.chunks_exact_mut(size) {
                    let offset = u64::from(number - part.pages.start) * size as u64;
                    records.push(match part.file.read_exact_at(page, offset) {
                        Ok(()) => {
                            examiner.page(&scan.expected, number, page, &mut found, &mut sink)
                        }
                        Err(error) => {
                            observer.unreadable(&part.path, Some(number), &error);
                            found.is_partial = true;
                            PageRecord::default()
                        }
                    });
                    number += 1;
                }
            }
            observer.progress((pages * size) as u64);
        }
        let mut state = lock(&scan.state);
        let begin = self.pages.start as usize;
        if let Some(to) = state.pages.get_mut(begin..begin + records.len()) {
            to.copy_from_slice(&records);
        }
        state.faults += faults;
        state.found.add(found);
        drop(state);
        let is_last = scan.left.fetch_sub(1, Ordering::AcqRel) == 1;
        is_last.then(|| scan.finish(context, observer))
    }
}

/// Tells faults to the observer, not more of them than anybody reads.
struct Tell<'a> {
    scan: &'a Scan,
    context: &'a Context<'a>,
    observer: &'a dyn Observer,
    faults: &'a mut u64,
}

impl Sink for Tell<'_> {
    fn fault(&mut self, page: Option<u32>, index: Option<u64>, kind: Kind, mut detail: String) {
        *self.faults += 1;
        let Some(file) = self.scan.path_of(page).filter(|_| *self.faults <= MAX_FAULTS) else {
            return;
        };
        if matches!(kind, Kind::Checksum | Kind::Torn)
            && page.is_some_and(|page| {
                self.context.copies.contains(&(self.scan.expected.space_id, page))
            })
        {
            detail.push_str("; the doublewrite buffer has a good copy");
        }
        self.observer.fault(&Fault { file: Arc::clone(file), page, index, kind, detail });
    }
}
