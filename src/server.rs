// SPDX-License-Identifier: GPL-2.0-only

//! The calls of mysqld, each with the reason why it is safe. Other unsafe code is in `c_api` (calls
//! from C), and in the declarations of `plugin`.
//!
//! * What mysqld is: [`version`], [`releases`] (the one table of facts that differ by version),
//!   [`symbols`] (its functions, by `dlsym`), [`abi`] (its structures, from `include/`).
//! * Services and functions: [`services`](mod@services), [`protocol`] with [`connection`] and
//!   [`donor`], [`status`], [`backup_lock`], [`error_log`], [`raise`](mod@raise), [`thd`],
//!   [`plugins`], [`clone_handle`].
//! * SQL statements of our own: [`sql`], and at a donor [`client`]. Threads of our own: [`thread`].
//! * Engines: [`handlerton`], [`engine`], and [`callback`], the object through which an engine
//!   calls back.
//! * What is registered with it: [`pfs`], [`psi`]. What only debug servers have: [`debug`].
//!
//! A function that raises returns the MySQL error number; a number in an `Err` is already raised in
//! the session, unless the function says otherwise.

pub(crate) mod abi;
pub(crate) mod backup_lock;
pub(crate) mod callback;
mod client;
pub(crate) mod clone_handle;
pub(crate) mod connection;
pub(crate) mod debug;
pub(crate) mod donor;
pub(crate) mod engine;
pub(crate) mod error_log;
#[cfg(test)]
mod fake;
pub(crate) mod handlerton;
pub(crate) mod load_error;
pub(crate) mod pfs;
pub(crate) mod pin;
pub(crate) mod plugins;
pub(crate) mod protocol;
pub(crate) mod psi;
pub(crate) mod raise;
pub(crate) mod registry;
pub(crate) mod releases;
pub(crate) mod services;
mod shim;
pub(crate) mod sql;
pub(crate) mod status;
pub(crate) mod symbols;
pub(crate) mod text;
pub(crate) mod thd;
pub(crate) mod thread;
pub(crate) mod value;
pub(crate) mod version;
