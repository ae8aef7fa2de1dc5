// SPDX-License-Identifier: GPL-2.0-only

//! The plugin as mysqld sees it.

pub(crate) mod clone_swap;
mod declaration;
mod entry;
mod loaded;
mod read_only;
mod tables;
pub(crate) mod variables;
mod writable;
