// SPDX-License-Identifier: GPL-2.0-only

//! The donor's part of hand-over: open files go to a recipient on the same machine, which shares
//! their blocks on the disk.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::file_channel::{FileGiver, Taken};

/// The longest time for a recipient to copy a block that was handed over. The time includes the
/// recipient's waits for its bandwidth limits.
const LIMIT: Duration = Duration::from_secs(120);

/// The donor's end of the hand-over of one connection.
pub(super) struct Handover {
    giver: Box<dyn FileGiver>,
    /// The recipient has shown that it can share blocks.
    is_tried: bool,
}

impl Handover {
    /// Hand-over through `giver`. Whether the recipient can share blocks is not known yet.
    pub(super) fn new(giver: Box<dyn FileGiver>) -> Self {
        Self { giver, is_tried: false }
    }

    /// Returns true if the file's file system may share blocks.
    pub(super) fn may_share(&self, file: BorrowedFd<'_>) -> bool {
        self.giver.may_share(file)
    }

    /// Whether the recipient has shown that it can share blocks.
    pub(super) fn is_tried(&self) -> bool {
        self.is_tried
    }

    /// The recipient has answered the trial: it can share blocks.
    pub(super) fn accept(&mut self) {
        self.is_tried = true;
    }

    /// Sends the open file. Returns false if that failed; then the recipient has received nothing.
    pub(super) fn give(&self, file: BorrowedFd<'_>) -> bool {
        self.giver.give(file).is_ok()
    }

    /// Waits until the recipient has copied the block of `file` that ends at `end`. If `is_over`
    /// returns true, the wait ends.
    ///
    /// # Errors
    /// The recipient took too long, or reported a copy that it has not made.
    pub(super) fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken> {
        self.giver.wait(file, end, LIMIT, is_over)
    }
}
