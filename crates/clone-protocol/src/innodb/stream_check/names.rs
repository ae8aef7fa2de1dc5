// SPDX-License-Identifier: GPL-2.0-only

//! Names of data files, before InnoDB makes paths of them
//! (`clone0apply.cc:build_file_path`).

use crate::innodb::FileKind;

/// The longest name in bytes, with its NUL: `OS_FILE_MAX_PATH`. A donor refuses longer ones
/// (`clone0copy.cc:build_file_name`).
const MAX_NAME: usize = 4000;

/// The longest component of a path in bytes, `NAME_MAX`.
const MAX_COMPONENT: usize = 255;

/// The donor's name for the dump, whatever its `innodb_buffer_pool_filename`
/// (`clone0copy.cc:send_file_metadata` sends `SRV_BUF_DUMP_FILENAME_DEFAULT`).
const BUFFER_POOL_DUMP: &[u8] = b"ib_buffer_pool";

/// Endings that a file of the system tablespace must not have. mysqld, its plugins and TLS read
/// files with these endings in a data directory, and the first two choose what mysqld loads:
/// `mysqld-auto.cnf` and the manifest `mysqld.my`. Upper case counts too.
const FOREIGN_SUFFIXES: [&[u8]; 20] = [
    b"cnf", b"my", b"pem", b"key", b"crt", b"crl", b"so", b"dll", b"index", b"swap", b"ibd",
    b"ibu", b"ibt", b"sdi", b"log", b"err", b"pid", b"sock", b"lock", b"json",
];

/// Whether the donor's name for a data file is one that InnoDB gives it. The error says which rule
/// the name breaks.
///
/// All names: no control characters, because InnoDB keeps names in lists, one a line, and removes
/// what the lines say when it rolls back (`clone0api.cc:clone_files_for_each_file`). MySQL encodes
/// such characters in the names of tables.
///
/// System, undo and buffer pool dump files come as bare names (`clone0copy.cc:send_file_metadata`):
///
/// * the dump as `ib_buffer_pool`;
/// * undo tablespaces as `undo_001` and so on, and as `*.ibu` when a user created them;
/// * the system tablespace as `innodb_data_file_path` says. That may be nearly any name, so only
///   names are refused that mean something else in a data directory.
///
/// Other tablespaces come as the donor opened them, and end with `.ibd`. They may be absolute
/// (`DATA DIRECTORY`), and they may begin with `../`:
/// `CREATE TABLESPACE ... ADD DATAFILE '../ts.ibd'` makes such names. Both lead out of the data
/// directory; see [`Directories`](super::Directories). Refused are names that enter directories and
/// then climb out of more of them than they entered, and names that enter a directory below the
/// data directory that begins with `.` or `#`: those are the clone's and InnoDB's own. A single
/// `dir/..` passes: MySQL accepts it where `dir` is a symbolic link (`Fil_path::is_circular`).
pub(super) fn check(space_id: u32, name: &[u8]) -> Result<(), &'static str> {
    let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let is_bare = base.len() == name.len();
    if name.len() >= MAX_NAME {
        return Err("longer than a path");
    }
    if name.iter().any(u8::is_ascii_control) {
        return Err("control character");
    }
    if matches!(base, b"" | b"." | b"..") {
        return Err("no file");
    }
    if name.split(|byte| *byte == b'/').any(|component| component.len() > MAX_COMPONENT) {
        return Err("longer than a file name");
    }
    let is_genuine = match FileKind::of(space_id) {
        FileKind::System => is_bare && is_system_file(base),
        FileKind::BufferPool => name == BUFFER_POOL_DUMP,
        FileKind::Undo => is_bare && is_undo_file(base),
        FileKind::Redo | FileKind::Tablespace => return check_path(name, base),
    };
    if is_genuine { Ok(()) } else { Err("not of this kind of tablespace") }
}

fn is_system_file(base: &[u8]) -> bool {
    if base.starts_with(b".") || base.starts_with(b"#") || base == BUFFER_POOL_DUMP {
        return false;
    }
    let mut parts = base.rsplitn(2, |byte| *byte == b'.');
    match (parts.next(), parts.next()) {
        (Some(suffix), Some(_)) => {
            !FOREIGN_SUFFIXES.iter().any(|foreign| suffix.eq_ignore_ascii_case(foreign))
        }
        _ => true,
    }
}

/// `undo::Tablespace::set_file_name` and `ADD DATAFILE`.
fn is_undo_file(base: &[u8]) -> bool {
    match base.strip_prefix(b"undo_") {
        Some(number) if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => true,
        _ => has_suffix(base, b".ibu"),
    }
}

fn check_path(name: &[u8], base: &[u8]) -> Result<(), &'static str> {
    if !has_suffix(base, b".ibd") {
        return Err("not of this kind of tablespace");
    }
    let is_absolute = name.starts_with(b"/");
    // Behind a leading `..` directories are the administrator's, whose names are free.
    let mut is_inside = !is_absolute;
    let mut has_entered = is_absolute;
    let mut depth = 0_usize;
    for directory in name.strip_suffix(base).unwrap_or_default().split(|byte| *byte == b'/') {
        match directory {
            b"" | b"." => {}
            b".." if !has_entered => is_inside = false,
            b".." => depth = depth.checked_sub(1).ok_or("climbs out")?,
            [b'.' | b'#', ..] if is_inside => return Err("directory of the server's own"),
            _ => {
                has_entered = true;
                depth += 1;
            }
        }
    }
    Ok(())
}

/// Whether a name ends so, and has something before it.
fn has_suffix(base: &[u8], suffix: &[u8]) -> bool {
    base.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::{SPACE_ID_BUFFER_POOL, SPACE_ID_REDO};

    const SPACE_ID_SYSTEM: u32 = 0;
    const MIN_UNDO_SPACE_ID: u32 = SPACE_ID_REDO - 127 * 400_000;
    const TABLESPACE: u32 = 17;

    #[test]
    fn what_donors_send() {
        for (space_id, name) in [
            (SPACE_ID_SYSTEM, "ibdata1"),
            (SPACE_ID_SYSTEM, "ibdata1.dat"),
            (SPACE_ID_SYSTEM, "System Tablespace 2"),
            (SPACE_ID_BUFFER_POOL, "ib_buffer_pool"),
            (SPACE_ID_REDO - 1, "undo_001"),
            (SPACE_ID_REDO - 1, "undo_127"),
            (MIN_UNDO_SPACE_ID, "undo..ibu"),
            (MIN_UNDO_SPACE_ID, "mine.ibu"),
            (0xFFFF_FFFE, "mysql.ibd"),
            (TABLESPACE, "./test/t1.ibd"),
            (TABLESPACE, "test/t1#p#p0.ibd"),
            (TABLESPACE, "./test/#sql-ib1067-963425782.ibd"),
            (TABLESPACE, "#sql-ib1067-963425782.ibd"),
            (TABLESPACE, "ts1.ibd"),
            (TABLESPACE, "./test/..t1...ibd"),
            (TABLESPACE, "./caf\u{e9}/t1.ibd"),
            (TABLESPACE, "/var/lib/ts/t1.ibd"),
            (TABLESPACE, "/srv/.data/#1/t1.ibd"),
            (TABLESPACE, "../ts1.ibd"),
            (TABLESPACE, "../../ts/ts1.ibd"),
            (TABLESPACE, "../.store/ts1.ibd"),
            (TABLESPACE, "./../ts1.ibd"),
            (TABLESPACE, "../link/../ts1.ibd"),
            (TABLESPACE, "/srv/link/../ts1.ibd"),
        ] {
            assert_eq!(check(space_id, name.as_bytes()), Ok(()), "{space_id} {name}");
        }
    }

    #[test]
    fn what_they_do_not() {
        for (space_id, name) in [
            (SPACE_ID_SYSTEM, "./ibdata1"),
            (SPACE_ID_SYSTEM, "/etc/passwd"),
            (SPACE_ID_SYSTEM, ".."),
            (SPACE_ID_SYSTEM, "mysqld-auto.cnf"),
            (SPACE_ID_SYSTEM, "mysqld.my"),
            (SPACE_ID_SYSTEM, "evil.SO"),
            (SPACE_ID_SYSTEM, "binlog.index"),
            (SPACE_ID_SYSTEM, ".rocksdb.swap"),
            (SPACE_ID_SYSTEM, "mysql.ibd"),
            (SPACE_ID_SYSTEM, "#status_fix"),
            (SPACE_ID_SYSTEM, "ib_buffer_pool"),
            (SPACE_ID_BUFFER_POOL, "../ib_buffer_pool"),
            (SPACE_ID_BUFFER_POOL, "ib_buffer_pool2"),
            (SPACE_ID_BUFFER_POOL, "mysqld-auto.cnf"),
            (SPACE_ID_REDO - 1, "../../undo_001"),
            (SPACE_ID_REDO - 1, "undo_"),
            (SPACE_ID_REDO - 1, "undo_1.cnf"),
            (SPACE_ID_REDO - 1, ".ibu"),
            (SPACE_ID_REDO - 1, "evil.so"),
            (MIN_UNDO_SPACE_ID, "undo/undo_001"),
            (TABLESPACE, ""),
            (TABLESPACE, "/"),
            (TABLESPACE, "."),
            (TABLESPACE, ".."),
            (TABLESPACE, "../"),
            (TABLESPACE, "test/"),
            (TABLESPACE, "test/.."),
            (TABLESPACE, "test/.ibd"),
            (TABLESPACE, "test/t1"),
            (TABLESPACE, "test/t1.IBD"),
            (TABLESPACE, "./mysqld-auto.cnf"),
            (TABLESPACE, "./#clone/t1.ibd"),
            (TABLESPACE, "./#innodb_redo/t1.ibd"),
            (TABLESPACE, ".mysql/t1.ibd"),
            (TABLESPACE, "test/.mysql/t1.ibd"),
            (TABLESPACE, "./test/../../t1.ibd"),
            (TABLESPACE, "test/../../../etc/cron.d/t1.ibd"),
            (TABLESPACE, "../link/../../t1.ibd"),
            (TABLESPACE, "/../t1.ibd"),
            (TABLESPACE, "/a/../../t1.ibd"),
        ] {
            assert!(check(space_id, name.as_bytes()).is_err(), "{space_id} {name}");
        }
    }

    #[test]
    fn control_characters() {
        for control in (0..0x20).chain([0x7f]) {
            let name = [b"./test/a", &[control][..], b"b.ibd"].concat();
            assert_eq!(check(TABLESPACE, &name), Err("control character"), "{control:#x}");
        }
        assert_eq!(check(SPACE_ID_SYSTEM, b"ibdata\n1"), Err("control character"));
    }

    #[test]
    fn lengths() {
        let component = |len| [&vec![b'x'; len - 4][..], b".ibd"].concat();
        assert_eq!(check(TABLESPACE, &component(MAX_COMPONENT)), Ok(()));
        assert!(check(TABLESPACE, &component(MAX_COMPONENT + 1)).is_err());
        let system = vec![b'x'; MAX_COMPONENT];
        assert_eq!(check(SPACE_ID_SYSTEM, &system), Ok(()));
        assert!(check(SPACE_ID_SYSTEM, &[&system[..], b"x"].concat()).is_err());

        let path = |len| [&b"/".repeat(len - 5)[..], b"t.ibd"].concat();
        assert_eq!(check(TABLESPACE, &path(MAX_NAME - 1)), Ok(()));
        assert!(check(TABLESPACE, &path(MAX_NAME)).is_err());
    }
}
