// SPDX-License-Identifier: GPL-2.0-only

//! Sizes and places, from the environment.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;

use clone_testkit::anyhow::{Context, Result, anyhow};

/// How to run.
#[derive(Debug)]
pub(crate) struct Options {
    /// `BENCH_ROUNDS`: measured clones with each plugin in each scenario.
    pub(crate) rounds: usize,
    /// `BENCH_MIB`: size of a data set.
    pub(crate) mib: u32,
    /// `BENCH_LARGE_MIB`: size of the one large table.
    pub(crate) large_mib: u32,
    /// `BENCH_TABLES`: number of small tablespaces.
    pub(crate) tables: u32,
    /// `BENCH_ONLY`: run only scenarios whose names contain one of these, separated by semicolons.
    pub(crate) only: Vec<String>,
    /// `BENCH_TMPFS`: a directory in memory.
    pub(crate) tmpfs: PathBuf,
    /// `BENCH_DISK`: a directory on a disk.
    pub(crate) disk: PathBuf,
    /// `BENCH_OUT`: a directory for `performance.md` and `performance.svg`; none are written without it.
    pub(crate) out: Option<PathBuf>,
}

impl Options {
    pub(crate) fn from_env() -> Result<Self> {
        Ok(Self {
            rounds: number("BENCH_ROUNDS", 5)?,
            mib: number("BENCH_MIB", 1024)?,
            large_mib: number("BENCH_LARGE_MIB", 4096)?,
            tables: number("BENCH_TABLES", 20_000)?,
            only: text("BENCH_ONLY").split(';').filter(|s| !s.is_empty()).map(Into::into).collect(),
            tmpfs: path("BENCH_TMPFS", "/dev/shm"),
            disk: path("BENCH_DISK", "/tmp"),
            out: env::var_os("BENCH_OUT").map(PathBuf::from),
        })
    }

    /// Whether a scenario of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

fn text(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn number<N: FromStr<Err: Into<clone_testkit::anyhow::Error>>>(
    name: &str,
    default: N,
) -> Result<N> {
    match text(name) {
        text if text.is_empty() => Ok(default),
        text => text
            .parse()
            .map_err(|error: N::Err| anyhow!(error.into()))
            .with_context(|| format!("{name}={text}")),
    }
}

fn path(name: &str, default: &str) -> PathBuf {
    env::var_os(name).map_or_else(|| default.into(), PathBuf::from)
}
