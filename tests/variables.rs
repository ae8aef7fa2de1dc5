// SPDX-License-Identifier: GPL-2.0-only

//! The system variables.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clone_testkit::anyhow::Result;
use clone_testkit::{Plugin, Session, check, fixture};

/// name, type, default, minimum, maximum, description.
type Documented =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

/// What the stock plugin does not have.
const OURS: [Documented; 7] = [
    (
        "compression",
        "String",
        "AUTO",
        "",
        "",
        "How a donor with this plugin compresses what it sends to this recipient: AUTO as it measures what is fastest, OFF not at all, LZ4, or Zstandard at a level from 1 to 19",
    ),
    (
        "compression_max_cpu",
        "Integer",
        "50",
        "0",
        "100",
        "Percent of this machine's processors that compression may use at the donor, for all clones together; 0 for no compression",
    ),
    (
        "exclude_plugins_list",
        "String",
        "",
        "",
        "",
        "Comma separated plugin names that are not installed on recipient. Clone will not error out if these are active on donor but not installed on recipient",
    ),
    (
        "file_handover",
        "Boolean",
        "ON",
        "",
        "",
        "If a donor hands its open files over to a recipient on the same machine, which copies them, instead of sending what is in them",
    ),
    (
        "keep_data",
        "String",
        "AUTO",
        "",
        "",
        "What becomes of this server's data when a clone replaces it: AUTO keeps the data until the clone is complete if the disk has room for both, ON keeps the data or refuses the clone, OFF drops the data before the clone is copied",
    ),
    (
        "keep_failed_directory",
        "Boolean",
        "OFF",
        "",
        "",
        "If the directory of a clone that failed stays, instead of being removed",
    ),
    (
        "peer_timeout",
        "Integer",
        "60",
        "0",
        "86400",
        "Time in seconds after which a donor or recipient that shows no sign of life is given up; 0: as the server's own time-outs have it",
    ),
];

/// What the stock plugin does not have, and each session has.
const SESSION: [Documented; 2] = [
    (
        "dry_run",
        "Boolean",
        "OFF",
        "",
        "",
        "If CLONE INSTANCE ends after all checks, without a change to any data. performance_schema.clone_checks has the results",
    ),
    (
        "strict_checks",
        "Boolean",
        "OFF",
        "",
        "",
        "If what would only hurt after a clone, such as accounts that could not log in, refuses the clone",
    ),
];

/// What both have, in the order of their names.
const VARIABLES: [Documented; 14] = [
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

#[test]
fn variables_as_documented() {
    check(|| {
        let server = fixture::server("server")?.start()?;
        let mut session = server.session()?;
        type Metadata = (String, String, String, String, String, String);
        let (ours, own_session): (&[Documented], &[Documented]) = match server.plugin() {
            Plugin::Ours => (&OURS, &SESSION),
            _ => (&[], &[]),
        };
        let count = VARIABLES.len() + ours.len() + own_session.len();
        let in_scope = [
            ("GLOBAL", VARIABLES.iter().chain(ours).collect::<Vec<_>>()),
            ("SESSION", own_session.iter().collect()),
        ];
        for (scope, variables) in in_scope {
            let shown: Vec<Metadata> = session.rows(format!(
                "SELECT VARIABLE_NAME, DATA_TYPE, VARIABLE_VALUE, MIN_VALUE, MAX_VALUE, \
                 DOCUMENTATION FROM performance_schema.variables_metadata \
                 JOIN performance_schema.global_variables USING (VARIABLE_NAME) \
                 WHERE VARIABLE_NAME LIKE 'clone%' AND VARIABLE_SCOPE = '{scope}' ORDER BY 1"
            ))?;
            let documented = variables.into_iter();
            let mut expected: Vec<Metadata> = documented
                .map(|&(name, kind, default, min, max, text)| {
                    let name = format!("clone_{name}");
                    (name, kind.into(), default.into(), min.into(), max.into(), text.into())
                })
                .collect();
            expected.sort();
            assert_eq!(shown, expected, "{scope}");
        }

        let sources: Vec<(String, usize)> = session.rows(
            "SELECT VARIABLE_SOURCE, COUNT(*) FROM performance_schema.variables_info \
             WHERE VARIABLE_NAME LIKE 'clone%' GROUP BY 1",
        )?;
        assert_eq!(sources, [("COMPILED".into(), count)]);

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
            let value = |session: &mut Session| -> Result<String> {
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
fn plugins_that_can_be_excluded() {
    check(|| {
        let mut server = fixture::server("server")?.create()?;
        if server.plugin() != Plugin::Ours {
            return Ok(());
        }
        // In an option file, as users of Percona Server have it.
        server.add_option("--clone-exclude-plugins-list=a,b");
        server.start()?;
        let mut session = server.session()?;
        let shown = "SELECT @@GLOBAL.clone_exclude_plugins_list";
        assert_eq!(session.one::<String>(shown)?, "a,b");
        for good in ["", "x", " Audit_Log , validate_password"] {
            session.run(format!("SET GLOBAL clone_exclude_plugins_list = '{good}'"))?;
            assert_eq!(session.one::<String>(shown)?, good);
        }
        let error = session.error("SET GLOBAL clone_exclude_plugins_list = 'x,InnoDB, memory'")?;
        let text =
            "Incorrect arguments to Clone: The following plugins cannot be excluded: InnoDB,memory";
        assert_eq!((error.number, &*error.message), (1210, text));
        assert_eq!(session.one::<String>(shown)?, " Audit_Log , validate_password");
        session.run("SET GLOBAL clone_exclude_plugins_list = NULL")?;
        assert_eq!(session.one::<Option<String>>(shown)?, None);
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
