// SPDX-License-Identifier: GPL-2.0-only

//! Option files, as MySQL's clients read them.
//!
//! | File | Read |
//! |---|---|
//! | `/etc/my.cnf`, `/etc/mysql/my.cnf` | if they exist |
//! | `--defaults-extra-file` | after these; must exist |
//! | `~/.my.cnf` | if it exists |
//! | `--defaults-file` | instead of all above; must exist |
//! | `~/.mylogin.cnf` | last, also with `--no-defaults`: see [`login_path`] |
//!
//! The groups `[client]` and `[mysql-clone]` are read. A later line wins over an earlier one, which
//! is up to the caller: [`Found::entries`] has all, in order.

mod parse;

use std::env;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::login_path;
use parse::Line;

/// The longest option file that is read, bytes.
const MAX_FILE: u64 = 1 << 20;

/// How deep files may include files.
const MAX_DEPTH: usize = 10;

/// How many files are read at most.
const MAX_FILES: usize = 1000;

/// Permission bit: everybody may write.
const WORLD_WRITABLE: u32 = 0o002;

/// The group that all clients read.
const CLIENT: &str = "client";
/// The group of this program.
const OWN: &str = "mysql-clone";

/// What the command line says about option files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// `--defaults-file`.
    pub defaults_file: Option<PathBuf>,
    /// `--defaults-extra-file`.
    pub defaults_extra_file: Option<PathBuf>,
    /// `--no-defaults`.
    pub no_defaults: bool,
    /// `--login-path`: a group of the login file, besides the two of all files.
    pub login_path: Option<String>,
    /// `--no-login-paths`: the login file is not read.
    pub no_login_paths: bool,
}

/// An option of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, with `-` for each `_`, without `loose-`.
    pub name: String,
    /// What follows `=`; none without `=`. Wiped when dropped: it may be a password.
    pub value: Option<Zeroizing<String>>,
    /// Where the option stands.
    pub file: PathBuf,
    /// Line of [`file`](Self::file), from 1 on.
    pub line: usize,
}

/// Without the value.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("file", &self.file)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub struct Found {
    /// The options, in the order in which they take effect.
    pub entries: Vec<Entry>,
    /// What the user should know. For standard error.
    pub warnings: Vec<String>,
    /// Files that were opened.
    files: usize,
}

/// An option file that cannot be used. The texts name the file.
#[derive(Debug, Error)]
pub enum OptionFileError {
    /// A file that must exist does not, or cannot be read.
    #[error("Could not open required defaults file: {path}: {error}")]
    Required {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is none.
    #[error("{what} in config file {path} at line {line}")]
    Line {
        /// What is wrong.
        what: String,
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
    },
    /// The login file is damaged.
    #[error("{path}: {what}")]
    LoginFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

impl Sources {
    /// Reads all files. `known` tells whether the program has an option, by its name with `-`.
    ///
    /// An option that the program does not have is ignored in the group `[client]` and in the login
    /// file, and with the prefix `loose-`. In `[mysql-clone]` it is an error.
    ///
    /// # Errors
    /// See [`OptionFileError`].
    pub fn read(&self, known: &dyn Fn(&str) -> bool) -> Result<Found, OptionFileError> {
        let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        // MySQL's own tests name another file in this way.
        let login = env::var_os("MYSQL_TEST_LOGIN_FILE").map(PathBuf::from);
        let login = login.or_else(|| Some(home.as_ref()?.join(".mylogin.cnf")));
        self.read_from(Path::new("/"), home.as_deref(), login.as_deref(), known)
    }

    fn read_from(
        &self,
        root: &Path,
        home: Option<&Path>,
        login: Option<&Path>,
        known: &dyn Fn(&str) -> bool,
    ) -> Result<Found, OptionFileError> {
        let mut reader = Reader { found: Found::default(), known };
        if let Some(path) = self.defaults_file.as_deref().filter(|_| !self.no_defaults) {
            reader.required(path)?;
        } else if !self.no_defaults {
            for path in ["etc/my.cnf", "etc/mysql/my.cnf"] {
                reader.file(&root.join(path), 0)?;
            }
            if let Some(path) = &self.defaults_extra_file {
                reader.required(path)?;
            }
            if let Some(home) = home {
                reader.file(&home.join(".my.cnf"), 0)?;
            }
        }
        if let Some(path) = login.filter(|_| !self.no_login_paths) {
            reader.login_file(path, self.login_path.as_deref())?;
        }
        Ok(reader.found)
    }
}

struct Reader<'a> {
    found: Found,
    known: &'a dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    fn required(&mut self, path: &Path) -> Result<(), OptionFileError> {
        let required = |error| OptionFileError::Required { path: path.into(), error };
        fs::File::open(path).map_err(required)?;
        self.file(path, 0)
    }

    /// Reads a file, if it exists.
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), OptionFileError> {
        let failed = |error| OptionFileError::Read { path: path.into(), error };
        self.found.files += 1;
        if self.found.files > MAX_FILES {
            return Err(failed(std::io::Error::other("there are too many option files")));
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // As MySQL's clients do: a file of another user is none of ours.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
            {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        if metadata.is_file() && metadata.mode() & WORLD_WRITABLE != 0 {
            let text = format!("World-writable config file '{}' is ignored.", path.display());
            self.found.warnings.push(text);
            return Ok(());
        }
        let bytes = read_file(path).map_err(failed)?;
        self.text(&bytes, path, depth, &[CLIENT, OWN])
    }

    fn text(
        &mut self,
        bytes: &[u8],
        path: &Path,
        depth: usize,
        groups: &[&str],
    ) -> Result<(), OptionFileError> {
        let mut group = String::new();
        for (number, line) in (1..).zip(parse::lines(bytes)) {
            let wrong = |what| OptionFileError::Line { what, path: path.into(), line: number };
            match line.map_err(|what| wrong(what.into()))? {
                Line::Nothing => {}
                Line::Group(name) => group = name,
                Line::Include(other) => self.include(&other, path, depth, false)?,
                Line::IncludeDirectory(other) => self.include(&other, path, depth, true)?,
                Line::Option { .. } if group.is_empty() => {
                    return Err(wrong("Found option without preceding group".into()));
                }
                Line::Option { name, value } if groups.contains(&&*group) => {
                    let (name, is_loose) = match name.strip_prefix("loose-") {
                        Some(name) => (name.to_owned(), true),
                        None => (name, false),
                    };
                    if (self.known)(&name) {
                        let file = path.into();
                        self.found.entries.push(Entry { name, value, file, line: number });
                    } else if group == OWN && is_loose {
                        let file = path.display();
                        let text = format!("unknown option '--loose-{name}' of {file} is ignored.");
                        self.found.warnings.push(text);
                    } else if group == OWN {
                        return Err(wrong(format!("unknown option '--{name}'")));
                    }
                }
                Line::Option { .. } => {}
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        included: &Path,
        by: &Path,
        depth: usize,
        is_directory: bool,
    ) -> Result<(), OptionFileError> {
        if depth + 1 > MAX_DEPTH {
            let (included, by) = (included.display(), by.display());
            let text = format!(
                "skipping '{included}', which {by} includes: files include files more than \
                 {MAX_DEPTH} times"
            );
            self.found.warnings.push(text);
            return Ok(());
        }
        if !is_directory {
            return self.file(included, depth + 1);
        }
        let failed = |error| OptionFileError::Read { path: included.into(), error };
        let mut files = Vec::new();
        for entry in fs::read_dir(included).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "cnf") {
                files.push(path);
            }
        }
        files.sort();
        files.iter().try_for_each(|path| self.file(path, depth + 1))
    }

    fn login_file(&mut self, path: &Path, name: Option<&str>) -> Result<(), OptionFileError> {
        let failed = |error| OptionFileError::Read { path: path.into(), error };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
            let path = path.display();
            let text = format!("{path} should be readable/writable only by current user. Ignored.");
            self.found.warnings.push(text);
            return Ok(());
        }
        let text = login_path::decrypt(&read_file(path).map_err(failed)?)
            .map_err(|what| OptionFileError::LoginFile { path: path.into(), what })?;
        let mut groups = vec![CLIENT, OWN];
        groups.extend(name);
        // MAX_DEPTH: what is in a login file includes nothing.
        self.text(&text, path, MAX_DEPTH, &groups)
    }
}

/// The bytes of a file. Wiped when dropped.
fn read_file(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = fs::File::open(path)?;
    let len = file.metadata()?.len().min(MAX_FILE);
    // A vector that grows would leave copies of a password behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len as usize + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("an option file has at most 1 MiB"));
    }
    Ok(bytes)
}

/// Reads `bytes` as an option file, for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn parse_bytes(bytes: &[u8]) {
    let mut reader = Reader { found: Found::default(), known: &|_| true };
    // MAX_DEPTH: nothing is included.
    let _ = reader.text(bytes, Path::new("bytes"), MAX_DEPTH, &[CLIENT, OWN]);
}

#[cfg(test)]
mod tests;
