// SPDX-License-Identifier: GPL-2.0-only

//! What MyRocks writes into locators and descriptors (facebook/mysql-5.6,
//! `storage/rocksdb/clone/common.h`).
//!
//! All integers are big-endian. Everything begins with the 12 bytes of a header: `u32` version @0,
//! which is 1; `u32` length @4; `u32` kind @8. Upstream's comments call the length that of what
//! follows; its code writes and expects the whole length, the 12 bytes included, and so does this.

use std::fmt;

pub use descriptor::AddEstimate;
pub use descriptor::Descriptor;
pub use descriptor::FileChunk;
pub use descriptor::FileNameMap;
pub use descriptor::FileSize;
pub use locator::CloneId;
pub use locator::FileState;
pub use locator::Locator;
pub use name::FileName;

use crate::ProtocolError;
use crate::wire::Reader;
use crate::wire::len_u32;

mod descriptor;
mod locator;
mod name;

/// `legacy_db_type` of ROCKSDB in Percona Server. Meta's servers say 28; Oracle's have none.
pub const DB_TYPE_PERCONA: u8 = 42;

/// `legacy_db_type` of ROCKSDB in Meta's server.
pub const DB_TYPE_META: u8 = 28;

/// The version of all formats.
pub const VERSION: u32 = 1;

/// What some bytes are (`Metadata_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// LOCATOR_V1.
    Locator = 0,
    /// FILE_NAME_MAP_V1.
    FileNameMap = 1,
    /// FILE_CHUNK_V1.
    FileChunk = 2,
    /// ADD_ESTIMATE_V1.
    AddEstimate = 3,
}

impl Kind {
    fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Locator,
            1 => Self::FileNameMap,
            2 => Self::FileChunk,
            3 => Self::AddEstimate,
            _ => return None,
        })
    }
}

/// Bytes in a header.
const HEADER_LEN: usize = 12;

/// The kind that the header says, and what stands behind it.
fn open(bytes: &[u8]) -> Result<(Kind, Reader<'_>), ProtocolError> {
    let mut reader = Reader::new(bytes);
    let mut field = || reader.u32_be().ok_or_else(|| invalid("shorter than a header"));
    let (version, length, kind) = (field()?, field()?, field()?);
    if version != VERSION {
        return Err(invalid(format_args!("version {version}")));
    }
    if usize::try_from(length) != Ok(bytes.len()) {
        return Err(invalid(format_args!("length {length} in {} bytes", bytes.len())));
    }
    let kind = Kind::from_wire(kind).ok_or_else(|| invalid(format_args!("kind {kind}")))?;
    Ok((kind, reader))
}

/// Replaces what is in `out` by a header and what `body` writes behind it.
fn seal(kind: Kind, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.clear();
    out.extend_from_slice(&[0; HEADER_LEN]);
    body(out);
    let fields = [VERSION, len_u32(out.len()), kind as u32];
    for (place, field) in out.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_be_bytes());
    }
}

fn invalid(detail: impl fmt::Display) -> ProtocolError {
    ProtocolError::detailed("Wrong Clone RPC: Invalid RocksDB metadata", detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
