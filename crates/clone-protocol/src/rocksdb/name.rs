// SPDX-License-Identifier: GPL-2.0-only

//! Names of files, before a client makes paths of them.

use std::fmt;

/// A name that is a file in a directory and can be nothing else: letters, digits, `-`, `_` and `.`,
/// the first of them no dot, at most 255.
///
/// RocksDB's own names are `000012.sst`, `000012.blob`, `000012.log`, `MANIFEST-000012`, `CURRENT`,
/// `OPTIONS-000012`, `IDENTITY`. Names that begin with a dot are the clone's: its marker, its
/// journal, its directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName<'a>(&'a str);

impl<'a> FileName<'a> {
    /// The longest name, `NAME_MAX`, in bytes.
    pub const MAX_LEN: usize = 255;

    /// `None` for what is not such a name.
    pub fn new(name: &'a [u8]) -> Option<Self> {
        let is_plain = (1..=Self::MAX_LEN).contains(&name.len())
            && name.first() != Some(&b'.')
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
        if !is_plain {
            return None;
        }
        std::str::from_utf8(name).ok().map(Self)
    }

    /// The name.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// A write-ahead log, which goes to the directory of these.
    pub fn is_wal(self) -> bool {
        self.0.ends_with(".log")
    }
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
