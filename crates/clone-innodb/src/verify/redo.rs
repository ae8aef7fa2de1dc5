// SPDX-License-Identifier: GPL-2.0-only

//! The redo log: where it ends, whether the server was shut down cleanly, and which blocks of it
//! are damaged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Kind};
use crate::encryption::{DataKey, Keyring, parse_log_block};
use crate::format::encryption_info;
use crate::format::redo::{self, Checkpoint, FileHeader, LogBlock};
use crate::geometry::REDO_HEADER;

const BLOCK: u64 = redo::BLOCK as u64;
/// Bytes of a file before the log.
const HEADER: u64 = REDO_HEADER as u64;
/// Blocks that are read at once.
const AHEAD: u64 = 2048;

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

/// What was read of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// None if no file has a checkpoint.
    pub end: Option<End>,
    /// Blocks of which only the order was checked: they are encrypted, and their key is not there.
    pub opaque: u64,
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
    header: FileHeader,
    /// The key in the header, if the keyring has its master key.
    key: Option<DataKey>,
}

/// Reads a log, and tells faults.
///
/// # Errors
/// A file cannot be read.
pub fn read(
    files: &Files,
    keyring: Option<&Keyring>,
    fault: &mut impl FnMut(Fault),
) -> Result<Log> {
    let mut logs = Vec::new();
    let mut checkpoint = None;
    for path in &files.paths {
        let failed = |error| (path.clone(), error);
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut header = [0; REDO_HEADER as usize];
        if len < HEADER {
            fault(Fault::of_file(path, Kind::RedoHeader, format!("the file has {len} bytes")));
            continue;
        }
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let info = encryption_info::of_redo(&header).zip(keyring);
        let key = info.and_then(|(info, keyring)| DataKey::of(info, keyring).ok());
        let header = FileHeader::parse(&header);
        if !header.is_whole {
            let detail = "the checksum of the header is wrong";
            fault(Fault::of_file(path, Kind::RedoHeader, detail));
            continue;
        }
        checkpoint = checkpoint.max(header.checkpoint);
        logs.push(LogFile { path: path.clone(), file, len, header, key });
    }
    let (Some(first), Some(checkpoint)) = (logs.first(), checkpoint) else {
        if let Some(path) = files.paths.first() {
            fault(Fault::of_file(path, Kind::RedoHeader, "no file has a checkpoint"));
        }
        return Ok(Log::default());
    };
    let is_circular = !first.header.has_many_files();
    let has_checkpoint = |log: &&LogFile| {
        let end = (log.header.start + log.len).saturating_sub(HEADER);
        is_circular || (log.header.start..end).contains(&checkpoint.lsn)
    };
    let key = logs.iter().find(has_checkpoint).and_then(|log| log.key.as_ref());
    let cache = Cache::default();
    let mut reader = Reader { logs: &logs, is_circular, checkpoint, key, opaque: 0, cache };
    let lsn = reader.end(fault)?;
    Ok(Log { end: Some(End { checkpoint: checkpoint.lsn, lsn }), opaque: reader.opaque })
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
    checkpoint: Checkpoint,
    /// The key of encrypted blocks: that of the file with the checkpoint, of a ring the first one.
    key: Option<&'a DataKey>,
    /// See [`Log::opaque`].
    opaque: u64,
    cache: Cache,
}

impl Reader<'_> {
    /// Follows the blocks from the checkpoint on.
    fn end(&mut self, fault: &mut impl FnMut(Fault)) -> Result<u64> {
        let checkpoint = self.checkpoint.lsn;
        let mut lsn = checkpoint - checkpoint % BLOCK;
        let limit = self.logs.iter().map(|log| log.len).sum::<u64>();
        while lsn - checkpoint.min(lsn) <= limit {
            let Some((log, block)) = self.block(lsn)? else { break };
            let Some(parsed) = self.parse(&block, lsn) else {
                // The log ends here if nothing of it follows.
                let next = self.block(lsn + BLOCK)?;
                if next.is_none_or(|(_, next)| self.parse(&next, lsn + BLOCK).is_none()) {
                    break;
                }
                let detail = format!("the block at LSN {lsn} is damaged");
                fault(Fault::of_file(&self.logs[log].path, Kind::RedoBlock, detail));
                lsn += BLOCK;
                continue;
            };
            self.opaque += u64::from(parsed.is_encrypted && self.key.is_none());
            let data_len = u64::from(parsed.data_len);
            if data_len < BLOCK {
                return Ok((lsn + data_len).max(checkpoint));
            }
            lsn += BLOCK;
        }
        Ok(lsn.max(checkpoint))
    }

    /// The block, if it is the log's block at this LSN.
    fn parse(&self, block: &[u8], lsn: u64) -> Option<LogBlock> {
        parse_log_block(self.key, block, lsn, !self.is_circular)
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
            let (in_log, in_file) = (self.checkpoint.offset / len, self.checkpoint.offset % len);
            // The checkpoint's place among the bytes that are no headers.
            let begin = in_log.checked_mul(data)? + in_file.checked_sub(HEADER)?;
            let ahead = lsn as i128 - self.checkpoint.lsn as i128;
            let all = i128::from(data) * self.logs.len() as i128;
            let place = u64::try_from((i128::from(begin) + ahead).rem_euclid(all)).ok()?;
            (usize::try_from(place / data).ok()?, HEADER + place % data)
        } else {
            let in_file =
                |log: &LogFile| Some((log.len, HEADER + lsn.checked_sub(log.header.start)?));
            let log = self
                .logs
                .iter()
                .position(|log| in_file(log).is_some_and(|(len, offset)| offset + BLOCK <= len))?;
            (log, in_file(self.logs.get(log)?)?.1)
        };
        (offset + BLOCK <= self.logs.get(log)?.len).then_some((log, offset))
    }
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
    use crate::encryption::data_key::tests as data_key;
    use crate::format::redo::at;
    use crate::format::redo::seal;

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
            block.copy_from_slice(&redo::empty_block(start + number * 512, true));
            let in_use = if number < full { 512_u16 } else { 100 };
            block[4..6].copy_from_slice(&in_use.to_be_bytes());
            seal(block);
        }
        log
    }

    fn read_bytes(bytes: &[u8]) -> (Option<End>, Vec<Fault>) {
        let (log, faults) = read_with(bytes, None);
        (log.end, faults)
    }

    fn read_with(bytes: &[u8], keyring: Option<&Keyring>) -> (Log, Vec<Fault>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("#ib_redo0"), bytes).unwrap();
        let mut faults = Vec::new();
        let files = find(dir.path()).unwrap();
        (read(&files, keyring, &mut |fault| faults.push(fault)).unwrap(), faults)
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

    #[test]
    fn damage_in_an_encrypted_block_is_found_with_the_keyring() {
        let mut bytes = log(8192, 5);
        bytes[at::KEY..at::KEY + encryption_info::LEN].copy_from_slice(&data_key::info());
        bytes[2048..2048 + 6 * 512].chunks_exact_mut(512).for_each(data_key::encrypt_log_block);
        let keyring = data_key::keyring();
        let whole = read_with(&bytes, Some(&keyring));
        assert_eq!(whole, read_with(&log(8192, 5), None));
        let opaque = (Log { opaque: 6, ..whole.0 }, Vec::new());
        assert_eq!(read_with(&bytes, None), opaque);
        bytes[2048 + 2 * 512 + 50] ^= 1;
        assert_eq!(read_with(&bytes, None), opaque, "without the key it cannot be seen");
        let (end, faults) = read_with(&bytes, Some(&keyring));
        assert_eq!((end, faults.len()), (whole.0, 1));
        assert_eq!(faults[0].kind, Kind::RedoBlock);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..4000), seals: bool) {
            let mut bytes = bytes;
            if seals {
                bytes.chunks_exact_mut(512).for_each(seal);
            }
            let _ = read_bytes(&bytes);
        }
    }
}
