// SPDX-License-Identifier: GPL-2.0-only

//! Option files and login files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone_classic::fuzzing::option_files(bytes));
