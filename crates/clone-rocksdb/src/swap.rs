// SPDX-License-Identifier: GPL-2.0-only

//! Puts a complete clone in the place of the live database, before the engine opens it.
//!
//! Every entry of the live directories is renamed into a directory `.clone_saved` inside of them,
//! and every file of the clone to where it was: entries and not directories, because a live
//! directory may be a mount point or a link. A journal, `.rocksdb.swap` in the data directory, says
//! which of these has begun, so that whatever is interrupted goes on where it was:
//!
//! ```text
//!              +--> save --> move --> swapped --> (saved files and journal removed)
//!   a clone ---+      |        |         |
//!                     |        +--> clear <--+
//!                     +--> return <-- clear        --> (clone, saved files and journal removed)
//! ```
//!
//! `save` moves the old files aside, `move` the new ones in. The old ones are kept until the server
//! has come up on the new ones ([`commit`]): if InnoDB rolls its part of the clone back, `clear`
//! removes the new files and `return` brings the old ones back.
//!
//! Upstream (MyRocks) renames directories, deletes the old one at once, and stops the server if it
//! finds itself interrupted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clone_engine::{Error, Result};

use crate::layout::{Layout, Places};
use crate::storage::{Storage, attempt};
use clone_swap::disk::{Disk, Entry, RealDisk};
use journal::{Journal, Phase};

pub use standing::Standing;

mod journal;
mod standing;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

/// The swap of one database.
#[derive(Clone, Debug)]
pub struct Swap {
    places: Places,
    data: PathBuf,
    wal: Option<PathBuf>,
}

/// What a swap has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to do.
    Nothing,
    /// The clone is in place. What was there before is kept.
    Swapped,
    /// The clone had been put in place earlier. What was there before is still kept, since InnoDB
    /// has not settled its part.
    Kept,
    /// What was there before the clone is gone.
    Committed,
    /// A clone that was not complete, or that InnoDB takes back, is gone.
    Discarded,
    /// What was there before the clone is in place again.
    RolledBack,
}

impl Swap {
    /// `data` and `wal` are where the engine is going to look for its files and write-ahead logs;
    /// relative ones are below the layout's root. Without `wal` the logs are among the files.
    pub fn new(layout: &Layout, data: &Path, wal: Option<&Path>) -> Self {
        let places = layout.places(None);
        let data = places.root.join(data);
        let wal = wal.map(|wal| places.root.join(wal)).filter(|wal| *wal != data);
        Self { places, data, wal }
    }

    /// Goes on with what was interrupted, or begins, or does nothing.
    ///
    /// # Errors
    /// The engine must not be started then: its files may be neither the old nor the new ones.
    /// Another attempt goes on.
    pub fn run(&self, standing: Standing) -> Result<Outcome> {
        self.run_on(&RealDisk, standing)
    }

    /// The server has come up: if nothing is left to be done for InnoDB either, what was there
    /// before the clone may go.
    ///
    /// # Errors
    /// What was there before could not be removed; the next start tries again.
    pub fn settle(&self, standing: Standing) -> Result<()> {
        if standing == Standing::Settled { commit(&self.places) } else { Ok(()) }
    }

    fn run_on(&self, disk: &dyn Disk, standing: Standing) -> Result<Outcome> {
        let storage = Storage(disk);
        if self.places.data.starts_with(&self.data) {
            let data = self.data.display();
            return Err(Error::Internal(format!("a clone inside of '{data}' cannot replace it")));
        }
        let rolled_back = standing == Standing::RolledBack;
        let Some(journal) = Journal::read(storage, &self.places)? else {
            if !storage.is_there(&self.places)? {
                return Ok(Outcome::Nothing);
            }
            let is_complete = storage.is_complete(&self.places)?;
            if !is_complete && standing == Standing::Pending {
                let data = self.places.data.display();
                let text = format!("InnoDB's part of the clone is complete and '{data}' is not");
                return Err(Error::Internal(text));
            }
            if rolled_back || !is_complete {
                storage.discard(&self.places)?;
                return Ok(Outcome::Discarded);
            }
            let (data, wal) = (self.data.clone(), self.wal.clone());
            let step = Step {
                storage,
                places: &self.places,
                journal: Journal { phase: Phase::Save, data, wal },
            };
            return step.begin();
        };
        self.check(storage, &journal)?;
        let step = Step { storage, places: &self.places, journal };
        match (step.journal.phase, rolled_back) {
            (Phase::Save | Phase::Move, false) => step.forward(),
            (Phase::Swapped, false) if standing == Standing::Pending => Ok(Outcome::Kept),
            (Phase::Swapped, false) => step.commit(),
            (Phase::Save | Phase::Move | Phase::Swapped, true)
            | (Phase::Clear | Phase::Return, _) => step.back(),
        }
    }

    /// Refuses a journal that names directories in which no swap has begun.
    ///
    /// The journal is a file in the data directory, and who gets a file of that name there could
    /// have any directory emptied. The directories that the server is configured with are its own.
    /// Others may be those of an earlier configuration; then [`SAVED`] is in them, because it is
    /// made before the journal. The phases that are not named here touch nothing but `SAVED`.
    fn check(&self, storage: Storage<'_>, journal: &Journal) -> Result<()> {
        if !matches!(journal.phase, Phase::Save | Phase::Move | Phase::Clear) {
            return Ok(());
        }
        let has_begun = |directory: &Path| -> Result<bool> {
            let entries = storage.list(directory)?.unwrap_or_default();
            Ok(entries.iter().any(|entry| entry.name == SAVED && entry.is_directory))
        };
        let is_data = (journal.data == self.data || has_begun(&journal.data)?)
            && !self.places.data.starts_with(&journal.data);
        let strange = match &journal.wal {
            _ if !is_data => &journal.data,
            Some(wal) if self.wal.as_ref() != Some(wal) && !has_begun(wal)? => wal,
            _ => return Ok(()),
        };
        let (journal, strange) = (self.places.journal.display(), strange.display());
        let text = format!("'{journal}' names '{strange}', which is no directory of this server");
        Err(Error::Internal(text))
    }
}

/// The server runs on what the last swap put in place, so what was there before may go.
///
/// # Errors
/// A swap was interrupted and must go on before anything else is done.
pub(crate) fn commit(places: &Places) -> Result<()> {
    let storage = Storage(&RealDisk);
    match Journal::read(storage, places)? {
        None => Ok(()),
        Some(journal) if journal.phase == Phase::Swapped => {
            Step { storage, places, journal }.commit().map(drop)
        }
        Some(_) => Err(unfinished(places)),
    }
}

/// Whether a clone may use the directories of the last one.
pub(crate) fn check_idle(storage: Storage<'_>, places: &Places) -> Result<()> {
    match Journal::read(storage, places)? {
        None => Ok(()),
        Some(_) => Err(unfinished(places)),
    }
}

fn unfinished(places: &Places) -> Error {
    let journal = places.journal.display();
    Error::Internal(format!("'{journal}' says that a clone is being put in place; restart first"))
}

/// A swap that has begun.
struct Step<'a> {
    storage: Storage<'a>,
    places: &'a Places,
    journal: Journal,
}

/// A live directory, and what comes into it.
struct Area<'a> {
    live: &'a Path,
    incoming: Vec<&'a Path>,
    /// It holds logs, and what else is in it is not the database's.
    is_wal_only: bool,
}

impl Area<'_> {
    /// Inside the live directory: on the same file system whatever that is.
    fn saved(&self) -> PathBuf {
        self.live.join(SAVED)
    }

    fn is_ours(&self, entry: &Entry) -> bool {
        if entry.name == SAVED {
            return false;
        }
        !self.is_wal_only || is_wal(&entry.name) || entry.name == ARCHIVE
    }
}

/// The directory of files that were there before.
const SAVED: &str = ".clone_saved";

/// RocksDB's directory of logs that it does not need for recovery.
const ARCHIVE: &str = "archive";

/// RocksDB's names of write-ahead logs: a number, and `.log`. The directory may be one with other
/// logs in it, mysqld's for one.
fn is_wal(name: &OsStr) -> bool {
    let number = name.as_encoded_bytes().strip_suffix(b".log");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

impl Step<'_> {
    fn begin(self) -> Result<Outcome> {
        for area in self.areas() {
            self.storage.make_directory(area.live)?;
            // Without a journal nobody needs what is in it. That it is there before the journal
            // says that the journal's directories are ours.
            self.storage.remove_tree(&area.saved())?;
            self.storage.make_directory(&area.saved())?;
        }
        self.journal.write(self.storage, self.places)?;
        self.forward()
    }

    fn forward(mut self) -> Result<Outcome> {
        if self.journal.phase == Phase::Save {
            for area in self.areas() {
                self.save(&area)?;
            }
            self.enter(Phase::Move)?;
        }
        for area in self.areas() {
            for incoming in &area.incoming {
                self.bring(incoming, area.live, |_| true)?;
            }
        }
        for incoming in [&self.places.data, &self.places.wal] {
            self.storage.remove_tree(incoming)?;
        }
        self.storage.sync_directory(&self.places.root)?;
        self.enter(Phase::Swapped)?;
        Ok(Outcome::Swapped)
    }

    fn save(&self, area: &Area<'_>) -> Result<()> {
        let saved = area.saved();
        self.storage.make_directory(&saved)?;
        self.bring(area.live, &saved, |entry| area.is_ours(entry))
    }

    fn back(mut self) -> Result<Outcome> {
        match self.journal.phase {
            // Nothing new is in place yet.
            Phase::Save => self.enter(Phase::Return)?,
            Phase::Move | Phase::Swapped => self.enter(Phase::Clear)?,
            Phase::Clear | Phase::Return => {}
        }
        if self.journal.phase == Phase::Clear {
            for area in self.areas() {
                for entry in self.storage.list(area.live)?.unwrap_or_default() {
                    if area.is_ours(&entry) {
                        self.storage.remove(area.live, &entry)?;
                    }
                }
                self.storage.sync_directory(area.live)?;
            }
            self.enter(Phase::Return)?;
        }
        for area in self.areas() {
            self.bring(&area.saved(), area.live, |_| true)?;
            self.storage.remove_tree(&area.saved())?;
            self.storage.sync_directory(area.live)?;
        }
        self.storage.discard(self.places)?;
        self.finish()?;
        Ok(Outcome::RolledBack)
    }

    fn commit(self) -> Result<Outcome> {
        for area in self.areas() {
            self.storage.remove_tree(&area.saved())?;
            self.storage.sync_directory(area.live)?;
        }
        self.finish()?;
        Ok(Outcome::Committed)
    }

    fn finish(&self) -> Result<()> {
        self.storage.remove_file(&self.places.journal)?;
        self.storage.sync_directory(&self.places.root)
    }

    fn enter(&mut self, phase: Phase) -> Result<()> {
        self.journal.phase = phase;
        self.journal.write(self.storage, self.places)
    }

    /// Moves what `choose` says from one directory to another, durably. What was moved before is
    /// not there any more.
    fn bring(&self, from: &Path, to: &Path, choose: impl Fn(&Entry) -> bool) -> Result<()> {
        let entries = self.storage.list(from)?.unwrap_or_default();
        let mut copied = Vec::new();
        for entry in entries.iter().filter(|entry| choose(entry)) {
            let (source, target) = (from.join(&entry.name), to.join(&entry.name));
            match self.storage.0.rename(&source, &target) {
                Err(error) if is_other_device(&error) && !entry.is_directory => {
                    // Half of a copy is copied again: its source is there until all copies are
                    // durable.
                    attempt(&target, self.storage.0.copy(&source, &target))?;
                    copied.push(source);
                }
                renamed => attempt(&target, renamed)?,
            }
        }
        self.storage.sync_directory(to)?;
        for source in &copied {
            self.storage.remove_file(source)?;
        }
        if entries.is_empty() { Ok(()) } else { self.storage.sync_directory(from) }
    }

    fn areas(&self) -> Vec<Area<'_>> {
        let Places { data, wal, .. } = self.places;
        let live = &self.journal.data;
        match &self.journal.wal {
            None => vec![Area { live, incoming: vec![data, wal], is_wal_only: false }],
            Some(live_wal) => vec![
                Area { live, incoming: vec![data], is_wal_only: false },
                Area { live: live_wal, incoming: vec![wal], is_wal_only: true },
            ],
        }
    }
}

fn is_other_device(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::CrossesDevices
}
