// SPDX-License-Identifier: GPL-2.0-only

//! Packed blocks, which a recipient unpacks. The first bytes choose the codec and the length that the descriptor has announced.

#![no_main]

use clone_io::{Codec, Unpacker};

libfuzzer_sys::fuzz_target!(|input: (u8, u16, &[u8])| {
    let (codec, len, packed) = input;
    let codec = [Codec::Sparse, Codec::Lz4, Codec::Zstd][usize::from(codec % 3)];
    let mut block = vec![0xee; usize::from(len)];
    let _ = Unpacker::new().unpack(codec, packed, &mut block);
});
