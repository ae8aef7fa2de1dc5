// SPDX-License-Identifier: GPL-2.0-only

//! mysqld's error log, as the logger of the crate `log`.
//!
//! | Target | Line |
//! |---|---|
//! | `clone::client` | `[MY-013272] [Clone] Plugin Clone reported: 'Client: <text>.'` |
//! | `clone::server` | `[MY-013273] [Clone] Plugin Clone reported: 'Server: <text>.'` |
//! | any other | `[MY-000000] [Clone] Plugin Clone reported: '<text>.'` |
//!
//! The first two are the lines of the stock plugin. Errors are written with the priority ERROR,
//! warnings with WARNING, information with INFORMATION, which `log_error_verbosity=3` shows.
//! Debug and trace are off.
//!
//! Between [`stop`] and [`start`], and before the first [`start`], nothing is written, except by
//! [`log_while_loading`].

use std::ffi::{c_char, c_int, c_longlong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::abi::{self, Function};
use super::load_error::LoadError;
use super::registry::{Registry, Service};
use super::releases::{Layout, Probes};
use super::symbols::{self, LookUp};
use super::text;

/// The target of what a recipient, a local clone and the plugin itself say.
pub(crate) const CLIENT: &str = "clone::client";

/// The target of what a donor says.
pub(crate) const SERVER: &str = "clone::server";

/// The most bytes of a text that a line has.
const LONGEST_TEXT: usize = 512;

/// The service, from [`start`] to [`stop`].
static SERVICE: RwLock<Option<Arc<LogBuiltins>>> = RwLock::new(None);

static LOGGER: ErrorLog = ErrorLog;

/// Writes with `service` whatever this library logs from now on.
pub(super) fn start(service: Arc<LogBuiltins>) {
    *SERVICE.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    // It is set already if the library has stayed in memory since the plugin was unloaded.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// Ends what [`start`] began.
pub(super) fn stop() {
    log::set_max_level(LevelFilter::Off);
    *SERVICE.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The logger. It has no state but [`SERVICE`], so that it may be called at any time.
struct ErrorLog;

impl Log for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let service = SERVICE.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(service) = service {
            service.write(&Line::of(record));
        }
    }

    fn flush(&self) {}
}

/// What mysqld is told.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// `enum loglevel`.
    prio: c_int,
    /// A number of `share/messages_to_error_log.txt`. Without one mysqld shows MY-000000.
    number: Option<c_longlong>,
    text: String,
}

impl Line {
    fn of(record: &Record<'_>) -> Self {
        let text = record.args().to_string();
        let text = &text[..text.floor_char_boundary(LONGEST_TEXT)];
        Self::new(record.level(), record.target(), text)
    }

    fn new(level: Level, target: &str, text: &str) -> Self {
        let prio = match level {
            Level::Error => abi::ERROR_LEVEL,
            Level::Warn => abi::WARNING_LEVEL,
            Level::Info | Level::Debug | Level::Trace => abi::INFORMATION_LEVEL,
        };
        let (number, name) = match target {
            // ER_CLONE_CLIENT_TRACE "Client: %.512s."
            CLIENT => (Some(13272), "Client: "),
            // ER_CLONE_SERVER_TRACE "Server: %.512s."
            SERVER => (Some(13273), "Server: "),
            _ => (None, ""),
        };
        // As `include/mysql/components/services/log_builtins.h:LogPluginErr` puts it together.
        Self { prio, number, text: format!("Plugin Clone reported: '{name}{text}.'") }
    }
}

/// The service `log_builtins`, which can set the number and the subsystem of a line.
pub(crate) struct LogBuiltins {
    message: Function<abi::log_builtins_message_fn>,
    _service: Service,
}

impl LogBuiltins {
    pub(super) fn acquire(registry: &Arc<Registry>, slot: usize) -> Result<Self, LoadError> {
        let service = registry.service(c"log_builtins.mysql_server")?;
        // SAFETY: `releases.rs` vouches for the slot.
        let message = unsafe { service.method::<abi::log_builtins_message_fn>(slot) }?;
        Ok(Self { message, _service: service })
    }

    /// The service of a server of which nothing else is known yet. None if the version of the
    /// server is unknown, since the slot of the method is unknown then.
    ///
    /// # Safety
    /// As [`super::symbols::Symbols::find`]; `registry` gives the registry of the same server.
    pub(super) unsafe fn find(
        look_up: LookUp<'_>,
        registry: impl FnOnce() -> Result<Arc<Registry>, LoadError>,
    ) -> Option<Self> {
        // SAFETY: by the caller's promise.
        let version = unsafe { symbols::version_in(look_up) }?.to_str().ok()?.parse().ok()?;
        let probes = Probes::ask(|name| !look_up(name).is_null());
        let layout = Layout::for_version(&version, probes).ok()?;
        Self::acquire(&registry().ok()?, layout.log_message).ok()
    }

    /// A line of [`log_while_loading`]. It is not cut: a report about a server can be long.
    pub(super) fn write_load_line(&self, level: Level, text: &str) {
        self.write(&Line::new(level, CLIENT, text));
    }

    fn write(&self, line: &Line) {
        let text = text::whole(&line.text);
        let prio = c_longlong::from(line.prio);
        let subsystem: *const c_char = c"Clone".as_ptr();
        let component: *const c_char = c"plugin:Clone".as_ptr();
        match line.number {
            // SAFETY: pairs of item type and value as `sql/log.cc:log_vmessage` reads them:
            // numbers are long long, texts are terminated and copied during the call, and
            // LOG_VERBATIM ends the list.
            Some(number) => unsafe {
                (self.message)(
                    abi::LOG_TYPE_ERROR,
                    abi::LOG_ITEM_LOG_PRIO,
                    prio,
                    abi::LOG_ITEM_SQL_ERRCODE,
                    number,
                    abi::LOG_ITEM_SRV_SUBSYS,
                    subsystem,
                    abi::LOG_ITEM_SRV_COMPONENT,
                    component,
                    abi::LOG_ITEM_LOG_VERBATIM,
                    text.as_ptr(),
                )
            },
            // SAFETY: as above.
            None => unsafe {
                (self.message)(
                    abi::LOG_TYPE_ERROR,
                    abi::LOG_ITEM_LOG_PRIO,
                    prio,
                    abi::LOG_ITEM_SRV_SUBSYS,
                    subsystem,
                    abi::LOG_ITEM_SRV_COMPONENT,
                    component,
                    abi::LOG_ITEM_LOG_VERBATIM,
                    text.as_ptr(),
                )
            },
        };
    }
}

/// As [`super::registry::plugin_registry_service`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static my_plugin_log_service: AtomicPtr<abi::my_plugin_log_service> =
    AtomicPtr::new(ptr::without_provenance_mut(abi::PLUGIN_SERVICE_VERSION as usize));

/// Writes a line before [`start`], for the target [`CLIENT`]. A server of unknown version gets
/// `[MY-000000] [Server] Plugin clone reported: '<text>'`.
///
/// # Safety
/// `plugin` is what mysqld gave to the plugin's `init` or `deinit`, which has not returned.
pub(crate) unsafe fn log_while_loading(plugin: *mut c_void, level: Level, text: &str) {
    // SAFETY: `dlsym` gives what mysqld has, and mysqld has its log services before any plugin.
    match unsafe { LogBuiltins::find(&symbols::look_up, Registry::acquire) } {
        Some(service) => service.write_load_line(level, text),
        // SAFETY: by the caller's promise.
        None => unsafe { log_plain(plugin, level, text) },
    }
}

/// Writes `Plugin clone reported: '<text>'` with the service that every plugin has.
///
/// # Safety
/// As [`log_while_loading`].
unsafe fn log_plain(mut plugin: *mut c_void, level: Level, text: &str) {
    let service = my_plugin_log_service.load(Ordering::Acquire);
    if service.is_null()
        || service.addr() == abi::PLUGIN_SERVICE_VERSION as usize
        || plugin.is_null()
    {
        eprintln!("Plugin clone reported: '{text}'");
        return;
    }
    // SAFETY: mysqld has put the address of its constant table there.
    let Some(message) = unsafe { &*service }.my_plugin_log_message else { return };
    let level = match level {
        Level::Error => abi::MY_ERROR_LEVEL,
        Level::Warn => abi::MY_WARNING_LEVEL,
        Level::Info | Level::Debug | Level::Trace => abi::MY_INFORMATION_LEVEL,
    };
    let text = text::whole(text);
    // SAFETY: the plugin by the caller's promise; the format wants one terminated text.
    unsafe { message(&raw mut plugin, level, c"%s".as_ptr(), text.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, target: &str, text: &str) -> (c_int, Option<c_longlong>, String) {
        let arguments = format_args!("{text}");
        let record = Record::builder().level(level).target(target).args(arguments).build();
        let Line { prio, number, text } = Line::of(&record);
        (prio, number, text)
    }

    #[test]
    fn lines_are_those_of_the_stock_plugin() {
        assert_eq!(
            line(Level::Info, CLIENT, "Task Connect"),
            (3, Some(13272), "Plugin Clone reported: 'Client: Task Connect.'".to_owned())
        );
        assert_eq!(
            line(Level::Warn, SERVER, "COM_INIT"),
            (2, Some(13273), "Plugin Clone reported: 'Server: COM_INIT.'".to_owned())
        );
        assert_eq!(
            line(Level::Error, "clone_io::writer", "text"),
            (1, None, "Plugin Clone reported: 'text.'".to_owned())
        );
    }

    #[test]
    fn only_512_bytes_are_written() {
        let (_, _, text) = line(Level::Info, CLIENT, &"x".repeat(600));
        assert_eq!(text, format!("Plugin Clone reported: 'Client: {}.'", "x".repeat(512)));
    }

    #[test]
    fn debug_lines_are_not_written() {
        for (level, is_written) in [
            (Level::Error, true),
            (Level::Warn, true),
            (Level::Info, true),
            (Level::Debug, false),
            (Level::Trace, false),
        ] {
            let metadata = Metadata::builder().level(level).target(CLIENT).build();
            assert_eq!(LOGGER.enabled(&metadata), is_written, "{level}");
        }
    }

    /// A thread of this library may log when the plugin is not loaded yet, or no longer.
    #[test]
    fn without_a_service_nothing_happens() {
        let arguments = format_args!("text");
        LOGGER.log(&Record::builder().level(Level::Error).target(CLIENT).args(arguments).build());
    }
}
