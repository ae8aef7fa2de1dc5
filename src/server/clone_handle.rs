// SPDX-License-Identifier: GPL-2.0-only

//! The global object through which mysqld's SQL layer finds the clone plugin
//! (`sql/clone_handler.cc`).

use std::ffi::CStr;
use std::ffi::c_int;
use std::ffi::c_void;

use super::symbols::Symbols;

/// The name by which mysqld and Group Replication look for the plugin.
pub(crate) const PLUGIN_NAME: &CStr = c"clone";

/// mysqld's answer while it runs with `--initialize`.
const ER_INIT_BOOTSTRAP_COMPLETE: c_int = 10456;

/// What mysqld is doing while the plugin is loaded or unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerPhase {
    /// `--initialize`: performance_schema takes no tables yet.
    Initializing,
    Serving,
}

/// Creates the object, which makes mysqld look the plugin up. `Err` is what `init` is to return.
pub(crate) fn create(symbols: &Symbols) -> Result<ServerPhase, c_int> {
    // SAFETY: a terminated name, which is copied.
    phase(unsafe { (symbols.clone_handle_create)(PLUGIN_NAME.as_ptr()) })
}

/// Deletes the object. `Err` means that there was none.
pub(crate) fn drop_handle(symbols: &Symbols) -> Result<ServerPhase, c_int> {
    // SAFETY: mysqld deletes its object, or finds none.
    phase(unsafe { (symbols.clone_handle_drop)() })
}

/// What `check_uninstall` is to return: not 0 while somebody uses the plugin.
///
/// # Safety
/// `plugin` is what mysqld gave to `check_uninstall`, which has not returned.
pub(crate) unsafe fn check_drop(symbols: &Symbols, plugin: *mut c_void) -> c_int {
    let Some(check_drop) = symbols.clone_handle_check_drop else { return 0 };
    // SAFETY: by the caller's promise.
    unsafe { check_drop(plugin) }
}

fn phase(code: c_int) -> Result<ServerPhase, c_int> {
    match code {
        0 => Ok(ServerPhase::Serving),
        ER_INIT_BOOTSTRAP_COMPLETE => Ok(ServerPhase::Initializing),
        code => Err(code),
    }
}
