// SPDX-License-Identifier: GPL-2.0-only

//! Which files there are to check.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::page_size::page_size;
use super::redo;
use crate::format::bytes::u32_at;
use crate::format::doublewrite::{self, TRX_SYS_PAGE};
use crate::format::layout::NUMBER;
use crate::format::page::MAX_PAGE;
use crate::format::space_header::SpaceHeader;

/// Directories whose files a server makes anew or that hold no data of a server.
const SKIPPED: [&str; 3] = ["#innodb_temp", ".clone_staging", "#innodb_redo"];

/// The files of one tablespace, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceFiles {
    /// More than one for a system tablespace of several files.
    pub paths: Vec<PathBuf>,
}

/// What is to be checked.
#[derive(Debug, Default)]
pub struct Plan {
    /// Tablespaces.
    pub spaces: Vec<SpaceFiles>,
    /// Files of the doublewrite buffer.
    pub doublewrite: Vec<PathBuf>,
    /// Redo logs, one for each data directory.
    pub redo: Vec<redo::Files>,
    /// What could not be read, and why.
    pub unreadable: Vec<(PathBuf, io::Error)>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Plan {
    /// Looks for files. A directory is searched with all directories below; links in it are not
    /// followed. A file is taken as what its name says, or as a tablespace.
    pub fn find(paths: &[PathBuf]) -> Self {
        let mut plan = Self::default();
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => {
                    plan.redo.extend(redo::find(path));
                    let mut system = Vec::new();
                    plan.directory(path, &mut system);
                    plan.system(system);
                }
                Ok(_) => plan.file(path),
                Err(error) => plan.unreadable.push((path.clone(), error)),
            }
        }
        plan
    }

    fn directory(&mut self, directory: &Path, system: &mut Vec<PathBuf>) {
        let mut entries: Vec<_> = match fs::read_dir(directory).and_then(Iterator::collect) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable.push((directory.to_owned(), error)),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(error) => {
                    self.unreadable.push((path, error));
                    continue;
                }
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.directory(&path, system);
                }
            } else if kind.is_symlink() {
                if is_tablespace(&name) || is_system(&name) {
                    let path = path.display();
                    self.notes.push(format!("{path} is a link: name its target to check it"));
                }
            } else if is_system(&name) {
                system.push(path);
            } else if doublewrite::is_file(&name) {
                self.doublewrite.push(path);
            } else if is_tablespace(&name) {
                self.spaces.push(SpaceFiles { paths: vec![path] });
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if doublewrite::is_file(&name) {
            self.doublewrite.push(path.to_owned());
        } else if is_system(&name) {
            self.system_of(path);
        } else if name.starts_with("#ib_redo") || name.starts_with("ib_logfile") {
            self.redo.push(redo::Files { paths: vec![path.to_owned()] });
        } else {
            self.spaces.push(SpaceFiles { paths: vec![path.to_owned()] });
        }
    }

    /// All files of the system tablespace that this one belongs to: pages of one lead to pages of
    /// another.
    fn system_of(&mut self, path: &Path) {
        if self.spaces.iter().any(|space| space.paths.iter().any(|known| known == path)) {
            return;
        }
        let directory = match path.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        };
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let others = entries
            .filter(|entry| is_system(&entry.file_name().to_string_lossy()))
            .filter(|entry| Some(entry.file_name().as_os_str()) != path.file_name())
            .map(|entry| path.with_file_name(entry.file_name()));
        let all: Vec<_> = others.chain([path.to_owned()]).collect();
        if all.len() > 1 {
            let path = path.display();
            self.notes.push(format!("{path}: all files of the system tablespace are checked"));
        }
        self.system(all);
    }

    /// Puts the files of the system tablespace in order, which their first pages tell.
    fn system(&mut self, files: Vec<PathBuf>) {
        let mut numbered = Vec::new();
        for path in files {
            match first_page(&path) {
                Ok(number) => numbered.push((number, path)),
                Err(error) => self.unreadable.push((path, error)),
            }
        }
        numbered.sort();
        if !numbered.is_empty() {
            let paths = numbered.into_iter().map(|(_, path)| path).collect();
            self.spaces.insert(0, SpaceFiles { paths });
        }
    }
}

fn first_page(path: &Path) -> io::Result<u32> {
    let mut page = [0; 64];
    let len = File::open(path)?.read_at(&mut page, 0)?;
    Ok(u32_at(&page[..len], NUMBER))
}

/// `ibdata1` and so on.
fn is_system(name: &str) -> bool {
    name.strip_prefix("ibdata").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_tablespace(name: &str) -> bool {
    let is_undo = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    Path::new(name).extension().is_some_and(|ext| ext == "ibd" || ext == "ibu")
        || name.strip_prefix("undo_").is_some_and(is_undo)
}

/// The beginning of a tablespace: 384 KiB, which are six pages at least, or less if the file is
/// shorter.
pub(crate) fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (TRX_SYS_PAGE as usize + 1) * MAX_PAGE];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Bytes of a page of the instance a tablespace belongs to.
pub(crate) fn logical_page(path: &Path) -> Option<u32> {
    let bytes = beginning(&File::open(path).ok()?).ok()?;
    let (page_size, _) = page_size(&bytes)?;
    (!SpaceHeader::parse(&bytes).is_temporary()).then_some(page_size.logical)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t", "#innodb_temp", "#innodb_redo", "mysql"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let files = [
            "ibdata1",
            "ibtmp1",
            "undo_001",
            "undo_1_trunc.log",
            "more.ibu",
            "mysql.ibd",
            "t/a.ibd",
            "#innodb_temp/temp_1.ibt",
            "#ib_16384_0.dblwr",
            "#ib_16384_0.bdblwr",
            "auto.cnf",
            "#innodb_redo/#ib_redo10",
            "#innodb_redo/#ib_redo9",
            "#innodb_redo/#ib_redo11_tmp",
            "mysql/general_log.CSV",
        ];
        for name in files {
            fs::write(dir.path().join(name), [0; 64]).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("t/b.ibd")).unwrap();
        let plan = Plan::find(&[dir.path().to_owned()]);
        let names: Vec<_> = plan
            .spaces
            .iter()
            .map(|space| space.paths[0].strip_prefix(dir.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["ibdata1", "more.ibu", "mysql.ibd", "t/a.ibd", "undo_001"]);
        assert_eq!(plan.doublewrite.len(), 1);
        assert_eq!(plan.redo.len(), 1);
        let redo: Vec<_> =
            plan.redo[0].paths.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(redo, ["#ib_redo9", "#ib_redo10"]);
        assert_eq!(plan.notes.len(), 1);
        fs::write(dir.path().join("ibdata2"), [9; 64]).unwrap();
        for first in ["ibdata1", "ibdata2"] {
            let paths = [first, "ibdata1"].map(|name| dir.path().join(name));
            let plan = Plan::find(&paths);
            let all = ["ibdata1", "ibdata2"].map(|name| dir.path().join(name)).to_vec();
            assert_eq!(plan.spaces, [SpaceFiles { paths: all }]);
        }
        assert_eq!(Plan::find(&["/nowhere".into()]).unreadable.len(), 1);
    }
}
