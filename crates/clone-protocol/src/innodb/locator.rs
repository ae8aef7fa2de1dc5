// SPDX-License-Identifier: GPL-2.0-only

//! `Clone_Desc_Locator`, 34 bytes and in a restart the progress.

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

use super::DescriptorKind;
use super::Header;
use super::HeaderLayout;
use super::MAX_TASKS;
use super::SnapshotState;
use crate::ProtocolError;
use crate::wire::Reader;
use crate::wire::len_u32;

/// The buffer in which InnoDB sends a version locator, `CLONE_DESC_MAX_BASE_LEN`, in bytes: the
/// locator's 34 and then zeros.
pub const VERSION_LOCATOR_LEN: usize = 128;

/// One chunk a task, twice over: more InnoDB refuses (`clone0desc.cc:Chunk_Info::deserialize`).
const MAX_INCOMPLETE: u32 = 2 * MAX_TASKS;

const INVALID: &str = "Wrong Clone RPC: Invalid Locator";

/// Names a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// The layout that the sender proposes or that was agreed: the donor takes the lower of the
    /// recipient's and its own. Not limited to [`VERSION`](super::VERSION) for that reason.
    pub version: u32,
    /// The clone at the donor; 0 in a version locator.
    pub clone_id: u64,
    /// The snapshot at the donor; 0 in a version locator.
    pub snapshot_id: u64,
    /// Its place in the donor's array of clones.
    pub index: u32,
    /// The state the sender is in.
    pub state: SnapshotState,
    /// All file metadata of FILE_COPY arrived.
    pub metadata_transferred: bool,
    /// In a restart locator, what arrived of the state's chunks.
    pub progress: Option<Progress>,
}

/// [`Locator`] on the wire, up to its [`Progress`] if there is one.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    header: HeaderLayout,
    clone_id: U64,
    snapshot_id: U64,
    index: U32,
    state: u8,
    metadata_transferred: u8,
}

// The offsets of docs/protocol.md, section 14.
const _: () = {
    assert!(size_of::<Layout>() == 34);
    assert!(offset_of!(Layout, clone_id) == 12);
    assert!(offset_of!(Layout, state) == 32);
};

impl Locator {
    /// Parses a locator. It may be followed by bytes that are not its own.
    ///
    /// A donor does well to parse what a recipient sends before InnoDB reads it: InnoDB looks into
    /// 12 bytes of a version locator without asking how long it is.
    ///
    /// # Errors
    ///
    /// The bytes are no locator or a shorter one than its header says.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let (header, whole) = Header::parse(bytes)?;
        let parts = match header.kind {
            DescriptorKind::Locator => Layout::ref_from_prefix(whole).ok(),
            _ => None,
        };
        parts
            .and_then(|(layout, rest)| Self::fields(layout, Reader::new(rest)))
            .ok_or_else(|| ProtocolError::new(INVALID))
    }

    fn fields(layout: &Layout, mut rest: Reader<'_>) -> Option<Self> {
        let progress = if rest.is_empty() { None } else { Some(Progress::parse(&mut rest)?) };
        rest.is_empty().then_some(Self {
            version: layout.header.version.get(),
            clone_id: layout.clone_id.get(),
            snapshot_id: layout.snapshot_id.get(),
            index: layout.index.get(),
            state: SnapshotState::from_wire(u32::from(layout.state))?,
            metadata_transferred: layout.metadata_transferred != 0,
            progress,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let [.., state] = (self.state as u32).to_be_bytes();
        let progress_len = self.progress.as_ref().map_or(0, Progress::encoded_len);
        let length = size_of::<Layout>() + progress_len;
        let header = HeaderLayout::new(DescriptorKind::Locator, length);
        let layout = Layout {
            header: HeaderLayout { version: self.version.into(), ..header },
            clone_id: self.clone_id.into(),
            snapshot_id: self.snapshot_id.into(),
            index: self.index.into(),
            state,
            metadata_transferred: u8::from(self.metadata_transferred),
        };
        out.extend_from_slice(layout.as_bytes());
        if let Some(progress) = &self.progress {
            progress.encode(out);
        }
    }
}

/// How far a state came.
///
/// `u32` count @34 and as many [`IncompleteChunk`]s; `u32` count and as many `u32` words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Chunks of which some blocks arrived. The bitmap has them as well.
    pub incomplete: Vec<IncompleteChunk>,
    /// A bit for each chunk that arrived or began to: bit *i*, from the lowest, of word *k* stands
    /// for chunk 32*k* + *i* + 1. InnoDB sends more words than the chunks need.
    pub reserved: Vec<u32>,
}

impl Progress {
    /// Whether any of this chunk, from 1, arrived.
    pub fn is_reserved(&self, chunk: u32) -> bool {
        let Some(bit) = chunk.checked_sub(1) else { return false };
        let word = usize::try_from(bit / 32).ok().and_then(|at| self.reserved.get(at));
        word.is_some_and(|word| word >> (bit % 32) & 1 == 1)
    }

    fn parse(body: &mut Reader<'_>) -> Option<Self> {
        let count = body.u32_be()?;
        if count > MAX_INCOMPLETE {
            return None;
        }
        let incomplete = (0..count)
            .map(|_| Some(IncompleteChunk { chunk: body.u32_be()?, block: body.u32_be()? }))
            .collect::<Option<_>>()?;
        // The words are the rest, so their number is checked before there is room made for them.
        let words = body.u32_be()?;
        let bytes = body.bytes(words.checked_mul(4)?)?;
        let (words, _) = bytes.as_chunks();
        Some(Self { incomplete, reserved: words.iter().copied().map(u32::from_be_bytes).collect() })
    }

    /// Two counts, 8 bytes for each incomplete chunk, 4 for each word.
    fn encoded_len(&self) -> usize {
        8 + 8 * self.incomplete.len() + 4 * self.reserved.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&len_u32(self.incomplete.len()).to_be_bytes());
        for chunk in &self.incomplete {
            out.extend_from_slice(&chunk.chunk.to_be_bytes());
            out.extend_from_slice(&chunk.block.to_be_bytes());
        }
        out.extend_from_slice(&len_u32(self.reserved.len()).to_be_bytes());
        for word in &self.reserved {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// A chunk that broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncompleteChunk {
    /// The chunk, from 1.
    pub chunk: u32,
    /// The last of its blocks that arrived.
    pub block: u32,
}
