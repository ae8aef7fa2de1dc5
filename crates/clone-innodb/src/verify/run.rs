// SPDX-License-Identifier: GPL-2.0-only

//! Checks all that a [`Plan`] has, with threads.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::directory::{Plan, logical_page};
use super::doublewrite::Copies;
use super::examine::Examiner;
use super::observer::{Context, Observer};
use super::redo::{self, End, Log};
use super::scan::{Opened, Piece, Scan, Totals};
use crate::encryption::Keyring;
use crate::format::doublewrite;
use crate::lock;

/// What it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that were checked.
    pub files: u64,
    /// Pages that were checked.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Faults, those that were not told one by one among them.
    pub faults: u64,
    /// Encrypted pages, of which only the header was checked.
    pub encrypted: u64,
    /// Where the redo log ends.
    pub redo: Option<End>,
}

/// How to check.
#[derive(Debug, Default)]
pub struct Options {
    /// Threads that read and check; 0 is 1.
    pub threads: usize,
    /// Where the keys of encrypted tablespaces are.
    pub keyring: Option<Keyring>,
}

/// Checks everything, and tells the observer.
pub fn run(plan: &Plan, options: &Options, observer: &dyn Observer) -> Summary {
    let mut summary = Summary::default();
    for (path, error) in &plan.unreadable {
        observer.unreadable(path, None, error);
    }
    plan.notes.iter().for_each(|note| observer.note(note));
    summary.redo = redo_end(plan, options, &mut summary, observer);
    let is_clean = summary.redo.is_none_or(|end| end.is_clean());
    if !is_clean {
        observer.note(
            "the server was not shut down cleanly: pages may be torn, which the doublewrite buffer \
             repairs, and older than their neighbours, which the redo log repairs. Links and \
             allocation are not checked: start the server, shut it down, and verify again",
        );
    }
    let context = Context {
        keyring: options.keyring.as_ref(),
        end_lsn: summary.redo.map(|end| end.lsn),
        checks_structure: is_clean,
        copies: copies(plan, is_clean, &mut summary, observer),
    };
    let work = Work::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1))
            .map(|_| scope.spawn(|| work.run(plan, &context, observer)))
            .collect();
        for worker in workers {
            // A panic of a worker is passed on.
            let (files, totals) = match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            summary.files += files;
            summary.pages += totals.pages;
            summary.bytes += totals.bytes;
            summary.faults += totals.faults;
            summary.encrypted += totals.opaque;
        }
    });
    if summary.encrypted > 0 {
        let pages = summary.encrypted;
        observer.note(&format!(
            "{pages} pages are encrypted: their numbers, LSNs and neighbours were checked, not \
             their checksums and contents"
        ));
    }
    summary
}

fn redo_end(
    plan: &Plan,
    options: &Options,
    summary: &mut Summary,
    observer: &dyn Observer,
) -> Option<End> {
    let (mut end, mut opaque) = (None::<End>, 0);
    for files in &plan.redo {
        let mut faults = 0;
        let read = redo::read(files, options.keyring.as_ref(), &mut |fault| {
            faults += 1;
            observer.fault(&fault);
        });
        summary.faults += faults;
        summary.files += files.paths.len() as u64;
        match read {
            // Of several directories the farthest end: none of their pages is beyond it.
            Ok(Log { end: Some(found), opaque: more }) => {
                opaque += more;
                if end.is_none_or(|end| end.lsn - end.checkpoint < found.lsn - found.checkpoint) {
                    end = Some(End { lsn: end.map_or(0, |end| end.lsn).max(found.lsn), ..found });
                }
                end = end.map(|end| End { lsn: end.lsn.max(found.lsn), ..end });
            }
            Ok(Log { end: None, .. }) => {}
            Err((path, error)) => observer.unreadable(&path, None, &error),
        }
    }
    if opaque > 0 {
        observer.note(&format!(
            "{opaque} blocks of the redo log are encrypted: their order was checked, not their \
             checksums and contents"
        ));
    }
    if end.is_none() {
        observer.note("no redo log was found: LSNs are not held against its end");
    }
    end
}

fn copies(
    plan: &Plan,
    is_clean: bool,
    summary: &mut Summary,
    observer: &dyn Observer,
) -> HashSet<(u32, u32)> {
    let mut copies = Copies::default();
    for path in &plan.doublewrite {
        let system = || plan.spaces.iter().find_map(|space| logical_page(space.paths.first()?));
        let size = doublewrite::page_size(path).or_else(system);
        match copies.add(path, size.unwrap_or(16 << 10) as usize) {
            Ok(bytes) => {
                summary.files += 1;
                summary.bytes += bytes;
            }
            Err(error) => observer.unreadable(path, None, &error),
        }
    }
    if copies.unknown > 0 && !is_clean {
        let (unknown, good) = (copies.unknown, copies.good.len());
        observer.note(&format!(
            "the doublewrite buffer has {good} good copies of pages, and {unknown} that are torn \
             or encrypted; a torn copy is of a page that was not written yet"
        ));
    }
    copies.good
}

/// The tablespaces that are not opened yet, and the pieces that are not read yet.
#[derive(Debug, Default)]
struct Work {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next: usize,
    opening: usize,
    pieces: VecDeque<Piece>,
}

enum Task {
    Open(usize),
    Read(Piece),
}

impl Work {
    fn run(&self, plan: &Plan, context: &Context<'_>, observer: &dyn Observer) -> (u64, Totals) {
        let mut examiner = Examiner::default();
        let (mut files, mut sum) = (0, Totals::default());
        while let Some(task) = self.take(plan.spaces.len()) {
            let number = match task {
                Task::Read(piece) => {
                    if let Some(totals) = piece.run(&mut examiner, context, observer) {
                        sum.pages += totals.pages;
                        sum.bytes += totals.bytes;
                        sum.faults += totals.faults;
                        sum.opaque += totals.opaque;
                    }
                    continue;
                }
                Task::Open(number) => number,
            };
            let mut pieces = Vec::new();
            if let Some(space) = plan.spaces.get(number) {
                match Scan::open(space, context) {
                    Ok(Opened::Pieces(found, notes)) => {
                        notes.iter().for_each(|note| observer.note(note));
                        files += space.paths.len() as u64;
                        pieces = found;
                    }
                    Ok(Opened::Skipped(why)) => observer.note(&why),
                    Ok(Opened::Damaged(fault)) => {
                        files += 1;
                        sum.faults += 1;
                        observer.fault(&fault);
                    }
                    Err((path, error)) => observer.unreadable(&path, None, &error),
                }
            }
            self.opened(pieces);
        }
        (files, sum)
    }

    /// Pieces first, so that few tablespaces are in memory at once.
    fn take(&self, spaces: usize) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(piece) = queue.pieces.pop_front() {
                return Some(Task::Read(piece));
            }
            if queue.next < spaces {
                queue.next += 1;
                queue.opening += 1;
                return Some(Task::Open(queue.next - 1));
            }
            if queue.opening == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn opened(&self, pieces: Vec<Piece>) {
        let mut queue = lock(&self.queue);
        queue.opening -= 1;
        queue.pieces.extend(pieces);
        drop(queue);
        self.changed.notify_all();
    }
}
