// SPDX-License-Identifier: GPL-2.0-only

//! Tablespaces, redo logs and keyrings that `mysql-clone verify` reads.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_innodb::verify::fuzzing::verify(bytes));
