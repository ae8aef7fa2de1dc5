// SPDX-License-Identifier: GPL-2.0-only

//! Paths of files and directories that may not be there yet.

use std::fs;
use std::path::{Path, PathBuf};

/// The path without links, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let Ok(found) = fs::canonicalize(above) {
            let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
            return found.join(rest);
        }
    }
    path
}
