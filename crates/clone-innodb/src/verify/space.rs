// SPDX-License-Identifier: GPL-2.0-only

//! What the pass over a tablespace's pages leaves in memory, to be checked when the pass is over:
//! 24 bytes for each page, and the descriptors, inodes and roots.

use clone_protocol::innodb::PageSize;

use super::fault::Kind;
use crate::format::extents::{Extent, FREE_FRAG, FULL_FRAG};
use crate::format::inodes::Inode;
use crate::format::layout::{self, NULL};
use crate::format::space_header::SpaceHeader;

/// What is kept of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageRecord {
    /// `PAGE_INDEX_ID` of a page of a tree.
    pub index: u64,
    /// `FIL_PAGE_PREV`.
    pub prev: u32,
    /// `FIL_PAGE_NEXT`.
    pub next: u32,
    /// `FIL_PAGE_TYPE`, before page compression and encryption.
    pub kind: u16,
    /// `PAGE_N_RECS`.
    pub records: u16,
    /// `PAGE_LEVEL`. InnoDB's trees have far fewer than 255 levels.
    pub level: u8,
    /// What is known of it.
    pub state: State,
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It was not read: the file is shorter, or cannot be read.
    #[default]
    Missing,
    /// It is zeros.
    Zero,
    /// It is good by itself.
    Good,
    /// It is damaged, and nothing in it can be relied on. It was reported.
    Bad,
    /// It is encrypted: only the header of the page can be read.
    Opaque,
    /// It is a block of the old doublewrite buffer, within the system tablespace.
    Doublewrite,
}

impl PageRecord {
    /// Whether it is a page of a tree, as far as can be told.
    pub(crate) fn is_tree(&self) -> bool {
        matches!(self.state, State::Good | State::Opaque) && layout::is_tree(self.kind)
    }
}

/// What is kept of a page that may be the root of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Its number.
    pub page: u32,
    /// `PAGE_BTR_SEG_LEAF`: page and byte of the inode.
    pub leaf: (u32, u16),
    /// `PAGE_BTR_SEG_TOP`.
    pub top: (u32, u16),
}

/// A tablespace after the pass.
#[derive(Debug)]
pub(crate) struct Space {
    /// Sizes of pages.
    pub page_size: PageSize,
    /// The header, if page 0 is good.
    pub header: Option<SpaceHeader>,
    /// All pages in order.
    pub pages: Vec<PageRecord>,
    /// The descriptors in order; `None` if their page is damaged.
    pub extents: Vec<Option<Extent>>,
    /// The inodes, in no order.
    pub inodes: Vec<Inode>,
    /// Pages that may be roots, in no order.
    pub roots: Vec<Root>,
    /// Whether inodes may be missing, since pages are damaged or encrypted.
    pub is_partial: bool,
}

impl Space {
    /// Whether a page is in use, if its descriptor can be read.
    pub(crate) fn is_used(&self, page: u32) -> Option<bool> {
        let in_extent = self.page_size.extent_pages();
        if self.header.is_some_and(|header| page >= header.free_limit) {
            return Some(false);
        }
        let extent = (*self.extents.get((page / in_extent) as usize)?)?;
        // The bits of an extent that was never used say nothing.
        Some(extent.state != 0 && !extent.is_free(page % in_extent))
    }

    /// Whether a page is in use or it cannot be told.
    pub(crate) fn may_be_used(&self, page: u32) -> bool {
        self.is_used(page).unwrap_or(true)
    }

    /// The page's record, if there is such a page.
    pub(crate) fn page(&self, page: u32) -> Option<&PageRecord> {
        if page == NULL { None } else { self.pages.get(page as usize) }
    }

    /// The descriptor of a page's extent.
    pub(crate) fn extent_of(&self, page: u32) -> Option<&Extent> {
        self.extents.get((page / self.page_size.extent_pages()) as usize)?.as_ref()
    }

    /// Whether pages of this extent go to segments one by one.
    pub(crate) fn is_fragment(extent: &Extent) -> bool {
        matches!(extent.state, FREE_FRAG | FULL_FRAG)
    }

    /// Whether all pages that are in use could be read.
    pub(crate) fn is_whole(&self) -> bool {
        let count = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        (0..count).zip(&self.pages).all(|(number, page)| {
            !matches!(page.state, State::Bad | State::Missing)
                || self.is_used(number) == Some(false)
        })
    }
}

/// Takes what is wrong with a page: its number, and its index if it has one.
pub(crate) trait Sink {
    /// Takes a fault.
    fn fault(&mut self, page: Option<u32>, index: Option<u64>, kind: Kind, detail: String);
}
