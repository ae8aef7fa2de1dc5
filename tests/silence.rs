// SPDX-License-Identifier: GPL-2.0-only

//! A peer that falls silent while its connections stay open, as a frozen process or a firewall that
//! drops packets. KILL ends the clone all the same, and both ends notice within
//! `clone_peer_timeout`. A peer that lives and waits is not given up.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::balancer::Balancer;
use clone_testkit::clone::{self, Running, Statement, Tls};
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::proxy::{Action, CommandCode, Point, Proxy, SnapshotState, Target};
use clone_testkit::{Mysqld, Plugin, check};

/// How soon KILL ends a clone: two seconds, and one for a machine that runs other tests.
const KILL_LIMIT: Duration = Duration::from_secs(3);

/// A donor and a recipient whose clones take some 20 seconds, by one thread.
fn pair() -> Result<(Mysqld, Mysqld)> {
    // A donor that cannot be told of KILL waits for its recipient.
    let builder = fixture::server("donor")?.option(DISTANT);
    let builder = builder.option("--clone-donor-timeout-after-network-failure=0");
    let donor = fixture::donor_from(builder)?;
    let builder = fixture::server("recipient")?
        .option(DISTANT)
        .option("--clone-max-concurrency=1")
        .option("--clone-max-data-bandwidth=5");
    let recipient = fixture::recipient_from(builder, &donor)?;
    Ok((donor, recipient))
}

/// Starts a clone, and freezes one of its servers while files are copied.
fn start_and_freeze(statement: &Statement, recipient: &Mysqld, frozen: &Mysqld) -> Result<Running> {
    let running = Running::start_copying(recipient, statement)?;
    sleep(Duration::from_millis(500));
    frozen.freeze()?;
    // What is on its way arrives, or fills the network's buffers.
    sleep(Duration::from_secs(2));
    Ok(running)
}

/// KILL of the statement ends a clone whose donor is frozen.
fn kill_with_a_frozen_donor(
    statement: &Statement,
    donor: &Mysqld,
    recipient: &Mysqld,
) -> Result<()> {
    let running = start_and_freeze(statement, recipient, donor)?;
    let killed = Instant::now();
    running.kill_query(recipient)?;
    let error = running.failure();
    let took = killed.elapsed();
    donor.thaw()?;
    let error = error?;
    ensure!(error.number == 1317, "{error}");
    ensure!(took < KILL_LIMIT, "{statement}: {took:?}");
    clone::await_donor_idle(donor, Duration::from_secs(30))
}

#[test]
fn kill_at_the_recipient() {
    check(|| {
        let (donor, recipient) = pair()?;
        for tls in [Tls::Disabled, Tls::Required] {
            let directory = recipient.scratch(&format!("{tls:?}"));
            let statement = Statement::instance(&donor).into_directory(&directory).tls(tls);
            kill_with_a_frozen_donor(&statement, &donor, &recipient)?;
        }
        kill_with_a_frozen_donor(&Statement::instance(&donor), &donor, &recipient)
    });
}

#[test]
fn kill_at_the_donor() {
    check(|| {
        let (donor, recipient) = pair()?;
        for tls in [Tls::Disabled, Tls::Required] {
            let directory = recipient.scratch(&format!("{tls:?}"));
            let statement = Statement::instance(&donor).into_directory(&directory).tls(tls);
            let running = start_and_freeze(&statement, &recipient, &recipient)?;
            let killed = Instant::now();
            let mut session = donor.session()?;
            let ids: Vec<u32> = session
                .rows("SELECT ID FROM performance_schema.processlist WHERE USER = 'clone_donor'")?;
            for id in &ids {
                session.run(format!("KILL QUERY {id}"))?;
            }
            let idle = clone::await_donor_idle(&donor, Duration::from_secs(60));
            let took = killed.elapsed();
            recipient.thaw()?;
            idle?;
            ensure!(ids.len() == 2, "{ids:?}");
            ensure!(took < KILL_LIMIT, "{statement}: {took:?}");
            running.failure()?;
        }
        Ok(())
    });
}

/// `connect_timeout` of the recipients below: a clone that has lost its donor tries once to connect
/// again.
const CONNECT: Duration = Duration::from_secs(2);

/// How long either end may take to be free: `clone_peer_timeout`, and 5 seconds.
const FREE: Duration = Duration::from_secs(3 + 5);

/// A donor gives a connection without a command at least a minute.
const FIRST_COMMAND: Duration = Duration::from_secs(60);

/// A donor and a recipient with `clone_peer_timeout=3`.
fn impatient_pair(donor: Plugin, recipient: Plugin) -> Result<(Mysqld, Mysqld)> {
    let builder = fixture::server("donor")?
        .plugin(donor)
        .option(DISTANT)
        .option("--loose-clone-peer-timeout=3")
        .option("--clone-donor-timeout-after-network-failure=0");
    let donor = fixture::donor_from(builder)?;
    let builder = fixture::server("recipient")?
        .plugin(recipient)
        .option(DISTANT)
        .option("--loose-clone-peer-timeout=3")
        .option(format!("--connect-timeout={}", CONNECT.as_secs()))
        .option("--clone-max-concurrency=2")
        .option("--clone-autotune-concurrency=OFF");
    let recipient = fixture::recipient_from(builder, &donor)?;
    Ok((donor, recipient))
}

/// The moments at which the network falls silent.
const PHASES: [(&str, Option<Point>); 11] = {
    use SnapshotState::{FileCopy, PageCopy, RedoCopy};
    [
        ("connect", None),
        ("INIT", Some(Point::Command(CommandCode::Init))),
        ("the answer to INIT", Some(Point::Complete(CommandCode::Init))),
        ("EXECUTE", Some(Point::Command(CommandCode::Execute))),
        ("ATTACH", Some(Point::Command(CommandCode::Attach))),
        ("FILE COPY", Some(Point::Data { state: FileCopy, bytes: 8 << 20 })),
        ("acknowledgement", Some(Point::Ack(FileCopy))),
        ("PAGE COPY", Some(Point::End(PageCopy))),
        ("REDO COPY", Some(Point::Start(RedoCopy))),
        ("REINIT", Some(Point::Command(CommandCode::Reinit))),
        ("EXIT", Some(Point::Command(CommandCode::Exit))),
    ]
};

/// The network falls silent in one phase. Gives how long the recipient and the donor took to be
/// free.
fn fall_silent(
    donor: &Mysqld,
    recipient: &Mysqld,
    phase: (&str, Option<Point>),
    target: Target,
    limit: Duration,
) -> Result<(Duration, Duration)> {
    let limit = 2 * limit + FIRST_COMMAND;
    let (name, point) = phase;
    let proxy = Proxy::to(donor.port())?;
    let account = clone::donor_account();
    clone::allow_address(recipient, &format!("127.0.0.1:{}", proxy.port()))?;
    if point == Some(Point::Command(CommandCode::Reinit)) {
        let cut = Point::Data { state: SnapshotState::FileCopy, bytes: 8 << 20 };
        proxy.at(cut, Action::reset(Target::All));
        // Otherwise the donor's clone is gone before the recipient asks for it.
        donor.session()?.run("SET GLOBAL clone_donor_timeout_after_network_failure = 1")?;
    }
    match point {
        Some(point) => proxy.at(point, Action::Silence(target)),
        None => proxy.silence(Target::All),
    }
    let directory = recipient.scratch("silent");
    let statement = Statement::instance_at("127.0.0.1", proxy.port(), account);
    let statement = statement.into_directory(&directory).tls(Tls::Disabled);
    let running = Running::start(recipient, &statement)?;
    clone_testkit::until("the silence", Duration::from_secs(60), || {
        Ok((proxy.pending().is_empty() || running.is_finished()).then_some(()))
    })?;
    ensure!(proxy.pending().is_empty(), "{name}: {:?}", running.finish());
    let since = Instant::now();
    let mut freed = (None, None);
    clone_testkit::until(&format!("both ends to be free after {name}"), limit, || {
        if freed.0.is_none() && running.is_finished() {
            freed.0 = Some(since.elapsed());
        }
        if freed.1.is_none() && clone::recipients_at(donor)? == 0 {
            freed.1 = Some(since.elapsed());
        }
        Ok(freed.0.zip(freed.1))
    })
    .inspect(|freed| {
        donor_keeps_nothing(donor);
        let outcome = running.finish();
        println!("| {name} | {:.1?} | {:.1?} | {outcome:?} |", freed.0, freed.1);
    })
}

fn donor_keeps_nothing(donor: &Mysqld) {
    let reset = "SET GLOBAL clone_donor_timeout_after_network_failure = 0";
    donor.session().and_then(|mut session| session.run(reset)).unwrap();
}

/// Both ends are free in time, in the phases that `is_meant` names.
fn all_fall_silent(
    (donor, recipient): (Plugin, Plugin),
    is_meant: impl Fn(&str) -> bool,
    limit: Duration,
) -> Result<()> {
    let (donor, recipient) = impatient_pair(donor, recipient)?;
    let mut late = Vec::new();
    for phase in PHASES.into_iter().filter(|(name, _)| is_meant(name)) {
        let freed = fall_silent(&donor, &recipient, phase, Target::All, limit)?;
        let is_first = matches!(phase.0, "INIT" | "ATTACH" | "REINIT");
        let donors_limit = if is_first { FIRST_COMMAND + FREE } else { limit };
        // The recipient connects again for a minute.
        let is_reinit = phase.0 == "REINIT";
        let recipients_limit = if is_reinit { FIRST_COMMAND + FREE } else { limit };
        if freed.0 > recipients_limit || freed.1 > donors_limit {
            late.push((phase.0, freed));
        }
    }
    ensure!(late.is_empty(), "{late:?}");
    Ok(())
}

#[test]
fn both_ends_notice_silence() {
    check(|| {
        let is_meant =
            |phase: &str| matches!(phase, "the answer to INIT" | "EXECUTE" | "acknowledgement");
        all_fall_silent((Plugin::Ours, Plugin::Ours), is_meant, FREE)
    });
}

#[test]
#[ignore = "the whole table takes two minutes"]
fn both_ends_notice_silence_in_every_phase() {
    check(|| {
        let wanted = std::env::var("SILENCE_PHASE").ok();
        let is_meant = |phase: &str| wanted.as_deref().is_none_or(|wanted| wanted == phase);
        all_fall_silent((Plugin::Ours, Plugin::Ours), is_meant, FREE)
    });
}

/// As a proxy that reads nothing sees it: over TLS, in FILE COPY.
#[test]
fn both_ends_notice_silence_over_tls() {
    check(|| {
        let (donor, recipient) = impatient_pair(Plugin::Ours, Plugin::Ours)?;
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 5")?;
        let proxy = Proxy::to(donor.port())?;
        clone::allow_address(&recipient, &format!("127.0.0.1:{}", proxy.port()))?;
        let account = clone::donor_account();
        let statement = Statement::instance_at("127.0.0.1", proxy.port(), account)
            .into_directory(&recipient.scratch("silent"))
            .tls(Tls::Required);
        let running = Running::start_copying(&recipient, &statement)?;
        sleep(Duration::from_millis(500));
        proxy.silence(Target::All);
        let since = Instant::now();
        clone::await_donor_idle(&donor, FREE)?;
        let error = running.failure()?;
        ensure!(since.elapsed() < FREE, "{:?}", since.elapsed());
        ensure!(error.number == 3862 && error.message.contains("the clone lost"), "{error}");
        Ok(())
    });
}

/// One worker's connection is silent while it attaches. The clone goes on without it, and the donor
/// does not wait for the worker's task, as it otherwise does for 30 minutes.
#[test]
fn a_worker_whose_connection_is_silent() {
    check(|| {
        let (donor, recipient) = impatient_pair(Plugin::Ours, Plugin::Ours)?;
        donor.session()?.run("SET GLOBAL clone_donor_timeout_after_network_failure = 1")?;
        let proxy = Proxy::to(donor.port())?;
        clone::allow_address(&recipient, &format!("127.0.0.1:{}", proxy.port()))?;
        // The donor has added the worker's task.
        let attached = Point::Complete(CommandCode::Attach);
        proxy.at(attached, Action::Silence(Target::Worker));
        let account = clone::donor_account();
        let statement = Statement::instance_at("127.0.0.1", proxy.port(), account)
            .into_directory(&recipient.scratch("worker"))
            .tls(Tls::Disabled);
        let since = Instant::now();
        Running::start(&recipient, &statement)?.finish()?;
        ensure!(proxy.pending().is_empty(), "no worker");
        let took = since.elapsed();
        println!("a silent worker: {took:.1?}");
        ensure!(took < 3 * FREE, "{took:?}");
        clone::await_donor_idle(&donor, FREE)
    });
}

/// A donor that greets a worker says nothing more. The clone goes on without the worker, and does
/// not wait for it longer than `clone_peer_timeout` at its end.
#[test]
fn a_worker_that_gets_no_answer() {
    check(|| {
        let (donor, recipient) = impatient_pair(Plugin::Ours, Plugin::Ours)?;
        let silent = TcpListener::bind("127.0.0.1:0")?;
        // Data, acknowledgements, the worker.
        let address = silent.local_addr()?;
        let turns = vec![donor.port(), donor.port(), address.port()];
        let balancer = Balancer::in_turn(turns)?;
        let mut server = TcpStream::connect((donor.address(), donor.port()))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let peer = std::thread::spawn(move || -> Result<()> {
            let mut greeting = [0; 1024];
            let len = server.read(&mut greeting)?;
            let mut workers = Vec::new();
            for worker in silent.incoming() {
                if flag.load(Ordering::Relaxed) {
                    break;
                }
                let mut worker = worker?;
                worker.write_all(&greeting[..len])?;
                workers.push(worker);
            }
            Ok(())
        });
        clone::allow_address(&recipient, &format!("127.0.0.1:{}", balancer.port()))?;
        let account = clone::donor_account();
        let statement = Statement::instance_at("127.0.0.1", balancer.port(), account)
            .into_directory(&recipient.scratch("worker"));
        Running::start(&recipient, &statement)?.finish()?;
        let log = recipient.log()?;
        ensure!(log.contains("2013 : No answer within 3 seconds (clone_peer_timeout)"), "{log}");
        // The recipient ends when the connection does.
        is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(address)?);
        peer.join().unwrap()
    });
}

/// How long a peer waits below: much longer than `clone_peer_timeout`.
const WAIT: Duration = Duration::from_secs(9);

/// A donor that waits for its backup lock lives: the recipient waits, on the same connections, and
/// says what for.
#[test]
fn a_donor_that_waits_is_not_given_up() {
    check(|| {
        let (donor, recipient) = impatient_pair(Plugin::Ours, Plugin::Ours)?;
        recipient.session()?.run("SET GLOBAL clone_block_ddl = ON")?;
        let mut reader = donor.session()?;
        reader.run_all([
            "CREATE DATABASE waits",
            "CREATE TABLE waits.t (a INT PRIMARY KEY)",
            "BEGIN",
            "SELECT * FROM waits.t",
        ])?;
        let mut ddl = donor.session()?;
        let ddl = std::thread::spawn(move || ddl.run("ALTER TABLE waits.t ADD COLUMN b INT"));
        sleep(Duration::from_millis(500));
        let directory = recipient.scratch("waits");
        let statement = Statement::instance(&donor).into_directory(&directory);
        let running = Running::start(&recipient, &statement)?;
        sleep(WAIT);
        ensure!(!running.is_finished(), "the clone did not wait");
        reader.run("COMMIT")?;
        ddl.join().unwrap()?;
        running.finish()?;
        let log = recipient.log()?;
        ensure!(log.contains("but it lives: it waits for its backup lock"), "no line");
        ensure!(!log.contains("Source Network issue"), "a new connection");
        ensure!(!donor.log()?.contains("has been silent"), "the donor gave the recipient up");
        Ok(())
    });
}

/// A recipient that waits in DROP DATA lives: the donor waits.
#[test]
fn a_recipient_that_drops_its_data_is_not_given_up() {
    check(|| {
        let (donor, mut recipient) = impatient_pair(Plugin::Ours, Plugin::Ours)?;
        recipient.session()?.run_all([
            "SET GLOBAL clone_keep_data = 'OFF'",
            "CREATE DATABASE old",
            "CREATE TABLE old.t (a INT PRIMARY KEY)",
        ])?;
        let mut lock = recipient.session()?;
        lock.run("LOCK INSTANCE FOR BACKUP")?;
        let unlock = std::thread::spawn(move || {
            sleep(WAIT);
            lock.run("UNLOCK INSTANCE")
        });
        let report = clone::run(&mut recipient, &Statement::instance(&donor))?;
        ensure!(report.elapsed >= WAIT, "the clone did not wait: {report:?}");
        unlock.join().unwrap()?;
        ensure!(!donor.log()?.contains("has been silent"), "the donor gave the recipient up");
        Ok(())
    });
}

/// With a stock peer the other end is free as soon as its server's own limits allow: 30 seconds for
/// a read, 60 for a write.
#[test]
#[ignore = "waits for the time-outs of mysqld"]
fn a_stock_peer_that_falls_silent() {
    check(|| {
        let is_meant = |phase: &str| matches!(phase, "INIT" | "EXECUTE" | "FILE COPY");
        let (donor, recipient) = impatient_pair(Plugin::Stock, Plugin::Ours)?;
        for phase in PHASES.into_iter().filter(|(name, _)| is_meant(name)) {
            let took = recipient_is_free(&donor, &recipient, phase)?;
            let limit = if phase.0 == "INIT" { FREE } else { FREE + Duration::from_secs(30) };
            ensure!(took < limit, "{}: {took:?}", phase.0);
        }
        Ok(())
    });
}

/// A stock recipient sends no heartbeats. Our donor is free when it may not be without a command
/// any longer, or when a write has taken too long. The recipient itself may wait without end.
#[test]
#[ignore = "waits for the time-outs of mysqld"]
fn a_stock_recipient_that_falls_silent() {
    check(|| {
        let is_meant = |phase: &str| matches!(phase, "INIT" | "FILE COPY");
        let (donor, recipient) = impatient_pair(Plugin::Ours, Plugin::Stock)?;
        for phase in PHASES.into_iter().filter(|(name, _)| is_meant(name)) {
            let took = donor_is_free(&donor, &recipient, phase)?;
            ensure!(took < FIRST_COMMAND + FREE, "{}: {took:?}", phase.0);
        }
        Ok(())
    });
}

/// A network that falls silent at `point`, and a clone over it into `directory`.
fn silent_from(
    point: Option<Point>,
    donor: &Mysqld,
    recipient: &Mysqld,
    directory: &Path,
) -> Result<(Proxy, Statement)> {
    let proxy = Proxy::to(donor.port())?;
    clone::allow_address(recipient, &format!("127.0.0.1:{}", proxy.port()))?;
    if let Some(point) = point {
        proxy.at(point, Action::Silence(Target::All));
    }
    let statement = Statement::instance_at("127.0.0.1", proxy.port(), clone::donor_account());
    Ok((proxy, statement.into_directory(directory).tls(Tls::Disabled)))
}

/// How long the donor takes to be free when the network falls silent in this phase.
fn donor_is_free(
    donor: &Mysqld,
    recipient: &Mysqld,
    (name, point): (&str, Option<Point>),
) -> Result<Duration> {
    let directory = recipient.scratch("ours");
    let (proxy, statement) = silent_from(point, donor, recipient, &directory)?;
    let running = Running::start(recipient, &statement)?;
    clone_testkit::until("the silence", Duration::from_secs(60), || {
        Ok(proxy.pending().is_empty().then_some(()))
    })?;
    let since = Instant::now();
    clone::await_donor_idle(donor, 2 * FIRST_COMMAND)?;
    let took = since.elapsed();
    println!("| stock recipient, {name} | {took:.1?} |");
    drop(proxy);
    running.failure()?;
    fixture::remove_rest(&directory)?;
    Ok(took)
}

/// How long the recipient takes to be free when the network falls silent in this phase.
fn recipient_is_free(
    donor: &Mysqld,
    recipient: &Mysqld,
    (name, point): (&str, Option<Point>),
) -> Result<Duration> {
    let directory = recipient.scratch("stock");
    let (proxy, statement) = silent_from(point, donor, recipient, &directory)?;
    let since = Instant::now();
    let error = Running::start(recipient, &statement)?.failure()?;
    let took = since.elapsed();
    println!("| stock donor, {name} | {took:.1?} | {error} |");
    drop(proxy);
    clone::await_donor_idle(donor, FIRST_COMMAND)?;
    Ok(took)
}
