// SPDX-License-Identifier: GPL-2.0-only

//! Puts a clone in the place of a server's data. The server has its old data or the clone, whatever
//! interrupts the swap.
//!
//! * [`replacement`]: InnoDB and the binary log, by the lists that InnoDB itself works off when it
//!   starts.
//! * [`disk`]: the file system, so that a test can stop at every step.

#![forbid(unsafe_code)]

pub mod disk;
pub mod replacement;
