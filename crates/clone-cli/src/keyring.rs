// SPDX-License-Identifier: GPL-2.0-only

//! `--keyring-file` of `verify` and `serve`: the keyring of the server whose data are read.

use std::io;
use std::path::Path;

use clone_innodb::encryption::Keyring;

use crate::failure::{Failure, Kind, Result};

/// Reads a keyring file.
///
/// # Errors
/// The file cannot be read, or is no keyring.
pub(crate) fn from_file(path: &Path) -> Result<Keyring> {
    Keyring::read(path).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::InvalidData => Kind::Usage,
            _ => Kind::Disk,
        };
        Failure::new(kind, format!("--keyring-file {}: {error}", path.display()))
    })
}
