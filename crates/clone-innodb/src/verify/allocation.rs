// SPDX-License-Identifier: GPL-2.0-only

//! Extent descriptors, their lists and the segment inodes against each other.

use std::collections::HashMap;

use super::fault::Kind;
use super::space::{Sink, Space};
use crate::format::extents::{self, Extent, FREE, FREE_FRAG, FSEG, FSEG_FRAG, FULL_FRAG};
use crate::format::layout::NULL;
use crate::format::space_header::{Address, List};

/// Whose the pages are that segments have one by one.
pub(crate) type Owners = HashMap<u32, u64>;

/// Checks all lists and inodes. Returns the owners of single pages.
pub(crate) fn check(space: &Space, sink: &mut impl Sink) -> Owners {
    let mut walk = Walk {
        seen: vec![false; space.extents.len()],
        // Without all descriptors or inodes, extents that no list has may be in one that is lost.
        is_whole: space.extents.iter().all(Option::is_some) && !space.is_partial,
        space,
        sink,
    };
    if let Some(header) = space.header {
        walk.list("FREE of the tablespace", header.free, |extent| extent.state == FREE);
        let used = walk.list("FREE_FRAG of the tablespace", header.free_frag, |extent| {
            extent.state == FREE_FRAG
        });
        walk.list("FULL_FRAG of the tablespace", header.full_frag, |extent| {
            extent.state == FULL_FRAG
        });
        if let Some(used) = used.filter(|used| *used != header.frag_used) {
            let detail = format!(
                "FSP_FRAG_N_USED is {}, the extents of FREE_FRAG have {used} used pages",
                header.frag_used
            );
            walk.sink.fault(Some(0), None, Kind::Extent, detail);
        }
    }
    let mut ids = HashMap::new();
    for inode in &space.inodes {
        if !inode.is_marked {
            let detail = format!("segment {} has no magic number", inode.id);
            walk.sink.fault(Some(inode.page), None, Kind::Inode, detail);
            walk.is_whole = false;
            continue;
        }
        if let Some(other) = ids.insert(inode.id, inode.page) {
            let detail = format!("segment {} has an inode in page {other} too", inode.id);
            walk.sink.fault(Some(inode.page), None, Kind::Inode, detail);
        }
        let belongs = |extent: &Extent| extent.segment == inode.id && extent.is_of_segment();
        walk.list(&format!("FREE of segment {}", inode.id), inode.free, belongs);
        let name = format!("NOT_FULL of segment {}", inode.id);
        let used = walk.list(&name, inode.not_full, belongs);
        walk.list(&format!("FULL of segment {}", inode.id), inode.full, belongs);
        if let Some(used) = used.filter(|used| *used != inode.not_full_used) {
            let detail = format!(
                "FSEG_NOT_FULL_N_USED of segment {} is {}, the extents have {used} used pages",
                inode.id, inode.not_full_used
            );
            walk.sink.fault(Some(inode.page), None, Kind::Inode, detail);
        }
    }
    walk.unlisted();
    owners(space, sink)
}

struct Walk<'a, S> {
    space: &'a Space,
    sink: &'a mut S,
    seen: Vec<bool>,
    is_whole: bool,
}

impl<S: Sink> Walk<'_, S> {
    /// Follows a list. Gives the used pages of its extents if the list is good.
    fn list(&mut self, name: &str, list: List, belongs: impl Fn(&Extent) -> bool) -> Option<u32> {
        match self.follow(name, list, belongs) {
            Ok(used) => Some(used),
            Err(detail) => {
                // An extent whose descriptor is damaged was reported already.
                if let Some((page, detail)) = detail {
                    self.sink.fault(Some(page), None, Kind::ExtentList, detail);
                }
                self.is_whole = false;
                None
            }
        }
    }

    fn follow(
        &mut self,
        name: &str,
        list: List,
        belongs: impl Fn(&Extent) -> bool,
    ) -> Result<u32, Option<(u32, String)>> {
        let page_size = self.space.page_size;
        let (mut at, mut before, mut used) = (list.first, None::<Address>, 0);
        for entry in 0..list.len {
            let fault = |what: String| {
                let page = before.map_or(0, |before| before.page);
                Some((page, format!("list {name}, entry {} of {}: {what}", entry + 1, list.len)))
            };
            let Some(number) = extents::extent_at(at, page_size) else {
                let Address { page, offset } = at;
                return Err(fault(format!("page {page}, byte {offset} is no extent descriptor")));
            };
            let Some(found) = self.space.extents.get(number) else {
                return Err(fault(format!("extent {number} is behind the end of the tablespace")));
            };
            let extent = found.ok_or(None)?;
            if std::mem::replace(&mut self.seen[number], true) {
                return Err(fault(format!("extent {number} was in a list already")));
            }
            if !belongs(&extent) {
                return Err(fault(format!(
                    "extent {number} is {} of segment {}",
                    state_name(extent.state),
                    extent.segment
                )));
            }
            if before.map_or(extent.prev.page != NULL, |before| extent.prev != before) {
                return Err(fault(format!("extent {number} does not lead back")));
            }
            used += extent.used(page_size.extent_pages());
            (before, at) = (Some(at), extent.next);
        }
        let end = before.unwrap_or(Address { page: NULL, offset: 0 });
        if at.page != NULL || list.last.page != end.page {
            let detail = format!("list {name} does not end after {} entries", list.len);
            return Err(Some((end.page.min(NULL - 1), detail)));
        }
        Ok(used)
    }

    /// Each extent below FSP_FREE_LIMIT has a state, and is in a list.
    fn unlisted(&mut self) {
        let Some(header) = self.space.header else { return };
        let pages = self.space.page_size.extent_pages();
        for (number, extent) in (0_u32..).zip(&self.space.extents) {
            let first = number.saturating_mul(pages);
            let Some(extent) = extent.as_ref().filter(|_| first < header.free_limit) else {
                continue;
            };
            let is_lost = match extent.state {
                FREE..=FSEG_FRAG => self.is_whole && !self.seen[number as usize],
                _ => true,
            };
            if is_lost {
                let detail = format!(
                    "extent {number} is {} of segment {} and in no list",
                    state_name(extent.state),
                    extent.segment
                );
                self.sink.fault(Some(first), None, Kind::Extent, detail);
            } else if extent.state == FREE && extent.used(pages) != 0 {
                let used = extent.used(pages);
                let detail = format!("extent {number} is free and has {used} used pages");
                self.sink.fault(Some(first), None, Kind::Extent, detail);
            }
        }
    }
}

/// Pages that segments have one by one: each has one owner, is in use, and lies in an extent of
/// such pages.
fn owners(space: &Space, sink: &mut impl Sink) -> Owners {
    let mut owners = Owners::new();
    for inode in space.inodes.iter().filter(|inode| inode.is_marked) {
        for page in &inode.pages {
            let what = match space.extent_of(*page) {
                None if (*page as usize) < space.pages.len() => None,
                None => Some("which is behind the end of the tablespace".to_owned()),
                Some(extent) if !Space::is_fragment(extent) => {
                    Some(format!("whose extent is {}", state_name(extent.state)))
                }
                Some(_) if !space.may_be_used(*page) => Some("which is free".to_owned()),
                Some(_) => None,
            };
            let other = owners.insert(*page, inode.id);
            let what = what.or_else(|| other.map(|other| format!("which segment {other} has too")));
            if let Some(what) = what {
                let detail = format!("segment {} has page {page}, {what}", inode.id);
                sink.fault(Some(*page), None, Kind::Inode, detail);
            }
        }
    }
    owners
}

fn state_name(state: u32) -> &'static str {
    match state {
        0 => "unused",
        FREE => "FREE",
        FREE_FRAG => "FREE_FRAG",
        FULL_FRAG => "FULL_FRAG",
        FSEG => "FSEG",
        FSEG_FRAG => "FSEG_FRAG",
        _ => "of no known state,",
    }
}
