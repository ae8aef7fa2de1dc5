// SPDX-License-Identifier: GPL-2.0-only

//! What is checked before a clone over a server's own data changes anything.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::clone::{self, Statement, Tls};
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::keyring::WithKeyring;
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, Plugin, Session, check};

const RECIPIENT: [&str; 3] = [
    "CREATE DATABASE mine",
    "CREATE TABLE mine.t (id INT PRIMARY KEY)",
    "INSERT INTO mine.t VALUES (1), (2)",
];

const RESULTS: &str =
    "SELECT CHECK_NAME, RESULT, ERROR_NUMBER FROM performance_schema.clone_checks";

fn assert_kept(recipient: &Mysqld) -> Result<()> {
    let rows: u64 = recipient.session()?.one("SELECT COUNT(*) FROM mine.t")?;
    assert_eq!(rows, 2);
    Ok(())
}

/// The errors and warnings of the last statement, without texts.
fn conditions(session: &mut Session) -> Result<Vec<(String, u16)>> {
    let all = session.warnings()?.into_iter();
    Ok(all.map(|(level, number, _)| (level, number)).collect())
}

/// The results that differ from `Passed`.
fn results(session: &mut Session) -> Result<Vec<(String, String, u16)>> {
    session.rows(format!("{RESULTS} WHERE RESULT <> 'Passed'"))
}

fn result(check: &str, outcome: &str, number: u16) -> (String, String, u16) {
    (check.to_owned(), outcome.to_owned(), number)
}

/// A donor whose tablespaces are encrypted, and a recipient without a keyring. InnoDB finds this
/// out in FILE COPY: then a recipient that drops its data first has lost them.
#[test]
fn a_recipient_without_a_keyring() {
    check(|| {
        let servers = WithKeyring::new(Server::locate()?)?;
        let build = |name: &str, plugin| {
            Mysqld::builder().name(name).server(servers.server).plugin(plugin).option(DISTANT)
        };
        let donor = |plugin| -> Result<Mysqld> {
            let donor = servers.start_with_keyring(build("donor", plugin).create()?, "keyring")?;
            clone::make_donor(&donor)?;
            donor.session()?.run_all([
                "CREATE DATABASE theirs",
                "CREATE TABLE theirs.secret (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
            ])?;
            Ok(donor)
        };
        let ours = donor(Plugin::Ours)?;
        let recipient = build("recipient", Plugin::Ours).start()?;
        recipient.session()?.run_all(RECIPIENT)?;
        let mut session = recipient.session()?;
        clone::allow_donor(&recipient, &ours)?;
        for keep in ["OFF", "AUTO"] {
            session.run(format!("SET GLOBAL clone_keep_data = {keep}"))?;
            let error = session.error(Statement::instance(&ours).to_string())?;
            let text = "Clone system configuration: encrypted at the donor: tablespaces: 1 \
                        (theirs/secret). This server has no keyring";
            assert_eq!((error.number, &*error.message), (3869, text));
            assert_kept(&recipient)?;
        }
        // Both reasons together.
        let statement = Statement::instance(&ours).tls(Tls::Disabled);
        assert_eq!(session.error(statement.to_string())?.number, 3872);
        let both = [("Error".to_owned(), 3872), ("Error".to_owned(), 3869)];
        assert_eq!(conditions(&mut session)?[..2], both);
        let refused = [result("tls", "Refused", 3872), result("keyring", "Refused", 3869)];
        assert_eq!(results(&mut session)?[..2], refused);

        // With a keyring nothing is in the way.
        let second = build("second", Plugin::Ours).create()?;
        let second = servers.start_with_keyring(second, "other-keyring")?;
        clone::allow_donor(&second, &ours)?;
        let mut other = second.session()?;
        other.run("SET clone_dry_run = ON")?;
        assert_eq!(other.error(Statement::instance(&ours).to_string())?.number, 1290);

        // A stock donor tells it to an account that may see it.
        let stock = donor(Plugin::Stock)?;
        clone::allow_donor(&recipient, &stock)?;
        stock.session()?.run("GRANT PROCESS ON *.* TO clone_donor")?;
        session.run("SET GLOBAL clone_keep_data = OFF")?;
        let error = session.error(Statement::instance(&stock).to_string())?;
        assert_eq!(error.number, 3869, "{error}");
        assert_kept(&recipient)?;
        // And what is a variable to every account.
        stock.session()?.run_all([
            "REVOKE PROCESS ON *.* FROM clone_donor",
            "SET GLOBAL innodb_redo_log_encrypt = ON",
        ])?;
        let error = session.error(Statement::instance(&stock).to_string())?;
        assert!(error.message.contains("encrypted at the donor: redo log"), "{error}");
        assert_kept(&recipient)?;
        // Without that it is not checked, and the data that is dropped first is lost.
        stock.session()?.run("SET GLOBAL innodb_redo_log_encrypt = OFF")?;
        let error = session.error(Statement::instance(&stock).to_string())?;
        assert_eq!(error.number, 1815, "{error}");
        let unknown = ["same_donor", "tls", "keyring"].map(|name| result(name, "Not checked", 0));
        assert_eq!(results(&mut session)?[..3], unknown);
        let schemas: Vec<String> = session.rows("SHOW DATABASES LIKE 'mine'")?;
        assert_eq!(schemas, <[String; 0]>::default());
        Ok(())
    });
}

/// What the cloned data need, and a recipient with another configuration does not have.
const THEIRS: [&str; 9] = [
    "CREATE DATABASE theirs",
    "CREATE TABLE theirs.isam (id INT PRIMARY KEY) ENGINE = MyISAM",
    "CREATE TABLE theirs.csv (id INT NOT NULL) ENGINE = CSV",
    "CREATE TABLE theirs.words (t TEXT, FULLTEXT (t) WITH PARSER ngram)",
    "CREATE EVENT theirs.later ON SCHEDULE EVERY 1 YEAR STARTS '2099-01-01' DO DO 1",
    "CREATE EVENT theirs.off ON SCHEDULE EVERY 1 YEAR DISABLE DO DO 1",
    "INSERT INTO mysql.component (component_group_id, component_urn) \
     VALUES (1, 'file://component_nowhere')",
    "INSERT INTO mysql.func VALUES ('somewhere', 0, 'nowhere.so', 'function')",
    "CREATE USER somebody IDENTIFIED WITH auth_socket",
];

/// The warnings, in the order of the checks.
const WARNINGS: [(&str, u16, &str); 7] = [
    ("other_tables", 3869, "2 (theirs.csv, theirs.isam)"),
    ("fulltext_parsers", 3869, "not active here (ngram)"),
    ("components", 3869, "plugin_dir of this server: component_nowhere"),
    ("functions", 3869, "plugin_dir of this server: nowhere.so"),
    ("events", 3869, "will start here after the clone: 1 (theirs.later)"),
    ("accounts", 3869, "plugins are not active: auth_socket=1"),
    ("supervisor", 3707, "Please start server to complete clone operation"),
];

/// Each warning is in SHOW WARNINGS, in the table, and in the log. A strict recipient refuses the
/// clone, and one that is not strict takes it.
#[test]
fn what_hurts_later_is_a_warning() {
    check(|| {
        let donor = |plugin| -> Result<Mysqld> {
            let donor = Mysqld::builder().name("donor").plugin(plugin).option(DISTANT).start()?;
            let mut session = donor.session()?;
            session.run("INSTALL PLUGIN auth_socket SONAME 'auth_socket.so'")?;
            session.run_all(THEIRS)?;
            clone::make_donor(&donor)?;
            Ok(donor)
        };
        let (ours, stock) = (donor(Plugin::Ours)?, donor(Plugin::Stock)?);
        let builder = fixture::server("recipient")?.option(DISTANT);
        let builder = builder.option("--ngram=OFF").option("--event-scheduler=ON");
        let mut recipient = fixture::recipient_from(builder, &ours)?;
        recipient.session()?.run_all(RECIPIENT)?;
        let before = clone::status(&mut recipient.session()?)?;

        let mut session = recipient.session()?;
        session.run("SET clone_dry_run = ON")?;
        let error = session.error(Statement::instance(&ours).to_string())?;
        let text = "The MySQL server is running with the clone_dry_run=ON: all checks have passed, \
                    and nothing was cloned option so it cannot execute this statement";
        assert_eq!((error.number, &*error.message), (1290, text));
        let shown = session.warnings()?;
        let log = recipient.log()?;
        let rows: Vec<(String, String, u16, String, String)> = session.rows(
            "SELECT CHECK_NAME, RESULT, ERROR_NUMBER, MESSAGE, REMEDY \
             FROM performance_schema.clone_checks WHERE RESULT <> 'Passed'",
        )?;
        assert_eq!(rows.len(), WARNINGS.len(), "{rows:?}");
        for ((name, number, text), row) in WARNINGS.iter().zip(&rows) {
            assert_eq!((&*row.0, &*row.1, row.2), (*name, "Warning", *number));
            ensure!(row.3.contains(text) && !row.4.is_empty(), "{row:?}");
            let is_shown = shown.iter().any(|(level, shown, message)| {
                level == "Warning" && shown == number && message.contains(text)
            });
            ensure!(is_shown, "{text}: {shown:?}");
            // As InnoDB itself logs such tables.
            let level = if *name == "other_tables" { "[Note]" } else { "[Warning]" };
            let is_logged = |line: &&str| line.contains(level) && line.contains(text);
            ensure!(log.lines().find(is_logged).is_some(), "{text}\n{log}");
        }
        let passed: u32 = session
            .one("SELECT COUNT(*) FROM performance_schema.clone_checks WHERE RESULT = 'Passed'")?;
        assert_eq!(passed, 12);
        // Nothing has changed, at either end.
        assert_kept(&recipient)?;
        assert_eq!(clone::status(&mut session)?, before);
        assert_eq!(clone::recipients_at(&ours)?, 0);

        session.run_all(["SET clone_dry_run = OFF", "SET clone_strict_checks = ON"])?;
        assert_eq!(session.error(Statement::instance(&ours).to_string())?.number, 3869);
        let refused = results(&mut session)?;
        let expected = WARNINGS.map(|(name, number, _)| result(name, "Refused", number));
        assert_eq!(refused, expected);
        assert_kept(&recipient)?;

        // A stock donor, and an account that may clone and nothing else.
        clone::allow_donor(&recipient, &stock)?;
        session.run_all(["SET clone_dry_run = ON", "SET clone_strict_checks = OFF"])?;
        assert_eq!(session.error(Statement::instance(&stock).to_string())?.number, 1290);
        let unchecked: Vec<String> = session.rows(
            "SELECT CHECK_NAME FROM performance_schema.clone_checks WHERE RESULT = 'Not checked'",
        )?;
        let expected = [
            "same_donor",
            "tls",
            "keyring",
            "other_tables",
            "fulltext_parsers",
            "components",
            "functions",
            "events",
            "accounts",
            "tablespace_files",
            "disk_space",
        ];
        assert_eq!(unchecked, expected);
        // And one that may read.
        stock.session()?.run("GRANT SELECT, PROCESS, EVENT ON *.* TO clone_donor")?;
        assert_eq!(session.error(Statement::instance(&stock).to_string())?.number, 1290);
        let mut expected =
            WARNINGS.map(|(name, number, _)| result(name, "Warning", number)).to_vec();
        expected.insert(0, result("same_donor", "Not checked", 0));
        assert_eq!(results(&mut session)?, expected);

        session.run("SET clone_dry_run = OFF")?;
        clone::allow_donor(&recipient, &ours)?;
        drop(session);
        clone::run(&mut recipient, &Statement::instance(&ours))?;
        let schemas: Vec<String> = recipient.session()?.rows("SHOW DATABASES LIKE '%e%s'")?;
        ensure!(schemas.contains(&"theirs".to_owned()), "{schemas:?}");
        Ok(())
    });
}
