// SPDX-License-Identifier: GPL-2.0-only

//! Tablespaces outside of the data directory: `DATA DIRECTORY`, and `ADD DATAFILE` with a path.
//!
//! Their names are in the dictionary (`mysql.tablespace_files`). The dictionary is not read as
//! tables. Its pages, and the redo, are searched for what looks like such a name, and a name counts
//! if there is a tablespace of that name which was not found otherwise. Rows of tables that were
//! dropped have names, too, but no file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The end of a name.
const SUFFIX: &[u8] = b".ibd";

/// No name is longer (`OS_FILE_MAX_PATH`), in bytes.
pub(super) const MAX_NAME: usize = 4000;

/// The most names that are kept.
const MAX_NAMES: usize = 100_000;

/// Names that may be those of tablespaces outside of a directory.
#[derive(Debug, Default)]
pub(super) struct OutsideNames {
    /// Bytes that end with [`SUFFIX`], up to the first that no name has.
    runs: BTreeSet<Vec<u8>>,
}

impl OutsideNames {
    /// Adds what is in `bytes`.
    pub(super) fn search(&mut self, bytes: &[u8]) {
        let mut from = 0;
        while let Some(at) = find(bytes.get(from..).unwrap_or_default()) {
            let end = from + at + SUFFIX.len();
            let start = end.saturating_sub(MAX_NAME).max(from);
            let run = bytes.get(start..end).unwrap_or_default();
            let bad = run.iter().rposition(|byte| *byte < b' ' || *byte == 0x7f);
            let run = run.get(bad.map_or(0, |bad| bad + 1)..).unwrap_or_default();
            let is_inside = run.starts_with(b"./");
            if !is_inside && run.contains(&b'/') && self.runs.len() < MAX_NAMES {
                self.runs.insert(run.to_vec());
            }
            from = end;
        }
    }

    /// The names of files that exist, and of those that are named and do not.
    pub(super) fn resolve(&self, directory: &Path) -> (Vec<(PathBuf, Vec<u8>)>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for run in &self.runs {
            // What stands before a name may look like a part of the name.
            let starts = (0..run.len()).filter(|at| leads_outside(&run[*at..]));
            let mut names = starts.map(|at| &run[at..]);
            let file = |name: &&[u8]| directory.join(OsStr::from_bytes(name)).is_file();
            match names.find(file) {
                Some(name) => {
                    found.push((directory.join(OsStr::from_bytes(name)), name.to_vec()));
                }
                None if leads_outside(run) && run.is_ascii() => {
                    missing.push(String::from_utf8_lossy(run).into_owned());
                }
                None => {}
            }
        }
        (found, missing)
    }
}

/// Whether a name that begins so is of a file outside of the data directory.
pub(super) fn leads_outside(name: &[u8]) -> bool {
    name.starts_with(b"/") || name.starts_with(b"../")
}

fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(SUFFIX.len()).position(|window| window == SUFFIX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_outside_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        fs::create_dir(&root).unwrap();
        fs::write(directory.path().join("out.ibd"), "").unwrap();
        let absolute = directory.path().join("abs.ibd");
        fs::write(&absolute, "").unwrap();
        let mut bytes = b"\x01./db/t.ibd\0\x01../out.ibd\x01\x02/../out.ibd x.ibd".to_vec();
        bytes.extend_from_slice(b"\0\0/gone/t.ibd\0z");
        bytes.extend_from_slice(absolute.as_os_str().as_bytes());
        let mut names = OutsideNames::default();
        names.search(&bytes);
        let (found, missing) = names.resolve(&root);
        let mut found: Vec<_> = found.into_iter().map(|(_, name)| name).collect();
        found.sort();
        found.dedup();
        assert_eq!(found, [b"../out.ibd", absolute.as_os_str().as_bytes()]);
        assert_eq!(missing, ["/gone/t.ibd"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut names = OutsideNames::default();
            names.search(&[&bytes[..], b".ibd", &bytes[..]].concat());
            let _ = names.resolve(Path::new("/nonexistent"));
        }
    }
}
