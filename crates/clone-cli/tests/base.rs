// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull --base` from real servers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::server::Server;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::volume::Volume;
use clone_testkit::{Mysqld, Plugin, check, clone, fixture, hosts, skip, until};
use serde_json::Value;
use support::{Tool, boot, holds, is_whole};

/// Bytes of a page.
const PAGE: usize = 16 << 10;

/// A donor with some 60 MiB in a table whose pages do not shrink, and a smaller table.
fn donor(plugin: Plugin) -> Result<Mysqld> {
    let donor = Mysqld::builder().name("donor").plugin(plugin).start()?;
    clone::make_donor(&donor)?;
    donor.session()?.run_all([
        "CREATE DATABASE d",
        "CREATE TABLE d.large (id INT PRIMARY KEY, k INT, c VARBINARY(400))",
        "CREATE TABLE d.small (id INT PRIMARY KEY, c VARBINARY(400))",
        "SET SESSION cte_max_recursion_depth = 1000000",
        "INSERT INTO d.large WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n \
         WHERE id < 140000) SELECT id, 0, RANDOM_BYTES(400) FROM n",
        "INSERT INTO d.small SELECT id, c FROM d.large WHERE id < 5000",
    ])?;
    settle(&donor)?;
    Ok(donor)
}

/// All pages are on the disk, so that clones send no more than what was changed.
fn settle(donor: &Mysqld) -> Result<()> {
    fixture::flush(donor)
}

/// Changes a page in 50 of the large table.
fn change(donor: &Mysqld) -> Result<()> {
    donor.session()?.run("UPDATE d.large SET k = k + 1 WHERE id % 1750 = 0")?;
    settle(donor)
}

fn fingerprint(donor: &Mysqld) -> Result<Fingerprint> {
    Fingerprint::read(&mut donor.session()?)
}

/// A pull with a base. `--compress off`: what is not sent is not sent because of the base.
fn pull(donor: &Mysqld, directory: &Path, base: &Path) -> Tool {
    let plain = Tool::pull(donor, directory).args(["--json", "--compress", "off"]);
    plain.arg("--base").arg(base)
}

fn first(donor: &Mysqld, name: &str) -> Result<(PathBuf, Value)> {
    let directory = donor.scratch(name);
    let tool = Tool::pull(donor, &directory).args(["--json", "--compress", "off"]);
    Ok((directory, tool.run()?.ok()?.report()?))
}

fn number(report: &Value, name: &str) -> f64 {
    report.pointer(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// Of a donor that has changed 2 % of its pages, renamed a table and made a new one, only that is
/// sent. The copy has all.
#[test]
fn only_what_differs_is_sent() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(Plugin::Ours)?;
        let (base, whole) = first(&donor, "base")?;
        donor.session()?.run_all([
            "CREATE DATABASE e",
            "RENAME TABLE d.large TO e.moved",
            "CREATE TABLE d.large LIKE d.small",
            "INSERT INTO d.large SELECT * FROM d.small WHERE id < 100",
        ])?;
        donor.session()?.run("UPDATE e.moved SET k = k + 1 WHERE id % 1750 = 0")?;
        settle(&donor)?;
        let expected = fingerprint(&donor)?;
        let directory = donor.scratch("pulled");
        let report = pull(&donor, &directory, &base).arg("--verify").run()?.ok()?.report()?;
        let ratio = number(&report, "/network_bytes") / number(&whole, "/network_bytes");
        let used = number(&report, "/base/used_bytes") / number(&report, "/bytes");
        eprintln!("{ratio:.4} of the bytes on the network, {used:.3} of the data from the base");
        ensure!(ratio < 0.08, "{report}\n{whole}");
        ensure!(used > 0.9, "{report}");
        // The base stays as it was, and can be one again.
        let again = donor.scratch("again");
        let report = pull(&donor, &again, &base).run()?.ok()?.report()?;
        ensure!(number(&report, "/base/used_bytes") > 0.0, "{report}");
        fs::remove_dir_all(&base)?;
        for copy in [&directory, &again] {
            is_whole(server, copy, &expected)?;
        }
        let log = donor.log()?;
        ensure!(log.contains("MiB equal and not sent"), "{log}");
        Ok(())
    });
}

/// With each donor a second copy takes little space where the file system can share it.
#[test]
fn a_second_copy_takes_little_space() {
    check(|| {
        let volume = match Volume::xfs(&std::env::temp_dir(), 1024) {
            Ok(volume) => volume,
            Err(error) => skip!("{error:#}"),
        };
        let server = Server::locate()?;
        for plugin in [Plugin::Ours, Plugin::Stock] {
            let donor = donor(plugin)?;
            let (base, copy) = (volume.path().join("base"), volume.path().join("copy"));
            let empty = volume.used()?;
            let tool = Tool::pull(&donor, &base).args(["--json", "--compress", "off"]);
            let whole = tool.run()?.ok()?.report()?;
            change(&donor)?;
            let expected = fingerprint(&donor)?;
            let before = volume.used()?;
            let report = pull(&donor, &copy, &base).run()?.ok()?.report()?;
            let more = (volume.used()? - before) as f64 / (before - empty) as f64;
            let network = number(&report, "/network_bytes") / number(&whole, "/network_bytes");
            eprintln!("{plugin:?}: {more:.4} of the space, {network:.4} of the network");
            ensure!(more < 0.1, "{plugin:?}: {more}\n{report}");
            ensure!(number(&report, "/base/shared_bytes") > 0.9 * number(&report, "/bytes"));
            ensure!((network < 0.08) == (plugin == Plugin::Ours), "{plugin:?}: {network}");
            fs::remove_dir_all(&base)?;
            // The server's directory is moved to another file system.
            let moved = donor.scratch("copy");
            let status = Command::new("cp").arg("-a").args([&copy, &moved]).status()?;
            ensure!(status.success(), "cp failed");
            let booted = boot(server, &moved, &[])?;
            holds(&booted, &expected)?;
            verify::assert_sound(&booted)?;
            fs::remove_dir_all(&copy)?;
        }
        Ok(())
    });
}

/// The figures of docs/pull.md: a donor and a recipient at two hosts with a link of 1 Gbit/s
/// between them, and XFS. `BENCH_TOOL` is the program, `BASE_MIB` the size of the data,
/// `BASE_TURNS` how often each is measured.
#[test]
#[ignore = "a measurement"]
fn the_figures() {
    check(|| {
        let tool = std::env::var_os("BENCH_TOOL").context("BENCH_TOOL")?;
        let mib = std::env::var("BASE_MIB").map_or(Ok(400), |mib| mib.parse::<u32>())?;
        let turns = std::env::var("BASE_TURNS").map_or(Ok(3), |turns| turns.parse::<u32>())?;
        let volume = Volume::xfs(&std::env::temp_dir(), 3 * mib + 1024)?;
        let [here, there] = hosts::pair()?;
        there.limit(1000)?;
        let donor = Mysqld::builder().name("donor").plugin(Plugin::Ours).at(&there);
        let donor = donor.option("--innodb-buffer-pool-size=1G").start()?;
        clone::make_donor(&donor)?;
        let rows = mib * 4700;
        donor.session()?.run_all([
            "CREATE DATABASE d",
            "CREATE TABLE d.large (id INT PRIMARY KEY, k INT, c CHAR(120), pad CHAR(60)) \
             CHARACTER SET latin1",
            "SET SESSION cte_max_recursion_depth = 100000000",
            &format!(
                "INSERT INTO d.large WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 \
                 FROM n WHERE id < {rows}) SELECT id, 0, CONCAT_WS('-', {r}, {r}, {r}, {r}, {r}, \
                 {r}, {r}, {r}), CONCAT_WS('-', {r}, {r}, {r}) FROM n",
                r = "FLOOR(1e9 * RAND())"
            ),
        ])?;
        settle(&donor)?;
        let (base, copy) = (volume.path().join("base"), volume.path().join("copy"));
        let run = |directory: &Path, more: &[&Path]| -> Result<(Value, f64)> {
            let mut inner = Command::new(&tool);
            inner.args(["pull", "--json", "--datadir"]).arg(directory).args(more);
            inner.arg(format!("clone_donor@{}:{}", donor.address(), donor.port()));
            let mut command = here.at(&inner);
            let begun = Instant::now();
            let output = command.env("MYSQL_PWD", clone::donor_account().password).output()?;
            let seconds = begun.elapsed().as_secs_f64();
            ensure!(output.status.success(), "{output:?}");
            let stdout = String::from_utf8(output.stdout)?;
            let last: Value = serde_json::from_str(stdout.lines().last().context("no event")?)?;
            Ok((last["report"].clone(), seconds))
        };
        let empty = volume.used()?;
        run(&base, &[])?;
        let one = (volume.used()? - empty) as f64;
        donor.session()?.run(format!("UPDATE d.large SET k = 1 WHERE id % {} = 0", 75 * 50))?;
        settle(&donor)?;
        for compress in ["auto", "off"] {
            let compress = [Path::new("--compress"), Path::new(compress)];
            let mut found: [Vec<f64>; 4] = Default::default();
            for _ in 0..turns {
                let (whole, plain) = run(&copy, &compress)?;
                fs::remove_dir_all(&copy)?;
                // XFS gives space back some time after a file is removed.
                std::thread::sleep(Duration::from_secs(3));
                let before = volume.used()?;
                let with = [&compress[..], &[Path::new("--base"), base.as_path()]].concat();
                let (report, seconds) = run(&copy, &with)?;
                let space = (volume.used()? as f64 - before as f64) / one;
                eprintln!("{report}");
                let pages = |path: &Path| fs::read(path.join("d/large.ibd"));
                let (old, new) = (pages(&base)?, pages(&copy)?);
                let count = new.chunks(PAGE).zip(old.chunks(PAGE)).filter(|(a, b)| a != b).count();
                let changed = count as f64 / (new.len() / PAGE) as f64;
                let bytes = number(&report, "/network_bytes") / number(&whole, "/network_bytes");
                eprintln!(
                    "{:?}: {changed:.4} of the pages differ; whole {plain:.2} s, base {seconds:.2} s",
                    compress[1]
                );
                for (all, one) in found.iter_mut().zip([bytes, seconds / plain, space, changed]) {
                    all.push(one);
                }
                fs::remove_dir_all(&copy)?;
            }
            let medians = found.map(|mut all| {
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            });
            let [bytes, time, space, changed] = medians;
            eprintln!(
                "{:?}: {changed:.3} changed: {bytes:.3} of the bytes, {time:.3} of the time, \
                 {space:.3} of the space",
                compress[1]
            );
        }
        Ok(())
    });
}

/// Pages of a base that are damaged, files that are cut, empty or gone: the copy is right.
#[test]
fn a_damaged_base_does_no_harm() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(Plugin::Ours)?;
        let (base, _) = first(&donor, "base")?;
        let large = File::options().write(true).open(base.join("d/large.ibd"))?;
        for page in (1..2000).step_by(7) {
            large.write_all_at(&[0xaa; 100], page * PAGE as u64 + 3000)?;
        }
        File::options().write(true).open(base.join("ibdata1"))?.set_len(5 * PAGE as u64 + 1)?;
        fs::write(base.join("d/small.ibd"), "")?;
        fs::remove_file(base.join("mysql.ibd"))?;
        let expected = fingerprint(&donor)?;
        let directory = donor.scratch("pulled");
        let report = pull(&donor, &directory, &base).arg("--verify").run()?.ok()?.report()?;
        ensure!(number(&report, "/base/used_bytes") > 10e6, "{report}");
        is_whole(server, &directory, &expected)
    });
}

/// Starts a pull that has read its base, and waits at the donor until the result is dropped.
fn held(donor: &Mysqld, directory: &Path, base: &Path) -> Result<(Child, impl FnOnce())> {
    let mut reader = donor.session()?;
    reader.run_all(["BEGIN", "SELECT COUNT(*) FROM d.small"])?;
    let mut ddl = donor.session()?;
    let waits = std::thread::spawn(move || ddl.run("ALTER TABLE d.small ADD COLUMN x INT"));
    let state = |text: &str| {
        until(text, Duration::from_secs(60), || {
            let query = format!(
                "SELECT COUNT(*) FROM performance_schema.processlist WHERE STATE LIKE '%{text}%'"
            );
            Ok((donor.session()?.one::<u64>(query)? > 0).then_some(()))
        })
    };
    state("table metadata lock")?;
    let child = pull(donor, directory, base).arg("--block-ddl").start()?;
    state("backup lock")?;
    let release = move || {
        reader.run("ROLLBACK").unwrap();
        waits.join().unwrap().unwrap();
    };
    Ok((child, release))
}

/// A base that changes after it was read: the pull says so, and nothing of the copy stays.
#[test]
fn a_base_that_changes_is_noticed() {
    check(|| {
        let donor = donor(Plugin::Ours)?;
        let directory = donor.scratch("pulled");
        let (base, _) = first(&donor, "base")?;
        let (child, release) = held(&donor, &directory, &base)?;
        let large = File::options().write(true).open(base.join("d/large.ibd"))?;
        large.write_all_at(b"changed", 1234 * PAGE as u64 + 5000)?;
        release();
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{output:?}");
        ensure!(stderr.contains("The base has changed or is damaged"), "{stderr}");
        ensure!(stderr.contains("d/large.ibd"), "{stderr}");
        ensure!(!directory.exists(), "something is left");
        // A file that is gone is as bad.
        let (child, release) = held_again(&donor, &directory, &base)?;
        fs::remove_file(base.join("d/large.ibd"))?;
        release();
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && stderr.contains("The base has changed"), "{stderr}");
        // The donor can be cloned at once.
        clone::await_donor_idle(&donor, Duration::from_secs(30))?;
        pull(&donor, &directory, &base).run()?.ok()?;
        Ok(())
    });
}

/// As [`held`], once more.
fn held_again(donor: &Mysqld, directory: &Path, base: &Path) -> Result<(Child, impl FnOnce())> {
    clone::await_donor_idle(donor, Duration::from_secs(30))?;
    donor.session()?.run("ALTER TABLE d.small DROP COLUMN x")?;
    held(donor, directory, base)
}

/// Killed and started again, with and without the base: the copy is right.
#[test]
fn killed_and_again() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(Plugin::Ours)?;
        let (base, _) = first(&donor, "base")?;
        // Half of the pages differ, so that the copy takes some time.
        donor.session()?.run("UPDATE d.large SET k = k + 1 WHERE id < 70000")?;
        settle(&donor)?;
        let expected = fingerprint(&donor)?;
        for (with, without) in [(true, false), (false, true)] {
            let directory = donor.scratch(&format!("killed-{with}-{without}"));
            let mut child = pull(&donor, &directory, &base).args(["--max-rate", "8"]).start()?;
            until("data", Duration::from_secs(60), || {
                let journal = fs::metadata(directory.join(".mysql-clone/journal"));
                Ok(journal.is_ok_and(|journal| journal.len() > 2000).then_some(()))
            })?;
            std::thread::sleep(Duration::from_millis(800));
            child.kill()?;
            child.wait()?;
            let plain = Tool::pull(&donor, &directory).args(["--json", "--compress", "off"]);
            let tool = if without { plain } else { pull(&donor, &directory, &base) };
            let outcome = tool.run()?.ok()?;
            let is_resumed = outcome.stdout.contains("going on with the interrupted pull")
                && !outcome.stdout.contains("begins anew");
            ensure!(is_resumed, "{outcome:?}");
            if with {
                let report = outcome.report()?;
                ensure!(number(&report, "/base/used_bytes") > 5e6, "{report}");
            }
            is_whole(server, &directory, &expected)?;
        }
        Ok(())
    });
}

/// What cannot be a base is refused before anything is written. A base of another server is of no
/// use, and does no harm.
#[test]
fn other_directories() {
    check(|| {
        let server = Server::locate()?;
        let donor = donor(Plugin::Ours)?;
        let directory = donor.scratch("pulled");
        let refused = |base: &Path, text: &str| -> Result<()> {
            Tool::pull(&donor, &directory).arg("--base").arg(base).run()?.fails(3, text)?;
            ensure!(!directory.exists(), "something was written");
            Ok(())
        };
        refused(donor.data_dir(), "a server that runs changes its files")?;
        refused(&donor.scratch("nowhere"), "No such file or directory")?;
        refused(&directory.with_extension(""), "No such file or directory")?;
        let empty = donor.scratch("empty");
        fs::create_dir(&empty)?;
        refused(&empty, "no tablespaces of InnoDB")?;

        let pages = "--innodb-page-size=8k";
        let mut small = Mysqld::builder().name("small").initialise_with(pages).start()?;
        small.stop()?;
        refused(small.data_dir(), "has pages of 8192 bytes")?;

        let mut other = Mysqld::builder().name("other").start()?;
        other.stop()?;
        let expected = fingerprint(&donor)?;
        let tool = Tool::pull(&donor, &directory).args(["--verify", "--base"]);
        let outcome = tool.arg(other.data_dir()).run()?.ok()?;
        ensure!(outcome.stderr.contains("is of the server"), "{outcome:?}");
        is_whole(server, &directory, &expected).context("base of another server")
    });
}
