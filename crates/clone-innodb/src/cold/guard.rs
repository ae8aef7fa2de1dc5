// SPDX-License-Identifier: GPL-2.0-only

//! Whether a directory may be read: no server has it open, and no clone into it has failed.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::files::{FileFacts, open};
use crate::error::{Error, FileOperation, Result};

/// Locks the system tablespace for reading, as InnoDB locks it for writing
/// (`os0file.cc:os_file_lock`). No server can open the directory until the file is closed.
///
/// The system gives such a lock back when the process closes the file *anywhere*. So the file is
/// opened here only.
///
/// # Errors
/// A server has the directory open; the file cannot be opened.
pub(super) fn lock(path: &Path) -> Result<(File, FileFacts)> {
    let opened = open(path)?;
    match fcntl_lock(&opened.0, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(opened),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(Error::Refused(format!(
            "a server has {} open. Shut it down, or take a snapshot of the file system and name the \
             snapshot's directory",
            path.display()
        ))),
        Err(error) => {
            log::warn!(
                "{} cannot be locked ({error}): nothing keeps a server from opening the directory",
                path.display()
            );
            Ok(opened)
        }
    }
}

/// Refuses a directory of which a clone is a part (`#clone/#status_*`).
///
/// # Errors
/// A clone into the directory did not succeed, or waits for the server to start.
pub(super) fn check_clone_status(directory: &Path) -> Result<()> {
    let clone = directory.join("#clone");
    for name in ["#status_in_progress", "#status_error"] {
        if clone.join(name).exists() {
            return Err(Error::Refused(format!(
                "{} exists: a clone into this directory did not succeed, so the data is not complete",
                clone.join(name).display()
            )));
        }
    }
    let replaced = clone.join("#replace_files");
    let len = match fs::metadata(&replaced) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::io(FileOperation::Open, &replaced, error)),
    };
    if len != 0 {
        return Err(Error::Refused(format!(
            "{} is not empty: a clone waits to replace the data. Start the server once, and shut it \
             down",
            replaced.display()
        )));
    }
    Ok(())
}
