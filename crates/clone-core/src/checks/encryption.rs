// SPDX-License-Identifier: GPL-2.0-only

//! Encrypted data cross the network with TLS only, and need a keyring at the recipient. InnoDB
//! finds out in the middle of the copy.

use super::finding::Check;
use super::report::Findings;
use super::server::ServerChecks;
use crate::error::Error;
use crate::facts::{Facts, Question};
use crate::parameters::Parameters;

/// Since 8.0.24.
const COMPONENT: &str = "SELECT STATUS_VALUE FROM performance_schema.keyring_component_status \
                         WHERE STATUS_KEY = 'Component_status' AND STATUS_VALUE = 'Active'";

const PLUGIN: &str = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS \
                      WHERE PLUGIN_TYPE = 'KEYRING' AND PLUGIN_STATUS = 'ACTIVE'";

const UNKNOWN: &str = "the account at the donor may not read which tablespaces are encrypted";
const GRANT: &str = "GRANT PROCESS ON *.* to the account at the donor";

pub(super) fn check<S: ServerChecks>(findings: &mut Findings<'_, S>, donor: &Parameters) {
    let Some(encrypted) = encrypted(&donor.facts) else {
        findings.skip(Check::Tls, UNKNOWN, GRANT);
        findings.skip(Check::Keyring, UNKNOWN, GRANT);
        return;
    };
    if !encrypted.is_empty() && donor.facts.has_tls() == Some(false) {
        findings.refuse(
            Check::Tls,
            &Error::EncryptionNeedsTls,
            "Leave REQUIRE NO SSL out, and turn TLS on at the donor",
        );
    }
    findings.done(Check::Tls);
    let has_keyring = if encrypted.is_empty() { Some(true) } else { has_keyring(findings.server) };
    match has_keyring {
        Some(true) => {}
        Some(false) => findings.refuse(
            Check::Keyring,
            &Error::SystemConfig(format!(
                "encrypted at the donor: {encrypted}. This server has no keyring"
            )),
            "Load a keyring component or plugin in this server",
        ),
        None => findings.skip(
            Check::Keyring,
            "performance_schema is off, so that the keyring components are not known",
            "Make sure that this server has a keyring",
        ),
    }
    findings.done(Check::Keyring);
}

/// What is encrypted at the donor, for a message. None if the donor did not say enough.
fn encrypted(facts: &Facts) -> Option<String> {
    let logs = [Question::RedoEncryption, Question::UndoEncryption];
    let logs = logs.iter().filter(|log| facts.count(**log) == Some(1));
    let mut parts: Vec<_> = logs.filter_map(|log| facts.text(*log)).map(str::to_owned).collect();
    match facts.count(Question::EncryptedTablespaces) {
        None if parts.is_empty() => return None,
        None | Some(0) => {}
        Some(_) => {
            parts.push(format!("tablespaces: {}", facts.examples(Question::EncryptedTablespaces)));
        }
    }
    Some(parts.join(", "))
}

/// Whether this server has a keyring. None if performance_schema does not say.
fn has_keyring(server: &impl ServerChecks) -> Option<bool> {
    let is_any = |statement| server.rows(statement).is_some_and(|rows| !rows.is_empty());
    if is_any(COMPONENT) || is_any(PLUGIN) {
        return Some(true);
    }
    let is_on = server.variables(&["performance_schema"]).ok()?.pop()?;
    (is_on == "ON" || is_on == "1").then_some(false)
}
