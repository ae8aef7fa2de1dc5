// SPDX-License-Identifier: GPL-2.0-only

//! LOCATOR_V1: which clone, and in a restart how far its files came.

use std::fmt;

use super::FileSize;
use super::Kind;
use super::invalid;
use super::open;
use super::seal;
use crate::ProtocolError;
use crate::wire::Reader;

/// A locator.
///
/// `u64` clone id @12, then 16 bytes for each [`FileState`]. Nothing counts them: the length does.
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
        match open(bytes)? {
            (Kind::Locator, body) => Self::parse_body(body),
            (kind, _) => Err(invalid(format_args!("{kind:?} instead of a locator"))),
        }
    }

    fn parse_body(mut body: Reader<'_>) -> Result<Self, ProtocolError> {
        let id = body.u64_be().ok_or_else(|| invalid("locator without id"))?;
        let (states, rest) = body.rest().as_chunks::<16>();
        if !rest.is_empty() {
            return Err(invalid("locator with part of a state"));
        }
        if id == 0 && states.is_empty() {
            return Ok(Self::Version);
        }
        let id = CloneId::new(id).ok_or_else(|| invalid(format_args!("clone id {id}")))?;
        let states = states.iter().map(|state| FileState::parse(state));
        let states: Vec<_> =
            states.collect::<Option<_>>().ok_or_else(|| invalid("locator with a wrong state"))?;
        let mut files: Vec<_> = states.iter().map(|state| state.file).collect();
        files.sort_unstable();
        if files.array_windows().any(|[one, next]| one == next) {
            return Err(invalid("locator with two states of a file"));
        }
        Ok(Self::Clone { id, states })
    }

    /// Replaces what is in `out` by the locator.
    pub fn encode(&self, out: &mut Vec<u8>) {
        seal(Kind::Locator, out, |out| match self {
            Self::Version => out.extend_from_slice(&0_u64.to_be_bytes()),
            Self::Clone { id, states } => {
                out.extend_from_slice(&id.get().to_be_bytes());
                for FileState { file, applied } in states {
                    out.extend_from_slice(&file.to_be_bytes());
                    out.extend_from_slice(&applied.get().to_be_bytes());
                }
            }
        });
    }

    /// The locator's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

impl FileState {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self { file: reader.u64_be()?, applied: FileSize::new(reader.u64_be()?)? })
    }
}
