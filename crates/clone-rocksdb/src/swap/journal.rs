// SPDX-License-Identifier: GPL-2.0-only

//! Which part of a swap has begun, and between which directories.
//!
//! ```text
//! clone swap 1
//! move
//! /data/.rocksdb
//! /data/wal
//! ```
//!
//! The third line is the live directory of data files. The fourth, that of write-ahead logs, is
//! missing if they are the same. The paths are those of when the swap began: a server that is
//! started with others must not lose files between them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clone_engine::{Error, Result};

use crate::layout::Places;
use crate::storage::Storage;

/// The content of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) phase: Phase,
    pub(super) data: PathBuf,
    pub(super) wal: Option<PathBuf>,
}

/// What has begun. All before it is done, and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Old files move aside.
    Save,
    /// New files move in.
    Move,
    /// The clone is in place.
    Swapped,
    /// New files are removed.
    Clear,
    /// Old files move back.
    Return,
}

const TITLE: &[u8] = b"clone swap 1";

impl Phase {
    const ALL: [Phase; 5] = [Phase::Save, Phase::Move, Phase::Swapped, Phase::Clear, Phase::Return];

    fn name(self) -> &'static str {
        match self {
            Phase::Save => "save",
            Phase::Move => "move",
            Phase::Swapped => "swapped",
            Phase::Clear => "clear",
            Phase::Return => "return",
        }
    }
}

impl Journal {
    /// The journal of the swap at hand; none without a swap.
    pub(super) fn read(storage: Storage<'_>, places: &Places) -> Result<Option<Self>> {
        let Some(content) = storage.read(&places.journal)? else { return Ok(None) };
        let journal = Self::parse(&content).ok_or_else(|| {
            let journal = places.journal.display();
            Error::Internal(format!("'{journal}' is not the journal of a clone's swap"))
        });
        journal.map(Some)
    }

    /// Replaces the journal, durably and at once.
    pub(super) fn write(&self, storage: Storage<'_>, places: &Places) -> Result<()> {
        storage.replace(&places.journal, &self.to_bytes()?)
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut lines = content.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
        if lines.next()? != TITLE {
            return None;
        }
        let phase = lines.next()?;
        let phase = Phase::ALL.into_iter().find(|known| known.name().as_bytes() == phase)?;
        let path = |line: &[u8]| PathBuf::from(OsStr::from_bytes(line));
        let (data, wal) = (path(lines.next()?), lines.next().map(path));
        let is_whole = lines.next().is_none() && !data.as_os_str().is_empty();
        is_whole.then_some(Self { phase, data, wal })
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = TITLE.to_vec();
        let paths = [Some(&self.data), self.wal.as_ref()].into_iter().flatten();
        let paths = paths.map(|path| path.as_os_str().as_bytes());
        for line in std::iter::once(self.phase.name().as_bytes()).chain(paths) {
            if line.contains(&b'\n') {
                return Err(Error::Internal("directory with a line break in its name".to_owned()));
            }
            bytes.push(b'\n');
            bytes.extend_from_slice(line);
        }
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn journal(wal: Option<&str>) -> Journal {
        Journal { phase: Phase::Move, data: "/data/.rocksdb".into(), wal: wal.map(PathBuf::from) }
    }

    #[test]
    fn is_what_the_description_says() {
        assert_eq!(journal(None).to_bytes().unwrap(), b"clone swap 1\nmove\n/data/.rocksdb\n");
        let with_wal = journal(Some("/data/wal"));
        let bytes = b"clone swap 1\nmove\n/data/.rocksdb\n/data/wal\n";
        assert_eq!(with_wal.to_bytes().unwrap(), bytes);
        assert_eq!(Journal::parse(bytes), Some(with_wal));
    }

    #[test]
    fn every_phase_comes_back() {
        for phase in Phase::ALL {
            let journal = Journal { phase, ..journal(None) };
            assert_eq!(Journal::parse(&journal.to_bytes().unwrap()), Some(journal));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "clone swap 1\nmove\n/data",
            "clone swap 1\nmove\n",
            "clone swap 1\nmove\n\n",
            "clone swap 2\nmove\n/data\n",
            "clone swap 1\nmoved\n/data\n",
            "clone swap 1\nmove\n/data\n/wal\n/more\n",
        ] {
            assert_eq!(Journal::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(journal(Some("/a\nb")).to_bytes().is_err());
    }
}
