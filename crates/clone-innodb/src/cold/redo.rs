// SPDX-License-Identifier: GPL-2.0-only

//! The redo log of a data directory, as a donor sends it.
//!
//! A recipient gets the redo from the block of the last checkpoint to the end, in files that all
//! have the same size. The first file begins with a header that says "MySQL Clone"; by this the
//! recipient's server knows that it opens a clone (`arch/arch0log.cc:update_header`,
//! `log/log0log.cc`). The redo files of a directory may have other sizes and begin elsewhere, so
//! the log is cut anew by log sequence number (LSN). Blocks stay as they are: what a block says of
//! itself depends on its LSN only.

mod files;
#[cfg(test)]
pub(super) mod tests;

use std::cmp::Ordering;
use std::fs::File;
use std::path::PathBuf;

use super::files::read_exact;
use super::outside::{MAX_NAME, OutsideNames};
use crate::error::{Error, Result};
use crate::format::redo::{self, BLOCK, BLOCK_END, BLOCK_HEADER, LogBlock, at, empty_block, seal};
use crate::geometry::{Block, REDO_HEADER};
use crate::source::{RedoCopy, RedoFile};

pub(super) use files::Directories;

/// Bytes of a file's header (`LOG_FILE_HDR_SIZE`).
const HEADER: u64 = REDO_HEADER as u64;

/// Blocks that are read at once while the end is looked for.
const READ: usize = 1 << 20;

/// The creator that a donor writes to the header (`LOG_HEADER_CREATOR_CLONE`).
const CREATOR: &[u8] = b"MySQL Clone";

/// A part of the log that lies in one piece.
#[derive(Debug)]
struct Segment {
    file: File,
    path: PathBuf,
    /// The log from this LSN, a multiple of 512,
    start: u64,
    /// up to this one
    end: u64,
    /// begins here in the file, in bytes.
    offset: u64,
}

/// What the files of a log say of it.
#[derive(Debug)]
struct Log {
    /// In the order of their LSN, without gaps.
    segments: Vec<Segment>,
    /// `LOG_HEADER_FORMAT`.
    format: u32,
    /// `LOG_HEADER_LOG_UUID`, 0 before 8.0.30.
    uuid: u32,
    /// The LSN of the last checkpoint.
    checkpoint: u64,
    /// Bytes of the largest file.
    file_size: u64,
}

/// The redo of a directory.
#[derive(Debug)]
pub(super) struct Redo {
    log: Log,
    /// The first byte that is sent: that of the checkpoint's block.
    start: u64,
    /// The LSN of the last block. It is sent as the trailer.
    last: u64,
    /// The last block, as it is or as it would be.
    trailer: [u8; BLOCK],
    /// Whether redo follows the checkpoint.
    needs_recovery: bool,
}

impl Redo {
    /// Opens the log and looks for its end.
    ///
    /// # Errors
    /// A file cannot be read; the log is damaged, encrypted, or was switched off.
    pub(super) fn open(directories: &Directories<'_>) -> Result<Self> {
        let log = files::open(directories)?;
        let start = log.checkpoint - log.checkpoint % BLOCK as u64;
        let (last, trailer, end) = log.find_end(start)?;
        if end < log.checkpoint {
            return Err(damaged(format_args!(
                "it ends at LSN {end}, before its last checkpoint at {}",
                log.checkpoint
            )));
        }
        let needs_recovery = end > log.checkpoint;
        Ok(Self { log, start, last, trailer, needs_recovery })
    }

    /// Whether the server that had the directory did not shut down.
    pub(super) fn needs_recovery(&self) -> bool {
        self.needs_recovery
    }

    pub(super) fn checkpoint(&self) -> u64 {
        self.log.checkpoint
    }

    /// Searches the records for names of tablespaces outside of the directory.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn search(&self, names: &mut OutsideNames) -> Result<()> {
        let mut blocks = vec![0; READ];
        let mut records = Vec::with_capacity(READ);
        let mut lsn = self.start;
        while lsn <= self.last {
            let len = (READ as u64).min(self.last + BLOCK as u64 - lsn);
            let part = &mut blocks[..usize::try_from(len).unwrap_or(READ)];
            self.read_log(lsn, part)?;
            // A name may begin in the part before.
            let keep = records.len().min(MAX_NAME);
            records.drain(..records.len() - keep);
            let data = part.chunks_exact(BLOCK).map(|block| &block[BLOCK_HEADER..BLOCK_END]);
            data.for_each(|data| records.extend_from_slice(data));
            names.search(&records);
            lsn += len;
        }
        Ok(())
    }

    /// Bytes of redo that are sent.
    pub(super) fn len(&self) -> u64 {
        self.last + BLOCK as u64 - self.start
    }

    /// What a recipient gets in REDO_COPY.
    pub(super) fn layout(&self) -> RedoCopy {
        let size = self.log.file_size;
        let (index, offset) = self.place(self.last);
        // Before 8.0.30 a server does not start with one file.
        let files = if self.log.has_many_files() { index + 1 } else { index.max(1) + 1 };
        let files = (0..files).map(|file| {
            // InnoDB sends the header of the first file in a chunk of its own.
            let from = if file == 0 { HEADER } else { 0 };
            let to = match file.cmp(&index) {
                Ordering::Less => size,
                Ordering::Equal => offset,
                Ordering::Greater => 0,
            };
            RedoFile { size, data: from..to }
        });
        let len = u32::try_from(BLOCK).unwrap_or(u32::MAX);
        RedoCopy {
            changes: Vec::new(),
            files: files.collect(),
            trailer: Block { file: index, offset, len },
        }
    }

    /// The bytes of a block of this layout, and where redo ends in its file.
    ///
    /// # Errors
    /// A file cannot be read; the block is not of the layout.
    pub(super) fn read(&self, block: &Block) -> Result<(Vec<u8>, u64)> {
        let size = self.log.file_size;
        let (last_index, last_offset) = self.place(self.last);
        let end = if block.file == last_index { last_offset + BLOCK as u64 } else { size };
        let to = block.offset.checked_add(block.len.into()).filter(|to| *to <= end);
        if to.is_none() || block.file > last_index {
            return Err(Error::internal(format!("no such block of the redo log: {block:?}")));
        }
        let mut bytes = vec![0; block.len as usize];
        let mut filled = 0;
        if block.offset < HEADER {
            let header = self.header(block.file);
            let from = usize::try_from(block.offset).unwrap_or(usize::MAX);
            let part = header.get(from..).unwrap_or_default();
            filled = part.len().min(bytes.len());
            bytes[..filled].copy_from_slice(&part[..filled]);
        }
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        if !rest.is_empty() {
            let offset = block.offset + filled as u64 - HEADER;
            let lsn = self.start + u64::from(block.file) * (size - HEADER) + offset;
            self.read_log(lsn, rest)?;
        }
        Ok((bytes, end))
    }

    /// Reads the log from `lsn` on, which is not behind the trailer.
    fn read_log(&self, lsn: u64, bytes: &mut [u8]) -> Result<()> {
        let before = self.last.saturating_sub(lsn).min(bytes.len() as u64);
        let (log, trailer) = bytes.split_at_mut(usize::try_from(before).unwrap_or(usize::MAX));
        self.log.read(lsn, log)?;
        let from = usize::try_from(lsn.saturating_sub(self.last)).unwrap_or(usize::MAX);
        let source = self.trailer.get(from..).and_then(|rest| rest.get(..trailer.len()));
        match source {
            Some(source) => trailer.copy_from_slice(source),
            None => return Err(Error::internal("a part of the redo log behind its end")),
        }
        Ok(())
    }

    /// The file and the offset that an LSN has at the recipient.
    fn place(&self, lsn: u64) -> (u32, u64) {
        let capacity = self.log.file_size - HEADER;
        let bytes = lsn - self.start;
        let index = u32::try_from(bytes / capacity).unwrap_or(u32::MAX);
        (index, HEADER + bytes % capacity)
    }

    /// The header of a file at the recipient.
    fn header(&self, index: u32) -> Vec<u8> {
        let mut header = vec![0; REDO_HEADER as usize];
        let start = self.start + u64::from(index) * (self.log.file_size - HEADER);
        put(&mut header, at::FORMAT, &self.log.format.to_be_bytes());
        put(&mut header, at::UUID, &self.log.uuid.to_be_bytes());
        put(&mut header, at::START_LSN, &start.to_be_bytes());
        put(&mut header, at::CREATOR, CREATOR);
        seal(&mut header[..BLOCK]);
        for from in at::CHECKPOINTS {
            let checkpoint = &mut header[from..from + BLOCK];
            put(checkpoint, at::CHECKPOINT_LSN, &self.log.checkpoint.to_be_bytes());
            if !self.log.has_many_files() {
                let offset = HEADER + self.log.checkpoint - self.start;
                put(checkpoint, at::CHECKPOINT_OFFSET, &offset.to_be_bytes());
            }
            seal(checkpoint);
        }
        header
    }
}

impl Log {
    fn has_many_files(&self) -> bool {
        redo::has_many_files(self.format)
    }

    /// The LSN of the last block, this block, and the LSN where the log ends.
    fn find_end(&self, start: u64) -> Result<(u64, [u8; BLOCK], u64)> {
        let mut bytes = vec![0; READ];
        let mut last: Option<(u64, [u8; BLOCK], u64)> = None;
        let mut lsn = start;
        let log_end = self.segments.last().map_or(start, |segment| segment.end);
        'log: while lsn < log_end {
            let len = (READ as u64).min(log_end - lsn);
            let part = &mut bytes[..usize::try_from(len).unwrap_or(READ)];
            self.read(lsn, part)?;
            for block in part.chunks_exact(BLOCK) {
                let parsed = LogBlock::parse(block, lsn, self.has_many_files());
                let Some(parsed) = parsed else { break 'log };
                if parsed.is_encrypted {
                    return Err(damaged(format_args!(
                        "the block at LSN {lsn} is encrypted, and the header has no key"
                    )));
                }
                let mut copy = [0; BLOCK];
                copy.copy_from_slice(block);
                last = Some((lsn, copy, lsn + u64::from(parsed.data_len)));
                lsn += BLOCK as u64;
                if usize::from(parsed.data_len) < BLOCK {
                    break 'log;
                }
            }
        }
        match last {
            Some(last) => Ok(last),
            // A block that has no record yet need not have been written.
            None if self.checkpoint == start + BLOCK_HEADER as u64 => {
                Ok((start, empty_block(start, self.has_many_files()), self.checkpoint))
            }
            None => Err(damaged(format_args!(
                "the block of its last checkpoint, at LSN {}, is missing",
                self.checkpoint
            ))),
        }
    }

    fn read(&self, mut lsn: u64, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            let found = self.segments.iter().find(|one| (one.start..one.end).contains(&lsn));
            let segment = found.ok_or_else(|| damaged(format_args!("LSN {lsn} is missing")))?;
            let len = (segment.end - lsn).min(bytes.len() as u64);
            let (part, rest) = bytes.split_at_mut(usize::try_from(len).unwrap_or(usize::MAX));
            read_exact(&segment.file, &segment.path, part, segment.offset + lsn - segment.start)?;
            bytes = rest;
            lsn += len;
        }
        Ok(())
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn encrypted() -> Error {
    Error::Refused(
        "the redo log is encrypted (innodb_redo_log_encrypt=ON), which cannot be served".into(),
    )
}

fn damaged(what: std::fmt::Arguments<'_>) -> Error {
    Error::Refused(format!("the redo log is damaged: {what}. Restore the directory from a backup"))
}
