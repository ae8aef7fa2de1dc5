// SPDX-License-Identifier: GPL-2.0-only

//! The trees of a tablespace, without a dictionary: neighbours, levels, roots and segments.

use std::collections::{BTreeMap, HashMap};

use super::allocation::Owners;
use super::fault::Kind;
use super::space::{PageRecord, Root, Sink, Space, State};
use crate::format::layout::{self, CHANGE_BUFFER_ROOT, FSP_HDR, IBUF_BITMAP, INODE, NULL, XDES};

/// Checks the type of each page, its neighbours, and each tree.
pub(crate) fn check(space: &Space, owners: &Owners, sink: &mut impl Sink) {
    let mut trees = Trees::new();
    let count = u32::try_from(space.pages.len()).unwrap_or(u32::MAX);
    for (number, page) in (0..count).zip(&space.pages) {
        kind(space, number, page, sink);
        if page.is_tree() && space.is_used(number) == Some(true) {
            neighbours(space, number, page, sink);
            if page.state == State::Good {
                trees.entry((page.kind, page.index)).or_default().add(number, page);
            }
        }
    }
    let roots: HashMap<_, _> = space.roots.iter().map(|root| (root.page, root)).collect();
    let segments = Segments::new(space, owners);
    let is_whole = space.is_whole() && space.pages.iter().all(|page| page.state != State::Opaque);
    let mut tops = HashMap::new();
    for ((kind, index), tree) in &trees {
        if is_whole {
            tree.check(*index, space, sink);
        }
        if let Some(root) = tree.top().and_then(|top| roots.get(&top)) {
            tops.insert((*kind, *index), **root);
        }
    }
    if !space.is_partial {
        segments.check(&tops, sink);
    }
}

/// A page that is in use has a type that its place is for.
fn kind(space: &Space, number: u32, page: &PageRecord, sink: &mut impl Sink) {
    let in_period = number % space.page_size.physical;
    let expected = match (number, in_period) {
        (0, _) => Some(FSP_HDR),
        (_, 0) => Some(XDES),
        (_, 1) => Some(IBUF_BITMAP),
        (2, _) => Some(INODE),
        _ => None,
    };
    // Pages 3 to 7 of the system tablespace and all others have no fixed type here.
    let used = space.is_used(number) == Some(true);
    match (page.state, expected) {
        (State::Zero, _) if used => {
            sink.fault(Some(number), None, Kind::ZeroPage, "the page is zeros but in use".into());
        }
        (State::Good, Some(expected)) if used && page.kind != expected => {
            let detail = format!(
                "type {} ({}) where {} must be",
                page.kind,
                layout::type_name(page.kind),
                layout::type_name(expected)
            );
            sink.fault(Some(number), None, Kind::PageType, detail);
        }
        (State::Good, None) if used => {
            let is_fixed = matches!(page.kind, FSP_HDR | XDES | IBUF_BITMAP);
            if !layout::is_known(page.kind) || is_fixed {
                let name = layout::type_name(page.kind);
                let detail = format!("type {} ({name}) in this place", page.kind);
                sink.fault(Some(number), None, Kind::PageType, detail);
            }
        }
        _ => {}
    }
}

/// Neighbours lead to each other, and are pages of the same level of the same tree.
fn neighbours(space: &Space, number: u32, page: &PageRecord, sink: &mut impl Sink) {
    let index = (page.state == State::Good).then_some(page.index);
    for (side, other) in [("next", page.next), ("previous", page.prev)] {
        if other == NULL {
            continue;
        }
        let mut fault = |kind, what: String| {
            sink.fault(Some(number), index, kind, format!("its {side} page {other} {what}"));
        };
        let Some(neighbour) = space.page(other) else {
            fault(Kind::Sibling, "is behind the end of the tablespace".into());
            continue;
        };
        if matches!(neighbour.state, State::Bad | State::Missing) {
            // Reported already.
            continue;
        }
        let back = if side == "next" { neighbour.prev } else { neighbour.next };
        if space.is_used(other) == Some(false) {
            fault(Kind::FreePage, "is free by its extent descriptor".into());
        } else if !neighbour.is_tree() || neighbour.kind != page.kind {
            let name = layout::type_name(neighbour.kind);
            fault(Kind::Sibling, format!("has type {} ({name})", neighbour.kind));
        } else if index
            .is_some_and(|index| neighbour.state == State::Good && neighbour.index != index)
        {
            fault(Kind::IndexId, format!("is of index {}", neighbour.index));
        } else if neighbour.state == page.state && neighbour.level != page.level {
            let (theirs, ours) = (neighbour.level, page.level);
            fault(Kind::Level, format!("is of level {theirs}, this page of level {ours}"));
        } else if back != number {
            fault(Kind::Sibling, format!("leads to page {back} in place of this page"));
        }
    }
}

/// Trees by type and number of the index.
type Trees = BTreeMap<(u16, u64), Tree>;

#[derive(Debug, Default)]
struct Tree {
    levels: BTreeMap<u8, Level>,
}

#[derive(Debug, Default)]
struct Level {
    pages: u64,
    records: u64,
    /// Pages without a previous one, and the first of them.
    leftmost: u64,
    first: u32,
    /// Pages without a next one.
    rightmost: u64,
}

impl Tree {
    fn add(&mut self, number: u32, page: &PageRecord) {
        let level = self.levels.entry(page.level).or_default();
        level.pages += 1;
        level.records += u64::from(page.records);
        if page.prev == NULL {
            level.leftmost += 1;
            level.first = number;
        }
        level.rightmost += u64::from(page.next == NULL);
    }

    /// The root, if there is one.
    fn top(&self) -> Option<u32> {
        let (_, top) = self.levels.last_key_value()?;
        (top.pages == 1 && top.leftmost == 1 && top.rightmost == 1).then_some(top.first)
    }

    fn check(&self, index: u64, space: &Space, sink: &mut impl Sink) {
        let Some((highest, top)) = self.levels.last_key_value() else { return };
        if self.top().is_none() {
            let detail = format!(
                "level {highest} is the highest and has {} pages, {} without a previous one",
                top.pages, top.leftmost
            );
            sink.fault(None, Some(index), Kind::Root, detail);
        }
        for number in 0..=*highest {
            let Some(level) = self.levels.get(&number) else {
                sink.fault(None, Some(index), Kind::Tree, format!("level {number} has no pages"));
                continue;
            };
            let page = Some(level.first);
            if level.leftmost != 1 || level.rightmost != 1 {
                let detail = format!(
                    "level {number} has {} pages without a previous one and {} without a next one",
                    level.leftmost, level.rightmost
                );
                sink.fault(page, Some(index), Kind::Tree, detail);
            } else {
                let found = chain(space, level);
                if found != level.pages {
                    let detail = format!(
                        "{found} pages follow from the first of level {number}, which has {}",
                        level.pages
                    );
                    sink.fault(page, Some(index), Kind::Tree, detail);
                }
            }
            let above = number.checked_add(1).and_then(|above| self.levels.get(&above));
            if let Some(above) = above.filter(|above| above.records != level.pages) {
                let detail = format!(
                    "{} records of level {} lead down, level {number} has {} pages",
                    above.records,
                    number + 1,
                    level.pages
                );
                sink.fault(page, Some(index), Kind::Tree, detail);
            }
        }
    }
}

/// Pages from the first one of a level to its end. It ends after as many as the level has.
fn chain(space: &Space, level: &Level) -> u64 {
    let (mut at, mut found) = (level.first, 0);
    while let Some(page) = space.page(at).filter(|_| found <= level.pages) {
        found += 1;
        at = page.next;
    }
    found
}

/// Which segment each page belongs to.
struct Segments<'a> {
    space: &'a Space,
    owners: &'a Owners,
    /// Segments by the place of their inode.
    inodes: HashMap<(u32, u16), u64>,
}

impl<'a> Segments<'a> {
    fn new(space: &'a Space, owners: &'a Owners) -> Self {
        let inodes = space.inodes.iter().map(|inode| ((inode.page, inode.offset), inode.id));
        Self { space, owners, inodes: inodes.collect() }
    }

    fn of(&self, page: u32) -> Option<u64> {
        if let Some(owner) = self.owners.get(&page) {
            return Some(*owner);
        }
        let extent = self.space.extent_of(page)?;
        (extent.is_of_segment() && extent.segment != 0).then_some(extent.segment)
    }

    /// Each page of a tree belongs to the segment for its level that the root names.
    fn check(&self, roots: &HashMap<(u16, u64), Root>, sink: &mut impl Sink) {
        let mut known = HashMap::new();
        for ((kind, index), root) in roots {
            let find = |place| self.inodes.get(&place).copied();
            let segments = (find(root.leaf), find(root.top));
            if let (Some(leaf), Some(top)) = segments {
                known.insert((*kind, *index), (leaf, top, root.page));
            } else if !self.is_change_buffer(root) {
                let detail = "the root names a segment that has no inode".into();
                sink.fault(Some(root.page), Some(*index), Kind::Root, detail);
            }
        }
        // One fault for all pages that have the same wrong segment.
        let mut wrong = BTreeMap::new();
        for (number, page) in (0_u32..).zip(&self.space.pages) {
            if page.state != State::Good
                || self.space.is_used(number) != Some(true)
                || !page.is_tree()
            {
                continue;
            }
            let Some((leaf, top, root)) = known.get(&(page.kind, page.index)) else { continue };
            let expected = if page.level == 0 && number != *root { leaf } else { top };
            let owner = self.of(number);
            if owner != Some(*expected) {
                let (_, count) =
                    wrong.entry((page.index, *expected, owner)).or_insert((number, 0_u64));
                *count += 1;
            }
        }
        for ((index, expected, owner), (first, count)) in wrong {
            let owner = owner.map_or("no segment".into(), |owner| format!("segment {owner}"));
            let detail = format!(
                "{count} pages from this one on are of {owner}, their tree uses segment {expected}"
            );
            sink.fault(Some(first), Some(index), Kind::Segment, detail);
        }
    }

    /// The change buffer's root names no segments: its pages are of one segment, whose header is in
    /// page 3 of the system tablespace.
    fn is_change_buffer(&self, root: &Root) -> bool {
        root.page == CHANGE_BUFFER_ROOT
            && self.space.header.is_some_and(|header| header.space_id == 0)
    }
}
