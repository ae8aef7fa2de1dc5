// SPDX-License-Identifier: GPL-2.0-only

//! Whether a plugin's library could be loaded, without loading it.
//!
//! The stock recipient calls `dlopen` on the name that the donor sent, which runs every constructor
//! of that file. This plugin only reads the file: a shared object for this machine, in the plugin
//! directory.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

/// Whether `name` is the plain name of a shared object for this machine in `directory`.
pub(super) fn is_loadable(directory: &Path, name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    is_plain && File::open(directory.join(name)).is_ok_and(|file| is_shared_object(&file))
}

/// Reads the ELF header: magic, class and byte order @0, type u16 @16, machine u16 @18 (`elf(5)`).
fn is_shared_object(mut file: &File) -> bool {
    const ELF64_LITTLE_ENDIAN: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    const ET_DYN: u16 = 3;
    const EM_X86_64: u16 = 62;
    let mut header = [0; 20];
    if !file.metadata().is_ok_and(|metadata| metadata.is_file())
        || file.read_exact(&mut header).is_err()
    {
        return false;
    }
    header[..6] == ELF64_LITTLE_ENDIAN
        && u16::from_le_bytes([header[16], header[17]]) == ET_DYN
        && u16::from_le_bytes([header[18], header[19]]) == EM_X86_64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// The test's own executable is position independent, so it has the header of a shared object.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), directory.path().join("good.so")).unwrap();
        std::fs::write(directory.path().join("text.so"), "#!/bin/sh\necho not a library\n")
            .unwrap();
        std::fs::write(directory.path().join("short.so"), b"\x7fELF").unwrap();
        std::fs::create_dir(directory.path().join("directory.so")).unwrap();
        directory
    }

    #[test]
    fn a_shared_object_in_the_directory_is_loadable() {
        assert!(is_loadable(directory().path(), "good.so"));
    }

    #[test]
    fn anything_else_is_not() {
        let directory = directory();
        for name in ["", ".", "..", "missing.so", "text.so", "short.so", "directory.so"] {
            assert!(!is_loadable(directory.path(), name), "{name}");
        }
    }

    #[test]
    fn names_do_not_leave_the_directory() {
        let directory = directory();
        let inner = directory.path().join("directory.so");
        let absolute = directory.path().join("good.so");
        for name in ["../good.so", "./good.so", "x/../../good.so", absolute.to_str().unwrap()] {
            assert!(!is_loadable(&inner, name), "{name}");
        }
    }
}
