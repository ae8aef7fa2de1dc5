// SPDX-License-Identifier: GPL-2.0-only

//! What hurts after the clone: things that are not cloned, and things that the cloned data need.

use super::finding::Check;
use super::report::Findings;
use super::server::ServerChecks;
use crate::error::Error;
use crate::facts::{Facts, Question, first_names};
use crate::parameters::Parameters;

pub(super) fn check<S: ServerChecks>(findings: &mut Findings<'_, S>, donor: &Parameters) {
    let facts = &donor.facts;
    other_tables(findings, facts);
    fulltext_parsers(findings, donor);
    components(findings, facts);
    functions(findings, facts);
    events(findings, facts);
}

/// The check cannot be made if the donor did not answer `question`.
fn is_answered<S: ServerChecks>(
    findings: &mut Findings<'_, S>,
    check: Check,
    facts: &Facts,
    question: Question,
) -> bool {
    let is_answered = facts.get(question).is_some();
    if !is_answered {
        let (what, grant) = match question {
            Question::Events => ("the events", "GRANT EVENT ON *.* to the account at the donor"),
            Question::Components | Question::FunctionLibraries => {
                ("the schema mysql", "GRANT SELECT ON mysql.* to the account at the donor")
            }
            Question::AccountPlugins => {
                ("mysql.user", "GRANT SELECT ON mysql.* to the account at the donor")
            }
            _ => ("all tables", "GRANT SELECT ON *.* to the account at the donor"),
        };
        findings.skip(check, &format!("the account at the donor may not read {what}"), grant);
    }
    is_answered
}

/// Warns if the donor has something that `question` asks for. `hurts` says what it does.
fn warn_if_any<S: ServerChecks>(
    findings: &mut Findings<'_, S>,
    check: Check,
    facts: &Facts,
    question: Question,
    hurts: &str,
    remedy: &'static str,
) {
    if is_answered(findings, check, facts, question) {
        if facts.count(question) != Some(0) {
            let error = Error::SystemConfig(format!("{hurts}: {}", facts.examples(question)));
            findings.warn(check, &error, remedy);
        }
        findings.done(check);
    }
}

fn other_tables<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    warn_if_any(
        findings,
        Check::OtherTables,
        facts,
        Question::OtherTables,
        "tables of the donor will be empty, because their engine is not cloned",
        "Convert them to InnoDB, or copy their rows after the clone (mysqldump)",
    );
}

/// The full-text parsers that MySQL has as plugins.
const PARSERS: [&str; 2] = ["ngram", "mecab"];

fn fulltext_parsers<S: ServerChecks>(findings: &mut Findings<'_, S>, donor: &Parameters) {
    let (check, facts) = (Check::FulltextParsers, &donor.facts);
    let is_missing = |name: &&str| {
        donor.plugins.iter().any(|(plugin, _)| plugin.eq_ignore_ascii_case(name))
            && !findings.server.has_plugin(name)
    };
    let missing: Vec<_> = PARSERS.iter().copied().filter(is_missing).collect();
    if missing.is_empty() {
        return findings.done(check);
    }
    let hurts = format!(
        "full-text parsers of the donor are not active here ({}), and tables with full-text \
         indexes that use them cannot be opened. Tables with full-text indexes",
        missing.join(", ")
    );
    let remedy = "Activate these parsers in this server";
    warn_if_any(findings, check, facts, Question::FulltextTables, &hurts, remedy);
}

fn components<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    let check = Check::Components;
    if !is_answered(findings, check, facts, Question::Components) {
        return;
    }
    let urns = facts.get(Question::Components).unwrap_or_default().iter();
    // mysqld loads other schemes than `file://` from nowhere.
    let names = urns.filter_map(|entry| entry.text.strip_prefix("file://"));
    let server = findings.server;
    let missing: Vec<_> =
        names.filter(|name| !server.can_load_plugin(&format!("{name}.so"))).collect();
    if !missing.is_empty() {
        let error = Error::SystemConfig(format!(
            "components of the donor are not in plugin_dir of this server: {}",
            first_names(&missing)
        ));
        let remedy = "Put their libraries into plugin_dir, or UNINSTALL COMPONENT at the donor";
        findings.warn(check, &error, remedy);
    }
    findings.done(check);
}

fn functions<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    let check = Check::Functions;
    if !is_answered(findings, check, facts, Question::FunctionLibraries) {
        return;
    }
    let libraries = facts.get(Question::FunctionLibraries).unwrap_or_default().iter();
    let server = findings.server;
    let missing: Vec<_> = libraries
        .map(|entry| entry.text.as_str())
        .filter(|library| !server.can_load_plugin(library))
        .collect();
    if !missing.is_empty() {
        let error = Error::SystemConfig(format!(
            "libraries of the donor's loadable functions are not in plugin_dir of this server: {}",
            first_names(&missing)
        ));
        findings.warn(check, &error, "Put these libraries into plugin_dir");
    }
    findings.done(check);
}

fn events<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    let check = Check::Events;
    let scheduler = findings.server.variables(&["event_scheduler"]).ok();
    if scheduler.is_some_and(|values| values.first().is_some_and(|value| value != "ON")) {
        return findings.done(check);
    }
    warn_if_any(
        findings,
        check,
        facts,
        Question::Events,
        "events of the donor will start here after the clone",
        "Set event_scheduler=OFF in the option file for the first start",
    );
}
