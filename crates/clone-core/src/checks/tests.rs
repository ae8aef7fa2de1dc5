// SPDX-License-Identifier: GPL-2.0-only

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use clone_protocol::{Response, Version};

use super::*;
use crate::error::Error;
use crate::facts::{Facts, Question, Rows};
use crate::parameters::ServerRelease;
use crate::session::Variables;

/// A recipient, and what it was told to report.
struct Server {
    variables: BTreeMap<&'static str, &'static str>,
    plugins: Vec<&'static str>,
    has_keyring: bool,
    free_space: Option<u64>,
    has_supervisor: bool,
    is_strict: bool,
    raised: RefCell<Vec<u32>>,
    warned: RefCell<Vec<u32>>,
    shown: RefCell<Vec<Finding>>,
}

impl Server {
    fn new() -> Self {
        let variables = [
            ("clone_exclude_plugins_list", ""),
            ("version", "9.7.4"),
            ("max_allowed_packet", "67108864"),
            ("innodb_page_size", "16384"),
            ("innodb_force_recovery", "0"),
            ("lower_case_table_names", "0"),
            ("event_scheduler", "ON"),
            ("performance_schema", "ON"),
        ];
        Self {
            variables: variables.into(),
            plugins: vec!["InnoDB", "caching_sha2_password", "ngram"],
            has_keyring: true,
            free_space: Some(8 << 20),
            has_supervisor: true,
            is_strict: false,
            raised: RefCell::default(),
            warned: RefCell::default(),
            shown: RefCell::default(),
        }
    }

    fn raise_number(&self, number: u32) -> Result<()> {
        self.raised.borrow_mut().push(number);
        Err(Error::Raised(number))
    }
}

impl Variables for Server {
    fn variables(&self, names: &[&str]) -> Result<Vec<String>> {
        Ok(names.iter().map(|name| self.variables[name].to_owned()).collect())
    }
}

impl ServerChecks for Server {
    fn check_collations(&self, names: &[String]) -> Result<()> {
        if names.is_empty() { Ok(()) } else { self.raise_number(3867) }
    }

    fn check_variables(&self, variables: &[(String, String)]) -> Result<()> {
        let mut compared = variables.iter().filter(|(name, _)| name != "version");
        let differs = compared.any(|(name, value)| self.variables[&**name] != value);
        if differs { self.raise_number(3868) } else { Ok(()) }
    }

    fn check_version(&self, own: &ServerRelease, donor: &ServerRelease) -> Result<()> {
        if own.version == donor.version { Ok(()) } else { self.raise_number(3864) }
    }

    fn maturity(&self) -> &'static str {
        "LTS"
    }

    fn has_plugin(&self, name: &str) -> bool {
        self.plugins.contains(&name)
    }

    fn can_load_plugin(&self, library: &str) -> bool {
        library == "known.so"
    }

    fn rows(&self, _: &'static str) -> Option<Rows> {
        Some(if self.has_keyring { vec![vec![Some("Active".to_owned())]] } else { Vec::new() })
    }

    fn has_place_for(&self, path: &Path) -> bool {
        path.starts_with("/known")
    }

    fn free_space(&self) -> Option<u64> {
        self.free_space
    }

    fn has_supervisor(&self) -> Option<bool> {
        Some(self.has_supervisor)
    }

    fn is_strict(&self) -> bool {
        self.is_strict
    }

    fn raise(&self, error: &Error) {
        self.raised.borrow_mut().push(error.number());
    }

    fn warn(&self, error: &Error) {
        self.warned.borrow_mut().push(error.number());
    }

    fn show(&self, findings: Vec<Finding>) {
        *self.shown.borrow_mut() = findings;
    }
}

const UUID: &str = "8a94f357-aab4-11df-86ab-c80aa9429562";

/// A donor with which all checks pass.
fn donor() -> Parameters {
    let mut donor = Parameters::default();
    donor.version = Version::V3;
    donor.take(&Response::Config { name: "version", value: "9.7.4" }).unwrap();
    donor.take(&Response::ConfigV3 { name: "server_uuid", value: UUID }).unwrap();
    donor.take(&Response::PluginV2 { name: "ngram", library: "" }).unwrap();
    donor.facts = Facts::asked(Some(true));
    for question in Question::ALL {
        tell(&mut donor, question, &[]);
    }
    tell(&mut donor, Question::ServerUuid, &[(UUID, 1)]);
    tell(&mut donor, Question::LowerCaseTableNames, &[("0", 1)]);
    tell(&mut donor, Question::AccountPlugins, &[("caching_sha2_password", 3)]);
    donor
}

fn tell(donor: &mut Parameters, question: Question, entries: &[(&str, u64)]) {
    let row = |(text, number): &(&str, u64)| vec![Some((*text).into()), Some(number.to_string())];
    donor.facts.note(question, entries.iter().map(row).collect());
}

/// The findings that did not pass.
fn found(server: &Server) -> Vec<(Check, Outcome, u32)> {
    let shown = server.shown.borrow();
    let all = shown.iter().map(|finding| (finding.check, finding.outcome, finding.number));
    all.filter(|(_, outcome, _)| *outcome != Outcome::Passed).collect()
}

#[test]
fn nothing_is_in_the_way() {
    let server = Server::new();
    assert_eq!(check(&server, &donor(), true), Ok(()));
    let checks: Vec<_> = server.shown.borrow().iter().map(|finding| finding.check).collect();
    assert_eq!(checks, Check::ALL);
    assert_eq!(found(&server), []);
    assert_eq!((server.raised.take(), server.warned.take()), (vec![], vec![]));
}

/// What fails one check, its number, and whether it refuses the clone.
type Case = (Check, Outcome, u32, fn(&mut Server, &mut Parameters));

/// Each check, once for each way in which it fails.
const MATRIX: [Case; 26] = {
    use Outcome::{Refused, Warning};
    use Question as Q;
    [
        (Check::Plugins, Refused, 3870, |_, donor| donor.plugins.push(("x".into(), None))),
        (Check::Collations, Refused, 3867, |_, donor| donor.collations.push("x".into())),
        (Check::Settings, Refused, 3868, |_, donor| {
            donor.variables.push(("innodb_page_size".into(), "4096".into()));
        }),
        (Check::Version, Refused, 3864, |server, _| {
            server.variables.insert("version", "9.7.5");
        }),
        (Check::PacketLimit, Refused, 3957, |server, _| {
            server.variables.insert("max_allowed_packet", "1048576");
        }),
        (Check::Tls, Refused, 3872, |_, donor| {
            donor.facts = without_tls(donor);
            tell(donor, Q::EncryptedTablespaces, &[("a/t", 1)]);
        }),
        (Check::Tls, Refused, 3872, |_, donor| {
            donor.facts = without_tls(donor);
            tell(donor, Q::RedoEncryption, &[("redo log", 1)]);
        }),
        (Check::Keyring, Refused, 3869, |server, donor| {
            server.has_keyring = false;
            tell(donor, Q::EncryptedTablespaces, &[("a/t", 1)]);
        }),
        (Check::Keyring, Refused, 3869, |server, donor| {
            server.has_keyring = false;
            tell(donor, Q::UndoEncryption, &[("undo log", 1)]);
        }),
        (Check::Keyring, Outcome::NotChecked, 0, |server, donor| {
            server.has_keyring = false;
            server.variables.insert("performance_schema", "OFF");
            tell(donor, Q::EncryptedTablespaces, &[("a/t", 1)]);
        }),
        (Check::OtherTables, Warning, 3869, |_, donor| {
            tell(donor, Q::OtherTables, &[("a.t", 2), ("a.u", 2)]);
        }),
        (Check::FulltextParsers, Warning, 3869, |server, donor| {
            server.plugins.retain(|name| *name != "ngram");
            tell(donor, Q::FulltextTables, &[("a.t", 1)]);
        }),
        (Check::Components, Warning, 3869, |_, donor| {
            tell(donor, Q::Components, &[("file://known", 2), ("file://other", 2)]);
        }),
        (Check::Functions, Warning, 3869, |_, donor| {
            tell(donor, Q::FunctionLibraries, &[("known.so", 2), ("other.so", 2)]);
        }),
        (Check::Events, Warning, 3869, |_, donor| tell(donor, Q::Events, &[("a.e", 1)])),
        (Check::ForceRecovery, Refused, 3869, |server, _| {
            server.variables.insert("innodb_force_recovery", "1");
        }),
        (Check::Accounts, Refused, 3869, |_, donor| {
            tell(donor, Q::AccountPlugins, &[("sha256_password", 2)]);
        }),
        (Check::Accounts, Warning, 3869, |_, donor| {
            let plugins = [("sha256_password", 2), ("caching_sha2_password", 1)];
            tell(donor, Q::AccountPlugins, &plugins);
        }),
        (Check::LowerCaseTableNames, Refused, 3868, |_, donor| {
            tell(donor, Q::LowerCaseTableNames, &[("1", 1)]);
        }),
        (Check::TablespaceFiles, Refused, 3869, |_, donor| {
            tell(donor, Q::OutsideDirectories, &[("/known/a/", 3), ("/other/b/", 1)]);
        }),
        (Check::TablespaceFiles, Refused, 3869, |_, donor| {
            tell(donor, Q::UndoFileNames, &[("twin.ibu", 2)]);
        }),
        (Check::SameDonor, Refused, 3869, |_, donor| tell(donor, Q::ServerUuid, &[("x", 1)])),
        (Check::SameDonor, Refused, 3869, |_, donor| donor.same_donor = Some(false)),
        (Check::SameDonor, Outcome::NotChecked, 0, |_, donor| donor.other_variables.clear()),
        (Check::DiskSpace, Warning, 3869, |_, donor| tell(donor, Q::Size, &[("bytes", 9 << 20)])),
        (Check::Supervisor, Warning, 3707, |server, _| server.has_supervisor = false),
    ]
};

fn without_tls(donor: &Parameters) -> Facts {
    let mut facts = Facts::asked(Some(false));
    for (name, value) in donor.facts.encode() {
        facts.take(name, &value);
    }
    facts
}

#[test]
fn the_whole_matrix() {
    for check in Check::ALL {
        assert!(MATRIX.iter().any(|(of, ..)| *of == check), "{check:?}");
    }
    for (of, outcome, number, change) in MATRIX {
        for is_strict in [false, true] {
            let (mut server, mut donor) = (Server { is_strict, ..Server::new() }, donor());
            change(&mut server, &mut donor);
            let refused = outcome == Outcome::Refused || (outcome == Outcome::Warning && is_strict);
            let expected = if refused { Outcome::Refused } else { outcome };
            let result = check(&server, &donor, true);
            assert_eq!(found(&server), [(of, expected, number)], "strict: {is_strict}");
            assert_eq!(result, if refused { Err(Error::Raised(number)) } else { Ok(()) }, "{of:?}");
            let raised = if refused { vec![number] } else { vec![] };
            assert_eq!(server.raised.take(), raised, "{of:?}");
            let warned = if expected == Outcome::Warning { vec![number] } else { vec![] };
            assert_eq!(server.warned.take(), warned, "{of:?}");
            let shown = server.shown.take();
            let finding = shown.iter().find(|finding| finding.check == of).unwrap();
            assert!(!finding.text.is_empty(), "{finding:?}");
            assert!(!refused || !finding.remedy.is_empty(), "{finding:?}");
        }
    }
}

#[test]
fn all_reasons_come_together() {
    let (mut server, mut donor) = (Server::new(), donor());
    for (_, outcome, _, change) in MATRIX {
        if outcome == Outcome::Refused {
            change(&mut server, &mut donor);
        }
    }
    assert!(check(&server, &donor, true).is_err());
    let refused = found(&server);
    let checks: Vec<_> = Check::ALL
        .into_iter()
        .filter(|check| MATRIX.iter().any(|(of, how, ..)| of == check && *how == Outcome::Refused))
        .collect();
    let mut found: Vec<_> = refused.iter().map(|(of, ..)| *of).collect();
    // A check may have several reasons.
    found.dedup();
    assert_eq!(found, checks);
}

/// A donor that answers nothing: an account that may read nothing at a stock donor.
#[test]
fn what_cannot_be_checked_does_not_refuse() {
    let (server, mut donor) = (Server { is_strict: true, ..Server::new() }, donor());
    donor.facts = Facts::asked(None);
    assert_eq!(check(&server, &donor, true), Ok(()));
    let skipped = [
        Check::SameDonor,
        Check::Tls,
        Check::Keyring,
        Check::OtherTables,
        Check::Components,
        Check::Functions,
        Check::Events,
        Check::Accounts,
        Check::LowerCaseTableNames,
        Check::TablespaceFiles,
        Check::DiskSpace,
    ];
    assert_eq!(found(&server), skipped.map(|check| (check, Outcome::NotChecked, 0)));
}

/// The data is dropped first, so that InnoDB compares with the space that is free then.
#[test]
fn without_kept_data_the_space_is_not_checked() {
    let (server, mut donor) = (Server { free_space: None, ..Server::new() }, donor());
    tell(&mut donor, Question::Size, &[("bytes", 9 << 20)]);
    assert_eq!(check(&server, &donor, true), Ok(()));
    assert_eq!(found(&server), []);
}

/// A clone into a directory, for which the donor is not asked.
#[test]
fn a_directory_needs_the_checks_of_stock_only() {
    let (server, mut donor) = (Server::new(), donor());
    donor.facts = Facts::default();
    assert_eq!(check(&server, &donor, false), Ok(()));
    let checks: Vec<_> = server.shown.borrow().iter().map(|finding| finding.check).collect();
    assert_eq!(checks, Check::ALL[..6]);
}
