// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull` from real servers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::faults::{SmallDisk, fill_disk, relieve_disk};
use clone_testkit::replica;
use clone_testkit::server::Server;
use clone_testkit::sql::Account;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::volume::Volume;
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Plugin, check, clone, dataset, fixture, releases, skip, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Outcome, Tool, boot, holds, is_exact, is_whole, mysqld_program};

/// A donor of this release, with the small data set.
fn donor(server: &'static Server, plugin: Plugin) -> Result<Mysqld> {
    let donor = Mysqld::builder().name("donor").server(server).plugin(plugin).start()?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    replica::make_source(&donor)?;
    Ok(donor)
}

releases! {
    from_stock_and_ours;
    mysql_8_0_19: "8.0.19";
    mysql_8_0_36: "8.0.36";
    #[ignore = "make compat"]
    mysql_8_0: "8.0";
    mysql_8_4: "8.4";
    mysql_9_7: "9.7";
}

fn from_stock_and_ours(server: &'static Server) -> Result<()> {
    for plugin in [Plugin::Stock, Plugin::Ours] {
        let donor = donor(server, plugin)?;
        let expected = Fingerprint::read(&mut donor.session()?)?;
        let directory = donor.scratch("pulled");
        let mysqld = mysqld_program(server, donor.data_dir().parent().unwrap())?;
        let pulled = Tool::pull(&donor, &directory).arg("--json").arg("--prepare").arg(&mysqld);
        let report = pulled.run()?.ok()?.report()?;
        let gtids: String = donor.session()?.one("SELECT @@global.gtid_executed")?;
        ensure!(report["coordinates"]["gtid_executed"] == gtids.replace('\n', ""), "{report}");
        ensure!(!directory.join(".mysql-clone").exists(), "the state is left");
        is_whole(server, &directory, &expected)?;
    }
    Ok(())
}

releases! {
    compressed_by_the_server;
    compressed_8_0_19: "8.0.19";
    compressed_9_7: "9.7";
}

/// A donor with MySQL's own plugin, whose server compresses the connections.
fn compressed_by_the_server(server: &'static Server) -> Result<()> {
    let donor = donor(server, Plugin::Stock)?;
    let expected = Fingerprint::read(&mut donor.session()?)?;
    for (ssl_mode, threads) in [("DISABLED", "1"), ("REQUIRED", "4")] {
        let directory = donor.scratch(ssl_mode);
        let pull = || {
            let tool = Tool::pull(&donor, &directory).args(["--json", "--compress", "zstd5"]);
            tool.args(["--ssl-mode", ssl_mode, "--threads", threads])
        };
        let is_killed = ssl_mode == "DISABLED";
        if is_killed {
            let mut child = pull().args(["--max-rate", "2"]).start()?;
            until("the first data", Duration::from_secs(60), || {
                Ok(directory.join(".mysql-clone/journal").exists().then_some(()))
            })?;
            child.kill()?;
            child.wait()?;
        }
        let outcome = pull().run()?.ok()?;
        ensure!(is_resumed(&outcome) == is_killed, "{}", outcome.stdout);
        let report = outcome.report()?;
        let bytes = |name: &str| report[name].as_u64().context("a number");
        ensure!(bytes("network_bytes")? * 4 < bytes("bytes")?, "{report}");
        ensure!(!outcome.stdout.contains("has no effect"), "{}", outcome.stdout);
        is_whole(server, &directory, &expected)?;
    }
    // Not what the server offers: the user is told once, and nothing is compressed.
    donor.session()?.run("SET GLOBAL protocol_compression_algorithms = 'zlib,uncompressed'")?;
    for how in ["zstd1", "lz4"] {
        let directory = donor.scratch(how);
        let outcome =
            Tool::pull(&donor, &directory).args(["--json", "--compress", how]).run()?.ok()?;
        let report = outcome.report()?;
        ensure!(report["network_bytes"].as_u64() >= report["bytes"].as_u64(), "{report}");
        let told = outcome.stdout.matches(&format!("--compress={how} has no effect")).count();
        ensure!(told == 1, "told {told} times: {}", outcome.stdout);
    }
    Ok(())
}

/// A pull with write load and DDL at the donor is exactly what the donor was at the coordinates
/// that `--prepare` tells.
#[test]
fn under_load() {
    check(|| {
        let server = release()?;
        let donor = donor(server, Plugin::under_test()?)?;
        let mysqld = mysqld_program(server, donor.data_dir().parent().unwrap())?;
        for turn in 0..turns(2) {
            let directory = donor.scratch(&format!("pulled-{turn}"));
            let load = Load { ddl: turn % 2 == 1, ..Load::default() };
            let writers = Writers::start(&donor, load)?;
            writers.await_transactions(50)?;
            let tool = Tool::pull(&donor, &directory).arg("--json").arg("--prepare").arg(&mysqld);
            let report = tool.run()?.ok()?.report()?;
            prove(server, &donor, &directory, &report, writers)
                .with_context(|| format!("turn {turn}"))?;
        }
        Ok(())
    });
}

/// `kill -9` at random moments, then the same command again.
#[test]
fn killed_and_again() {
    check(|| {
        let seed = number("PULL_SEED").unwrap_or(7);
        let server = release()?;
        let plugin = Plugin::under_test()?;
        let donor = donor(server, plugin)?;
        // Our plugin sends less, and the copy must take longer than the wait for the kill.
        let rate = if plugin == Plugin::Ours { "5" } else { "25" };
        let mysqld = mysqld_program(server, donor.data_dir().parent().unwrap())?;
        let mut random = Random(seed);
        let mut resumed = 0;
        for turn in 0..turns(3) {
            let directory = donor.scratch(&format!("killed-{turn}"));
            let pull = || Tool::pull(&donor, &directory).args(["--json", "--max-rate", rate]);
            let load = Load { ddl: turn % 2 == 1, ..Load::default() };
            let writers = Writers::start(&donor, load)?;
            // The first kill may be earlier than any data.
            for kill in 0..=turn % 3 {
                let mut child = pull().start()?;
                if kill > 0 {
                    until("the first data", Duration::from_secs(60), || {
                        Ok(directory.join(".mysql-clone/journal").exists().then_some(()))
                    })?;
                }
                sleep(random.below(Duration::from_millis(2500)));
                child.kill()?;
                child.wait()?;
                if directory.join("mysql-clone.json").exists() {
                    // The pull was complete before.
                    fs::remove_dir_all(&directory)?;
                }
            }
            let outcome = pull().arg("--prepare").arg(&mysqld).run()?.ok()?;
            let goes_on = is_resumed(&outcome);
            resumed += u32::from(goes_on);
            eprintln!("turn {turn}: resumed: {goes_on}");
            prove(server, &donor, &directory, &outcome.report()?, writers)
                .with_context(|| format!("turn {turn}, seed {seed}"))?;
        }
        ensure!(resumed > 0, "no pull was resumed, seed {seed}");
        Ok(())
    });
}

/// What a killed pull has received is not sent again: at most a tenth of the bytes is.
#[test]
fn a_kill_costs_little() {
    check(|| {
        let seed = number("PULL_SEED").unwrap_or(7);
        let server = Server::locate()?;
        let donor = donor(server, Plugin::Stock)?;
        fixture::flush(&donor)?;
        let sent = || -> Result<u64> {
            let rows = "SHOW GLOBAL STATUS LIKE 'Bytes_sent'";
            let (_, bytes): (String, u64) = donor.session()?.one(rows)?;
            Ok(bytes)
        };
        let pull = |name: &str| {
            Tool::pull(&donor, &donor.scratch(name)).args(["--json", "--max-rate", "40"])
        };
        let before = sent()?;
        pull("whole").run()?.ok()?;
        let whole = sent()? - before;
        let mut random = Random(seed);
        for turn in 0..turns(1) {
            let name = format!("killed-{turn}");
            let before = sent()?;
            let mut child = pull(&name).start()?;
            sleep(Duration::from_millis(700) + random.below(Duration::from_millis(1500)));
            child.kill()?;
            child.wait()?;
            let outcome = pull(&name).run()?.ok()?;
            let ratio = (sent()? - before) as f64 / whole as f64;
            eprintln!("turn {turn}: {ratio:.3} of the bytes, resumed: {}", is_resumed(&outcome));
            ensure!(is_resumed(&outcome), "turn {turn}, seed {seed}: {outcome:?}");
            ensure!(ratio < 1.1, "turn {turn}, seed {seed}: {ratio} of {whole} bytes");
        }
        Ok(())
    });
}

/// What cannot work is refused before anything is written, with an exit code and a remedy.
#[test]
fn refusals() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(server, Plugin::Stock)?;
        let directory = donor.scratch("pulled");

        let wrong = Account::new("clone_donor", "wrong");
        Tool::pull_as(&wrong, &donor, &directory).run()?.fails(5, "1045")?;
        donor.session()?.run("CREATE USER plain IDENTIFIED BY 'plain-secret'")?;
        let plain = Account::new("plain", "plain-secret");
        Tool::pull_as(&plain, &donor, &directory).run()?.fails(3, "Grant BACKUP_ADMIN")?;
        ensure!(!directory.exists(), "something was written");

        fs::create_dir(&directory)?;
        fs::write(directory.join("ibdata1"), "mine")?;
        Tool::pull(&donor, &directory).run()?.fails(3, "is not empty")?;
        ensure!(fs::read(directory.join("ibdata1"))? == b"mine", "a file was changed");
        fs::remove_dir_all(&directory)?;

        Tool::pull(&donor, &directory).arg("--check").run()?.ok()?;
        ensure!(!directory.exists(), "--check has written");

        donor.session()?.run("CREATE TABLE shop.myisam (id INT) ENGINE = MyISAM")?;
        donor.session()?.run("GRANT SELECT, PROCESS ON *.* TO clone_donor")?;
        let checked = Tool::pull(&donor, &directory).arg("--check").run()?.ok()?;
        ensure!(checked.stderr.contains("will be empty: shop.myisam (MyISAM)"), "{checked:?}");
        ensure!(!checked.stderr.contains("not checked"), "{checked:?}");
        Ok(())
    });
}

/// Two pulls into one directory: the second is refused. A pull that a signal ends can be resumed,
/// or discarded.
#[test]
fn interrupted_and_discarded() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(server, Plugin::Stock)?;
        let directory = donor.scratch("pulled");
        let slow = || Tool::pull(&donor, &directory).args(["--json", "--max-rate", "20"]);
        let child = slow().start()?;
        until("data", Duration::from_secs(60), || {
            Ok(directory.join("#clone").exists().then_some(()))
        })?;
        Tool::pull(&donor, &directory).run()?.fails(3, "another mysql-clone is working there")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process")?;
        kill_process(pid, Signal::TERM)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.code() == Some(7), "{output:?}");
        ensure!(String::from_utf8_lossy(&output.stderr).contains("goes on where it stopped"));

        // A server does not take the rest for data.
        ensure!(directory.join("#clone/#status_in_progress").exists(), "no mark");
        let elsewhere = Tool::new(["pull", "other@127.0.0.2:1", "--datadir"]).arg(&directory);
        elsewhere.run()?.fails(4, "Can't connect")?;
        Tool::new(["pull", "--discard", "--datadir"]).arg(&directory).run()?.ok()?;
        ensure!(!directory.exists(), "something is left");
        Tool::new(["pull", "--discard", "--datadir"])
            .arg(&directory)
            .run()?
            .fails(3, "holds no")?;
        Ok(())
    });
}

/// A disk that is too small, and one that fills up during the copy: an exit code of its own, and
/// nothing is left.
#[test]
fn full_disk() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(server, Plugin::Stock)?;
        let Some(disk) = SmallDisk::mount(64 << 20)? else {
            skip!("not allowed to mount a tmpfs");
        };
        let directory = disk.path().join("pulled");
        Tool::pull(&donor, &directory).run()?.fails(6, "3873")?;
        ensure!(!directory.exists(), "something is left");
        donor.session()?.run("GRANT PROCESS ON *.* TO clone_donor")?;
        Tool::pull(&donor, &directory).run()?.fails(3, "bytes free")?;
        ensure!(!directory.exists(), "something was written");

        let Some(disk) = SmallDisk::mount(400 << 20)? else {
            skip!("not allowed to mount a tmpfs");
        };
        fills_up(&donor, disk.path())?;
        // A disk that is written past the operating system's cache.
        match Volume::xfs(&std::env::temp_dir(), 500) {
            Ok(volume) => fills_up(&donor, volume.path()),
            Err(error) => skip!("{error:#}"),
        }
    });
}

/// The disk of `parent` fills up during the copy.
fn fills_up(donor: &Mysqld, parent: &Path) -> Result<()> {
    let directory = parent.join("pulled");
    let child = Tool::pull(donor, &directory).args(["--max-rate", "20"]).start()?;
    until("data", Duration::from_secs(60), || {
        Ok(directory.join(".mysql-clone/journal").exists().then_some(()))
    })?;
    fill_disk(parent)?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(6), "{output:?}");
    ensure!(stderr.contains("No space left on device"), "{stderr}");
    ensure!(!directory.exists(), "something is left");
    // The donor does not wait for a recipient that has failed.
    relieve_disk(parent)?;
    Tool::pull(donor, &directory).run()?.ok()?;
    Ok(())
}

/// The donor ended the clone of a pull that was killed: the pull says so, and begins anew.
#[test]
fn after_the_donors_window() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(server, Plugin::Stock)?;
        donor.session()?.run("SET GLOBAL clone_donor_timeout_after_network_failure = 0")?;
        let expected = Fingerprint::read(&mut donor.session()?)?;
        let directory = donor.scratch("pulled");
        let mut child = Tool::pull(&donor, &directory).args(["--max-rate", "20"]).start()?;
        until("data", Duration::from_secs(60), || {
            Ok(directory.join("ibdata1").exists().then_some(()))
        })?;
        sleep(Duration::from_millis(500));
        child.kill()?;
        child.wait()?;
        clone::await_donor_idle(&donor, Duration::from_secs(30))?;
        let outcome = Tool::pull(&donor, &directory).run()?.ok()?;
        ensure!(outcome.stderr.contains("The copy begins anew"), "{outcome:?}");
        holds(&boot(server, &directory, &[])?, &expected)
    });
}

/// Tablespaces outside of the donor's data directory, partitions elsewhere, page compression, other
/// page sizes, several system files, undo tablespaces: a server with the option file of the pull
/// opens them.
#[test]
fn unusual_files() {
    check(|| {
        let server = Server::locate()?;
        let (outside, pulled) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let place = outside.path().to_string_lossy().into_owned();
        let donor = Mysqld::builder()
            .name("donor")
            .plugin(Plugin::Stock)
            .initialise_with("--innodb-page-size=8k")
            .initialise_with("--innodb-data-file-path=ibdata1:12M;ibdata2:16M:autoextend")
            .initialise_with("--lower-case-table-names=1")
            .option(format!("--innodb-directories={place}"))
            .start()?;
        clone::make_donor(&donor)?;
        donor.session()?.run_all([
            "CREATE DATABASE d",
            "CREATE TABLE d.packed (id INT PRIMARY KEY, t TEXT) COMPRESSION = 'zlib'",
            "CREATE TABLE d.zip (id INT PRIMARY KEY, t TEXT) ROW_FORMAT = COMPRESSED",
            &format!("CREATE TABLE d.far (id INT PRIMARY KEY, t TEXT) DATA DIRECTORY = '{place}'"),
            &format!(
                "CREATE TABLE d.parts (id INT PRIMARY KEY, t TEXT) PARTITION BY HASH (id) \
                 (PARTITION p0, PARTITION p1 DATA DIRECTORY = '{place}')"
            ),
            &format!("CREATE TABLESPACE general ADD DATAFILE '{place}/general.ibd'"),
            "CREATE TABLE d.general (id INT PRIMARY KEY, t TEXT) TABLESPACE general",
            "CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'",
        ])?;
        for table in ["packed", "zip", "far", "parts", "general"] {
            donor.session()?.run(format!(
                "INSERT INTO d.{table} WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 \
                 FROM n WHERE id < 900) SELECT id, REPEAT(SHA2(id, 256), 20) FROM n"
            ))?;
        }
        let expected = checksums(&donor)?;
        let directory = pulled.path().join("data");
        Tool::pull(&donor, &directory)
            .arg("--refuse-outside")
            .run()?
            .fails(3, "outside of the donor's data directory")?;
        ensure!(!directory.exists(), "something is left");
        Tool::pull(&donor, &directory).run()?.ok()?;
        // The donor's own files must not be what the copy works with.
        drop(donor);
        fs::remove_dir_all(outside.path())?;
        let options = fs::read_to_string(directory.join("mysql-clone.cnf"))?;
        let copy = directory.with_extension("moved");
        fs::rename(&directory, &copy)?;
        let options: Vec<String> = options
            .lines()
            .filter(|line| !line.starts_with(['#', '[']) && !line.starts_with("datadir"))
            .map(|line| format!("--{}", line.replacen(" = ", "=", 1)))
            .map(|line| line.replace(&*directory.to_string_lossy(), "./"))
            .collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let copy = boot(server, &copy, &options)?;
        // Not the definitions: a DATA DIRECTORY is elsewhere in the copy.
        ensure!(checksums(&copy)? == expected, "{:?} {expected:?}", checksums(&copy)?);
        verify::assert_sound(&copy)
    });
}

/// The checksum of each table of the schema `d`.
fn checksums(server: &Mysqld) -> Result<Vec<(String, Option<u64>)>> {
    server.session()?.rows("CHECKSUM TABLE d.packed, d.zip, d.far, d.parts, d.general")
}

/// Proves that the copy is the donor at the coordinates of the report.
fn prove(
    server: &'static Server,
    donor: &Mysqld,
    directory: &Path,
    report: &Value,
    writers: Writers,
) -> Result<()> {
    let copy = boot(server, directory, &["--server-id=2"])?;
    is_exact(&copy, donor, report, writers)
}

/// Whether the pull went on with one that was interrupted.
fn is_resumed(outcome: &Outcome) -> bool {
    outcome.stdout.contains("going on with the interrupted pull")
        && !outcome.stdout.contains("begins anew")
}

/// The servers of a test: those of `PULL_RELEASE`, or 9.7.
fn release() -> Result<&'static Server> {
    match std::env::var("PULL_RELEASE") {
        Ok(release) => Server::release(&release),
        Err(_) => Server::locate(),
    }
}

/// How often a test repeats itself: `PULL_TURNS`, or so often in CI.
fn turns(few: u64) -> u64 {
    number("PULL_TURNS").unwrap_or(few)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Numbers that a seed decides (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        limit.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
