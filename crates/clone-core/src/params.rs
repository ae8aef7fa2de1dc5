// SPDX-License-Identifier: GPL-2.0-only

//! What donor and recipient tell each other of themselves before any data flows, and what must match.

use clone_protocol::{Response, Version};

use crate::compat::DonorFacts;
use crate::error::{Error, Result};
use crate::session::{Host, ServerRelease, Session};

/// Variables of the donor that must be equal at the recipient, in the order in which the stock donor sends them.
const MATCHING: [&str; 7] = [
    "version",
    "version_compile_machine",
    "version_compile_os",
    "character_set_server",
    "character_set_filesystem",
    "collation_server",
    "innodb_page_size",
];

/// The variable of the donor that the recipient uses instead of its own (protocol V3).
const RECONNECT_TIMEOUT: &str = "clone_donor_timeout_after_network_failure";

/// Minutes that a recipient tries to connect again if the donor did not say (before protocol V3).
const DEFAULT_RECONNECT_MINUTES: u64 = 5;

/// The maximum of `clone_donor_timeout_after_network_failure`, minutes.
const MAX_RECONNECT_MINUTES: u64 = 30;

/// The smallest `max_allowed_packet` for a clone, bytes: stock's `CLONE_MIN_NET_BLOCK`.
const MIN_PACKET: u32 = 2 * 1024 * 1024;

/// InnoDB sends files in blocks of this many pages (`include/clone0snapshot.h`).
const BLOCK_PAGES: u32 = 64;

/// Checks that a block of data fits into a packet.
///
/// The stock plugin asks for 2 MiB whatever the page size is, and then fails with error 1153 in mid-clone at 32 and 64 KiB pages
/// (a block is 2 and 4 MiB there). So the limit here is twice the block: still 2 MiB for pages of up to 16 KiB.
pub(crate) fn check_packet_limit<S: Session>(session: &S) -> Result<()> {
    let values = session.configs(&["max_allowed_packet", "innodb_page_size"])?;
    let number = |index: usize| values.get(index).and_then(|text| text.parse::<u64>().ok());
    let (Some(actual), Some(page_size)) = (number(0), number(1)) else {
        return Err(Error::Internal(
            "Error extracting integer value for 'max_allowed_packet' configuration".to_owned(),
        ));
    };
    let block = u32::try_from(page_size).unwrap_or(u32::MAX).saturating_mul(BLOCK_PAGES);
    let required = MIN_PACKET.max(block.saturating_mul(2));
    if actual < u64::from(required) {
        return Err(Error::NetworkPacket { required, actual });
    }
    Ok(())
}

/// Whether this donor packs blocks for a recipient that asks for that. Its administrator forbids
/// compression with `protocol_compression_algorithms = uncompressed`.
pub(crate) fn allows_packing<S: Session>(session: &S) -> bool {
    if session.host().release().protocol == Version::V1 {
        // These releases do not have the variable (it came with 8.0.18), and raise an error.
        return true;
    }
    let values = session.configs(&["protocol_compression_algorithms"]).unwrap_or_default();
    values.first().is_none_or(|value| !value.eq_ignore_ascii_case("uncompressed"))
}

/// Sends all that the recipient has to check, in the order of the stock donor.
pub(crate) fn send<S: Session>(
    session: &S,
    version: Version,
    mut send: impl FnMut(&Response<'_>) -> Result<()>,
) -> Result<()> {
    for plugin in session.plugins()? {
        let name = plugin.name.as_str();
        if version == Version::V1 {
            send(&Response::Plugin(name))?;
        } else {
            let library = plugin.library.as_deref().unwrap_or_default();
            send(&Response::PluginV2 { name, library })?;
        }
    }
    for name in session.collations()? {
        send(&Response::Collation(&name))?;
    }
    for (name, value) in MATCHING.iter().zip(session.configs(&MATCHING)?) {
        send(&Response::Config { name, value: &value })?;
    }
    if version < Version::V3 {
        return Ok(());
    }
    let names = [RECONNECT_TIMEOUT];
    for (name, value) in names.iter().zip(session.configs(&names)?) {
        send(&Response::ConfigV3 { name, value: &value })?;
    }
    if version < Version::V4 {
        return Ok(());
    }
    let release = own_release(session)?;
    let json = crate::compat::to_json(&release.version, session.maturity());
    send(&Response::ConfigV4 { name: "json_configs", value: &json })
}

/// What the recipient heard from the donor.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    plugins: Vec<(String, Option<String>)>,
    collations: Vec<String>,
    configs: Vec<(String, String)>,
    other: Vec<(String, String)>,
    /// What the lists take, [`Self::ENTRY`] for each entry included.
    bytes: usize,
    json: Option<String>,
}

impl Parameters {
    /// The most bytes of a name or a value. A server's plugin names have 64, its longest value of a
    /// variable here a path's 4096.
    const MAX_TEXT: usize = 64 << 10;

    /// The most bytes of all names and values; a server sends some ten thousand.
    const MAX_BYTES: usize = 16 << 20;

    /// The bytes that an entry counts beside its text: what the vectors need for it.
    const ENTRY: usize = 64;

    /// Takes a parameter packet; false if `response` is none.
    ///
    /// # Errors
    /// A text is too long, or all of them together are.
    pub(crate) fn take<S: Session>(
        &mut self,
        session: &S,
        response: &Response<'_>,
    ) -> Result<bool> {
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
                let mut plugin = (name.to_owned(), Some(library.to_owned()));
                if session.host().debug_keyword("clone_inject_invalid_donor_plugin_so") {
                    plugin =
                        ("clone_path_traversal".into(), Some("../clone_path_traversal.so".into()));
                }
                self.plugins.push(plugin);
            }
            Response::Collation(name) => self.collations.push(name.to_owned()),
            Response::Config { name, value } => self.configs.push(owned(name, value)),
            Response::ConfigV3 { name, value } => self.other.push(owned(name, value)),
            Response::ConfigV4 { value, .. } => self.json = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks everything, raises every mismatch, and gives the last one: the user sees the first and finds the rest in
    /// SHOW WARNINGS.
    pub(crate) fn check<S: Session>(&self, session: &S, version: Version) -> Result<()> {
        let mut outcome = Ok(());
        for (name, library) in &self.plugins {
            let known = session.has_plugin(name)
                || library
                    .as_ref()
                    .is_some_and(|library| library.is_empty() || session.can_load_plugin(library));
            if !known {
                let error = Error::PluginMissing(name.clone());
                session.raise(&error);
                outcome = Err(error);
            }
        }
        outcome = session.check_collations(&self.collations).and(outcome);
        outcome = match session.check_configs(&self.configs) {
            Ok(()) => outcome,
            Err(error) => Err(error),
        };
        let donor = self.donor_release(version)?;
        let mut pair = (own_release(session)?, donor);
        apply_debug_versions(session, version, &mut pair);
        session.check_version(&pair.0, &pair.1)?;
        outcome.map_err(|error| Error::Raised(error.number()))
    }

    /// How long to try to connect again, minutes: the donor's variable, or its maximum if the donor
    /// says more.
    pub(crate) fn reconnect_minutes(&self) -> u64 {
        let value = self.other.iter().find(|(name, _)| name == RECONNECT_TIMEOUT);
        let minutes = value.and_then(|(_, text)| text.parse().ok());
        minutes.unwrap_or(DEFAULT_RECONNECT_MINUTES).min(MAX_RECONNECT_MINUTES)
    }

    /// The donor's version: from the JSON packet (V4) or else from its variables. A donor that sends neither breaks the protocol;
    /// the stock recipient aborts the server there.
    fn donor_release(&self, version: Version) -> Result<ServerRelease> {
        if version >= Version::V4 {
            let json = self.json.as_deref().unwrap_or_default();
            let facts = DonorFacts::from_json(json)
                .map_err(|_| Error::Protocol("Failed to parse JSON configuration".to_owned()))?;
            let is_lts = facts.maturity.as_deref() == Some("LTS");
            return Ok(ServerRelease { version: facts.version, is_lts });
        }
        let value = self.configs.iter().find(|(name, _)| name == "version");
        let Some((_, version)) = value else {
            return Err(Error::Protocol("Wrong Clone RPC response: no donor version".to_owned()));
        };
        Ok(ServerRelease { version: version.clone(), is_lts: false })
    }
}

/// This server's release.
fn own_release<S: Session>(session: &S) -> Result<ServerRelease> {
    let version = session.configs(&["version"])?.pop().unwrap_or_default();
    Ok(ServerRelease { version, is_lts: session.maturity() == "LTS" })
}

/// The pairs of (recipient, donor) that MySQL's debug tests ask for by DBUG keyword.
const DEBUG_VERSIONS: [(&str, &str, &str); 9] = [
    ("clone_across_lts_major_mismatch", "8.4.0", "9.7.2"),
    ("clone_across_lts_minor_mismatch", "8.4.0", "8.3.2"),
    ("clone_across_lts_non_8_0_patch_mismatch", "8.4.2", "8.4.1"),
    ("clone_across_lts_8_0_patch_match", "8.0.25", "8.0.25-debug"),
    ("clone_across_lts_8_0_before_backport_patch_mismatch", "8.0.34", "8.0.35"),
    ("clone_across_lts_8_0_before_backport_patch_mis_single", "8.0.6", "8.0.7"),
    ("clone_across_lts_8_0_across_backport_patch_mismatch", "8.0.38", "8.0.35"),
    ("clone_across_lts_8_0_after_backport_patch_mismatch", "8.0.38", "8.0.37"),
    ("clone_one_lts_to_next_lts", "10.7.0", "9.7.0"),
];

/// Replaces the versions as MySQL's debug tests ask; nothing on a release server.
fn apply_debug_versions<S: Session>(
    session: &S,
    version: Version,
    pair: &mut (ServerRelease, ServerRelease),
) {
    let host = session.host();
    if host.debug_keyword("clone_across_lts_version_match") {
        pair.0.version.clone_from(&pair.1.version);
    }
    for (keyword, recipient, donor) in DEBUG_VERSIONS {
        if host.debug_keyword(keyword) {
            pair.0.version = recipient.to_owned();
            pair.1.version = donor.to_owned();
            // Before V4 nobody says how long a release is supported.
            if keyword == "clone_one_lts_to_next_lts" && version >= Version::V4 {
                pair.0.is_lts = true;
                pair.1.is_lts = true;
            }
        }
    }
}
