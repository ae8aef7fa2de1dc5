// SPDX-License-Identifier: GPL-2.0-only

//! How InnoDB's part of a clone stands when a server starts
//! (`storage/innobase/include/clone0clone.h`, the files in `#clone`).

use std::path::Path;

/// What InnoDB has done, or is going to do when it starts, with its part of the last clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is left to be done.
    Settled,
    /// The clone is complete, and InnoDB has not come up on it yet: it may still be rolled back.
    Pending,
    /// InnoDB is going to roll a clone of the server's own data back.
    RolledBack,
}

impl Standing {
    /// Of the server with this data directory.
    pub fn of_innodb(root: &Path) -> Self {
        let is_there = |name: &str| root.join("#clone").join(name).exists();
        // There from the beginning of a clone that replaces the server's data to its success, and
        // again if InnoDB cannot start on it.
        if is_there("#status_error") {
            Self::RolledBack
        } else if is_there("#status_fix") {
            Self::Pending
        } else {
            Self::Settled
        }
    }
}
