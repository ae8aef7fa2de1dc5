// SPDX-License-Identifier: GPL-2.0-only

//! Clone sessions in a simulation: servers, engines and the network are in memory, the clone logic
//! is the real one.
//!
//! Everything that is random comes from a seed, also the order in which threads run, so a failure
//! can be repeated:
//!
//! * `SIM_SEED=7 cargo test -p clone-core --test simulation random_faults` runs only seed 7.
//! * `SIM_SEEDS=5000 SIM_FIRST=100000 ...` runs so many seeds from this one on, instead of the
//!   usual ones.
//! * `SIM_TRACE=1 ...` prints what happened in a simulation that failed: packets, log lines and
//!   interference.
//!
//! [`sim::world`] has the servers and what must be true after every clone; `sim::scenarios` are the
//! tests.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod sim;
