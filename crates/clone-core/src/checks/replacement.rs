// SPDX-License-Identifier: GPL-2.0-only

//! What only matters to a server that goes on with the donor's data itself.

use std::path::Path;

use super::finding::Check;
use super::report::Findings;
use super::server::ServerChecks;
use crate::error::{Error, Result};
use crate::facts::{Entry, Facts, MAX_ENTRIES, MAX_TEXT, Question, first_names};
use crate::parameters::Parameters;

/// The facts were not asked for, or not answered.
const SILENT: &str = "the donor did not say this";

pub(super) fn check<S: ServerChecks>(
    findings: &mut Findings<'_, S>,
    donor: &Parameters,
) -> Result<()> {
    force_recovery(findings)?;
    accounts(findings, &donor.facts);
    lower_case_table_names(findings, &donor.facts);
    tablespace_files(findings, &donor.facts);
    disk_space(findings, &donor.facts);
    supervisor(findings);
    Ok(())
}

fn force_recovery<S: ServerChecks>(findings: &mut Findings<'_, S>) -> Result<()> {
    let value = findings.server.variables(&["innodb_force_recovery"])?.pop().unwrap_or_default();
    if value != "0" {
        findings.refuse(
            Check::ForceRecovery,
            &Error::SystemConfig(format!(
                "innodb_force_recovery={value}: this server's data cannot be replaced. Restart this \
                 server without this setting to clone"
            )),
            "Restart this server without this setting",
        );
    }
    findings.done(Check::ForceRecovery);
    Ok(())
}

fn accounts<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    let check = Check::Accounts;
    let Some(plugins) = facts.get(Question::AccountPlugins) else {
        let remedy = "GRANT SELECT ON mysql.* to the account at the donor";
        return findings.skip(check, "the account at the donor may not read mysql.user", remedy);
    };
    let server = findings.server;
    let (active, missing): (Vec<_>, Vec<_>) =
        plugins.iter().partition(|plugin| server.has_plugin(&plugin.text));
    let pair = |plugin: &&Entry| format!("{}={}", plugin.text, plugin.number);
    let list = missing.iter().map(pair).collect::<Vec<_>>().join(",");
    let remedy = "Activate one of these plugins in this server, or give an account of the donor \
                  another plugin";
    if missing.is_empty() {
    } else if active.is_empty() {
        let error = Error::SystemConfig(format!(
            "no account of the donor could log in here: their authentication plugins are not \
             active ({list}). Activate one of these plugins on this server to clone"
        ));
        findings.refuse(check, &error, remedy);
    } else {
        let error = Error::SystemConfig(format!(
            "accounts of the donor will not be able to log in here, because their authentication \
             plugins are not active: {list}"
        ));
        findings.warn(check, &error, remedy);
    }
    findings.done(check);
}

fn lower_case_table_names<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    const NAME: &str = "lower_case_table_names";
    let check = Check::LowerCaseTableNames;
    let Some(value) = facts.text(Question::LowerCaseTableNames) else {
        // The copied dictionary tells before the server's data is replaced.
        return findings.skip(check, SILENT, "");
    };
    let variable = [(NAME.to_owned(), value.to_owned())];
    if let Err(error) = findings.server.check_variables(&variable) {
        let own = findings.server.variables(&[NAME]).ok().and_then(|mut values| values.pop());
        findings.refused_by_server(
            check,
            error.number(),
            format!("{NAME} is {value} at the donor and {} here", own.unwrap_or_default()),
            "Initialise this server with the donor's value",
        );
    }
    findings.done(check);
}

/// InnoDB finds these out in the middle of FILE COPY.
fn tablespace_files<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    let check = Check::TablespaceFiles;
    let questions = [Question::OutsideDirectories, Question::UndoFileNames];
    let [outside, undo] = questions.map(|question| facts.get(question));
    let (Some(outside), Some(undo)) = (outside, undo) else {
        let reason = "the donor did not say where its tablespaces are: the account may not read \
                      this, the donor is older, or it has too many tablespaces";
        return findings.skip(check, reason, "GRANT PROCESS ON *.* to the account at the donor");
    };
    let server = findings.server;
    // A path that was cut says nothing.
    let directories = outside.iter().filter(|entry| entry.text.len() < MAX_TEXT);
    let directories = directories.map(|entry| entry.text.as_str());
    let has_place = |directory: &str| server.has_place_for(&Path::new(directory).join("t.ibd"));
    let homeless: Vec<_> = directories.filter(|directory| !has_place(directory)).collect();
    if !homeless.is_empty() {
        let error = Error::SystemConfig(format!(
            "tablespaces of the donor lie where this server does not look for tablespaces: {}",
            first_names(&homeless)
        ));
        let remedy = "Add their directories to innodb_directories of this server, and restart it";
        findings.refuse(check, &error, remedy);
    } else if outside.len() == MAX_ENTRIES {
        let reason =
            "the donor has tablespaces in many directories, of which the first were looked at";
        findings.skip(check, reason, "Compare innodb_directories of both servers");
    }
    if !undo.is_empty() {
        let names: Vec<_> = undo.iter().map(|entry| entry.text.as_str()).collect();
        let error = Error::SystemConfig(format!(
            "undo tablespaces of the donor have the same file name, and would lie in one directory \
             here: {}",
            first_names(&names)
        ));
        let remedy = "Drop one of them at the donor, and create it with another file name";
        findings.refuse(check, &error, remedy);
    }
    findings.done(check);
}

/// InnoDB decides when the copy begins, and refuses then. But a server that keeps its data only if
/// there is room should say so before.
fn disk_space<S: ServerChecks>(findings: &mut Findings<'_, S>, facts: &Facts) {
    const MIB: u64 = 1 << 20;
    let check = Check::DiskSpace;
    let Some(free) = findings.server.free_space() else { return findings.done(check) };
    match facts.count(Question::Size) {
        Some(size) if size > free => {
            let error = Error::SystemConfig(format!(
                "the clone of about {} MiB does not fit beside the data of this server ({} MiB are \
                 free): with clone_keep_data=AUTO the data is dropped first, with ON the clone fails",
                size / MIB,
                free / MIB
            ));
            findings.warn(check, &error, "Free space on the disk of the data directory");
        }
        Some(_) => {}
        None => {
            let grant = "GRANT PROCESS ON *.* to the account at the donor";
            findings.skip(check, "the account at the donor may not read sizes", grant);
        }
    }
    findings.done(check);
}

fn supervisor<S: ServerChecks>(findings: &mut Findings<'_, S>) {
    let check = Check::Supervisor;
    match findings.server.has_supervisor() {
        Some(true) => {}
        Some(false) => findings.warn(
            check,
            &Error::NoSupervisor,
            "Run mysqld with a supervisor and MYSQLD_PARENT_PID, or start the server by hand after \
             the clone",
        ),
        None => findings.skip(check, "this mysqld does not tell whether it has a supervisor", ""),
    }
    findings.done(check);
}
