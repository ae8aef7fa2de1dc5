// SPDX-License-Identifier: GPL-2.0-only

//! Which file goes where, and what the lists say.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{CLONED, DoublewriteFile, Error, LISTS, Result, STATUS_FIX, Server, Staged, listed};
use crate::disk::Disk;

/// The directory of the redo log since 8.0.30.
const REDO_DIRECTORY: &str = "#innodb_redo";

/// The redo files before 8.0.30 begin with this.
const REDO_FILE: &[u8] = b"ib_logfile";

/// How a donor calls the dump of its buffer pool.
const BUFFER_POOL_DUMP: &str = "ib_buffer_pool";

/// Files and directories to move, and to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) moves: Vec<Move>,
    /// Directories outside of the data directory that the clone needs, the outer ones first.
    pub(super) new_directories: Vec<PathBuf>,
    /// The files of the doublewrite buffer, which empty ones replace.
    pub(super) doublewrite_files: Vec<DoublewriteFile>,
    /// The server's files that go, and that the clone does not replace.
    old: Vec<PathBuf>,
    /// Directories of schemas that will be empty, and that the clone does not have.
    old_directories: Vec<PathBuf>,
    /// The data directory. Paths below it are relative in the lists.
    root: PathBuf,
}

/// A file of the clone, or a directory that the server does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where the server looks for it.
    pub(super) target: PathBuf,
    /// The server has a file or directory of its own there.
    pub(super) replaces: bool,
    /// If `from` is a directory: what is in it, the content of a directory before the directory.
    content: Vec<PathBuf>,
}

impl Move {
    /// Where it goes until the next start.
    pub(super) fn to(&self) -> PathBuf {
        if self.replaces { cloned(&self.target) } else { self.target.clone() }
    }
}

/// `f.#clone` for a path `f`.
pub(super) fn cloned(path: &Path) -> PathBuf {
    let mut cloned = path.as_os_str().to_owned();
    cloned.push(CLONED);
    PathBuf::from(cloned)
}

impl Plan {
    pub(super) fn new(disk: &dyn Disk, server: &Server, staged: &Staged) -> Result<Self> {
        let (recipient, donor) = (server.system_files.len(), staged.system_files.len());
        if recipient != donor {
            return Err(Error::SystemFiles { recipient, donor });
        }
        let mut planner = Planner {
            server,
            staged,
            names: Names { disk, directories: HashMap::new() },
            plan: Self {
                root: server.data_directory.clone(),
                doublewrite_files: server.doublewrite_files.clone(),
                ..Self::default()
            },
        };
        planner.outside_files()?;
        planner.staging_directory()?;
        planner.old_files()?;
        planner.plan.refuse_line_breaks()?;
        Ok(planner.plan)
    }

    fn refuse_line_breaks(&self) -> Result<()> {
        let targets = self.moves.iter().map(|step| &step.target);
        let mut all = targets.chain(&self.old).chain(&self.old_directories);
        match all.find(|path| path.as_os_str().as_bytes().contains(&b'\n')) {
            Some(path) => Err(Error::LineBreak(path.clone())),
            None => Ok(()),
        }
    }

    /// The empty files `d.#clone`, one for each directory `d` that InnoDB removes.
    pub(super) fn directory_markers(&self) -> impl Iterator<Item = PathBuf> {
        self.old_directories.iter().map(|directory| cloned(directory))
    }

    /// The content of `#new_files`. InnoDB before 8.0.30 removes a directory only if it is empty,
    /// so what is in a directory comes first.
    pub(super) fn new_list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for step in self.moves.iter().filter(|step| !step.replaces) {
            for below in &step.content {
                self.line(&mut list, &step.target.join(below));
            }
            self.line(&mut list, &step.target);
            self.line(&mut list, &cloned(&step.target));
        }
        for directory in self.new_directories.iter().rev() {
            self.line(&mut list, directory);
        }
        for marker in self.directory_markers() {
            self.line(&mut list, &marker);
        }
        // If this file stayed, the server would empty tables of the old data.
        self.line(&mut list, &self.root.join(LISTS).join(STATUS_FIX));
        list
    }

    /// The content of `#replace_files`.
    pub(super) fn replace_list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for file in &self.doublewrite_files {
            self.line(&mut list, &file.path);
        }
        for step in self.moves.iter().filter(|step| step.replaces) {
            self.line(&mut list, &step.target);
        }
        list
    }

    /// The content of `#old_files`, with the binary logs `logs`, whose paths are as in their index.
    pub(super) fn old_list(&self, logs: &[PathBuf]) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        for file in &self.old {
            self.line(&mut list, file);
        }
        for log in logs {
            if log.as_os_str().as_bytes().contains(&b'\n') {
                return Err(Error::LineBreak(log.clone()));
            }
            self.line(&mut list, &self.root.join(log));
        }
        for directory in &self.old_directories {
            self.line(&mut list, directory);
            self.line(&mut list, &cloned(directory));
        }
        Ok(list)
    }

    /// The directories in which names change.
    pub(super) fn changed_directories(&self) -> BTreeSet<PathBuf> {
        let doublewrite_files = self.doublewrite_files.iter().map(|file| &file.path);
        let targets = self.moves.iter().map(|step| &step.target);
        let targets = targets.chain(&self.new_directories).chain(doublewrite_files);
        let mut all: BTreeSet<_> =
            targets.filter_map(|target| target.parent()).map(Path::to_owned).collect();
        all.insert(self.root.clone());
        all
    }

    fn line(&self, list: &mut Vec<u8>, path: &Path) {
        add_line(list, &self.root, path);
    }
}

/// Adds a path to one of InnoDB's lists. `root` is the data directory.
pub(super) fn add_line(list: &mut Vec<u8>, root: &Path, path: &Path) {
    if let Ok(below) = path.strip_prefix(root) {
        list.extend(b"./");
        list.extend(below.as_os_str().as_bytes());
    } else {
        list.extend(path.as_os_str().as_bytes());
    }
    list.push(b'\n');
}

/// Makes a plan.
struct Planner<'a> {
    server: &'a Server,
    staged: &'a Staged,
    names: Names<'a>,
    plan: Plan,
}

impl Planner<'_> {
    /// The files that do not belong below the data directory.
    fn outside_files(&mut self) -> Result<()> {
        for (from, target) in &self.staged.outside {
            let from = self.staged.directory.join(from);
            // DDL may have dropped the file during the clone.
            if !self.names.has(&from)? {
                continue;
            }
            let ancestors: Vec<&Path> = target.ancestors().skip(1).collect();
            for directory in ancestors.into_iter().rev() {
                let is_planned = self.plan.new_directories.iter().any(|new| new == directory);
                if !is_planned && self.names.of(directory)?.is_none() {
                    self.plan.new_directories.push(directory.to_owned());
                }
            }
            // Somebody else's file, for example the donor's on the same machine.
            if !self.server.files.contains(target) && self.names.has(target)? {
                return Err(Error::FileExists(target.clone()));
            }
            self.file(from, target.clone())?;
        }
        Ok(())
    }

    fn staging_directory(&mut self) -> Result<()> {
        let (server, staged) = (self.server, self.staged);
        let is_outside =
            |name: &OsStr| staged.outside.iter().any(|(path, _)| path.starts_with(name));
        let mut has_redo_directory = false;
        for entry in listed(self.names.disk, &staged.directory)?.unwrap_or_default() {
            let from = staged.directory.join(&entry.name);
            let name = entry.name.as_os_str();
            if name == REDO_DIRECTORY {
                has_redo_directory = true;
            } else if entry.is_directory {
                if name != LISTS && !is_outside(name) {
                    self.directory(from, server.data_directory.join(name))?;
                }
            } else {
                self.file(from, self.bare(name))?;
            }
        }
        if has_redo_directory {
            // The last line: InnoDB takes its state for that of all files.
            let from = staged.directory.join(REDO_DIRECTORY);
            self.file(from, server.redo_directory.join(REDO_DIRECTORY))?;
        }
        Ok(())
    }

    /// Where a file without directory belongs.
    fn bare(&self, name: &OsStr) -> PathBuf {
        let (server, staged) = (self.server, self.staged);
        let system = staged.system_files.iter().zip(&server.system_files);
        if let Some((_, file)) = system.into_iter().find(|(donors, _)| *donors == name) {
            file.clone()
        } else if staged.undo_files.iter().any(|undo| undo == name) {
            server.undo_directory.join(name)
        } else if name.as_bytes().starts_with(REDO_FILE) {
            server.redo_directory.join(name)
        } else if name == BUFFER_POOL_DUMP {
            server.buffer_pool_dump.clone()
        } else {
            server.data_directory.join(name)
        }
    }

    /// The directory of a schema, or of general tablespaces. It is moved as a whole if the server
    /// has none of this name.
    fn directory(&mut self, from: PathBuf, target: PathBuf) -> Result<()> {
        if !self.names.has(&target)? {
            let mut content = Vec::new();
            self.content(&from, Path::new(""), &mut content)?;
            self.plan.moves.push(Move { from, target, replaces: false, content });
            return Ok(());
        }
        for entry in listed(self.names.disk, &from)?.unwrap_or_default() {
            let (from, target) = (from.join(&entry.name), target.join(&entry.name));
            if entry.is_directory {
                self.directory(from, target)?;
            } else {
                self.file(from, target)?;
            }
        }
        Ok(())
    }

    fn content(&self, directory: &Path, below: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
        for entry in listed(self.names.disk, &directory.join(below))?.unwrap_or_default() {
            let path = below.join(&entry.name);
            if entry.is_directory {
                self.content(directory, &path, all)?;
            }
            all.push(path);
        }
        Ok(())
    }

    /// A file, or the redo log's directory, which is replaced as a whole.
    fn file(&mut self, from: PathBuf, target: PathBuf) -> Result<()> {
        let replaces = self.names.has(&target)?;
        self.plan.moves.push(Move { from, target, replaces, content: Vec::new() });
        Ok(())
    }

    fn old_files(&mut self) -> Result<()> {
        let (server, staged) = (self.server, self.staged);
        let replaced: HashSet<&Path> =
            self.plan.moves.iter().map(|step| step.target.as_path()).collect();
        let goes = |path: &&PathBuf| !replaced.contains(path.as_path());
        let old: BTreeSet<PathBuf> = server.files.iter().filter(goes).cloned().collect();
        for directory in &server.schema_directories {
            let name = directory.file_name().unwrap_or_default();
            let Some(entries) = self.names.of(directory)? else { continue };
            let is_emptied = entries.iter().all(|entry| old.contains(&directory.join(entry)));
            if is_emptied && !self.names.has(&staged.directory.join(name))? {
                self.plan.old_directories.push(directory.clone());
            }
        }
        self.plan.old = old.into_iter().collect();
        Ok(())
    }
}

/// The names in directories. Each directory is read once.
struct Names<'a> {
    disk: &'a dyn Disk,
    directories: HashMap<PathBuf, Option<HashSet<OsString>>>,
}

impl Names<'_> {
    /// The names in a directory; none without the directory.
    fn of(&mut self, directory: &Path) -> Result<Option<&HashSet<OsString>>> {
        if !self.directories.contains_key(directory) {
            let entries = listed(self.disk, directory)?;
            let names = entries.map(|all| all.into_iter().map(|entry| entry.name).collect());
            self.directories.insert(directory.to_owned(), names);
        }
        Ok(self.directories.get(directory).and_then(Option::as_ref))
    }

    fn has(&mut self, path: &Path) -> Result<bool> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(true);
        };
        Ok(self.of(parent)?.is_some_and(|names| names.contains(name)))
    }
}
