// SPDX-License-Identifier: GPL-2.0-only

//! `CLONE INSTANCE`: a recipient copies a donor's data over the network, to replace its own or to a
//! directory.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::Result;
use clone_testkit::clone::{self, Report, Running, STAGES, Statement, Tls};
use clone_testkit::fixture::DISTANT;
use clone_testkit::mysqld::Builder;
use clone_testkit::proxy::{How, Proxy, Target};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::sql::server_error;
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Plugin, check, dataset, fixture, verify};

/// The connections of recipients, as the donor sees them.
const CONNECTIONS: &str = "SELECT CONNECTION_TYPE FROM performance_schema.threads \
    WHERE PROCESSLIST_USER = 'clone_donor' AND CONNECTION_TYPE IS NOT NULL";

/// A server whose clones come over the network, whatever the file system is.
fn distant(name: &str) -> Result<Builder> {
    Ok(fixture::server(name)?.option(DISTANT))
}

/// Clones to a directory and starts a server on it.
fn clone_and_boot(recipient: &mut Mysqld, donor: &Mysqld) -> Result<(Report, Mysqld)> {
    let directory = recipient.scratch("clone");
    let report = clone::run(recipient, &Statement::instance(donor).into_directory(&directory))?;
    Ok((report, fixture::server("clone")?.adopt(&directory).start()?))
}

#[test]
fn replaces_data_exactly_under_writes() {
    check(|| {
        let donor = fixture::donor()?;
        let mut recipient = fixture::recipient_from(distant("recipient")?, &donor)?;
        recipient.session()?.run_all([
            "CREATE DATABASE old",
            "CREATE TABLE old.t (id INT PRIMARY KEY)",
            "CREATE DATABASE shop",
            "CREATE TABLE shop.orders (other INT PRIMARY KEY)",
            "CREATE TABLESPACE general_one ADD DATAFILE 'general_one.ibd'",
            "CREATE UNDO TABLESPACE undo_extra ADD DATAFILE 'undo_extra.ibu'",
            "CREATE USER old_user",
        ])?;
        let writers = Writers::start(&donor, Load { ddl: true, ..Load::default() })?;
        writers.await_transactions(50)?;
        let report = clone::run(&mut recipient, &Statement::instance(&donor))?;

        let status = &report.status;
        assert_eq!((&*status.state, status.error_number, status.pid), ("Completed", 0, 0));
        assert_eq!(status.source, format!("127.0.0.1:{}", donor.port()));
        assert_eq!((&*status.destination, &*status.error_message), ("LOCAL INSTANCE", ""));
        assert!(status.begin_time < status.end_time, "{status:?}");
        let names: Vec<_> = report.stages.iter().map(|stage| &*stage.name).collect();
        assert_eq!(names, STAGES);
        for stage in &report.stages {
            assert_eq!((&*stage.state, stage.id), ("Completed", 1), "{stage:?}");
            assert!(stage.begin_time.is_some() && stage.elapsed.is_some(), "{stage:?}");
            // Between two plugins of ours zeros do not cross it, but a sixteenth of each block
            // does.
            let least = if donor.plugin() == Plugin::Ours { stage.data / 16 } else { stage.data };
            assert!(stage.network >= least, "{stage:?}");
        }
        assert!(report.data() > dataset::size(&mut donor.session()?)?);

        let mut session = recipient.session()?;
        let old: u32 = session.one(
            "SELECT (SELECT COUNT(*) FROM mysql.user WHERE User = 'old_user') \
             + (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'old')",
        )?;
        assert_eq!(old, 0);
        replica::assert_exact(&recipient, &donor, writers, status, StartFrom::Gtid)?;

        // What the tables show is kept in files.
        let kept = |server: &Mysqld| -> Result<_> {
            let mut session = server.session()?;
            Ok((clone::status(&mut session)?.unwrap(), clone::progress(&mut session)?))
        };
        drop(session);
        recipient.restart()?;
        assert_eq!(kept(&recipient)?, (report.status, report.stages));
        Ok(())
    });
}

#[test]
fn replaces_data_under_a_supervisor() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = fixture::server("recipient")?.supervised();
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        let report = clone::run(&mut recipient, &Statement::instance(&donor))?;
        assert_eq!(report.status.state, "Completed");
        verify::assert_sound(&recipient)?;
        verify::assert_equal(&donor, &recipient)?;

        // A replaced server is one like any other: it can be replaced again, and be a donor.
        clone::allow_donor(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        let mut next = fixture::recipient(&recipient)?;
        clone::run(&mut next, &Statement::instance(&recipient))?;
        verify::assert_sound(&next)?;
        verify::assert_equal(&donor, &next)
    });
}

#[test]
fn shuts_down_without_a_supervisor() {
    check(|| {
        let donor = fixture::server("donor")?.start()?;
        clone::make_donor(&donor)?;
        let mut recipient = fixture::recipient(&donor)?;
        let error = recipient.session()?.error(Statement::instance(&donor).to_string())?;
        assert_eq!(
            (error.number, &*error.message),
            (3707, "Restart server failed (mysqld is not managed by supervisor process).")
        );
        recipient.await_restart()?;
        let mut session = recipient.session()?;
        assert_eq!(clone::status(&mut session)?.unwrap().state, "Completed");
        verify::assert_equal(&donor, &recipient)
    });
}

#[test]
fn directory_exact_under_writes_by_eight_threads() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = fixture::server("recipient")?
            .option("--clone-max-concurrency=8")
            .option("--clone-autotune-concurrency=OFF");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        let writers = Writers::start(&donor, Load { threads: 4, ..Load::default() })?;
        writers.await_transactions(50)?;
        let (report, clone) = clone_and_boot(&mut recipient, &donor)?;
        assert_eq!(report.stages[1].threads, 8, "{:?}", report.stages[1]);
        for stage in &report.stages[5..] {
            assert_eq!(stage.state, "Not Started", "{stage:?}");
        }
        let status = clone::status(&mut clone.session()?)?.unwrap();
        replica::assert_exact(&clone, &donor, writers, &status, StartFrom::File)
    });
}

#[test]
fn directory_by_one_thread_of_buffered_files() {
    check(|| {
        let donor =
            fixture::donor_from(fixture::server("donor")?.option("--innodb-flush-method=fsync"))?;
        let builder = fixture::server("recipient")?
            .option("--innodb-flush-method=fsync")
            .option("--clone-max-concurrency=1");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        let (report, clone) = clone_and_boot(&mut recipient, &donor)?;
        assert!(report.stages.iter().all(|stage| stage.threads <= 1), "{:?}", report.stages);
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

#[test]
fn require_clause_decides_on_tls() {
    check(|| {
        let donor = fixture::donor()?;
        let recipient = fixture::recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        for (clause, connection) in
            [(Tls::Preferred, "SSL/TLS"), (Tls::Required, "SSL/TLS"), (Tls::Disabled, "TCP/IP")]
        {
            let directory = recipient.scratch(connection.split('/').next().unwrap());
            let statement = Statement::instance(&donor).into_directory(&directory).tls(clause);
            let running = Running::start_copying(&recipient, &statement)?;
            let seen: Vec<String> = donor.session()?.rows(CONNECTIONS)?;
            // The data's connection, and that of the acknowledgements.
            assert_eq!(seen, [connection; 2], "{clause:?}");
            fixture::speed_up(&recipient)?;
            running.finish()?;
            std::fs::remove_dir_all(&directory)?;
            fixture::slow_down(&recipient)?;
        }

        let plain = fixture::server("plain donor")?.option("--tls-version=").start()?;
        clone::make_donor(&plain)?;
        clone::allow_donor(&recipient, &plain)?;
        fixture::speed_up(&recipient)?;
        let statement = Statement::instance(&plain).into_directory(&recipient.scratch("clone"));
        let error = recipient.session()?.error(statement.clone().tls(Tls::Required).to_string())?;
        assert_eq!(
            (error.number, &*error.message),
            (
                3862,
                "Clone Donor Error: Connect failed: 2026 : SSL connection error: SSL is required but \
                 the server doesn't support it."
            )
        );
        recipient.session()?.run(statement.to_string())
    });
}

#[test]
fn certificates() {
    check(|| {
        let donor = fixture::server("donor")?.start()?;
        clone::make_donor(&donor)?;
        let recipient = fixture::recipient(&donor)?;
        let mut session = recipient.session()?;
        let statement =
            || Statement::instance(&donor).into_directory(&recipient.scratch("clone")).to_string();
        let certificate = |name: &str| donor.data_dir().join(name).display().to_string();

        // A donor that the given authority does not vouch for is not cloned from.
        let foreign = recipient.data_dir().join("client-cert.pem");
        session.run(format!("SET GLOBAL clone_ssl_ca = '{}'", foreign.display()))?;
        let error = session.error(statement())?;
        assert_eq!(error.number, 3862, "{error}");
        assert!(error.message.contains("2026 : SSL connection error"), "{error}");
        session.run(format!("SET GLOBAL clone_ssl_ca = '{}'", certificate("ca.pem")))?;

        // A donor may demand the recipient's certificate.
        donor.session()?.run("ALTER USER clone_donor REQUIRE X509")?;
        let error = session.error(statement())?;
        assert_eq!(error.number, 3862, "{error}");
        assert!(error.message.contains("1045 : Access denied"), "{error}");
        session.run_all([
            &*format!("SET GLOBAL clone_ssl_cert = '{}'", certificate("client-cert.pem")),
            &*format!("SET GLOBAL clone_ssl_key = '{}'", certificate("client-key.pem")),
        ])?;
        session.run(statement())
    });
}

#[test]
fn compression_saves_network() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = distant("recipient")?.option("--clone-compression=ZSTD1");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        let (report, clone) = clone_and_boot(&mut recipient, &donor)?;
        let (data, network) = (report.data(), report.network());
        assert!(network < data, "{network} of {data} bytes over the network");
        // How much is packed depends on the processors that are idle. What is packed shrinks.
        let log = donor.log()?;
        let packed = log.rsplit_once("; ZSTD1: ").map(|(_, packed)| packed).unwrap();
        let mut mib = packed.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        let (raw, packed) = (mib.next().unwrap(), mib.next().unwrap());
        assert!(raw >= 8 && packed < raw / 2, "{log}");
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

/// Holes of compressed pages and pages that were never used: neither is sent, and both are in the
/// clone as they are at the donor.
#[test]
fn zeros_do_not_cross_the_network() {
    check(|| {
        let donor = fixture::server("donor")?.start()?;
        clone::make_donor(&donor)?;
        let mut recipient = fixture::recipient_from(distant("recipient")?, &donor)?;
        let into = |recipient: &Mysqld, tls| {
            let directory = recipient.scratch("clone");
            (Statement::instance(&donor).into_directory(&directory).tls(tls), directory)
        };
        // What every server has.
        let (statement, directory) = into(&recipient, Tls::Disabled);
        let before = clone::run(&mut recipient, &statement)?;
        fs::remove_dir_all(&directory)?;
        donor.session()?.run_all([
            "CREATE DATABASE hollow",
            "CREATE TABLE hollow.pages (id INT PRIMARY KEY, body BLOB) COMPRESSION = 'zlib'",
            "INSERT INTO hollow.pages WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s WHERE id < 900) \
             SELECT id, REPEAT(CONCAT('row ', id), 2000) FROM s",
            "CREATE TABLE hollow.small (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 100",
            "FLUSH TABLES hollow.pages, hollow.small FOR EXPORT",
        ])?;
        for tls in [Tls::Disabled, Tls::Required] {
            let (statement, directory) = into(&recipient, tls);
            let report = clone::run(&mut recipient, &statement)?;
            let [before, after] = [&before, &report].map(|report| clone::file_copy(&report.stages));
            let data = after.data - before.data;
            let network = after.network.saturating_sub(before.network);
            assert!(data > 20 << 20, "{data}");
            if donor.plugin() == Plugin::Ours {
                assert!(network < data / 3, "{network} of {data} bytes over the network");
            }
            let blocks = |directory: &Path| -> Result<u64> {
                Ok(fs::metadata(directory.join("hollow/pages.ibd"))?.blocks())
            };
            let (original, copy) = (blocks(donor.data_dir())?, blocks(&directory)?);
            assert!(copy <= original, "{copy} blocks on disk instead of {original}");
            let clone = fixture::server("clone")?.adopt(&directory).start()?;
            verify::assert_sound(&clone)?;
            verify::assert_equal(&donor, &clone)?;
        }
        Ok(())
    });
}

/// To a tenth, as README says. A clone without a limit shows what comes on top: the time that both
/// servers need anyway.
#[test]
fn bandwidth_is_limited() {
    check(|| {
        let donor = fixture::donor()?;
        let mut recipient = fixture::recipient_from(distant("recipient")?, &donor)?;
        let directory = |name: &str| recipient.scratch(name);
        let statements = ["free", "limited data", "limited network"]
            .map(|name| Statement::instance(&donor).into_directory(&directory(name)));
        let free = clone::run(&mut recipient, &statements[0])?.elapsed.as_secs_f64();
        // 110 MiB of data, of which 22 cross the network: 4.4 s each.
        let limits = [("data", 25), ("network", 5)];
        for (statement, (variable, limit)) in statements[1..].iter().zip(limits) {
            recipient.session()?.run_all([
                "SET GLOBAL clone_max_data_bandwidth = 0, GLOBAL clone_max_network_bandwidth = 0",
                &*format!("SET GLOBAL clone_max_{variable}_bandwidth = {limit}"),
            ])?;
            let limited = clone::run(&mut recipient, statement)?;
            let bytes = if variable == "data" { limited.data() } else { limited.network() };
            let expected = bytes as f64 / f64::from(limit << 20);
            let took = limited.elapsed.as_secs_f64();
            println!("{variable}: {took:.2} s, {expected:.2} by the limit, {free:.2} without");
            assert!(expected > 3.0, "{variable}: {expected} s show nothing");
            // Stock lets more pass at first.
            let least = if donor.plugin() == Plugin::Ours { 0.9 * expected } else { 2.0 };
            let most = 1.1 * expected + free;
            assert!((least..most).contains(&took), "{variable}: {took} s instead of {expected}");
        }
        Ok(())
    });
}

#[test]
fn delay_after_data_drop() {
    check(|| {
        let donor = fixture::server("donor")?.start()?;
        clone::make_donor(&donor)?;
        let builder = fixture::server("recipient")?
            .option("--clone-delay-after-data-drop=3")
            .option("--loose-clone-keep-data=OFF");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        recipient.session()?.run("CREATE DATABASE old")?;
        let running = Running::start(&recipient, &Statement::instance(&donor))?;
        let begin = Instant::now();
        let mut session = recipient.session()?;
        clone_testkit::until("the data to be dropped", Duration::from_secs(20), || {
            let old = "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'old'";
            Ok(session.first::<u32>(old)?.is_none().then_some(()))
        })?;
        running.finish().unwrap_err();
        assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
        recipient.await_restart()?;
        let stages = clone::progress(&mut recipient.session()?)?;
        assert!(stages[0].elapsed >= Some(Duration::from_secs(3)), "{:?}", stages[0]);
        Ok(())
    });
}

/// The recipient connects again and goes on. Where exactly connections break is varied in tests of
/// their own; here they have TLS.
#[test]
fn broken_connections_are_resumed() {
    check(|| {
        let donor = fixture::donor()?;
        let proxy = Proxy::to(donor.port())?;
        let mut recipient = distant("recipient")?.start()?;
        clone::allow_address(&recipient, &format!("127.0.0.1:{}", proxy.port()))?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance_at("127.0.0.1", proxy.port(), clone::donor_account());
        let running = Running::start_copying(&recipient, &statement.into_directory(&directory))?;
        // Time for some blocks to be copied before the break.
        std::thread::sleep(Duration::from_millis(500));
        let before = proxy.traffic().tls;
        proxy.cut(Target::All, How::Reset);
        fixture::speed_up(&recipient)?;
        running.finish()?;
        assert!(proxy.traffic().tls > before, "the clone ended without new connections");

        let status = clone::status(&mut recipient.session()?)?.unwrap();
        assert_eq!((&*status.state, status.error_number), ("Completed", 0));
        recipient.stop()?;
        let clone = fixture::server("clone")?.adopt(&directory).start()?;
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

/// A recipient that dies in the middle keeps its accounts, has lost its data, and can clone again.
#[test]
fn killed_recipient_rolls_back() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = fixture::server("recipient")?.option("--loose-clone-keep-data=OFF");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        recipient.session()?.run_all(["CREATE DATABASE old", "CREATE USER old_user"])?;
        fixture::slow_down(&recipient)?;
        let running = Running::start_copying(&recipient, &Statement::instance(&donor))?;
        std::thread::sleep(Duration::from_millis(500));
        recipient.kill()?;
        let error = running.finish().unwrap_err();
        assert_eq!(server_error(&error), None, "{error}");

        recipient.start()?;
        let mut session = recipient.session()?;
        let accounts: u32 =
            session.one("SELECT COUNT(*) FROM mysql.user WHERE User = 'old_user'")?;
        assert_eq!(accounts, 1);
        let schemas: Vec<String> = session.rows("SHOW DATABASES")?;
        assert_eq!(schemas, ["information_schema", "mysql", "performance_schema", "sys"]);
        let status = clone::status(&mut session)?.unwrap();
        assert_eq!(status.error_number, 1317, "{status:?}");
        let stages = clone::progress(&mut session)?;
        assert_eq!((&*stages[0].state, &*stages[1].state), ("Completed", "Failed"));

        drop(session);
        clone::allow_donor(&recipient, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        verify::assert_sound(&recipient)?;
        verify::assert_equal(&donor, &recipient)
    });
}

/// Blocks are 64 pages, so the size of what is sent at once depends on that of the pages.
fn clone_with_pages_of(size: &str) {
    check(|| {
        let page_size = format!("--innodb-page-size={size}");
        let donor = fixture::server("donor")?.initialise_with(&page_size).start()?;
        clone::make_donor(&donor)?;
        donor.session()?.run_all([
            "CREATE DATABASE d",
            "SET SESSION cte_max_recursion_depth = 100000",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v VARBINARY(1000), KEY (v(20))) AS \
             WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s WHERE id < 9000) \
             SELECT id, RANDOM_BYTES(1000) AS v FROM s",
        ])?;
        let builder = fixture::server("recipient")?.initialise_with(&page_size);
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        clone::run(&mut recipient, &Statement::instance(&donor))?;
        verify::assert_sound(&recipient)?;
        verify::assert_equal(&donor, &recipient)
    });
}

#[test]
fn smallest_pages() {
    clone_with_pages_of("4k");
}

#[test]
fn largest_pages() {
    clone_with_pages_of("64k");
}

/// The progress seen from outside only ever goes forward.
#[test]
fn progress_goes_forward() {
    check(|| {
        let donor = fixture::donor()?;
        let builder = fixture::server("recipient")?.option("--clone-max-data-bandwidth=15");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let mut copied = Vec::new();
        let mut current = BTreeSet::new();
        clone::run_watched(&mut recipient, &statement, |stages| {
            let at = stages.iter().position(|stage| stage.state == "In Progress");
            if let Some(at) = at {
                current.insert(at);
                assert_eq!(current.last(), Some(&at), "went back to {}", stages[at].name);
                assert!(stages[..at].iter().all(|stage| stage.state == "Completed"), "{stages:?}");
                assert!(stages[at + 1..].iter().all(|stage| stage.state == "Not Started"));
            }
            if let Some(stage) = stages.get(1) {
                copied.push(stage.data);
            }
        })?;
        assert!(copied.is_sorted(), "{copied:?}");
        assert!(copied.iter().collect::<BTreeSet<_>>().len() > 3, "hardly any steps: {copied:?}");
        Ok(())
    });
}
