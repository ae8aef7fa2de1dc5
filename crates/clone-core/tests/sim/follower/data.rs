// SPDX-License-Identifier: GPL-2.0-only

//! The files of a follower, at its server and in a clone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::FollowerShape;
use crate::sim::rng::Rng;
use crate::sim::session::SimSession;

/// Files by name.
pub(super) type Files = BTreeMap<String, Arc<[u8]>>;

/// All data of a follower.
pub(crate) struct Data {
    rng: Rng,
    /// Most bytes of a file.
    size: usize,
    compactions: usize,
    live: Files,
    last: u32,
    /// What the newest clone has to contain.
    newest: Files,
}

/// The log of a clone: the number of transactions is in its first bytes.
pub(super) const LOG: &str = "999999.log";

impl Data {
    pub(super) fn new(files: usize, shape: Option<FollowerShape>, rng: Rng) -> Self {
        let mut data = Self {
            rng,
            size: shape.map_or(1, |shape| shape.size),
            compactions: shape.map_or(0, |shape| shape.compactions),
            live: Files::new(),
            last: 0,
            newest: Files::new(),
        };
        (0..files).for_each(|_| data.add());
        data
    }

    fn add(&mut self) {
        self.last += 1;
        let size = self.rng.between(1, self.size);
        let bytes = self.rng.bytes(size);
        self.live.insert(format!("{:06}.sst", self.last), bytes.into());
    }

    /// The server may replace a file meanwhile.
    pub(super) fn work(&mut self) {
        if !self.live.is_empty() && self.rng.chance(self.compactions) {
            let at = self.rng.below(self.live.len());
            let name = self.live.keys().nth(at).unwrap().clone();
            self.live.remove(&name);
            self.add();
        }
    }

    /// The files that there are.
    pub(super) fn checkpoint(&self) -> Files {
        self.live.clone()
    }

    /// The last checkpoint: it says itself which files there are.
    pub(super) fn last_checkpoint(&mut self) -> Files {
        let mut files = self.checkpoint();
        let list: Vec<_> = files.keys().cloned().collect();
        files.insert("MANIFEST".to_owned(), list.join("\n").into_bytes().into());
        self.newest = files.clone();
        files
    }

    /// The log at a point at which so many transactions had committed.
    pub(super) fn cut(&mut self, committed: u64) -> Arc<[u8]> {
        let mut log = committed.to_le_bytes().to_vec();
        let more = self.rng.below(self.size);
        log.extend(self.rng.bytes(more));
        let log: Arc<[u8]> = log.into();
        self.newest.insert(LOG.to_owned(), Arc::clone(&log));
        log
    }

    /// Bytes of what the newest clone has to contain.
    pub(crate) fn newest_len(&self) -> u64 {
        self.newest.values().map(|bytes| bytes.len() as u64).sum()
    }

    pub(super) fn duration(&mut self, longest: Duration) -> Duration {
        self.rng.duration(longest)
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.rng.chance(percent)
    }
}

/// Where a clone into `directory` goes; without one it is what the server restarts with.
pub(crate) fn clone_directory(session: &SimSession, directory: Option<&Path>) -> PathBuf {
    directory.map_or_else(|| session.host.directory.join("replaced"), PathBuf::from)
}

/// Where a follower has its part of a clone that is complete.
pub(super) fn complete(directory: &Path) -> PathBuf {
    directory.join(".rocksdb")
}

/// Where it has its part of any other.
pub(super) fn incomplete(directory: &Path) -> PathBuf {
    directory.join(".rocksdb.clone")
}

/// The number of transactions in the clone `directory`, if it has a complete follower's part.
pub(crate) fn committed(directory: &Path) -> Option<u64> {
    let log = fs::read(complete(directory).join(LOG)).ok()?;
    Some(u64::from_le_bytes(log[..8].try_into().unwrap()))
}

/// Compares a clone with what it was made of. It may have files that were of use once.
///
/// # Errors
/// What differs first.
pub(crate) fn compare(data: &Data, directory: &Path) -> Result<(), String> {
    for (name, bytes) in &data.newest {
        let path = complete(directory).join(name);
        let found = fs::read(&path).map_err(|error| format!("{path:?}: {error}"))?;
        if found[..] != bytes[..] {
            return Err(format!("{path:?} differs: {} bytes of {}", found.len(), bytes.len()));
        }
    }
    if incomplete(directory).exists() {
        return Err("what is not complete is left".to_owned());
    }
    Ok(())
}
