// SPDX-License-Identifier: GPL-2.0-only

//! Where the files of a clone go.

use std::path::{Path, PathBuf};

/// Where the files of a clone go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A directory of its own.
    Directory(PathBuf),
    /// The place of the server's data, which stays until the clone is complete: the files wait in
    /// this directory.
    Staging(PathBuf),
    /// The place of the server's data, which is dropped first.
    Server,
}

impl Target {
    /// The directory that engines write into. None stands for the server's own data.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Target::Directory(directory) | Target::Staging(directory) => Some(directory),
            Target::Server => None,
        }
    }

    /// The directory, if the clone does not replace the server's data in the end.
    pub(super) fn own_directory(&self) -> Option<&Path> {
        match self {
            Target::Directory(directory) => Some(directory),
            Target::Staging(_) | Target::Server => None,
        }
    }

    /// A directory on the file system that gets the files: that of the clone, or the server's
    /// working directory.
    pub(super) fn path(&self) -> &Path {
        self.directory().unwrap_or(Path::new("."))
    }

    /// The engines drop the server's data when the clone begins.
    pub(super) fn drops_data(&self) -> bool {
        *self == Target::Server
    }

    /// The clone waits in a directory until it takes the place of the server's data.
    pub(super) fn is_staging(&self) -> bool {
        matches!(self, Target::Staging(_))
    }
}
