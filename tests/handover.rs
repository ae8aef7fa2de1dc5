// SPDX-License-Identifier: GPL-2.0-only

//! Clones between two servers of one machine, on a file system whose files can share blocks: there
//! the donor hands its open files over, and the recipient shares their blocks. The file system is a
//! volume of the test's own.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::Result;
use clone_testkit::clone::{self, Running, Stage, Statement, Tls};
use clone_testkit::mysqld::Builder;
use clone_testkit::proxy::{How, Proxy, Target};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::server::Server;
use clone_testkit::volume::Volume;
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Plugin, check, fixture, skip, until, verify};
use tempfile::TempDir;

/// Much more than a test writes; the volume's image takes no more than that.
const VOLUME_MIB: u32 = 4096;

/// Runs `test` with a volume, or says why there is none. Servers that the test has started are gone
/// before the volume is.
fn on_volume(test: impl FnOnce(&Volume) -> Result<()>) {
    check(|| match Volume::xfs(&env::temp_dir(), VOLUME_MIB) {
        Ok(volume) => test(&volume),
        Err(error) => skip!("no file system that shares blocks: {error:#}"),
    });
}

fn server(volume: &Volume, name: &str) -> Result<Builder> {
    Ok(fixture::server(name)?.below(volume.path()))
}

fn donor(volume: &Volume) -> Result<Mysqld> {
    fixture::donor_from(server(volume, "donor")?)
}

fn recipient(volume: &Volume, donor: &Mysqld) -> Result<Mysqld> {
    fixture::recipient_from(server(volume, "recipient")?, donor)
}

/// What has to be a file's is: pages and redo that are not in files yet still cross the connection,
/// in the stages after FILE COPY.
fn assert_handed_over(stages: &[Stage]) {
    let copy = clone::file_copy(stages);
    assert!(copy.data > 0 && copy.network < copy.data / 20 + (64 << 10), "{copy:?}");
}

/// Whatever the connection is: next to nothing of files is on it, and so nothing to encrypt or to
/// compress.
#[test]
fn files_do_not_cross_the_connection() {
    on_volume(|volume| {
        let donor = donor(volume)?;
        let mut recipient = recipient(volume, &donor)?;
        for (tls, compressed) in
            [(Tls::Disabled, "OFF"), (Tls::Required, "AUTO"), (Tls::Disabled, "ZSTD1")]
        {
            recipient.session()?.run(format!("SET GLOBAL clone_compression = {compressed}"))?;
            let directory = recipient.scratch("clone");
            let statement = Statement::instance(&donor).into_directory(&directory).tls(tls);
            let report = clone::run(&mut recipient, &statement)?;
            assert_handed_over(&report.stages);
            let clone = server(volume, "clone")?.adopt(&directory).start()?;
            verify::assert_sound(&clone)?;
            verify::assert_equal(&donor, &clone)?;
        }
        Ok(())
    });
}

/// A script that starts mysqld without `/proc`. It takes the arguments of the dynamic loader or, if
/// there is none, those of mysqld.
fn without_proc(directory: &Path) -> Result<&'static Server> {
    let server = Server::locate()?;
    let begin = match &server.loader {
        Some(loader) => format!("set -- {} \"$@\"", loader.display()),
        None => "shift 2".to_owned(),
    };
    let script = directory.join("without-proc");
    let text = format!(
        "#!/bin/sh\n{begin}\nexec unshare --mount sh -c \
         'mount -t tmpfs none /proc && exec \"$@\"' sh \"$@\"\n"
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(Box::leak(Box::new(Server { loader: Some(script), ..server.clone() })))
}

#[test]
fn a_server_without_proc_says_that_it_shares_nothing() {
    check(|| {
        let unshared = Command::new("unshare").args(["--mount", "true"]).status();
        if !unshared.is_ok_and(|status| status.success()) {
            skip!("no right to a mount namespace");
        }
        let (donor, _) = fixture::pair()?;
        let directory = TempDir::new()?;
        let builder = fixture::server("recipient")?.server(without_proc(directory.path())?);
        let recipient = fixture::recipient_from(builder, &donor)?;
        if recipient.plugin() == Plugin::Ours {
            let note = "[Note] [MY-013272] [Clone] Plugin Clone reported: 'Client: \
                clone_file_handover has no effect";
            assert!(recipient.log()?.contains(note), "{}", recipient.log()?);
            assert!(!donor.log()?.contains(note));
        }
        fixture::assert_clones(&recipient, &donor)
    });
}

#[test]
fn either_side_can_do_without() {
    on_volume(|volume| {
        let donor = donor(volume)?;
        let mut recipient = recipient(volume, &donor)?;
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

/// What is handed over is shared on the disk: a clone takes next to no blocks of its own.
#[test]
fn blocks_are_shared() {
    on_volume(|volume| {
        let donor = donor(volume)?;
        let mut recipient = recipient(volume, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        // A page that is written after it was shared takes a block.
        fixture::flush(&donor)?;
        fixture::flush(&recipient)?;
        let before = volume.used()?;
        let report = clone::run(&mut recipient, &statement)?;
        let grown = volume.used()?.saturating_sub(before);
        // The redo log is made anew, and written as ever.
        let data = clone::file_copy(&report.stages).data;
        let redo = fs::read_dir(directory.join("#innodb_redo"))?
            .try_fold(0, |sum, file| Ok::<_, std::io::Error>(sum + file?.metadata()?.len()))?;
        assert!(grown < redo + data / 8, "{grown} bytes for {data} of data and {redo} of redo log");
        Ok(())
    });
}

/// Where the two file systems cannot share blocks nothing is gained by handing files over, and
/// nothing is.
#[test]
fn files_of_another_file_system_cross_the_connection() {
    on_volume(|volume| {
        let Ok(other) = Volume::xfs(&env::temp_dir(), VOLUME_MIB) else {
            skip!("one volume can be had, two cannot");
        };
        let donor = donor(volume)?;
        let mut recipient = recipient(&other, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let report = clone::run(&mut recipient, &statement)?;
        assert!(report.network() > report.data() / 8, "{:?}", report.stages);
        let clone = server(&other, "clone")?.adopt(&directory).start()?;
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)
    });
}

/// The blocks are read while pages are written and tables come and go, by one task and by several,
/// with the operating system's cache and without it.
#[test]
fn exact_under_writes_and_ddl() {
    on_volume(|volume| {
        for (flush, threads) in [("O_DIRECT", 1), ("fsync", 8)] {
            let option = format!("--innodb-flush-method={flush}");
            let donor = fixture::donor_from(server(volume, "donor")?.option(&*option))?;
            let builder = server(volume, "recipient")?
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
    on_volume(|volume| {
        let donor = donor(volume)?;
        let recipient = recipient(volume, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        for at_donor in [false, true] {
            fixture::slow_down(&recipient)?;
            let running = Running::start_copying(&recipient, &statement)?;
            // The tables count about once a second.
            until("data in clone_progress", Duration::from_secs(60), || {
                let stages = clone::progress(&mut recipient.session()?)?;
                Ok((clone::file_copy(&stages).data > 0).then_some(()))
            })?;
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
            fixture::remove_rest(&directory)?;
            fixture::speed_up(&recipient)?;
            fixture::assert_clones(&recipient, &donor)?;
        }
        Ok(())
    });
}

/// The connections break while donors wait for the recipient to copy a block: neither waits for the
/// other, and the clone goes on.
#[test]
fn connections_that_break() {
    on_volume(|volume| {
        let donor = donor(volume)?;
        let builder = server(volume, "recipient")?
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
        let clone = server(volume, "clone")?.adopt(&directory).start()?;
        verify::assert_sound(&clone)?;
        verify::assert_equal(&donor, &clone)?;
        recipient.stop()
    });
}

/// A recipient that is gone in the middle of a block keeps the donor only as long as it may come
/// back.
#[test]
fn a_recipient_that_dies() {
    on_volume(|volume| {
        let builder =
            server(volume, "donor")?.option("--clone-donor-timeout-after-network-failure=0");
        let donor = fixture::donor_from(builder)?;
        let mut recipient = recipient(volume, &donor)?;
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

/// Near the limit of open files, the data is sent: the clone needs no more files than without
/// hand-over, at either end. When there is room again, files are handed over again.
#[test]
fn files_run_short() {
    on_volume(|volume| {
        let donor = donor(volume)?;
        fill(&donor)?;
        let builder = server(volume, "recipient")?
            .option("--clone-autotune-concurrency=OFF")
            .option("--clone-max-concurrency=16");
        let recipient = fixture::recipient_from(builder, &donor)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance(&donor).into_directory(&directory);
        recipient.session()?.run("SET GLOBAL clone_file_handover = OFF")?;
        let peaks = most_open_files(&donor, &recipient, &statement)?;
        recipient.session()?.run("SET GLOBAL clone_file_handover = ON")?;
        for (short, peak) in [(&recipient, peaks.1), (&donor, peaks.0)] {
            fs::remove_dir_all(&directory)?;
            short.limit_open_files(peak + 8)?;
            Running::start(&recipient, &statement)?.finish()?;
            let copy = clone::progress(&mut recipient.session()?)?;
            assert!(clone::file_copy(&copy).network > 16 << 20, "{copy:?}");
            short.limit_open_files(4096)?;
        }
        fs::remove_dir_all(&directory)?;
        Running::start(&recipient, &statement)?.finish()?;
        assert_handed_over(&clone::progress(&mut recipient.session()?)?);
        Ok(())
    });
}

/// Tables for 16 threads.
fn fill(donor: &Mysqld) -> Result<()> {
    let mut session = donor.session()?;
    session.run("CREATE DATABASE big")?;
    for table in 0..16 {
        session.run_all([
            &*format!("CREATE TABLE big.t{table} (a LONGBLOB)"),
            &format!("INSERT INTO big.t{table} VALUES (REPEAT(RANDOM_BYTES(1024), 4096))"),
        ])?;
    }
    fixture::flush(donor)
}

/// The most files that donor and recipient have open during a clone.
fn most_open_files(
    donor: &Mysqld,
    recipient: &Mysqld,
    statement: &Statement,
) -> Result<(u64, u64)> {
    let running = Running::start(recipient, statement)?;
    let mut peaks = (0, 0);
    while !running.is_finished() {
        peaks.0 = donor.usage()?.descriptors.max(peaks.0);
        peaks.1 = recipient.usage()?.descriptors.max(peaks.1);
        sleep(Duration::from_millis(2));
    }
    running.finish()?;
    Ok(peaks)
}
