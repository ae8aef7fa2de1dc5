// SPDX-License-Identifier: GPL-2.0-only

//! The redo log: where it ends, and whether the server was shut down cleanly (`log0log.h`,
//! `log0constants.h`).
//!
//! From 8.0.30 on the log is in `#innodb_redo/#ib_redoN`, before in `ib_logfile0`, `ib_logfile1`
//! and so on, which are used in a circle. Each file begins with four blocks of 512 bytes; each
//! block ends with the CRC-32C of the bytes before.
//!
//! | Block | Offset | Bytes | Field                                              |
//! |-------|--------|-------|----------------------------------------------------|
//! | 0     | 0      | 4     | LOG_HEADER_FORMAT                                  |
//! | 0     | 8      | 8     | LOG_HEADER_START_LSN                               |
//! | 1, 3  | 8      | 8     | LOG_CHECKPOINT_LSN                                 |
//! | 1, 3  | 16     | 8     | LOG_CHECKPOINT_OFFSET, before 8.0.30               |
//! | data  | 0      | 4     | number; the highest bit marks the first of a write |
//! | data  | 4      | 2     | bytes in use; the highest bit: encrypted           |

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::bytes::{is_zero, u16_at, u32_at, u64_at};
use super::checksum::is_good_log_block;
use super::fault::{Fault, Kind};

const BLOCK: u64 = 512;
/// `LOG_FILE_HDR_SIZE`.
const HEADER: u64 = 2048;
/// `LOG_BLOCK_HDR_SIZE`.
const BLOCK_HEADER: u16 = 12;
/// `LOG_BLOCK_MAX_NO`.
const NUMBERS: u64 = 0x3fff_ffff;
/// Blocks that are read at once.
const AHEAD: u64 = 2048;
/// The newest `LOG_HEADER_FORMAT` with files in a circle; 6 came with 8.0.30.
const LAST_CIRCULAR: u32 = 5;

/// What is read, or the file that cannot be read.
pub type Result<T> = std::result::Result<T, (PathBuf, std::io::Error)>;

/// The files of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// In the order of their numbers.
    pub paths: Vec<PathBuf>,
}

/// What a log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Recovery begins here.
    pub checkpoint: u64,
    /// The last byte of the log. No page has a greater LSN.
    pub lsn: u64,
}

impl End {
    /// Whether the server was shut down cleanly: there is nothing to recover.
    pub fn is_clean(&self) -> bool {
        self.lsn == self.checkpoint
    }
}

/// A file with its header.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    format: u32,
    start: u64,
}

/// Reads a log. Tells faults, and returns the end if there is one.
///
/// # Errors
/// A file cannot be read.
pub fn read(files: &Files, fault: &mut impl FnMut(Fault)) -> Result<Option<End>> {
    let mut logs = Vec::new();
    let mut checkpoint: Option<(u64, u64)> = None;
    for path in &files.paths {
        let failed = |error| (path.clone(), error);
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER as usize];
        if len < HEADER {
            fault(Fault::of_file(path, Kind::RedoHeader, format!("the file has {len} bytes")));
            continue;
        }
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let parsed = parse_header(&header);
        if !parsed.is_good {
            let detail = "the checksum of the header is wrong";
            fault(Fault::of_file(path, Kind::RedoHeader, detail));
            continue;
        }
        if is_better(parsed.checkpoint, checkpoint) {
            checkpoint = parsed.checkpoint;
        }
        let (format, start) = (parsed.format, parsed.start);
        logs.push(LogFile { path: path.clone(), file, len, format, start });
    }
    let (Some(first), Some((checkpoint, offset))) = (logs.first(), checkpoint) else {
        if let Some(path) = files.paths.first() {
            fault(Fault::of_file(path, Kind::RedoHeader, "no file has a checkpoint"));
        }
        return Ok(None);
    };
    let is_circular = first.format <= LAST_CIRCULAR;
    let mut reader =
        Reader { logs: &logs, is_circular, checkpoint, offset, cache: Cache::default() };
    let lsn = reader.end(fault)?;
    Ok(Some(End { checkpoint, lsn }))
}

fn is_better(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> bool {
    one.is_some_and(|(lsn, _)| other.is_none_or(|(other, _)| lsn > other))
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether its checksum is right.
    pub is_good: bool,
    /// `LOG_HEADER_FORMAT`.
    pub format: u32,
    /// `LOG_HEADER_START_LSN`.
    pub start: u64,
    /// The newer of the two checkpoints: its LSN and its offset, if one is good.
    pub checkpoint: Option<(u64, u64)>,
}

/// Parses the first 2,048 bytes of a file.
pub fn parse_header(header: &[u8]) -> Header {
    let block = |number: usize| header.get(number * 512..number * 512 + 512).unwrap_or_default();
    let checkpoints = [block(1), block(3)].into_iter().filter(|block| is_good_log_block(block));
    let checkpoint = checkpoints
        .map(|block| (u64_at(block, 8), u64_at(block, 16)))
        .filter(|(lsn, _)| *lsn != 0)
        .max();
    Header {
        is_good: is_good_log_block(block(0)),
        format: u32_at(header, 0) & 0x7fff_ffff,
        start: u64_at(header, 8),
        checkpoint,
    }
}

#[derive(Debug, Default)]
struct Cache {
    log: usize,
    from: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Reader<'a> {
    logs: &'a [LogFile],
    is_circular: bool,
    checkpoint: u64,
    offset: u64,
    cache: Cache,
}

impl Reader<'_> {
    /// Follows the blocks from the checkpoint on.
    fn end(&mut self, fault: &mut impl FnMut(Fault)) -> Result<u64> {
        let mut lsn = self.checkpoint - self.checkpoint % BLOCK;
        let limit = self.logs.iter().map(|log| log.len).sum::<u64>();
        while lsn - self.checkpoint.min(lsn) <= limit {
            let Some((log, block)) = self.block(lsn)? else { break };
            let has_number = number(&block) == number_of(lsn);
            let in_use = u16_at(&block, 4) & 0x7fff;
            let is_good = has_number && is_whole(&block);
            if !is_good {
                // The log ends here if nothing of it follows.
                let goes_on = match self.block(lsn + BLOCK)? {
                    Some((_, next)) => number(&next) == number_of(lsn + BLOCK) && is_whole(&next),
                    None => false,
                };
                if goes_on {
                    let detail = format!("the block at LSN {lsn} is damaged");
                    fault(Fault::of_file(&self.logs[log].path, Kind::RedoBlock, detail));
                    lsn += BLOCK;
                    continue;
                }
                break;
            }
            if u64::from(in_use) < BLOCK {
                return Ok((lsn + u64::from(in_use.max(BLOCK_HEADER))).max(self.checkpoint));
            }
            lsn += BLOCK;
        }
        Ok(lsn.max(self.checkpoint))
    }

    /// The block at an LSN and the file that it is in.
    fn block(&mut self, lsn: u64) -> Result<Option<(usize, Vec<u8>)>> {
        let Some((log, offset)) = self.place(lsn) else { return Ok(None) };
        let file = &self.logs[log];
        let at = offset.wrapping_sub(self.cache.from);
        let is_cached = self.cache.log == log
            && offset >= self.cache.from
            && at + BLOCK <= self.cache.bytes.len() as u64;
        if !is_cached {
            let len = (file.len - offset).min(AHEAD * BLOCK);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
            let failed = |error| (file.path.clone(), error);
            file.file.read_exact_at(&mut bytes, offset).map_err(failed)?;
            self.cache = Cache { log, from: offset, bytes };
        }
        let at = usize::try_from(offset - self.cache.from).unwrap_or_default();
        Ok(self.cache.bytes.get(at..at + BLOCK as usize).map(|block| (log, block.to_vec())))
    }

    /// The file and the offset in it, in bytes.
    fn place(&self, lsn: u64) -> Option<(usize, u64)> {
        let (log, offset) = if self.is_circular {
            let len = self.logs.first()?.len;
            let data = len.checked_sub(HEADER).filter(|data| *data > 0)?;
            let (in_log, in_file) = (self.offset / len, self.offset % len);
            // The checkpoint's place among the bytes that are no headers.
            let begin = in_log.checked_mul(data)? + in_file.checked_sub(HEADER)?;
            let ahead = lsn as i128 - self.checkpoint as i128;
            let all = i128::from(data) * self.logs.len() as i128;
            let place = u64::try_from((i128::from(begin) + ahead).rem_euclid(all)).ok()?;
            (usize::try_from(place / data).ok()?, HEADER + place % data)
        } else {
            let in_file = |log: &LogFile| Some((log.len, HEADER + lsn.checked_sub(log.start)?));
            let log = self
                .logs
                .iter()
                .position(|log| in_file(log).is_some_and(|(len, offset)| offset + BLOCK <= len))?;
            (log, in_file(self.logs.get(log)?)?.1)
        };
        (offset + BLOCK <= self.logs.get(log)?.len).then_some((log, offset))
    }
}

fn number(block: &[u8]) -> u64 {
    u64::from(u32_at(block, 0) & 0x7fff_ffff)
}

fn number_of(lsn: u64) -> u64 {
    ((lsn / BLOCK) & NUMBERS) + 1
}

fn is_whole(block: &[u8]) -> bool {
    let in_use = u16_at(block, 4);
    let is_encrypted = in_use & 0x8000 != 0;
    let has_len = (BLOCK_HEADER..=512).contains(&(in_use & 0x7fff));
    // The checksum of an encrypted block is that of the block before.
    has_len && !is_zero(block) && (is_encrypted || is_good_log_block(block))
}

/// The files of a directory's log, in either form.
pub fn find(directory: &Path) -> Option<Files> {
    let named = |directory: &Path, prefix: &str| {
        let entries = std::fs::read_dir(directory).ok()?;
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let number = path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((number, path))
            })
            .collect();
        found.sort();
        let paths: Vec<_> = found.into_iter().map(|(_, path)| path).collect();
        (!paths.is_empty()).then_some(Files { paths })
    };
    named(&directory.join("#innodb_redo"), "#ib_redo")
        .or_else(|| named(directory, "#ib_redo"))
        .or_else(|| named(directory, "ib_logfile"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal(block: &mut [u8]) {
        let sum = clone_io::checksum(&block[..508]);
        block[508..512].copy_from_slice(&sum.to_be_bytes());
    }

    /// A log with so many full blocks behind its checkpoint, and one with 100 bytes.
    fn log(start: u64, full: u64) -> Vec<u8> {
        let mut log = vec![0; 64 << 10];
        log[3] = 6;
        log[8..16].copy_from_slice(&start.to_be_bytes());
        seal(&mut log[..512]);
        log[520..528].copy_from_slice(&(start + 100).to_be_bytes());
        seal(&mut log[512..1024]);
        for number in 0..=full {
            let block = &mut log[2048 + number as usize * 512..][..512];
            let sequence = number_of(start + number * 512) as u32;
            block[..4].copy_from_slice(&sequence.to_be_bytes());
            let in_use = if number < full { 512_u16 } else { 100 };
            block[4..6].copy_from_slice(&in_use.to_be_bytes());
            seal(block);
        }
        log
    }

    fn read_bytes(bytes: &[u8]) -> (Option<End>, Vec<Fault>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("#ib_redo0"), bytes).unwrap();
        let mut faults = Vec::new();
        let files = find(dir.path()).unwrap();
        (read(&files, &mut |fault| faults.push(fault)).unwrap(), faults)
    }

    #[test]
    fn the_end_is_found() {
        let (end, faults) = read_bytes(&log(8192, 5));
        let end = end.unwrap();
        assert_eq!((end.checkpoint, end.lsn, end.is_clean()), (8292, 8192 + 5 * 512 + 100, false));
        assert!(faults.is_empty());
        assert!(read_bytes(&log(8192, 0)).0.unwrap().is_clean());
    }

    #[test]
    fn damage_in_the_middle_is_found() {
        let mut bytes = log(8192, 5);
        bytes[2048 + 2 * 512 + 50] ^= 1;
        let (end, faults) = read_bytes(&bytes);
        assert_eq!(end.unwrap().lsn, 8192 + 5 * 512 + 100);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].kind, Kind::RedoBlock);
        bytes[20] ^= 1;
        let (end, faults) = read_bytes(&bytes);
        assert_eq!(end, None);
        assert_eq!(faults[0].kind, Kind::RedoHeader);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..4000), seals: bool) {
            let mut bytes = bytes;
            if seals {
                bytes.chunks_exact_mut(512).for_each(seal);
            }
            let _ = parse_header(&bytes);
            let _ = read_bytes(&bytes);
        }
    }
}
