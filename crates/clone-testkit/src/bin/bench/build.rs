// SPDX-License-Identifier: GPL-2.0-only

//! The plugins that are compared.

use std::os::unix::fs::symlink;
use std::path::Path;

use clap::ValueEnum;
use clone_testkit::anyhow::{Context, Result};
use clone_testkit::{Mysqld, Plugin};

/// One build of the clone plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Build {
    /// The plugin that came with the server.
    Stock,
    /// The same, with the classic protocol's compression.
    StockCompressed,
    /// This repository's.
    Ours,
    /// The library that `--other` names, for instance ours of an earlier commit.
    Other,
}

/// The name of the library of [`Build::Other`] in the plugin directory of each server.
const OTHER_FILE: &str = "other_mysql_clone.so";

impl Build {
    /// What to call the build in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Build::Stock => "stock",
            Build::StockCompressed => "stock compressed",
            Build::Ours => "ours",
            Build::Other => "other",
        }
    }

    /// The name to give to `INSTALL PLUGIN clone SONAME`.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Build::Stock | Build::StockCompressed => Plugin::Stock.file_name().unwrap_or_default(),
            Build::Ours => Plugin::Ours.file_name().unwrap_or_default(),
            Build::Other => OTHER_FILE,
        }
    }
}

/// Puts a link to the library of [`Build::Other`] into the server's plugin directory. A recipient
/// looks for the donor's library there by name, so that both servers need the link.
pub(crate) fn link_other(server: &Mysqld, library: &Path) -> Result<()> {
    let link = server.scratch("plugin").join(OTHER_FILE);
    symlink(library, &link).with_context(|| format!("link {}", link.display()))
}
