// SPDX-License-Identifier: GPL-2.0-only

//! A session of a server: its diagnostics area and its KILL.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clone_core::base::Base;
use clone_core::checks::{self, Finding, ServerChecks};
use clone_core::compat::versions_compatible;
use clone_core::engine::{Cancel, ServerEngine};
use clone_core::error::{Error, Result, number};
use clone_core::facts::{Facts, Question, Rows};
use clone_core::file_channel::{FileGiver, FileTaker};
use clone_core::link::{Donor, LinkKind};
use clone_core::parameters::{Parameters, ServerRelease};
use clone_core::session::{
    DonorSession, Host, OwnData, PluginName, RecipientSession, ServerSession, Session, StagedClone,
    Variables,
};
use clone_protocol::HandoverKey;

use super::commits::CommitBlock;
use super::engines::SimEngine;
use super::network::SimLink;
use super::server::SimHost;

/// What other threads see of a session.
pub(crate) struct Handle {
    pub(crate) id: u32,
    killed: AtomicBool,
    user: AtomicBool,
}

impl Handle {
    pub(super) fn new(id: u32) -> Self {
        Self { id, killed: AtomicBool::new(false), user: AtomicBool::new(false) }
    }

    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    pub(super) fn is_user(&self) -> bool {
        self.user.load(Ordering::Relaxed)
    }
}

/// The text of 1317 in MySQL's catalogue. Of the other errors the arguments are enough.
pub(crate) const INTERRUPTED: &str = "Query execution was interrupted";

/// A session.
pub(crate) struct SimSession {
    pub(crate) host: Arc<SimHost>,
    pub(crate) handle: Arc<Handle>,
    /// The first is the one that the user sees, all are in SHOW WARNINGS.
    diagnostics: RefCell<Vec<(u32, String)>>,
}

impl SimSession {
    /// The session of somebody who runs CLONE.
    pub(crate) fn user(host: &Arc<SimHost>) -> Self {
        let session = Self::worker(host);
        session.handle.user.store(true, Ordering::Relaxed);
        session
    }

    /// A session of the server itself, or of a connection in clone mode.
    pub(crate) fn worker(host: &Arc<SimHost>) -> Self {
        super::log::session_begins(host);
        Self { host: Arc::clone(host), handle: host.register(), diagnostics: RefCell::default() }
    }

    /// `my_error`.
    pub(crate) fn raise_text(&self, number: u32, text: &str) -> Error {
        self.diagnostics.borrow_mut().push((number, text.to_owned()));
        Error::Raised(number)
    }

    /// Puts an error into the diagnostics area, by its number alone if it was raised in another
    /// session.
    pub(crate) fn raise_any(&self, error: &Error) {
        if let Error::Raised(number) = error
            && self.diagnostics.borrow().is_empty()
        {
            self.raise_text(*number, "of another session");
        }
        Session::raise(self, error);
    }

    /// Everything that was raised.
    pub(crate) fn warnings(&self) -> Vec<(u32, String)> {
        self.diagnostics.borrow().clone()
    }

    pub(super) fn clear_diagnostics(&self) {
        self.diagnostics.borrow_mut().clear();
    }

    fn variable(&self, name: &str) -> Result<String> {
        let value = self.host.facts().variables.get(name).cloned();
        value.ok_or_else(|| self.raise_text(number::ER_INTERNAL_ERROR, "unknown variable"))
    }
}

impl Drop for SimSession {
    fn drop(&mut self) {
        super::log::session_ends();
        self.host.unregister(self.handle.id);
    }
}

impl Cancel for SimSession {
    fn is_killed(&self) -> bool {
        self.host.sim.pause();
        self.handle.is_killed()
    }
}

impl Session for SimSession {
    type Host = SimHost;
    type Engine = SimEngine;

    fn host(&self) -> &Arc<SimHost> {
        &self.host
    }

    fn raise(&self, error: &Error) {
        let text = match error {
            Error::Interrupted => INTERRUPTED.to_owned(),
            // What a donor says may hold a NUL, at which a text ends for MySQL.
            other => other.to_string().split('\0').take(1).collect(),
        };
        let raised = (error.number(), text);
        let mut diagnostics = self.diagnostics.borrow_mut();
        if !matches!(error, Error::Raised(_)) && !diagnostics.contains(&raised) {
            diagnostics.push(raised);
        }
    }

    fn raised(&self) -> Option<(u32, String)> {
        self.diagnostics.borrow().first().cloned()
    }

    fn engines(&self) -> Vec<SimEngine> {
        let follower = self.host.follower.is_installed().then_some(SimEngine::Follower);
        [Some(SimEngine::Innodb), follower].into_iter().flatten().collect()
    }
}

impl Variables for SimSession {
    fn variables(&self, names: &[&str]) -> Result<Vec<String>> {
        names.iter().map(|name| self.variable(name)).collect()
    }
}

impl ServerSession for SimSession {
    type CommitBlock = CommitBlock;

    fn lock_backup(&self, timeout_seconds: u32) -> Result<()> {
        self.host.sim.pause();
        let timeout = Duration::from_secs(timeout_seconds.into());
        if self.host.acquire_backup_lock(self.handle.id, timeout) {
            return Ok(());
        }
        Err(self.raise_text(number::ER_LOCK_WAIT_TIMEOUT, "Lock wait timeout exceeded"))
    }

    fn unlock_backup(&self) {
        self.host.sim.pause();
        self.host.release_backup_lock(self.handle.id);
    }

    fn block_commits(
        &self,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<CommitBlock> {
        CommitBlock::new(self, Duration::from_secs(timeout_seconds.into()), wait)
    }
}

impl DonorSession for SimSession {
    fn collations(&self) -> Result<Vec<String>> {
        Ok(self.host.facts().collations.clone())
    }

    fn plugins(&self) -> Result<Vec<PluginName>> {
        Ok(self.host.facts().plugins.clone())
    }

    fn maturity(&self) -> &'static str {
        self.host.facts().maturity
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        let uuid = self.variable("server_uuid").unwrap_or_default();
        let lower = self.variable("lower_case_table_names").unwrap_or_default();
        let one = |text: String| vec![vec![Some(text), Some("1".to_owned())]];
        facts.note(Question::ServerUuid, one(uuid));
        facts.note(Question::LowerCaseTableNames, one(lower));
        for (question, entries) in &self.host.facts().told {
            let row = |(text, number): &(&str, u64)| {
                vec![Some((*text).to_owned()), Some(number.to_string())]
            };
            facts.note(*question, entries.iter().map(row).collect());
        }
        facts
    }

    fn mark_donor_statement(&self) {}

    fn engine(&self, db_type: u8) -> Option<SimEngine> {
        self.engines().into_iter().find(|engine| engine.db_type() == db_type)
    }

    fn connect_files(&self, key: HandoverKey) -> io::Result<Box<dyn FileGiver>> {
        self.host.network.connect_files(key)
    }
}

impl RecipientSession for SimSession {
    type Link = SimLink;
    type Donor = Donor;

    fn base(&self) -> Option<Arc<Base>> {
        self.host.base.lock().unwrap().clone()
    }

    fn name_of(&self, donor: &Donor) -> String {
        format!("{}:{}", donor.host, donor.port)
    }

    fn listen_for_files(&self) -> io::Result<Box<dyn FileTaker>> {
        self.host.network.listen_for_files()
    }

    fn connect(&self, donor: &Donor, kind: LinkKind, _: bool) -> Result<SimLink> {
        SimLink::connect(self, donor, kind)
    }

    fn accept(&self, donor: &Parameters, replaces_data: bool) -> Result<()> {
        checks::check(self, donor, replaces_data)
    }

    fn is_dry_run(&self) -> bool {
        self.host.facts().is_dry_run
    }

    fn own_data(&self) -> Result<&dyn OwnData> {
        Ok(self)
    }
}

impl OwnData for SimSession {
    fn staging_directory(&self) -> Result<Option<PathBuf>> {
        let has_follower = self.host.follower.is_installed();
        Ok((!has_follower).then(|| self.host.directory.join("staging")))
    }

    fn accept_system_file(&self, index: usize, _: u64) -> Result<()> {
        self.host.sim.pause();
        assert_eq!(index, 0, "the donor has one file in its system tablespace");
        Ok(())
    }

    fn accept_outside_file(&self, path: &Path) -> Result<()> {
        panic!("the donor has no file outside of its data directory: {}", path.display())
    }

    fn check_space_without_data(&self, needed: u64) -> Result<()> {
        assert_ne!(needed, 0, "the donor's estimate");
        match self.host.facts().space_without_data {
            free if free < needed => Err(Error::DiskSpace { needed, free }),
            _ => Ok(()),
        }
    }

    fn check_replaceable(&self) -> Result<()> {
        self.host.sim.pause();
        Ok(())
    }

    fn empty_doublewrite_buffer(&self) -> Result<()> {
        assert_eq!(self.host.backup_lock_holders(), [self.handle.id], "DDL goes on");
        Ok(())
    }

    fn replace_data(&self, clone: &StagedClone) -> Result<()> {
        self.host.sim.pause();
        assert_eq!(self.host.backup_lock_holders(), [self.handle.id], "DDL goes on");
        let replaced = self.host.directory.join("replaced");
        assert!(clone.system_files.iter().all(|name| name == "ibdata1"), "{clone:?}");
        fs::rename(&clone.directory, &replaced)
            .map_err(|error| Error::file(true, &replaced.to_string_lossy(), &error))
    }

    fn begin_replacing(&self) -> Result<()> {
        self.lock_backup(self.host.settings().ddl_timeout)
    }

    fn end_replacing(&self) {
        self.unlock_backup();
    }
}

impl ServerChecks for SimSession {
    fn check_collations(&self, names: &[String]) -> Result<()> {
        let known = self.host.facts().collations.clone();
        let mut outcome = Ok(());
        for name in names.iter().filter(|name| !known.contains(name)) {
            outcome = Err(self.raise_text(3867, name));
        }
        outcome
    }

    /// `clone_protocol_service.cc:mysql_clone_validate_configs`.
    fn check_variables(&self, variables: &[(String, String)]) -> Result<()> {
        let mut outcome = Ok(());
        for (name, donor) in variables {
            let ours = self.variable(name)?;
            match name.as_str() {
                "version" if !self.host.facts().compares_version_as_variable => {}
                "version" if versions_compatible(&ours, donor, false, false) => {}
                _ if ours == *donor => {}
                "version" => outcome = Err(self.raise_text(3864, donor)),
                "version_compile_os" => return Err(self.raise_text(3865, donor)),
                "version_compile_machine" => return Err(self.raise_text(3866, donor)),
                _ => outcome = Err(self.raise_text(3868, name)),
            }
        }
        outcome
    }

    fn check_version(&self, recipient: &ServerRelease, donor: &ServerRelease) -> Result<()> {
        if self.host.facts().compares_version_as_variable
            || versions_compatible(
                &recipient.version,
                &donor.version,
                recipient.is_lts.unwrap_or(false),
                donor.is_lts.unwrap_or(false),
            )
        {
            return Ok(());
        }
        let error = Error::DonorVersion {
            donor: donor.version.clone(),
            recipient: recipient.version.clone(),
        };
        Err(self.raise_text(error.number(), &error.to_string()))
    }

    fn maturity(&self) -> &'static str {
        DonorSession::maturity(self)
    }

    fn has_plugin(&self, name: &str) -> bool {
        self.host.facts().plugins.iter().any(|plugin| plugin.name == name)
    }

    fn can_load_plugin(&self, library: &str) -> bool {
        self.host.facts().libraries.iter().any(|known| known == library)
    }

    fn rows(&self, _: &'static str) -> Option<Rows> {
        let row = vec![Some("Active".to_owned())];
        Some(if self.host.facts().has_keyring { vec![row] } else { Vec::new() })
    }

    fn has_place_for(&self, _: &Path) -> bool {
        true
    }

    fn free_space(&self) -> Option<u64> {
        None
    }

    fn has_supervisor(&self) -> Option<bool> {
        Some(self.host.facts().has_supervisor)
    }

    fn is_strict(&self) -> bool {
        self.host.facts().is_strict
    }

    fn raise(&self, error: &Error) {
        Session::raise(self, error);
    }

    fn warn(&self, _: &Error) {}

    fn show(&self, findings: Vec<Finding>) {
        self.host.facts().findings = findings;
    }
}
