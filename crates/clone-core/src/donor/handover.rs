// SPDX-License-Identifier: GPL-2.0-only

//! The donor's part of hand-over: open files go to a recipient on the same machine, which shares
//! their blocks on the disk.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::file_channel::{FileGiver, Taken};

/// The longest time for a recipient to copy a block that was handed over. The time includes the
/// recipient's waits for its bandwidth limits.
const LIMIT: Duration = Duration::from_secs(120);

/// The donor's end of the hand-over of one connection.
pub(super) enum Handover {
    /// No files are handed over.
    Closed,
    /// Connected. Whether the recipient can share blocks is not known yet.
    Untried(Box<dyn FileGiver>),
    /// The recipient shares blocks.
    Open(Box<dyn FileGiver>),
}

/// How handing over one block ended.
#[derive(Debug)]
pub(super) enum HandedOver {
    /// The recipient has the block.
    Copied,
    /// The recipient refused the block, because it has failed or is about to fail. The donor goes
    /// on. It learns of the failure as after any other block.
    Refused,
    /// KILL, or the recipient is silent.
    Stopped,
}

impl Handover {
    /// Hand-over through `giver`; closed without one.
    pub(super) fn to(giver: Option<Box<dyn FileGiver>>) -> Self {
        giver.map_or(Self::Closed, Self::Untried)
    }

    /// Returns true if files are handed over and the file's file system may share blocks.
    pub(super) fn may_share(&self, file: BorrowedFd<'_>) -> bool {
        match self {
            Self::Closed => false,
            Self::Untried(giver) | Self::Open(giver) => giver.may_share(file),
        }
    }

    /// Whether files may be handed over.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// Returns true if the recipient has not said yet whether it can share blocks.
    pub(super) fn is_untried(&self) -> bool {
        matches!(self, Self::Untried(_))
    }

    /// No more files are handed over.
    pub(super) fn close(&mut self) {
        *self = Self::Closed;
    }

    /// The recipient has answered the trial: it can share blocks.
    pub(super) fn accept(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Untried(giver) | Self::Open(giver) => Self::Open(giver),
            Self::Closed => Self::Closed,
        };
    }

    /// Sends the open file. Returns false if that failed; then the recipient has received nothing.
    pub(super) fn give(&self, file: BorrowedFd<'_>) -> bool {
        match self {
            Self::Closed => false,
            Self::Untried(giver) | Self::Open(giver) => giver.give(file).is_ok(),
        }
    }

    /// Waits until the recipient has copied the block of `file` that ends at `end`.
    ///
    /// # Errors
    /// The recipient took too long, or reported a copy that it has not made.
    pub(super) fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        is_killed: &mut dyn FnMut() -> bool,
    ) -> std::io::Result<HandedOver> {
        let giver = match self {
            Self::Closed => return Ok(HandedOver::Refused),
            Self::Untried(giver) | Self::Open(giver) => giver,
        };
        Ok(match giver.wait(file, end, LIMIT, is_killed)? {
            Taken::Copied => HandedOver::Copied,
            Taken::Refused => HandedOver::Refused,
            Taken::Stopped => HandedOver::Stopped,
        })
    }
}
