// SPDX-License-Identifier: GPL-2.0-only

//! Pages, redo blocks and texts of a data directory, which `mysql-clone serve` parses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_innodb::cold::fuzzing::parse(bytes));
