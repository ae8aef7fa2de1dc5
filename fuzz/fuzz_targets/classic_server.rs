// SPDX-License-Identifier: GPL-2.0-only

//! What a server says to a client of the classic protocol.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_classic::fuzzing::server_packets(bytes));
