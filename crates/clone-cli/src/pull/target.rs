// SPDX-License-Identifier: GPL-2.0-only

//! The directory that is pulled into, and how far an interrupted pull came.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clone_core::parameters::Parameters;
use clone_core::progress::Stage;
use clone_innodb::destination::journal;
use clone_protocol::innodb::{Descriptor, SnapshotState};

use super::keyring::{self, Noted};
use super::state::{Pulled, StateDirectory};
use crate::failure::{Failure, Kind, Result};

/// The mode of a data directory, as mysqld creates it.
const DIRECTORY_MODE: u32 = 0o750;

/// The directory that is pulled into.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    donor: String,
    layout: String,
    /// The directory is this program's own, and is removed with what is in it.
    is_ours: bool,
}

/// A pull that was interrupted.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) state: StateDirectory,
    /// What the donor said, and InnoDB's name of the clone. None if there is nothing to go on with.
    pub(super) clone: Option<(Parameters, Vec<u8>)>,
}

impl Target {
    /// Looks at the directory, and changes nothing. `donor` and `layout` must be those of a pull
    /// that goes on.
    ///
    /// # Errors
    /// The directory holds something else.
    pub(super) fn open(path: &Path, donor: &str, layout: &str) -> Result<(Self, Option<Resumed>)> {
        let mut target = Self {
            path: path.to_owned(),
            donor: donor.to_owned(),
            layout: layout.to_owned(),
            is_ours: false,
        };
        let Some((state, begun)) = open_state(path)? else {
            target.is_ours = !exists(path);
            is_empty(path)?;
            return Ok((target, None));
        };
        let pulled = state.pulled();
        target.is_ours = pulled.made_directory;
        if pulled.donor != donor || pulled.layout != layout {
            return Err(Failure::new(
                Kind::Refused,
                format!(
                    "'{}' holds an interrupted pull from {} ({}), and this command is a pull from \
                     {donor} ({layout}). Give the same arguments to go on, or remove what is there \
                     with: mysql-clone pull --discard --datadir {}",
                    path.display(),
                    pulled.donor,
                    pulled.layout,
                    path.display()
                ),
            ));
        }
        let clone = begun.and_then(super::state::Begun::resume);
        Ok((target, Some(Resumed { state, clone })))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, and the one of the state in it. `keyring` is not written yet.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn begin(&self, keyring: Option<Noted>) -> Result<StateDirectory> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.path);
        let pulled = Pulled {
            donor: self.donor.clone(),
            layout: self.layout.clone(),
            made_directory: self.is_ours,
            keyring,
        };
        let begun = made.and_then(|()| StateDirectory::create(&self.path, pulled));
        begun.map_err(|error| self.disk("create", &error))
    }

    /// Removes what this program has written.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn empty(&self) -> Result<()> {
        empty(&self.path, self.is_ours).map_err(|error| self.disk("remove", &error))
    }

    /// Why the disk has no room for so many bytes, of which some may need none.
    pub(super) fn space_refusal(&self, bytes: Option<u64>, shareable: u64) -> Option<String> {
        let needed = bytes?.saturating_sub(shareable);
        let there = self.path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        let space = rustix::fs::statvfs(there).ok()?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        (needed > free).then(|| {
            format!(
                "the donor's data take {needed} bytes, and '{}' has {free} bytes free",
                there.display()
            )
        })
    }

    /// What a user can do after a signal.
    pub(super) fn resume_hint(&self) -> String {
        format!(
            "The same command goes on where it stopped, as long as the donor keeps the clone \
             (clone_donor_timeout_after_network_failure, 5 minutes by default). To remove what is \
             there: mysql-clone pull --discard --datadir {}",
            self.path.display()
        )
    }

    fn disk(&self, what: &str, error: &io::Error) -> Failure {
        Failure::new(Kind::Disk, format!("cannot {what} '{}': {error}", self.path.display()))
    }
}

/// Removes what an interrupted pull has left.
///
/// # Errors
/// There is none, or it cannot be removed.
pub(super) fn discard(path: &Path) -> Result<()> {
    let Some((state, _)) = open_state(path)? else {
        let text = format!("'{}' holds no interrupted pull: nothing was removed", path.display());
        return Err(Failure::new(Kind::Refused, text));
    };
    empty(path, state.pulled().made_directory).map_err(|error| {
        Failure::new(Kind::Disk, format!("cannot remove '{}': {error}", path.display()))
    })
}

fn open_state(path: &Path) -> Result<Option<(StateDirectory, Option<super::state::Begun>)>> {
    StateDirectory::open(path).map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::WouldBlock => "another mysql-clone is working there".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Kind::Refused, format!("'{}' cannot be used: {text}", path.display()))
    })
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Refuses a directory with something in it. `lost+found` of a file system may be there.
fn is_empty(path: &Path) -> Result<()> {
    let refused = |why: String| {
        Failure::new(Kind::Refused, format!("'{}' cannot be the target: {why}", path.display()))
    };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| refused(error.to_string()))?,
    };
    let mut first = None;
    for entry in entries {
        let name = entry.map_err(|error| refused(error.to_string()))?.file_name();
        if name == super::report::JSON {
            return Err(refused("it holds a pull that is complete".to_owned()));
        }
        if name != "lost+found" {
            first = first.or(Some(name));
        }
    }
    match first {
        None => Ok(()),
        Some(name) => Err(refused(format!("the directory is not empty ('{}')", name.display()))),
    }
}

/// Removes the keyring file, all that is in the directory, and with `is_ours` the directory, too.
/// The state goes last, so that what is left after a kill is still known to be ours.
fn empty(path: &Path, is_ours: bool) -> io::Result<()> {
    if let Some(noted) = StateDirectory::noted_keyring(path)? {
        keyring::remove(&noted)?;
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == super::state::NAME || (name == "lost+found" && !is_ours) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_dir_all(path.join(super::state::NAME))?;
    if is_ours { fs::remove_dir(path) } else { Ok(()) }
}

/// How far an interrupted clone came.
#[derive(Clone, Debug)]
pub(super) struct Place {
    journal: PathBuf,
    state: SnapshotState,
    /// Bytes in the state: expected, and there.
    pub(super) estimate: u64,
    pub(super) bytes: u64,
}

impl Place {
    /// Reads a journal.
    ///
    /// # Errors
    /// The journal cannot be read or is damaged, or no state has begun.
    pub(super) fn read(path: &Path) -> clone_innodb::error::Result<Self> {
        let mut place =
            Self { journal: path.to_owned(), state: SnapshotState::Init, estimate: 0, bytes: 0 };
        for record in journal::read(path)? {
            match Descriptor::parse(&record?.descriptor) {
                Ok(Descriptor::State(state)) if state.start => {
                    place.state = state.state;
                    place.estimate = state.estimate;
                    place.bytes = 0;
                }
                Ok(Descriptor::Data(data)) => place.bytes += u64::from(data.data_len),
                _ => {}
            }
        }
        Ok(place)
    }

    /// Whether all data are there and on disk.
    pub(super) fn is_complete(&self) -> bool {
        self.state == SnapshotState::Done
    }

    /// The stage in which the clone goes on.
    pub(super) fn stage(&self) -> Stage {
        match self.state {
            SnapshotState::None | SnapshotState::Init => Stage::DropData,
            SnapshotState::FileCopy => Stage::FileCopy,
            SnapshotState::PageCopy => Stage::PageCopy,
            SnapshotState::RedoCopy => Stage::RedoCopy,
            SnapshotState::Done => Stage::FileSync,
        }
    }

    /// What took effect, for [`clone_core::recipient::ResumePoint`].
    pub(super) fn descriptors(&self) -> Box<dyn Iterator<Item = Vec<u8>>> {
        // A journal that cannot be read any more ends early. `Destination::reopen` reads it, too,
        // and fails.
        let records = journal::read(&self.journal).into_iter().flatten().flatten();
        let takes = records.filter(|one| one.task == 0 || !one.descriptor.is_empty());
        Box::new(takes.map(|one| one.descriptor))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use clone_innodb::encryption::MasterKey;

    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_stays() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let open = || Target::open(&path, "u@h:3306", "plain");
        let (target, resumed) = open().unwrap();
        assert!(target.is_ours && resumed.is_none() && !path.exists());
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("lost+found")).unwrap();
        assert!(!open().unwrap().0.is_ours);
        fs::write(path.join("ibdata1"), "x").unwrap();
        assert_eq!(open().unwrap_err().kind, Kind::Refused);
        assert_eq!(discard(&path).unwrap_err().kind, Kind::Refused);
        assert!(path.join("ibdata1").exists());
    }

    #[test]
    fn what_a_pull_has_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        for is_there in [false, true] {
            let path = parent.path().join("data");
            if is_there {
                fs::create_dir_all(path.join("lost+found")).unwrap();
            }
            let (target, _) = Target::open(&path, "u@h:3306", "plain").unwrap();
            let key = MasterKey::generate().unwrap();
            let keyring = parent.path().join("keyring");
            let noted = Noted { path: keyring.clone(), uuid: key.uuid().to_owned() };
            let state = target.begin(Some(noted)).unwrap();
            key.write_new(&keyring).unwrap();
            fs::create_dir(path.join("mysql")).unwrap();
            fs::write(path.join("ibdata1"), "x").unwrap();
            assert_eq!(discard(&path).unwrap_err().kind, Kind::Refused, "still locked");
            drop(state);
            let other = Target::open(&path, "u@other:3306", "plain").unwrap_err();
            assert!(other.message.contains("u@h:3306"), "{}", other.message);
            assert!(Target::open(&path, "u@h:3306", "plain").unwrap().1.is_some());
            discard(&path).unwrap();
            assert_eq!(path.exists(), is_there);
            assert!(!keyring.exists());
            assert_eq!(path.join("lost+found").exists(), is_there);
        }
    }
}
