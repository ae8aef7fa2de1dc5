// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clone_testkit::Plugin;
use clone_testkit::anyhow::{Context, Result, ensure};

/// Clones a MySQL server under write load in four ways and proves that the clones are exact.
#[derive(Clone, Debug, Parser)]
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
    /// The program mysql-clone. By default the one beside the folder of this program.
    #[arg(long, value_name = "PATH", env = "MYSQL_CLONE_PROGRAM")]
    tool: Option<PathBuf>,
}

impl Options {
    /// The program mysql-clone.
    pub(crate) fn tool(&self) -> Result<PathBuf> {
        let tool = match &self.tool {
            Some(tool) => tool.clone(),
            None => {
                let own = std::env::current_exe().context("where this program is")?;
                let folder = own.ancestors().nth(2).context("this program is in no folder")?;
                folder.join("mysql-clone")
            }
        };
        ensure!(tool.exists(), "{} is missing: run `make program`", tool.display());
        Ok(tool)
    }
}
