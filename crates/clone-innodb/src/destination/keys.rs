// SPDX-License-Identifier: GPL-2.0-only

//! Blocks that carry a key in clear, and what becomes of them
//! (`clone0apply.cc:Clone_Handle::modify_and_write`).

use clone_protocol::innodb::{Data, FileMetadata, PageSize, SnapshotState};

use super::EncryptedFiles;
use crate::error::{Error, Result};
use crate::format::encryption_info;
use crate::geometry::REDO_HEADER;

/// The key that a block carries, or may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyIn {
    /// Page 0 of a tablespace.
    Page {
        /// The sizes of its pages.
        size: PageSize,
        /// The donor said that the tablespace is encrypted: there must be a key.
        must_be: bool,
    },
    /// A part of the header of the redo log.
    RedoHeader {
        /// The donor said that the redo log is encrypted: there must be a key.
        must_be: bool,
    },
}

impl KeyIn {
    /// Where a page has its key, for a block of PAGE_COPY.
    pub(super) fn page(data: &Data, size: Option<PageSize>, must_be: bool) -> Option<Self> {
        let size = size.filter(|_| data.state == SnapshotState::PageCopy && data.file_offset == 0);
        size.map(|size| Self::Page { size, must_be })
    }

    /// Where the redo log has its key, for a block of REDO_COPY.
    pub(super) fn redo(data: &Data, must_be: bool) -> Option<Self> {
        let is_header = data.file_index == 0 && data.file_offset < REDO_HEADER.into();
        is_header.then_some(Self::RedoHeader { must_be })
    }

    /// Whether the block must be looked at before it is written.
    pub(super) fn concerns(self, encrypted: &EncryptedFiles) -> bool {
        match encrypted {
            EncryptedFiles::Refuse => matches!(self, Self::RedoHeader { .. }),
            EncryptedFiles::AsTheyCome => false,
            EncryptedFiles::Wrap(_) => true,
        }
    }

    /// Encrypts the key in the block, or refuses the block. A block that holds no key stays.
    pub(super) fn apply(
        self,
        encrypted: &EncryptedFiles,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<()> {
        let (wrapped, must_be) = match (encrypted, self) {
            (EncryptedFiles::Wrap(key), Self::Page { size, must_be }) => {
                (key.wrap_page(bytes, size), must_be)
            }
            (EncryptedFiles::Wrap(key), Self::RedoHeader { must_be }) if offset == 0 => {
                // What is there must not reach the disk, whatever its form.
                (key.wrap_redo_header(bytes), must_be || encryption_info::is_in_redo(bytes, offset))
            }
            (_, Self::RedoHeader { .. }) if encryption_info::is_in_redo(bytes, offset) => {
                return Err(Error::NotSupported("encrypted redo".to_owned()));
            }
            _ => return Ok(()),
        };
        match wrapped {
            Err(_) if must_be => Err(Error::protocol(
                "Wrong Clone RPC: Invalid Data: no key in the header of an encrypted file",
            )),
            _ => Ok(()),
        }
    }
}

/// Refuses what the options do not allow.
pub(super) fn check(file: &FileMetadata<'_>, encrypted: &EncryptedFiles) -> Result<()> {
    let is_refused = match encrypted {
        EncryptedFiles::Refuse => file.encrypted || file.key.is_some(),
        EncryptedFiles::AsTheyCome => file.key.is_some(),
        EncryptedFiles::Wrap(_) => false,
    };
    match is_refused {
        false => Ok(()),
        true => Err(Error::NotSupported(format!(
            "the encrypted tablespace '{}'",
            file.name.escape_ascii()
        ))),
    }
}

/// The encryption information for a file that DDL has created.
pub(super) fn created(
    file: &FileMetadata<'_>,
    encrypted: &EncryptedFiles,
) -> Option<[u8; encryption_info::LEN]> {
    match (encrypted, &file.key) {
        (EncryptedFiles::Wrap(master), Some(key)) => Some(master.info(key)),
        _ => None,
    }
}
