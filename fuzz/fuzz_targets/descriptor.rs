// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's descriptors and locators.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_protocol::fuzzing::descriptor(bytes));
