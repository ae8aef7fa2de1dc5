// SPDX-License-Identifier: GPL-2.0-only

//! A hostile donor's stream, against a model of InnoDB.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    clone_protocol::fuzzing::stream_check(bytes);
});
