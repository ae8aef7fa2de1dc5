// SPDX-License-Identifier: GPL-2.0-only

//! Loading and unloading the plugin, and what the server shows of it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Stdio;
use std::time::Duration;

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, Plugin, check, fixture};

/// name and type of the columns of `clone_status`.
const STATUS_COLUMNS: [(&str, &str); 12] = [
    ("ID", "int"),
    ("PID", "int"),
    ("STATE", "char(16)"),
    ("BEGIN_TIME", "timestamp(3)"),
    ("END_TIME", "timestamp(3)"),
    ("SOURCE", "varchar(512)"),
    ("DESTINATION", "varchar(512)"),
    ("ERROR_NO", "int"),
    ("ERROR_MESSAGE", "varchar(512)"),
    ("BINLOG_FILE", "varchar(512)"),
    ("BINLOG_POSITION", "bigint"),
    ("GTID_EXECUTED", "longtext"),
];

/// name and type of the columns of `clone_progress`.
const PROGRESS_COLUMNS: [(&str, &str); 11] = [
    ("ID", "int"),
    ("STAGE", "char(32)"),
    ("STATE", "char(16)"),
    ("BEGIN_TIME", "timestamp(6)"),
    ("END_TIME", "timestamp(6)"),
    ("THREADS", "int"),
    ("ESTIMATE", "bigint"),
    ("DATA", "bigint"),
    ("NETWORK", "bigint"),
    ("DATA_SPEED", "int"),
    ("NETWORK_SPEED", "int"),
];

#[test]
fn plugin_as_the_server_lists_it() {
    check(|| {
        let server = fixture::server("server")?.install_later().start()?;
        let mut session = server.session()?;
        let query = "SELECT PLUGIN_VERSION, PLUGIN_STATUS, PLUGIN_TYPE, PLUGIN_TYPE_VERSION, \
            PLUGIN_LIBRARY, PLUGIN_LIBRARY_VERSION, PLUGIN_LICENSE, LOAD_OPTION \
            FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'";
        type Listed = (String, String, String, String, String, String, String, String);
        assert_eq!(session.first::<Listed>(query)?, None);
        let error = session.error("UNINSTALL PLUGIN clone")?;
        assert_eq!((error.number, &*error.message), (1305, "PLUGIN clone does not exist"));
        let error = session.error("CLONE LOCAL DATA DIRECTORY = '/nowhere'")?;
        assert_eq!((error.number, &*error.message), (1524, "Plugin 'clone' is not loaded"));

        server.install_plugin()?;
        let file = server.plugin().file_name().unwrap();
        let listed: Listed = session.one(query)?;
        let expected = ["1.0", "ACTIVE", "CLONE", "1.0", file, "1.11", "GPL", "ON"];
        let [a, b, c, d, e, f, g, h] = expected.map(String::from);
        assert_eq!(listed, (a, b, c, d, e, f, g, h));
        let error = session.error(format!("INSTALL PLUGIN clone SONAME '{file}'"))?;
        assert_eq!((error.number, &*error.message), (1125, "Function 'clone' already exists"));

        session.run("UNINSTALL PLUGIN clone")?;
        assert_eq!(session.first::<Listed>(query)?, None);
        for table in ["clone_status", "clone_progress"] {
            let error = session.error(format!("SELECT * FROM performance_schema.{table}"))?;
            assert_eq!(error.number, 1146, "{error}");
        }
        let error = session.error("SELECT @@clone_buffer_size")?;
        assert_eq!(error.number, 1193, "{error}");
        Ok(())
    });
}

#[test]
fn tables_have_stock_columns() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        let mut session = server.session()?;
        for (table, expected) in
            [("clone_status", &STATUS_COLUMNS[..]), ("clone_progress", &PROGRESS_COLUMNS[..])]
        {
            type Column = (String, String, Option<String>, String, Option<String>, String, String);
            let columns: Vec<Column> = session.rows(format!(
                "SELECT COLUMN_NAME, COLUMN_TYPE, COLUMN_DEFAULT, IS_NULLABLE, COLLATION_NAME, \
                 COLUMN_KEY, EXTRA FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = 'performance_schema' AND TABLE_NAME = '{table}' \
                 ORDER BY ORDINAL_POSITION"
            ))?;
            let expected: Vec<Column> = expected
                .iter()
                .map(|&(name, kind)| {
                    let is_text = kind.contains("char") || kind.contains("text");
                    let collation = is_text.then(|| "utf8mb4_0900_ai_ci".to_owned());
                    let none = String::new;
                    (name.into(), kind.into(), None, "YES".into(), collation, none(), none())
                })
                .collect();
            assert_eq!(columns, expected, "{table}");
            assert_eq!(
                session.one::<u32>(format!("SELECT COUNT(*) FROM performance_schema.{table}"))?,
                0
            );
            // 1683: invalid performance_schema usage; 1142: command denied.
            let error = session.error(format!("TRUNCATE TABLE performance_schema.{table}"))?;
            assert!([1683, 1142].contains(&error.number), "{error}");
            let error = session.error(format!("DELETE FROM performance_schema.{table}"))?;
            assert!([1683, 1142].contains(&error.number), "{error}");
        }
        Ok(())
    });
}

#[test]
fn instruments_are_registered() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        let mut session = server.session()?;
        type Instrument = (String, String, Option<String>, String);
        let instruments: Vec<Instrument> = session.rows(
            "SELECT NAME, ENABLED, TIMED, PROPERTIES FROM performance_schema.setup_instruments \
             WHERE NAME LIKE '%/clone/%' ORDER BY NAME",
        )?;
        let statement = |name: &str| -> Instrument {
            (format!("statement/clone/{name}"), "YES".into(), Some("YES".into()), String::new())
        };
        assert_eq!(
            instruments,
            [
                ("memory/clone/data".into(), "YES".into(), None, String::new()),
                statement("client"),
                statement("local"),
                statement("server"),
            ]
        );
        let threads: Vec<(String, String, String)> = session.rows(
            "SELECT NAME, ENABLED, HISTORY FROM performance_schema.setup_threads \
             WHERE NAME LIKE 'thread/clone/%' ORDER BY NAME",
        )?;
        let thread = |name: &str| (format!("thread/clone/{name}"), "YES".into(), "YES".into());
        assert_eq!(threads, [thread("client-task"), thread("local-task")]);
        Ok(())
    });
}

/// What `--initialize` prepares must be complete: the plugin succeeds there, though without its
/// tables.
#[test]
fn data_directory_initialised_with_the_plugin() {
    check(|| {
        // Not started: only its plugin directory and its scratch space are used.
        let helper = fixture::server("helper")?.create()?;
        let directory = helper.scratch("initialised");
        let file = helper.plugin().file_name().unwrap();
        let output = Server::locate()?
            .command()
            .arg("--initialize-insecure")
            .arg(format!("--datadir={}", directory.display()))
            .arg(format!("--plugin-dir={}", helper.scratch("plugin").display()))
            .arg(format!("--plugin-load-add=clone={file}"))
            .arg("--secure-file-priv=NULL")
            .stdin(Stdio::null())
            .output()?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}\n{log}", output.status);
        ensure!(!log.contains("[ERROR]"), "{log}");

        let server = fixture::server("server")?.adopt(&directory).start()?;
        let mut session = server.session()?;
        assert_eq!(clone::status(&mut session)?, None);
        session.run(Statement::local(&server.scratch("clone")).to_string())?;
        assert_eq!(clone::status(&mut session)?.unwrap().state, "Completed");
        Ok(())
    });
}

/// The option file that operations.md recommends is used for `--initialize` as well, and has its
/// full effect when the server runs.
#[test]
fn the_recommended_option_file_is_good_for_initialize() {
    check(|| {
        let mut server = fixture::server("server")?.install_later().create()?;
        if server.plugin() != Plugin::Ours {
            return Ok(());
        }
        let manual = include_str!("../docs/operations.md");
        let (_, file) = manual.split_once("```ini\n[mysqld]\n").unwrap();
        let (lines, _) = file.split_once("```").unwrap();
        let options: Vec<_> = lines
            .lines()
            .map(|line| {
                let (name, value) = line.split_once(" = ").unwrap();
                format!("--{name}={value}")
            })
            .collect();
        ensure!(options.iter().any(|option| option.ends_with("FORCE_PLUS_PERMANENT")));
        for release in ["", "8.4", "8.0"] {
            let (mysqld, directory) = match release {
                "" => (Server::locate()?, server.scratch("initialised")),
                _ => match Server::release(release) {
                    Ok(mysqld) => (mysqld, server.scratch(release)),
                    Err(error) => {
                        println!("SKIPPED: {error:#}");
                        continue;
                    }
                },
            };
            let output = mysqld
                .command()
                .arg("--initialize-insecure")
                .arg(format!("--datadir={}", directory.display()))
                .arg(format!("--plugin-dir={}", server.scratch("plugin").display()))
                .arg("--secure-file-priv=NULL")
                .args(&options)
                .stdin(Stdio::null())
                .output()?;
            let log = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{release} {}\n{log}", output.status);
            ensure!(!log.contains("[ERROR]"), "{release}\n{log}");
        }
        for option in &options {
            server.add_option(option);
        }
        server.start()?;
        let mut session = server.session()?;
        let error = session.error("UNINSTALL PLUGIN clone")?;
        assert_eq!(error.number, 1702, "{error}");
        let list: String = session.one("SELECT @@clone_valid_donor_list")?;
        ensure!(lines.contains(&list) && !list.is_empty(), "{list}");
        Ok(())
    });
}

/// What a load, a clone and an unload leave behind shows when they are repeated.
#[test]
fn repeated_installs_leave_nothing_behind() {
    const TIMES: usize = 20;
    /// The first rounds fill caches that belong to the server.
    const WARM_UP: usize = 8;
    /// Growth of the resident set that is not taken for a leak. With the stock plugin it is about
    /// 40 KiB a round.
    const NOISE_KIB: u64 = 4 << 10;

    check(|| {
        let server = fixture::server("server")?.install_later().start()?;
        let mut session = server.session()?;
        let file = server.plugin().file_name().unwrap();
        let mut usages = Vec::new();
        for round in 0..TIMES {
            session.run(format!("INSTALL PLUGIN clone SONAME '{file}'"))?;
            session
                .run(Statement::local(&server.scratch(&format!("clone-{round}"))).to_string())?;
            session.run("UNINSTALL PLUGIN clone")?;
            std::fs::remove_dir_all(server.scratch(&format!("clone-{round}")))?;
            usages.push(server.usage()?);
        }
        let (warm, last) = (usages[WARM_UP], usages[TIMES - 1]);
        println!("after each round: {usages:?}");
        assert_eq!(last.threads, warm.threads, "{usages:?}");
        assert!(last.rss_kib <= warm.rss_kib + NOISE_KIB, "{usages:?}");
        Ok(())
    });
}

/// A thread of the server that ran a clone with several threads keeps nothing that holds the
/// library in memory. So UNINSTALL, a new file and INSTALL bring a new version.
#[test]
fn uninstall_unmaps_the_library() {
    check(|| {
        let server = fixture::server("server")?.install_later().start()?;
        let mut session = server.session()?;
        let file = server.plugin().file_name().unwrap();
        let is_mapped = || -> Result<bool> {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid()?))?;
            Ok(maps.contains(file))
        };
        for threads in [1, 4] {
            session.run(format!("INSTALL PLUGIN clone SONAME '{file}'"))?;
            session.run("SET GLOBAL clone_autotune_concurrency = OFF")?;
            session.run(format!("SET GLOBAL clone_max_concurrency = {threads}"))?;
            let directory = server.scratch(&format!("clone-{threads}"));
            session.run(Statement::local(&directory).to_string())?;
            assert!(is_mapped()?, "{threads} threads");
            session.run("UNINSTALL PLUGIN clone")?;
            assert!(!is_mapped()?, "{threads} threads");
        }
        Ok(())
    });
}

#[test]
fn uninstall_is_refused_while_cloning() {
    fn refused(server: &Mysqld) -> Result<()> {
        let error = server.session()?.error("UNINSTALL PLUGIN clone")?;
        assert_eq!(
            (error.number, &*error.message),
            (1883, "Plugin 'clone' cannot be uninstalled now. Plugin is still in use.")
        );
        Ok(())
    }

    check(|| {
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        let statement = Statement::instance(&donor).into_directory(&recipient.scratch("clone"));
        let running = Running::start_copying(&recipient, &statement)?;
        refused(&recipient)?;
        refused(&donor)?;
        running.kill_query(&recipient)?;
        running.finish().unwrap_err();

        for server in [&recipient, &donor] {
            clone_testkit::until("the plugin not to be in use", Duration::from_secs(20), || {
                Ok(server.session()?.run("UNINSTALL PLUGIN clone").ok())
            })?;
        }
        Ok(())
    });
}
