// SPDX-License-Identifier: GPL-2.0-only

//! The accounts of this server, as far as a recipient must know of them.

use clone_core::parameters::AccountPlugin;

use crate::server::error_log::SERVER;
use crate::server::sql::run_apart;

/// Accounts that are locked cannot log in anywhere, as those of mysqld itself.
const PLUGINS: &str =
    "SELECT plugin, COUNT(*) FROM mysql.user WHERE account_locked = 'N' GROUP BY plugin";

/// The authentication plugins of accounts that are not locked. Empty if they cannot be read: the
/// recipient then does not check them.
pub(super) fn plugins() -> Vec<AccountPlugin> {
    let rows = run_apart(PLUGINS).unwrap_or_else(|error| {
        log::info!(target: SERVER, "The accounts were not looked at: {error}");
        Vec::new()
    });
    let plugins = rows.into_iter().filter_map(|row| match <[_; 2]>::try_from(row) {
        Ok([Some(name), Some(accounts)]) => {
            Some(AccountPlugin { name, accounts: accounts.parse().ok()? })
        }
        _ => None,
    });
    plugins.collect()
}
