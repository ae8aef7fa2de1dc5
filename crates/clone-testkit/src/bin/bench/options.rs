// SPDX-License-Identifier: GPL-2.0-only

//! Sizes and places, from the command line or the environment.

use std::path::PathBuf;

use clap::Parser;

/// Measures the stock plugin and ours beside each other: same server, same data, in turn.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Measured clones with each plugin in each scenario.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Size of a data set in MiB.
    #[arg(long, env = "BENCH_MIB", default_value_t = 1024)]
    pub(crate) mib: u32,
    /// Size of the one large table in MiB.
    #[arg(long, env = "BENCH_LARGE_MIB", default_value_t = 4096)]
    pub(crate) large_mib: u32,
    /// Number of small tablespaces.
    #[arg(long, env = "BENCH_TABLES", default_value_t = 20_000)]
    pub(crate) tables: u32,
    /// Run only scenarios whose names contain one of these, separated by semicolons.
    #[arg(long, env = "BENCH_ONLY", value_delimiter = ';')]
    pub(crate) only: Vec<String>,
    /// A directory in memory.
    #[arg(long, env = "BENCH_TMPFS", default_value = "/dev/shm")]
    pub(crate) tmpfs: PathBuf,
    /// A directory on a disk.
    #[arg(long, env = "BENCH_DISK", default_value = "/tmp")]
    pub(crate) disk: PathBuf,
    /// A directory for performance.md and performance.svg; neither is written without it.
    #[arg(long, env = "BENCH_OUT")]
    pub(crate) out: Option<PathBuf>,
}

impl Options {
    /// Whether a scenario of this name is asked for. Empty parts, as of an empty variable, ask for
    /// nothing.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let mut parts = self.only.iter().filter(|part| !part.is_empty()).peekable();
        parts.peek().is_none() || parts.any(|part| name.contains(part.as_str()))
    }
}
