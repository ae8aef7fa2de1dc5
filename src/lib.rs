// SPDX-License-Identifier: GPL-2.0-only

//! MySQL's clone plugin in Rust: the library `libmysql_clone.so`, which mysqld loads.
//!
//! A map:
//!
//! * `plugin`: what mysqld sees: declaration, system variables, `performance_schema` tables, entry
//!   points.
//! * `mysqld`: the traits of the crate `clone-core`, implemented by mysqld.
//! * `server`: each call of mysqld, with the reason why it is safe, and one file with all that
//!   differs by release.
//! * [`c_api`]: a clone interface for engines that have none (`include/clone_engine.h`).
//! * `myrocks`: gives MyRocks the clone interface of `c_api`.
//! * `guard`: no panic crosses into mysqld.
//! * [`server_report`]: what can be said of a mysqld without loading into it.

pub mod c_api;
mod guard;
mod myrocks;
mod mysqld;
mod plugin;
mod server;
pub mod server_report;
