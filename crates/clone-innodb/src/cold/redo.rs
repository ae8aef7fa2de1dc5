// SPDX-License-Identifier: GPL-2.0-only

//! The redo log of a data directory, as a donor sends it.
//!
//! A recipient gets the redo from the block of the last checkpoint to the end, in files that all
//! have the same size. The redo files of a directory may have other sizes and begin elsewhere, so
//! the log is cut anew by log sequence number (LSN). Blocks stay as they are: what a block says of
//! itself depends on its LSN only. Encrypted blocks stay encrypted, and the header has their key.
//!
//! # Who wrote the log
//!
//! A server that finds the creator "MySQL Clone" in the header (`arch/arch0log.cc:update_header`)
//! recovers a clone: it ignores the counters of AUTO_INCREMENT in the redo
//! (`MLOG_TABLE_DYNAMIC_META`), because a donor has written them to their table before. A server
//! that has crashed has not. So the log of such a directory keeps its creator, and the recipient's
//! server recovers as the directory's server would. This has two consequences:
//!
//! * The server looks into its doublewrite files, which may have pages of the data that the clone
//!   replaces. It takes such a page in place of one that is torn or consists of zeros
//!   (`buf0dblwr.cc:dblwr_recover_page`), so neither is sent.
//! * Keys of tablespaces in the redo are encrypted with the master key of the directory's server,
//!   which the recipient does not have. Such a log is refused.

mod files;
#[cfg(test)]
pub(super) mod tests;

use std::cmp::Ordering;
use std::fs::File;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::files::read_exact;
use super::outside::{MAX_NAME, OutsideNames};
use crate::encryption::{DataKey, Keyring, parse_log_block};
use crate::error::{Error, Result};
use crate::format::encryption_info::{LEN, MAGIC};
use crate::format::redo::{self, BLOCK, BLOCK_END, BLOCK_HEADER, LogBlock, at, empty_block, seal};
use crate::geometry::{Block, REDO_HEADER};
use crate::source::{RedoCopy, RedoFile};

/// Bytes of a file's header (`LOG_FILE_HDR_SIZE`).
const HEADER: u64 = REDO_HEADER as u64;

/// Blocks that are read at once while the end is looked for.
const READ: usize = 1 << 20;

/// The creator that a donor writes to the header (`LOG_HEADER_CREATOR_CLONE`).
const CREATOR: &[u8] = b"MySQL Clone";

/// `LOG_HEADER_FLAG_FILE_FULL`.
const FULL: u32 = 1 << 3;

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
    /// `LOG_HEADER_CREATOR`: the server.
    creator: [u8; 32],
    /// The LSN of the last checkpoint.
    checkpoint: u64,
    /// Bytes of the largest file.
    file_size: u64,
    /// The key of encrypted blocks. None without a keyring, or if nothing was ever encrypted.
    key: Option<DataKey>,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// The LSN of the last block.
    last: u64,
    /// The last block, as it is or as it would be.
    trailer: [u8; BLOCK],
    /// The LSN behind the last record.
    lsn: u64,
    /// Whether a block from the checkpoint on is encrypted.
    is_encrypted: bool,
}

/// The redo of a directory.
#[derive(Debug)]
pub(super) struct Redo {
    log: Log,
    /// The first byte that is sent: that of the checkpoint's block.
    start: u64,
    /// The last block is sent as the trailer.
    end: End,
}

impl Redo {
    /// Opens the log in `directory` (`innodb_log_group_home_dir`) and looks for its end.
    ///
    /// # Errors
    /// A file cannot be read; the log is damaged, was switched off, or is encrypted and the keyring
    /// does not have its key.
    pub(super) fn open(directory: &Path, keyring: Option<&Keyring>) -> Result<Self> {
        let log = files::open(directory, keyring)?;
        let start = log.checkpoint - log.checkpoint % BLOCK as u64;
        let end = log.find_end(start)?;
        if end.lsn < log.checkpoint {
            return Err(damaged(format_args!(
                "it ends at LSN {}, before its last checkpoint at {}",
                end.lsn, log.checkpoint
            )));
        }
        Ok(Self { log, start, end })
    }

    /// Whether redo is sent encrypted, with its key.
    pub(super) fn is_encrypted(&self) -> bool {
        self.end.is_encrypted
    }

    /// Whether the server that had the directory did not shut down.
    pub(super) fn needs_recovery(&self) -> bool {
        self.end.lsn > self.log.checkpoint
    }

    pub(super) fn checkpoint(&self) -> u64 {
        self.log.checkpoint
    }

    /// Searches the records for names of tablespaces outside of the directory.
    ///
    /// # Errors
    /// A file cannot be read; or a server that recovers this log would look for keys of tablespaces
    /// in it.
    pub(super) fn search(&self, names: &mut OutsideNames) -> Result<()> {
        let mut has_keys = false;
        self.records(MAX_NAME, |records| {
            names.search(records);
            let mut places = records.windows(MAGIC.len()).enumerate();
            has_keys = has_keys
                || places.any(|(at, bytes)| {
                    bytes == MAGIC && redo::writes_to_page_0(&records[..at], LEN)
                });
        })?;
        if has_keys && self.is_recovered_as_written() {
            return Err(Error::Refused(
                "the redo log has keys of tablespaces, which cannot be read at the recipient: an \
                 encrypted tablespace was created, truncated or rebuilt, or a master key was rotated, \
                 after the last checkpoint. Start a server on the directory once, and shut it down"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Whether the recipient's server recovers the log as that of a server, and not as a clone's.
    fn is_recovered_as_written(&self) -> bool {
        self.needs_recovery() && !self.log.creator.starts_with(CREATOR)
    }

    /// Passes the records behind the checkpoint on, decrypted, in parts of which each begins with
    /// the last `overlap` bytes of the part before.
    fn records(&self, overlap: usize, mut each: impl FnMut(&[u8])) -> Result<()> {
        let mut blocks = vec![0; READ];
        let mut records = Zeroizing::new(Vec::with_capacity(READ + overlap));
        let mut lsn = self.start;
        while lsn <= self.end.last {
            let len = (READ as u64).min(self.end.last + BLOCK as u64 - lsn);
            let part = &mut blocks[..usize::try_from(len).unwrap_or(READ)];
            self.read_log(lsn, part)?;
            if let Some(key) = &self.log.key {
                let blocks = part.chunks_exact_mut(BLOCK);
                let encrypted = blocks.filter(|block| redo::has_encrypted_bit(block));
                encrypted.for_each(|block| key.decrypt_log_block(block));
            }
            let keep = records.len().min(overlap);
            let before = records.len() - keep;
            records.drain(..before);
            for block in part.chunks_exact(BLOCK) {
                let place = |at: u64| usize::try_from(at.saturating_sub(lsn)).unwrap_or(BLOCK);
                let from = place(self.log.checkpoint).max(BLOCK_HEADER);
                let to = place(self.end.lsn).min(BLOCK_END);
                records.extend_from_slice(block.get(from..to).unwrap_or_default());
                lsn += BLOCK as u64;
            }
            each(&records);
        }
        Ok(())
    }

    /// Bytes of redo that are sent.
    pub(super) fn len(&self) -> u64 {
        self.end.last + BLOCK as u64 - self.start
    }

    /// What a recipient gets in REDO_COPY.
    pub(super) fn layout(&self) -> RedoCopy {
        let size = self.log.file_size;
        let (index, offset) = self.place(self.end.last);
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
            RedoFile { size, data: from..to, encrypted: self.is_encrypted() }
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
        let (last_index, last_offset) = self.place(self.end.last);
        let end = if block.file == last_index { last_offset + BLOCK as u64 } else { size };
        let to = block.offset.checked_add(block.len.into()).filter(|to| *to <= end);
        if to.is_none() || block.file > last_index {
            return Err(Error::internal(format!("no such block of the redo log: {block:?}")));
        }
        let mut bytes = vec![0; block.len as usize];
        let mut filled = 0;
        if block.offset < HEADER {
            let header = Zeroizing::new(self.header(block.file));
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
        let before = self.end.last.saturating_sub(lsn).min(bytes.len() as u64);
        let (log, trailer) = bytes.split_at_mut(usize::try_from(before).unwrap_or(usize::MAX));
        self.log.read(lsn, log)?;
        let from = usize::try_from(lsn.saturating_sub(self.end.last)).unwrap_or(usize::MAX);
        let source = self.end.trailer.get(from..).and_then(|rest| rest.get(..trailer.len()));
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
        if self.is_recovered_as_written() {
            put(&mut header, at::CREATOR, &self.log.creator);
            let is_full = self.log.has_many_files() && index < self.place(self.end.last).0;
            put(&mut header, at::FLAGS, &(if is_full { FULL } else { 0 }).to_be_bytes());
        } else {
            put(&mut header, at::CREATOR, CREATOR);
        }
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
        if let Some(key) = self.log.key.as_ref().filter(|_| index == 0 && self.is_encrypted()) {
            header[at::KEY..at::KEY + LEN].copy_from_slice(key.clear_info());
        }
        header
    }
}

impl Log {
    fn has_many_files(&self) -> bool {
        redo::has_many_files(self.format)
    }

    /// What a block says. None if the log has no block at this LSN.
    fn parse(&self, block: &[u8], lsn: u64) -> Result<Option<LogBlock>> {
        let parsed = parse_log_block(self.key.as_ref(), block, lsn, self.has_many_files());
        if self.key.is_none() && parsed.is_some_and(|parsed| parsed.is_encrypted) {
            return Err(Error::Refused(
                "the redo log is encrypted (innodb_redo_log_encrypt=ON). Name the keyring file of \
                 the server"
                    .into(),
            ));
        }
        Ok(parsed)
    }

    /// Looks for the end, from the block at `start` on.
    fn find_end(&self, start: u64) -> Result<End> {
        let mut bytes = vec![0; READ];
        let mut found: Option<End> = None;
        let mut lsn = start;
        let log_end = self.segments.last().map_or(start, |segment| segment.end);
        'log: while lsn < log_end {
            let len = (READ as u64).min(log_end - lsn);
            let part = &mut bytes[..usize::try_from(len).unwrap_or(READ)];
            self.read(lsn, part)?;
            for block in part.chunks_exact(BLOCK) {
                let Some(parsed) = self.parse(block, lsn)? else { break 'log };
                let mut trailer = [0; BLOCK];
                trailer.copy_from_slice(block);
                let end = lsn + u64::from(parsed.data_len);
                let is_encrypted = parsed.is_encrypted || found.is_some_and(|end| end.is_encrypted);
                found = Some(End { last: lsn, trailer, lsn: end, is_encrypted });
                lsn += BLOCK as u64;
                if usize::from(parsed.data_len) < BLOCK {
                    break 'log;
                }
            }
        }
        match found {
            Some(found) => Ok(found),
            // A block that has no record yet need not have been written.
            None if self.checkpoint == start + BLOCK_HEADER as u64 => Ok(End {
                last: start,
                trailer: empty_block(start, self.has_many_files()),
                lsn: self.checkpoint,
                is_encrypted: false,
            }),
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

fn damaged(what: std::fmt::Arguments<'_>) -> Error {
    Error::Refused(format!("the redo log is damaged: {what}. Restore the directory from a backup"))
}
