// SPDX-License-Identifier: GPL-2.0-only

//! The files that tell a server of a clone (`clone0api.cc:create_status_file`,
//! `include/clone0clone.h`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Flush;
use super::operations::{failed, sync};
use crate::error::{FileOperation, Result};

/// Where they are.
pub(super) const DIRECTORY: &str = "#clone";

/// A server with this file does not start: the clone is not complete.
const IN_PROGRESS: &str = "#status_in_progress";

/// A server with this file creates missing schema directories and empties tables of other engines.
const FIX: &str = "#status_fix";

/// With this file, empty in a clone into a directory, a server notes the binary log's position and
/// the GTIDs of the clone.
const REPLACE: &str = "#replace_files";

/// The clone begins.
pub(super) fn begin(directory: &Path, how: Flush) -> Result<()> {
    create(directory, IN_PROGRESS, how)
}

/// The clone is complete, and all of its files are on disk.
pub(super) fn complete(directory: &Path, how: Flush) -> Result<()> {
    create(directory, FIX, how)?;
    create(directory, REPLACE, how)?;
    let path = directory.join(DIRECTORY).join(IN_PROGRESS);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(FileOperation::Delete, &path)(error));
        }
        _ => {}
    }
    flush(&directory.join(DIRECTORY), how)
}

fn create(directory: &Path, name: &str, how: Flush) -> Result<()> {
    let directory = directory.join(DIRECTORY);
    let path = directory.join(name);
    let mut options = File::options();
    let created = options.write(true).create(true).truncate(true).mode(0o640).open(&path);
    let file = created.map_err(failed(FileOperation::Create, &path))?;
    sync(&file, how).map_err(failed(FileOperation::Write, &path))?;
    flush(&directory, how)
}

fn flush(directory: &Path, how: Flush) -> Result<()> {
    let flushed = File::open(directory).and_then(|opened| sync(&opened, how));
    flushed.map_err(failed(FileOperation::Write, directory))
}
