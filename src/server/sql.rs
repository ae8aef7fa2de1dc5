// SPDX-License-Identifier: GPL-2.0-only

//! SQL statements that the plugin itself runs, in sessions without a connection
//! (`sql/srv_session.cc`).
//!
//! They run on any thread of mysqld that has a session; mysqld puts that session aside meanwhile.
//! A missing function is an error when a statement is to be run, and not when the plugin is loaded.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_longlong;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use super::abi;
use super::abi::Function;
use super::services::services;
use super::symbols::look_up;
use super::text::{bytes, lossy};
use super::thread::Thread;
use crate::guard::guard_or;

/// Why a statement was not run, or has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlError {
    /// MySQL's number; it is not raised in the session of the caller.
    pub(crate) number: u32,
    /// The statement and MySQL's text.
    pub(crate) text: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.number)
    }
}

/// The rows of a result; NULL is `None`.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// Runs `statement` in a thread and a session of its own, and returns its rows.
///
/// The session of the caller stays as it is. It may itself be a session without a connection, as
/// that of Group Replication is. mysqld does not give such a session back to its thread after the
/// statements of another one.
pub(crate) fn run_apart(statement: &'static str) -> Result<Rows, SqlError> {
    let mut outcomes = run_all_apart(vec![statement])?;
    outcomes.pop().unwrap_or_else(|| Ok(Rows::new()))
}

/// As [`run_apart`], with an outcome for each of `statements`.
pub(crate) fn run_all_apart(
    statements: Vec<&'static str>,
) -> Result<Vec<Result<Rows, SqlError>>, SqlError> {
    let outcome = Arc::new(Mutex::new(None));
    let result = Arc::clone(&outcome);
    let thread = Thread::spawn(c"clone_sql", move || {
        // It makes this a thread of mysqld, and ends before the thread does.
        let Some(_own) = services().clone_protocol.start_session(0) else { return };
        let outcomes = SqlSession::open().and_then(|mut session| {
            session.run(AT_ONCE)?;
            Ok(statements.into_iter().map(|statement| session.run(statement)).collect())
        });
        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcomes);
    });
    // Waits for the thread.
    let started = thread.map(drop);
    let outcomes = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    outcomes.unwrap_or_else(|| {
        let reason = started.err().map_or("no session".to_owned(), |error| error.to_string());
        let text = format!("A thread for an SQL statement: {reason}");
        Err(SqlError { number: super::raise::ER_INTERNAL_ERROR, text })
    })
}

/// Lets a member of a group read while the group recovers this member.
const AT_ONCE: &str = "SET SESSION group_replication_consistency = EVENTUAL";

/// A session without a connection, which may do everything. It ends with this object, and with it
/// its locks.
pub(crate) struct SqlSession {
    session: NonNull<abi::Srv_session>,
    functions: Functions,
}

// SAFETY: a statement attaches the session to the thread that runs it and detaches it afterwards
// (`Srv_session::Session_backup_and_attach`), so threads may use it in turn; `&mut` sees to that.
unsafe impl Send for SqlSession {}

impl SqlSession {
    /// Opens a session. To be called on a thread of mysqld, and counts as a connection
    /// (`max_connections`).
    pub(crate) fn open() -> Result<Self, SqlError> {
        let functions = Functions::find().ok_or_else(|| SqlError {
            number: super::raise::ER_INTERNAL_ERROR,
            text: "This server has no sessions for plugins".to_owned(),
        })?;
        let mut failure = Outcome::default();
        let on_error: Function<abi::srv_session_error_cb> = on_session_error;
        // SAFETY: on a thread of mysqld; the outcome lives until the call returns, and no statement
        // fails outside of `run`.
        let session = unsafe { (functions.open)(Some(on_error), (&raw mut failure).cast()) };
        let session = NonNull::new(session);
        let session = session.ok_or_else(|| failure.into_error("Opening a session"))?;
        let session = Self { session, functions };
        // SAFETY: a living session.
        let thd = unsafe { (functions.thd)(session.session.as_ptr()) };
        let mut context = ptr::null_mut();
        // SAFETY: the session's THD, and a place for the answer.
        unsafe { (functions.security_context)(thd, &raw mut context) };
        // SAFETY: the context of the session, which nobody else knows yet; mysqld copies the texts.
        unsafe { (functions.skip_grants)(context, USER.as_ptr(), HOST.as_ptr()) };
        Ok(session)
    }

    /// Runs one statement.
    pub(crate) fn run(&mut self, statement: &str) -> Result<Rows, SqlError> {
        let mut outcome = Outcome::default();
        let data = abi::COM_DATA {
            query: statement.as_ptr().cast(),
            length: c_uint::try_from(statement.len()).unwrap_or(0),
            rest: [ptr::null_mut(); 14],
        };
        // SAFETY: a living session that no other thread uses; statement, functions and outcome live
        // until the call returns.
        let code = unsafe {
            (self.functions.run)(
                self.session.as_ptr(),
                abi::COM_QUERY,
                &raw const data,
                ptr::null(),
                &raw const CALLBACKS,
                abi::CS_TEXT_REPRESENTATION,
                (&raw mut outcome).cast(),
            )
        };
        if code == 0 && outcome.error.is_none() {
            return Ok(outcome.rows);
        }
        Err(outcome.into_error(statement))
    }
}

impl Drop for SqlSession {
    fn drop(&mut self) {
        // SAFETY: a living session that is not used afterwards.
        unsafe { (self.functions.close)(self.session.as_ptr()) };
    }
}

/// Who the session's statements are from in the process list and the general log.
const USER: &CStr = c"mysql.clone";
const HOST: &CStr = c"localhost";

/// mysqld's functions for this.
#[derive(Clone, Copy)]
struct Functions {
    open: Function<abi::srv_session_open_fn>,
    close: Function<abi::srv_session_close_fn>,
    thd: Function<abi::srv_session_info_get_thd_fn>,
    security_context: Function<abi::thd_get_security_context_fn>,
    skip_grants: Function<abi::skip_grants_fn>,
    run: Function<abi::command_service_run_command_fn>,
}

impl Functions {
    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about a list")]
    fn find() -> Option<Self> {
        // SAFETY: each name is mangled from the type of the field that it goes to.
        unsafe {
            Some(Self {
                open: abi::function_at::<abi::srv_session_open_fn>(look_up(
                    c"_Z16srv_session_openPFvPvjPKcES_",
                ))?,
                close: abi::function_at::<abi::srv_session_close_fn>(look_up(
                    c"_Z17srv_session_closeP11Srv_session",
                ))?,
                thd: abi::function_at::<abi::srv_session_info_get_thd_fn>(look_up(
                    c"_Z24srv_session_info_get_thdP11Srv_session",
                ))?,
                security_context: abi::function_at::<abi::thd_get_security_context_fn>(look_up(
                    c"_Z24thd_get_security_contextP3THDPP16Security_context",
                ))?,
                skip_grants: abi::function_at::<abi::skip_grants_fn>(look_up(
                    c"_ZN16Security_context11skip_grantsEPKcS1_",
                ))?,
                run: abi::function_at::<abi::command_service_run_command_fn>(look_up(RUN))?,
            })
        }
    }
}

const RUN: &CStr = c"_Z27command_service_run_commandP11Srv_session19enum_server_commandPK8COM_DATAPK12CHARSET_INFOPK22st_command_service_cbs17cs_text_or_binaryPv";

/// What a statement has said so far.
#[derive(Default)]
struct Outcome {
    rows: Rows,
    error: Option<(u32, String)>,
}

impl Outcome {
    fn into_error(self, statement: &str) -> SqlError {
        let (number, text) = self.error.unwrap_or_else(|| {
            (super::raise::ER_INTERNAL_ERROR, "the session was killed".to_owned())
        });
        SqlError { number, text: format!("{statement}: {text}") }
    }

    fn value(&mut self, value: Option<String>) {
        if let Some(row) = self.rows.last_mut() {
            row.push(value);
        }
    }
}

static CALLBACKS: abi::st_command_service_cbs = abi::st_command_service_cbs {
    start_result_metadata: None,
    // Without it no result is sent.
    field_metadata: Some(field_metadata),
    end_result_metadata: None,
    start_row: Some(start_row),
    end_row: None,
    abort_row: Some(abort_row),
    get_client_capabilities: None,
    get_null: Some(get_null),
    get_integer: Some(get_integer),
    get_longlong: Some(get_longlong),
    get_decimal: None,
    get_double: None,
    get_date: None,
    get_time: None,
    get_datetime: None,
    get_string: Some(get_string),
    handle_ok: None,
    handle_error: Some(handle_error),
    shutdown: None,
    connection_alive: None,
};

/// Runs `note` on the outcome that a callback was given; 1 after a panic, which makes mysqld abort
/// the statement.
///
/// # Safety
/// `outcome` is what [`SqlSession`] handed to mysqld for a call that has not returned.
unsafe fn with(outcome: *mut c_void, note: impl FnOnce(&mut Outcome)) -> c_int {
    // SAFETY: by the caller's promise; mysqld calls back on the thread of the call, one callback at
    // a time.
    let Some(outcome) = (unsafe { outcome.cast::<Outcome>().as_mut() }) else { return 1 };
    guard_or(1, || {
        note(outcome);
        0
    })
}

unsafe extern "C" fn field_metadata(
    _outcome: *mut c_void,
    _field: *mut c_void,
    _charset: *const c_void,
) -> c_int {
    0
}

unsafe extern "C" fn start_row(outcome: *mut c_void) -> c_int {
    // SAFETY: mysqld calls this during a call, with what it was given.
    unsafe { with(outcome, |outcome| outcome.rows.push(Vec::new())) }
}

unsafe extern "C" fn abort_row(outcome: *mut c_void) {
    // SAFETY: as above.
    unsafe { with(outcome, |outcome| drop(outcome.rows.pop())) };
}

unsafe extern "C" fn get_null(outcome: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { with(outcome, |outcome| outcome.value(None)) }
}

unsafe extern "C" fn get_integer(outcome: *mut c_void, value: c_longlong) -> c_int {
    // SAFETY: as above.
    unsafe { with(outcome, |outcome| outcome.value(Some(value.to_string()))) }
}

unsafe extern "C" fn get_longlong(
    outcome: *mut c_void,
    value: c_longlong,
    is_unsigned: c_uint,
) -> c_int {
    let text = match is_unsigned {
        0 => value.to_string(),
        _ => value.cast_unsigned().to_string(),
    };
    // SAFETY: as above.
    unsafe { with(outcome, |outcome| outcome.value(Some(text))) }
}

unsafe extern "C" fn get_string(
    outcome: *mut c_void,
    value: *const c_char,
    length: usize,
    _charset: *const c_void,
) -> c_int {
    // SAFETY: mysqld gives a text of that length, which lives until the callback returns.
    let bytes = unsafe { bytes(value.cast(), length) };
    let text = || String::from_utf8_lossy(bytes).into_owned();
    // SAFETY: as above.
    unsafe { with(outcome, |outcome| outcome.value(Some(text()))) }
}

unsafe extern "C" fn handle_error(
    outcome: *mut c_void,
    number: c_uint,
    text: *const c_char,
    _sqlstate: *const c_char,
) {
    // SAFETY: as above.
    unsafe { on_session_error(outcome, number, text) };
}

/// The first error counts.
unsafe extern "C" fn on_session_error(outcome: *mut c_void, number: c_uint, text: *const c_char) {
    // SAFETY: mysqld gives NULL or a terminated text, which lives until the callback returns.
    let text = unsafe { lossy(text) };
    let note = |outcome: &mut Outcome| {
        outcome.error.get_or_insert_with(|| (number, text.into_owned()));
    };
    // SAFETY: as above.
    unsafe { with(outcome, note) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_the_first_error_are_kept() {
        let mut outcome = Outcome::default();
        let place: *mut c_void = (&raw mut outcome).cast();
        // SAFETY: as mysqld calls it.
        assert_eq!(unsafe { start_row(place) }, 0);
        // SAFETY: as above, with a text that is long enough.
        assert_eq!(unsafe { get_string(place, c"abc".as_ptr(), 2, ptr::null()) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { get_null(place) }, 0);
        // SAFETY: as above.
        unsafe { start_row(place) };
        // SAFETY: as above.
        unsafe { abort_row(place) };
        for (number, text) in [(1205, c"too long"), (1317, c"killed")] {
            // SAFETY: as above.
            unsafe { handle_error(place, number, text.as_ptr(), ptr::null()) };
        }
        assert_eq!(outcome.rows, [[Some("ab".to_owned()), None]]);
        let error = outcome.into_error("FLUSH");
        assert_eq!(error.to_string(), "FLUSH: too long (1205)");
    }

    #[test]
    fn outside_mysqld_there_are_no_sessions() {
        assert_eq!(SqlSession::open().err().map(|error| error.number), Some(1815));
    }
}
