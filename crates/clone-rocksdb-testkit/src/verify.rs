// SPDX-License-Identifier: GPL-2.0-only

//! Two databases, compared.

use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use crate::live::FAMILIES;
use crate::live::Live;
use crate::live::RocksError;
use crate::live::Snapshot;

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Number of keys in all column families.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Where two databases differ.
#[derive(Debug)]
pub enum Difference {
    /// The copy is of another moment.
    Sequence {
        /// That of the snapshot.
        expected: u64,
        /// That of the copy.
        found: u64,
    },
    /// The first key at which they are not the same.
    Key {
        /// Index of the column family.
        family: usize,
        /// The entry in the snapshot, as text.
        expected: String,
        /// The entry in the copy, as text.
        found: String,
    },
    /// One of them cannot be read.
    Unreadable(RocksError),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence { expected, found } => {
                write!(f, "the copy ends at write {found} and not at {expected}")
            }
            Self::Key { family, expected, found } => {
                write!(f, "column family {family}: {found} in the place of {expected}")
            }
            Self::Unreadable(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Difference {}

impl From<RocksError> for Difference {
    fn from(error: RocksError) -> Self {
        Self::Unreadable(error)
    }
}

/// Compares every key and value of `copy`, at which nobody writes, with those of `expected`, and
/// the number of the last write.
///
/// # Errors
/// The first difference.
pub fn compare(expected: &Snapshot, copy: &Arc<Live>) -> Result<Compared, Difference> {
    let found = copy.sequence();
    if found != expected.sequence() {
        return Err(Difference::Sequence { expected: expected.sequence(), found });
    }
    let copy = copy.snapshot();
    let mut compared = Compared::default();
    for family in 0..FAMILIES.len() {
        let (mut ours, mut theirs) = (expected.iter(family), copy.iter(family));
        loop {
            let (one, other) = (ours.read()?, theirs.read()?);
            if one != other {
                return Err(Difference::Key { family, expected: text(one), found: text(other) });
            }
            let Some((key, value)) = one else { break };
            compared.keys += 1;
            compared.bytes += (key.len() + value.len()) as u64;
            ours.advance();
            theirs.advance();
        }
    }
    Ok(compared)
}

/// A number for all keys and values of a snapshot, the same in each process.
///
/// # Errors
/// It cannot be read.
pub fn digest(snapshot: &Snapshot) -> Result<u64, RocksError> {
    let mut hasher = DefaultHasher::new();
    for family in 0..FAMILIES.len() {
        let mut entries = snapshot.iter(family);
        while let Some(entry) = entries.read()? {
            entry.hash(&mut hasher);
            entries.advance();
        }
        family.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn text(entry: Option<(&[u8], &[u8])>) -> String {
    match entry {
        None => "nothing".to_owned(),
        Some((key, value)) => {
            let start = &value[..value.len().min(16)];
            format!("{} = {start:02x?} ({} bytes)", key.escape_ascii(), value.len())
        }
    }
}
