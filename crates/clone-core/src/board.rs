// SPDX-License-Identifier: GPL-2.0-only

//! The state behind `performance_schema.clone_status` and `clone_progress`.

mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result as CloneResult};
use crate::meter::Sample;
use crate::progress::Progress;
use crate::recovery::Recovery;
use crate::session::{Clock, Observer, Session};
use crate::status::{State, Status};
use files::StatusFiles;

/// What the tables show: the running clone, or the last one if none runs.
///
/// One clone runs at a time. A clone that has replaced the server's data keeps the board until the
/// server restarts.
///
/// # Files
/// Both tables outlive the server in files below `#clone` in the data directory that they describe:
/// the server's own, or the clone's, whose server will show them when it starts. They have the form
/// of the stock plugin, so that a server can change plugins between two starts. A file that cannot
/// be written does not disturb the clone.
///
/// # Recovery
/// When a server starts with cloned data, InnoDB notes times, binary log position and, at last, the
/// GTID set in `#clone/#status_recovery`, and removes `#clone/#replace_files` at the end. The board
/// applies these notes each time the table is read, until `#replace_files` is gone. Then the board
/// removes the notes. (The stock plugin removes them at the first read, and loses the GTID set if
/// that read comes early.) The notes are about the clone that the server started with, so the board
/// does not apply them any more when another clone [begins](StatusBoard::begin).
#[derive(Debug)]
pub struct StatusBoard {
    base: PathBuf,
    inner: Mutex<Inner>,
}

/// A clone that begins.
#[derive(Clone, Copy, Debug)]
pub struct Begin<'a> {
    /// Connection id of the session that clones.
    pub pid: u32,
    /// Host and port of the donor; None for a local clone.
    pub source: Option<(&'a str, u16)>,
    /// Directory to clone into; None to replace the server's own data.
    pub destination: Option<&'a str>,
    /// Microseconds since the Unix epoch.
    pub now_us: u64,
    /// The clone ends after its checks. The tables go on to show the clone before it.
    pub is_dry_run: bool,
}

/// A clone reports its progress to the board.
impl Observer for StatusBoard {
    fn next_stage(&self, threads: u32, estimate: u64, unix_micros: u64) {
        self.next_stage(threads, estimate, unix_micros);
    }

    fn transferred(&self, sample: &Sample, threads: u32) {
        self.transferred(sample, threads);
    }

    fn add_estimate(&self, bytes: u64) {
        self.add_estimate(bytes);
    }

    fn keep_data(&self) {
        self.change_progress(Progress::keep_data);
    }

    fn drop_data(&self, unix_micros: u64) {
        self.change_progress(|progress| progress.drop_data(unix_micros));
    }

    fn begin_again(&self) {
        self.change_progress(|progress| *progress = Progress::default());
    }
}

/// Another clone is running, or has replaced the data and waits for the restart: MySQL's
/// error 3634.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

#[derive(Debug)]
struct Inner {
    status: Status,
    progress: Progress,
    /// Where the status and progress of the present clone are kept.
    files: StatusFiles,
    run: Run,
    notes: Notes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Idle,
    /// A dry run, which ends after its checks, and which the board does not show.
    Trial,
    /// A clone into another directory.
    Directory,
    /// A clone that replaces the server's own data, or has replaced it.
    Replace,
}

/// Which clone the notes in `#status_recovery` of the server's own data directory describe, if
/// there are notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notes {
    /// The clone on the board: the server started with it.
    Present,
    /// The clone that the files in the server's own data directory describe, while the board has
    /// moved on to a clone into another directory. The notes stay for the next start.
    Past,
    /// A clone that no status file describes any more, because another clone has begun to replace
    /// the data. The notes are removed as soon as InnoDB has written all of them. Otherwise the
    /// next start would apply them to the other clone.
    Orphaned,
}

impl StatusBoard {
    /// The board of the server with the data directory `base`, as the last clone left it.
    ///
    /// Call this when the server has started its storage engines. A clone that was running when the
    /// server died is shown as failed.
    pub fn load(base: PathBuf) -> StatusBoard {
        let files = StatusFiles::of(&base);
        let status = tolerate(files.status().read()).flatten();
        let progress = tolerate(files.progress().read()).flatten();
        let mut inner = Inner {
            status: status.map_or_else(Status::default, |file| Status::parse(&file)),
            progress: progress
                .as_ref()
                .map_or_else(Progress::default, |file| Progress::parse(file)),
            files,
            run: Run::Idle,
            notes: Notes::Present,
        };
        if let Some(notes) = tolerate(inner.files.recovery().read()) {
            tolerate(match notes {
                Some(notes) if progress.is_some() => {
                    inner.progress.complete(&Recovery::parse(&notes));
                    inner.write_progress()
                }
                Some(_) => Ok(()),
                None => inner.settle_interrupted(),
            });
        }
        StatusBoard { base, inner: Mutex::new(inner) }
    }

    /// Runs a clone that the tables show. They show its end with the error that the user sees.
    ///
    /// # Errors
    /// The clone's; another clone has the board.
    pub fn run<S: Session>(
        &self,
        session: &S,
        begin: Begin<'_>,
        clone: impl FnOnce() -> CloneResult<()>,
    ) -> CloneResult<()> {
        if self.begin(begin).is_err() {
            session.raise(&Error::TooManyClones);
            return Err(Error::TooManyClones);
        }
        let outcome = clone();
        let shown = outcome.as_ref().err().map(|error| {
            session.raise(error);
            if session.raised().is_none() {
                let text = format!("Clone failed with error {}", error.number());
                session.raise(&Error::Internal(text));
            }
            session.raised().unwrap_or_else(|| (error.number(), error.to_string()))
        });
        let shown = shown.as_ref().map(|(number, text)| (*number, text.as_str()));
        self.end(shown, session.host().unix_micros());
        outcome
    }

    /// Takes the board for a clone.
    ///
    /// # Errors
    /// Another clone has the board.
    pub fn begin(&self, begin: Begin<'_>) -> Result<(), Busy> {
        let mut inner = self.lock();
        if inner.run != Run::Idle {
            return Err(Busy);
        }
        if begin.is_dry_run {
            inner.run = Run::Trial;
            return Ok(());
        }
        // Apply the notes about the last clone now: `files` are still its files.
        tolerate(inner.take_notes(&self.own_files()));
        inner.notes = match (begin.destination, inner.notes) {
            (None, _) | (Some(_), Notes::Orphaned) => Notes::Orphaned,
            (Some(_), Notes::Present | Notes::Past) => Notes::Past,
        };
        inner.run = match begin.destination {
            Some(_) => Run::Directory,
            None => Run::Replace,
        };
        inner.files = StatusFiles::of(begin.destination.map_or(&self.base, Path::new));
        inner.status = Status::begin(begin.pid, begin.source, begin.destination, begin.now_us);
        inner.progress = Progress::default();
        tolerate(inner.write_progress());
        tolerate(inner.write_running_status());
        Ok(())
    }

    /// The next stage of the running clone begins with `threads` threads. It is expected to move
    /// `estimate` bytes.
    pub fn next_stage(&self, threads: u32, estimate: u64, now_us: u64) {
        self.change_progress(|progress| progress.next_stage(threads, estimate, now_us));
    }

    /// The running clone goes from stage to stage.
    fn change_progress(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(mut inner) = self.lock_running() {
            change(&mut inner.progress);
            tolerate(inner.write_progress());
            tolerate(inner.write_running_status());
        }
    }

    /// The running clone is expected to move this many bytes more; see
    /// [`BlockInput::add_estimate`](crate::engine::BlockInput::add_estimate).
    pub fn add_estimate(&self, bytes: u64) {
        if let Some(mut inner) = self.lock_running() {
            inner.progress.add_estimate(bytes);
        }
    }

    /// The running clone has moved more data, with `threads` threads.
    pub fn transferred(&self, sample: &Sample, threads: u32) {
        if let Some(mut inner) = self.lock_running() {
            inner.progress.transferred(sample, threads);
        }
    }

    /// The running clone has ended, with `error` (MySQL's number and text) or without.
    ///
    /// A clone that has replaced the server's data keeps the board, and stays in progress until the
    /// server restarts.
    pub fn end(&self, error: Option<(u32, &str)>, now_us: u64) {
        self.end_trial();
        let Some(mut inner) = self.lock_running() else { return };
        let is_replace = inner.run == Run::Replace;
        let state = if error.is_some() { State::Failed } else { State::Completed };
        inner.progress.end_stage(state, now_us);
        inner.status.end(error, is_replace, now_us);
        tolerate(inner.write_progress());
        tolerate(inner.write_status());
        if !is_replace || error.is_some() {
            inner.run = Run::Idle;
            tolerate(inner.take_notes(&self.own_files()));
        }
    }

    fn end_trial(&self) {
        let mut inner = self.lock();
        if inner.run == Run::Trial {
            inner.run = Run::Idle;
        }
    }

    /// The row of `clone_status`, if there is one.
    pub fn status(&self) -> Option<Status> {
        let mut inner = self.lock();
        if inner.run == Run::Idle {
            tolerate(inner.take_notes(&self.own_files()));
        }
        (inner.status.id != 0).then(|| inner.status.clone())
    }

    /// The rows of `clone_progress`, if there are any.
    pub fn progress(&self) -> Option<Progress> {
        let inner = self.lock();
        (inner.progress.id != 0).then(|| inner.progress.clone())
    }

    /// The files of the server's data directory.
    fn own_files(&self) -> StatusFiles {
        StatusFiles::of(&self.base)
    }

    /// None if no clone is running that the board shows.
    fn lock_running(&self) -> Option<MutexGuard<'_, Inner>> {
        Some(self.lock()).filter(|inner| !matches!(inner.run, Run::Idle | Run::Trial))
    }

    /// A panic of another thread leaves at worst an old value, because the board is changed in
    /// small steps.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ignores an error of a status file. The directory may be missing or read-only, or the disk may be
/// full. That is no reason to fail a clone or a SELECT, and the tables are right without the files.
fn tolerate<T>(outcome: io::Result<T>) -> Option<T> {
    outcome.ok()
}

impl Inner {
    /// Applies the notes of the server's start, as far as they are written, if they describe a
    /// known clone. Removes them when InnoDB has written all of them. `own` are the files of the
    /// server's data directory.
    fn take_notes(&mut self, own: &StatusFiles) -> io::Result<()> {
        if self.notes == Notes::Past {
            return Ok(());
        }
        // The order matters: if `#replace_files` is gone before the notes are read, InnoDB has
        // written all of them.
        let is_complete = !own.replaced_files().exists()?;
        if self.notes == Notes::Present {
            let Some(notes) = own.recovery().read()? else { return Ok(()) };
            let before = self.status.clone();
            self.status.complete(&Recovery::parse(&notes));
            if self.status.id != 0 && (is_complete || self.status != before) {
                self.write_status()?;
            }
        }
        if is_complete { own.recovery().remove() } else { Ok(()) }
    }

    fn settle_interrupted(&mut self) -> io::Result<()> {
        let before = self.status.state;
        self.status.settle_interrupted();
        if self.status.state == before { Ok(()) } else { self.write_status() }
    }

    fn write_status(&self) -> io::Result<()> {
        self.files.status().write(&self.status.render())
    }

    fn write_running_status(&self) -> io::Result<()> {
        self.files.status().write(&self.status.render_running())
    }

    fn write_progress(&self) -> io::Result<()> {
        self.files.progress().write(&self.progress.render())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests;
