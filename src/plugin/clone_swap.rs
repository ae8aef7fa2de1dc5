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
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

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

/// mysqld's data directory, which is its working directory when it calls `init`.
const ROOT: &str = ".";

/// mysqld loads a daemon plugin only if `interface_version` is the server's own. [`follow_server`]
/// writes the number.
pub(super) static DAEMON: Writable<abi::st_mysql_daemon> =
    Writable::new(abi::st_mysql_daemon { interface_version: 0 });

/// mysqld reads [`DAEMON`] before it calls anything here. This runs earlier: when mysqld opens the
/// library.
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

/// The directories in which `init` has run a swap when this server started. Not set if the plugin
/// was not loaded early.
static AT_START: OnceLock<Directories> = OnceLock::new();

/// The swap that was run, until it is settled.
static SWAP: Mutex<Option<Swap>> = Mutex::new(None);

/// Where MyRocks is, by the variables.
struct Directories {
    data: PathBuf,
    /// None if the logs are with the files.
    wal: Option<PathBuf>,
}

impl Directories {
    /// Copies the values of the variables. mysqld does not always keep them: those of an INSTALL
    /// PLUGIN are gone before it calls `init` (`sql/sql_plugin.cc:mysql_install_plugin`).
    ///
    /// # Safety
    /// Each variable is NULL or a text that is alive. While mysqld starts they are.
    unsafe fn from_variables() -> Self {
        let [data, wal] = [&DATADIR, &WAL_DIR].map(|variable| {
            // SAFETY: by the caller's promise.
            unsafe { path(variable.load(Ordering::Relaxed)) }.unwrap_or(Path::new("")).to_owned()
        });
        Self { data, wal: Some(wal).filter(|wal| !wal.as_os_str().is_empty()) }
    }

    /// Whether these are the same directories.
    fn are(&self, data: &Path, wal: &Path) -> bool {
        let is_same = |one: &Path, other: &Path| {
            // Components leave out what makes no difference, but for the first ".".
            let plain = |path: &Path| path.strip_prefix(".").unwrap_or(path).to_owned();
            plain(one) == plain(other)
        };
        is_same(&self.data, data) && is_same(self.wal.as_ref().unwrap_or(&self.data), wal)
    }
}

/// mysqld has loaded the plugin. It must not have opened InnoDB yet.
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
        // SAFETY: InnoDB is not open, so mysqld is starting. The texts are among the options that
        // mysqld was started with, which it keeps.
        let directories = unsafe { Directories::from_variables() };
        match run(&directories) {
            Ok(outcome) => {
                let _ = AT_START.set(directories);
                if outcome != Outcome::Nothing {
                    log(Level::Info, text_of(outcome));
                }
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

fn run(directories: &Directories) -> Result<Outcome> {
    let Directories { data, wal } = directories;
    let swap = Swap::new(&Layout::rocksdb(ROOT), data, wal.as_deref());
    let outcome = swap.run(Standing::of_innodb(Path::new(ROOT)))?;
    *SWAP.lock().unwrap_or_else(PoisonError::into_inner) = Some(swap);
    Ok(outcome)
}

/// Whether the next start of this server will put a clone of MyRocks in place. `data` and `wal` are
/// where MyRocks has its files and logs.
pub(crate) fn will_swap(data: &Path, wal: &Path) -> bool {
    AT_START.get().is_some_and(|directories| directories.are(data, wal))
}

/// InnoDB has started with its part of the clone, if there was a clone. The data that the clone has
/// replaced may be removed.
pub(super) fn settle() {
    let swap = SWAP.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(swap) = swap {
        // After an error the next start removes what is left.
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

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    /// mysqld sets the variables again at INSTALL PLUGIN, and frees the texts before `init`.
    #[test]
    fn directories_are_those_of_the_start() {
        let at_start = [c"./rocks/", c""].map(CString::from);
        for (variable, text) in [&DATADIR, &WAL_DIR].iter().zip(&at_start) {
            variable.store(text.as_ptr().cast_mut(), Ordering::Relaxed);
        }
        assert!(!will_swap(Path::new("rocks"), Path::new("rocks")));
        // SAFETY: the texts are alive.
        assert!(AT_START.set(unsafe { Directories::from_variables() }).is_ok());
        drop(at_start);
        let later = c"other";
        DATADIR.store(later.as_ptr().cast_mut(), Ordering::Relaxed);
        WAL_DIR.store(null_mut(), Ordering::Relaxed);
        assert!(will_swap(Path::new("rocks"), Path::new("./rocks")));
        assert!(!will_swap(Path::new("rocks"), Path::new("logs")));
        assert!(!will_swap(Path::new("other"), Path::new("other")));
    }

    #[test]
    fn logs_may_be_elsewhere() {
        let wal = Some(PathBuf::from("/logs"));
        let directories = Directories { data: PathBuf::from("rocks"), wal };
        assert!(directories.are(Path::new("rocks"), Path::new("/logs")));
        assert!(!directories.are(Path::new("rocks"), Path::new("rocks")));
    }
}
