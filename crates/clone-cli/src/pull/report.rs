// SPDX-License-Identifier: GPL-2.0-only

//! What is left beside the data: `mysql-clone.cnf`, the settings that a server needs for them, and
//! `mysql-clone.json`, what was pulled.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;
use serde::Serialize;
use serde_json::json;

use super::base::BaseReport;
use super::checks::{DonorFacts, OUTSIDE};
use super::prepare::Coordinates;
use super::session::PullHost;

/// The names of both files.
pub(super) const JSON: &str = "mysql-clone.json";
pub(super) const OPTION_FILE: &str = "mysql-clone.cnf";

/// The page size that a server has without a setting, in bytes.
const PAGE_SIZE: u32 = 16 << 10;

/// The `innodb_data_file_path` that a server has without a setting.
const DATA_FILE_PATH: &str = "ibdata1:12M:autoextend";

/// What was pulled.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    donor: String,
    donor_version: String,
    donor_uuid: String,
    datadir: PathBuf,
    /// The settings that a server needs, a file in `datadir`.
    option_file: PathBuf,
    /// Bytes of data, and on the network.
    bytes: u64,
    network_bytes: u64,
    seconds: f64,
    threads: u32,
    /// Seconds since the Unix epoch.
    finished: u64,
    /// The keyring file that was written, if anything is encrypted.
    pub(super) keyring_file: Option<PathBuf>,
    /// What was used of `--base`.
    pub(super) base: Option<BaseReport>,
    /// Tables of other engines, which are empty.
    empty_tables: Vec<String>,
    /// Binary log and GTIDs. None without `--prepare`: a server finds them when it starts.
    pub(super) coordinates: Option<Coordinates>,
}

impl Report {
    pub(super) fn new(
        donor: &str,
        facts: &DonorFacts,
        host: &PullHost,
        elapsed: Duration,
        keyring_file: Option<PathBuf>,
    ) -> Self {
        let totals = host.progress.totals();
        let datadir = host.state.path().parent().unwrap_or(Path::new(".")).to_owned();
        let datadir = fs::canonicalize(&datadir).unwrap_or(datadir);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            donor: donor.to_owned(),
            donor_version: facts.version.clone(),
            donor_uuid: facts.uuid.clone(),
            option_file: datadir.join(OPTION_FILE),
            datadir,
            bytes: totals.data,
            network_bytes: totals.network,
            seconds: elapsed.as_secs_f64(),
            threads: totals.threads,
            finished: now.as_secs(),
            keyring_file,
            base: None,
            empty_tables: facts.other_engines.clone(),
            coordinates: None,
        }
    }

    /// Writes both files into the data directory.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn write(&self, directory: &Path, facts: &DonorFacts) -> io::Result<()> {
        fs::write(directory.join(OPTION_FILE), self.option_file(facts))?;
        fs::write(directory.join(JSON), serde_json::to_vec_pretty(self)?)
    }

    /// The last event of a pull.
    pub(super) fn event(&self) -> serde_json::Value {
        json!({"event": "done", "report": self})
    }

    fn option_file(&self, facts: &DonorFacts) -> String {
        let mut text = format!(
            "# Settings that a server of the series {} needs for this data directory, which\n\
             # mysql-clone has pulled from {}. Use: !include {}\n\
             [mysqld]\ndatadir = {}\n",
            facts.series(),
            self.donor,
            self.option_file.display(),
            self.datadir.display(),
        );
        if facts.page_size != PAGE_SIZE {
            text += &format!("innodb_page_size = {}\n", facts.page_size);
        }
        match facts.lower_case_table_names.as_str() {
            "" => {
                text +=
                    "# lower_case_table_names must be as at the donor, which did not tell it.\n";
            }
            value => text += &format!("lower_case_table_names = {value}\n"),
        }
        let data_files = bare_names(&facts.data_file_path);
        if !data_files.is_empty() && data_files != DATA_FILE_PATH {
            text += &format!("innodb_data_file_path = {data_files}\n");
        }
        let outside = self.datadir.join(OUTSIDE);
        if let Some(path) = &self.keyring_file {
            text += &format!(
                "# The data are encrypted. The server needs component_keyring_file with this file: \
                 {}\n# Options cannot say so: see docs/encrypted-pull.md, and mysqld.my and\n\
                 # component_keyring_file.cnf in this directory.\n",
                path.display()
            );
        }
        if outside.exists() {
            text += &format!("innodb_directories = {}\n", outside.display());
        }
        text
    }
}

/// `innodb_data_file_path` with the names of the files alone, as a clone has them.
fn bare_names(data_file_path: &str) -> String {
    let bare = |file: &str| match file.split_once(':') {
        Some((path, rest)) => {
            format!("{}:{rest}", path.rsplit('/').next().unwrap_or(path))
        }
        None => file.to_owned(),
    };
    data_file_path.split(';').map(bare).collect::<Vec<_>>().join(";")
}

/// What a user sees at the end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Pulled from {} (MySQL {})", self.donor, self.donor_version)?;
        let rate = self.bytes as f64 / self.seconds.max(0.001);
        writeln!(
            f,
            "  data         {} in {:.1} s, {}/s, {} on the network",
            HumanBytes(self.bytes),
            self.seconds,
            HumanBytes(rate as u64),
            HumanBytes(self.network_bytes)
        )?;
        if let Some(base) = &self.base {
            let (used, shared) = (HumanBytes(base.used_bytes), HumanBytes(base.shared_bytes));
            let path = base.directory.display();
            writeln!(f, "  base         {used} are as in {path}, {shared} share its space")?;
        }
        writeln!(f, "  directory    {}", self.datadir.display())?;
        writeln!(f, "  option file  {}", self.option_file.display())?;
        if let Some(path) = &self.keyring_file {
            writeln!(f, "  keyring      {}, for component_keyring_file", path.display())?;
        }
        match &self.coordinates {
            Some(coordinates) => write!(f, "{coordinates}"),
            None => {
                writeln!(f, "  start        mysqld --defaults-file={}", self.option_file.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_files_have_bare_names_in_a_clone() {
        for (theirs, ours) in [
            ("ibdata1:12M:autoextend", "ibdata1:12M:autoextend"),
            (
                "/srv/a/ibdata1:1G;../b/ibdata2:50M:autoextend:max:9G",
                "ibdata1:1G;ibdata2:50M:autoextend:max:9G",
            ),
        ] {
            assert_eq!(bare_names(theirs), ours);
        }
    }
}
