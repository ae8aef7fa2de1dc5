// SPDX-License-Identifier: GPL-2.0-only

//! Whether a server can run with the data of a donor.

use crate::error::{Error, Result};
use crate::excluded_plugins::ExcludedPlugins;
use crate::log_target::CLIENT;
use crate::parameters::{AccountPlugin, Parameters, ServerRelease};
use crate::session::Variables;

/// The smallest `max_allowed_packet` for a clone, bytes: stock's `CLONE_MIN_NET_BLOCK`.
const MIN_PACKET: u32 = 2 * 1024 * 1024;

/// InnoDB sends files in blocks of this many pages (`include/clone0snapshot.h`).
const BLOCK_PAGES: u32 = 64;

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

/// What [`check`] asks a server.
pub trait ServerChecks: Variables {
    /// Raises 3867 for each collation that this server lacks.
    fn check_collations(&self, names: &[String]) -> Result<()>;

    /// Raises 3865, 3866, 3868 (before 9.0 also 3864) for each variable whose value differs.
    fn check_variables(&self, variables: &[(String, String)]) -> Result<()>;

    /// Raises 3864 if a donor of version `donor` cannot be cloned by this server. Servers before
    /// 9.0 compare versions in [`check_variables`](Self::check_variables); there this does nothing.
    fn check_version(&self, recipient: &ServerRelease, donor: &ServerRelease) -> Result<()>;

    /// "LTS" or "INNOVATION", as this server was built.
    fn maturity(&self) -> &'static str;

    /// Whether a plugin of that name is installed. A name in `clone_exclude_plugins_list` need not
    /// be.
    fn has_plugin(&self, name: &str) -> bool;

    /// Whether `library` lies in the plugin directory and could be loaded. The library is not run,
    /// because the donor has chosen its name.
    fn can_load_plugin(&self, library: &str) -> bool;

    /// Puts an error into the diagnostics area. The check goes on.
    fn raise(&self, error: &Error);
}

/// Checks everything, raises every mismatch, and returns the last one. The user sees the first, and
/// finds the others in SHOW WARNINGS.
///
/// # Errors
/// A mismatch; `max_allowed_packet` is too small here; the donor's answer is incomplete.
pub fn check(server: &impl ServerChecks, donor: &Parameters) -> Result<()> {
    let mut outcome = Ok(());
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
            let error = Error::PluginMissing(name.clone());
            server.raise(&error);
            outcome = Err(error);
        }
    }
    outcome = server.check_collations(&donor.collations).and(outcome);
    outcome = server.check_variables(&donor.variables).and(outcome);
    let own = own_release(server)?;
    server.check_version(&own, &donor.donor_release()?)?;
    outcome.map_err(|error| Error::Raised(error.number()))?;
    check_packet_limit(server)
}

/// Checks what only matters to a server that goes on with the donor's data itself, after [`check`].
/// Raises every reason against the clone.
///
/// # Errors
/// The last reason: this server would not start with the data, or nobody could log in.
pub fn check_replacement(server: &impl ServerChecks, donor: &Parameters) -> Result<()> {
    let mut outcome = Ok(());
    let mut refuse = |text: String| {
        let error = Error::SystemConfig(text);
        server.raise(&error);
        outcome = Err(error);
    };
    let recovery = server.variables(&["innodb_force_recovery"])?.pop().unwrap_or_default();
    if recovery != "0" {
        refuse(format!(
            "innodb_force_recovery={recovery}: this server's data cannot be replaced. Restart this \
             server without this setting to clone"
        ));
    }
    if let Some(text) = nobody_can_log_in(server, donor) {
        refuse(text);
    }
    if let Some(value) = donor.lower_case_table_names() {
        let variable = [("lower_case_table_names".to_owned(), value.to_owned())];
        outcome = server.check_variables(&variable).and(outcome);
    }
    outcome.map_err(|error| Error::Raised(error.number()))
}

/// Why no account of the donor could log in here. Logs which accounts could not, if some could.
fn nobody_can_log_in(server: &impl ServerChecks, donor: &Parameters) -> Option<String> {
    let plugins = donor.account_plugins();
    let (active, missing): (Vec<_>, Vec<_>) =
        plugins.into_iter().partition(|plugin| server.has_plugin(&plugin.name));
    let list = AccountPlugin::list(&missing);
    if missing.is_empty() {
        return None;
    }
    if active.is_empty() {
        return Some(format!(
            "no account of the donor could log in here: their authentication plugins are not \
             active ({list}). Activate one of these plugins on this server to clone"
        ));
    }
    log::warn!(
        target: CLIENT,
        "Accounts of the donor will not be able to log in here, because their authentication \
         plugins are not active: {list}"
    );
    None
}

fn own_release(server: &impl ServerChecks) -> Result<ServerRelease> {
    let version = server.variables(&["version"])?.pop().unwrap_or_default();
    Ok(ServerRelease { version, is_lts: Some(server.maturity() == "LTS") })
}
