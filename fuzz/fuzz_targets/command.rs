// SPDX-License-Identifier: GPL-2.0-only

//! Commands, which a donor parses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_protocol::fuzzing::command(bytes));
