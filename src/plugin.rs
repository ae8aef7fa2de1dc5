// SPDX-License-Identifier: GPL-2.0-only

//! The plugin as mysqld sees it.

mod declaration;
mod entry;
mod loaded;
mod read_only;
pub(crate) mod start_up;
mod tables;
pub(crate) mod variables;
mod writable;
