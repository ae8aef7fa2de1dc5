// SPDX-License-Identifier: GPL-2.0-only

//! Packed blocks, which a recipient unpacks. The first bytes choose the form, and the length that
//! the descriptor has announced.

#![no_main]

use clone_io::Unpacker;
use clone_protocol::BlockForm;

libfuzzer_sys::fuzz_target!(|input: (u8, u16, &[u8])| {
    let (form, len, packed) = input;
    let form = BlockForm::ALL[usize::from(form) % BlockForm::ALL.len()];
    let mut block = vec![0xee; usize::from(len)];
    let _ = Unpacker::new().unpack(form, packed, &mut block);
});
