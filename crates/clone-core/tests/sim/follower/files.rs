// SPDX-License-Identifier: GPL-2.0-only

//! Which files a donor has to send, and what has become of each (`clone-rocksdb`,
//! `donor/files.rs`).

use std::sync::Arc;

use clone_protocol::rocksdb::FileState;

use super::data::Files;

/// The files of a clone.
#[derive(Default)]
pub(super) struct Sending {
    /// A file's number is its place here.
    entries: Vec<Entry>,
    /// Bytes of which the recipient was not told.
    pub(super) estimate: u64,
    /// What it was told may have been lost with a connection.
    owes_estimate: bool,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: Arc<[u8]>,
    /// The recipient knows it, and has so many bytes of it.
    pub(super) applied: Option<usize>,
    /// It is in the present checkpoint. What is not is sent only if the recipient waits for it.
    is_listed: bool,
    status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Waiting,
    Taken,
    Sent,
}

impl Sending {
    /// A checkpoint: these files there are, and no others.
    pub(super) fn list(&mut self, files: Files) {
        self.entries.iter_mut().for_each(|entry| entry.is_listed = false);
        files.into_iter().for_each(|(name, bytes)| self.add(name, bytes));
    }

    pub(super) fn add(&mut self, name: String, bytes: Arc<[u8]>) {
        if let Some(known) = self.entries.iter_mut().find(|entry| entry.name == name) {
            known.is_listed = true;
            return;
        }
        self.estimate += bytes.len() as u64;
        let (applied, is_listed, status) = (None, true, Status::Waiting);
        self.entries.push(Entry { name, bytes, applied, is_listed, status });
    }

    /// What the recipient has to be told of, if it has.
    pub(super) fn take_estimate(&mut self) -> Option<u64> {
        let is_due = std::mem::take(&mut self.owes_estimate) || self.estimate != 0;
        is_due.then(|| std::mem::take(&mut self.estimate))
    }

    /// A file to send, with its number.
    pub(super) fn take(&mut self) -> Option<(usize, Entry)> {
        let at = self.entries.iter().position(Entry::is_due)?;
        self.entries[at].status = Status::Taken;
        Some((at, self.entries[at].clone()))
    }

    pub(super) fn sent(&mut self, number: usize) {
        self.entries[number].status = Status::Sent;
    }

    pub(super) fn are_all_sent(&self) -> bool {
        !self.entries.iter().any(|entry| entry.is_due() || entry.status == Status::Taken)
    }

    /// The recipient comes back, with what it has.
    pub(super) fn restart(&mut self, states: &[FileState]) {
        for (number, entry) in (0..).zip(&mut self.entries) {
            let found = states.iter().find(|state| state.file == number);
            entry.applied = found.map(|state| usize::try_from(state.applied.get()).unwrap());
            let is_sent = entry.applied == Some(entry.bytes.len());
            entry.status = if is_sent { Status::Sent } else { Status::Waiting };
        }
        self.owes_estimate = true;
        if states.is_empty() {
            // Neither has it heard how much there is.
            self.estimate = self.entries.iter().map(|entry| entry.bytes.len() as u64).sum();
        }
    }
}

impl Entry {
    fn is_due(&self) -> bool {
        self.status == Status::Waiting && (self.is_listed || self.applied.is_some())
    }
}
