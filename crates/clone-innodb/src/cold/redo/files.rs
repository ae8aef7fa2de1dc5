// SPDX-License-Identifier: GPL-2.0-only

//! Finds the files of a redo log, and what they say of it.
//!
//! | Server | Files |
//! |---|---|
//! | since 8.0.30 | `#innodb_redo/#ib_redoN`, each with the log from the LSN in its header on; files that end with `_tmp` are spare |
//! | before | `ib_logfile0`, `ib_logfile1` and so on: a ring. A checkpoint says at which offset its LSN is |

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::super::files::{open as open_file, read_exact};
use super::{HEADER, Log, Segment, damaged};
use crate::encryption::{DataKey, Keyring};
use crate::error::{Error, FileOperation, Result};
use crate::format::encryption_info::{self, LEN};
use crate::format::redo::{
    BLOCK, Checkpoint, FORMAT_8_0_3, FORMAT_8_0_30, FileHeader, MAX_LSN, START_LSN,
};
use crate::geometry::REDO_HEADER;

/// The most files that a log has (`LOG_N_FILES`, `SRV_N_LOG_FILES_MAX` is 100), with room for
/// a change of the capacity.
const MAX_FILES: usize = 1000;

/// The largest file, in bytes. A log has 512 GiB at most.
const MAX_FILE: u64 = 512 << 30;
/// The smallest (`LOG_FILE_MIN_SIZE`).
const MIN_FILE: u64 = 64 << 10;

/// `LOG_HEADER_FLAG_NO_LOGGING`, `_CRASH_UNSAFE` and `_NOT_INITIALIZED` are these bits.
const UNSAFE_FLAGS: [(u32, &str); 3] = [
    (1, "redo logging was switched off (ALTER INSTANCE DISABLE INNODB REDO_LOG)"),
    (1 << 1, "redo logging had been switched off when the server ended"),
    (1 << 2, "the directory was not initialised completely"),
];

/// A file with its header.
struct Opened {
    file: File,
    path: PathBuf,
    size: u64,
    header: FileHeader,
    /// The encryption information in the header.
    info: Option<[u8; LEN]>,
    /// The number in its name.
    number: u32,
}

/// Opens the log in `directory`.
pub(super) fn open(directory: &Path, keyring: Option<&Keyring>) -> Result<Log> {
    let dynamic = list(&directory.join("#innodb_redo"), "#ib_redo")?;
    if !dynamic.is_empty() {
        return many(dynamic, keyring);
    }
    let ring = list(directory, "ib_logfile")?;
    if ring.is_empty() {
        return Err(Error::Refused(format!(
            "no redo log in {}: neither #innodb_redo/#ib_redoN nor ib_logfile0. Name its directory \
             if innodb_log_group_home_dir was set",
            directory.display()
        )));
    }
    ring_of(ring, keyring)
}

/// All files `<prefix><number>`, by number. A directory that does not exist has none.
fn list(directory: &Path, prefix: &str) -> Result<Vec<Opened>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::io(FileOperation::Open, directory, error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(FileOperation::Read, directory, error))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
        if found.len() == MAX_FILES {
            return Err(damaged(format_args!("it has more than {MAX_FILES} files")));
        }
        found.push(opened(entry.path(), number)?);
    }
    found.sort_by_key(|file| file.number);
    Ok(found)
}

fn opened(path: PathBuf, number: u32) -> Result<Opened> {
    let (file, facts) = open_file(&path)?;
    let size = facts.size;
    if !(MIN_FILE..=MAX_FILE).contains(&size) || size % BLOCK as u64 != 0 {
        return Err(damaged(format_args!("{} has {size} bytes", path.display())));
    }
    let mut header = vec![0; REDO_HEADER as usize];
    read_exact(&file, &path, &mut header, 0)?;
    let info = encryption_info::of_redo(&header).copied();
    Ok(Opened { file, path, size, header: FileHeader::parse(&header), info, number })
}

impl Opened {
    /// The LSN behind the last one of a file since 8.0.30, whose header is [checked](Self::check).
    fn end(&self) -> u64 {
        self.header.start + self.size - HEADER
    }

    /// Refuses a log that cannot be served.
    fn check(&self) -> Result<()> {
        let broken = || damaged(format_args!("the header of {} is broken", self.path.display()));
        let FileHeader { is_whole, format, start, flags, .. } = self.header;
        if !is_whole {
            return Err(broken());
        }
        if !(FORMAT_8_0_3..=FORMAT_8_0_30).contains(&format) {
            return Err(Error::Refused(format!(
                "the redo log has the format {format}, which no server of 8.0.3 to 9.7 writes. \
                 Start a server on the directory once, and shut it down"
            )));
        }
        if let Some((_, text)) = UNSAFE_FLAGS.iter().find(|(flag, _)| flags & flag != 0) {
            return Err(Error::Refused(format!("{text}, so the data need not be consistent")));
        }
        if start % BLOCK as u64 != 0 || !(START_LSN..MAX_LSN).contains(&start) {
            return Err(broken());
        }
        Ok(())
    }
}

/// The key of a log, from the file that has the checkpoint. None without a keyring, or if nothing
/// was ever encrypted.
fn key(file: &Opened, keyring: Option<&Keyring>) -> Result<Option<DataKey>> {
    let info = file.info.as_ref().zip(keyring);
    let key = info.map(|(info, keyring)| DataKey::of(info, keyring)).transpose();
    key.map_err(|why| Error::Refused(format!("{} is encrypted: {why}", file.path.display())))
}

/// The log of a server since 8.0.30.
fn many(files: Vec<Opened>, keyring: Option<&Keyring>) -> Result<Log> {
    let mut segments: Vec<Segment> = Vec::new();
    let (mut format, mut uuid, mut file_size, mut creator) = (0, 0, 0, [0; 32]);
    files.iter().try_for_each(Opened::check)?;
    let checkpoints = files.iter().filter_map(|file| file.header.checkpoint);
    let checkpoint = checkpoints.map(|found| found.lsn).max().unwrap_or_default();
    let has_checkpoint = |file: &&Opened| (file.header.start..file.end()).contains(&checkpoint);
    let key = files.iter().find(has_checkpoint).map(|file| key(file, keyring)).transpose()?;
    let key = key.flatten();
    for opened in files {
        let header = opened.header;
        let is_other = |one: &Segment| {
            one.end != header.start || header.format != format || header.uuid != uuid
        };
        if segments.last().is_some_and(is_other) {
            let name = opened.path.display();
            return Err(damaged(format_args!("{name} does not follow the file before")));
        }
        (format, uuid, creator) = (header.format, header.uuid, header.creator);
        if !header.has_many_files() {
            return Err(damaged(format_args!("{} has an old format", opened.path.display())));
        }
        file_size = opened.size.max(file_size);
        let (start, end) = (header.start, opened.end());
        let Opened { file, path, .. } = opened;
        segments.push(Segment { file, path, start, end, offset: HEADER });
    }
    // A checkpoint at the very end of a file belongs to the next one.
    let is_inside = segments.iter().any(|one| (one.start..one.end).contains(&checkpoint));
    if !is_inside {
        return Err(damaged(format_args!("its last checkpoint, at LSN {checkpoint}, is missing")));
    }
    Ok(Log { segments, format, uuid, creator, checkpoint, file_size, key })
}

/// The log of a server before 8.0.30.
fn ring_of(files: Vec<Opened>, keyring: Option<&Keyring>) -> Result<Log> {
    let complete = (0..).zip(&files).all(|(number, file): (u32, _)| file.number == number);
    let Some(first) = files.first().filter(|_| complete) else {
        return Err(damaged(format_args!("an ib_logfile is missing")));
    };
    first.check()?;
    let key = key(first, keyring)?;
    let (header, size) = (first.header, first.size);
    if header.has_many_files() || files.iter().any(|file| file.size != size) {
        return Err(damaged(format_args!("its files do not belong together")));
    }
    let capacity = size - HEADER;
    let total = size * files.len() as u64;
    let Checkpoint { lsn: checkpoint, offset } = header
        .checkpoint
        .filter(|found| found.offset < total && found.offset % size >= HEADER)
        .ok_or_else(|| damaged(format_args!("it has no checkpoint")))?;
    let within = checkpoint % BLOCK as u64;
    if (offset % size - HEADER) % BLOCK as u64 != within {
        return Err(damaged(format_args!("its checkpoint has the offset {offset}")));
    }
    // From the checkpoint's block once around the ring.
    let mut segments = Vec::new();
    let first_index = usize::try_from(offset / size).unwrap_or_default();
    let first_offset = offset % size - within;
    let mut start = checkpoint - within;
    for turn in 0..=files.len() {
        let index = (first_index + turn) % files.len();
        let from = if turn == 0 { first_offset } else { HEADER };
        let to = if turn == files.len() { first_offset } else { HEADER + capacity };
        let opened = &files[index];
        let copy = opened.file.try_clone();
        let file = copy.map_err(|error| Error::io(FileOperation::Open, &opened.path, error))?;
        let end = start + to - from;
        segments.push(Segment { file, path: opened.path.clone(), start, end, offset: from });
        start = end;
    }
    let FileHeader { format, creator, .. } = header;
    Ok(Log { segments, format, uuid: 0, creator, checkpoint, file_size: size, key })
}
