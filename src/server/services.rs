// SPDX-License-Identifier: GPL-2.0-only

//! The services that mysqld lends to the plugin from `init` to `deinit`.

use std::sync::{Arc, PoisonError, RwLock};

use super::backup_lock::BackupLock;
use super::error_log::{self, LogBuiltins};
use super::load_error::LoadError;
use super::plugins::{self, EnginePlugin};
use super::protocol::CloneProtocol;
use super::registry::Registry;
use super::releases::{Layout, Probes};
use super::status::StatusReader;
use super::symbols::{self, LookUp, Symbols};
use super::version::ServerVersion;

/// All that the plugin calls, and what is known of the server that it calls. Dropping it releases
/// the services.
pub(crate) struct Services {
    pub(crate) version: ServerVersion,
    pub(crate) layout: Layout,
    pub(crate) symbols: &'static Symbols,
    pub(crate) clone_protocol: Arc<CloneProtocol>,
    pub(crate) backup_lock: BackupLock,
    /// `None` from servers without these services.
    pub(crate) status: Option<StatusReader>,
    log: Arc<LogBuiltins>,
    /// Offset of `clone_interface` in a handlerton, as found in InnoDB's.
    pub(crate) clone_interface: usize,
}

impl Services {
    /// Acquires everything. To be called on a thread of mysqld, when InnoDB is up.
    pub(crate) fn acquire() -> Result<Self, LoadError> {
        // SAFETY: `dlsym` gives what mysqld has, and mysqld calls `init` when it is set up.
        unsafe { Self::find(Symbols::load()?, &symbols::look_up, Registry::acquire) }
    }

    /// As [`Services::acquire`]: `look_up` gives the addresses of names, as it did for `symbols`.
    ///
    /// # Safety
    /// As [`Symbols::find`]; `registry` gives the registry of the same server.
    pub(super) unsafe fn find(
        symbols: &'static Symbols,
        look_up: LookUp<'_>,
        registry: impl FnOnce() -> Result<Arc<Registry>, LoadError>,
    ) -> Result<Self, LoadError> {
        // The version first: it says what may be called.
        let version = symbols.server_version()?;
        let layout = Layout::for_version(&version, Probes::ask(|name| !look_up(name).is_null()))?;
        if !plugins::is_innodb_ready(symbols) {
            return Err(LoadError::NoInnodb);
        }
        let registry = registry()?;
        Ok(Self {
            clone_protocol: Arc::new(CloneProtocol::acquire(&registry, &layout.clone_protocol)?),
            backup_lock: BackupLock::acquire(&registry)?,
            log: Arc::new(LogBuiltins::acquire(&registry, layout.log_message)?),
            status: StatusReader::acquire(&registry),
            clone_interface: plugins::find_clone_interface(symbols)?,
            version,
            layout,
            symbols,
        })
    }

    /// The storage engines that are ready.
    pub(crate) fn engines(&self) -> Result<Vec<EnginePlugin>, u32> {
        plugins::engines(self.symbols, self.clone_interface)
    }

    /// One line about this server for the error log. It helps when a release is reported that we do
    /// not know.
    fn facts(&self) -> String {
        let Layout { log_message, clone_protocol, .. } = &self.layout;
        let has = |slot: Option<usize>| slot.map_or("no".to_owned(), |slot| format!("slot {slot}"));
        format!(
            "mysql-clone {} in MySQL {}: clone_interface at {:#x}, log_builtins.message in slot {log_message}, \
             clone_protocol.validate_version in {}, connect in slot {}, plugin records {:?}",
            env!("CARGO_PKG_VERSION"),
            self.version,
            self.clone_interface,
            has(clone_protocol.validate_version),
            clone_protocol.connect,
            self.symbols.plugin_ref,
        )
    }

    /// Says where this server is not as its version should be.
    fn surprise(&self) -> Option<String> {
        let (found, expected) = (self.clone_interface, self.layout.clone_interface?);
        (found != expected).then(|| {
            let version = &self.version;
            format!("Clone interface of {version} found at {found:#x} of a handlerton instead of {expected:#x}")
        })
    }
}

static SERVICES: RwLock<Option<Arc<Services>>> = RwLock::new(None);

/// Makes `services` what [`services`] returns, on all threads. A warning is logged if the server
/// differs from what is known of its version, as a vendor's may.
pub(crate) fn install(services: Services) {
    error_log::start(Arc::clone(&services.log));
    log::info!(target: error_log::CLIENT, "{}", services.facts());
    if let Some(text) = services.surprise() {
        log::warn!(target: error_log::CLIENT, "{text}");
    }
    *SERVICES.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(services));
}

/// Ends what [`install`] began. The services are released when the last that holds them lets go.
pub(crate) fn uninstall() {
    error_log::stop();
    *SERVICES.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The services, `None` before [`install`] and after [`uninstall`].
pub(crate) fn try_services() -> Option<Arc<Services>> {
    SERVICES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The services.
///
/// # Panics
/// Before [`install`] and after [`uninstall`]. mysqld calls nothing of the plugin but `init` and
/// `deinit` then.
pub(crate) fn services() -> Arc<Services> {
    try_services().expect("mysqld calls the plugin only between init and deinit")
}
