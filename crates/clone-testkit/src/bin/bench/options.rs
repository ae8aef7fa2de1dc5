// SPDX-License-Identifier: GPL-2.0-only

//! Sizes and places, from the command line or the environment.

use std::path::PathBuf;

use clap::Parser;
use clone_testkit::anyhow::{Result, ensure};

use crate::build::Build;
use crate::scenario::{SCENARIOS, Scenario};

/// Measures the stock plugin and ours, and a third build on request: same servers, same data, in
/// turn.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Measured clones with each plugin in each line. With more than one, a first round that is not
    /// measured warms up.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Size of a data set in MiB.
    #[arg(long, env = "BENCH_MIB", default_value_t = 1024)]
    pub(crate) mib: u32,
    /// Number of small tablespaces.
    #[arg(long, env = "BENCH_TABLES", default_value_t = 20_000)]
    pub(crate) tables: u32,
    /// A third build to compare with, a `libmysql_clone.so`.
    #[arg(long, env = "BENCH_OTHER")]
    pub(crate) other: Option<PathBuf>,
    /// The program of the lines with "pull" in their names.
    #[arg(long, env = "BENCH_TOOL", default_value = "target/release/mysql-clone")]
    pub(crate) tool: PathBuf,
    /// Run only lines whose names contain one of these, in any case, separated by commas.
    #[arg(long, env = "BENCH_LINES", value_delimiter = ',')]
    pub(crate) lines: Vec<String>,
    /// `clone_compression` of ours in the lines named "link".
    #[arg(long, env = "BENCH_COMPRESSION", default_value = "AUTO")]
    pub(crate) compression: String,
    /// Measure only these builds, separated by commas.
    #[arg(long, env = "BENCH_BUILDS", value_delimiter = ',')]
    pub(crate) builds: Vec<Build>,
    /// A directory in memory.
    #[arg(long, env = "BENCH_TMPFS", default_value = "/dev/shm")]
    pub(crate) tmpfs: PathBuf,
    /// A directory on a disk.
    #[arg(long, env = "BENCH_DISK", default_value = "/tmp")]
    pub(crate) disk: PathBuf,
    /// A directory for performance.md and performance.svg; neither is written without it.
    #[arg(long, env = "BENCH_OUT")]
    pub(crate) out: Option<PathBuf>,
    /// A file for all samples as JSON.
    #[arg(long, env = "BENCH_JSON")]
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// The lines to run, in the order of [`SCENARIOS`].
    ///
    /// # Errors
    /// A part of `--lines` that no line's name contains.
    pub(crate) fn scenarios(&self) -> Result<Vec<Scenario>> {
        let parts = self.lines.iter().map(|part| part.trim().to_lowercase());
        // An empty variable gives an empty part.
        let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
        let name = |scenario: &Scenario| scenario.name.to_lowercase();
        // The whole name of one line is a part of another line's.
        let is_whole = |part: &String| SCENARIOS.iter().any(|scenario| name(scenario) == *part);
        let has = |scenario: &Scenario, part: &String| match is_whole(part) {
            true => name(scenario) == *part,
            false => name(scenario).contains(part),
        };
        for part in &parts {
            let known = SCENARIOS.iter().any(|scenario| has(scenario, part));
            ensure!(known, "no line's name contains '{part}'; lines are: {}", names());
        }
        let wanted =
            |scenario: &&Scenario| parts.is_empty() || parts.iter().any(|part| has(scenario, part));
        Ok(SCENARIOS.iter().filter(wanted).copied().collect())
    }

    /// The builds to compare in a line.
    pub(crate) fn builds(&self, scenario: &Scenario) -> Vec<Build> {
        let compressed = scenario.link.map(|_| Build::StockCompressed);
        let other = self.other.as_ref().map(|_| Build::Other);
        let builds = [Some(Build::Stock), compressed, Some(Build::Ours), other];
        let is_wanted = |build: &Build| self.builds.is_empty() || self.builds.contains(build);
        builds.into_iter().flatten().filter(is_wanted).collect()
    }
}

fn names() -> String {
    SCENARIOS.map(|scenario| scenario.name).join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn chosen(lines: &str) -> Result<Vec<&'static str>> {
        let options = Options::parse_from(["bench", "--lines", lines]);
        Ok(options.scenarios()?.iter().map(|scenario| scenario.name).collect())
    }

    #[test]
    fn lines_are_chosen_by_parts_of_their_names() {
        assert_eq!(chosen("OLTP at, tls").unwrap(), ["remote TLS on tmpfs", "OLTP at 100 MiB/s"]);
        assert_eq!(chosen("").unwrap().len(), SCENARIOS.len());
        let error = chosen("tls,no such line").unwrap_err().to_string();
        assert!(error.contains("'no such line'"), "{error}");
    }

    #[test]
    fn every_name_can_be_chosen() {
        for Scenario { name, .. } in SCENARIOS {
            assert_eq!(chosen(name).unwrap(), [name]);
        }
    }
}
