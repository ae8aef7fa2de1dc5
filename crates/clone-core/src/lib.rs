// SPDX-License-Identifier: GPL-2.0-only

//! Clone sessions of MySQL: the donor, the recipient and the local clone, without mysqld and
//! without sockets.
//!
//! * [`session`], [`engine`], [`link`], [`file_channel`]: the traits of everything outside, by
//!   role.
//! * [`donor`], [`recipient`], [`local`]: the three roles. `donor/way.rs` decides how a block
//!   leaves the donor, `sink.rs` how a block gets into its file. `tasks` has a thread's part in
//!   each engine, `workers` the threads of a clone.
//! * [`parameters`], [`facts`], [`checks`], [`read_only`]: what a donor tells of itself, whether a
//!   server can use its data, and whether a server can clone at all.
//! * `consistency_point`: how all engines of a clone show one moment.
//! * `traffic`, [`meter`], `tuner`, [`throttle`]: speed measured, the number of threads, and
//!   bandwidth limits. Time is passed in.
//! * [`board`], [`status`], [`progress`]: what the `performance_schema` tables show, and their
//!   files.
//! * [`donor_list`], [`excluded_plugins`], [`compat`]: `clone_valid_donor_list`,
//!   `clone_exclude_plugins_list`, and which versions may clone each other.
//! * [`base`]: an older copy at the recipient.
//! * [`bell`]: wakes a thread that waits for its next turn.
//! * [`error`], [`log_target`]: one error with MySQL's numbers, and the targets of log lines.

#![forbid(unsafe_code)]

pub mod base;
pub mod bell;
pub mod board;
pub mod checks;
pub mod compat;
mod consistency_point;
mod digests;
pub mod donor;
pub mod donor_list;
pub mod engine;
pub mod error;
pub mod excluded_plugins;
pub mod facts;
pub mod file_channel;
pub mod link;
pub mod local;
pub mod log_target;
pub mod meter;
mod new_directory;
pub mod parameters;
pub mod progress;
pub mod read_only;
pub mod recipient;
pub mod recovery;
mod saved;
pub mod session;
pub mod settings;
mod sink;
pub mod status;
mod tasks;
mod text;
pub mod throttle;
mod traffic;
mod tuner;
mod workers;
