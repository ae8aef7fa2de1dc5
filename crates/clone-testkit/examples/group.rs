// SPDX-License-Identifier: GPL-2.0-only

//! `make demo-group`: three members of Group Replication on loopback. Two are filled; the third is
//! empty, joins, and is provisioned by a clone through our plugin.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::{Mysqld, Plugin, cancel, until};

const GROUP: &str = "8a94f357-aab4-11df-86ab-c80aa9429562";
const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// Rows that the group holds before the third member joins, of about 1 KiB each.
const ROWS: u64 = 65_536;

/// Three members of Group Replication on loopback; the third is provisioned by a clone.
#[derive(Debug, Parser)]
struct Options {}

fn main() -> ExitCode {
    let Options {} = Options::parse();
    clone_testkit::log_to_stderr();
    let interrupted = ctrlc::set_handler(|| {
        eprintln!("\ninterrupted, stopping the servers");
        cancel();
    });
    match interrupted.context("handle Ctrl-C").and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nFailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let addresses = (0..3).map(|_| free_address()).collect::<Result<Vec<_>>>()?;
    let member = |index: usize| start_member(index, &addresses);

    println!("Starting a group of two members");
    let first = member(0)?;
    let second = member(1)?;
    let mut session = first.session()?;
    session.run_all([
        "CREATE USER group_user@'%' IDENTIFIED BY 'group secret'",
        "GRANT REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN, GROUP_REPLICATION_STREAM \
         ON *.* TO group_user@'%'",
    ])?;
    set_recovery_account(&first)?;
    session.run_all([
        "SET GLOBAL group_replication_bootstrap_group = ON",
        "START GROUP_REPLICATION",
        "SET GLOBAL group_replication_bootstrap_group = OFF",
    ])?;
    await_online(&first, 1)?;
    second.session()?.run("RESET BINARY LOGS AND GTIDS")?;
    set_recovery_account(&second)?;
    // Little has happened yet, so the second member gets it from the binary log.
    second.session()?.run_all([
        "SET GLOBAL group_replication_clone_threshold = 9223372036854775807",
        "START GROUP_REPLICATION",
    ])?;
    await_online(&first, 2)?;
    print_members(&first)?;

    println!("\nFilling it with {ROWS} rows of 1 KiB");
    fill(&first)?;

    println!("\nThe third member is empty. It joins while the group is written to");
    let mut third = member(2)?;
    set_recovery_account(&third)?;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&first, &stop));
        let joined = join_by_clone(&mut third, &first);
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap_or(Ok(0));
        joined.and(written)
    })?;
    println!(
        "    joined after {:.1} s; {written} rows were written meanwhile",
        begin.elapsed().as_secs_f64()
    );
    print_members(&first)?;

    println!("\nProof: who cloned whom, and the same rows everywhere");
    let status = clone::status(&mut third.session()?)?.context("clone_status is empty")?;
    println!(
        "    clone_status of the third member: {} from {} up to GTID {}",
        status.state, status.source, status.gtid_executed
    );
    ensure!(status.state == "Completed", "the clone is {}", status.state);
    await_equal(&first, &[&second, &third])?;
    let (tables, faults) = verify::check_tables(&mut third.session()?)?;
    ensure!(faults.is_empty(), "the third member's tables: {faults:?}");
    println!("    all three members are equal, {tables} tables of the third are sound");

    for member in [&third, &second, &first] {
        member.session()?.run("STOP GROUP_REPLICATION")?;
    }
    println!("\nStopping the servers, removing their files");
    Ok(())
}

/// An address on loopback for a member's group communication.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.to_string())
}

fn start_member(index: usize, addresses: &[String]) -> Result<Mysqld> {
    let builder = Mysqld::builder()
        .name(["first", "second", "third"].get(index).unwrap_or(&"member"))
        .plugin(Plugin::Ours)
        // The server restarts after the clone, and this process starts it again.
        .supervised()
        .option("--plugin-load-add=group_replication.so")
        .option("--report-host=127.0.0.1")
        .option("--skip-replica-start=OFF")
        .option(format!("--loose-group-replication-group-name={GROUP}"))
        .option(format!("--loose-group-replication-local-address={}", addresses[index]))
        .option(format!("--loose-group-replication-group-seeds={}", addresses.join(",")))
        .option("--loose-group-replication-ip-allowlist=127.0.0.1/32")
        .option("--loose-group-replication-start-on-boot=OFF")
        .option("--loose-group-replication-recovery-get-public-key=ON");
    let mut member = builder.start()?;
    // From the next start on it joins by itself, as it has to after a clone.
    member.add_option("--loose-group-replication-start-on-boot=ON");
    println!("    {} on port {}", member.name(), member.port());
    Ok(member)
}

fn set_recovery_account(member: &Mysqld) -> Result<()> {
    member.session()?.run(
        "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'group_user', SOURCE_PASSWORD = 'group secret' \
         FOR CHANNEL 'group_replication_recovery'",
    )
}

/// Makes the empty member clone, whatever the group's binary logs still hold.
fn join_by_clone(third: &mut Mysqld, first: &Mysqld) -> Result<()> {
    third.session()?.run("SET GLOBAL group_replication_clone_threshold = 1")?;
    // The statement returns when the clone has begun, or loses its connection to the restart.
    let _ = third.session()?.run("START GROUP_REPLICATION");
    third.await_restart()?;
    println!("    cloned and restarted");
    await_online(first, 3)
}

fn await_online(member: &Mysqld, members: u64) -> Result<()> {
    let mut session = member.session()?;
    until("all members to be online", JOIN_LIMIT, || {
        let online: u64 = session.one(
            "SELECT COUNT(*) FROM performance_schema.replication_group_members \
             WHERE MEMBER_STATE = 'ONLINE'",
        )?;
        Ok((online == members).then_some(()))
    })
}

fn print_members(member: &Mysqld) -> Result<()> {
    let members: Vec<(u16, String, String)> = member.session()?.rows(
        "SELECT MEMBER_PORT, MEMBER_STATE, MEMBER_ROLE \
         FROM performance_schema.replication_group_members ORDER BY MEMBER_PORT",
    )?;
    for (port, state, role) in members {
        println!("    port {port:5}  {state:10} {role}");
    }
    Ok(())
}

fn fill(member: &Mysqld) -> Result<()> {
    let mut session = member.session()?;
    session.run_all([
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(1024), KEY (note(16)))",
        "INSERT INTO shop.orders (note) VALUES (REPEAT(SHA2(RAND(), 256), 16))",
    ])?;
    let mut rows = 1;
    while rows < ROWS {
        let batch = rows.min(4096).min(ROWS - rows);
        session.run(format!(
            "INSERT INTO shop.orders (note) SELECT REPEAT(SHA2(RAND(), 256), 16) FROM shop.orders LIMIT {batch}"
        ))?;
        rows += batch;
    }
    Ok(())
}

/// Inserts rows until it is told to stop, and tells how many.
fn write(member: &Mysqld, stop: &AtomicBool) -> Result<u64> {
    let mut session = member.session()?;
    let mut rows = 0;
    while !stop.load(Ordering::Relaxed) {
        session.run("INSERT INTO shop.orders (note) VALUES (UUID())")?;
        rows += 1;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(rows)
}

/// Waits until the others have applied what the first has executed, and compares what they hold.
fn await_equal(first: &Mysqld, others: &[&Mysqld]) -> Result<()> {
    let executed: String = first.session()?.one("SELECT @@GLOBAL.gtid_executed")?;
    let expected = Fingerprint::read(&mut first.session()?)?;
    for other in others {
        let mut session = other.session()?;
        let timed_out: u64 =
            session.one(format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 60)"))?;
        ensure!(timed_out == 0, "{} does not catch up", other.name());
        let differences = expected.differences(&Fingerprint::read(&mut session)?);
        ensure!(differences.is_empty(), "{} differs: {differences:?}", other.name());
        println!("    {}: {} rows, equal", other.name(), expected.rows());
    }
    Ok(())
}
