// SPDX-License-Identifier: GPL-2.0-only

//! The encryption information of a tablespace or of the redo log (`os0enc.cc:Encryption`).
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 3 | `lCC` |
//! | 3 | 4 | number of the master key; 0 in what comes clear |
//! | 7 | 36 | UUID of the server that made the master key |
//! | 43 | 64 | key and vector, 32 bytes each, AES-256-ECB with the master key |
//! | 107 | 4 | CRC-32C of key and vector in clear |

use std::ops::Range;

use clone_protocol::innodb::PageSize;

use super::extents;
use super::redo::at;

/// Bytes of the encryption information (`Encryption::INFO_SIZE`).
pub(crate) const LEN: usize = 111;

/// `Encryption::KEY_MAGIC_V3`: what 8.0 and later write.
pub(crate) const MAGIC: &[u8; 3] = b"lCC";
/// The number of the master key.
pub(crate) const MASTER_KEY: Range<usize> = 3..7;
/// The UUID in the master key's name.
pub(crate) const UUID: Range<usize> = 7..43;
/// Key and vector.
pub(crate) const PAIR: Range<usize> = 43..107;
/// The checksum.
pub(crate) const SUM: Range<usize> = 107..LEN;

/// Where the information is in page 0: behind the extent descriptors
/// (`fsp_header_get_encryption_offset`).
pub(crate) fn in_page_0(page_size: PageSize) -> usize {
    extents::end(page_size)
}

/// The information in the header of a redo file, of any version. None if there is none.
pub(crate) fn of_redo(header: &[u8]) -> Option<&[u8; LEN]> {
    let info = header.get(at::KEY..at::KEY + LEN).filter(|_| is_in_redo(header, 0))?;
    info.try_into().ok()
}

/// Whether a part of the first redo file, from `offset`, holds encryption information of any
/// version (`Encryption::KEY_MAGIC_V1` to `V3`).
pub(crate) fn is_in_redo(bytes: &[u8], offset: u64) -> bool {
    const MAGICS: [&[u8]; 3] = [b"lCA", b"lCB", MAGIC];
    let at = usize::try_from(offset).ok().and_then(|offset| at::KEY.checked_sub(offset));
    let info = at.and_then(|at| bytes.get(at..));
    info.is_some_and(|info| MAGICS.iter().any(|magic| info.starts_with(magic)))
}
