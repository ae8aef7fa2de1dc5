// SPDX-License-Identifier: GPL-2.0-only

//! What a table of the plugin is: its columns, its rows, their values.

use std::ffi::CStr;

/// A table without indexes that can only be read.
pub(crate) trait Table: 'static {
    /// The table's name.
    const NAME: &'static CStr;
    /// About how many rows it has; for the optimiser.
    const ROWS: u64;

    /// The columns, as in CREATE TABLE. `has_text` says whether performance_schema can fill a
    /// `longtext` ([`TEXT_COLUMN`](crate::server::releases::TEXT_COLUMN)).
    fn columns(has_text: bool) -> &'static CStr;

    /// The rows as they are now.
    fn snapshot() -> Box<dyn Snapshot>;
}

/// The rows that one scan of a table reads.
pub(crate) trait Snapshot {
    /// How many there are.
    fn rows(&self) -> usize;

    /// A column of the row `row`; both are counted from 0.
    fn column(&self, row: usize, column: usize) -> Value<'_>;
}

/// A value, in the type of its column. An empty `Char` and time 0 become NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    /// `int`
    UnsignedInt(u32),
    /// `bigint`
    UnsignedBigInt(u64),
    /// `char(n)`
    Char(&'a str),
    /// `varchar(n)`
    Varchar(&'a str),
    /// `timestamp(n)`, microseconds since 1970
    TimestampMicros(u64),
    /// `longtext`; a `varchar(n)` where [`Table::columns`] was told that there is no text.
    Text(&'a str),
}
