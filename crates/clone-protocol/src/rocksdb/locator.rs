// SPDX-License-Identifier: GPL-2.0-only

//! LOCATOR_V1: which clone, and in a restart how far its files came.

use std::fmt;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U64;

use super::FileSize;
use super::HeaderLayout;
use super::Kind;
use super::invalid;
use super::kind_of;
use crate::ProtocolError;

/// A locator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// From a recipient that begins: it understands this version. Clone id 0 on the wire, without
    /// states.
    Version,
    /// A clone.
    Clone {
        /// Which one.
        id: CloneId,
        /// In a restart locator, the files of which the recipient knows something; each at most
        /// once.
        states: Vec<FileState>,
    },
}

/// The donor's number of a clone. Neither 0 nor 2^64 - 1, which upstream uses for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloneId(u64);

/// How far a file came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileState {
    /// The file, as [`FileNameMap`](super::FileNameMap) numbered it.
    pub file: u64,
    /// So many bytes of it have arrived.
    pub applied: FileSize,
}

impl CloneId {
    /// `None` for the two numbers that name no clone.
    pub fn new(id: u64) -> Option<Self> {
        (id != 0 && id != u64::MAX).then_some(Self(id))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CloneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Locator {
    /// The locator of a clone, without states.
    pub fn of(id: CloneId) -> Self {
        Self::Clone { id, states: Vec::new() }
    }

    /// Parses a locator that fills `bytes`.
    ///
    /// # Errors
    ///
    /// It is none, or one that no recipient and no donor writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        match kind_of(bytes)? {
            Kind::Locator => Self::parse_locator(bytes),
            kind => Err(invalid(format_args!("{kind:?} instead of a locator"))),
        }
    }

    fn parse_locator(whole: &[u8]) -> Result<Self, ProtocolError> {
        let layout = LocatorLayout::ref_from_prefix(whole);
        let (layout, states) = layout.map_err(|_| invalid("locator without id"))?;
        let states = <[FileStateLayout]>::ref_from_bytes(states)
            .map_err(|_| invalid("locator with part of a state"))?;
        let id = layout.id.get();
        if id == 0 && states.is_empty() {
            return Ok(Self::Version);
        }
        let id = CloneId::new(id).ok_or_else(|| invalid(format_args!("clone id {id}")))?;
        let states = states.iter().map(FileState::parse).collect::<Option<Vec<_>>>();
        let states = states.ok_or_else(|| invalid("locator with a wrong state"))?;
        let mut files: Vec<_> = states.iter().map(|state| state.file).collect();
        files.sort_unstable();
        if files.array_windows().any(|[one, next]| one == next) {
            return Err(invalid("locator with two states of a file"));
        }
        Ok(Self::Clone { id, states })
    }

    /// Replaces what is in `out` by the locator.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (id, states) = match self {
            Self::Version => (0, &[][..]),
            Self::Clone { id, states } => (id.get(), &states[..]),
        };
        let length = size_of::<LocatorLayout>() + size_of::<FileStateLayout>() * states.len();
        let header = HeaderLayout::new(Kind::Locator, length);
        out.clear();
        out.extend_from_slice(LocatorLayout { header, id: id.into() }.as_bytes());
        for FileState { file, applied } in states {
            let layout = FileStateLayout { file: (*file).into(), applied: applied.get().into() };
            out.extend_from_slice(layout.as_bytes());
        }
    }

    /// The locator's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

impl FileState {
    fn parse(layout: &FileStateLayout) -> Option<Self> {
        Some(Self { file: layout.file.get(), applied: FileSize::new(layout.applied.get())? })
    }
}

/// [`Locator`] on the wire, up to the states. Nothing counts them: the length does.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LocatorLayout {
    header: HeaderLayout,
    id: U64,
}

const _: () = assert!(size_of::<LocatorLayout>() == 20);

/// [`FileState`] on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileStateLayout {
    file: U64,
    applied: U64,
}

const _: () = assert!(size_of::<FileStateLayout>() == 16);
