// SPDX-License-Identifier: GPL-2.0-only

//! Numbers in pages. InnoDB writes the highest byte first. What lies outside of the bytes reads as
//! zero: most callers pass whole pages.

/// Two bytes.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|found| found.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// Four bytes.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|found| found.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Eight bytes.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|found| found.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole pieces first, so that the compiler can use wide registers.
    let (pieces, rest) = bytes.as_chunks::<64>();
    pieces.iter().all(|piece| *piece == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}
