// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use clap::Parser;
use clone_testkit::Plugin;

/// Clones a MySQL server under write load in three ways and proves that the clones are exact.
#[derive(Clone, Copy, Debug, Parser)]
pub(crate) struct Options {
    /// Size of the data set in MiB.
    #[arg(long = "size", value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) size_mib: u64,
    /// The clone plugin that all servers load: ours or stock.
    #[arg(long, env = "MYSQL_CLONE_PLUGIN", default_value = "ours")]
    pub(crate) plugin: Plugin,
    /// Leave the data directories at the end.
    #[arg(long)]
    pub(crate) keep: bool,
}
