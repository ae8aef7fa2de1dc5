// SPDX-License-Identifier: GPL-2.0-only

//! What can be wrong, and what that means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The checksum of a page.
    Checksum,
    /// A page of which one part is older than the other.
    Torn,
    /// The page number in the page.
    PageNumber,
    /// The tablespace's number in the page.
    SpaceId,
    /// The LSN of a page.
    FutureLsn,
    /// A page of zeros.
    ZeroPage,
    /// The type of a page.
    PageType,
    /// A page with page compression.
    Compression,
    /// The header of a tablespace.
    Header,
    /// A file that is too short.
    Truncated,
    /// The link from one page to its neighbour.
    Sibling,
    /// Levels of neighbours.
    Level,
    /// Indexes of neighbours.
    IndexId,
    /// A free page in a tree.
    FreePage,
    /// The pages of one level of a tree.
    Tree,
    /// The root of a tree.
    Root,
    /// The segment of a page.
    Segment,
    /// The list of records in a page.
    Records,
    /// The descriptor of an extent.
    Extent,
    /// A list of extents.
    ExtentList,
    /// A segment inode.
    Inode,
    /// The header of the redo log.
    RedoHeader,
    /// A block of the redo log.
    RedoBlock,
}

impl Kind {
    /// The name in messages and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checksum => "checksum",
            Self::Torn => "torn-page",
            Self::PageNumber => "page-number",
            Self::SpaceId => "space-id",
            Self::FutureLsn => "future-lsn",
            Self::ZeroPage => "zero-page",
            Self::PageType => "page-type",
            Self::Compression => "page-compression",
            Self::Header => "space-header",
            Self::Truncated => "truncated",
            Self::Sibling => "sibling",
            Self::Level => "level",
            Self::IndexId => "index-id",
            Self::FreePage => "free-page",
            Self::Tree => "tree",
            Self::Root => "root",
            Self::Segment => "segment",
            Self::Records => "records",
            Self::Extent => "extent",
            Self::ExtentList => "extent-list",
            Self::Inode => "inode",
            Self::RedoHeader => "redo-header",
            Self::RedoBlock => "redo-block",
        }
    }

    /// What the fault means for the data.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Checksum => {
                "the page changed after the server wrote it; a server that reads it stops"
            }
            Self::Torn => "the page was written in part; a server that reads it stops",
            Self::PageNumber => "the page belongs elsewhere: a write went to the wrong place",
            Self::SpaceId => "the page belongs to another tablespace",
            Self::FutureLsn => {
                "the page is newer than the redo log: files of two moments or instances are mixed"
            }
            Self::ZeroPage => "the page is in use but empty: a write was lost",
            Self::PageType => "the page is not what its place is for",
            Self::Compression => "the page cannot be expanded; a server that reads it stops",
            Self::Header => "the server cannot open the tablespace, or opens it wrongly",
            Self::Truncated => "pages are missing at the end of the file",
            Self::Sibling => "a scan of the index loses rows, or finds some twice",
            Self::Level => "pages of two levels of a tree are mixed: a page is in the wrong place",
            Self::IndexId => "pages of two indexes are mixed: a page is in the wrong place",
            Self::FreePage => "the server will give the page to somebody else and overwrite rows",
            Self::Tree => "pages of the index are lost, or found more than once",
            Self::Root => "the index has no root that all searches begin at",
            Self::Segment => "the page belongs to another index, or will be used twice",
            Self::Records => "rows of the page are lost, or the server stops at them",
            Self::Extent => "pages can be used twice, or never again",
            Self::ExtentList => "pages can be used twice, or the server stops when it needs room",
            Self::Inode => "it is not known which pages the index has",
            Self::RedoHeader => "the server cannot begin to recover",
            Self::RedoBlock => "recovery ends here and loses what follows",
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: Arc<PathBuf>,
    /// The page, by its number in the tablespace.
    pub page: Option<u32>,
    /// The index, by its number in the dictionary (`INNODB_INDEXES.INDEX_ID`).
    pub index: Option<u64>,
    /// What kind it is.
    pub kind: Kind,
    /// What is wrong.
    pub detail: String,
}

impl Fault {
    /// A fault of a whole file.
    pub(crate) fn of_file(path: &Path, kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            file: Arc::new(path.to_owned()),
            page: None,
            index: None,
            kind,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(page) = self.page {
            write!(f, ", page {page}")?;
        }
        if let Some(index) = self.index {
            write!(f, ", index {index}")?;
        }
        write!(f, ": {}: {} ({})", self.kind.name(), self.detail, self.kind.meaning())
    }
}
