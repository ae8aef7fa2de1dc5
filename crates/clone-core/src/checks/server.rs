// SPDX-License-Identifier: GPL-2.0-only

//! The server that checks a donor.

use std::path::Path;

use super::finding::Finding;
use crate::error::{Error, Result};
use crate::facts::Rows;
use crate::parameters::ServerRelease;
use crate::session::Variables;

/// What [`check`](super::check) asks a server.
pub trait ServerChecks: Variables {
    /// Raises 3867 for each collation that this server lacks.
    fn check_collations(&self, names: &[String]) -> Result<()>;

    /// Raises 3865, 3866, 3868 (before 9.0 also 3864) for each variable whose value differs.
    fn check_variables(&self, variables: &[(String, String)]) -> Result<()>;

    /// Raises 3864 if a donor of version `donor` cannot be cloned by this server. Servers before
    /// 9.0 compare versions in [`check_variables`](Self::check_variables); there this does nothing.
    fn check_version(&self, recipient: &ServerRelease, donor: &ServerRelease) -> Result<()>;

    /// "LTS" or "INNOVATION", as this server was built.
    fn maturity(&self) -> &'static str;

    /// Whether a plugin of that name is installed. A name in `clone_exclude_plugins_list` need not
    /// be.
    fn has_plugin(&self, name: &str) -> bool;

    /// Whether `library` lies in the plugin directory and could be loaded. The library is not run,
    /// because the donor has chosen its name.
    fn can_load_plugin(&self, library: &str) -> bool;

    /// The rows of a statement at this server. None if it failed.
    fn rows(&self, statement: &'static str) -> Option<Rows>;

    /// Whether a clone can put a tablespace's file at this path, which lies outside of the donor's
    /// data directory.
    fn has_place_for(&self, path: &Path) -> bool;

    /// Free bytes on the disk where a clone waits that keeps this server's data. None if such a
    /// clone is not asked for (`clone_keep_data`), or if the disk does not tell.
    fn free_space(&self) -> Option<u64>;

    /// Whether somebody starts this server again after the clone. None if that is not known.
    fn has_supervisor(&self) -> Option<bool>;

    /// Whether a warning refuses the clone: `clone_strict_checks`.
    fn is_strict(&self) -> bool;

    /// Puts an error into the diagnostics area. The check goes on.
    fn raise(&self, error: &Error);

    /// Puts a warning with the number and the text of `error` into the diagnostics area.
    fn warn(&self, error: &Error);

    /// Takes the results for `performance_schema.clone_checks`.
    fn show(&self, findings: Vec<Finding>);
}
