// SPDX-License-Identifier: GPL-2.0-only

//! RocksDB, as MyRocks clones it: what is copied are files.
//!
//! * [`Database`]: what a donor needs of a live RocksDB, whoever owns it.
//! * [`Donor`]: checkpoints of hard links, renewed while they age, and write-ahead logs cut at one
//!   point.
//! * [`Client`]: the recipient, which fills directories beside the live ones.
//! * [`Swap`]: puts a clone in place when a server starts.
//! * [`RocksDb`]: both as one [`Engine`](clone_engine::Engine).
//!
//! The bytes between the two are in [`clone_protocol::rocksdb`].

#![forbid(unsafe_code)]

pub use client::Client;
pub use database::Connection;
pub use database::Cut;
pub use database::Database;
pub use database::WalFile;
pub use donor::Donor;
pub use donor::DonorOptions;
pub use donor::remove_stale_checkpoints;
pub use engine::RocksDb;
pub use layout::Layout;
pub use swap::Outcome;
pub use swap::Standing;
pub use swap::Swap;

mod client;
mod database;
mod donor;
mod engine;
mod layout;
mod storage;
mod swap;
