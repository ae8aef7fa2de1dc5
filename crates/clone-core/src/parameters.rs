// SPDX-License-Identifier: GPL-2.0-only

//! The parameters that a donor sends before any data, as the recipient keeps them.

use clone_protocol::{BASE_CONFIG, BASE_VALUE, Response, Version};

use crate::compat::DonorFacts;
use crate::error::{Error, Result};
use crate::facts::Facts;

/// The variable of the donor that the recipient uses instead of its own (protocol V3).
pub(crate) const RECONNECT_TIMEOUT: &str = "clone_donor_timeout_after_network_failure";

/// The donor's `server_uuid`. Only donors of this project send it, from protocol V3 on.
pub(crate) const SERVER_UUID: &str = "server_uuid";

/// Minutes that a recipient tries to connect again if the donor did not say (before protocol V3).
const DEFAULT_RECONNECT_MINUTES: u64 = 5;

/// The maximum of `clone_donor_timeout_after_network_failure`, minutes.
const MAX_RECONNECT_MINUTES: u64 = 30;

/// What the donor has told the recipient.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The protocol's version that donor and recipient speak.
    pub version: Version,
    /// The donor's plugins: name, and library in the plugin directory if the donor said that.
    pub plugins: Vec<(String, Option<String>)>,
    /// The donor's collations.
    pub collations: Vec<String>,
    /// Variables that must be equal at the recipient.
    pub variables: Vec<(String, String)>,
    /// Other variables (protocol V3).
    pub other_variables: Vec<(String, String)>,
    /// Facts of the donor's release as JSON (protocol V4).
    pub json: Option<String>,
    /// What the donor has told before the clone began.
    pub facts: Facts,
    /// Whether the recipient's connection for acknowledgements reaches this donor, too. None if
    /// that is not known, as with a donor without heartbeats.
    pub same_donor: Option<bool>,
    /// Bytes of all names and values, and [`Self::ENTRY`] for each entry.
    bytes: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            version: Version::LATEST,
            plugins: Vec::new(),
            collations: Vec::new(),
            variables: Vec::new(),
            other_variables: Vec::new(),
            json: None,
            facts: Facts::default(),
            same_donor: None,
            bytes: 0,
        }
    }
}

/// A server's release, as far as it decides who may clone whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRelease {
    /// The variable `version`.
    pub version: String,
    /// Whether this is a long-term support release. None if the donor did not say so, which it does
    /// from protocol V4 on.
    pub is_lts: Option<bool>,
}

impl Parameters {
    /// The most bytes of a name or a value. The names of a server's plugins have at most 64 bytes,
    /// and no value that a donor sends is longer than a path, 4096 bytes.
    const MAX_TEXT: usize = 64 << 10;

    /// The most bytes of all names and values, with [`Self::ENTRY`] for each entry. A server sends
    /// some 10,000 bytes.
    const MAX_BYTES: usize = 16 << 20;

    /// Bytes that count for an entry in addition to its text: the memory that the vectors need.
    const ENTRY: usize = 64;

    /// Keeps a parameter. Returns false if `response` is no parameter.
    ///
    /// # Errors
    /// A text is longer than 64 KiB, or all together are longer than 16 MiB.
    pub fn take(&mut self, response: &Response<'_>) -> Result<bool> {
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (name, value) = match *response {
            Response::Plugin(name) | Response::Collation(name) => (name, ""),
            Response::PluginV2 { name, library: value }
            | Response::Config { name, value }
            | Response::ConfigV3 { name, value }
            | Response::ConfigV4 { name, value } => (name, value),
            _ => return Ok(false),
        };
        // The JSON of ConfigV4 is limited when it is parsed.
        let is_json = matches!(response, Response::ConfigV4 { .. });
        let longest = if is_json { Self::MAX_BYTES } else { Self::MAX_TEXT };
        self.bytes = self.bytes.saturating_add(name.len() + value.len() + Self::ENTRY);
        if name.len().max(value.len()) > longest || self.bytes > Self::MAX_BYTES {
            return Err(Error::Protocol("Wrong Clone RPC response: too many parameters".into()));
        }
        match *response {
            Response::Plugin(name) => self.plugins.push((name.to_owned(), None)),
            Response::PluginV2 { name, library } => {
                self.plugins.push((name.to_owned(), Some(library.to_owned())));
            }
            Response::Collation(name) => self.collations.push(name.to_owned()),
            Response::Config { name, value } => self.variables.push(owned(name, value)),
            Response::ConfigV3 { name, value } => self.other_variables.push(owned(name, value)),
            Response::ConfigV4 { value, .. } => self.json = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// InnoDB's page size at the donor, bytes.
    ///
    /// # Errors
    /// The donor did not send it. (A server has compared the value with its own before.)
    pub fn page_size(&self) -> Result<u32> {
        let value = self.variables.iter().find(|(name, _)| name == "innodb_page_size");
        value.and_then(|(_, text)| text.parse().ok()).ok_or_else(|| {
            Error::Protocol("Wrong Clone RPC response: no innodb_page_size".to_owned())
        })
    }

    /// How long to try to connect again, in minutes: the donor's variable, but 30 at most.
    pub fn reconnect_minutes(&self) -> u64 {
        let minutes = self.other(RECONNECT_TIMEOUT).and_then(|text| text.parse().ok());
        minutes.unwrap_or(DEFAULT_RECONNECT_MINUTES).min(MAX_RECONNECT_MINUTES)
    }

    /// The donor's `server_uuid`, if it was sent.
    pub(crate) fn server_uuid(&self) -> Option<&str> {
        self.other(SERVER_UUID)
    }

    /// Whether the donor takes digests of an older copy.
    pub fn takes_base(&self) -> bool {
        self.other(BASE_CONFIG) == Some(BASE_VALUE)
    }

    fn other(&self, name: &str) -> Option<&str> {
        let mut all = self.other_variables.iter();
        all.find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The donor's release: from the JSON packet (V4) or else from its variables.
    ///
    /// # Errors
    /// The donor sent neither, which breaks the protocol. The stock recipient aborts the server
    /// there.
    pub fn donor_release(&self) -> Result<ServerRelease> {
        if self.version >= Version::V4 {
            let json = self.json.as_deref().unwrap_or_default();
            let facts = DonorFacts::from_json(json)
                .map_err(|_| Error::Protocol("Failed to parse JSON configuration".to_owned()))?;
            let is_lts = facts.maturity.map(|maturity| maturity == "LTS");
            return Ok(ServerRelease { version: facts.version, is_lts });
        }
        let value = self.variables.iter().find(|(name, _)| name == "version");
        let Some((_, version)) = value else {
            return Err(Error::Protocol("Wrong Clone RPC response: no donor version".to_owned()));
        };
        Ok(ServerRelease { version: version.clone(), is_lts: None })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_donor_cannot_fill_the_memory() {
        let mut parameters = Parameters::default();
        let long = "c".repeat(Parameters::MAX_TEXT);
        assert!(parameters.take(&Response::Collation(&long)).unwrap());
        let longer = format!("{long}c");
        assert!(parameters.take(&Response::Collation(&longer)).is_err());
        let mut taken = 0;
        while parameters.take(&Response::Plugin("")).is_ok() {
            taken += 1;
        }
        assert!(taken * Parameters::ENTRY <= Parameters::MAX_BYTES, "{taken} entries");
    }

    #[test]
    fn the_donor_may_keep_a_clone_for_half_an_hour_at_most() {
        let minutes = |value| {
            let mut parameters = Parameters::default();
            let name = RECONNECT_TIMEOUT;
            parameters.take(&Response::ConfigV3 { name, value }).unwrap();
            parameters.reconnect_minutes()
        };
        assert_eq!(["0", "7", "30", "31", "18446744073709551615"].map(minutes), [0, 7, 30, 30, 30]);
        assert_eq!(Parameters::default().reconnect_minutes(), 5);
    }
}
