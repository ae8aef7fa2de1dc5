// SPDX-License-Identifier: GPL-2.0-only

//! Where tablespaces lie in a data directory, by their names.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::files::{open, read_exact};
use crate::error::{Error, FileOperation, Result};
use crate::format::bytes::u32_at;

/// The most files of a directory. A server has some ten thousand, seldom more than a million.
const MAX_FILES: usize = 4 << 20;
/// How deep directories are searched. Schemas are one deep.
const MAX_DEPTH: usize = 8;

/// What an undo tablespace that was truncated completely begins with (`undo::s_magic`).
const TRUNCATED: u32 = 76_845_412;

/// Searches directories.
pub(super) struct Walk<'a> {
    root: &'a Path,
    /// Paths, and names as a donor sends them.
    found: Vec<(PathBuf, Vec<u8>)>,
}

impl<'a> Walk<'a> {
    /// All files of tablespaces in `root`, and in `undo` (`innodb_undo_directory`): paths, and
    /// names as a donor sends them.
    ///
    /// # Errors
    /// A directory or a file cannot be read; a server has to finish a truncation; too many files.
    pub(super) fn tablespaces(
        root: &'a Path,
        undo: Option<&Path>,
    ) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut walk = Self { root, found: Vec::new() };
        walk.directory(root, 0)?;
        if let Some(undo) = undo.filter(|undo| *undo != root) {
            walk.undo_directory(undo)?;
        }
        Ok(walk.found)
    }

    fn directory(&mut self, directory: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            log::warn!("{} is too deep: it is not searched for tablespaces", directory.display());
            return Ok(());
        }
        for (path, name) in entries(directory)? {
            let bytes = name.as_bytes();
            // At the top, these are directories and files of InnoDB's own, or not of MySQL.
            if depth == 0 && matches!(bytes.first(), Some(b'#' | b'.')) {
                continue;
            }
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // A link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(FileOperation::Open, &path, error)),
            };
            if metadata.is_dir() && name != "lost+found" {
                self.directory(&path, depth + 1)?;
            } else if metadata.is_file()
                && (is_tablespace(bytes) || (depth == 0 && is_undo_file(bytes)))
            {
                refuse_truncation(&path)?;
                self.add(path)?;
            }
        }
        Ok(())
    }

    /// `innodb_undo_directory`.
    fn undo_directory(&mut self, directory: &Path) -> Result<()> {
        for (path, name) in entries(directory)? {
            if name.as_bytes().ends_with(b".ibu") || is_undo_file(name.as_bytes()) {
                refuse_truncation(&path)?;
                let name = name.as_bytes().to_vec();
                self.push(path, name)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let below = path.strip_prefix(self.root).unwrap_or(&path).as_os_str().as_bytes();
        let name = [b"./", below].concat();
        self.push(path, name)
    }

    fn push(&mut self, path: PathBuf, name: Vec<u8>) -> Result<()> {
        if is_truncation_log(&name) {
            return Ok(());
        }
        if self.found.len() == MAX_FILES {
            return Err(Error::Refused(format!("more than {MAX_FILES} tablespaces")));
        }
        self.found.push((path, name));
        Ok(())
    }
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, OsString)>> {
    let failed = |error| Error::io(FileOperation::Open, directory, error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    let names = entries.map(|entry| entry.map(|entry| (entry.path(), entry.file_name())));
    names.collect::<io::Result<_>>().map_err(failed)
}

/// `Fil_path::has_suffix`: a tablespace of any kind, where all may be.
fn is_tablespace(name: &[u8]) -> bool {
    name.ends_with(b".ibd") || name.ends_with(b".ibu")
}

/// What stands in an undo directory only: `undo_001`, and the log of a truncation.
fn is_undo_file(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"undo_").unwrap_or_default();
    let is_numbered = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    is_numbered || (name.starts_with(b"undo_") && is_truncation_log(name))
}

fn is_truncation_log(name: &[u8]) -> bool {
    name.ends_with(b"_trunc.log")
}

/// A server finishes the truncation of an undo tablespace when it starts, by this file.
fn refuse_truncation(path: &Path) -> Result<()> {
    if !is_truncation_log(path.as_os_str().as_bytes()) {
        return Ok(());
    }
    let (file, facts) = open(path)?;
    let mut start = [0; 4];
    if facts.size >= 4 {
        read_exact(&file, path, &mut start, 0)?;
    }
    if u32_at(&start, 0) == TRUNCATED {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{}: the server ended while an undo tablespace was truncated. Start a server on the \
         directory once, and shut it down",
        path.display()
    )))
}
