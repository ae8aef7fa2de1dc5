// SPDX-License-Identifier: GPL-2.0-only

//! What lives from the plugin's `init` to its `deinit`.

use std::sync::{Arc, Mutex, PoisonError};

use crate::mysqld::host::MysqldHost;
use crate::server::pfs::RegisteredTables;

/// What `init` makes and `deinit` drops.
pub(super) struct Loaded {
    pub(super) host: Arc<MysqldHost>,
    /// None while mysqld runs with `--initialize`, and if InnoDB changes nothing:
    /// performance_schema takes no tables then.
    pub(super) tables: Option<RegisteredTables>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The plugin is loaded.
pub(super) fn set(loaded: Loaded) {
    *LOADED.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
}

/// The plugin is being unloaded.
pub(super) fn take() -> Option<Loaded> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The server, as long as the plugin is loaded.
pub(super) fn host() -> Option<Arc<MysqldHost>> {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref().map(|loaded| Arc::clone(&loaded.host))
}
