// SPDX-License-Identifier: GPL-2.0-only

//! The client library inside mysqld: statements on a connection that `clone_protocol` has opened,
//! after it has left clone mode. Without this library the donor cannot be asked, which is an error
//! of the question and not of the clone.

use std::ffi::{c_char, c_ulong};
use std::fmt;
use std::ptr::NonNull;
use std::slice;

use super::abi::{self, Function};
use super::sql::Rows;
use super::symbols::look_up;
use super::text::{bytes, lossy};

/// Why a statement has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// The donor's number; 2000 and above are the client library's.
    pub(crate) number: u32,
    /// The text.
    pub(crate) text: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} : {}", self.number, self.text)
    }
}

/// `CR_UNKNOWN_ERROR`.
const UNKNOWN_ERROR: u32 = 2000;

/// The most columns of a row.
const MAX_COLUMNS: usize = 16;

/// Whether the connection has TLS. None if this mysqld does not tell.
pub(super) fn has_tls(mysql: NonNull<abi::MYSQL>) -> Option<bool> {
    // SAFETY: the function of this name has this type, in C.
    let cipher = unsafe {
        abi::function_at::<abi::mysql_get_ssl_cipher_fn>(look_up(c"mysql_get_ssl_cipher"))
    }?;
    // SAFETY: a living connection.
    Some(!unsafe { cipher(mysql.as_ptr()) }.is_null())
}

/// The most rows of a result. A donor that sends more is no server that runs our statements.
const MAX_ROWS: usize = 1000;

/// Runs one statement and returns its rows. `shut_down` is called if there are too many: it lets
/// all further reads of the connection fail.
pub(super) fn query(
    mysql: NonNull<abi::MYSQL>,
    statement: &str,
    shut_down: impl FnOnce(),
) -> Result<Rows, QueryError> {
    let functions = Functions::find().ok_or_else(|| QueryError {
        number: UNKNOWN_ERROR,
        text: "this mysqld has no client library for plugins".to_owned(),
    })?;
    let length = c_ulong::try_from(statement.len()).unwrap_or(0);
    // SAFETY: a living connection that nobody else uses; a counted text.
    let failed = unsafe { (functions.query)(mysql.as_ptr(), statement.as_ptr().cast(), length) };
    if failed != 0 {
        return Err(functions.error(mysql));
    }
    // SAFETY: the statement has just been run.
    let result = NonNull::new(unsafe { (functions.use_result)(mysql.as_ptr()) });
    let Some(result) = result else {
        // A statement without a result, or an error.
        let error = functions.error(mysql);
        return if error.number == 0 { Ok(Rows::new()) } else { Err(error) };
    };
    let mut rows = Rows::new();
    // The result is freed below, which also reads the rows that are left.
    while rows.len() < MAX_ROWS
        && let Some(row) = functions.row(result)
    {
        rows.push(row);
    }
    let mut error = functions.error(mysql);
    if rows.len() == MAX_ROWS {
        shut_down();
        error = QueryError { number: UNKNOWN_ERROR, text: "too many rows".to_owned() };
    }
    // SAFETY: the result, once.
    unsafe { (functions.free)(result.as_ptr()) };
    if error.number == 0 { Ok(rows) } else { Err(error) }
}

/// The library's functions for this.
struct Functions {
    query: Function<abi::mysql_real_query_fn>,
    use_result: Function<abi::mysql_use_result_fn>,
    fetch: Function<abi::mysql_fetch_row_fn>,
    lengths: Function<abi::mysql_fetch_lengths_fn>,
    columns: Function<abi::mysql_num_fields_fn>,
    free: Function<abi::mysql_free_result_fn>,
    errno: Function<abi::mysql_errno_fn>,
    text: Function<abi::mysql_error_fn>,
}

impl Functions {
    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about a list")]
    fn find() -> Option<Self> {
        // SAFETY: the functions of these names have these types, in C (`include/mysql.h`).
        unsafe {
            Some(Self {
                query: abi::function_at::<abi::mysql_real_query_fn>(look_up(c"mysql_real_query"))?,
                use_result: abi::function_at::<abi::mysql_use_result_fn>(look_up(
                    c"mysql_use_result",
                ))?,
                fetch: abi::function_at::<abi::mysql_fetch_row_fn>(look_up(c"mysql_fetch_row"))?,
                lengths: abi::function_at::<abi::mysql_fetch_lengths_fn>(look_up(
                    c"mysql_fetch_lengths",
                ))?,
                columns: abi::function_at::<abi::mysql_num_fields_fn>(look_up(
                    c"mysql_num_fields",
                ))?,
                free: abi::function_at::<abi::mysql_free_result_fn>(look_up(c"mysql_free_result"))?,
                errno: abi::function_at::<abi::mysql_errno_fn>(look_up(c"mysql_errno"))?,
                text: abi::function_at::<abi::mysql_error_fn>(look_up(c"mysql_error"))?,
            })
        }
    }

    /// The last error of the connection; number 0 without one.
    fn error(&self, mysql: NonNull<abi::MYSQL>) -> QueryError {
        // SAFETY: a living connection.
        let number = unsafe { (self.errno)(mysql.as_ptr()) };
        // SAFETY: as above.
        let text = unsafe { (self.text)(mysql.as_ptr()) };
        // SAFETY: a terminated text, which stays until the next call on this connection.
        QueryError { number, text: unsafe { lossy(text) }.into_owned() }
    }

    /// The next row, none after the last one and after an error.
    fn row(&self, result: NonNull<abi::MYSQL_RES>) -> Option<Vec<Option<String>>> {
        // SAFETY: a living result.
        let row = NonNull::new(unsafe { (self.fetch)(result.as_ptr()) })?;
        // SAFETY: as above.
        let columns = unsafe { (self.columns)(result.as_ptr()) };
        let columns = usize::try_from(columns).unwrap_or(0);
        // SAFETY: a row has just been read.
        let lengths = NonNull::new(unsafe { (self.lengths)(result.as_ptr()) })?;
        // SAFETY: as many texts as columns, which stay until the next row is read.
        let texts: &[*mut c_char] = unsafe { slice::from_raw_parts(row.as_ptr(), columns) };
        // SAFETY: as many lengths as columns.
        let lengths: &[c_ulong] = unsafe { slice::from_raw_parts(lengths.as_ptr(), columns) };
        let values = texts.iter().zip(lengths).take(MAX_COLUMNS).map(|(text, length)| {
            let length = usize::try_from(*length).unwrap_or(0);
            // SAFETY: a text of this length, or NULL.
            let value = || unsafe { bytes(text.cast_const().cast(), length) };
            (!text.is_null()).then(|| String::from_utf8_lossy(value()).into_owned())
        });
        Some(values.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_mysqld_there_is_no_client_library() {
        let nobody = NonNull::dangling();
        assert_eq!(has_tls(nobody), None);
        let error = query(nobody, "SELECT 1", || ()).expect_err("no library");
        assert_eq!(error.number, UNKNOWN_ERROR);
    }
}
