// SPDX-License-Identifier: GPL-2.0-only

//! A real RocksDB, load and proofs for the tests of the MyRocks clone.
//!
//! * [`live`]: a running RocksDB, by its C interface. [`load`]: data, and writers.
//! * [`database`]: it as the donor sees it. [`verify`]: a copy compared with it, key by key.
//! * [`local`], [`socket`]: clones within a process and over TCP, with an engine on each side.
//! * [`node`]: a data directory with a database in it, as a server starts on it.
//! * [`exported`]: an engine behind the C functions that the plugin's library exports.
//!
//! RocksDB is the installed one (Debian: `librocksdb-dev`): nothing of it is compiled, and the
//! plugin never links it.

pub mod database;
pub mod exported;
pub mod live;
pub mod load;
pub mod local;
pub mod node;
pub mod socket;
pub mod verify;
