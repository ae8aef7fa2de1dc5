// SPDX-License-Identifier: GPL-2.0-only

//! The three descriptors that a donor sends.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

use super::FileName;
use super::HeaderLayout;
use super::Kind;
use super::invalid;
use super::kind_of;
use crate::ProtocolError;
use crate::wire::len_u32;

/// What a donor's engine tells the recipient's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor<'a> {
    /// Numbers a file.
    FileNameMap(FileNameMap<'a>),
    /// Says whose bytes are in the DATA packet that follows.
    FileChunk(FileChunk),
    /// There is more to come.
    AddEstimate(AddEstimate),
}

/// FILE_NAME_MAP_V1.
///
/// A file whose size is 0 is complete with this; others when as many bytes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNameMap<'a> {
    /// The file's number in this clone; from 0, one for each name.
    pub file: u64,
    /// Bytes that will come.
    pub size: FileSize,
    /// The base name; the recipient knows the directory.
    pub name: FileName<'a>,
}

/// FILE_CHUNK_V1.
///
/// Without an offset: the chunks of a file come in order, on one connection at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileChunk {
    /// A file of a [`FileNameMap`] before.
    pub file: u64,
    /// Bytes in the DATA packet; not 0.
    pub len: u32,
}

/// ADD_ESTIMATE_V1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddEstimate {
    /// So many more than was said before.
    pub bytes: u64,
}

/// A size or an offset in bytes that an `off_t` can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileSize(u64);

impl FileSize {
    /// `None` from 2^63 on.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes <= i64::MAX.unsigned_abs()).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<'a> Descriptor<'a> {
    /// Parses a descriptor that fills `bytes`.
    ///
    /// # Errors
    ///
    /// The header does not fit the bytes, or a field has a value that no donor writes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let kind = kind_of(bytes)?;
        let parsed = match kind {
            Kind::Locator => None,
            Kind::FileNameMap => FileNameMap::parse(bytes).map(Self::FileNameMap),
            Kind::FileChunk => FileChunk::parse(bytes).map(Self::FileChunk),
            Kind::AddEstimate => AddEstimate::parse(bytes).map(Self::AddEstimate),
        };
        parsed.ok_or_else(|| invalid(format_args!("{kind:?} of {} bytes", bytes.len())))
    }

    /// Replaces what is in `out` by the descriptor.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::FileNameMap(map) => map.encode(out),
            Self::FileChunk(chunk) => chunk.encode(out),
            Self::AddEstimate(estimate) => estimate.encode(out),
        }
    }

    /// The descriptor's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

/// [`FileNameMap`] on the wire, up to the name.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileNameMapLayout {
    header: HeaderLayout,
    file: U64,
    size: U64,
    name_len: U32,
}

const _: () = assert!(size_of::<FileNameMapLayout>() == 32);

/// [`FileChunk`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileChunkLayout {
    header: HeaderLayout,
    file: U64,
    len: U64,
}

const _: () = assert!(size_of::<FileChunkLayout>() == 28);

/// [`AddEstimate`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AddEstimateLayout {
    header: HeaderLayout,
    bytes: U64,
}

const _: () = assert!(size_of::<AddEstimateLayout>() == 20);

impl<'a> FileNameMap<'a> {
    fn parse(whole: &'a [u8]) -> Option<Self> {
        let (layout, name) = FileNameMapLayout::ref_from_prefix(whole).ok()?;
        if usize::try_from(layout.name_len.get()) != Ok(name.len()) {
            return None;
        }
        let (file, size) = (layout.file.get(), FileSize::new(layout.size.get())?);
        Some(Self { file, size, name: FileName::new(name)? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let name = self.name.as_str().as_bytes();
        let length = size_of::<FileNameMapLayout>() + name.len();
        let layout = FileNameMapLayout {
            header: HeaderLayout::new(Kind::FileNameMap, length),
            file: self.file.into(),
            size: self.size.get().into(),
            name_len: len_u32(name.len()).into(),
        };
        out.extend_from_slice(layout.as_bytes());
        out.extend_from_slice(name);
    }
}

impl FileChunk {
    /// A packet holds less than 4 GiB, so a longer chunk cannot follow.
    fn parse(whole: &[u8]) -> Option<Self> {
        let layout = FileChunkLayout::ref_from_bytes(whole).ok()?;
        let len = u32::try_from(layout.len.get()).ok()?;
        (len != 0).then_some(Self { file: layout.file.get(), len })
    }

    fn encode(self, out: &mut Vec<u8>) {
        let layout = FileChunkLayout {
            header: HeaderLayout::new(Kind::FileChunk, size_of::<FileChunkLayout>()),
            file: self.file.into(),
            len: u64::from(self.len).into(),
        };
        out.extend_from_slice(layout.as_bytes());
    }
}

impl AddEstimate {
    fn parse(whole: &[u8]) -> Option<Self> {
        let layout = AddEstimateLayout::ref_from_bytes(whole).ok()?;
        Some(Self { bytes: layout.bytes.get() })
    }

    fn encode(self, out: &mut Vec<u8>) {
        let layout = AddEstimateLayout {
            header: HeaderLayout::new(Kind::AddEstimate, size_of::<AddEstimateLayout>()),
            bytes: self.bytes.into(),
        };
        out.extend_from_slice(layout.as_bytes());
    }
}
