// SPDX-License-Identifier: GPL-2.0-only

//! What InnoDB writes into locators and descriptors (`storage/innobase/clone/clone0desc.cc`,
//! `include/clone0desc.h`).
//!
//! All integers are big-endian. Every descriptor begins with the 12 bytes of a [`Header`]. The
//! plugin passes descriptors on as bytes; these types are for [`StreamCheck`], which looks at them
//! before InnoDB does, and for tools that are a donor or a recipient without an InnoDB.

use std::fmt;

pub use data::Data;
pub use file::Compression;
pub use file::EncryptionKey;
pub use file::FileKind;
pub use file::FileMetadata;
pub use file::SPACE_ID_BUFFER_POOL;
pub use file::SPACE_ID_REDO;
pub use locator::IncompleteChunk;
pub use locator::Locator;
pub use locator::Progress;
pub use locator::VERSION_LOCATOR_LEN;
pub use page_size::PageSize;
pub use places::FilePlaces;
pub use places::SpacePlace;
pub use state::State;
pub use stream_check::Checked;
pub use stream_check::Directories;
pub use stream_check::Recipient;
pub use stream_check::StreamCheck;
pub use stream_check::TaskCheck;
pub use stream_check::TaskRole;
pub use task::TaskMetadata;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U32;

use crate::ProtocolError;
use crate::wire::len_u32;

mod data;
mod file;
mod locator;
mod page_size;
mod places;
mod state;
mod stream_check;
mod task;

/// `legacy_db_type` of InnoDB, the same in every fork.
pub const DB_TYPE: u8 = 12;

/// The version of the descriptors' layout, `CLONE_DESC_MAX_VERSION`; no release had another.
pub const VERSION: u32 = 100;

/// The most tasks in one clone, `CLONE_MAX_TASKS`. Their numbers begin at 0.
pub const MAX_TASKS: u32 = 128;

/// One descriptor, as it stands in a DATA_DESC or an ACK; a locator also in INIT and its like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor<'a> {
    /// Names a clone, and in a restart how far it came.
    Locator(Locator),
    /// Which of the donor's tasks this connection carries.
    TaskMetadata(TaskMetadata),
    /// A snapshot state starts or ends.
    State(State),
    /// A file of the donor.
    FileMetadata(FileMetadata<'a>),
    /// Says where the bytes of the DATA packet that follows belong.
    Data(Data),
}

impl<'a> Descriptor<'a> {
    /// Parses a descriptor that fills `bytes`, except that a locator may stand in a longer buffer.
    ///
    /// # Errors
    ///
    /// The header does not fit the bytes, or a field has a value that InnoDB does not write.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let (header, whole) = Header::parse(bytes)?;
        Ok(match header.kind {
            DescriptorKind::Locator => Self::Locator(Locator::parse(bytes)?),
            DescriptorKind::TaskMetadata => Self::TaskMetadata(TaskMetadata::parse(whole)?),
            DescriptorKind::State => Self::State(State::parse(whole)?),
            DescriptorKind::FileMetadata => Self::FileMetadata(FileMetadata::parse(whole)?),
            DescriptorKind::Data => Self::Data(Data::parse(whole)?),
        })
    }

    /// What kind of descriptor it is.
    pub fn kind(&self) -> DescriptorKind {
        match self {
            Self::Locator(_) => DescriptorKind::Locator,
            Self::TaskMetadata(_) => DescriptorKind::TaskMetadata,
            Self::State(_) => DescriptorKind::State,
            Self::FileMetadata(_) => DescriptorKind::FileMetadata,
            Self::Data(_) => DescriptorKind::Data,
        }
    }

    /// Replaces what is in `out` by the descriptor. File metadata with a key leaves it there in
    /// clear; see [`StreamCheck::contains_key_material`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Locator(locator) => locator.encode(out),
            Self::TaskMetadata(task) => task.encode(out),
            Self::State(state) => state.encode(out),
            Self::FileMetadata(file) => file.encode(out),
            Self::Data(data) => data.encode(out),
        }
    }
}

/// What a [`Descriptor`] is (`Clone_Desc_Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DescriptorKind {
    /// CLONE_DESC_LOCATOR.
    Locator = 1,
    /// CLONE_DESC_TASK_METADATA.
    TaskMetadata = 2,
    /// CLONE_DESC_STATE.
    State = 3,
    /// CLONE_DESC_FILE_METADATA.
    FileMetadata = 4,
    /// CLONE_DESC_DATA.
    Data = 5,
}

impl DescriptorKind {
    fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Locator,
            2 => Self::TaskMetadata,
            3 => Self::State,
            4 => Self::FileMetadata,
            5 => Self::Data,
            _ => return None,
        })
    }
}

/// The head of each descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// [`VERSION`], except in a locator, with which the two InnoDBs agree on one.
    pub version: u32,
    /// Bytes in the descriptor, with the header.
    pub length: u32,
    /// What follows.
    pub kind: DescriptorKind,
}

/// [`Header`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderLayout {
    version: U32,
    length: U32,
    kind: U32,
}

const _: () = assert!(size_of::<HeaderLayout>() == 12);

impl HeaderLayout {
    /// The header of a descriptor of so many bytes in all.
    fn new(kind: DescriptorKind, length: usize) -> Self {
        let length = len_u32(length).into();
        Self { version: VERSION.into(), length, kind: (kind as u32).into() }
    }
}

impl Header {
    /// The header, and the descriptor that it says it is the head of.
    ///
    /// InnoDB sends each descriptor in just its own length. Only a locator may be followed by more:
    /// the recipient's first one lies in a buffer of [`VERSION_LOCATOR_LEN`] zeros.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), ProtocolError> {
        let header = Self::fields(bytes).ok_or_else(|| ProtocolError::new(Self::INVALID))?;
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let whole = match header.kind {
            DescriptorKind::Locator => bytes.get(..length),
            _ => bytes.get(..length).filter(|_| length == bytes.len()),
        };
        let whole = whole.filter(|whole| whole.len() >= size_of::<HeaderLayout>());
        let whole = whole.ok_or_else(|| {
            ProtocolError::detailed(
                Self::INVALID,
                format_args!("length {} in {} bytes", header.length, bytes.len()),
            )
        })?;
        if header.version != VERSION && header.kind != DescriptorKind::Locator {
            return Err(ProtocolError::detailed(
                Self::INVALID,
                format_args!("version {}", header.version),
            ));
        }
        Ok((header, whole))
    }

    /// What a descriptor says it is, without a look at the rest.
    fn kind_of(bytes: &[u8]) -> Option<DescriptorKind> {
        Self::fields(bytes).map(|header| header.kind)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let (layout, _) = HeaderLayout::ref_from_prefix(bytes).ok()?;
        Some(Self {
            version: layout.version.get(),
            length: layout.length.get(),
            kind: DescriptorKind::from_wire(layout.kind.get())?,
        })
    }

    const INVALID: &str = "Wrong Clone RPC: Invalid Descriptor Header";
}

/// The states of a snapshot, in order (`include/clone0desc.h:Snapshot_State`).
///
/// The plugin asks for a HYBRID clone, and that one goes through all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum SnapshotState {
    /// No snapshot yet; only in version locators.
    None = 0,
    /// The snapshot exists.
    Init = 1,
    /// Files are copied, while the donor remembers which pages change.
    FileCopy = 2,
    /// Those pages are copied, while the donor archives redo.
    PageCopy = 3,
    /// That redo is copied.
    RedoCopy = 4,
    /// All is there; the recipient flushes.
    Done = 5,
}

impl SnapshotState {
    /// The state after this one in a HYBRID clone.
    pub fn next(self) -> Option<Self> {
        Self::from_wire(self as u32 + 1)
    }

    /// The state of a number on the wire.
    pub(crate) fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Init,
            2 => Self::FileCopy,
            3 => Self::PageCopy,
            4 => Self::RedoCopy,
            5 => Self::Done,
            _ => return None,
        })
    }
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Init => "INIT",
            Self::FileCopy => "FILE_COPY",
            Self::PageCopy => "PAGE_COPY",
            Self::RedoCopy => "REDO_COPY",
            Self::Done => "DONE",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
