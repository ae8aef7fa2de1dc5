// SPDX-License-Identifier: GPL-2.0-only

//! What the fuzz targets call.

use clone_protocol::innodb::PageSize;

use super::checksum::PageState;
use super::version;
use crate::format::redo::{BLOCK, LogBlock, seal};
use crate::format::space_header::SpaceHeader;

/// Parses bytes in each way in which a data directory is parsed.
pub fn parse(bytes: &[u8]) {
    let _ = SpaceHeader::parse(bytes).page_size();
    for flags in [0, 0x4029] {
        if let Some(size) = PageSize::of(flags) {
            let _ = PageState::of(bytes, size, None);
        }
    }
    let _ = LogBlock::parse(bytes, 0, true);
    if let Some(mut block) = bytes.get(..BLOCK).map(<[u8]>::to_vec) {
        seal(&mut block);
        let _ = (LogBlock::parse(&block, 0, true), LogBlock::parse(&block, u64::MAX, false));
    }
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
