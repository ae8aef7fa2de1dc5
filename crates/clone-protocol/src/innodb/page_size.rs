// SPDX-License-Identifier: GPL-2.0-only

/// Pages of an extent (`FSP_EXTENT_SIZE`) are as many as fit 1 MiB, but 64 from 16 KiB on.
const EXTENT_PAGES: u32 = 64;
const EXTENT: u32 = 1 << 20;

/// The sizes of a tablespace's pages in bytes (`include/page0size.h:page_size_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// In the file.
    pub physical: u32,
    /// In memory: the instance's page size.
    pub logical: u32,
    /// ROW_FORMAT=COMPRESSED. With `KEY_BLOCK_SIZE` as large as a page both sizes are the same.
    pub is_compressed: bool,
}

impl PageSize {
    /// Sizes stand in `FSP_SPACE_FLAGS` as powers of two from 512: that of compressed tables in
    /// bits 1 to 4, that of the instance in bits 6 to 9, where 0 is 16 KiB. None if InnoDB has no
    /// such sizes.
    pub fn of(fsp_flags: u32) -> Option<Self> {
        let compressed = fsp_flags >> 1 & 0xf;
        let logical = match fsp_flags >> 6 & 0xf {
            0 => 5,
            instance @ 3..=7 => instance,
            _ => return None,
        };
        match compressed {
            0 => Some(Self::whole(512 << logical)),
            1..=5 if compressed <= logical => {
                let (physical, logical) = (512 << compressed, 512 << logical);
                Some(Self { physical, logical, is_compressed: true })
            }
            _ => None,
        }
    }

    /// Of a tablespace whose pages are as long in the file as in memory.
    pub fn whole(size: u32) -> Self {
        Self { physical: size, logical: size, is_compressed: false }
    }

    /// Pages of an extent.
    pub fn extent_pages(self) -> u32 {
        (EXTENT / self.logical).max(EXTENT_PAGES)
    }

    /// Bytes of an extent in the file.
    pub fn extent_bytes(self) -> u64 {
        u64::from(self.extent_pages()) * u64::from(self.physical)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_flags() {
        let sizes = |flags| PageSize::of(flags).map(|size| (size.physical, size.logical));
        // A table of the recorded streams, its compressed one, and the instances of other sizes.
        assert_eq!(sizes(0x4021), Some((16 << 10, 16 << 10)));
        assert_eq!(sizes(0x4029), Some((8 << 10, 16 << 10)));
        assert_eq!(sizes(3 << 6), Some((4 << 10, 4 << 10)));
        // KEY_BLOCK_SIZE=8 with pages of 8 KiB.
        assert_eq!(sizes(0x4129), Some((8 << 10, 8 << 10)));
        assert!(PageSize::of(0x4129).unwrap().is_compressed);
        assert!(!PageSize::of(0x4021).unwrap().is_compressed);
        assert_eq!(sizes(7 << 6 | 0x21), Some((64 << 10, 64 << 10)));
        for flags in [1 << 6, 2 << 6, 8 << 6, 6 << 1, 4 << 1 | 3 << 6, u32::MAX] {
            assert_eq!(sizes(flags), None, "{flags:#x}");
        }
        assert_eq!(PageSize::of(0x4021).unwrap().extent_bytes(), 1 << 20);
        assert_eq!(PageSize::of(0x4029).unwrap().extent_bytes(), 512 << 10);
        assert_eq!(PageSize::of(3 << 6).unwrap().extent_bytes(), 1 << 20);
        assert_eq!(PageSize::of(7 << 6).unwrap().extent_bytes(), 4 << 20);
        assert_eq!(
            [4096, 16_384, 65_536].map(|size| PageSize::whole(size).extent_pages()),
            [256, 64, 64]
        );
    }
}
