// SPDX-License-Identifier: GPL-2.0-only

//! The engines behind the functions of `include/clone_engine.h`.

use clone_engine::Registry;

/// By `legacy_db_type`.
pub(super) static ENGINES: Registry = Registry::new();
