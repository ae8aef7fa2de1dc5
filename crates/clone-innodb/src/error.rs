// SPDX-License-Identifier: GPL-2.0-only

//! The error of this crate, with MySQL's numbers.

use std::io;
use std::path::{Path, PathBuf};

use clone_protocol::ProtocolError;

/// MySQL's error numbers (`include/mysqld_error.h`).
pub mod number {
    /// A file could not be created.
    pub const ER_CANT_CREATE_FILE: u32 = 1004;
    /// A directory could not be created.
    pub const ER_CANT_CREATE_DB: u32 = 1006;
    /// A file could not be deleted.
    pub const ER_CANT_DELETE_FILE: u32 = 1011;
    /// A file could not be opened.
    pub const ER_CANT_OPEN_FILE: u32 = 1016;
    /// A file could not be read.
    pub const ER_ERROR_ON_READ: u32 = 1024;
    /// A file could not be renamed.
    pub const ER_ERROR_ON_RENAME: u32 = 1025;
    /// A file could not be written.
    pub const ER_ERROR_ON_WRITE: u32 = 1026;
    /// A file exists that the clone has to create.
    pub const ER_FILE_EXISTS_ERROR: u32 = 1086;
    /// The connection: a packet is too large.
    pub const ER_NET_PACKET_TOO_LARGE: u32 = 1153;
    /// The connection: reading failed.
    pub const ER_NET_READ_ERROR: u32 = 1158;
    /// The connection: reading took too long.
    pub const ER_NET_READ_INTERRUPTED: u32 = 1159;
    /// The connection: writing failed.
    pub const ER_NET_ERROR_ON_WRITE: u32 = 1160;
    /// The connection: writing took too long.
    pub const ER_NET_WRITE_INTERRUPTED: u32 = 1161;
    /// Not supported.
    pub const ER_NOT_SUPPORTED_YET: u32 = 1235;
    /// KILL.
    pub const ER_QUERY_INTERRUPTED: u32 = 1317;
    /// Something that must not happen.
    pub const ER_INTERNAL_ERROR: u32 = 1815;
    /// More clones than the donor allows.
    pub const ER_CLONE_TOO_MANY_CONCURRENT_CLONES: u32 = 3634;
    /// The donor reported an error.
    pub const ER_CLONE_DONOR: u32 = 3862;
    /// The peer broke the clone protocol.
    pub const ER_CLONE_PROTOCOL: u32 = 3863;
    /// The disk has not enough space for the clone.
    pub const ER_CLONE_DISK_SPACE: u32 = 3873;
    /// The connection: waiting failed.
    pub const ER_NET_WAIT_ERROR: u32 = 13417;
}

use number::*;

/// What an operation of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task of a clone failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's own error, from a [`BlockInput`](crate::destination::BlockInput), a
    /// [`BlockOutput`](crate::source::BlockOutput) or [`SourceFiles`](crate::source::SourceFiles).
    #[error("{source}")]
    Caller {
        /// Its MySQL number.
        number: u32,
        /// The error itself, given back as it came.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of this crate's own is damaged (1815).
    #[error("'{}' is damaged: {how}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        how: String,
    },
    /// The disk has not enough space (3873).
    #[error("clone estimated database size is {needed} bytes, available space is {free} bytes")]
    DiskSpace {
        /// Bytes that the donor estimates.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file exists that the clone has to create (1086).
    #[error("file '{}' already exists", .0.display())]
    FileExists(PathBuf),
    /// Something that must not happen, or a wait that took half an hour (1815).
    #[error("{0}")]
    Internal(String),
    /// The task's thread was told to stop (1317).
    #[error("interrupted")]
    Interrupted,
    /// An operation on a file failed.
    #[error("cannot {} '{}': {source}", .what.verb(), .path.display())]
    Io {
        /// The operation.
        what: FileOperation,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Something that this crate does not do, and therefore refuses (1235).
    #[error("not supported: {0}")]
    NotSupported(String),
    /// Another task of the same clone failed before, with this MySQL number.
    #[error("another task of the clone failed with error {0}")]
    OtherTask(u32),
    /// The peer broke the clone protocol (3863).
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A data directory that cannot be a donor, or not in this state (1815).
    #[error("{0}")]
    Refused(String),
    /// The donor has as many clones as it allows (3634).
    #[error("too many concurrent clone operations, maximum allowed is {0}")]
    TooManyClones(usize),
}

/// What was done with a file when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// Creating a file (1004).
    Create,
    /// Creating a directory (1006).
    CreateDirectory,
    /// Deleting a file (1011).
    Delete,
    /// Opening a file (1016).
    Open,
    /// Reading (1024).
    Read,
    /// Renaming (1025).
    Rename,
    /// Writing, extending or flushing (1026).
    Write,
}

impl Error {
    /// MySQL's number of this error.
    pub fn number(&self) -> u32 {
        match self {
            Self::Caller { number, .. } | Self::OtherTask(number) => *number,
            Self::DiskSpace { .. } => ER_CLONE_DISK_SPACE,
            Self::FileExists(_) => ER_FILE_EXISTS_ERROR,
            Self::Damaged { .. } | Self::Internal(_) | Self::Refused(_) => ER_INTERNAL_ERROR,
            Self::Interrupted => ER_QUERY_INTERRUPTED,
            Self::Io { what, .. } => what.number(),
            Self::NotSupported(_) => ER_NOT_SUPPORTED_YET,
            Self::Protocol(_) => ER_CLONE_PROTOCOL,
            Self::TooManyClones(_) => ER_CLONE_TOO_MANY_CONCURRENT_CLONES,
        }
    }

    /// An error of the caller's own, to be given through this crate.
    pub fn caller(
        number: u32,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Caller { number, source: source.into() }
    }

    /// A failed operation on a file.
    pub fn io(what: FileOperation, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { what, path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::Internal(text.into())
    }

    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(ProtocolError::new(text.into()))
    }
}

impl FileOperation {
    fn number(self) -> u32 {
        match self {
            Self::Create => ER_CANT_CREATE_FILE,
            Self::CreateDirectory => ER_CANT_CREATE_DB,
            Self::Delete => ER_CANT_DELETE_FILE,
            Self::Open => ER_CANT_OPEN_FILE,
            Self::Read => ER_ERROR_ON_READ,
            Self::Rename => ER_ERROR_ON_RENAME,
            Self::Write => ER_ERROR_ON_WRITE,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Create => "create file",
            Self::CreateDirectory => "create directory",
            Self::Delete => "delete",
            Self::Open => "open",
            Self::Read => "read",
            Self::Rename => "rename",
            Self::Write => "write",
        }
    }
}

/// Whether a clone can go on after this error, over new connections
/// (`clone0clone.h:is_network_error`).
pub fn is_network_error(number: u32) -> bool {
    matches!(
        number,
        ER_NET_READ_ERROR
            | ER_NET_READ_INTERRUPTED
            | ER_NET_ERROR_ON_WRITE
            | ER_NET_WRITE_INTERRUPTED
            | ER_NET_WAIT_ERROR
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_error_comes_back_as_it_was() {
        let error = Error::caller(1234, io::Error::other("mine"));
        assert_eq!(error.number(), 1234);
        assert_eq!(error.to_string(), "mine");
        let Error::Caller { source, .. } = error else { panic!("{error:?}") };
        assert!(source.downcast::<io::Error>().is_ok());
    }

    #[test]
    fn only_a_broken_connection_is_worth_a_restart() {
        let restartable: Vec<u32> =
            (1..20_000).filter(|number| is_network_error(*number)).collect();
        assert_eq!(restartable, [1158, 1159, 1160, 1161, 13417]);
    }
}
