// SPDX-License-Identifier: GPL-2.0-only

//! A session of mysqld.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clone_core::checks::{self, Finding, ServerChecks};
use clone_core::engine::{Cancel, ServerEngine};
use clone_core::error::{Error, Result, number};
use clone_core::facts::{Facts, Rows};
use clone_core::link::{Donor, LinkKind};
use clone_core::parameters::{Parameters, ServerRelease};
use clone_core::session::{
    DonorSession, Host, OwnData, PluginName, RecipientSession, ServerSession, Session, StagedClone,
    Variables,
};
use clone_core::settings::KeepData;
use clone_protocol::innodb;

use super::commit_block::CommitBlock;
use super::engine::MysqldEngine;
use super::host::MysqldHost;
use super::interrupter::{GRACE, Trigger};
use super::links::RecipientLink;
use super::{debug_hooks, errors, facts, library, links, replacement};
use crate::myrocks;
use crate::plugin::clone_swap::NAME;
use crate::plugin::variables;
use crate::server::abi;
use crate::server::connection::{self, Connection, SslContext};
use crate::server::error_log::CLIENT;
use crate::server::plugins::{self, EnginePlugin};
use crate::server::protocol::BackgroundSession;
use crate::server::raise;
use crate::server::services::services;
use crate::server::sql::run_apart;
use crate::server::thd::{KillFlag, Thd};

/// A session, on the thread that runs it.
pub(crate) struct MysqldSession {
    /// References to the engines that this session has given out, which stay until it ends: what
    /// clone-core holds of an engine is not used longer.
    engines: RefCell<Vec<EnginePlugin>>,
    /// A session that mysqld has started, or [`Self::_own`].
    thd: Thd<'static>,
    /// The kill flag of the session whose statement this session works for.
    statement: Option<KillFlag>,
    host: Arc<MysqldHost>,
    /// A session that the plugin has started ends with this object. It is the last field, since
    /// fields are dropped in their order.
    _own: Option<BackgroundSession>,
}

impl MysqldSession {
    /// The session that mysqld has on this thread, `None` for NULL.
    ///
    /// # Safety
    /// `thd` is NULL or the session of this thread, which outlives the result.
    pub(crate) unsafe fn new(thd: *mut abi::THD, host: Arc<MysqldHost>) -> Option<Self> {
        // SAFETY: by the caller's promise the session lives longer than the result. `Self::thd`
        // gives it out for no longer than the result lives.
        let thd = unsafe { Thd::from_raw(thd) }?;
        Some(Self { engines: RefCell::default(), thd, statement: None, host, _own: None })
    }

    /// A new session for this thread, which has none. `thread_key` is its instrument. The session
    /// works for the statement of another session, whose kill flag is `statement`.
    pub(super) fn start(
        thread_key: u32,
        statement: Option<KillFlag>,
        host: Arc<MysqldHost>,
    ) -> Option<Self> {
        let own = services().clone_protocol.start_session(thread_key)?;
        // SAFETY: the session lives as long as the result, which owns it.
        let thd = unsafe { Thd::from_raw(own.thd().as_ptr()) }?;
        Some(Self { engines: RefCell::default(), thd, statement, host, _own: Some(own) })
    }

    pub(crate) fn thd(&self) -> Thd<'_> {
        self.thd
    }

    /// Whether the session was killed whose statement this session works for.
    fn is_statement_killed(&self) -> bool {
        self.statement.is_some_and(|flag| flag.is_set())
    }

    /// When KILL shuts down a connection of this session: the time `own` after KILL of this
    /// session, and [`GRACE`] after KILL of the statement that this session works for.
    pub(super) fn triggers(&self, own: Duration) -> Vec<Trigger> {
        // SAFETY: a task owns its connections, and ends before its session does.
        let killed = unsafe { self.thd().kill_flag() };
        let own = Trigger::new(own, move || killed.is_set());
        let statement = self.statement.map(|flag| Trigger::new(GRACE, move || flag.is_set()));
        [own].into_iter().chain(statement).collect()
    }

    /// The session's connection id. The column of `clone_status` is an int, as in the stock plugin.
    pub(crate) fn connection_id(&self) -> u32 {
        u32::try_from(self.thd().thread_id()).unwrap_or(u32::MAX)
    }

    /// What clone-core is given of an engine that can clone. The session keeps the reference.
    fn give(&self, plugin: EnginePlugin) -> Option<MysqldEngine> {
        // SAFETY: this session holds a reference until it ends, and clone-core uses an engine only
        // as long as a session that has it from here: workers end before the master does.
        let engine = MysqldEngine::new(unsafe { plugin.handlerton().kept() })?;
        let mut engines = self.engines.borrow_mut();
        if engines.iter().all(|held| held.handlerton() != plugin.handlerton()) {
            engines.push(plugin);
        }
        Some(engine)
    }
}

impl Cancel for MysqldSession {
    fn is_killed(&self) -> bool {
        self.thd().is_killed()
    }
}

impl Session for MysqldSession {
    type Host = MysqldHost;
    type Engine = MysqldEngine;

    fn host(&self) -> &Arc<MysqldHost> {
        &self.host
    }

    fn raise(&self, error: &Error) {
        let there = self.raised();
        match error {
            // The task knows the donor's error from its engine, as a number. The error is raised
            // with its text, which comes in the donor's packet.
            Error::Raised(number::ER_CLONE_DONOR) => {}
            Error::Raised(number) if there.is_none() => errors::raise_number(*number),
            Error::Raised(_) => {}
            // An error is raised at several places on its way out, and SHOW WARNINGS has it once.
            // Several plugins may be missing, each with an error of its own.
            _ if there.is_some_and(|(number, text)| {
                let is_same = match error {
                    Error::PluginMissing(name) | Error::SystemConfig(name) => {
                        // mysqld may have cut the text.
                        text.contains(&name[..name.floor_char_boundary(200)])
                    }
                    _ => true,
                };
                number == error.number() && is_same
            }) => {}
            _ => errors::raise(error),
        }
    }

    fn raised(&self) -> Option<(u32, String)> {
        services().clone_protocol.error(self.thd())
    }

    fn engines(&self) -> Vec<MysqldEngine> {
        myrocks::adopt();
        let engines = services().engines().unwrap_or_default();
        let mut engines: Vec<_> =
            engines.into_iter().filter_map(|engine| self.give(engine)).collect();
        // InnoDB is first, and peers have the same order. mysqld's list has another order.
        engines.sort_by_key(|engine| (engine.db_type() != innodb::DB_TYPE, engine.db_type()));
        engines
    }
}

impl Variables for MysqldSession {
    fn variables(&self, names: &[&str]) -> Result<Vec<String>> {
        services().clone_protocol.configs(self.thd(), names).map_err(Error::Raised)
    }
}

impl ServerSession for MysqldSession {
    type CommitBlock = CommitBlock;

    fn lock_backup(&self, timeout_seconds: u32) -> Result<()> {
        if services().backup_lock.lock(self.thd(), timeout_seconds) {
            return Ok(());
        }
        Err(Error::Raised(number::ER_LOCK_WAIT_TIMEOUT))
    }

    fn unlock_backup(&self) {
        services().backup_lock.unlock(self.thd());
    }

    fn block_commits(
        &self,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<CommitBlock> {
        CommitBlock::new(self.thd().thread_id(), timeout_seconds, wait)
    }
}

impl DonorSession for MysqldSession {
    fn collations(&self) -> Result<Vec<String>> {
        services().clone_protocol.collations(self.thd()).map_err(Error::Raised)
    }

    fn plugins(&self) -> Result<Vec<PluginName>> {
        let plugins = plugins::active_plugins(services().symbols).map_err(Error::Raised)?;
        // The plugin that puts clones in place at start-up matters to no peer. A stock recipient
        // would demand it.
        let plugins = plugins.into_iter().filter(|(name, _)| name.as_bytes() != NAME.to_bytes());
        Ok(plugins.map(|(name, library)| PluginName { name, library }).collect())
    }

    fn maturity(&self) -> &'static str {
        services().layout.maturity
    }

    fn facts(&self) -> Facts {
        facts::of_this_server()
    }

    fn mark_donor_statement(&self) {
        let key = self.host.keys.server_statement;
        services().clone_protocol.start_statement(self.thd(), key);
    }

    fn engine(&self, db_type: u8) -> Option<MysqldEngine> {
        myrocks::adopt();
        let engines = services().engines().unwrap_or_default();
        let named = engines.into_iter().find(|engine| engine.handlerton().db_type() == db_type);
        named.and_then(|engine| self.give(engine))
    }
}

impl RecipientSession for MysqldSession {
    type Link = RecipientLink;
    type Donor = Donor;

    fn name_of(&self, donor: &Donor) -> String {
        format!("{}:{}", donor.host, donor.port)
    }

    fn connect(&self, donor: &Donor, kind: LinkKind, compressed: bool) -> Result<RecipientLink> {
        let mut files = self.variables(&["clone_ssl_key", "clone_ssl_cert", "clone_ssl_ca"])?;
        let mut file = || files.pop().filter(|name| !name.is_empty());
        let (ca, cert, key) = (file(), file(), file());
        let donor = connection::Donor {
            host: donor.host.clone(),
            port: donor.port,
            user: donor.user.clone(),
            password: donor.password.clone(),
            compress: compressed,
            ssl: SslContext { mode: donor.ssl_mode, key, cert, ca },
        };
        let connected = match kind {
            LinkKind::DataOfReplacement => {
                Connection::connect(Some(self.thd()), &donor).map_err(Error::Connect)?
            }
            LinkKind::Data | LinkKind::Auxiliary => {
                let (connector, key) = (&self.host.connector, self.host.keys.client_task);
                let is_killed = || self.is_killed() || self.is_statement_killed();
                let allowed = links::seconds(self, "connect_timeout", 1);
                let limit = self.host.settings().patience().map(|limit| limit.max(allowed));
                connector.connect(donor, key, limit, is_killed)?
            }
        };
        RecipientLink::new(connected, self, kind)
    }

    fn accept(&self, donor: &Parameters, replaces_data: bool) -> Result<()> {
        let changed = debug_hooks::changed_parameters(donor);
        let donor = changed.as_ref().unwrap_or(donor);
        checks::check(self, donor, replaces_data)
    }

    fn is_dry_run(&self) -> bool {
        variables::is_dry_run(self.thd())
    }

    fn own_data(&self) -> Result<&dyn OwnData> {
        Ok(self)
    }
}

impl OwnData for MysqldSession {
    fn staging_directory(&self) -> Result<Option<PathBuf>> {
        // Besides InnoDB there is an engine of this project. It puts the clone into a directory of
        // its own, and its swap does not know a staging directory.
        if self.engines().len() > 1 {
            return Ok(None);
        }
        replacement::staging_directory(self)
    }

    fn accept_system_file(&self, index: usize, size: u64) -> Result<()> {
        replacement::accept_system_file(self, index, size)
    }

    fn accept_outside_file(&self, path: &Path) -> Result<()> {
        replacement::accept_outside_file(self, path)
    }

    fn check_space_without_data(&self, bytes: u64) -> Result<()> {
        replacement::check_space_without_data(self, bytes)
    }

    fn check_replaceable(&self) -> Result<()> {
        replacement::check_schemas()
    }

    fn empty_doublewrite_buffer(&self) -> Result<()> {
        replacement::empty_doublewrite_buffer(self)
    }

    fn replace_data(&self, clone: &StagedClone) -> Result<()> {
        let replacement = replacement::replace_data(self, clone)?;
        self.host.set_replacement(replacement);
        Ok(())
    }

    fn begin_replacing(&self) -> Result<()> {
        self.lock_backup(self.host.settings().ddl_timeout)
    }

    fn end_replacing(&self) {
        self.unlock_backup();
    }
}

impl ServerChecks for MysqldSession {
    fn check_collations(&self, names: &[String]) -> Result<()> {
        services().clone_protocol.validate_collations(self.thd(), names).map_err(Error::Raised)
    }

    fn check_variables(&self, variables: &[(String, String)]) -> Result<()> {
        services().clone_protocol.validate_configs(self.thd(), variables).map_err(Error::Raised)
    }

    fn check_version(&self, recipient: &ServerRelease, donor: &ServerRelease) -> Result<()> {
        let (recipient, donor) = debug_hooks::changed_releases(recipient, donor);
        let checked = services().clone_protocol.validate_version(
            &recipient.version,
            &donor.version,
            recipient.is_lts.unwrap_or(false),
            donor.is_lts.unwrap_or(false),
        );
        checked.unwrap_or(Ok(())).map_err(Error::Raised)
    }

    fn maturity(&self) -> &'static str {
        DonorSession::maturity(self)
    }

    fn has_plugin(&self, name: &str) -> bool {
        plugins::is_installed(services().symbols, self.thd(), name)
    }

    fn can_load_plugin(&self, name: &str) -> bool {
        let directory = self.variables(&["plugin_dir"]).ok().and_then(|mut values| values.pop());
        directory.is_some_and(|directory| library::is_loadable(Path::new(&directory), name))
    }

    fn rows(&self, statement: &'static str) -> Option<Rows> {
        let outcome = run_apart(statement);
        outcome.inspect_err(|error| log::info!(target: CLIENT, "A check failed: {error}")).ok()
    }

    fn has_place_for(&self, path: &Path) -> bool {
        // With AUTO the data may be dropped first, and then a file may lie anywhere.
        let may_drop = self.host.settings().keep_data != KeepData::On;
        let is_free = may_drop && services().layout.writes_anywhere;
        is_free || replacement::looks_for_tablespaces(self, path).unwrap_or(true)
    }

    fn free_space(&self) -> Option<u64> {
        match self.host.settings().keep_data {
            KeepData::Off => None,
            KeepData::Auto | KeepData::On => replacement::free_space(self),
        }
    }

    fn has_supervisor(&self) -> Option<bool> {
        services().symbols.has_supervisor()
    }

    fn is_strict(&self) -> bool {
        variables::is_strict(self.thd())
    }

    fn raise(&self, error: &Error) {
        Session::raise(self, error);
    }

    fn warn(&self, error: &Error) {
        raise::warn(self.thd(), error.number(), &error.to_string());
    }

    fn show(&self, findings: Vec<Finding>) {
        self.host.set_findings(findings);
    }
}
