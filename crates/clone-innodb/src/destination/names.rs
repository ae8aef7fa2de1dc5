// SPDX-License-Identifier: GPL-2.0-only

//! Where the files of a donor go: names from the network to paths below the target directory.
//!
//! `StreamCheck` looks at names as well. The rules here do not rely on that: whatever a name is,
//! the path is below the directory, and its file is one that InnoDB has.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clone_protocol::innodb::FileKind;

use super::{OutsideFiles, RedoNames};
use crate::error::{Error, Result};

/// No path is longer for InnoDB (`OS_FILE_MAX_PATH`), in bytes.
const MAX_NAME: usize = 4000;

/// The flag of a general tablespace (`FSP_FLAGS_POS_SHARED`).
const FSP_FLAG_SHARED: u32 = 1 << 11;

/// Files of a server that are no tablespaces.
const FOREIGN: [&str; 10] =
    [".cnf", ".pem", ".so", ".index", ".swap", ".ibd", ".ibu", ".log", ".err", ".pid"];

/// The path of a data file below the target directory. `fsp_flags` are those of its tablespace.
///
/// # Errors
/// InnoDB has no file of that name, or the file is outside of the donor's data directory and such
/// files are refused.
pub(super) fn data_path(
    space_id: u32,
    fsp_flags: u32,
    name: &[u8],
    outside: &OutsideFiles,
) -> Result<PathBuf> {
    let kind = FileKind::of(space_id);
    let is_undo = kind == FileKind::Undo;
    let is_bare = matches!(kind, FileKind::System | FileKind::BufferPool);
    let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let is_right = if is_bare {
        is_plain(base)
    } else if is_undo {
        base.ends_with(b".ibu") || is_numbered_undo(base)
    } else {
        base.ends_with(b".ibd") && base.len() > b".ibd".len()
    };
    let has_control = name.iter().any(u8::is_ascii_control);
    if !is_right || has_control || name.len() > MAX_NAME {
        return Err(invalid(name));
    }
    if is_bare || is_undo {
        if base.len() != name.len() || base.starts_with(b".") {
            return Err(invalid(name));
        }
        return Ok(PathBuf::from(OsStr::from_bytes(base)));
    }
    let path = tablespace_path(name, outside)?;
    if fsp_flags & FSP_FLAG_SHARED != 0 && path.components().count() > 1 {
        // A server finds a general tablespace in the data directory or far from it, but not in a
        // directory below (MY-012213).
        return Ok(PathBuf::from(OsStr::from_bytes(base)));
    }
    Ok(path)
}

/// A tablespace below the data directory, or elsewhere (`DATA DIRECTORY`, `ADD DATAFILE
/// '../t.ibd'`).
fn tablespace_path(name: &[u8], outside: &OutsideFiles) -> Result<PathBuf> {
    let is_absolute = name.starts_with(b"/");
    let mut up = 0_usize;
    let mut path = PathBuf::new();
    let mut components = name.split(|byte| *byte == b'/').peekable();
    while let Some(component) = components.next() {
        let is_last = components.peek().is_none();
        match component {
            b"" | b"." => {}
            b".." if path.as_os_str().is_empty() && !is_absolute => up += 1,
            b".." => return Err(invalid(name)),
            // The directories of the clone and of the redo log begin with #, hidden ones with a
            // dot.
            [b'#' | b'.', ..] if !is_last && up == 0 && !is_absolute => return Err(invalid(name)),
            // Below another directory, InnoDB would not look into such a directory.
            [b'#' | b'.', ..] if !is_last => {
                path.push(OsStr::from_bytes(&[b"_", component].concat()));
            }
            _ => path.push(OsStr::from_bytes(component)),
        }
    }
    match outside {
        _ if !is_absolute && up == 0 => Ok(path),
        OutsideFiles::Refuse => Err(Error::NotSupported(format!(
            "the tablespace '{}' is outside of the donor's data directory",
            name.escape_ascii()
        ))),
        OutsideFiles::Below(directory) => {
            let from = if is_absolute { "root".to_owned() } else { format!("up{up}") };
            Ok(directory.join(from).join(path))
        }
    }
}

/// The path of a redo file.
pub(super) fn redo_path(index: u32, names: RedoNames) -> PathBuf {
    match names {
        RedoNames::InnodbRedo => PathBuf::from("#innodb_redo").join(format!("#ib_redo{index}")),
        RedoNames::IbLogfile => PathBuf::from(format!("ib_logfile{index}")),
    }
}

/// The name of a file of the system tablespace or of a dump.
fn is_plain(base: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    !base.is_empty()
        && base.iter().all(is_allowed)
        && !FOREIGN.iter().any(|end| base.to_ascii_lowercase().ends_with(end.as_bytes()))
        && !base.starts_with(b"ib_logfile")
}

/// `undo_001` and `undo_002`, which the server creates itself.
fn is_numbered_undo(base: &[u8]) -> bool {
    base.strip_prefix(b"undo_")
        .is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

fn invalid(name: &[u8]) -> Error {
    Error::protocol(format!(
        "Wrong Clone RPC: Invalid File Descriptor: file name of {} bytes",
        name.len()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::{Component, Path};

    use clone_protocol::innodb::{SPACE_ID_BUFFER_POOL, SPACE_ID_REDO};
    use proptest::prelude::*;

    use super::*;

    const TABLE: u32 = 17;
    const UNDO: u32 = SPACE_ID_REDO - 1;

    fn below() -> OutsideFiles {
        OutsideFiles::Below("outside".into())
    }

    #[test]
    fn what_donors_send() {
        for (space_id, name, path) in [
            (0, "ibdata1", "ibdata1"),
            (SPACE_ID_BUFFER_POOL, "ib_buffer_pool", "ib_buffer_pool"),
            (UNDO, "undo_001", "undo_001"),
            (UNDO, "undo_extra.ibu", "undo_extra.ibu"),
            (0xFFFF_FFFE, "mysql.ibd", "mysql.ibd"),
            (TABLE, "./test/t1.ibd", "test/t1.ibd"),
            (TABLE, "test/part#p#p0.ibd", "test/part#p#p0.ibd"),
            (TABLE, "./test/#sql-ib1067-963452782.ibd", "test/#sql-ib1067-963452782.ibd"),
        ] {
            for outside in [OutsideFiles::Refuse, below()] {
                let found = data_path(space_id, 0, name.as_bytes(), &outside).unwrap();
                assert_eq!(found, Path::new(path), "{name}");
            }
        }
        for (name, path) in [
            ("../ts_out.ibd", "outside/up1/ts_out.ibd"),
            ("./../../ts.ibd", "outside/up2/ts.ibd"),
            ("/srv/x/db/t.ibd", "outside/root/srv/x/db/t.ibd"),
            ("/srv/.x/#db/#t.ibd", "outside/root/srv/_.x/_#db/#t.ibd"),
        ] {
            let refused = data_path(TABLE, 0, name.as_bytes(), &OutsideFiles::Refuse);
            assert_eq!(refused.unwrap_err().number(), 1235, "{name}");
            assert_eq!(data_path(TABLE, 0, name.as_bytes(), &below()).unwrap(), Path::new(path));
            let general = data_path(TABLE, FSP_FLAG_SHARED, name.as_bytes(), &below()).unwrap();
            assert_eq!(Some(general.as_os_str()), Path::new(path).file_name());
        }
    }

    #[test]
    fn what_they_do_not() {
        for (space_id, name) in [
            (0, "./ibdata1"),
            (0, ".."),
            (0, ".hidden"),
            (0, "mysqld-auto.cnf"),
            (0, "Server-Key.PEM"),
            (0, "ib_logfile0"),
            (0, "#innodb_redo"),
            (SPACE_ID_BUFFER_POOL, "../ib_buffer_pool"),
            (SPACE_ID_BUFFER_POOL, ""),
            (UNDO, "undo_"),
            (UNDO, "undo_00x"),
            (UNDO, "dir/undo_001"),
            (UNDO, ".ibu/../x"),
            (TABLE, "./mysqld-auto.cnf"),
            (TABLE, "./evil.so"),
            (TABLE, ".ibd"),
            (TABLE, "./test/../t.ibd"),
            (TABLE, "./test/../../t.ibd"),
            (TABLE, "/srv/../t.ibd"),
            (TABLE, "#clone/t.ibd"),
            (TABLE, "./#innodb_redo/t.ibd"),
            (TABLE, ".rocksdb/t.ibd"),
            (TABLE, "./a\n/srv/backups\nb.ibd"),
            (TABLE, "./test/"),
        ] {
            for outside in [OutsideFiles::Refuse, below()] {
                let found = data_path(space_id, 0, name.as_bytes(), &outside);
                assert_eq!(found.unwrap_err().number(), 3863, "{space_id} {name}");
            }
        }
    }

    proptest! {
        /// Whatever a donor says, the path has no component that leads out of the directory.
        #[test]
        fn no_name_climbs_out(
            space_id in prop::sample::select(vec![0, 1, TABLE, UNDO, SPACE_ID_BUFFER_POOL]),
            name in "(/|\\.\\./|\\./|#|\\.|a|b/|\\PC){0,12}(\\.ibd|\\.ibu|undo_1|x)?",
        ) {
            if let Ok(path) = data_path(space_id, 0, name.as_bytes(), &below()) {
                prop_assert!(!path.as_os_str().is_empty());
                let is_normal = |part| matches!(part, Component::Normal(_));
                prop_assert!(path.components().all(is_normal), "{name} {path:?}");
            }
        }
    }
}
