// SPDX-License-Identifier: GPL-2.0-only

//! The names that a clone has below a data directory.

use std::path::{Path, PathBuf};

use clone_protocol::rocksdb::FileName;

/// What an engine's clones are called, and where.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    prefix: String,
    required: Option<String>,
}

impl Layout {
    /// MyRocks' names. `root` is the server's data directory, where a clone is put that is to
    /// replace the server's data.
    pub fn rocksdb(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            prefix: ".rocksdb".to_owned(),
            required: Some("CURRENT".to_owned()),
        }
    }

    /// For another engine of immutable files and logs: `prefix` takes the place of `.rocksdb`, and
    /// without the file `required`, if there is such a one, no clone is complete.
    pub fn other(
        root: impl Into<PathBuf>,
        prefix: impl Into<String>,
        required: Option<String>,
    ) -> Self {
        Self { root: root.into(), prefix: prefix.into(), required }
    }

    /// The same names below another directory.
    pub(crate) fn at(&self, root: &Path) -> Self {
        Self { root: root.to_owned(), ..self.clone() }
    }

    /// The file without which a clone is not complete.
    pub(crate) fn required(&self) -> Option<&str> {
        self.required.as_deref()
    }

    /// The places of a clone into `directory`, or of one that is to replace the server's data.
    pub(crate) fn places(&self, directory: Option<&Path>) -> Places {
        let root = directory.unwrap_or(&self.root).to_owned();
        let prefix = &self.prefix;
        Places {
            data: root.join(format!("{prefix}.cloned")),
            wal: root.join(format!("{prefix}.wal.cloned")),
            journal: root.join(format!("{prefix}.swap")),
            root,
        }
    }
}

/// The places of one clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// The data directory of the server that will run on the clone.
    pub(crate) root: PathBuf,
    /// New files of the database, but for write-ahead logs. With [`MARKER`] in it as long as the
    /// clone is not complete.
    pub(crate) data: PathBuf,
    /// New write-ahead logs.
    pub(crate) wal: PathBuf,
    /// The journal of the swap at start-up.
    pub(crate) journal: PathBuf,
}

impl Places {
    /// The file that says that the clone is not complete.
    pub(crate) fn marker(&self) -> PathBuf {
        self.data.join(MARKER)
    }

    /// Where a file of the donor goes.
    pub(crate) fn of(&self, name: FileName<'_>) -> PathBuf {
        let directory = if name.is_wal() { &self.wal } else { &self.data };
        directory.join(name.as_str())
    }
}

/// The file in a clone's directory that says that the clone is not complete.
pub(crate) const MARKER: &str = ".clone_in_progress";
