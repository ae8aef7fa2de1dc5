// SPDX-License-Identifier: GPL-2.0-only

//! The simulation: [`scheduler`] runs the threads, [`server`], [`session`] and [`commits`] are
//! mysqld, [`engine`] is InnoDB, [`follower`] an engine beside it, [`network`] connects them,
//! [`faults`] is where tests interfere, and [`world`] puts all together.

mod commits;
mod engine;
mod engines;
mod faults;
mod files;
mod follower;
mod log;
mod network;
mod rng;
mod scenarios;
mod scheduler;
mod server;
mod session;
mod world;
