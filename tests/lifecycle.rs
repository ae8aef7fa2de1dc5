// SPDX-License-Identifier: GPL-2.0-only

//! Loading and unloading the plugin, and what the server shows of it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Stdio;
use std::time::Duration;

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::clone::{self, Running, Statement};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, check, fixture};

/// name, type, default, minimum, maximum, description; in the order of their names.
const VARIABLES: [(&str, &str, &str, &str, &str, &str); 14] = [
    ("autotune_concurrency", "Boolean", "ON", "", "", "If concurrency is automatically tuned"),
    ("block_ddl", "Boolean", "OFF", "", "", "If clone should block concurrent DDL"),
    (
        "buffer_size",
        "Integer",
        "4194304",
        "1048576",
        "268435456",
        "buffer size used by clone for data transfer",
    ),
    ("ddl_timeout", "Integer", "300", "0", "2592000", "Time in seconds to wait for DDL lock"),
    (
        "delay_after_data_drop",
        "Integer",
        "0",
        "0",
        "3600",
        "Time in seconds to wait after removing data.",
    ),
    (
        "donor_timeout_after_network_failure",
        "Integer",
        "5",
        "0",
        "30",
        "Time in minutes up to which donor allows recipient to re-connect and restart cloning after \
         network failure.",
    ),
    ("enable_compression", "Boolean", "OFF", "", "", "If compression is done at network"),
    (
        "max_concurrency",
        "Integer",
        "16",
        "1",
        "128",
        "Maximum number of concurrent threads for clone",
    ),
    (
        "max_data_bandwidth",
        "Integer",
        "0",
        "0",
        "1048576",
        "Maximum File data bandwidth for clone in MiB/sec",
    ),
    (
        "max_network_bandwidth",
        "Integer",
        "0",
        "0",
        "1048576",
        "Maximum network bandwidth for clone in MiB/sec",
    ),
    ("ssl_ca", "String", "", "", "", "SSL path name for Certificate Authority (CA) file"),
    ("ssl_cert", "String", "", "", "", "SSL path name of the public key certificate file"),
    ("ssl_key", "String", "", "", "", "SSL path name of the SSL private key file"),
    (
        "valid_donor_list",
        "String",
        "",
        "",
        "",
        "List of valid donor addresses allowed to clone from HOST1:PORT1,HOST2:PORT2,...",
    ),
];

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
fn variables_as_documented() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        let mut session = server.session()?;
        type Metadata = (String, String, String, String, String, String);
        let shown: Vec<Metadata> = session.rows(
            "SELECT VARIABLE_NAME, DATA_TYPE, VARIABLE_VALUE, MIN_VALUE, MAX_VALUE, DOCUMENTATION \
             FROM performance_schema.variables_metadata \
             JOIN performance_schema.global_variables USING (VARIABLE_NAME) \
             WHERE VARIABLE_NAME LIKE 'clone%' AND VARIABLE_SCOPE = 'GLOBAL' ORDER BY 1",
        )?;
        let expected: Vec<Metadata> = VARIABLES
            .iter()
            .map(|&(name, kind, default, min, max, text)| {
                let name = format!("clone_{name}");
                (name, kind.into(), default.into(), min.into(), max.into(), text.into())
            })
            .collect();
        assert_eq!(shown, expected);

        let sources: Vec<(String, u32)> = session.rows(
            "SELECT VARIABLE_SOURCE, COUNT(*) FROM performance_schema.variables_info \
             WHERE VARIABLE_NAME LIKE 'clone%' GROUP BY 1",
        )?;
        assert_eq!(sources, [("COMPILED".into(), 14)]);

        let error = session.error("SET SESSION clone_block_ddl = ON")?;
        assert_eq!(error.number, 1229, "{error}");
        Ok(())
    });
}

#[test]
fn variables_take_values_in_range() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        let mut session = server.session()?;
        for (name, kind, _, min, max, _) in VARIABLES {
            let name = format!("clone_{name}");
            let value = |session: &mut clone_testkit::Session| -> Result<String> {
                session.one(format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)"))
            };
            match kind {
                "Integer" => {
                    let (min, max): (i64, i64) = (min.parse()?, max.parse()?);
                    for bound in [min, max] {
                        session.run(format!("SET GLOBAL {name} = {bound}"))?;
                        assert_eq!(session.warnings()?, []);
                        assert_eq!(value(&mut session)?, bound.to_string());
                    }
                    for (beyond, bound) in [(min - 1, min), (max + 1, max)] {
                        session.run(format!("SET GLOBAL {name} = {beyond}"))?;
                        let warnings = session.warnings()?;
                        let text = format!("Truncated incorrect {name} value: '{beyond}'");
                        assert_eq!(warnings, [("Warning".into(), 1292, text)]);
                        assert_eq!(value(&mut session)?, bound.to_string());
                    }
                    let error = session.error(format!("SET GLOBAL {name} = 'text'"))?;
                    assert_eq!(error.number, 1232, "{error}");
                }
                "Boolean" => {
                    for (set, shown) in [("ON", "1"), ("OFF", "0"), ("TRUE", "1")] {
                        session.run(format!("SET GLOBAL {name} = {set}"))?;
                        assert_eq!(value(&mut session)?, shown);
                    }
                    let error = session.error(format!("SET GLOBAL {name} = 7"))?;
                    assert_eq!(error.number, 1231, "{error}");
                }
                _ => {
                    session.run(format!("SET GLOBAL {name} = 'host:3306'"))?;
                    assert_eq!(value(&mut session)?, "host:3306");
                    session.run(format!("SET GLOBAL {name} = NULL"))?;
                }
            }
            session.run(format!("SET GLOBAL {name} = DEFAULT"))?;
        }
        session.run("SET GLOBAL clone_buffer_size = 3000000")?;
        let rounded: u64 = session.one("SELECT @@GLOBAL.clone_buffer_size")?;
        assert_eq!(rounded, 2 << 20, "rounded down to MiB");
        Ok(())
    });
}

#[test]
fn donor_list_has_a_format() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        let mut session = server.session()?;
        for good in ["a:1", "a:1,b:2", "127.0.0.1:3306,Host.Example:33060"] {
            session.run(format!("SET GLOBAL clone_valid_donor_list = '{good}'"))?;
            let shown: String = session.one("SELECT @@GLOBAL.clone_valid_donor_list")?;
            assert_eq!(shown, good);
        }
        for bad in [
            "", "a", "a:", ":1", "a:x", "a:1,", ",a:1", "a:1,b", "a:1, b:2", " a:1", "a:1:2",
            "a:1 ",
        ] {
            let error = session.error(format!("SET GLOBAL clone_valid_donor_list = '{bad}'"))?;
            assert_eq!(
                (error.number, error.message.as_str()),
                (
                    3869,
                    "Clone system configuration: Invalid Format. Please enter \
                     \"<hostname1>:<port1>,...\"' with no extra space"
                ),
                "for '{bad}'"
            );
        }
        let error = session.error("SET GLOBAL clone_valid_donor_list = 5")?;
        assert_eq!(error.number, 1232, "{error}");
        Ok(())
    });
}

#[test]
fn options_at_start_and_persisted() {
    check(|| {
        let mut server = fixture::server("server")?
            .option("--clone-buffer-size=8M")
            .option("--clone-valid-donor-list=a:1,b:2")
            .option("--clone-block-ddl")
            .option("--loose-clone-max-concurrency=1000")
            .start()?;
        let variables = "SELECT @@clone_buffer_size, @@clone_valid_donor_list, @@clone_block_ddl, \
            @@clone_max_concurrency, @@clone_ssl_ca, @@clone_ddl_timeout";
        type Values = (u64, String, bool, u32, Option<String>, u32);
        let values: Values = server.session()?.one(variables)?;
        assert_eq!(values, (8 << 20, "a:1,b:2".into(), true, 128, None, 300));

        server.session()?.run_all([
            "SET PERSIST clone_ddl_timeout = 17",
            "SET PERSIST_ONLY clone_ssl_ca = '/some/file'",
            "SET PERSIST clone_valid_donor_list = 'c:3'",
        ])?;
        server.restart()?;
        let values: Values = server.session()?.one(variables)?;
        let ca = Some("/some/file".into());
        assert_eq!(values, (8 << 20, "c:3".into(), true, 128, ca, 17));
        Ok(())
    });
}

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

/// What `--initialize` prepares must be complete: the plugin succeeds there, though without its tables.
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

/// What a load, a clone and an unload leave behind shows when they are repeated.
#[test]
fn repeated_installs_leave_nothing_behind() {
    const TIMES: usize = 20;
    /// The first rounds fill caches that belong to the server.
    const WARM_UP: usize = 8;
    /// Growth of the resident set that is not taken for a leak. A leak of only one clone buffer (4 MiB)
    /// a round is far more.
    const NOISE_KIB: u64 = 12 << 10;

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
        assert_eq!(last.threads, warm.threads, "{usages:?}");
        assert!(last.rss_kib <= warm.rss_kib + NOISE_KIB, "{usages:?}");
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
        let running = Running::start(&recipient, &statement)?;
        running.await_stage(&recipient, "FILE COPY")?;
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
