// SPDX-License-Identifier: GPL-2.0-only

//! Names of data files, before InnoDB makes paths of them
//! (`clone0apply.cc:build_file_path_unsafe`).

use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;

/// The system tablespace, `TRX_SYS_SPACE`.
const SPACE_ID_SYSTEM: u32 = 0;

/// Undo tablespaces have the ids below redo's: 127 of them, each with a range of its own
/// (`dict_sys_t::s_min_undo_space_id`). Ranges were smaller in the first releases of 8.0.
const MIN_UNDO_SPACE_ID: u32 = SPACE_ID_REDO - 127 * 400_000;

/// Whether the donor's name for a data file is one that InnoDB gives it.
///
/// System, undo and buffer pool dump files come as bare names (`clone0copy.cc:send_file_metadata`).
///
/// Other tablespaces come as the donor opened them. Those may be absolute (`DATA DIRECTORY`), and
/// they may begin with `../`: `CREATE TABLESPACE ... ADD DATAFILE '../ts.ibd'` makes such names.
/// Neither can be refused here although both lead out of the data directory; in 9.7 InnoDB itself
/// checks where they end. What is refused is a name that enters directories and then climbs out of
/// more of them than it entered. A single `dir/..` passes: MySQL accepts it where `dir` is a symbolic
/// link (`Fil_path::is_circular`).
pub(super) fn is_genuine(space_id: u32, name: &[u8]) -> bool {
    let bare = matches!(
        space_id,
        SPACE_ID_SYSTEM | SPACE_ID_BUFFER_POOL | MIN_UNDO_SPACE_ID..SPACE_ID_REDO
    );
    match name.rsplit(|byte| *byte == b'/').next() {
        None | Some(b"" | b"." | b"..") => return false,
        Some(base) if bare => return base.len() == name.len(),
        Some(_) => {}
    }
    let mut entered = name.starts_with(b"/");
    let mut depth = 0_usize;
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if entered => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            b".." => {}
            _ => {
                entered = true;
                depth += 1;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLESPACE: u32 = 17;

    #[test]
    fn what_donors_send() {
        for (space_id, name) in [
            (SPACE_ID_SYSTEM, "ibdata1"),
            (SPACE_ID_BUFFER_POOL, "ib_buffer_pool"),
            (SPACE_ID_REDO - 1, "undo_001"),
            (MIN_UNDO_SPACE_ID, "undo..ibu"),
            (0xFFFF_FFFE, "mysql.ibd"),
            (TABLESPACE, "./test/t1.ibd"),
            (TABLESPACE, "test/t1#p#p0.ibd"),
            (TABLESPACE, "ts1.ibd"),
            (TABLESPACE, "./test/..t1...ibd"),
            (TABLESPACE, "/var/lib/ts/t1.ibd"),
            (TABLESPACE, "../ts1.ibd"),
            (TABLESPACE, "../../ts/ts1.ibd"),
            (TABLESPACE, "./../ts1.ibd"),
            (TABLESPACE, "../link/../ts1.ibd"),
            (TABLESPACE, "/srv/link/../ts1.ibd"),
        ] {
            assert!(is_genuine(space_id, name.as_bytes()), "{space_id} {name}");
        }
    }

    #[test]
    fn what_they_do_not() {
        for (space_id, name) in [
            (SPACE_ID_SYSTEM, "./ibdata1"),
            (SPACE_ID_SYSTEM, "/etc/passwd"),
            (SPACE_ID_SYSTEM, ".."),
            (SPACE_ID_BUFFER_POOL, "../ib_buffer_pool"),
            (SPACE_ID_REDO - 1, "../../undo_001"),
            (MIN_UNDO_SPACE_ID, "undo/undo_001"),
            (TABLESPACE, ""),
            (TABLESPACE, "/"),
            (TABLESPACE, "."),
            (TABLESPACE, ".."),
            (TABLESPACE, "../"),
            (TABLESPACE, "test/"),
            (TABLESPACE, "test/.."),
            (TABLESPACE, "./test/../../t1.ibd"),
            (TABLESPACE, "test/../../../etc/cron.d/t1"),
            (TABLESPACE, "../link/../../t1.ibd"),
            (TABLESPACE, "/../t1.ibd"),
            (TABLESPACE, "/a/../../t1.ibd"),
        ] {
            assert!(!is_genuine(space_id, name.as_bytes()), "{space_id} {name}");
        }
    }
}
