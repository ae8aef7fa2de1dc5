// SPDX-License-Identifier: GPL-2.0-only

//! What a client says to a server of the classic protocol.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_classic::fuzzing::client_packets(bytes));
