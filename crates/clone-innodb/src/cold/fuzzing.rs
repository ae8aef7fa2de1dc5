// SPDX-License-Identifier: GPL-2.0-only

//! What the fuzz targets call.

use super::checksum::PageState;
use super::redo;
use super::tablespace::FirstPage;
use super::version;
use crate::page::PageSize;

/// Parses bytes in each way in which a data directory is parsed.
pub fn parse(bytes: &[u8]) {
    let _ = FirstPage::parse(bytes);
    for flags in [0, 0x4029] {
        if let Ok(size) = PageSize::of(flags) {
            let _ = PageState::of(bytes, size);
        }
    }
    redo::parse_block(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = version::newest(text);
    }
}

#[test]
fn parsers_take_anything() {
    for len in [0, 1, 511, 512, 16 << 10] {
        parse(&vec![0xff; len]);
        parse(&vec![0; len]);
    }
}
