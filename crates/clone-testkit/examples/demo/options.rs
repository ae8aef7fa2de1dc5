// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::env;

use clone_testkit::Plugin;
use clone_testkit::anyhow::{Context, Result, bail, ensure};

/// What the user wants shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Size of the data set in MiB.
    pub(crate) size_mib: u64,
    /// The plugin that all servers load.
    pub(crate) plugin: Plugin,
    /// Leave all files at the end.
    pub(crate) keep: bool,
}

const USAGE: &str = "\
Clones a MySQL server under write load in three ways and proves that the clones are exact.

Usage: demo [--size MIB] [--plugin ours|stock] [--keep]

  --size MIB             size of the data set, 256 unless told
  --plugin ours|stock    which clone plugin to use, for comparison (also MYSQL_CLONE_PLUGIN)
  --keep                 leave the data directories
";

impl Options {
    /// `None` when the user asked for help, which is printed.
    pub(crate) fn parse() -> Result<Option<Self>> {
        let mut options = Self { size_mib: 256, plugin: Plugin::under_test()?, keep: false };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--size" => options.size_mib = value()?.parse().context("--size takes a number")?,
                "--plugin" => {
                    options.plugin = match value()?.as_str() {
                        "ours" => Plugin::Ours,
                        "stock" => Plugin::Stock,
                        other => bail!("--plugin takes 'ours' or 'stock', not '{other}'"),
                    }
                }
                "--keep" => options.keep = true,
                "--help" | "-h" => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                other => bail!("unknown argument '{other}'\n\n{USAGE}"),
            }
        }
        ensure!(options.size_mib > 0, "--size must be at least 1");
        Ok(Some(options))
    }
}
