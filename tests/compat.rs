// SPDX-License-Identifier: GPL-2.0-only

//! One library on every MySQL that can be had: each role that it can play, on each of them.
//!
//! The servers are those of `mysql-test/server.sh`, which `make servers` downloads. `make compat`
//! runs all of these tests; those of releases that differ from a neighbour in nothing that is known
//! are ignored otherwise.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::server::Server;
use clone_testkit::sql::server_error;
use clone_testkit::verify::Fingerprint;
use clone_testkit::{Mysqld, Plugin, Session, SqlError, check, dataset, fixture};

/// A test of each release. The second number is where the handlerton has the clone interface.
macro_rules! releases {
    ($($(#[$attribute:meta])* $name:ident: $release:literal, $offset:literal;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                check(|| every_role(Server::release($release)?, $offset));
            }
        )+
    };
}

releases! {
    mysql_8_0_19: "8.0.19", 0x230;
    #[ignore = "make compat"]
    mysql_8_0_28: "8.0.28", 0x230;
    #[ignore = "make compat"]
    mysql_8_0_36: "8.0.36", 0x260;
    #[ignore = "make compat"]
    mysql_8_0_42: "8.0.42", 0x260;
    mysql_8_0: "8.0", 0x260;
    #[ignore = "make compat"]
    mysql_8_4_4: "8.4.4", 0x268;
    #[ignore = "make compat"]
    mysql_8_4_6: "8.4.6", 0x268;
    #[ignore = "make compat"]
    mysql_8_4_7: "8.4.7", 0x268;
    #[ignore = "make compat"]
    mysql_8_4_8: "8.4.8", 0x268;
    #[ignore = "make compat"]
    mysql_8_4_10: "8.4.10", 0x268;
    mysql_8_4: "8.4", 0x268;
    #[ignore = "make compat"]
    mysql_9_7: "9.7", 0x278;
}

/// Who clones from whom: recipient, donor.
const ROLES: [(Plugin, Plugin); 3] =
    [(Plugin::Ours, Plugin::Ours), (Plugin::Ours, Plugin::Stock), (Plugin::Stock, Plugin::Ours)];

/// A server that cannot be downloaded, such as a build of one's own: `MYSQL_BASEDIR` is its
/// directory, and `MYSQL_CLONE_INTERFACE` where its handlerton has the clone interface, such as
/// 0x260.
#[test]
#[ignore = "MYSQL_BASEDIR=DIRECTORY MYSQL_CLONE_INTERFACE=OFFSET"]
fn a_server_of_ones_own() {
    check(|| {
        let offset =
            env::var("MYSQL_CLONE_INTERFACE").context("MYSQL_CLONE_INTERFACE is not set")?;
        let offset = usize::from_str_radix(offset.trim_start_matches("0x"), 16)?;
        every_role(Server::locate()?, offset)
    });
}

fn every_role(server: &'static Server, clone_interface: usize) -> Result<()> {
    let donor = start(server, "donor")?;
    looks_like_stock(&donor)?;
    donor.install_plugin()?;
    knows_the_server(&donor, clone_interface)?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    let expected = Fingerprint::read(&mut donor.session()?)?;

    let directory = donor.scratch("local");
    donor.session()?.run(Statement::local(&directory).to_string())?;
    boots(server, &directory, &expected).context("local clone")?;

    let mut recipient = start(server, "recipient")?;
    for (ours, theirs) in ROLES {
        let roles = || format!("{ours:?} from {theirs:?}");
        replace_plugin(&recipient, ours)?;
        replace_plugin(&donor, theirs)?;
        clone::allow_donor(&recipient, &donor)?;

        let directory = recipient.scratch(&format!("{ours:?}-{theirs:?}"));
        let statement = Statement::instance(&donor).into_directory(&directory);
        clone::run(&mut recipient, &statement).with_context(roles)?;
        boots(server, &directory, &expected).with_context(roles)?;

        // This brings the donor's table of plugins, too.
        let report =
            clone::run(&mut recipient, &Statement::instance(&donor)).with_context(roles)?;
        ensure!(report.status.state == "Completed", "{}: {:?}", roles(), report.status);
        holds(&recipient, &expected).with_context(roles)?;
    }
    for server in [&donor, &recipient] {
        server.session()?.run("UNINSTALL PLUGIN clone")?;
    }
    Ok(())
}

/// A server that has both plugins, and none of them installed.
fn start(server: &'static Server, name: &str) -> Result<Mysqld> {
    Mysqld::builder().name(name).server(server).plugin(Plugin::Ours).install_later().start()
}

fn replace_plugin(server: &Mysqld, plugin: Plugin) -> Result<()> {
    let mut session = server.session()?;
    // Not there yet, the first time.
    let _ = session.run("UNINSTALL PLUGIN clone");
    session.run(format!("INSTALL PLUGIN clone SONAME '{}'", plugin.file_name().unwrap()))
}

/// A server on the cloned directory holds what is expected, and has noticed what it is.
fn boots(server: &'static Server, directory: &Path, expected: &Fingerprint) -> Result<()> {
    let clone = Mysqld::builder()
        .name("clone")
        .server(server)
        .plugin(Plugin::Ours)
        .install_later()
        .adopt(directory)
        .start()?;
    let mut session = clone.session()?;
    let status = clone::status(&mut session)?.context("no status in the clone")?;
    ensure!(status.state == "Completed" && !status.gtid_executed.is_empty(), "{status:?}");
    holds(&clone, expected)
}

fn holds(server: &Mysqld, expected: &Fingerprint) -> Result<()> {
    let differences = expected.differences(&Fingerprint::read(&mut server.session()?)?);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// What the server shows of our plugin is what it shows of its own: variables (but for one that is
/// ours alone), tables, instruments, a clone's status.
fn looks_like_stock(server: &Mysqld) -> Result<()> {
    let mut session = server.session()?;
    let mut shown = Vec::new();
    // Ours first: instruments stay.
    for plugin in [Plugin::Ours, Plugin::Stock] {
        replace_plugin(server, plugin)?;
        shown.push(Shown::read(&mut session, server)?);
        session.run("UNINSTALL PLUGIN clone")?;
    }
    assert_eq!(shown[0], shown[1]);
    Ok(())
}

#[derive(Debug, Eq, PartialEq)]
struct Shown {
    plugin: Vec<(String, String, String, String, String)>,
    variables: Vec<(String, String, String, String)>,
    columns: Vec<(String, String, String, String, Option<String>)>,
    instruments: Vec<(String, String)>,
    /// Before any clone, and after one; without what is never the same.
    status: [Vec<Status>; 2],
}

/// STATE, SOURCE, ERROR_NO, ERROR_MESSAGE, BINLOG_FILE, GTID_EXECUTED.
type Status = (String, String, u32, Option<String>, Option<String>, Option<String>);

impl Shown {
    fn read(session: &mut Session, server: &Mysqld) -> Result<Self> {
        const STATUS: &str = "SELECT STATE, SOURCE, ERROR_NO, ERROR_MESSAGE, BINLOG_FILE, GTID_EXECUTED \
            FROM performance_schema.clone_status";
        let before = session.rows(STATUS)?;
        let directory = server.scratch("looks");
        session.run(Statement::local(&directory).to_string())?;
        fs::remove_dir_all(directory)?;
        let after = session.rows(STATUS)?;
        Ok(Self {
            status: [before, after],
            plugin: session.rows(
                "SELECT PLUGIN_VERSION, PLUGIN_STATUS, PLUGIN_TYPE, PLUGIN_TYPE_VERSION, PLUGIN_LICENSE \
                 FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'",
            )?,
            variables: session.rows(
                "SELECT VARIABLE_NAME, VARIABLE_VALUE, MIN_VALUE, MAX_VALUE \
                 FROM performance_schema.variables_info \
                 JOIN performance_schema.global_variables USING (VARIABLE_NAME) \
                 WHERE VARIABLE_NAME LIKE 'clone%' AND VARIABLE_NAME NOT IN \
                 ('clone_compression', 'clone_compression_max_cpu', 'clone_dry_run', \
                 'clone_exclude_plugins_list', 'clone_file_handover', 'clone_keep_data', \
                 'clone_keep_failed_directory', 'clone_peer_timeout', 'clone_strict_checks') \
                 ORDER BY 1",
            )?,
            columns: session.rows(
                "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME \
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'performance_schema' \
                 AND TABLE_NAME IN ('clone_progress', 'clone_status') \
                 ORDER BY TABLE_NAME, ORDINAL_POSITION",
            )?,
            instruments: session.rows(
                "SELECT NAME, ENABLED FROM performance_schema.setup_instruments \
                 WHERE NAME LIKE '%/clone/%' AND NAME NOT LIKE 'wait/%' UNION ALL \
                 SELECT NAME, ENABLED FROM performance_schema.setup_threads \
                 WHERE NAME LIKE 'thread/clone/%' ORDER BY 1",
            )?,
        })
    }
}

/// The plugin has found out what it stands on, and was not surprised.
fn knows_the_server(server: &Mysqld, clone_interface: usize) -> Result<()> {
    let log = server.log()?;
    let facts = format!("in MySQL {}", server.server().version);
    let line = log.lines().rfind(|line| line.contains(&facts));
    let line = line.with_context(|| format!("no line with facts in the log:\n{log}"))?;
    println!("{line}");
    ensure!(line.contains(&format!("clone_interface at {clone_interface:#x}")), "{line}");
    ensure!(!log.contains("instead of 0x"), "{log}");
    Ok(())
}

/// Which versions can be cloned into which: as the stock plugins say, whoever of the two is ours.
#[test]
fn versions_that_go_together() {
    check(|| {
        let names = ["8.0.19", "8.0.36", "8.0.42", "8.0", "8.4.4", "8.4", "9.7"];
        let servers = names
            .iter()
            .map(|name| Ok((*name, start(Server::release(name)?, name)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        for server in servers.values() {
            replace_plugin(server, Plugin::Ours)?;
            clone::make_donor(server)?;
        }
        // Recipient, donor, whether it goes.
        for (recipient, donor, goes) in [
            // From 8.0.37 on, in both directions; not before, and not from there.
            ("8.0", "8.0.42", true),
            ("8.0.42", "8.0", true),
            ("8.0", "8.0.36", false),
            ("8.0.36", "8.0", false),
            ("8.0.36", "8.0.19", false),
            ("8.0.19", "8.0.36", false),
            // Every patch of 8.4.
            ("8.4", "8.4.4", true),
            ("8.4.4", "8.4", true),
            // Not from one series to the next, though they have long-term support.
            ("8.4", "8.0", false),
            ("9.7", "8.4", false),
            ("8.4", "9.7", false),
        ] {
            let stock = cross(&servers[recipient], Plugin::Stock, &servers[donor], Plugin::Stock)?;
            println!("{recipient} from {donor}: {stock:?}");
            assert_eq!(stock.is_none(), goes, "{recipient} from {donor}, stock: {stock:?}");
            for (ours, theirs) in ROLES {
                let outcome = cross(&servers[recipient], ours, &servers[donor], theirs)?;
                assert_eq!(outcome, stock, "{ours:?} {recipient} from {theirs:?} {donor}");
            }
        }
        Ok(())
    });
}

/// Clones one server into another, to a directory; gives the error that was raised.
fn cross(
    recipient: &Mysqld,
    recipient_plugin: Plugin,
    donor: &Mysqld,
    donor_plugin: Plugin,
) -> Result<Option<SqlError>> {
    replace_plugin(donor, donor_plugin)?;
    replace_plugin(recipient, recipient_plugin)?;
    clone::allow_donor(recipient, donor)?;
    let directory = recipient.scratch("clone");
    let statement = Statement::instance(donor).into_directory(&directory);
    let outcome = recipient.session()?.run(statement.to_string());
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    match outcome {
        Ok(()) => Ok(None),
        Err(error) => match server_error(&error) {
            Some(error) => Ok(Some(error.clone())),
            None => Err(error),
        },
    }
}

/// InnoDB before 8.0.27 cannot be cloned while DDL runs: the donor keeps DDL out, though nobody
/// asked for that.
#[test]
fn old_servers_block_ddl() {
    check(|| {
        let server = Server::release("8.0.19")?;
        let donor = start(server, "donor")?;
        donor.install_plugin()?;
        dataset::load_small(&donor)?;
        clone::make_donor(&donor)?;
        let recipient = start(server, "recipient")?;
        recipient.install_plugin()?;
        clone::allow_donor(&recipient, &donor)?;
        fixture::slow_down(&recipient)?;

        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        let mut session = donor.session()?;
        session.run("SET SESSION lock_wait_timeout = 1")?;
        let error = session.error("CREATE DATABASE meanwhile")?;
        assert_eq!(error.number, 1205, "{error}");
        ensure!(!running.is_finished(), "the clone ended too early to tell");
        fixture::speed_up(&recipient)?;
        running.finish()?;
        session.run("CREATE DATABASE afterwards")
    });
}
