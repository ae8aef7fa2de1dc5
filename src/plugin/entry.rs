// SPDX-License-Identifier: GPL-2.0-only

//! What mysqld calls: the plugin's life cycle, and the three ways into a clone.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

use clone_core::board::Begin;
use clone_core::donor_list::{self, DonorList, not_listed};
use clone_core::error::Error;
use clone_core::link::Donor;
use clone_core::read_only::ReadOnly;
use clone_core::session::{Clock, Host, RecipientSession, Session, Variables};
use clone_core::{donor, local, recipient};
use log::Level;
use zeroize::Zeroizing;

use super::clone_swap;
use super::loaded::{self, Loaded, host};
use super::read_only;
use super::tables;
use crate::guard::{self, guard};
use crate::myrocks;
use crate::mysqld::errors;
use crate::mysqld::host::MysqldHost;
use crate::mysqld::links::DonorLinkOf;
use crate::mysqld::replacement;
use crate::mysqld::session::MysqldSession;
use crate::mysqld::unfinished::Unfinished;
use crate::server::clone_handle::{self, ServerPhase};
use crate::server::donor::DonorConnection;
use crate::server::error_log::{CLIENT, log_while_loading};
use crate::server::load_error::LoadError;
use crate::server::raise::{self, Raise};
use crate::server::services::{self, Services, services};
use crate::server::text::{lossy, text};
use crate::server::{abi, psi, symbols};
use crate::server_report;

/// The plugin is loaded.
pub(super) unsafe extern "C" fn init(plugin: *mut c_void) -> c_int {
    guard(|| match load() {
        Ok(()) => {
            replacement::settle();
            if let Err(error) = clone_io::check_handover() {
                log::info!(
                    target: CLIENT,
                    "clone_file_handover has no effect, all data goes over connections: \
                     /proc/self/ns/mnt cannot be opened ({error})"
                );
            }
            0
        }
        Err(error) => {
            // SAFETY: mysqld gave `plugin` to this call.
            unsafe { log_while_loading(plugin, Level::Error, &error.to_string()) };
            if let Some(facts) = server_report::of_this_server().filter(|_| error.is_about_server())
            {
                let text = format!("for a report: {facts}");
                // SAFETY: as above.
                unsafe { log_while_loading(plugin, Level::Error, &text) };
            }
            1
        }
    })
}

fn load() -> Result<(), LoadError> {
    services::install(Services::acquire()?);
    guard::install_hook();
    let read_only = read_only::setting();
    let loaded = register(read_only);
    if loaded.is_err() {
        guard::remove_hook();
        services::uninstall();
    }
    loaded::set(loaded?);
    // With innodb_read_only or innodb_force_recovery, InnoDB has not proved that the clone is good.
    // The replaced data is kept until a start without them.
    if read_only.is_none() {
        clone_swap::settle();
    }
    Ok(())
}

/// Makes the plugin known to the parts of mysqld that have to know it.
fn register(read_only: Option<ReadOnly>) -> Result<Loaded, LoadError> {
    let symbols = services().symbols;
    let phase = clone_handle::create(symbols).map_err(LoadError::CloneHandle)?;
    let host = MysqldHost::new(psi::register(&services()));
    let tables = match phase {
        ServerPhase::Initializing => Ok(None),
        ServerPhase::Serving => match read_only {
            Some(setting) => {
                read_only::warn(setting);
                Ok(None)
            }
            None => tables::add().map(Some),
        },
    };
    match tables {
        Ok(tables) => Ok(Loaded { host, tables }),
        Err(error) => {
            // An error says that mysqld has no handle, so nothing is left to be dropped.
            let _ = clone_handle::drop_handle(symbols);
            Err(error)
        }
    }
}

/// Whether the plugin may be unloaded: not while a clone runs.
pub(super) unsafe extern "C" fn check_uninstall(plugin: *mut c_void) -> c_int {
    guard(|| {
        let Some(symbols) = symbols::symbols() else { return 0 };
        // SAFETY: mysqld gave `plugin` to this call.
        unsafe { clone_handle::check_drop(symbols, plugin) }
    })
}

/// The plugin is unloaded. mysqld also calls this after an `init` that failed. Then there is
/// nothing to undo.
pub(super) unsafe extern "C" fn deinit(_plugin: *mut c_void) -> c_int {
    guard(|| {
        if let Some(loaded) = loaded::take() {
            let _ = clone_handle::drop_handle(services().symbols);
            loaded.host.finish_replacement();
            drop(loaded.tables);
            drop(loaded.host);
            myrocks::let_go();
            guard::remove_hook();
            services::uninstall();
        }
        0
    })
}

/// `CLONE LOCAL DATA DIRECTORY`.
pub(super) unsafe extern "C" fn clone_local(thd: *mut abi::THD, directory: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: the session of this thread, which lives through the call.
        let Some(session) = (unsafe { session_of(thd) }) else { return no_session() };
        // SAFETY: mysqld passes a path that lives through the call.
        let directory = match unsafe { directory_of(directory) } {
            Ok(directory) => directory.unwrap_or_default(),
            Err(number) => return number,
        };
        if let Err(error) = clone_core::read_only::check(&session) {
            session.raise(&error);
            return code(Err(error));
        }
        let key = session.host().keys().local_statement;
        services().clone_protocol.start_statement(session.thd(), key);
        let host = session.host();
        let begin = Begin {
            pid: session.connection_id(),
            source: None,
            destination: Some(&directory),
            now_us: host.unix_micros(),
            is_dry_run: false,
        };
        let _unfinished = note_directory(&session, Path::new(&directory));
        let clone = || local::clone_local(&session, PathBuf::from(&directory));
        code(host.board().run(&session, begin, clone))
    })
}

/// `CLONE INSTANCE FROM`; without a directory the server's own data is replaced.
pub(super) unsafe extern "C" fn clone_client(
    thd: *mut abi::THD,
    host: *const c_char,
    port: c_uint,
    user: *const c_char,
    password: *const c_char,
    directory: *const c_char,
    ssl_mode: c_int,
) -> c_int {
    guard(|| {
        // SAFETY: the session of this thread, which lives through the call.
        let Some(session) = (unsafe { session_of(thd) }) else { return no_session() };
        // SAFETY: mysqld passes texts that live through the call, or NULL.
        let [host, user, password] =
            [host, user, password].map(|text| unsafe { lossy(text) }.into_owned());
        // SAFETY: as above.
        let directory = match unsafe { directory_of(directory) } {
            Ok(directory) => directory,
            Err(number) => return number,
        };
        let port = u16::try_from(port).unwrap_or(0);
        let password = Zeroizing::new(password);
        let donor = Donor { host: donor_list::host(&host), port, user, password, ssl_mode };
        let checked = clone_core::read_only::check(&session)
            .and_then(|()| check_donor_list(&session, &donor));
        if let Err(error) = checked {
            session.raise(&error);
            return code(Err(error));
        }
        let key = session.host().keys().client_statement;
        services().clone_protocol.start_statement(session.thd(), key);
        let host = session.host();
        let source = donor.host.clone();
        let begin = Begin {
            pid: session.connection_id(),
            source: Some((&source, donor.port)),
            destination: directory.as_deref(),
            now_us: host.unix_micros(),
            is_dry_run: session.is_dry_run(),
        };
        let into = directory.as_ref().map(PathBuf::from);
        let _unfinished = into.as_deref().and_then(|into| note_directory(&session, into));
        let clone = || {
            host.set_findings(Vec::new());
            recipient::clone_instance(&session, donor, into)
        };
        code(host.board().run(&session, begin, clone))
    })
}

/// Has the next start of the server remove the directory, if a crash ends the clone into it.
fn note_directory(session: &MysqldSession, directory: &Path) -> Option<Unfinished> {
    let stays = session.host().settings().keep_failed_directory;
    // mysqld's working directory is its data directory.
    (!stays).then(|| Unfinished::note(Path::new("."), directory)).flatten()
}

/// A client connection has switched to COM_CLONE.
pub(super) unsafe extern "C" fn clone_server(
    thd: *mut abi::THD,
    socket: abi::MYSQL_SOCKET,
) -> c_int {
    guard(|| {
        // SAFETY: the session of this thread, which lives through the call.
        let Some(session) = (unsafe { session_of(thd) }) else { return no_session() };
        // SAFETY: mysqld calls this for a session with a client connection that is in COM_CLONE.
        let connection = unsafe { DonorConnection::new(session.thd(), socket) };
        let mut link = DonorLinkOf::new(&session, connection);
        code(donor::serve(&session, session.host().donor_clones(), &mut link))
    })
}

/// The donor must be in `clone_valid_donor_list`.
fn check_donor_list(session: &MysqldSession, donor: &Donor) -> Result<(), Error> {
    let list = session.variables(&["clone_valid_donor_list"])?.pop().unwrap_or_default();
    let Donor { host, port, .. } = donor;
    if DonorList::from_variable(&list).contains(host, *port) {
        return Ok(());
    }
    Err(Error::SystemConfig(not_listed(host, *port, &list)))
}

/// The DATA DIRECTORY of a statement, `None` for NULL. mysqld has checked and made the directory of
/// these very bytes; a name that is not UTF-8 cannot be kept here, and is refused (1525).
///
/// # Safety
/// `directory` is NULL or a terminated text that lives through the call.
unsafe fn directory_of(directory: *const c_char) -> Result<Option<String>, c_int> {
    // SAFETY: by the caller's promise.
    let Some(directory) = (unsafe { text(directory) }) else { return Ok(None) };
    directory.to_str().map(|name| Some(name.to_owned())).map_err(|_| {
        let value = directory.to_string_lossy();
        let number = raise::raise(Raise::WrongValue { what: "path", value: &value });
        c_int::try_from(number).unwrap_or(c_int::MAX)
    })
}

/// # Safety
/// `thd` is NULL or the session of this thread, which outlives the result.
unsafe fn session_of(thd: *mut abi::THD) -> Option<MysqldSession> {
    // SAFETY: by the caller's promise.
    unsafe { MysqldSession::new(thd, host()?) }
}

fn no_session() -> c_int {
    let error = Error::Internal("Clone plugin is not loaded".to_owned());
    errors::raise(&error);
    code(Err(error))
}

fn code(outcome: Result<(), Error>) -> c_int {
    outcome.err().map_or(0, |error| c_int::try_from(error.number()).unwrap_or(c_int::MAX))
}

#[cfg(test)]
mod tests {
    use std::ptr::null;

    use super::*;

    /// mysqld has made a directory of these bytes. With another text for it, the clone would go
    /// into another directory.
    #[test]
    fn directories_that_are_not_utf_8_are_refused() {
        // SAFETY: a literal.
        assert_eq!(unsafe { directory_of(c"/srv/caf\xe9".as_ptr()) }, Err(1525));
        // SAFETY: a literal.
        let good = unsafe { directory_of(c"/srv/café".as_ptr()) };
        assert_eq!(good, Ok(Some("/srv/café".to_owned())));
        // SAFETY: NULL.
        assert_eq!(unsafe { directory_of(null()) }, Ok(None));
    }
}
