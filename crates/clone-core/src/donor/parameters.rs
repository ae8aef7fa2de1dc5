// SPDX-License-Identifier: GPL-2.0-only

//! The parameters that a donor sends before any data.

use clone_protocol::{BASE_CONFIG, BASE_VALUE, Response, Version};

use crate::compat;
use crate::error::Result;
use crate::parameters::{RECONNECT_TIMEOUT, SERVER_UUID};
use crate::session::{DonorSession, Host};

/// Variables that must be equal at the recipient, in the order in which the stock donor sends them.
const MATCHING: [&str; 7] = [
    "version",
    "version_compile_machine",
    "version_compile_os",
    "character_set_server",
    "character_set_filesystem",
    "collation_server",
    "innodb_page_size",
];

/// Whether this donor packs blocks for a recipient that asks for that. Its administrator forbids
/// compression with `protocol_compression_algorithms = uncompressed`.
pub(super) fn allows_packing<S: DonorSession>(session: &S) -> bool {
    if session.host().release().protocol == Version::V1 {
        // V1 is spoken by releases before 8.0.24. The oldest, 8.0.17, lacks the variable, and
        // reading it would raise an error. So these donors always pack.
        return true;
    }
    let values = session.variables(&["protocol_compression_algorithms"]).unwrap_or_default();
    values.first().is_none_or(|value| !value.eq_ignore_ascii_case("uncompressed"))
}

/// Sends all that the recipient has to check, in the order of the stock donor.
pub(super) fn send<S: DonorSession>(
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
    for (name, value) in MATCHING.iter().zip(session.variables(&MATCHING)?) {
        send(&Response::Config { name, value: &value })?;
    }
    if version < Version::V3 {
        return Ok(());
    }
    let names = [RECONNECT_TIMEOUT, SERVER_UUID];
    for (name, value) in names.iter().zip(session.variables(&names)?) {
        // A donor without a server has no UUID.
        if value.is_empty() {
            continue;
        }
        send(&Response::ConfigV3 { name, value: &value })?;
    }
    send(&Response::ConfigV3 { name: BASE_CONFIG, value: BASE_VALUE })?;
    if version < Version::V4 {
        return Ok(());
    }
    let version = session.variables(&["version"])?.pop().unwrap_or_default();
    let json = compat::to_json(&version, session.maturity());
    send(&Response::ConfigV4 { name: "json_configs", value: &json })
}
