// SPDX-License-Identifier: GPL-2.0-only

//! The three descriptors that a donor sends.

use super::FileName;
use super::Kind;
use super::invalid;
use super::open;
use super::seal;
use crate::ProtocolError;
use crate::wire::Reader;
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

/// FILE_NAME_MAP_V1: `u64` file @12, `u64` size @20, `u32` length of the name @28, name.
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

/// FILE_CHUNK_V1: `u64` file @12, `u64` length @20.
///
/// Without an offset: the chunks of a file come in order, on one connection at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileChunk {
    /// A file of a [`FileNameMap`] before.
    pub file: u64,
    /// Bytes in the DATA packet; not 0.
    pub len: u32,
}

/// ADD_ESTIMATE_V1: `u64` bytes @12.
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
        let (kind, body) = open(bytes)?;
        let parsed = match kind {
            Kind::Locator => None,
            Kind::FileNameMap => FileNameMap::parse(body).map(Self::FileNameMap),
            Kind::FileChunk => FileChunk::parse(body).map(Self::FileChunk),
            Kind::AddEstimate => AddEstimate::parse(body).map(Self::AddEstimate),
        };
        parsed.ok_or_else(|| invalid(format_args!("{kind:?} of {} bytes", bytes.len())))
    }

    /// Replaces what is in `out` by the descriptor.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::FileNameMap(FileNameMap { file, size, name }) => {
                seal(Kind::FileNameMap, out, |out| {
                    let name = name.as_str().as_bytes();
                    out.extend_from_slice(&file.to_be_bytes());
                    out.extend_from_slice(&size.get().to_be_bytes());
                    out.extend_from_slice(&len_u32(name.len()).to_be_bytes());
                    out.extend_from_slice(name);
                });
            }
            Self::FileChunk(FileChunk { file, len }) => seal(Kind::FileChunk, out, |out| {
                out.extend_from_slice(&file.to_be_bytes());
                out.extend_from_slice(&u64::from(*len).to_be_bytes());
            }),
            Self::AddEstimate(AddEstimate { bytes }) => seal(Kind::AddEstimate, out, |out| {
                out.extend_from_slice(&bytes.to_be_bytes());
            }),
        }
    }

    /// The descriptor's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

impl<'a> FileNameMap<'a> {
    fn parse(mut body: Reader<'a>) -> Option<Self> {
        let file = body.u64_be()?;
        let size = FileSize::new(body.u64_be()?)?;
        let len = body.u32_be()?;
        let name = FileName::new(body.bytes(len)?)?;
        body.is_empty().then_some(Self { file, size, name })
    }
}

impl FileChunk {
    /// A packet holds less than 4 GiB, so a longer chunk cannot follow.
    fn parse(mut body: Reader<'_>) -> Option<Self> {
        let file = body.u64_be()?;
        let len = u32::try_from(body.u64_be()?).ok()?;
        (len != 0 && body.is_empty()).then_some(Self { file, len })
    }
}

impl AddEstimate {
    fn parse(mut body: Reader<'_>) -> Option<Self> {
        let bytes = body.u64_be()?;
        body.is_empty().then_some(Self { bytes })
    }
}
