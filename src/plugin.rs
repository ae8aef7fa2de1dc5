// SPDX-License-Identifier: GPL-2.0-only

//! The plugin as mysqld sees it.

mod declaration;
mod entry;
mod tables;
pub(crate) mod variables;
