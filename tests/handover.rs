// SPDX-License-Identifier: GPL-2.0-only

//! Clones between two servers of one machine, where the donor hands its open files over and the recipient copies them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::Result;
use clone_testkit::clone::{self, Running, Stage, Statement, Tls};
use clone_testkit::faults::SmallDisk;
use clone_testkit::proxy::{How, Proxy, Target};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, check, fixture, verify};

fn donor() -> Result<Mysqld> {
    fixture::donor_from(fixture::neighbour("donor")?)
}

fn recipient(donor: &Mysqld) -> Result<Mysqld> {
    fixture::recipient_from(fixture::neighbour("recipient")?, donor)
}

/// What has to be a file's is: pages and redo that are not in files yet still cross the connection, in the stages after FILE COPY.
fn assert_handed_over(stages: &[Stage]) {
    let copy = clone::file_copy(stages);
    assert!(copy.data > 0 && copy.network < copy.data / 20 + (64 << 10), "{copy:?}");
}

/// Whatever the connection is: next to nothing of files is on it, and so nothing to encrypt or to compress.
#[test]
fn files_do_not_cross_the_connection() {
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor)?;
        for (tls, compressed) in
            [(Tls::Disabled, "OFF"), (Tls::Required, "OFF"), (Tls::Disabled, "ON")]
        {
            recipient
                .session()?
                .run(format!("SET GLOBAL clone_enable_compression = {compressed}"))?;
            let directory = recipient.scratch("clone");
            let statement = Statement::instance(&donor).into_directory(&directory).tls(tls);
            let report = clone::run(&mut recipient, &statement)?;
            assert_handed_over(&report.stages);
            let clone = fixture::server("clone")?.adopt(&directory).start()?;
            verify::assert_sound(&clone)?;
            verify::assert_equal(&donor, &clone)?;
        }
        Ok(())
    });
}

#[test]
fn either_side_can_do_without() {
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor)?;
        for side in 0..2 {
            let server = if side == 0 { &donor } else { &recipient };
            server.session()?.run("SET GLOBAL clone_file_handover = OFF")?;
            let directory = recipient.scratch("clone");
            let statement = Statement::instance(&donor).into_directory(&directory);
            let report = clone::run(&mut recipient, &statement)?;
            // Most of a new server are zeros, which do not cross it.
            assert!(report.network() > report.data() / 8, "{:?}", report.stages);
            fs::remove_dir_all(&directory)?;
            let server = if side == 0 { &donor } else { &recipient };
            server.session()?.run("SET GLOBAL clone_file_handover = ON")?;
        }
        Ok(())
    });
}

/// Handing over a new table of 112 KiB takes longer than sending the 6 KiB of it that are not zeros. Here both servers use the cache.
#[test]
fn short_blocks_are_sent_without_their_zeros() {
    check(|| {
        const TABLES: u64 = 200;
        let cached = |name| -> Result<_> {
            Ok(fixture::neighbour(name)?.option("--innodb-flush-method=fsync"))
        };
        let donor = fixture::donor_from(cached("donor")?)?;
        let mut recipient = fixture::recipient_from(cached("recipient")?, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let before = clone::run(&mut recipient, &statement)?;
        fs::remove_dir_all(&directory)?;
        donor.session()?.run_all([
            "CREATE DATABASE small",
            &*format!("CREATE TABLE small.t (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS {TABLES}"),
            "FLUSH TABLES small.t FOR EXPORT",
        ])?;
        let report = clone::run(&mut recipient, &statement)?;
        let [before, after] =
            [before, report].map(|report| clone::file_copy(&report.stages).network);
        let network = after.saturating_sub(before) / TABLES;
        // A file that is handed over has its name and two messages.
        assert!(
            (2 << 10..16 << 10).contains(&network),
            "{after} bytes with tables, {before} without"
        );
        let clone = fixture::server("clone")?.adopt(&directory).start()?;
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

/// Each block that is handed over costs messages, so they are long; but not longer than a packet may be, should one have to be sent.
#[test]
fn blocks_are_as_long_as_the_recipient_would_take_them() {
    check(|| {
        let donor = donor()?;
        let mut recipient = recipient(&donor)?;
        let mut network = |max_packet: &str| -> Result<u64> {
            recipient.session()?.run(format!("SET GLOBAL max_allowed_packet = {max_packet}"))?;
            let directory = recipient.scratch("clone");
            let statement = Statement::instance(&donor).into_directory(&directory);
            let report = clone::run(&mut recipient, &statement)?;
            assert_handed_over(&report.stages);
            fs::remove_dir_all(&directory)?;
            Ok(clone::file_copy(&report.stages).network)
        };
        let mut both = || -> Result<_> { Ok([network("64 << 20")?, network("4 << 20")?]) };
        let before = both()?;
        donor.session()?.run_all([
            "CREATE DATABASE wide",
            "CREATE TABLE wide.long_rows (id INT PRIMARY KEY, body LONGBLOB)",
            "INSERT INTO wide.long_rows WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s WHERE id < 16) \
             SELECT id, REPEAT('long', 1 << 20) FROM s",
        ])?;
        let after = both()?;
        // The table has 48 blocks more of 1 MiB than of 4 MiB, and each has a descriptor and a head.
        let [long, short] = [after[0] - before[0], after[1] - before[1]];
        assert!(short > long + 48 * 50, "{long} bytes for blocks of 4 MiB, {short} of 1 MiB");
        Ok(())
    });
}

/// The blocks are read while pages are written and tables come and go, by one task and by several, with the operating system's
/// cache and without it.
#[test]
fn exact_under_writes_and_ddl() {
    check(|| {
        for (flush, threads) in [("O_DIRECT", 1), ("fsync", 8)] {
            let option = format!("--innodb-flush-method={flush}");
            let donor = fixture::donor_from(fixture::neighbour("donor")?.option(&*option))?;
            let builder = fixture::neighbour("recipient")?
                .option(option)
                .option(format!("--clone-max-concurrency={threads}"))
                .option("--clone-autotune-concurrency=OFF");
            let mut recipient = fixture::recipient_from(builder, &donor)?;
            let writers =
                Writers::start(&donor, Load { threads: 4, ddl: true, ..Load::default() })?;
            writers.await_transactions(50)?;
            let report = clone::run(&mut recipient, &Statement::instance(&donor))?;
            assert_handed_over(&report.stages);
            replica::assert_exact(&recipient, &donor, writers, &report.status, StartFrom::Gtid)?;
        }
        Ok(())
    });
}

#[test]
fn kills_at_either_end() {
    check(|| {
        let donor = donor()?;
        let recipient = recipient(&donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        for at_donor in [false, true] {
            fixture::slow_down(&recipient)?;
            let running = Running::start_copying(&recipient, &statement)?;
            // The tables count once a second.
            sleep(Duration::from_millis(1500));
            let began = Instant::now();
            if at_donor {
                let mut session = donor.session()?;
                let id: u32 = session.one(
                    "SELECT MIN(ID) FROM performance_schema.processlist WHERE USER = 'clone_donor'",
                )?;
                session.run(format!("KILL QUERY {id}"))?;
            } else {
                running.kill_query(&recipient)?;
            }
            let error = running.failure()?;
            let expected = if at_donor { 3862 } else { 1317 };
            assert_eq!(error.number, expected, "{error}");
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            assert_handed_over(&clone::progress(&mut recipient.session()?)?);
            fs::remove_dir_all(&directory)?;
            fixture::speed_up(&recipient)?;
            fixture::assert_clones(&recipient, &donor)?;
        }
        Ok(())
    });
}

/// The connections break while donors wait for the recipient to copy a block: neither waits for the other, and the clone goes on.
#[test]
fn connections_that_break() {
    check(|| {
        let donor = donor()?;
        let builder = fixture::neighbour("recipient")?
            .option("--clone-autotune-concurrency=OFF")
            .option("--clone-max-concurrency=4");
        let mut recipient = fixture::recipient_from(builder, &donor)?;
        let proxy = Proxy::to(donor.port())?;
        clone::allow_address(&recipient, &format!("127.0.0.1:{}", proxy.port()))?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance_at("127.0.0.1", proxy.port(), clone::donor_account())
            .into_directory(&directory);
        // A thread for each 64 MiB/s of the limit, and slow when they are there.
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 256")?;
        let running = Running::start(&recipient, &statement)?;
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 2")?;
        running.await_stage(&recipient, "FILE COPY")?;
        for how in [How::Reset, How::Close] {
            sleep(Duration::from_millis(1500));
            proxy.cut(Target::All, how);
        }
        sleep(Duration::from_millis(1500));
        let began = Instant::now();
        fixture::speed_up(&recipient)?;
        running.finish()?;
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        assert_handed_over(&clone::progress(&mut recipient.session()?)?);
        let clone = fixture::server("clone")?.adopt(&directory).start()?;
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)?;
        recipient.stop()
    });
}

/// A recipient that is gone in the middle of a block keeps the donor only as long as it may come back.
#[test]
fn a_recipient_that_dies() {
    check(|| {
        let builder =
            fixture::neighbour("donor")?.option("--clone-donor-timeout-after-network-failure=0");
        let donor = fixture::donor_from(builder)?;
        let mut recipient = recipient(&donor)?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start_copying(&recipient, &statement)?;
        sleep(Duration::from_millis(500));
        recipient.kill()?;
        running.finish().unwrap_err();
        fs::remove_dir_all(&directory)?;
        recipient.start()?;
        clone::allow_donor(&recipient, &donor)?;
        fixture::assert_clones(&recipient, &donor)
    });
}

/// The recipient cannot write: its user hears of it, and the donor does not wait.
#[test]
fn a_disk_that_fills_up() {
    check(|| {
        let Some(disk) = SmallDisk::mount(400 << 20)? else {
            println!("skipped: not allowed to mount a tmpfs");
            return Ok(());
        };
        let donor = donor()?;
        let recipient = recipient(&donor)?;
        let began = Instant::now();
        let error = fixture::fill_disk_under_clone(&recipient, &donor, &disk)?;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(error.number, 1026, "{error}");
        assert!(error.message.contains("errno: 28 - No space left on device"), "{error}");
        fixture::assert_clones(&recipient, &donor)
    });
}
