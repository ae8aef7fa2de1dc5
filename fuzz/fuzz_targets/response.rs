// SPDX-License-Identifier: GPL-2.0-only

//! Responses, which a recipient parses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_protocol::fuzzing::response(bytes));
