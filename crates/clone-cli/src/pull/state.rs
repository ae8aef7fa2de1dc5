// SPDX-License-Identifier: GPL-2.0-only

//! What a pull keeps in its target directory until the clone is complete, so that the same command
//! can go on after the program was killed: `.mysql-clone/`.
//!
//! | File | |
//! |---|---|
//! | `lock` | locked by the process that pulls |
//! | `pull.json` | which clone of which donor this is ([`Pulled`]), and what the donor said ([`Begun`]) |
//! | `journal` | what took effect ([`clone_innodb::destination::journal`]) |
//!
//! A server never looks at the directory: InnoDB passes over directories whose names begin with a
//! dot. The directory is removed when the clone is complete.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clone_core::parameters::Parameters;
use clone_protocol::{MAX_LOCATOR_LEN, Version};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::keyring::Noted;

/// The directory in the target directory.
pub(crate) const NAME: &str = ".mysql-clone";

/// The number of this format.
const FORMAT: u32 = 1;

/// The longest `pull.json`, in bytes.
const MAX_STATE: u64 = 4 << 20;

/// The state directory of a pull, locked by this process.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    pulled: Pulled,
    /// Held as long as this value exists.
    _lock: File,
}

/// What a pull notes before it connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pulled {
    /// The donor: `user@host:port`.
    pub(crate) donor: String,
    /// The options that decide how files are written.
    pub(crate) layout: String,
    /// Whether this program made the target directory.
    pub(crate) made_directory: bool,
    /// The keyring file of `--keyring-file`.
    #[serde(default)]
    pub(crate) keyring: Option<Noted>,
}

/// What a pull notes when the clone begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// The protocol's version.
    version: u32,
    /// Variables of the donor: those that must be equal, and others.
    variables: Vec<(String, String)>,
    other_variables: Vec<(String, String)>,
    json: Option<String>,
    /// InnoDB's name of the clone.
    locator: Vec<u8>,
    /// The boot of this machine. After another one, what was written may not be on the disk.
    boot: String,
}

/// What `pull.json` holds.
#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    pulled: Pulled,
    begun: Option<Begun>,
}

impl State {
    fn read(file: &Path) -> io::Result<Self> {
        if fs::metadata(file)?.len() > MAX_STATE {
            return Err(invalid("pull.json is too long"));
        }
        let state: Self = serde_json::from_slice(&fs::read(file)?)
            .map_err(|error| invalid(&format!("pull.json: {error}")))?;
        match state.format {
            FORMAT => Ok(state),
            _ => Err(invalid("pull.json was written by another version of mysql-clone")),
        }
    }
}

impl Begun {
    pub(crate) fn new(donor: &Parameters, locator: &[u8]) -> Self {
        Self {
            version: donor.version.number(),
            variables: donor.variables.clone(),
            other_variables: donor.other_variables.clone(),
            json: donor.json.clone(),
            locator: locator.to_owned(),
            boot: this_boot(),
        }
    }

    /// What the donor said of itself, and InnoDB's name of the clone. None if the machine has
    /// started anew since.
    pub(crate) fn resume(self) -> Option<(Parameters, Vec<u8>)> {
        let version = Version::from_wire(self.version).ok()?;
        if self.boot.is_empty() || self.boot != this_boot() || self.locator.len() > MAX_LOCATOR_LEN
        {
            return None;
        }
        let mut parameters = Parameters::default();
        parameters.version = version;
        parameters.variables = self.variables;
        parameters.other_variables = self.other_variables;
        parameters.json = self.json;
        Some((parameters, self.locator))
    }
}

impl StateDirectory {
    /// Makes the directory for a new pull.
    ///
    /// # Errors
    /// The directory cannot be made, or another process pulls into the target.
    pub(crate) fn create(target: &Path, pulled: Pulled) -> io::Result<Self> {
        let path = target.join(NAME);
        DirBuilder::new().mode(0o700).create(&path)?;
        let created = Self { _lock: lock(&path)?, path, pulled };
        created.write(None)?;
        Ok(created)
    }

    /// Opens the directory that another pull has left, and gives what that pull had noted. None if
    /// there is none.
    ///
    /// # Errors
    /// The other pull still runs ([`io::ErrorKind::WouldBlock`]); the directory cannot be read; it
    /// is not one of a pull ([`io::ErrorKind::InvalidData`]).
    pub(crate) fn open(target: &Path) -> io::Result<Option<(Self, Option<Begun>)>> {
        let path = target.join(NAME);
        let file = path.join("pull.json");
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let held = lock(&path)?;
        let state = State::read(&file)?;
        Ok(Some((Self { path, pulled: state.pulled, _lock: held }, state.begun)))
    }

    /// The keyring file of the pull that this or another process has begun in `target`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn noted_keyring(target: &Path) -> io::Result<Option<Noted>> {
        match State::read(&target.join(NAME).join("pull.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            state => Ok(state?.pulled.keyring),
        }
    }

    /// Where the directory is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the pull noted before it connected.
    pub(crate) fn pulled(&self) -> &Pulled {
        &self.pulled
    }

    /// Where the journal of the clone is.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Notes that the clone begins.
    ///
    /// # Errors
    /// `pull.json` cannot be written.
    pub(crate) fn begin(&self, begun: &Begun) -> io::Result<()> {
        self.write(Some(begun))
    }

    /// Removes the directory: the clone is complete.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    /// Writes `pull.json` beside and renames it, so that a kill leaves the old one or the new one.
    fn write(&self, begun: Option<&Begun>) -> io::Result<()> {
        let state = State { format: FORMAT, pulled: self.pulled.clone(), begun: begun.cloned() };
        let (new, file) = (self.path.join("pull.json.new"), self.path.join("pull.json"));
        fs::write(&new, serde_json::to_vec_pretty(&state)?)?;
        fs::rename(new, file)
    }
}

/// Locks the directory for this process.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Names the present boot of this machine. Empty if the system does not tell.
fn this_boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn pulled() -> Pulled {
        Pulled {
            donor: "u@h:3306".into(),
            layout: "plain".into(),
            made_directory: true,
            keyring: Some(Noted { path: "/k".into(), uuid: "u".into() }),
        }
    }

    #[test]
    fn what_was_noted_is_found_by_the_next_process_only() {
        let target = tempfile::tempdir().unwrap();
        assert!(StateDirectory::open(target.path()).unwrap().is_none());
        let state = StateDirectory::create(target.path(), pulled()).unwrap();
        let mut donor = Parameters::default();
        donor.version = Version::V3;
        donor.variables = vec![("innodb_page_size".into(), "16384".into())];
        state.begin(&Begun::new(&donor, &[1, 2, 3])).unwrap();
        let error = StateDirectory::open(target.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        drop(state);
        let (state, begun) = StateDirectory::open(target.path()).unwrap().unwrap();
        assert_eq!(*state.pulled(), pulled());
        assert_eq!(StateDirectory::noted_keyring(target.path()).unwrap(), pulled().keyring);
        let (parameters, locator) = begun.clone().unwrap().resume().unwrap();
        assert_eq!(parameters.version, Version::V3);
        assert_eq!(parameters.variables, donor.variables);
        assert_eq!(locator, [1, 2, 3]);
        let other = Begun { boot: "another".into(), ..begun.unwrap() };
        assert!(other.resume().is_none());
        state.remove().unwrap();
        assert!(!target.path().join(NAME).exists());
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let target = tempfile::tempdir().unwrap();
        drop(StateDirectory::create(target.path(), pulled()).unwrap());
        for text in
            ["", "{}", r#"{"format":2,"pulled":{"donor":"","layout":"","made_directory":true}}"#]
        {
            fs::write(target.path().join(NAME).join("pull.json"), text).unwrap();
            let error = StateDirectory::open(target.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}: {error}");
        }
    }
}
