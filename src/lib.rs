// SPDX-License-Identifier: GPL-2.0-only

//! MySQL's clone plugin in Rust: the library `libmysql_clone.so` that a mysqld loads.
//!
//! A map:
//!
//! * `plugin`: what mysqld sees: declaration, system variables, `performance_schema` tables, entry
//!   points.
//! * `mysqld`: mysqld as the clone logic (crate `clone-core`) sees it.
//! * `server`: each call of mysqld, with its reason why it is safe, and the table of what differs
//!   by server version.
//! * [`c_api`]: what engines without a clone interface of their own find here
//!   (`include/clone_engine.h`).
//! * `myrocks`: the MyRocks of this server, which gets a clone interface from `c_api`.
//! * `guard`: no panic crosses into mysqld.
//! * [`server_report`]: what can be said of a mysqld without loading into it.

pub mod c_api;
mod guard;
mod myrocks;
mod mysqld;
mod plugin;
mod server;
pub mod server_report;
