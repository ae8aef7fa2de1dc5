// SPDX-License-Identifier: GPL-2.0-only

//! MyRocks' locators.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_protocol::fuzzing::rocksdb_locator(bytes));
