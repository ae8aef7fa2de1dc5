// SPDX-License-Identifier: GPL-2.0-only

//! What MySQL's own debug tests ask of the plugin by DBUG keyword. Nothing of this happens on a
//! release server.

use clone_core::parameters::{Parameters, ServerRelease};
use clone_protocol::{Command, CommandCode, EngineLocator, Version};

use crate::server::debug::debug_keyword;

/// The payload of a recipient's command, changed as a test wants; none if it stays as it is.
pub(super) fn changed_payload(code: CommandCode, payload: &[u8]) -> Option<Vec<u8>> {
    const NO_ENGINE: u8 = 0xff;
    const MYISAM: u8 = 9;
    let mut db_type = None;
    let mut version = None;
    match code {
        CommandCode::Init | CommandCode::Reinit | CommandCode::Attach => {
            if debug_keyword("clone_set_to_protocol_version_3") {
                version = Some(Version::V3.number());
            }
            if debug_keyword("clone_send_invalid_locator_db_type") {
                db_type = Some(NO_ENGINE);
            }
            if debug_keyword("clone_send_locator_db_type_without_clone_callbacks") {
                db_type = Some(MYISAM);
            }
        }
        CommandCode::Ack if debug_keyword("clone_send_invalid_ack_locator_db_type") => {
            db_type = Some(NO_ENGINE);
        }
        _ => {}
    }
    if db_type.is_none() && version.is_none() {
        return None;
    }
    let set = |locator: &mut EngineLocator| locator.db_type = db_type.unwrap_or(locator.db_type);
    let mut command = Command::parse(code as u8, payload).ok()?;
    match &mut command {
        Command::Init(init) | Command::Reinit(init) | Command::Attach(init) => {
            init.version = version.unwrap_or(init.version);
            init.locators.iter_mut().for_each(set);
        }
        Command::Ack(ack) => set(&mut ack.locator),
        Command::Execute | Command::Exit | Command::Heartbeat(_) | Command::Base(_) => return None,
    }
    let mut changed = Vec::new();
    command.encode_payload(&mut changed);
    Some(changed)
}

/// What a donor told of itself, changed as a test wants; none if it stays as it is.
pub(super) fn changed_parameters(donor: &Parameters) -> Option<Parameters> {
    debug_keyword("clone_inject_invalid_donor_plugin_so").then(|| {
        let mut changed = donor.clone();
        for plugin in changed.plugins.iter_mut().filter(|(_, library)| library.is_some()) {
            *plugin = ("clone_path_traversal".into(), Some("../clone_path_traversal.so".into()));
        }
        changed
    })
}

/// The pairs of (recipient, donor) that tests of versions ask for.
const VERSIONS: [(&str, &str, &str); 9] = [
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

/// The releases of recipient and donor, changed as a test wants.
pub(super) fn changed_releases(
    recipient: &ServerRelease,
    donor: &ServerRelease,
) -> (ServerRelease, ServerRelease) {
    let mut pair = (recipient.clone(), donor.clone());
    if debug_keyword("clone_across_lts_version_match") {
        pair.0.version.clone_from(&pair.1.version);
    }
    for (keyword, recipient, donor) in VERSIONS {
        if debug_keyword(keyword) {
            pair.0.version = recipient.to_owned();
            pair.1.version = donor.to_owned();
            if keyword == "clone_one_lts_to_next_lts" {
                pair.0.is_lts = pair.0.is_lts.map(|_| true);
                pair.1.is_lts = pair.1.is_lts.map(|_| true);
            }
        }
    }
    pair
}
