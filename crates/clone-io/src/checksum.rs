// SPDX-License-Identifier: GPL-2.0-only

//! The checksum of a block.

/// CRC-32C (Castagnoli), as InnoDB uses it for its pages; with the processor's instruction where it
/// has one.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// [`checksum`] of bytes that come piece by piece.
#[derive(Debug)]
pub struct Checksum(crc_fast::Digest);

impl Default for Checksum {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn finish(&self) -> u32 {
        // The library has one type for checksums of 32 and 64 bits.
        self.0.finalize() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_castagnoli() {
        // RFC 3720, B.4.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
        let mut pieces = Checksum::default();
        assert_eq!(pieces.finish(), 0);
        let bytes: Vec<u8> = (0..10_000).map(|i| (i * 31 % 251) as u8).collect();
        bytes.chunks(777).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), checksum(&bytes));
    }
}
