// SPDX-License-Identifier: GPL-2.0-only

//! A session with a server, and the errors a statement raises.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, OptsBuilder};

/// An account to log in with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// User name, without host.
    pub user: String,
    /// Password, may be empty.
    pub password: String,
}

impl Account {
    /// The account `user` with `password`.
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// `root` without a password, as `--initialize-insecure` makes it.
    pub fn root() -> Self {
        Self::new("root", "")
    }
}

/// An error as a server reports it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SqlError {
    /// MySQL's error number, e.g. 3862.
    pub number: u16,
    /// The SQLSTATE.
    pub state: String,
    /// The text.
    pub message: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {} ({}): {}", self.number, self.state, self.message)
    }
}

impl std::error::Error for SqlError {}

/// One connection. Statements use the text protocol.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
}

impl Session {
    /// Connects through the Unix socket.
    pub fn connect(socket: &Path, account: &Account) -> Result<Self, mysql::Error> {
        let options = OptsBuilder::new()
            .socket(socket.to_str())
            .user(Some(&account.user))
            .pass(Some(&account.password))
            .tcp_connect_timeout(Some(Duration::from_secs(10)));
        Ok(Self { conn: Conn::new(options)? })
    }

    /// The id that `KILL` takes.
    pub fn id(&self) -> u32 {
        self.conn.connection_id()
    }

    /// Runs statements whose results do not matter, stopping at the first that fails.
    pub fn run_all<'a>(&mut self, statements: impl IntoIterator<Item = &'a str>) -> Result<()> {
        statements.into_iter().try_for_each(|statement| self.run(statement))
    }

    /// Runs a statement whose result does not matter.
    pub fn run(&mut self, statement: impl AsRef<str>) -> Result<()> {
        let statement = statement.as_ref();
        self.conn.query_drop(statement).map_err(failed(statement))
    }

    /// All rows of a query.
    pub fn rows<T: FromRow>(&mut self, query: impl AsRef<str>) -> Result<Vec<T>> {
        let query = query.as_ref();
        self.conn.query(query).map_err(failed(query))
    }

    /// The first row of a query, if there is one.
    pub fn first<T: FromRow>(&mut self, query: impl AsRef<str>) -> Result<Option<T>> {
        let query = query.as_ref();
        self.conn.query_first(query).map_err(failed(query))
    }

    /// The first row of a query that must have one.
    pub fn one<T: FromRow>(&mut self, query: impl AsRef<str>) -> Result<T> {
        let query = query.as_ref();
        self.first(query)?.with_context(|| format!("no row from: {query}"))
    }

    /// The error of a statement that must fail.
    pub fn error(&mut self, statement: impl AsRef<str>) -> Result<SqlError> {
        let statement = statement.as_ref();
        match self.run(statement) {
            Ok(()) => bail!("succeeded but should have failed: {statement}"),
            Err(error) => error.downcast(),
        }
    }

    /// The warnings, notes and errors of the last statement: level, number, text.
    pub fn warnings(&mut self) -> Result<Vec<(String, u16, String)>> {
        self.rows("SHOW WARNINGS")
    }
}

/// Keeps a server's error as [`SqlError`], so that it can be told from a broken connection.
fn failed(statement: &str) -> impl FnOnce(mysql::Error) -> anyhow::Error {
    move |error| {
        let error = match error {
            mysql::Error::MySqlError(error) => {
                anyhow!(SqlError { number: error.code, state: error.state, message: error.message })
            }
            other => anyhow!(other),
        };
        let mut statement = statement.to_owned();
        if let Some((end, _)) = statement.char_indices().nth(300) {
            statement.truncate(end);
            statement.push_str(" ...");
        }
        error.context(format!("run: {statement}"))
    }
}

/// The server's error in `error`, if it is one.
pub fn server_error(error: &anyhow::Error) -> Option<&SqlError> {
    error.downcast_ref()
}

/// `text` as an SQL string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `name` as a quoted SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(literal(r"it's a \ path"), r"'it''s a \\ path'");
        assert_eq!(identifier("a`b c"), "`a``b c`");
    }
}
