// SPDX-License-Identifier: GPL-2.0-only

//! Whether a server has files open. mysqld locks each tablespace that it opens with `fcntl`.

use std::fs::File;
use std::path::Path;

use clone_innodb::verify::Plan;
use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::failure::{Failure, Kind, Result};

/// Files that are asked about. A server that runs has the system tablespace locked, which comes
/// first; of tables it locks those that it has opened.
const ASKED: usize = 1000;

/// Refuses files that another process has locked.
pub(crate) fn refuse(plan: &Plan) -> Result<()> {
    let Some((process, path)) = holder_of(plan) else { return Ok(()) };
    Err(Failure::new(
        Kind::Refused,
        format!(
            "process {process} has {} open: a server that runs writes pages while they are read, \
             and they would look damaged. Shut the server down first, verify a clone or snapshot, \
             or use --force",
            path.display()
        ),
    ))
}

/// Another process that has one of the files locked, and the file.
pub(crate) fn holder_of(plan: &Plan) -> Option<(i32, &Path)> {
    let paths = plan.spaces.iter().flat_map(|space| &space.paths).take(ASKED);
    paths.into_iter().find_map(|path| Some((holder(path)?, path.as_path())))
}

/// The process that has a lock on the file. A file that cannot be opened is told later.
fn holder(path: &Path) -> Option<i32> {
    let file = File::open(path).ok()?;
    let lock = fcntl_getlk(&file, &Flock::from(FlockType::ReadLock)).ok()??;
    Some(lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_lock_is_not_in_use() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(holder(file.path()), None);
        assert_eq!(holder(Path::new("/nowhere")), None);
    }
}
