// SPDX-License-Identifier: GPL-2.0-only

//! Replaces the data of a running MySQL server at its next start.
//!
//! A clone is written into a directory of its own, the *staging directory*, while the server works
//! with its data. Then [`Replacement`] hands it over to InnoDB, which puts it in place at the next
//! start, before it opens any file. Nothing of the old data is gone until InnoDB has recovered the
//! clone.
//!
//! # InnoDB's lists
//!
//! They are files in `#clone` in the data directory, one path a line
//! (`storage/innobase/clone/clone0api.cc`):
//!
//! | File | What InnoDB does at a start | and after recovery | and when it rolls back |
//! |---|---|---|---|
//! | `#old_files` | renames `f` to `f.#clone_save` | removes `f.#clone_save` | renames it back |
//! | `#replace_files` | also renames `f.#clone` to `f` | the same | also removes `f.#clone` |
//! | `#new_files` | | | removes `f` |
//!
//! InnoDB rolls back if it finds the file `#status_error`, or if it cannot recover the clone: then
//! it makes this file and ends, so that the next start rolls back. `#status_fix` lets the server
//! create the schema directories and the tables of other engines that a clone has no files for.
//!
//! # Steps
//!
//! [`prepare`](Replacement::prepare) makes `#status_error` first, then the lists, and then renames
//! the files of the clone to `f.#clone`, or to `f` where the server has no such file.
//! [`commit`](Replacement::commit) removes `#status_error`. That is the point of no return: a
//! server that starts before has its old data, a server that starts afterwards has the clone.
//! [`roll_back`](Replacement::roll_back) undoes `prepare` in a server that goes on running.
//!
//! # Binary logs
//!
//! A server that starts with a clone must not have its old binary logs: they have other
//! transactions. So they are in `#old_files`. Their index is not, because mysqld opens the index
//! before InnoDB starts. `commit` empties the index, and keeps its content in
//! `#clone/#binary_log_index`, which is in `#old_files`: InnoDB removes this file if the clone
//! succeeds. If InnoDB rolls back, the file is still there, and [`restore_index`] brings the index
//! back.
//!
//! # Doublewrite buffer
//!
//! The files of the doublewrite buffer have pages of the old data. A clone has tablespaces with the
//! same numbers: the undo tablespaces, the system tablespace, the dictionary. If a server crashes
//! soon after it has started with a clone, InnoDB would take a page of the old data for the newer
//! version of a page that it finds empty, and damage the clone. (InnoDB's own clone over a server's
//! data leaves this to chance.) So the clone brings empty files, as InnoDB makes them.
//! [`empty_doublewrite_buffer`] does the same for a clone that InnoDB itself writes over the data.
//!
//! # Directories of schemas
//!
//! An old schema's directory must go, or `CREATE DATABASE` of its name fails (error 3678). InnoDB
//! may remove it after recovery, but must not rename it at the start: the tablespaces in it would
//! get other names and would be found as duplicates. InnoDB passes over a line of `#old_files` as
//! long as there is a file `f.#clone`. So two lines are written for a directory `d`: `d`, which
//! InnoDB passes over at the start, and `d.#clone`, an empty file, which InnoDB renames at the
//! start. After recovery InnoDB no longer passes over `d`, and removes it.

mod index;
mod plan;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Entry, RealDisk, being_written};
pub use index::{IndexState, restore_index};
use plan::{Plan, cloned};

/// Where InnoDB's lists are, below the data directory.
const LISTS: &str = "#clone";

const STATUS_ERROR: &str = "#status_error";
const STATUS_FIX: &str = "#status_fix";
const OLD_FILES: &str = "#old_files";
const REPLACE_FILES: &str = "#replace_files";
const NEW_FILES: &str = "#new_files";

/// Behind the name of a file of the clone that has a file of the server in its place.
const CLONED: &str = ".#clone";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {what} '{}': {source}", .path.display())]
    File {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Donor and recipient have different numbers of files for the system tablespace
    /// (`innodb_data_file_path`).
    #[error("innodb_data_file_path: recipient file count {recipient}, donor file count {donor}")]
    SystemFiles {
        /// Files of the recipient.
        recipient: usize,
        /// Files of the donor.
        donor: usize,
    },
    /// A file outside of the data directory has the path of a file of the clone, and is not the
    /// server's.
    #[error("'{}' exists and is not a file of this server", .0.display())]
    FileExists(PathBuf),
    /// InnoDB's lists cannot have a path with a line break.
    #[error("'{}' has a line break in its name", .0.display())]
    LineBreak(PathBuf),
}

/// What an operation gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A server, and the files of its data. All paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `datadir`.
    pub data_directory: PathBuf,
    /// `innodb_undo_directory`.
    pub undo_directory: PathBuf,
    /// `innodb_log_group_home_dir`.
    pub redo_directory: PathBuf,
    /// The files of the system tablespace, in the order of `innodb_data_file_path`.
    pub system_files: Vec<PathBuf>,
    /// `innodb_buffer_pool_filename`.
    pub buffer_pool_dump: PathBuf,
    /// The files of the doublewrite buffer.
    pub doublewrite_files: Vec<DoublewriteFile>,
    /// The files of all other tablespaces, and of the tables of other engines.
    pub files: Vec<PathBuf>,
    /// The directories of schemas that the clone does not bring along.
    pub schema_directories: Vec<PathBuf>,
    /// `log_bin_index`; none without binary log.
    pub binary_log_index: Option<PathBuf>,
}

/// A file of the doublewrite buffer (`innodb_doublewrite_dir`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoublewriteFile {
    /// Its path.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// A clone that is complete, in a directory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// The staging directory, an absolute path.
    pub directory: PathBuf,
    /// The names of the files of the system tablespace, in the donor's order.
    pub system_files: Vec<OsString>,
    /// The names of undo tablespaces.
    pub undo_files: Vec<OsString>,
    /// Files that do not belong below the data directory: the path in the staging directory, and
    /// the absolute path that they get.
    pub outside: Vec<(PathBuf, PathBuf)>,
}

/// The replacement of a server's data by a clone.
#[derive(Clone, Debug)]
pub struct Replacement {
    data_directory: PathBuf,
    binary_log_index: Option<PathBuf>,
    plan: Plan,
}

impl Replacement {
    /// Plans the replacement. Nothing is changed yet.
    ///
    /// DDL must be stopped from here on, so that the lists stay true.
    ///
    /// # Errors
    /// The clone does not fit this server; a directory cannot be read.
    pub fn plan(server: &Server, staged: &Staged) -> Result<Self> {
        Self::plan_on(&RealDisk, server, staged)
    }

    /// Moves the clone's files beside those of the server. A crash from here on makes the next
    /// start roll back.
    ///
    /// Files are renamed, or copied to another file system.
    ///
    /// # Errors
    /// A file operation failed. Then call [`roll_back`](Self::roll_back).
    pub fn prepare(&self) -> Result<()> {
        self.prepare_on(&RealDisk)
    }

    /// Makes the next start put the clone in place.
    ///
    /// # Errors
    /// A file operation failed. Then call [`roll_back`](Self::roll_back).
    pub fn commit(&self) -> Result<()> {
        self.commit_on(&RealDisk)
    }

    /// Undoes [`prepare`](Self::prepare) and a [`commit`](Self::commit) that failed.
    ///
    /// # Errors
    /// A file operation failed. The rest is undone by the next start.
    pub fn roll_back(&self) -> Result<()> {
        self.roll_back_on(&RealDisk)
    }

    /// To be called when the server shuts down after [`commit`](Self::commit) and has closed its
    /// binary log. Empties the index again if the server has begun another binary log meanwhile.
    ///
    /// # Errors
    /// A file operation failed.
    pub fn at_shutdown(&self) -> Result<()> {
        self.at_shutdown_on(&RealDisk)
    }

    fn plan_on(disk: &dyn Disk, server: &Server, staged: &Staged) -> Result<Self> {
        let plan = Plan::new(disk, server, staged)?;
        Ok(Self {
            data_directory: server.data_directory.clone(),
            binary_log_index: server.binary_log_index.clone(),
            plan,
        })
    }

    fn prepare_on(&self, disk: &dyn Disk) -> Result<()> {
        let lists = self.lists();
        if listed(disk, &lists)?.is_none() {
            done("create", &lists, disk.create_directory(&lists))?;
            self.sync(disk, &self.data_directory)?;
        }
        for name in [OLD_FILES, REPLACE_FILES, NEW_FILES] {
            remove_if_there(disk, &lists.join(name))?;
        }
        self.write(disk, STATUS_ERROR, b"")?;
        self.write(disk, NEW_FILES, &self.plan.new_list())?;
        self.write(disk, REPLACE_FILES, &self.plan.replace_list())?;
        self.write_old_list(disk)?;
        self.write(disk, STATUS_FIX, b"")?;
        for marker in self.plan.directory_markers() {
            done("write", &marker, disk.write(&marker, b""))?;
        }
        for directory in &self.plan.new_directories {
            done("create", directory, disk.create_directory(directory))?;
        }
        for file in &self.plan.doublewrite_files {
            let empty = cloned(&file.path);
            done("write", &empty, disk.write_zeros(&empty, file.size))?;
        }
        for step in &self.plan.moves {
            move_to(disk, &step.from, &step.to())?;
        }
        for directory in self.plan.changed_directories() {
            self.sync(disk, &directory)?;
        }
        Ok(())
    }

    fn commit_on(&self, disk: &dyn Disk) -> Result<()> {
        let lists = self.lists();
        if let Some(index) = &self.binary_log_index {
            // A binary log may have begun since the lists were written.
            self.write_old_list(disk)?;
            index::put_aside(disk, &lists, index)?;
        }
        let status = lists.join(STATUS_ERROR);
        done("remove", &status, disk.remove_file(&status))?;
        self.sync(disk, &lists)
    }

    fn roll_back_on(&self, disk: &dyn Disk) -> Result<()> {
        let lists = self.lists();
        if listed(disk, &lists)?.is_none() {
            return Ok(());
        }
        self.write(disk, STATUS_ERROR, b"")?;
        index::restore(disk, &lists)?;
        for file in &self.plan.doublewrite_files {
            remove_if_there(disk, &cloned(&file.path))?;
        }
        for step in &self.plan.moves {
            remove_all(disk, &cloned(&step.target))?;
            // A target that was there before the move is the server's.
            let was_moved = !done("read", &step.from, disk.exists(&step.from))?;
            if !step.replaces && was_moved {
                remove_all(disk, &step.target)?;
            }
        }
        for directory in self.plan.new_directories.iter().rev() {
            // The server may have put something there.
            let _ = disk.remove_directory(directory);
        }
        for marker in self.plan.directory_markers() {
            remove_if_there(disk, &marker)?;
        }
        for name in [STATUS_FIX, OLD_FILES, REPLACE_FILES, NEW_FILES, STATUS_ERROR] {
            let list = lists.join(name);
            remove_if_there(disk, &being_written(&list))?;
            remove_if_there(disk, &list)?;
        }
        self.sync(disk, &lists)
    }

    fn at_shutdown_on(&self, disk: &dyn Disk) -> Result<()> {
        let Some(index) = &self.binary_log_index else { return Ok(()) };
        let is_empty = index::lines(disk, index)?.is_empty();
        let lists = self.lists();
        // Without the list InnoDB has no clone to put in place any more.
        let list = lists.join(REPLACE_FILES);
        let is_pending = done("read", &list, disk.exists(&list))?;
        if is_empty || !is_pending {
            return Ok(());
        }
        self.write_old_list(disk)?;
        index::put_aside(disk, &lists, index)
    }

    /// The server's files, and the binary logs that it has now.
    fn write_old_list(&self, disk: &dyn Disk) -> Result<()> {
        let mut logs = Vec::new();
        if let Some(index) = &self.binary_log_index {
            let lists = self.lists();
            logs = index::all_logs(disk, &lists, index)?;
            logs.push(index::kept(&lists));
        }
        let list = self.plan.old_list(&logs)?;
        self.write(disk, OLD_FILES, &list)
    }

    fn lists(&self) -> PathBuf {
        self.data_directory.join(LISTS)
    }

    /// Writes one of the files in `#clone`.
    fn write(&self, disk: &dyn Disk, name: &str, content: &[u8]) -> Result<()> {
        replace_file(disk, &self.lists().join(name), content)
    }

    fn sync(&self, disk: &dyn Disk, directory: &Path) -> Result<()> {
        done("sync", directory, disk.sync_directory(directory))
    }
}

/// Adds empty files of the doublewrite buffer to a clone that InnoDB writes over a server's data.
/// To be called when all files have been written, before InnoDB ends the clone: until then
/// `#status_error` is there, and a crash makes the next start roll back.
///
/// # Errors
/// A file operation failed.
pub fn empty_doublewrite_buffer(data_directory: &Path, files: &[DoublewriteFile]) -> Result<()> {
    empty_doublewrite_buffer_on(&RealDisk, data_directory, files)
}

fn empty_doublewrite_buffer_on(
    disk: &dyn Disk,
    data_directory: &Path,
    files: &[DoublewriteFile],
) -> Result<()> {
    let list = data_directory.join(LISTS).join(REPLACE_FILES);
    let mut content = read(disk, &list)?.unwrap_or_default();
    for file in files {
        plan::add_line(&mut content, data_directory, &file.path);
    }
    replace_file(disk, &list, &content)?;
    for file in files {
        let empty = cloned(&file.path);
        done("write", &empty, disk.write_zeros(&empty, file.size))?;
    }
    Ok(())
}

/// Renames a file or a directory. If `to` is on another file system, copies it under a name that
/// InnoDB does not know, and renames the copy.
fn move_to(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    match disk.rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        renamed => return done("rename", from, renamed),
    }
    let is_marked = to.as_os_str().as_bytes().ends_with(CLONED.as_bytes());
    let copy = if is_marked { to.to_owned() } else { cloned(to) };
    copy_all(disk, from, &copy)?;
    // First of all, so that `roll_back` can tell by `from` whose file `to` is.
    remove_all(disk, from)?;
    if is_marked { Ok(()) } else { done("rename", &copy, disk.rename(&copy, to)) }
}

fn copy_all(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    let Some(entries) = listed(disk, from)? else {
        return done("copy to", to, disk.copy(from, to));
    };
    done("create", to, disk.create_directory(to))?;
    for entry in entries {
        copy_all(disk, &from.join(&entry.name), &to.join(&entry.name))?;
    }
    done("sync", to, disk.sync_directory(to))
}

/// What a directory holds; none if there is no directory of this name.
fn listed(disk: &dyn Disk, directory: &Path) -> Result<Option<Vec<Entry>>> {
    match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        listed => done("read", directory, listed),
    }
}

/// Writes a file so that nobody ever sees half of it. InnoDB would take the beginning of a path for
/// a path, and remove what has this name.
fn replace_file(disk: &dyn Disk, file: &Path, content: &[u8]) -> Result<()> {
    done("write", file, disk.replace(file, content))
}

fn read(disk: &dyn Disk, file: &Path) -> Result<Option<Vec<u8>>> {
    done("read", file, disk.read(file))
}

/// Removes a file, or a directory with all that is in it, if it is there.
fn remove_all(disk: &dyn Disk, path: &Path) -> Result<()> {
    let Some(entries) = listed(disk, path)? else { return remove_if_there(disk, path) };
    for entry in entries {
        let below = path.join(&entry.name);
        if entry.is_directory {
            remove_all(disk, &below)?;
        } else {
            remove_if_there(disk, &below)?;
        }
    }
    done("remove", path, disk.remove_directory(path))
}

fn remove_if_there(disk: &dyn Disk, file: &Path) -> Result<()> {
    match disk.remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => done("remove", file, removed),
    }
}

fn done<T>(what: &'static str, path: &Path, outcome: io::Result<T>) -> Result<T> {
    outcome.map_err(|source| Error::File { what, path: path.to_owned(), source })
}
