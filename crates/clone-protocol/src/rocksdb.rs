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

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U32;

use crate::ProtocolError;
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

/// The head of everything on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderLayout {
    version: U32,
    length: U32,
    kind: U32,
}

const _: () = assert!(size_of::<HeaderLayout>() == 12);

impl HeaderLayout {
    /// The header of so many bytes in all.
    fn new(kind: Kind, length: usize) -> Self {
        let length = len_u32(length).into();
        Self { version: VERSION.into(), length, kind: (kind as u32).into() }
    }
}

/// The kind that the header says. The header fits the bytes.
fn kind_of(bytes: &[u8]) -> Result<Kind, ProtocolError> {
    let header = HeaderLayout::ref_from_prefix(bytes);
    let (header, _) = header.map_err(|_| invalid("shorter than a header"))?;
    if header.version != VERSION {
        return Err(invalid(format_args!("version {}", header.version)));
    }
    if usize::try_from(header.length.get()) != Ok(bytes.len()) {
        return Err(invalid(format_args!("length {} in {} bytes", header.length, bytes.len())));
    }
    let kind = header.kind.get();
    Kind::from_wire(kind).ok_or_else(|| invalid(format_args!("kind {kind}")))
}

fn invalid(detail: impl fmt::Display) -> ProtocolError {
    ProtocolError::detailed("Wrong Clone RPC: Invalid RocksDB metadata", detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
