// SPDX-License-Identifier: GPL-2.0-only

//! The end of the copy: every file gets its size, and all of them reach the disk
//! (`clone0apply.cc:extend_and_flush_files`).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clone_protocol::innodb::PageSize;

use super::Flush;
use super::operations::{extend, failed, open, sync};
use crate::error::{Error, FileOperation, Result};

/// Threads that wait for the disk. The file system writes the files of all that wait at once: with
/// 10,000 files, 8 threads need a quarter of the time of one.
const THREADS: usize = 8;

/// A file with all of its blocks.
#[derive(Debug)]
pub(super) struct Whole {
    /// The whole path.
    pub(super) path: PathBuf,
    /// The least size that it gets, bytes.
    pub(super) size: u64,
    /// None if it is no tablespace.
    pub(super) page_size: Option<PageSize>,
}

/// Brings files to their sizes and to the disk, then the directories that they are in, up to
/// `top`.
pub(super) fn all(top: &Path, files: &[Whole], how: Flush) -> Result<()> {
    let threads = match how {
        Flush::ToDisk => THREADS.min(files.len()),
        Flush::Never => 1,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            one(file, how).inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // If a thread cannot be started, those that can do its work.
        let start = |_| thread::Builder::new().name("clone_flush".into()).spawn_scoped(scope, work);
        let others: Vec<_> = (1..threads).map_while(|number| start(number).ok()).collect();
        let outcome = work();
        others.into_iter().fold(outcome, |outcome, other| {
            let other = other.join().unwrap_or_else(|_| Err(Error::internal("a flush panicked")));
            outcome.and(other)
        })
    })?;
    let above = files.iter().flat_map(|file| file.path.ancestors().skip(1));
    let directories: BTreeSet<_> = above.filter(|one| one.starts_with(top)).chain([top]).collect();
    for directory in directories {
        let opened = File::open(directory).and_then(|opened| sync(&opened, how));
        opened.map_err(failed(FileOperation::Write, directory))?;
    }
    Ok(())
}

fn one(file: &Whole, how: Flush) -> Result<()> {
    let Whole { path, size, page_size } = file;
    let file = open(path)?;
    let extended = extend(&file, *size, *page_size).and_then(|()| sync(&file, how));
    extended.map_err(failed(FileOperation::Write, path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn files(top: &Path, count: u64) -> Vec<Whole> {
        let whole = |number: u64| Whole {
            path: top.join(format!("{}/{number}", number % 3)),
            size: number,
            page_size: None,
        };
        let files: Vec<_> = (0..count).map(whole).collect();
        for file in &files {
            std::fs::create_dir_all(file.path.parent().unwrap()).unwrap();
            File::create_new(&file.path).unwrap();
        }
        files
    }

    #[test]
    fn every_file_gets_its_size() {
        for (count, how) in
            [(0, Flush::ToDisk), (1, Flush::ToDisk), (50, Flush::ToDisk), (9, Flush::Never)]
        {
            let directory = tempfile::tempdir().unwrap();
            let files = files(directory.path(), count);
            all(directory.path(), &files, how).unwrap();
            for file in files {
                assert_eq!(file.path.metadata().unwrap().len(), file.size);
            }
        }
    }

    #[test]
    fn a_file_that_is_gone_is_an_error_that_names_it() {
        for gone in [0, 17, 49] {
            let directory = tempfile::tempdir().unwrap();
            let files = files(directory.path(), 50);
            std::fs::remove_file(&files[gone].path).unwrap();
            let error = all(directory.path(), &files, Flush::ToDisk).unwrap_err();
            let path = files[gone].path.display().to_string();
            assert!(error.to_string().contains(&path), "{error}");
        }
    }
}
