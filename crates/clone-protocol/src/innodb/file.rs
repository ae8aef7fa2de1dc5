// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_File_MetaData`, 62 bytes, the file's name, and sometimes its key.

use std::fmt;
use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U16;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;
use zeroize::Zeroizing;

use super::DescriptorKind;
use super::HeaderLayout;
use super::SnapshotState;
use crate::ProtocolError;
use crate::wire::Reader;
use crate::wire::len_u32;

/// The tablespace id of redo files, `dict_sys_t::s_log_space_id`.
pub const SPACE_ID_REDO: u32 = 0xFFFF_FFF0;

/// The tablespace id of the buffer pool dump, `dict_sys_t::s_invalid_space_id`.
pub const SPACE_ID_BUFFER_POOL: u32 = 0xFFFF_FFFF;

/// The system tablespace, `TRX_SYS_SPACE`.
const SPACE_ID_SYSTEM: u32 = 0;

/// Undo tablespaces have the ids below redo's: 127 of them, each with a range of its own
/// (`dict_sys_t::s_min_undo_space_id`). Ranges were smaller in the first releases of 8.0.
const MIN_UNDO_SPACE_ID: u32 = SPACE_ID_REDO - 127 * 400_000;

/// What a file of InnoDB is for. The tablespace id tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// One of the files of the system tablespace.
    System,
    /// An undo tablespace.
    Undo,
    /// A file of the redo log.
    Redo,
    /// The dump of the buffer pool.
    BufferPool,
    /// Any other tablespace.
    Tablespace,
}

impl FileKind {
    /// The kind of the files of a tablespace.
    pub fn of(space_id: u32) -> Self {
        match space_id {
            SPACE_ID_SYSTEM => Self::System,
            SPACE_ID_BUFFER_POOL => Self::BufferPool,
            SPACE_ID_REDO => Self::Redo,
            MIN_UNDO_SPACE_ID..SPACE_ID_REDO => Self::Undo,
            _ => Self::Tablespace,
        }
    }
}

const KEY_LEN: usize = 32;

const ZLIB: u16 = 1;
const LZ4: u16 = 2;
const AES: u16 = 4;
const RENAMED: u16 = 8;
const DELETED: u16 = 16;
const HAS_KEY: u16 = 32;

/// Where the flags stand in a whole descriptor.
pub(super) const FLAGS_AT: usize = offset_of!(Layout, flags);

const INVALID: &str = "Wrong Clone RPC: Invalid File Descriptor";

/// A file of the donor, or what DDL did to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMetadata<'a> {
    /// The state the donor is in. One ahead of the recipient's, the file was changed or created by
    /// DDL in the state before.
    pub state: SnapshotState,
    /// The file's size in bytes.
    pub file_size: u64,
    /// Bytes it takes on the donor's disk.
    pub allocated_size: u64,
    /// The tablespace's flags; all ones for redo and for the buffer pool dump.
    pub fsp_flags: u32,
    /// The donor's file system block size in bytes, for transparent page compression.
    pub block_size: u32,
    /// Transparent page compression.
    pub compression: Compression,
    /// The tablespace is encrypted.
    pub encrypted: bool,
    /// DDL renamed the file; the name is the new one.
    pub renamed: bool,
    /// DDL dropped the file.
    pub deleted: bool,
    /// Tablespace id; see [`SPACE_ID_REDO`] and [`SPACE_ID_BUFFER_POOL`].
    pub space_id: u32,
    /// The file's index, for data files and redo files apart.
    pub file_index: u32,
    /// The first of its chunks, from 1. With [`deleted`](Self::deleted) inside a state, the chunk
    /// at which the donor found out.
    pub first_chunk: u32,
    /// The last of its chunks; one less than the first when it has none.
    pub last_chunk: u32,
    /// The name without its NUL, in the donor's file system's bytes. Empty for redo only.
    pub name: &'a [u8],
    /// The tablespace's key, for an encrypted file that DDL created in PAGE_COPY.
    pub key: Option<EncryptionKey>,
}

/// [`FileMetadata`] on the wire, up to the name. Behind the name, with [`HAS_KEY`], come the key
/// and its initialization vector.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    header: HeaderLayout,
    state: U32,
    file_size: U64,
    allocated_size: U64,
    fsp_flags: U32,
    block_size: U32,
    flags: U16,
    space_id: U32,
    file_index: U32,
    first_chunk: U32,
    last_chunk: U32,
    /// With the NUL.
    name_len: U32,
}

// The offsets of docs/protocol.md, section 14.
const _: () = {
    assert!(size_of::<Layout>() == 62);
    assert!(offset_of!(Layout, state) == 12);
    assert!(offset_of!(Layout, file_size) == 16);
    assert!(offset_of!(Layout, flags) == 40);
    assert!(offset_of!(Layout, name_len) == 58);
};

impl<'a> FileMetadata<'a> {
    pub(super) fn parse(whole: &'a [u8]) -> Result<Self, ProtocolError> {
        let parts = Layout::ref_from_prefix(whole).ok();
        let file = parts.and_then(|(layout, rest)| Self::fields(layout, Reader::new(rest)));
        file.ok_or_else(|| ProtocolError::new(INVALID))
    }

    /// Flags that no release has are ignored, as InnoDB does.
    fn fields(layout: &Layout, mut rest: Reader<'a>) -> Option<Self> {
        let flags = layout.flags.get();
        let name = c_string(rest.bytes(layout.name_len.get())?)?;
        let key = if flags & HAS_KEY != 0 { Some(EncryptionKey::parse(&mut rest)?) } else { None };
        rest.is_empty().then_some(Self {
            state: SnapshotState::from_wire(layout.state.get())?,
            file_size: layout.file_size.get(),
            allocated_size: layout.allocated_size.get(),
            fsp_flags: layout.fsp_flags.get(),
            block_size: layout.block_size.get(),
            compression: Compression::from_flags(flags),
            encrypted: flags & AES != 0,
            renamed: flags & RENAMED != 0,
            deleted: flags & DELETED != 0,
            space_id: layout.space_id.get(),
            file_index: layout.file_index.get(),
            first_chunk: layout.first_chunk.get(),
            last_chunk: layout.last_chunk.get(),
            name,
            key,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let name_len = if self.name.is_empty() { 0 } else { self.name.len() + 1 };
        let key_len = if self.key.is_some() { 2 * KEY_LEN } else { 0 };
        let length = size_of::<Layout>() + name_len + key_len;
        let layout = Layout {
            header: HeaderLayout::new(DescriptorKind::FileMetadata, length),
            state: (self.state as u32).into(),
            file_size: self.file_size.into(),
            allocated_size: self.allocated_size.into(),
            fsp_flags: self.fsp_flags.into(),
            block_size: self.block_size.into(),
            flags: self.flags().into(),
            space_id: self.space_id.into(),
            file_index: self.file_index.into(),
            first_chunk: self.first_chunk.into(),
            last_chunk: self.last_chunk.into(),
            name_len: len_u32(name_len).into(),
        };
        out.extend_from_slice(layout.as_bytes());
        if name_len != 0 {
            out.extend_from_slice(self.name);
            out.push(0);
        }
        if let Some(key) = &self.key {
            out.extend_from_slice(key.key());
            out.extend_from_slice(key.iv());
        }
    }

    fn flags(&self) -> u16 {
        let compression = match self.compression {
            Compression::None => 0,
            Compression::Zlib => ZLIB,
            Compression::Lz4 => LZ4,
        };
        [
            (self.encrypted, AES),
            (self.renamed, RENAMED),
            (self.deleted, DELETED),
            (self.key.is_some(), HAS_KEY),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(compression, |flags, (_, flag)| flags | flag)
    }
}

/// Transparent page compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    None,
    /// `COMPRESSION='zlib'`.
    Zlib,
    /// `COMPRESSION='lz4'`.
    Lz4,
}

impl Compression {
    /// Both flags at once mean zlib to InnoDB.
    fn from_flags(flags: u16) -> Self {
        if flags & ZLIB != 0 {
            Self::Zlib
        } else if flags & LZ4 != 0 {
            Self::Lz4
        } else {
            Self::None
        }
    }
}

/// A tablespace's key and initialization vector in clear, 32 bytes each.
///
/// Kept on the heap, so that moving it leaves no copies, and wiped when it is dropped. `Debug` does
/// not show it.
#[derive(PartialEq, Eq)]
pub struct EncryptionKey {
    bytes: Box<Zeroizing<[u8; 2 * KEY_LEN]>>,
}

impl EncryptionKey {
    /// Copies a key and its initialization vector.
    pub fn new(key: &[u8; KEY_LEN], iv: &[u8; KEY_LEN]) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 2 * KEY_LEN]));
        let (key_part, iv_part) = bytes.split_at_mut(KEY_LEN);
        key_part.copy_from_slice(key);
        iv_part.copy_from_slice(iv);
        Self { bytes }
    }

    /// The AES key.
    pub fn key(&self) -> &[u8] {
        self.bytes.split_at(KEY_LEN).0
    }

    /// The initialization vector.
    pub fn iv(&self) -> &[u8] {
        self.bytes.split_at(KEY_LEN).1
    }

    fn parse(body: &mut Reader<'_>) -> Option<Self> {
        let (key, iv) = (body.chunk()?, body.chunk()?);
        Some(Self::new(key, iv))
    }
}

impl Clone for EncryptionKey {
    fn clone(&self) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 2 * KEY_LEN]));
        bytes.copy_from_slice(&self.bytes[..]);
        Self { bytes }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").finish_non_exhaustive()
    }
}

/// Whether a descriptor, whole or not, holds a key in clear.
pub(super) fn holds_key(descriptor: &[u8]) -> bool {
    let flags = descriptor.get(FLAGS_AT..).and_then(|rest| U16::ref_from_prefix(rest).ok());
    flags.is_some_and(|(flags, _)| flags.get() & HAS_KEY != 0)
}

/// A name with its NUL at the end and nowhere else. No bytes at all are no name, but a NUL alone is
/// not, because InnoDB would take the target directory for the file.
fn c_string(bytes: &[u8]) -> Option<&[u8]> {
    let Some((last, name)) = bytes.split_last() else { return Some(&[]) };
    (*last == 0 && !name.is_empty() && !name.contains(&0)).then_some(name)
}
