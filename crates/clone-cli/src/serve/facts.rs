// SPDX-License-Identifier: GPL-2.0-only

//! What a donor says of its server, for a directory without a server.

use std::collections::BTreeMap;

use clone_core::error::{Error, Result};
use clone_innodb::cold::ServerVersion;

/// The values of variables that a donor reads, by name.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    variables: BTreeMap<String, String>,
    maturity: &'static str,
}

/// `clone_donor_timeout_after_network_failure`, minutes.
pub(super) const RECONNECT_MINUTES: u64 = 5;

/// The largest packet, in bytes: `max_allowed_packet` is this by default. Blocks have 4 MiB at
/// most.
const MAX_PACKET: u32 = 64 << 20;

/// Variables with the values that a server has if nothing else is configured.
const DEFAULTS: [(&str, &str); 10] = [
    ("version_compile_os", "Linux"),
    ("version_compile_machine", std::env::consts::ARCH),
    ("character_set_server", "utf8mb4"),
    ("character_set_filesystem", "binary"),
    ("collation_server", "utf8mb4_0900_ai_ci"),
    // What the directory was initialised with is in its dictionary, which is not read. An empty
    // value is not sent.
    ("lower_case_table_names", ""),
    // The directory may have an auto.cnf, but the server that wrote it is not the donor.
    ("server_uuid", ""),
    ("innodb_force_recovery", "0"),
    ("innodb_read_only", "OFF"),
    ("protocol_compression_algorithms", "zlib,zstd,uncompressed"),
];

impl Facts {
    /// Of a directory with pages of `page_size` bytes. `set` are variables that the user has given,
    /// each as `name=value`.
    ///
    /// # Errors
    /// A text of `set` has another form, or no such variable is sent.
    pub(super) fn new(
        version: &ServerVersion,
        page_size: u32,
        set: &[String],
    ) -> Result<Self, String> {
        let mut variables: BTreeMap<_, _> = DEFAULTS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut add = |name: &str, value: String| variables.insert(name.to_owned(), value);
        add("version", version.text.clone());
        add("innodb_page_size", page_size.to_string());
        add("max_allowed_packet", MAX_PACKET.to_string());
        add("clone_donor_timeout_after_network_failure", RECONNECT_MINUTES.to_string());
        for text in set {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| format!("--variable {text}: the form is NAME=VALUE"))?;
            if name == "innodb_page_size" || !variables.contains_key(name) {
                return Err(format!("--variable {name}: this variable is not sent"));
            }
            variables.insert(name.to_owned(), value.to_owned());
        }
        let maturity = version.maturity.as_deref();
        let is_lts = maturity.map_or_else(|| is_lts(&variables["version"]), |text| text == "LTS");
        Ok(Self { variables, maturity: if is_lts { "LTS" } else { "INNOVATION" } })
    }

    pub(super) fn get(&self, name: &str) -> Result<String> {
        let value = self.variables.get(name).cloned();
        value.ok_or_else(|| Error::Internal(format!("unknown variable {name}")))
    }

    pub(super) fn maturity(&self) -> &'static str {
        self.maturity
    }
}

/// Whether a release is a long-term one: 8.4 and 9.7. Series after these say so in their directory.
fn is_lts(version: &str) -> bool {
    ["8.4.", "9.7."].iter().any(|series| version.starts_with(series))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn version(text: &str, maturity: Option<&str>) -> ServerVersion {
        ServerVersion {
            text: text.to_owned(),
            maturity: maturity.map(str::to_owned),
            is_complete: maturity.is_some(),
        }
    }

    #[test]
    fn what_the_user_sets_replaces_the_default() {
        let set = ["collation_server=latin1_swedish_ci".to_owned(), "version=8.0.36-x".to_owned()];
        let facts = Facts::new(&version("8.0.36", None), 4096, &set).unwrap();
        assert_eq!(facts.get("collation_server").unwrap(), "latin1_swedish_ci");
        assert_eq!(facts.get("version").unwrap(), "8.0.36-x");
        assert_eq!(facts.get("innodb_page_size").unwrap(), "4096");
        assert_eq!(facts.maturity(), "INNOVATION");
        for wrong in ["innodb_page_size=1", "nothing", "datadir=/x"] {
            let set = [wrong.to_owned()];
            assert!(Facts::new(&version("8.0.36", None), 4096, &set).is_err(), "{wrong}");
        }
    }

    #[test]
    fn maturity_is_that_of_the_directory_or_of_the_series() {
        for (text, told, expected) in [
            ("9.7.4-2", Some("LTS"), "LTS"),
            ("9.7.4", None, "LTS"),
            ("8.4.13", None, "LTS"),
            ("9.6.0", None, "INNOVATION"),
            ("28.4.0", Some("LTS"), "LTS"),
        ] {
            let facts = Facts::new(&version(text, told), 16_384, &[]).unwrap();
            assert_eq!(facts.maturity(), expected, "{text}");
        }
    }
}
