// SPDX-License-Identifier: GPL-2.0-only

//! A session of mysqld.

use std::path::Path;
use std::sync::Arc;

use clone_core::error::{Error, Result, number};
use clone_core::session::{Donor, LinkKind, PluginName, ServerRelease, Session};
use clone_protocol::innodb;

use super::commit_block::CommitBlock;
use super::engine::MysqldEngine;
use super::links::RecipientLink;
use super::{MysqldHost, errors, library};
use crate::myrocks;
use crate::plugin::start_up::NAME;
use crate::server::connection::{self, Connection, SslContext};
use crate::server::handlerton::Handlerton;
use crate::server::{Thd, backup_lock, plugins, protocol, services};

/// A session, on the thread that runs it.
pub(crate) struct MysqldSession {
    pub(super) thd: Thd,
    host: Arc<MysqldHost>,
}

impl MysqldSession {
    pub(crate) fn new(thd: Thd, host: Arc<MysqldHost>) -> Self {
        Self { thd, host }
    }

    pub(crate) fn thd(&self) -> Thd {
        self.thd
    }
}

impl Session for MysqldSession {
    type Host = MysqldHost;
    type Engine = MysqldEngine;
    type Link = RecipientLink;
    type CommitBlock = CommitBlock;

    fn host(&self) -> &Arc<MysqldHost> {
        &self.host
    }

    fn id(&self) -> u32 {
        // The column is an int, as it is in the stock plugin.
        u32::try_from(self.thd.thread_id()).unwrap_or(u32::MAX)
    }

    fn is_killed(&self) -> bool {
        self.thd.is_killed()
    }

    fn raise(&self, error: &Error) {
        let there = protocol::error(self.thd);
        match error {
            // A task that hears of the donor's error through its engine: the text comes with the donor's packet.
            Error::Raised(number::ER_CLONE_DONOR) => {}
            Error::Raised(number) if there.is_none() => errors::raise_number(*number),
            Error::Raised(_) => {}
            // An error passes several doors on its way out, and shall stand in SHOW WARNINGS once. Several plugins may be
            // missing, each in an error of its own.
            _ if there.is_some_and(|(number, text)| {
                let is_same = match error {
                    Error::PluginMissing(name) => text.contains(name),
                    _ => true,
                };
                number == error.number() && is_same
            }) => {}
            _ => errors::raise(error),
        }
    }

    fn raised(&self) -> Option<(u32, String)> {
        protocol::error(self.thd)
    }

    fn configs(&self, names: &[&str]) -> Result<Vec<String>> {
        protocol::configs(self.thd, names).map_err(Error::Raised)
    }

    fn collations(&self) -> Result<Vec<String>> {
        protocol::collations(self.thd).map_err(Error::Raised)
    }

    fn check_collations(&self, names: &[String]) -> Result<()> {
        protocol::validate_collations(self.thd, names).map_err(Error::Raised)
    }

    fn check_configs(&self, configs: &[(String, String)]) -> Result<()> {
        protocol::validate_configs(self.thd, configs).map_err(Error::Raised)
    }

    fn check_version(&self, recipient: &ServerRelease, donor: &ServerRelease) -> Result<()> {
        let checked = protocol::validate_version(
            &recipient.version,
            &donor.version,
            recipient.is_lts,
            donor.is_lts,
        );
        checked.unwrap_or(Ok(())).map_err(Error::Raised)
    }

    fn maturity(&self) -> &'static str {
        services().layout.maturity
    }

    fn mark_donor_statement(&self) {
        protocol::start_statement(self.thd, self.host.keys.server_statement);
    }

    fn plugins(&self) -> Result<Vec<PluginName>> {
        let plugins = plugins::active_plugins().map_err(Error::Raised)?;
        // What puts clones in place at start-up matters to no peer, and a stock one would ask for it.
        let plugins = plugins.into_iter().filter(|(name, _)| name.as_bytes() != NAME.to_bytes());
        Ok(plugins.map(|(name, library)| PluginName { name, library }).collect())
    }

    fn has_plugin(&self, name: &str) -> bool {
        plugins::is_installed(self.thd, name)
    }

    fn can_load_plugin(&self, name: &str) -> bool {
        let directory = self.configs(&["plugin_dir"]).ok().and_then(|mut values| values.pop());
        directory.is_some_and(|directory| library::is_loadable(Path::new(&directory), name))
    }

    fn lock_backup(&self, timeout_seconds: u32) -> Result<()> {
        if backup_lock::acquire(self.thd, timeout_seconds) {
            return Ok(());
        }
        Err(Error::Raised(number::ER_LOCK_WAIT_TIMEOUT))
    }

    fn unlock_backup(&self) {
        backup_lock::release(self.thd);
    }

    fn block_commits(
        &self,
        timeout_seconds: u32,
        wait: &mut dyn FnMut() -> Result<()>,
    ) -> Result<CommitBlock> {
        CommitBlock::new(timeout_seconds, wait)
    }

    fn engines(&self) -> Vec<MysqldEngine> {
        myrocks::adopt();
        let mut engines = plugins::engines().unwrap_or_default();
        // mysqld has them in an order of its own. InnoDB leads, and peers have the same order.
        engines.sort_by_key(|engine| (engine.db_type() != innodb::DB_TYPE, engine.db_type()));
        engines.into_iter().filter_map(MysqldEngine::new).collect()
    }

    fn engine(&self, db_type: u8) -> Option<MysqldEngine> {
        myrocks::adopt();
        Handlerton::by_type(self.thd, db_type).and_then(MysqldEngine::new)
    }

    fn connect(&self, donor: &Donor, kind: LinkKind, compressed: bool) -> Result<RecipientLink> {
        let ssl = self.configs(&["clone_ssl_key", "clone_ssl_cert", "clone_ssl_ca"])?;
        let file =
            |index: usize| ssl.get(index).map(String::as_str).filter(|name| !name.is_empty());
        let thd = (kind == LinkKind::Data).then_some(self.thd);
        let donor = connection::Donor {
            host: &donor.host,
            port: donor.port,
            user: &donor.user,
            password: &donor.password,
            compress: compressed,
            ssl: SslContext { mode: donor.ssl_mode, key: file(0), cert: file(1), ca: file(2) },
        };
        Connection::connect(thd, &donor).map(RecipientLink::new).map_err(Error::Raised)
    }
}

/// As engines of this library see it.
impl clone_engine::Session for MysqldSession {
    fn is_killed(&self) -> bool {
        self.thd.is_killed()
    }
}
