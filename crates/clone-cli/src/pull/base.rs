// SPDX-License-Identifier: GPL-2.0-only

//! `--base`: an older copy of the donor's data, of which nothing is sent again.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use clone_core::base::{Base, BaseFile};
use clone_innodb::base::OlderCopy;
use clone_innodb::verify::Plan;
use indicatif::HumanBytes;
use serde::Serialize;

use super::checks::DonorFacts;
use super::paths;
use super::progress::Progress;
use super::report;
use super::state::StateDirectory;
use crate::failure::{Failure, Kind, Result};
use crate::verify::in_use;

/// The longest `auto.cnf` or report that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// The directory of `--base`.
#[derive(Debug)]
pub(super) struct BaseDirectory {
    path: PathBuf,
    copy: OlderCopy,
}

impl BaseDirectory {
    /// Looks at the directory. `target` is `--datadir`.
    ///
    /// # Errors
    /// The directory is no data directory, is the target, or is in use.
    pub(super) fn open(path: &Path, target: &Path) -> Result<Self> {
        let refused = |why: &str| {
            let text = format!("--base: '{}' cannot be used: {why}", path.display());
            Failure::new(Kind::Refused, text)
        };
        let whole = fs::canonicalize(path).map_err(|error| refused(&error.to_string()))?;
        let target = paths::real(target);
        if whole.starts_with(&target) || target.starts_with(&whole) {
            return Err(refused("it is --datadir, or one of both is in the other"));
        }
        let is_working = StateDirectory::open(&whole)
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if is_working {
            return Err(refused("another mysql-clone is working there"));
        }
        let plan = Plan::find(std::slice::from_ref(&whole));
        if let Some((process, file)) = in_use::holder_of(&plan) {
            return Err(refused(&format!(
                "process {process} has {} open: a server that runs changes its files. Shut it \
                 down, or use another copy",
                file.display()
            )));
        }
        let copy = OlderCopy::of(&plan);
        let copy = copy.ok_or_else(|| refused("it has no tablespaces of InnoDB"))?;
        Ok(Self { path: whole, copy })
    }

    /// Why the donor's data cannot be in the directory.
    pub(super) fn refusal(&self, donor: &DonorFacts) -> Option<String> {
        let (ours, theirs) = (self.copy.page_size, donor.page_size);
        (theirs != 0 && ours != theirs).then(|| {
            format!(
                "--base: '{}' has pages of {ours} bytes, and the donor has pages of {theirs} \
                 bytes: it is not a copy of this donor",
                self.path.display()
            )
        })
    }

    /// What the user should know of the directory.
    pub(super) fn warning(&self, donor: &DonorFacts) -> Option<String> {
        let uuid = server_uuid(&self.path)?;
        let is_other = !donor.uuid.is_empty() && !uuid.eq_ignore_ascii_case(&donor.uuid);
        is_other.then(|| {
            format!(
                "--base: '{}' is of the server {uuid}, and the donor is {}. The base helps only if \
                 that server is a replica or an older copy of the donor. The copy is right in any \
                 case",
                self.path.display(),
                donor.uuid
            )
        })
    }

    /// Bytes that a copy at `target` can share with the directory, if the donor has the same.
    pub(super) fn shareable(&self, target: &Path) -> u64 {
        let there = target.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        let mut files = self.copy.files.iter().filter_map(|file| File::open(&file.path).ok());
        let shares =
            files.next().is_some_and(|first| clone_io::shares_blocks(first.as_fd(), there));
        if shares { self.copy.files.iter().map(|file| file.len).sum() } else { 0 }
    }

    /// Makes the digests.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn read(&self, progress: &Progress) -> Result<Arc<Base>> {
        let begun = Instant::now();
        let path = self.path.display();
        progress.say(&format!("reading the base '{path}'"));
        let files = self.copy.files.iter().map(|file| BaseFile {
            place: file.place,
            len: file.len,
            path: file.path.clone(),
        });
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let base = Base::read(files.collect(), self.copy.page_size, threads);
        let base = base.map_err(|error| super::other(&error))?;
        progress.say(&format!(
            "read {} of the base in {:.1} s",
            HumanBytes(base.bytes()),
            begun.elapsed().as_secs_f64()
        ));
        Ok(Arc::new(base))
    }

    /// The report on what was used of the base.
    pub(super) fn report(&self, base: &Base) -> BaseReport {
        BaseReport {
            directory: self.path.clone(),
            bytes: base.bytes(),
            used_bytes: base.used(),
            shared_bytes: base.shared(),
        }
    }
}

/// What was used of a base, in bytes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct BaseReport {
    pub(super) directory: PathBuf,
    /// What was read of it.
    bytes: u64,
    /// What the copy has from it.
    pub(super) used_bytes: u64,
    /// What of this takes no space, because both share it.
    pub(super) shared_bytes: u64,
}

/// The server whose data a directory has: as the pull that made it reports, or of the server that
/// ran on it.
fn server_uuid(directory: &Path) -> Option<String> {
    let text = |name: &str| {
        let path = directory.join(name);
        let is_short = fs::metadata(&path).is_ok_and(|found| found.len() <= MAX_TEXT);
        is_short.then(|| fs::read_to_string(path).ok()).flatten()
    };
    if let Some(report) = text(report::JSON)
        && let Ok(report) = serde_json::from_str::<serde_json::Value>(&report)
    {
        return report.get("donor_uuid")?.as_str().map(str::to_owned).filter(|id| !id.is_empty());
    }
    let options = text("auto.cnf")?;
    let mut lines = options.lines().map(str::trim);
    let value = lines.find_map(|line| line.strip_prefix("server-uuid")?.trim().strip_prefix('='));
    value.map(|value| value.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn directories_that_cannot_be_a_base() {
        let parent = tempfile::tempdir().unwrap();
        let base = parent.path().join("base");
        let refused = |target: &Path| BaseDirectory::open(&base, target).unwrap_err();
        let new = parent.path().join("new/copy");
        assert!(refused(&new).message.contains("No such file"), "{}", refused(&new).message);
        fs::create_dir(&base).unwrap();
        assert!(refused(&new).message.contains("no tablespaces"), "{}", refused(&new).message);
        for target in [&base, &base.join("new"), parent.path(), &parent.path().join("base/../base")]
        {
            let failure = refused(target);
            assert_eq!(failure.kind, Kind::Refused);
            assert!(failure.message.contains("it is --datadir"), "{}", failure.message);
        }
    }

    #[test]
    fn the_server_of_a_directory_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let uuid = || server_uuid(directory.path());
        assert_eq!(uuid(), None);
        fs::write(directory.path().join("auto.cnf"), "[auto]\nserver-uuid = a-b \n").unwrap();
        assert_eq!(uuid().as_deref(), Some("a-b"));
        fs::write(directory.path().join(report::JSON), r#"{"donor_uuid":"c-d"}"#).unwrap();
        assert_eq!(uuid().as_deref(), Some("c-d"));
    }
}
