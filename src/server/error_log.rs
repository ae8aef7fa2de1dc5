// SPDX-License-Identifier: GPL-2.0-only

//! The error log.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_longlong;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering;

use super::abi;
use super::abi::Function;
use super::load_error::LoadError;
use super::services::Registry;
use super::services::Service;
use super::services::try_services;
use super::text;

/// How much a line matters. Information is written from `log_error_verbosity=3` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warning,
    Information,
}

/// Which part of the plugin speaks: the numbers are `ER_CLONE_CLIENT_TRACE` and `ER_CLONE_SERVER_TRACE` of
/// `share/messages_to_error_log.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// MY-013272 "Client: %.512s."
    Client,
    /// MY-013273 "Server: %.512s."
    Server,
}

/// Writes a line as the stock plugin does:
/// `[Note] [MY-013272] [Clone] Plugin Clone reported: 'Client: <text>.'`
///
/// Only the first 512 bytes of `text` are written. Without services the line goes to standard error.
pub(crate) fn log(level: Level, trace: Trace, text: &str) {
    match try_services() {
        Some(services) => services.log.write(level, trace, text),
        None => eprintln!("{}", Trace::line(trace, text)),
    }
}

impl Trace {
    fn number(self) -> c_longlong {
        match self {
            Trace::Client => 13272,
            Trace::Server => 13273,
        }
    }

    /// `include/mysql/components/services/log_builtins.h:LogPluginErr`, with the number's format filled in.
    fn line(self, text: &str) -> String {
        let name = match self {
            Trace::Client => "Client",
            Trace::Server => "Server",
        };
        let text = &text[..text.floor_char_boundary(512)];
        format!("Plugin Clone reported: '{name}: {text}.'")
    }
}

impl Level {
    fn prio(self) -> c_longlong {
        c_longlong::from(match self {
            Level::Error => abi::ERROR_LEVEL,
            Level::Warning => abi::WARNING_LEVEL,
            Level::Information => abi::INFORMATION_LEVEL,
        })
    }

    fn plugin_log_level(self) -> c_int {
        match self {
            Level::Error => abi::MY_ERROR_LEVEL,
            Level::Warning => abi::MY_WARNING_LEVEL,
            Level::Information => abi::MY_INFORMATION_LEVEL,
        }
    }
}

/// The service `log_builtins`, which can set the number and the subsystem of a line.
pub(crate) struct Log {
    message: Function<abi::log_builtins_message_fn>,
    _service: Service,
}

impl Log {
    pub(super) fn acquire(registry: &Arc<Registry>, slot: usize) -> Result<Self, LoadError> {
        let service = registry.service(c"log_builtins.mysql_server")?;
        // SAFETY: the layout vouches for the slot.
        let message = unsafe { service.method::<abi::log_builtins_message_fn>(slot) }?;
        Ok(Self { message, _service: service })
    }

    pub(super) fn write(&self, level: Level, trace: Trace, text: &str) {
        let line = text::whole(&trace.line(text));
        let subsystem: *const c_char = c"Clone".as_ptr();
        let component: *const c_char = c"plugin:Clone".as_ptr();
        // SAFETY: pairs of item type and value as `sql/log.cc:log_vmessage` reads them: numbers are long long, texts
        // are terminated and copied during the call, and LOG_VERBATIM ends the list.
        unsafe {
            (self.message)(
                abi::LOG_TYPE_ERROR,
                abi::LOG_ITEM_LOG_PRIO,
                level.prio(),
                abi::LOG_ITEM_SQL_ERRCODE,
                trace.number(),
                abi::LOG_ITEM_SRV_SUBSYS,
                subsystem,
                abi::LOG_ITEM_SRV_COMPONENT,
                component,
                abi::LOG_ITEM_LOG_VERBATIM,
                line.as_ptr(),
            )
        };
    }
}

/// As [`super::services::plugin_registry_service`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static my_plugin_log_service: AtomicPtr<abi::my_plugin_log_service> =
    AtomicPtr::new(ptr::without_provenance_mut(abi::PLUGIN_SERVICE_VERSION as usize));

/// Writes a line before anything is known of the server: `Plugin clone reported: '<text>'`. For load errors.
///
/// # Safety
/// `plugin` is what mysqld gave to the plugin's `init` or `deinit`, which has not returned.
pub(crate) unsafe fn log_plain(mut plugin: *mut c_void, level: Level, text: &str) {
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
    let text = text::whole(text);
    // SAFETY: the plugin by the caller's promise; the format wants one terminated text.
    unsafe { message(&raw mut plugin, level.plugin_log_level(), c"%s".as_ptr(), text.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_stock_plugin() {
        assert_eq!(
            Trace::Client.line("Task Connect"),
            "Plugin Clone reported: 'Client: Task Connect.'"
        );
        assert_eq!(Trace::Server.line("COM_INIT"), "Plugin Clone reported: 'Server: COM_INIT.'");
    }

    #[test]
    fn only_512_bytes_are_written() {
        let line = Trace::Client.line(&"x".repeat(600));
        assert_eq!(line, format!("Plugin Clone reported: 'Client: {}.'", "x".repeat(512)));
    }
}
