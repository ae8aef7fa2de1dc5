// SPDX-License-Identifier: GPL-2.0-only

//! How the results of checks are reported: to the user, in the log, and in
//! `performance_schema.clone_checks`.

use std::borrow::Cow;

use log::Level;

use super::finding::{Check, Finding, Outcome};
use super::server::ServerChecks;
use crate::error::{Error, Result};
use crate::log_target::CLIENT;

/// The level of a warning in the log. InnoDB names tables that are not cloned in Notes (13461), and
/// MySQL's own tests allow no more.
fn level_of(check: Check) -> Level {
    if check == Check::OtherTables { Level::Info } else { Level::Warn }
}

/// The results so far.
pub(super) struct Findings<'s, S> {
    pub(super) server: &'s S,
    list: Vec<Finding>,
    refused: Result<()>,
}

impl<'s, S: ServerChecks> Findings<'s, S> {
    pub(super) fn new(server: &'s S) -> Self {
        Self { server, list: Vec::new(), refused: Ok(()) }
    }

    fn add(
        &mut self,
        check: Check,
        outcome: Outcome,
        number: u32,
        text: String,
        remedy: impl Into<Cow<'static, str>>,
    ) {
        self.list.push(Finding { check, outcome, number, text, remedy: remedy.into() });
    }

    /// A reason against the clone, which is raised here.
    pub(super) fn refuse(
        &mut self,
        check: Check,
        error: &Error,
        remedy: impl Into<Cow<'static, str>>,
    ) {
        self.server.raise(error);
        self.refused_by_server(check, error.number(), error.to_string(), remedy);
    }

    /// A reason against the clone, which the server has raised.
    pub(super) fn refused_by_server(
        &mut self,
        check: Check,
        number: u32,
        text: String,
        remedy: impl Into<Cow<'static, str>>,
    ) {
        self.add(check, Outcome::Refused, number, text, remedy);
        self.refused = Err(Error::Raised(number));
    }

    /// Something that hurts after the clone. Refuses the clone if the server is strict.
    pub(super) fn warn(
        &mut self,
        check: Check,
        error: &Error,
        remedy: impl Into<Cow<'static, str>>,
    ) {
        if self.server.is_strict() {
            return self.refuse(check, error, remedy);
        }
        self.server.warn(error);
        self.add(check, Outcome::Warning, error.number(), error.to_string(), remedy);
    }

    /// The check cannot be made.
    pub(super) fn skip(&mut self, check: Check, reason: &str, remedy: &'static str) {
        self.add(check, Outcome::NotChecked, 0, reason.to_owned(), remedy);
    }

    /// The check has been made. It passed if nothing was found.
    pub(super) fn done(&mut self, check: Check) {
        if self.list.iter().all(|finding| finding.check != check) {
            self.add(check, Outcome::Passed, 0, String::new(), "");
        }
    }

    /// Logs the results, and gives them to the server. The last reason against the clone is the
    /// error.
    pub(super) fn report(self) -> Result<()> {
        for finding in &self.list {
            let Finding { check, number, text, remedy, .. } = finding;
            let name = check.name();
            match finding.outcome {
                Outcome::Passed => {}
                Outcome::NotChecked => log::info!(target: CLIENT, "Not checked: {name}: {text}"),
                Outcome::Warning => {
                    log::log!(target: CLIENT, level_of(*check), "{text}. {remedy}");
                }
                Outcome::Refused => {
                    log::info!(target: CLIENT, "Check of {name}: error: {number}: {text}. {remedy}");
                }
            }
        }
        self.server.show(self.list);
        self.refused
    }
}
