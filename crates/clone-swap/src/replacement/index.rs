// SPDX-License-Identifier: GPL-2.0-only

//! The index of the binary logs: emptied for the clone, and brought back if the clone is rolled
//! back.
//!
//! `#clone/#binary_log_index` has the path of the index in its first line, and the index's content
//! behind it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{LISTS, Result, read, remove_if_there, replace_file};
use crate::disk::{Disk, RealDisk};

/// Where the index's content is kept, in the directory of the lists.
const KEPT: &str = "#binary_log_index";

/// What [`restore_index`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// Nothing to restore.
    AsItWas,
    /// The index has its content back. mysqld has opened the empty index, so it must start again
    /// before it writes a binary log.
    Restored,
    /// The server has begun a new binary log since. The old index is in this file.
    InUse(PathBuf),
}

/// Brings the index of the binary logs back if InnoDB has rolled a clone back.
///
/// Call this when InnoDB has started, and before mysqld opens a binary log.
///
/// # Errors
/// A file operation failed.
pub fn restore_index(data_directory: &Path) -> Result<IndexState> {
    let lists = data_directory.join(LISTS);
    restore_on(&RealDisk, &lists)
}

pub(super) fn restore_on(disk: &dyn Disk, lists: &Path) -> Result<IndexState> {
    let Some((index, content)) = parse(disk, lists)? else { return Ok(IndexState::AsItWas) };
    let now = lines(disk, &index)?;
    let has_all = split(&content).iter().all(|line| now.contains(line));
    if !now.is_empty() && !has_all {
        return Ok(IndexState::InUse(kept(lists)));
    }
    restore(disk, lists)?;
    Ok(if has_all { IndexState::AsItWas } else { IndexState::Restored })
}

/// The file with the index's content.
pub(super) fn kept(lists: &Path) -> PathBuf {
    lists.join(KEPT)
}

/// Keeps the index's content, and replaces the index by an empty one. mysqld goes on with the old
/// index, which it has open.
pub(super) fn put_aside(disk: &dyn Disk, lists: &Path, index: &Path) -> Result<()> {
    let mut content = [index.as_os_str().as_bytes(), b"\n"].concat();
    for log in all_lines(disk, lists, index)? {
        content.extend([&log[..], b"\n"].concat());
    }
    replace_file(disk, &kept(lists), &content)?;
    replace_file(disk, index, b"")
}

/// Brings the index back, if it was put aside.
pub(super) fn restore(disk: &dyn Disk, lists: &Path) -> Result<()> {
    if let Some((index, content)) = parse(disk, lists)? {
        let mut content = content;
        for log in lines(disk, &index)? {
            let line = [&log[..], b"\n"].concat();
            if !content.split_inclusive(|byte| *byte == b'\n').any(|old| old == line) {
                content.extend(line);
            }
        }
        replace_file(disk, &index, &content)?;
    }
    remove_if_there(disk, &kept(lists))
}

/// The binary logs, those of an index that was put aside included.
pub(super) fn all_logs(disk: &dyn Disk, lists: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let lines = all_lines(disk, lists, index)?;
    Ok(lines.iter().map(|line| PathBuf::from(OsStr::from_bytes(line))).collect())
}

fn all_lines(disk: &dyn Disk, lists: &Path, index: &Path) -> Result<Vec<Vec<u8>>> {
    let mut all = parse(disk, lists)?.map(|(_, content)| split(&content)).unwrap_or_default();
    for line in lines(disk, index)? {
        if !all.contains(&line) {
            all.push(line);
        }
    }
    Ok(all)
}

/// The lines of an index.
pub(super) fn lines(disk: &dyn Disk, index: &Path) -> Result<Vec<Vec<u8>>> {
    Ok(split(&read(disk, index)?.unwrap_or_default()))
}

fn split(content: &[u8]) -> Vec<Vec<u8>> {
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(<[u8]>::to_vec).collect()
}

/// The path of the index and its content; none without the file.
fn parse(disk: &dyn Disk, lists: &Path) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let kept = read(disk, &kept(lists))?.unwrap_or_default();
    let mut parts = kept.splitn(2, |byte| *byte == b'\n');
    let (Some(path), Some(content)) = (parts.next(), parts.next()) else { return Ok(None) };
    Ok(Some((PathBuf::from(OsStr::from_bytes(path)), content.to_vec())))
}
