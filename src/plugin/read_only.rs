// SPDX-License-Identifier: GPL-2.0-only

//! The plugin in a server whose InnoDB changes nothing. The plugin is loaded there, so that the
//! server starts, but nothing is cloned, and the `performance_schema` tables are absent: the
//! data dictionary takes no tables.

use clone_core::read_only::{ReadOnly, VARIABLES};

use crate::server::error_log::CLIENT;
use crate::server::services::services;
use crate::server::thd::Thd;

/// The setting for which InnoDB of this server changes nothing. For `init`, on its thread.
pub(super) fn setting() -> Option<ReadOnly> {
    let values = Thd::with_current(|thd| services().clone_protocol.configs(thd, &VARIABLES));
    ReadOnly::of(&values?.ok()?)
}

/// Warns that the tables are absent.
pub(super) fn warn(setting: ReadOnly) {
    log::warn!(
        target: CLIENT,
        "performance_schema.clone_status and clone_progress are absent, and CLONE is refused: with \
         {setting} InnoDB changes nothing. Restart the server without this setting to clone"
    );
}
