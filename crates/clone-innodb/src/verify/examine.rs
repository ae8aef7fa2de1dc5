// SPDX-License-Identifier: GPL-2.0-only

//! One page by itself: checksum, numbers, LSN, records; and what is kept of it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use clone_protocol::innodb::PageSize;

use super::fault::Kind;
use super::rows;
use super::space::{PageRecord, Root, Sink, Space, State};
use crate::encryption::DataKey;
use crate::format::bytes::{is_zero, u16_at, u32_at, u64_at};
use crate::format::checksum::{self, Damage};
use crate::format::doublewrite::{self, TRX_SYS_PAGE};
use crate::format::expand::Expander;
use crate::format::extents::{self, Extent};
use crate::format::inodes::{self, Inode};
use crate::format::layout::{
    CHANGE_BUFFER, CHANGE_BUFFER_ROOT, COMPRESSED, ENCRYPTED_RTREE, FSP_HDR, IBUF_FREE_LIST, INDEX,
    INDEX_ID, INODE, LEGACY_DBLWR, LEVEL, LSN, N_HEAP, N_RECS, NEXT, NULL, NUMBER, ORIGINAL_TYPE,
    PREV, RTREE, SDI, SEG_LEAF, SEG_TOP, SPACE_ID, TYPE, XDES, is_encrypted, is_tree,
};
use crate::format::space_header::{List, SpaceHeader};

/// What the pages of a tablespace are held against.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Sizes of pages.
    pub page_size: PageSize,
    /// The tablespace's number.
    pub space_id: u32,
    /// No page may have a greater LSN. `None`: the end of the redo log is not known.
    pub end_lsn: Option<u64>,
    /// The key of the tablespace's encrypted pages, if it is known.
    pub key: Option<Arc<DataKey>>,
    /// Blocks of the old doublewrite buffer, which hold pages of other places.
    pub doublewrite: Vec<Range<u32>>,
}

impl Expected {
    /// What the first pages tell of all pages.
    pub(crate) fn of(begin: &[u8], page_size: PageSize, end_lsn: Option<u64>) -> Self {
        let pages: Vec<_> = begin.chunks_exact(page_size.physical as usize).collect();
        let mut ids = BTreeMap::new();
        for page in pages.iter().filter(|page| !is_zero(page)) {
            *ids.entry(u32_at(page, SPACE_ID)).or_insert(0) += 1;
        }
        let first = u32_at(begin, SPACE_ID);
        let most = ids.iter().max_by_key(|(id, count)| (**count, **id == first));
        let space_id = most.map_or(first, |(id, _)| *id);
        let blocks = pages.get(TRX_SYS_PAGE as usize);
        let blocks = blocks.filter(|page| space_id == 0 && u32_at(page, NUMBER) == TRX_SYS_PAGE);
        let doublewrite = blocks
            .map_or_else(Vec::new, |page| doublewrite::blocks(page, page_size.extent_pages()));
        Self { page_size, space_id, end_lsn, key: None, doublewrite }
    }
}

/// What pages leave besides their records.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The header, if page 0 is good.
    pub header: Option<SpaceHeader>,
    /// Descriptors with the number of the first extent.
    pub extents: Vec<(u32, Vec<Extent>)>,
    /// Segment inodes.
    pub inodes: Vec<Inode>,
    /// Pages that may be roots.
    pub roots: Vec<Root>,
    /// Pages of the change buffer: the number, and the next page if both are in the list of free
    /// pages.
    pub change_buffer: Vec<(u32, u32)>,
    /// The change buffer's list of free pages.
    pub change_buffer_free: Option<List>,
    /// Pages that could not be read in full without a key.
    pub opaque: u64,
    /// Whether there is damage that may have hidden inodes.
    pub is_partial: bool,
}

impl Found {
    /// Adds what pages of another piece left.
    pub(crate) fn add(&mut self, other: Self) {
        self.header = self.header.or(other.header);
        self.extents.extend(other.extents);
        self.inodes.extend(other.inodes);
        self.roots.extend(other.roots);
        self.change_buffer.extend(other.change_buffer);
        self.change_buffer_free = self.change_buffer_free.or(other.change_buffer_free);
        self.opaque += other.opaque;
        self.is_partial |= other.is_partial;
    }

    /// The whole tablespace.
    pub(crate) fn into_space(self, mut pages: Vec<PageRecord>, page_size: PageSize) -> Space {
        self.free_change_buffer(&mut pages);
        let mut extents = vec![None; pages.len().div_ceil(page_size.extent_pages() as usize)];
        for (first, found) in self.extents {
            for (to, extent) in extents.iter_mut().skip(first as usize).zip(found) {
                *to = Some(extent);
            }
        }
        let is_partial = self.is_partial || self.header.is_none();
        let (header, inodes, roots) = (self.header, self.inodes, self.roots);
        Space { page_size, header, pages, extents, inodes, roots, is_partial }
    }

    /// Marks the pages of the change buffer that are not in its tree.
    fn free_change_buffer(&self, pages: &mut [PageRecord]) {
        let Some(list) = self.change_buffer_free else { return };
        let next: HashMap<_, _> = self.change_buffer.iter().copied().collect();
        let mut at = list.first.page;
        for _ in 0..list.len {
            let Some(following) = next.get(&at) else { break };
            if let Some(page) = pages.get_mut(at as usize) {
                page.kind = IBUF_FREE_LIST;
            }
            at = *following;
        }
    }
}

/// Examines pages. One for each thread.
#[derive(Debug, Default)]
pub(crate) struct Examiner {
    expander: Expander,
    decrypted: Vec<u8>,
}

impl Examiner {
    /// Examines a page. `number` is where it stands in the tablespace.
    pub(crate) fn page(
        &mut self,
        expected: &Expected,
        number: u32,
        page: &[u8],
        found: &mut Found,
        sink: &mut impl Sink,
    ) -> PageRecord {
        let mut record = PageRecord { prev: NULL, next: NULL, ..PageRecord::default() };
        if u64_at(page, LSN) == 0 && is_zero(page) {
            record.state = State::Zero;
            return record;
        }
        // From 8.0.20 on the blocks are there, and not used: their pages are as others.
        let is_own = u16_at(page, TYPE) == LEGACY_DBLWR
            || (u32_at(page, NUMBER), u32_at(page, SPACE_ID)) == (number, expected.space_id);
        if !is_own && expected.doublewrite.iter().any(|block| block.contains(&number)) {
            record.state = State::Doublewrite;
            return record;
        }
        record.state = State::Bad;
        let mut kind = u16_at(page, TYPE);
        let mut page = page;
        if is_encrypted(kind) {
            let Some(key) = &expected.key else {
                record.kind =
                    if kind == ENCRYPTED_RTREE { RTREE } else { u16_at(page, ORIGINAL_TYPE) };
                if numbers(expected, number, page, None, sink) {
                    record.state = State::Opaque;
                }
                (record.prev, record.next) = (u32_at(page, PREV), u32_at(page, NEXT));
                found.opaque += 1;
                found.is_partial = true;
                return record;
            };
            key.decrypt_page(page, &mut self.decrypted);
            page = &self.decrypted;
            kind = u16_at(page, TYPE);
        }
        let plain = if kind == COMPRESSED && !expected.page_size.is_compressed {
            match self.expander.expand(page) {
                Ok(plain) => plain,
                Err(error) => {
                    sink.fault(Some(number), None, Kind::Compression, error);
                    found.is_partial = true;
                    return record;
                }
            }
        } else {
            page
        };
        record.kind = u16_at(plain, TYPE);
        let index = is_tree(record.kind).then(|| u64_at(plain, INDEX_ID));
        if let Err(damage) = checksum::check(plain, expected.page_size.is_compressed) {
            report(damage, number, plain, index, sink);
            found.is_partial = true;
            return record;
        }
        if !numbers(expected, number, plain, index, sink) {
            found.is_partial = true;
            return record;
        }
        record.state = State::Good;
        if expected.space_id == 0 {
            change_buffer(&record, number, plain, index, found);
        }
        match record.kind {
            INDEX | RTREE | SDI => {
                tree_page(&mut record, expected.page_size, number, plain, found, sink);
            }
            INODE => found.inodes.extend(inodes::parse(plain, number, expected.page_size)),
            FSP_HDR | XDES => {
                if number == 0 {
                    found.header = Some(SpaceHeader::parse(plain));
                }
                if number.is_multiple_of(expected.page_size.physical) {
                    let first = number / expected.page_size.extent_pages();
                    found.extents.push((first, extents::parse(plain, expected.page_size)));
                }
            }
            _ => {}
        }
        record
    }
}

/// Pages that the tree of the change buffer has no use for stay its own, in a list whose base is in
/// the root (`PAGE_BTR_IBUF_FREE_LIST`). They may look as they did in the tree.
fn change_buffer(
    record: &PageRecord,
    number: u32,
    page: &[u8],
    index: Option<u64>,
    found: &mut Found,
) {
    if index == Some(CHANGE_BUFFER) || record.kind == IBUF_FREE_LIST {
        if number == CHANGE_BUFFER_ROOT {
            found.change_buffer_free = Some(List::at(page, SEG_LEAF));
        } else {
            found.change_buffer.push((number, u32_at(page, SEG_LEAF + 6)));
        }
    }
}

fn report(damage: Damage, number: u32, page: &[u8], index: Option<u64>, sink: &mut impl Sink) {
    let (kind, detail) = match damage {
        Damage::Torn(begin, end) => (
            Kind::Torn,
            format!("the LSN ends with {begin:#010x} at the beginning, {end:#010x} at the end"),
        ),
        Damage::Checksum(stored, computed) => (
            Kind::Checksum,
            format!("checksum {stored:#010x} is stored, crc32 is {computed:#010x}"),
        ),
    };
    let said = u32_at(page, NUMBER);
    let hint = if said == number { "" } else { "; the page number is wrong too" };
    sink.fault(Some(number), index, kind, detail + hint);
}

/// The page number, the number of the tablespace and the LSN. Says whether the page is in its
/// place.
fn numbers(
    expected: &Expected,
    number: u32,
    page: &[u8],
    index: Option<u64>,
    sink: &mut impl Sink,
) -> bool {
    let (said, space, lsn) = (u32_at(page, NUMBER), u32_at(page, SPACE_ID), u64_at(page, LSN));
    if said != number {
        let detail = format!("page {said} of tablespace {space} stands here");
        sink.fault(Some(number), index, Kind::PageNumber, detail);
        return false;
    }
    if space != expected.space_id {
        let detail = format!("tablespace {space} in place of {}", expected.space_id);
        sink.fault(Some(number), index, Kind::SpaceId, detail);
        return false;
    }
    if let Some(end) = expected.end_lsn.filter(|end| lsn > *end) {
        let detail = format!("LSN {lsn}, the redo log ends at {end}");
        sink.fault(Some(number), index, Kind::FutureLsn, detail);
    }
    true
}

fn tree_page(
    record: &mut PageRecord,
    page_size: PageSize,
    number: u32,
    page: &[u8],
    found: &mut Found,
    sink: &mut impl Sink,
) {
    record.index = u64_at(page, INDEX_ID);
    (record.prev, record.next) = (u32_at(page, PREV), u32_at(page, NEXT));
    record.records = u16_at(page, N_RECS);
    record.level = u8::try_from(u16_at(page, LEVEL)).unwrap_or(u8::MAX);
    if record.prev == NULL && record.next == NULL {
        let inode = |at| (u32_at(page, at + 4), u16_at(page, at + 8));
        found.roots.push(Root { page: number, leaf: inode(SEG_LEAF), top: inode(SEG_TOP) });
    }
    // A page that was freed right after it was allocated has no records at all.
    let is_empty = u16_at(page, N_HEAP) == 0;
    if !page_size.is_compressed
        && !is_empty
        && let Err(detail) = rows::check(page)
    {
        sink.fault(Some(number), Some(record.index), Kind::Records, detail);
    }
}
