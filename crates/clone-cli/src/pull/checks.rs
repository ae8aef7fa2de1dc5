// SPDX-License-Identifier: GPL-2.0-only

//! What is asked of the donor by SQL before any data is copied, so that all reasons against the
//! pull come at once.
//!
//! The account needs BACKUP_ADMIN only. Some questions need more privileges; what could not be
//! asked is a warning.

use std::fs;
use std::path::Path;

use clone_classic::{ConnectOptions, Connection};
use clone_core::parameters::Parameters;
use clone_core::settings::ReleaseFacts;
use clone_protocol::{CommandCode, Version};

use super::keyring;
use super::link::READ_TIMEOUT;
use crate::failure::{Failure, Kind, Result};

/// The directory in the target for tablespaces from outside of the donor's data directory.
pub(super) const OUTSIDE: &str = "outside";

/// What helps where `--keyring-file` does not.
pub(super) const OTHER_WAYS: &str = "For another keyring, clone with CLONE INSTANCE into a server \
                                     that has it, or decrypt the tables";

/// The most names in a message.
const MAX_NAMES: usize = 10;

/// The first release with the clone plugin.
const FIRST_VERSION: u32 = 80_017;

/// What the donor answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct DonorFacts {
    /// `version`, for example `8.4.13`.
    pub(crate) version: String,
    /// `server_uuid`.
    pub(crate) uuid: String,
    /// `innodb_page_size`, in bytes.
    pub(crate) page_size: u32,
    pub(crate) lower_case_table_names: String,
    pub(crate) data_file_path: String,
    /// Bytes on the disk of all tablespaces. None if the account may not ask.
    pub(crate) bytes: Option<u64>,
    /// Whether the connection is encrypted.
    pub(crate) has_tls: bool,
    /// Encrypted tablespaces, and logs that are encrypted.
    encrypted: Vec<String>,
    /// Paths of tablespaces outside of the data directory.
    pub(crate) outside: Vec<String>,
    /// Tables of other engines, of which a clone has the definition only.
    pub(crate) other_engines: Vec<String>,
    /// What the account may not ask, and the donor's error.
    unknown: Vec<(&'static str, String)>,
    /// Why the donor cannot give a clone.
    refused: Vec<String>,
}

impl DonorFacts {
    /// Connects once and asks.
    ///
    /// # Errors
    /// The connection failed, or the donor is no MySQL server that has a clone plugin.
    pub(crate) fn ask(connect: &ConnectOptions) -> Result<Self> {
        let mut connection = Connection::connect(connect).map_err(connect_failure)?;
        let mut facts = Self {
            version: connection.server_version().to_owned(),
            has_tls: connection.is_encrypted(),
            ..Self::default()
        };
        if facts.version_id() < FIRST_VERSION {
            let text =
                format!("the donor is of version {}. MySQL clones from 8.0.17 on", facts.version);
            return Err(Failure::new(Kind::Refused, text));
        }
        facts.ask_variables(&mut connection)?;
        facts.ask_privileged(&mut connection);
        facts.try_clone(connection);
        Ok(facts)
    }

    fn ask_variables(&mut self, connection: &mut Connection) -> Result<()> {
        let rows = connection.query(
            "SELECT @@global.innodb_page_size, @@global.lower_case_table_names, \
             @@global.innodb_data_file_path, @@global.server_uuid, \
             @@global.innodb_force_recovery, @@global.innodb_read_only, \
             @@global.innodb_redo_log_encrypt, @@global.innodb_undo_log_encrypt",
        );
        let rows = match rows {
            Ok(rows) => rows,
            // `mysql-clone serve` answers no statement. The clone itself tells what is needed most.
            Err(error @ clone_classic::Error::Server(_)) => {
                self.unknown.push(("the donor's settings", error.to_string()));
                return Ok(());
            }
            Err(error) => return Err(Failure::new(Kind::Peer, error.to_string())),
        };
        let values: Vec<String> =
            rows.into_iter().flatten().map(Option::unwrap_or_default).collect();
        let [page_size, lower_case, data_files, uuid, recovery, read_only, redo, undo] =
            values.try_into().map_err(|_| {
                Failure::new(Kind::Peer, "the donor does not answer as a MySQL server does")
            })?;
        self.page_size = page_size.parse().unwrap_or(0);
        self.lower_case_table_names = lower_case;
        self.data_file_path = data_files;
        self.uuid = uuid;
        if recovery.parse().unwrap_or(0_u32) >= 4 || read_only != "0" {
            self.refused.push(format!(
                "InnoDB of the donor is read-only (innodb_force_recovery={recovery}, \
                 innodb_read_only={read_only}): it cannot give a clone. Restart the donor without \
                 these settings"
            ));
        }
        for (log, value) in [("the redo log", redo), ("the undo log", undo)] {
            if value != "0" {
                self.encrypted.push(log.to_owned());
            }
        }
        Ok(())
    }

    /// What needs privileges beside BACKUP_ADMIN.
    fn ask_privileged(&mut self, connection: &mut Connection) {
        let bytes = self.ask_one(
            connection,
            "the size of the data",
            "SELECT SUM(ALLOCATED_SIZE) FROM information_schema.INNODB_TABLESPACES",
        );
        self.bytes = bytes.first().and_then(|bytes| bytes.parse().ok());
        let encrypted = self.ask_one(
            connection,
            "which tablespaces are encrypted",
            "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'Y'",
        );
        self.encrypted.extend(encrypted);
        self.outside = self.ask_one(
            connection,
            "which tablespaces are outside of the data directory",
            "SELECT PATH FROM information_schema.INNODB_DATAFILES \
             WHERE (PATH LIKE '/%' OR PATH LIKE '../%' OR PATH LIKE './../%') \
             AND PATH NOT LIKE CONCAT(@@global.innodb_undo_directory, '%.ibu') \
             AND PATH NOT LIKE '%undo\\_00_'",
        );
        self.other_engines = self.ask_one(
            connection,
            "which tables are not InnoDB's",
            "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' (', ENGINE, ')') \
             FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
             AND ENGINE NOT IN ('InnoDB', 'PERFORMANCE_SCHEMA', 'MEMORY', 'TempTable') \
             AND CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) \
             NOT IN ('mysql.general_log', 'mysql.slow_log')",
        );
    }

    /// The first column of an answer. Without the privilege, the question is noted.
    fn ask_one(
        &mut self,
        connection: &mut Connection,
        what: &'static str,
        sql: &str,
    ) -> Vec<String> {
        match connection.query(sql) {
            Ok(rows) => rows.into_iter().filter_map(|row| row.into_iter().next()?).collect(),
            Err(error) => {
                self.unknown.push((what, error.to_string()));
                Vec::new()
            }
        }
    }

    /// Switches to COM_CLONE and back: the account has the privilege, and the plugin is there.
    fn try_clone(&mut self, mut connection: Connection) {
        if let Err(error) = connection.start_clone() {
            let remedy = match error.number() {
                1227 => ". Grant BACKUP_ADMIN to this account",
                1524 => ". Run INSTALL PLUGIN clone SONAME 'mysql_clone.so' at the donor",
                _ => "",
            };
            self.refused.push(format!("the donor refuses to clone: {error}{remedy}"));
            return;
        }
        // The answer does not matter: the clone itself asks again.
        if connection.send(CommandCode::Exit as u8, &[]).is_ok()
            && connection.receive(READ_TIMEOUT).is_ok()
            && connection.end_clone().is_ok()
        {
            connection.close();
        }
    }

    /// After the clone: what the donor did not answer, from what it sent and from the files.
    pub(super) fn complete(&mut self, donor: Option<&Parameters>, directory: &Path) {
        if self.page_size == 0 {
            self.page_size = donor.and_then(|donor| donor.page_size().ok()).unwrap_or(0);
        }
        if self.data_file_path.is_empty() {
            self.data_file_path = system_files(directory);
        }
    }

    /// Why the pull cannot work.
    pub(crate) fn refusals(&self, refuse_outside: bool, has_keyring: bool) -> Vec<String> {
        let mut reasons = self.refused.clone();
        reasons.extend(self.encryption_refusal(has_keyring));
        if refuse_outside && !self.outside.is_empty() {
            reasons.push(format!(
                "outside of the donor's data directory: {}. Without --refuse-outside these \
                 tablespaces go below DIR/{OUTSIDE}",
                names(&self.outside)
            ));
        }
        reasons
    }

    fn encryption_refusal(&self, has_keyring: bool) -> Option<String> {
        let is_too_old = self.version_id() < keyring::FIRST_VERSION;
        match (self.encrypted.as_slice(), has_keyring) {
            ([], false) => None,
            (_, true) if is_too_old => Some(format!(
                "--keyring-file writes the file of component_keyring_file, which servers have from \
                 8.0.24 on, and the donor is of version {}. {OTHER_WAYS}",
                self.version
            )),
            (_, true) if !self.has_tls => Some(
                "--keyring-file: the donor sends keys in clear, and the connection has no TLS. \
                 Give --ssl-mode=REQUIRED or more"
                    .to_owned(),
            ),
            (_, true) => None,
            (encrypted, false) => {
                let tls = if self.has_tls { "" } else { " and with TLS (--ssl-mode=REQUIRED)" };
                let remedy = match is_too_old {
                    true => OTHER_WAYS.to_owned(),
                    false => format!(
                        "Pull with --keyring-file PATH{tls}: the copy gets a master key of its \
                         own, which goes to PATH for component_keyring_file. {OTHER_WAYS}"
                    ),
                };
                Some(format!(
                    "encrypted, and the copy has no keyring: {}. {remedy}",
                    names(encrypted)
                ))
            }
        }
    }

    /// What the user should know before the pull.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.other_engines.is_empty() {
            warnings.push(format!(
                "these tables are not InnoDB's and will be empty: {}",
                names(&self.other_engines)
            ));
        }
        if let Some((_, error)) = self.unknown.first() {
            let what: Vec<_> = self.unknown.iter().map(|(what, _)| *what).collect();
            warnings.push(format!(
                "not checked: {}. The account may not ask: {error}",
                what.join("; ")
            ));
        }
        warnings
    }

    /// `MYSQL_VERSION_ID`: 80413 for 8.4.13. 0 if the version is none.
    pub(crate) fn version_id(&self) -> u32 {
        version_id(&self.version)
    }

    /// The series, for example `8.4`.
    pub(crate) fn series(&self) -> String {
        let id = self.version_id();
        format!("{}.{}", id / 10_000, id / 100 % 100)
    }

    /// What differs by the donor's release.
    pub(crate) fn release(&self) -> ReleaseFacts {
        ReleaseFacts {
            protocol: Version::LATEST,
            allows_ddl: self.version_id() >= 80_027,
            has_spare_redo_file: !self.has_redo_directory(),
        }
    }

    /// Whether redo files are in `#innodb_redo`.
    pub(crate) fn has_redo_directory(&self) -> bool {
        self.version_id() >= 80_030
    }
}

/// Refuses if there are reasons.
///
/// # Errors
/// All reasons, a line each.
pub(super) fn refuse(reasons: &[String]) -> Result<()> {
    match reasons {
        [] => Ok(()),
        [reason] => Err(Failure::new(Kind::Refused, reason.clone())),
        reasons => {
            let list: Vec<_> = reasons.iter().map(|reason| format!("\n  - {reason}")).collect();
            Err(Failure::new(Kind::Refused, format!("nothing was copied:{}", list.concat())))
        }
    }
}

/// `innodb_data_file_path` for `ibdata1`, `ibdata2` and so on, as they are in the directory.
fn system_files(directory: &Path) -> String {
    let size = |number: u32| fs::metadata(directory.join(format!("ibdata{number}"))).ok();
    let sizes: Vec<_> = (1..).map_while(size).map(|found| found.len()).collect();
    match sizes.len() {
        0 | 1 => String::new(),
        // Each but the last must be as large as the setting says.
        count => (1..)
            .zip(&sizes)
            .map(|(number, size)| match number == count {
                true => format!("ibdata{number}:{}M:autoextend", size >> 20),
                false => format!("ibdata{number}:{}M;", size >> 20),
            })
            .collect(),
    }
}

fn version_id(version: &str) -> u32 {
    let end = version.find(|next: char| !next.is_ascii_digit() && next != '.');
    let mut numbers = version[..end.unwrap_or(version.len())].split('.').map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(std::result::Result::ok).filter(|part| *part < 100);
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) => major * 10_000 + minor * 100 + patch,
        _ => 0,
    }
}

fn names(all: &[String]) -> String {
    let shown = all.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(MAX_NAMES) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}, and {more} more"),
    }
}

fn connect_failure(error: clone_classic::Error) -> Failure {
    let kind = match &error {
        clone_classic::Error::Server(_) => Kind::Peer,
        clone_classic::Error::Network { .. } => Kind::Network,
        _ => Kind::Refused,
    };
    Failure::new(kind, error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (version, id) in [
            ("9.7.4-2", 90_704),
            ("8.4.13-0ubuntu0.26.04.2", 80_413),
            ("8.0.19", 80_019),
            ("8.0.46-log", 80_046),
            ("5.7.44", 50_744),
            ("", 0),
            ("8.0", 0),
            ("11.4.2-MariaDB", 110_402),
            ("100.0.0", 0),
        ] {
            assert_eq!(version_id(version), id, "{version}");
        }
    }

    #[test]
    fn encrypted_donors_need_a_keyring_and_tls() {
        let facts = |version: &str, has_tls, encrypted: &[&str]| DonorFacts {
            version: version.to_owned(),
            has_tls,
            encrypted: encrypted.iter().map(|name| (*name).to_owned()).collect(),
            ..DonorFacts::default()
        };
        let reason = |facts: &DonorFacts, has_keyring| facts.refusals(false, has_keyring).join("");
        assert_eq!(reason(&facts("8.4.0", false, &[]), false), "");
        assert_eq!(reason(&facts("8.4.0", true, &["a/b"]), true), "");
        assert!(reason(&facts("8.4.0", true, &["a/b"]), false).contains("--keyring-file PATH: "));
        assert!(reason(&facts("8.4.0", false, &["a/b"]), false).contains("PATH and with TLS"));
        // What is encrypted may be unknown, or encrypted later.
        assert!(reason(&facts("8.4.0", false, &[]), true).contains("--ssl-mode=REQUIRED"));
        assert!(reason(&facts("8.0.23", true, &[]), true).contains("from 8.0.24 on"));
        let old = reason(&facts("8.0.23", true, &["a/b"]), false);
        assert!(old.contains("CLONE INSTANCE") && !old.contains("--keyring-file"), "{old}");
    }

    #[test]
    fn the_files_tell_of_the_system_tablespace() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(system_files(directory.path()), "");
        for (name, mib) in [("ibdata1", 12), ("ibdata2", 20), ("ibdata4", 1)] {
            fs::File::create(directory.path().join(name)).unwrap().set_len(mib << 20).unwrap();
        }
        assert_eq!(system_files(directory.path()), "ibdata1:12M;ibdata2:20M:autoextend");
    }

    #[test]
    fn all_reasons_come_at_once() {
        assert!(refuse(&[]).is_ok());
        let refused = refuse(&["a".into(), "b".into()]).map_err(|failure| failure.message);
        assert_eq!(refused, Err("nothing was copied:\n  - a\n  - b".to_owned()));
        let many: Vec<_> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(names(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more");
    }
}
