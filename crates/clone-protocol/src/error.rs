// SPDX-License-Identifier: GPL-2.0-only

//! The one error of this crate.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

/// Bytes from the peer that break the protocol.
///
/// Its text is the argument of MySQL's `ER_CLONE_PROTOCOL`, the stock plugin's own where stock has
/// one (users and mysql-test know those), with what was wrong after it. It names numbers only and
/// never quotes the peer's bytes, so it may go into a log as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct ProtocolError {
    text: Cow<'static, str>,
}

impl ProtocolError {
    /// The MySQL error number this error is raised as, `ER_CLONE_PROTOCOL`.
    pub const NUMBER: i32 = 3863;

    /// An error with this text, for a caller that finds a breach between packets.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into() }
    }

    /// A stock text, and after a colon what exactly was wrong.
    pub(crate) fn detailed(stock: &'static str, detail: impl fmt::Display) -> Self {
        Self { text: Cow::Owned(format!("{stock}: {detail}")) }
    }

    /// The text for error 3863.
    pub fn text(&self) -> &str {
        &self.text
    }
}
