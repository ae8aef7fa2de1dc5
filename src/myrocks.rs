// SPDX-License-Identifier: GPL-2.0-only

//! The MyRocks of this server.
//!
//! Percona's MyRocks has no clone interface, so this plugin lends it one: the functions of
//! [`crate::c_api`] go into the handlerton of the engine `ROCKSDB`, and behind them is a
//! [`RocksDb`] whose database is reached with MyRocks' own variables for backups ([`database`]).
//! Each clone checks at its beginning whether the functions are in the handlerton, because MyRocks
//! may be installed, or installed again, at any time. They are taken out when this plugin is
//! unloaded.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_core::error::{Error, Result};
use clone_rocksdb::{Client, Donor, DonorOptions, Layout, RocksDb};

use crate::c_api;
use crate::plugin::clone_swap;
use crate::server::error_log::CLIENT;
use crate::server::handlerton::Handlerton;
use crate::server::plugins::EnginePlugin;
use crate::server::services::services;
use database::{Directories, HOME, MyRocks};

mod database;
mod log_status;

/// The engine's name. Its number is not the same in every fork.
const NAME: &str = "ROCKSDB";

/// The server's data directory: its working directory.
const ROOT: &str = ".";

/// An engine that has its clone interface from here.
struct Adopted {
    /// The address of its handlerton. Nothing is read there: MyRocks may be uninstalled.
    address: usize,
    db_type: u8,
}

static ADOPTED: Mutex<Option<Adopted>> = Mutex::new(None);

/// Gives MyRocks a clone interface, if MyRocks is installed and has none. Called before each search
/// for engines that can clone.
///
/// A MyRocks whose files cannot be found is left as it is, and mentioned in the error log.
pub(crate) fn adopt() {
    let mut adopted = adopted();
    let Some(plugin) = installed().filter(|plugin| plugin.handlerton().clone_begin().is_none())
    else {
        return;
    };
    // Its predecessor, if it was installed anew.
    forget(&mut adopted);
    match Directories::read() {
        Ok(directories) => *adopted = lend(plugin.handlerton(), directories),
        Err(error) => log::warn!(target: CLIENT, "{NAME} is not cloned: {error}"),
    }
}

/// Takes back what was lent, before this library is unloaded.
pub(crate) fn let_go() {
    let mut adopted = adopted();
    let ours = adopted.as_ref().map(|adopted| adopted.address);
    // An engine that was uninstalled has taken its handlerton with it.
    if let Some(plugin) =
        installed().filter(|plugin| Some(plugin.handlerton().as_ptr().addr()) == ours)
    {
        // SAFETY: mysqld unloads the plugin when no clone runs, and has no use for the functions
        // afterwards.
        unsafe { plugin.handlerton().set_clone_interface(c_api::no_interface()) };
    }
    forget(&mut adopted);
}

fn lend(engine: Handlerton<'_>, directories: Directories) -> Option<Adopted> {
    let db_type = engine.db_type();
    let Directories { data, wal } = directories.clone();
    let options = DonorOptions {
        // InnoDB comes first, and waits there as long as the user wants.
        restart_timeout: Duration::from_secs(1),
        ..DonorOptions::default()
    };
    let donor = Donor::new(Arc::new(MyRocks::new(directories)), options);
    let client = Client::new(Layout::rocksdb(ROOT))
        .with_home(HOME)
        .replacing_if(move || check_swap(&data, &wal));
    if !c_api::register(db_type.into(), Arc::new(RocksDb::new(donor, client))) {
        log::warn!(target: CLIENT, "{NAME} is not cloned: there is another engine of type {db_type}");
        return None;
    }
    // SAFETY: this handlerton had no interface until now. All code that reads it calls `adopt`
    // first, and `ADOPTED` lets one thread in at a time. The functions stay until `let_go` has
    // taken them out.
    unsafe { engine.set_clone_interface(c_api::interface()) };
    log::info!(target: CLIENT, "{NAME} has no clone interface, and gets one");
    Some(Adopted { address: engine.as_ptr().addr(), db_type })
}

/// A clone that replaces the server's data puts MyRocks' files in place when the server starts
/// again.
fn check_swap(data: &Path, wal: &Path) -> Result<()> {
    if clone_swap::will_swap(data, wal) {
        return Ok(());
    }
    Err(Error::NotSupported(
        "CLONE of MyRocks over the server's data without early-plugin-load=clone_swap=libmysql_clone.so, clone-swap=ON and the \
         directories of MyRocks in clone-swap-rocksdb-datadir and -wal-dir"
            .into(),
    ))
}

fn forget(adopted: &mut Option<Adopted>) {
    if let Some(Adopted { db_type, .. }) = adopted.take() {
        c_api::unregister(db_type.into());
    }
}

fn installed() -> Option<EnginePlugin> {
    let engines = services().engines().unwrap_or_default();
    engines.into_iter().find(|plugin| plugin.name() == NAME)
}

fn adopted() -> MutexGuard<'static, Option<Adopted>> {
    ADOPTED.lock().unwrap_or_else(PoisonError::into_inner)
}
