// SPDX-License-Identifier: GPL-2.0-only

//! The simulation: [`scheduler`] runs the threads, [`server`] and [`session`] are mysqld, [`engine`] is InnoDB, [`network`]
//! connects them, [`faults`] is where tests interfere, and [`world`] puts all together.

mod engine;
mod faults;
mod network;
mod rng;
mod scenarios;
mod scheduler;
mod server;
mod session;
mod world;
