// SPDX-License-Identifier: GPL-2.0-only

//! Which units of a block are equal to the recipient's base, as a donor says it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_protocol::fuzzing::base_map(bytes));
