// SPDX-License-Identifier: GPL-2.0-only

//! How many files this process may still open.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Descriptors that must be free before a clone takes some that it can do without: for a worker, or
/// for hand-over. InnoDB may end mysqld if it cannot open a file.
pub const FREE_DESCRIPTORS: u64 = 256;

/// The descriptors of this process. The process itself may see them in any mount namespace.
const OPEN: &str = "/proc/self/fd";

/// Checks that [`FREE_DESCRIPTORS`] are free.
///
/// # Errors
/// EMFILE if there are fewer; the operating system's, for example if `/proc` is not mounted.
pub fn check_free_descriptors() -> io::Result<()> {
    if free()? < FREE_DESCRIPTORS { Err(Errno::MFILE.into()) } else { Ok(()) }
}

/// Descriptors that this process may still open: `RLIMIT_NOFILE`, which mysqld raises to
/// `open_files_limit`, less those that are open.
///
/// # Errors
/// The operating system's, for example if `/proc` is not mounted.
fn free() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(limit.saturating_sub(open()?))
}

fn open() -> io::Result<u64> {
    // Since Linux 6.2 the directory's size is the number of open descriptors. Before it is 0.
    match fs::metadata(OPEN)?.len() {
        0 => listed(Path::new(OPEN)),
        count => Ok(count),
    }
}

/// The entries of the directory, without the descriptor that reads them.
fn listed(directory: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        entry?;
        count += 1;
    }
    Ok(count - 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn open_descriptors_are_counted() {
        // Other tests open and close files meanwhile.
        let seen = || (0..100).any(|_| open().unwrap() == listed(Path::new(OPEN)).unwrap());
        assert!(seen());
        let before = open().unwrap();
        let many: Vec<_> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        let with_many = open().unwrap();
        assert!(with_many > before + 400, "{before}, then {with_many}");
        drop(many);
        assert!(free().unwrap() > 0);
    }
}
