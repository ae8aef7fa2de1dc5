// SPDX-License-Identifier: GPL-2.0-only

//! The donor's side of clone-core's traits, for a directory that no server has open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clone_classic::server::Diagnostics;
use clone_core::donor::DonorClones;
use clone_core::engine::Cancel;
use clone_core::error::{Error, Result};
use clone_core::facts::{self, Question};
use clone_core::meter::Sample;
use clone_core::session::{
    Clock, CommitBlock, DonorSession, Host, Observer, PluginName, ServerSession, Session,
    Variables, Work, WorkerKind,
};
use clone_core::settings::{ReleaseFacts, Settings};
use clone_innodb::cold::ColdDirectory;
use clone_protocol::innodb::DB_TYPE;

use super::engine::ColdInnodb;
use super::facts::Facts;

/// What all connections share.
#[derive(Debug)]
pub(super) struct ColdHost {
    facts: Facts,
    engine: ColdInnodb,
    clones: DonorClones<ColdInnodb>,
    /// A signal or the end of the work sets it.
    stop: Arc<AtomicBool>,
    start: Instant,
}

impl ColdHost {
    pub(super) fn new(directory: ColdDirectory, facts: Facts) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            facts,
            engine: ColdInnodb::new(directory)?,
            clones: DonorClones::default(),
            stop: Arc::default(),
            start: Instant::now(),
        }))
    }

    /// All clones of this donor.
    pub(super) fn clones(&self) -> &DonorClones<ColdInnodb> {
        &self.clones
    }

    pub(super) fn engine(&self) -> &ColdInnodb {
        &self.engine
    }

    /// Makes all sessions end as soon as it is set.
    pub(super) fn stop_flag(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Clock for ColdHost {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Host for ColdHost {
    type Session = ColdSession;
    type Thread = JoinHandle<()>;

    /// A donor reads three of them: whether open files may be handed over, how long DDL may wait,
    /// and how much processor time compression may use.
    fn settings(&self) -> Settings {
        Settings { block_ddl: true, ..Settings::default() }
    }

    fn processors(&self) -> u32 {
        thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
    }

    /// A directory has no clone plugin: each version of the protocol can be spoken.
    fn release(&self) -> ReleaseFacts {
        ReleaseFacts::LATEST
    }

    fn observer(&self) -> &dyn Observer {
        &Unobserved
    }

    fn spawn(
        self: &Arc<Self>,
        _: WorkerKind,
        work: Work<Self::Session>,
    ) -> io::Result<Self::Thread> {
        let host = Arc::clone(self);
        thread::Builder::new().spawn(move || work(&ColdSession::new(host, Arc::default())))
    }
}

/// Recipients report their progress themselves.
struct Unobserved;

impl Observer for Unobserved {
    fn next_stage(&self, _: u32, _: u64, _: u64) {}
    fn transferred(&self, _: &Sample, _: u32) {}
    fn add_estimate(&self, _: u64) {}
}

/// A connection's session.
#[derive(Debug)]
pub(super) struct ColdSession {
    host: Arc<ColdHost>,
    /// KILL of this connection.
    is_killed: Arc<AtomicBool>,
    diagnostics: Diagnostics,
}

impl ColdSession {
    pub(super) fn new(host: Arc<ColdHost>, is_killed: Arc<AtomicBool>) -> Self {
        Self { host, is_killed, diagnostics: Diagnostics::default() }
    }

    /// The errors of this session, which its connection tells the recipient.
    pub(super) fn diagnostics(&self) -> &Diagnostics {
        &self.diagnostics
    }
}

impl Cancel for ColdSession {
    fn is_killed(&self) -> bool {
        self.host.is_stopped() || self.is_killed.load(Ordering::Relaxed)
    }
}

impl Session for ColdSession {
    type Host = ColdHost;
    type Engine = ColdInnodb;

    fn host(&self) -> &Arc<ColdHost> {
        &self.host
    }

    fn raise(&self, error: &Error) {
        self.diagnostics.raise(error);
    }

    /// None: what is raised is for the recipient. The log has each error where it happens.
    fn raised(&self) -> Option<(u32, String)> {
        None
    }

    fn engines(&self) -> Vec<ColdInnodb> {
        vec![self.host.engine.clone()]
    }
}

impl Variables for ColdSession {
    fn variables(&self, names: &[&str]) -> Result<Vec<String>> {
        names.iter().map(|name| self.host.facts.get(name)).collect()
    }
}

/// Nobody commits in a directory that no server has open.
#[derive(Debug)]
pub(super) struct NobodyCommits;

impl CommitBlock for NobodyCommits {
    fn has_held(&self) -> bool {
        true
    }
}

/// Nobody runs DDL and nobody commits in a directory that no server has open. The lock of the
/// system tablespace keeps servers out as long as the directory is served.
impl ServerSession for ColdSession {
    type CommitBlock = NobodyCommits;

    fn lock_backup(&self, _: u32) -> Result<()> {
        Ok(())
    }

    fn unlock_backup(&self) {}

    fn block_commits(&self, _: u32, _: &mut dyn FnMut() -> Result<()>) -> Result<NobodyCommits> {
        Ok(NobodyCommits)
    }
}

impl DonorSession for ColdSession {
    /// None: recipients of the same release have the same collations.
    fn collations(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// None: which plugins a server had is configured outside of the directory.
    fn plugins(&self) -> Result<Vec<PluginName>> {
        Ok(Vec::new())
    }

    fn maturity(&self) -> &'static str {
        self.host.facts.maturity()
    }

    /// What the user has said, and what the files say. The dictionary is not read.
    fn facts(&self) -> facts::Facts {
        let mut facts = facts::Facts::default();
        let mut note = |question, entries: Vec<(String, u64)>| {
            let row = |(text, number): (String, u64)| vec![Some(text), Some(number.to_string())];
            facts.note(question, entries.into_iter().map(row).collect());
        };
        let lower_case = self.host.facts.get("lower_case_table_names").unwrap_or_default();
        if !lower_case.is_empty() {
            note(Question::LowerCaseTableNames, vec![(lower_case, 1)]);
        }
        let directory = self.host.engine.directory();
        let redo = u64::from(directory.has_encrypted_redo());
        note(Question::RedoEncryption, vec![("redo log".to_owned(), redo)]);
        let names = directory.encrypted_files();
        let names: Vec<_> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let count = names.len() as u64;
        let tablespaces = names.into_iter().map(|name| (name, count)).collect();
        note(Question::EncryptedTablespaces, tablespaces);
        note(Question::Size, vec![("bytes".to_owned(), directory.allocated())]);
        let outside = directory.outside_directories().into_iter();
        let outside = outside.map(|name| (String::from_utf8_lossy(name).into_owned(), 1));
        note(Question::OutsideDirectories, outside.collect());
        // A directory with such names is not served.
        note(Question::UndoFileNames, Vec::new());
        facts
    }

    fn mark_donor_statement(&self) {}

    fn engine(&self, db_type: u8) -> Option<ColdInnodb> {
        (db_type == DB_TYPE).then(|| self.host.engine.clone())
    }
}
