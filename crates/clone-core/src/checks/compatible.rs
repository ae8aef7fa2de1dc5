// SPDX-License-Identifier: GPL-2.0-only

//! What must match for any clone: the checks of stock.

use super::finding::Check;
use super::report::Findings;
use super::server::ServerChecks;
use crate::error::{Error, Result, number};
use crate::excluded_plugins::ExcludedPlugins;
use crate::facts::Question;
use crate::log_target::CLIENT;
use crate::parameters::{Parameters, ServerRelease};
use crate::session::Variables;

/// The smallest `max_allowed_packet` for a clone, bytes: stock's `CLONE_MIN_NET_BLOCK`.
const MIN_PACKET: u32 = 2 * 1024 * 1024;

/// InnoDB sends files in blocks of this many pages (`include/clone0snapshot.h`).
const BLOCK_PAGES: u32 = 64;

pub(super) fn check<S: ServerChecks>(
    findings: &mut Findings<'_, S>,
    donor: &Parameters,
) -> Result<()> {
    plugins(findings, donor)?;
    collations(findings, &donor.collations);
    settings(findings, &donor.variables)?;
    version(findings, donor)?;
    same_donor(findings, donor);
    packet_limit(findings)
}

/// The donor that answered the question before the clone, the one that begins the clone, and the
/// one that gets the acknowledgements.
fn same_donor<S: ServerChecks>(findings: &mut Findings<'_, S>, donor: &Parameters) {
    let check = Check::SameDonor;
    let (first, second) = (donor.facts.text(Question::ServerUuid), donor.server_uuid());
    let difference = match (first, second, donor.same_donor) {
        (Some(first), Some(second), _) if first != second => {
            Some(format!("with the server_uuid {first} and {second}"))
        }
        (.., Some(false)) => {
            let other = second.map_or_else(String::new, |uuid| format!(" {uuid}"));
            Some(format!("the one for acknowledgements not the donor{other}"))
        }
        _ => None,
    };
    match difference {
        Some(difference) => findings.refuse(
            check,
            &Error::SystemConfig(format!(
                "the connections of the clone have reached different servers, {difference}"
            )),
            "Give the address of one donor, not of a load balancer",
        ),
        None if donor.facts.is_asked() && (first.is_none() || second.is_none()) => {
            findings.skip(check, "the donor did not say this", "");
        }
        None => {}
    }
    findings.done(check);
}

fn plugins<S: ServerChecks>(findings: &mut Findings<'_, S>, donor: &Parameters) -> Result<()> {
    let server = findings.server;
    let excluded = server.variables(&["clone_exclude_plugins_list"])?.pop().unwrap_or_default();
    let excluded = ExcludedPlugins::new(&excluded);
    for (name, library) in &donor.plugins {
        let known = server.has_plugin(name)
            || library
                .as_ref()
                .is_some_and(|library| library.is_empty() || server.can_load_plugin(library));
        if !known && excluded.contains(name) {
            log::info!(
                target: CLIENT,
                "Donor plugin {name} is not active here, and is in clone_exclude_plugins_list"
            );
        } else if !known {
            findings.refuse(
                Check::Plugins,
                &Error::PluginMissing(name.clone()),
                "Put its library into plugin_dir of this server, or uninstall the plugin at the \
                 donor, or add it to clone_exclude_plugins_list if the data do not need it",
            );
        }
    }
    findings.done(Check::Plugins);
    Ok(())
}

/// mysqld raises an error for each collation that is missing, and tells the number of one.
fn collations<S: ServerChecks>(findings: &mut Findings<'_, S>, names: &[String]) {
    if let Err(error) = findings.server.check_collations(names) {
        findings.refused_by_server(
            Check::Collations,
            error.number(),
            "collations of the donor are not known here: SHOW WARNINGS names them".to_owned(),
            "Install the same collations in this server",
        );
    }
    findings.done(Check::Collations);
}

/// One variable after the other, so that each mismatch has its text.
fn settings<S: ServerChecks>(
    findings: &mut Findings<'_, S>,
    variables: &[(String, String)],
) -> Result<()> {
    let server = findings.server;
    for variable in variables {
        let (name, value) = variable;
        let Err(error) = server.check_variables(std::slice::from_ref(variable)) else { continue };
        let own = server.variables(&[name])?.pop().unwrap_or_default();
        let number = error.number();
        let check =
            if number == number::ER_CLONE_DONOR_VERSION { Check::Version } else { Check::Settings };
        findings.refused_by_server(
            check,
            number,
            format!("{name} is {value} at the donor and {own} here"),
            remedy_of(name),
        );
        // mysqld compares nothing else after these.
        if matches!(number, number::ER_CLONE_OS | number::ER_CLONE_PLATFORM) {
            break;
        }
    }
    findings.done(Check::Settings);
    Ok(())
}

fn remedy_of(variable: &str) -> &'static str {
    match variable {
        "version" => "Use servers whose versions go together",
        "version_compile_os" | "version_compile_machine" => "Use servers of the same platform",
        "innodb_page_size" => "Initialise this server with the donor's value",
        _ => "Set this variable as at the donor",
    }
}

fn version<S: ServerChecks>(findings: &mut Findings<'_, S>, donor: &Parameters) -> Result<()> {
    let server = findings.server;
    let version = server.variables(&["version"])?.pop().unwrap_or_default();
    let own = ServerRelease { version, is_lts: Some(server.maturity() == "LTS") };
    let donor = donor.donor_release()?;
    if let Err(error) = server.check_version(&own, &donor) {
        let text = format!("version is {} at the donor and {} here", donor.version, own.version);
        findings.refused_by_server(Check::Version, error.number(), text, remedy_of("version"));
    }
    findings.done(Check::Version);
    Ok(())
}

fn packet_limit<S: ServerChecks>(findings: &mut Findings<'_, S>) -> Result<()> {
    match check_packet_limit(findings.server) {
        Err(error @ Error::NetworkPacket { required, .. }) => findings.refuse(
            Check::PacketLimit,
            &error,
            format!("SET PERSIST max_allowed_packet = {required}"),
        ),
        other => other?,
    }
    findings.done(Check::PacketLimit);
    Ok(())
}

/// Checks that a block of data fits into a packet.
///
/// The stock plugin asks for 2 MiB whatever the page size is. With pages of 32 and 64 KiB a block
/// is 2 and 4 MiB, and the stock clone fails in its middle with error 1153. So the limit here is
/// twice the block, which is still 2 MiB for pages of up to 16 KiB.
///
/// # Errors
/// [`Error::NetworkPacket`]; a variable could not be read.
pub fn check_packet_limit(server: &impl Variables) -> Result<()> {
    let values = server.variables(&["max_allowed_packet", "innodb_page_size"])?;
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
