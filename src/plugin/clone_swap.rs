// SPDX-License-Identifier: GPL-2.0-only

//! The plugin `clone_swap`: puts a clone of MyRocks in place before the server opens it.
//!
//! ```ini
//! early-plugin-load = clone_swap=libmysql_clone.so
//! clone-swap        = ON
//! plugin-load-add   = clone=libmysql_clone.so
//! ```
//!
//! Plugins that are loaded early are initialised before all storage engines, in the data directory.
//! This plugin runs [`clone_rocksdb::Swap`] there. It stops a server whose database is neither the
//! old nor the new one.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use clone_core::error::Result;
use clone_rocksdb::{Layout, Outcome, Standing, Swap};
use log::Level;

use super::writable::Writable;
use crate::guard::guard;
use crate::server::error_log::log_while_loading;
use crate::server::symbols::Symbols;
use crate::server::text::path;
use crate::server::{abi, plugins, symbols};

/// The plugin's name.
pub(crate) const NAME: &CStr = c"clone_swap";

/// mysqld's data directory: its working directory by then.
const ROOT: &str = ".";

/// What mysqld reads of a daemon plugin. The number is that of the server, or it is not loaded.
pub(super) static DAEMON: Writable<abi::st_mysql_daemon> =
    Writable::new(abi::st_mysql_daemon { interface_version: 0 });

/// mysqld looks at [`DAEMON`] before it calls anything here. This runs earlier: when the library is
/// opened.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = follow_server;

extern "C" fn follow_server() {
    let Some(release) = symbols::release() else { return };
    let id = u32::from(release.major) * 10_000
        + u32::from(release.minor) * 100
        + u32::from(release.patch);
    let version = c_int::try_from(id << 8).unwrap_or(0);
    // SAFETY: `dlopen` runs this function. No other thread knows an address of this library yet.
    unsafe { DAEMON.as_ptr().write(abi::st_mysql_daemon { interface_version: version }) };
}

static DATADIR: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
static WAL_DIR: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

static DATADIR_VAR: Writable<abi::sysvar_str> = directory(
    c"rocksdb_datadir",
    c"Where MyRocks looks for its files: the same as rocksdb_datadir",
    &DATADIR,
    c"./.rocksdb",
);
static WAL_DIR_VAR: Writable<abi::sysvar_str> = directory(
    c"rocksdb_wal_dir",
    c"Where MyRocks looks for its write-ahead logs: the same as rocksdb_wal_dir",
    &WAL_DIR,
    c"",
);

/// For the plugin's declaration; ends with a null pointer.
pub(super) static VARIABLES: Writable<[*mut abi::SYS_VAR; 3]> =
    Writable::new([DATADIR_VAR.as_ptr().cast(), WAL_DIR_VAR.as_ptr().cast(), null_mut()]);

const fn directory(
    name: &'static CStr,
    comment: &'static CStr,
    value: &'static AtomicPtr<c_char>,
    default: &'static CStr,
) -> Writable<abi::sysvar_str> {
    Writable::new(abi::sysvar_str {
        header: abi::SYS_VAR {
            flags: abi::PLUGIN_VAR_STR | abi::PLUGIN_VAR_READONLY | abi::PLUGIN_VAR_RQCMDARG,
            name: name.as_ptr(),
            comment: comment.as_ptr(),
            check: None,
            update: None,
        },
        value: value.as_ptr(),
        def_val: default.as_ptr().cast_mut(),
    })
}

/// The plugin was loaded early, and looks for clones at each start.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// The swap that was run, until it is settled.
static SWAP: Mutex<Option<Swap>> = Mutex::new(None);

/// The plugin is loaded: before InnoDB, if as it should be.
pub(super) unsafe extern "C" fn init(plugin: *mut c_void) -> c_int {
    guard(|| {
        let log = |level, text: &str| {
            let text = format!("{}: {text}", NAME.to_string_lossy());
            // SAFETY: mysqld gave `plugin` to this call.
            unsafe { log_while_loading(plugin, level, &text) };
        };
        if is_late() {
            log(Level::Error, "engines are open already: load it with --early-plugin-load");
            return 1;
        }
        let outcome = run();
        IS_READY.store(outcome.is_ok(), Ordering::Relaxed);
        match outcome {
            Ok(Outcome::Nothing) => 0,
            Ok(outcome) => {
                log(Level::Info, text_of(outcome));
                0
            }
            Err(error) => {
                let text = format!("MyRocks must not be opened, the server stops: {error}");
                log(Level::Error, &text);
                stop(&text)
            }
        }
    })
}

fn run() -> Result<Outcome> {
    let (data, wal) = directories();
    let swap = Swap::new(&Layout::rocksdb(ROOT), data, wal);
    let outcome = swap.run(Standing::of_innodb(Path::new(ROOT)))?;
    *SWAP.lock().unwrap_or_else(PoisonError::into_inner) = Some(swap);
    Ok(outcome)
}

/// Where MyRocks is said to be: its files, and its logs unless they are in the same directory.
fn directories() -> (&'static Path, Option<&'static Path>) {
    let [data, wal] = [&DATADIR, &WAL_DIR].map(|variable| {
        // SAFETY: mysqld has set the variables to texts that it keeps, since they are read-only.
        unsafe { path(variable.load(Ordering::Relaxed)) }.unwrap_or(Path::new(""))
    });
    (data, Some(wal).filter(|wal| !wal.as_os_str().is_empty()))
}

/// Whether a clone of MyRocks, which has its files and logs there, will be put in place when this
/// server starts again.
pub(crate) fn will_swap(directory: &Path, wal_directory: &Path) -> bool {
    let (data, wal) = directories();
    let is_same = |one: &Path, other: &Path| {
        // Components leave out what makes no difference, but for the first ".".
        let plain = |path: &Path| path.strip_prefix(".").unwrap_or(path).to_owned();
        plain(one) == plain(other)
    };
    IS_READY.load(Ordering::Relaxed)
        && is_same(data, directory)
        && is_same(wal.unwrap_or(data), wal_directory)
}

/// InnoDB has started with its part of the clone, if there was a clone. The data that the clone has
/// replaced may be removed.
pub(super) fn settle() {
    let swap = SWAP.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(swap) = swap {
        // What is left is removed by the next start.
        let _ = swap.settle(Standing::of_innodb(Path::new(ROOT)));
    }
}

fn text_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Nothing => "there is no clone of MyRocks",
        Outcome::Swapped => "a clone of MyRocks is put in place",
        Outcome::Kept => "the last clone of MyRocks is in place, what was there before is kept",
        Outcome::Committed => {
            "the last clone of MyRocks is in place, what was there before is removed"
        }
        Outcome::Discarded => "a clone of MyRocks that cannot be used is removed",
        Outcome::RolledBack => "the last clone of MyRocks is rolled back",
    }
}

/// Whether mysqld has initialised its engines.
fn is_late() -> bool {
    let Ok(symbols) = Symbols::load() else { return true };
    plugins::is_innodb_ready(symbols)
}

/// Ends the process. An error from `init` would only stop a server that was started with
/// `clone-swap=FORCE`, and any other would open, or create, a database in the middle of a swap.
fn stop(text: &str) -> ! {
    // The error log is buffered this early.
    let _ = writeln!(std::io::stderr(), "[ERROR] clone_swap: {text}");
    // SAFETY: ends the process, without the exit handlers of a server that is half up.
    unsafe { libc::_exit(1) }
}
