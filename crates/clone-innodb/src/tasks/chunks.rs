// SPDX-License-Identifier: GPL-2.0-only

//! Which chunks of a state are begun, and how a restart locator tells
//! (`include/clone0desc.h:Chunk_Info`).

use std::collections::BTreeMap;

use clone_protocol::innodb::{IncompleteChunk, Progress};

use crate::error::{Error, Result};

/// The most chunks of a state: more do not fit a restart locator
/// ([`clone_protocol::MAX_LOCATOR_LEN`]).
pub(crate) const MAX_CHUNKS: u32 = 1 << 27;

/// Where a task is: the last block that it sent or applied. Chunk 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) chunk: u32,
    pub(crate) block: u32,
}

/// The chunks of a state, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    total: u32,
    /// A bit for each chunk that was begun, from the lowest bit of the first word on.
    reserved: Vec<u32>,
    /// No chunk up to this one is free.
    free_after: u32,
    /// Chunks that broke off, and the last block of each that arrived.
    incomplete: BTreeMap<u32, u32>,
}

impl Chunks {
    /// The chunks of a clone's next state. As in InnoDB the bitmap has half a byte for each chunk
    /// (`clone0desc.cc:Chnunk_Bitmap::reset` means bytes and takes words), and it never shrinks: a
    /// recipient's restart locator shows both.
    ///
    /// # Errors
    /// There are more than [`MAX_CHUNKS`].
    pub(crate) fn next(&self, total: u32) -> Result<Self> {
        if total > MAX_CHUNKS {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid State Descriptor: {total} chunks"
            )));
        }
        let is_enough = total as usize <= self.reserved.len() * 32;
        let words = if is_enough { self.reserved.len() } else { (total as usize / 8).max(1) };
        Ok(Self { total, reserved: vec![0; words], free_after: 0, incomplete: BTreeMap::new() })
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    fn is_reserved(&self, chunk: u32) -> bool {
        let at = chunk.wrapping_sub(1);
        self.reserved.get((at / 32) as usize).is_some_and(|word| word >> (at % 32) & 1 == 1)
    }

    fn set_reserved(&mut self, chunk: u32) {
        let at = chunk.wrapping_sub(1);
        if let Some(word) = self.reserved.get_mut((at / 32) as usize) {
            *word |= 1 << (at % 32);
        }
    }

    /// Whether the state has this chunk.
    pub(crate) fn has(&self, chunk: u32) -> bool {
        (1..=self.total).contains(&chunk)
    }

    /// A chunk to send and the block after which to begin: the lowest that is free or broke off.
    pub(crate) fn reserve(&mut self) -> Option<Position> {
        while self.free_after < self.total && self.is_reserved(self.free_after + 1) {
            self.free_after += 1;
        }
        let free = Some(self.free_after + 1).filter(|chunk| *chunk <= self.total);
        let incomplete = self.incomplete.first_key_value();
        let incomplete = incomplete.map(|(chunk, block)| Position { chunk: *chunk, block: *block });
        match (free, incomplete) {
            (Some(chunk), Some(begun)) if chunk >= begun.chunk => self.go_on(begun),
            (None, Some(begun)) => self.go_on(begun),
            (Some(chunk), _) => {
                self.set_reserved(chunk);
                Some(Position { chunk, block: 0 })
            }
            (None, None) => None,
        }
    }

    fn go_on(&mut self, begun: Position) -> Option<Position> {
        self.incomplete.remove(&begun.chunk);
        Some(begun)
    }

    /// A block of the chunk arrived.
    pub(crate) fn begin(&mut self, chunk: u32) {
        self.set_reserved(chunk);
        self.incomplete.remove(&chunk);
    }

    /// Marks the chunks of a dropped file, of which nothing comes. Gives the last that was free.
    pub(crate) fn skip(&mut self, first: u32, last: u32) -> Option<u32> {
        let mut skipped = None;
        for chunk in first.max(1)..=last.min(self.total) {
            if !self.is_reserved(chunk) {
                self.begin(chunk);
                skipped = Some(chunk);
            }
        }
        skipped
    }

    /// A task ends in the middle of a chunk.
    pub(crate) fn break_off(&mut self, at: Position) {
        if at.chunk != 0 {
            self.incomplete.insert(at.chunk, at.block);
        }
    }

    /// Takes over what the recipient has of the state.
    ///
    /// # Errors
    /// There is a chunk in it that the state does not have. The locator is the recipient's word.
    pub(crate) fn resume(&mut self, progress: &Progress) -> Result<()> {
        let incomplete = &progress.incomplete;
        if let Some(one) = incomplete.iter().find(|one| !self.has(one.chunk)) {
            return Err(Error::protocol(format!(
                "Wrong Clone RPC: Invalid Locator: chunk {} of {}",
                one.chunk, self.total
            )));
        }
        for (word, sent) in self.reserved.iter_mut().zip(&progress.reserved) {
            *word = *sent;
        }
        self.incomplete = incomplete.iter().map(|one| (one.chunk, one.block)).collect();
        // A chunk that is incomplete was begun, whatever the bitmap says.
        progress.incomplete.iter().for_each(|one| self.set_reserved(one.chunk));
        self.free_after = 0;
        Ok(())
    }

    /// The form of it in a restart locator.
    pub(crate) fn progress(&self) -> Progress {
        let incomplete = self
            .incomplete
            .iter()
            .map(|(chunk, block)| IncompleteChunk { chunk: *chunk, block: *block })
            .collect();
        Progress { incomplete, reserved: self.reserved.clone() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_reserved_once_and_in_order() {
        let mut chunks = Chunks::default().next(70).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| chunks.reserve()).collect();
        let expected: Vec<_> = (1..=70).map(|chunk| Position { chunk, block: 0 }).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn a_state_without_chunks_has_nothing_to_send() {
        assert_eq!(Chunks::default().reserve(), None);
        assert_eq!(Chunks::default().next(0).unwrap().reserve(), None);
    }

    #[test]
    fn a_restart_sends_what_is_missing_and_the_rest_of_what_broke_off() {
        let mut recipient = Chunks::default().next(40).unwrap();
        [1, 2, 33, 40].into_iter().for_each(|chunk| recipient.begin(chunk));
        recipient.break_off(Position { chunk: 33, block: 7 });
        let progress = recipient.progress();
        assert_eq!(progress.reserved, [0b11, 0b1000_0001, 0, 0, 0]);
        assert_eq!(progress.incomplete, [IncompleteChunk { chunk: 33, block: 7 }]);

        let mut donor = Chunks::default().next(40).unwrap();
        donor.resume(&progress).unwrap();
        let sent: Vec<_> = std::iter::from_fn(|| donor.reserve()).collect();
        let expected: Vec<_> = (3..40)
            .map(|chunk| Position { chunk, block: if chunk == 33 { 7 } else { 0 } })
            .collect();
        assert_eq!(sent, expected);
    }

    /// The second is what the recorded restarts have: FILE_COPY of 22 chunks, and PAGE_COPY of 2.
    #[test]
    fn the_bitmap_is_as_long_as_innodbs() {
        let mut chunks = Chunks::default();
        for (total, words) in [(0, 0), (3, 1), (22, 1), (33, 4), (0, 4), (128, 4), (129, 16)] {
            chunks = chunks.next(total).unwrap();
            assert_eq!(chunks.progress().reserved.len(), words, "{total}");
        }
        let mut chunks = Chunks::default();
        for (total, words) in [(22, 2), (2, 2)] {
            chunks = chunks.next(total).unwrap();
            assert_eq!(chunks.progress().reserved.len(), words, "{total}");
        }
    }

    #[test]
    fn numbers_outside_are_refused_or_do_nothing() {
        assert_eq!(Chunks::default().next(MAX_CHUNKS + 1).unwrap_err().number(), 3863);
        let mut chunks = Chunks::default().next(3).unwrap();
        assert!(!chunks.has(0) && chunks.has(1) && chunks.has(3) && !chunks.has(4));
        let far = Progress {
            incomplete: vec![IncompleteChunk { chunk: 4, block: 1 }],
            reserved: vec![u32::MAX; 9],
        };
        assert_eq!(chunks.resume(&far).unwrap_err().number(), 3863);
        assert_eq!(chunks.skip(0, u32::MAX), Some(3));
        assert_eq!(chunks.reserve(), None);
    }
}
