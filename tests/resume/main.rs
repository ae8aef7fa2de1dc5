// SPDX-License-Identifier: GPL-2.0-only

//! The network between recipient and donor breaks, and the clone goes on or ends in order.
//!
//! Where the network breaks while no data flow, a cut costs six seconds, whatever the plugin:
//! InnoDB's donor waits for an acknowledgement, writes to the connection every five seconds only,
//! and looks for the end of that wait once a second. So those cuts are few.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::env;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Running};
use clone_testkit::proxy::SnapshotState::{FileCopy, Init, PageCopy, RedoCopy};
use clone_testkit::proxy::{Action, CommandCode, How, Point, Proxy, Target};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::writer::{Load, Writers, check_invariants};
use clone_testkit::{Mysqld, Plugin, check, fastrand, until};

use peers::Peers;

mod peers;

const MIB: u64 = 1 << 20;
/// No wait in these tests is longer, unless it says so.
const SOON: Duration = Duration::from_secs(60);

/// `ER_NET_READ_ERROR`, `ER_NET_ERROR_ON_WRITE`.
const NETWORK_ERRORS: [u16; 2] = [1158, 1160];
/// `ER_QUERY_INTERRUPTED`.
const INTERRUPTED: u16 = 1317;
/// `ER_RESTART_SERVER_FAILED`.
const NO_SUPERVISOR: u16 = 3707;
/// `ER_CLONE_DONOR`.
const DONOR_ERROR: u16 = 3862;

#[test]
fn five_cuts_in_each_state() {
    check(|| {
        let cuts = many_cuts(Target::Master);
        cut_in_each_state(Peers::start(1)?, &cuts, Destination::Directory)
    });
}

#[test]
fn five_cuts_in_each_state_with_workers() {
    check(|| {
        let cuts = many_cuts(Target::Worker);
        cut_in_each_state(Peers::start(4)?, &cuts, Destination::Own)
    });
}

/// InnoDB is told of tables only when there is data for them, where a limit leaves time for that;
/// and asks for none again.
#[test]
fn cuts_while_files_are_created() {
    check(|| {
        let mut peers = Peers::start(2)?;
        peers.donor.session()?.run_all([
            "CREATE TABLE shop.parts (id INT PRIMARY KEY, text VARCHAR(64)) PARTITION BY HASH (id) PARTITIONS 500",
            "INSERT INTO shop.parts SELECT n, SHA2(n, 224) FROM shop.numbers",
            "SET GLOBAL innodb_buffer_pool_dump_now = ON",
        ])?;
        peers.recipient.session()?.run("SET GLOBAL clone_max_network_bandwidth = 128")?;
        let targets = [Target::All, Target::Worker, Target::Master];
        let cuts =
            [5, 40, 80, 110, 140, 150, 160, 170].into_iter().zip(targets.into_iter().cycle());
        let script = |peers: &Peers| {
            for (mib, target) in cuts.clone() {
                let point = Point::Data { state: FileCopy, bytes: mib * MIB };
                peers.proxy.at(point, Action::reset(target));
            }
        };
        let is_cut = |peers: &Peers| {
            ensure!(peers.proxy.pending().is_empty(), "left: {:?}", peers.proxy.pending());
            ensure!(peers.proxy.traffic().resumed >= 5, "{}", peers.proxy.traffic().resumed);
            Ok(())
        };
        script(&peers);
        let (running, directory) = peers.begin()?;
        running.finish().with_context(|| format!("left: {:?}", peers.proxy.pending()))?;
        is_cut(&peers)?;
        peers.verify(directory)?;

        // Over its own data InnoDB looks at other files to name those of the system tablespace.
        peers.proxy.reset()?;
        script(&peers);
        let running = Running::start(&peers.recipient, &peers.statement())?;
        let result = running.finish();
        peers.await_restart(result)?;
        is_cut(&peers)?;
        peers.verify_server(&peers.recipient)
    });
}

#[test]
fn a_cut_in_each_state_of_a_stock_donor() {
    check(|| {
        let peers = Peers::of(Plugin::under_test()?, Plugin::Stock, 4)?;
        cut_in_each_state(peers, &few_cuts(), Destination::Own)
    });
}

#[test]
fn a_cut_in_each_state_of_a_stock_recipient() {
    check(|| {
        let peers = Peers::of(Plugin::Stock, Plugin::under_test()?, 4)?;
        cut_in_each_state(peers, &few_cuts(), Destination::Directory)
    });
}

/// Before the first EXECUTE there is nothing to resume: the clone fails at once, and the donor is
/// free.
#[test]
fn a_cut_before_the_clone_has_begun() {
    check(|| {
        let mut peers = Peers::start(1)?;
        for (point, errors) in [
            (Point::Command(CommandCode::Init), NETWORK_ERRORS),
            (Point::Complete(CommandCode::Init), NETWORK_ERRORS),
            // The recipient tries again, but the donor has dropped the clone.
            (Point::Command(CommandCode::Execute), [DONOR_ERROR; 2]),
        ] {
            for target in [Target::All, Target::Master] {
                peers.proxy.reset()?;
                peers.proxy.at(point, Action::reset(target));
                let began = Instant::now();
                let (running, _) = peers.begin()?;
                let error = running.failure().with_context(|| format!("{point:?}"))?;
                ensure!(errors.contains(&error.number), "{point:?} {target:?}: {error}");
                ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
                ensure!(peers.proxy.pending().is_empty(), "{point:?} did not come");
                peers.check_failed(&error)?;
            }
        }
        // Without the auxiliary connection the first acknowledgement fails, and then there is
        // something.
        peers.proxy.reset()?;
        peers.proxy.at(Point::Complete(CommandCode::Init), Action::reset(Target::Auxiliary));
        let (running, directory) = peers.begin()?;
        running.finish()?;
        ensure!(peers.proxy.traffic().resumed == 1, "{:?}", peers.proxy.traffic().resumed);
        peers.verify(directory)
    });
}

/// A donor that fails at the last moment of INIT costs our recipient nothing. The stock one has
/// dropped its data by then.
#[test]
fn a_cut_at_the_end_of_init_leaves_the_data() {
    check(|| {
        let peers = Peers::start(1)?;
        let mut session = peers.recipient.session()?;
        session.run_all(["CREATE DATABASE kept", "CREATE TABLE kept.t (id INT PRIMARY KEY)"])?;
        peers.proxy.at(Point::Complete(CommandCode::Init), Action::close(Target::All));
        let error = session.error(peers.statement().to_string())?;
        ensure!(NETWORK_ERRORS.contains(&error.number), "{error}");
        let kept: Option<String> = session.first("SHOW DATABASES LIKE 'kept'")?;
        let expected = peers.recipient.plugin() != Plugin::Stock;
        ensure!(kept.is_some() == expected, "data kept: {kept:?}");
        Ok(())
    });
}

#[test]
fn workers_that_cannot_attach_are_done_without() {
    check(|| {
        let mut peers = Peers::start(4)?;
        for action in [Action::reset, Action::close, Action::reset] {
            peers.proxy.at(Point::Command(CommandCode::Attach), action(Target::Worker));
        }
        let (running, directory) = peers.begin()?;
        running.finish()?;
        let traffic = peers.proxy.traffic();
        ensure!(peers.proxy.pending().is_empty(), "workers attached");
        ensure!(traffic.resumed == 0 && traffic.worker_data == 0, "{traffic:?}");
        peers.verify(directory)
    });
}

/// The donor's `clone_donor_timeout_after_network_failure` is 0: it drops a clone as soon as it
/// hears of a cut, and the recipient connects once more only.
#[test]
fn a_donor_without_patience() {
    check(|| {
        let mut peers = Peers::start(4)?;
        let mut session = peers.donor.session()?;
        session.run("SET GLOBAL clone_donor_timeout_after_network_failure = 0")?;
        for refuse in [false, true] {
            let running = peers.begin_held()?;
            peers.proxy.refuse(refuse)?;
            peers.proxy.cut(Target::All, How::Reset);
            let cut = Instant::now();
            let error = running.failure()?;
            ensure!(error.number == DONOR_ERROR, "{error}");
            let text = if refuse { "Connect failed" } else { "could not find existing clone" };
            ensure!(error.message.contains(text), "{error}");
            ensure!(cut.elapsed() < Duration::from_secs(4), "{:?}", cut.elapsed());
            let masters = peers.proxy.traffic().masters;
            ensure!(masters == 2 - u32::from(refuse), "{masters} masters");
            peers.check_failed(&error)?;
            peers.clone_undisturbed()?;
        }
        Ok(())
    });
}

/// The shortest time-out besides none is a minute.
#[test]
fn a_donor_that_is_gone() {
    check(|| {
        let mut peers = Peers::start(4)?;
        let mut session = peers.donor.session()?;
        session.run("SET GLOBAL clone_donor_timeout_after_network_failure = 1")?;
        drop(session);
        let running = peers.begin_held()?;
        peers.donor.kill()?;
        let killed = Instant::now();
        peers.proxy.refuse(true)?;
        peers.proxy.cut(Target::All, How::Reset);
        let error = running.failure()?;
        let time = killed.elapsed();
        ensure!(error.number == DONOR_ERROR, "{error}");
        peers.check_failed(&error)?;
        // The recipient looks at the clock every five seconds.
        ensure!((60..75).contains(&time.as_secs()), "{time:?}");
        let log = peers.recipient.log()?;
        let attempts = log.lines().filter(|line| line.contains("re-connect failed")).count();
        ensure!((11..=15).contains(&attempts), "{attempts} attempts");
        // The donor starts again and knows nothing of it.
        peers.donor.start()?;
        peers.proxy = Proxy::to(peers.donor.port())?;
        clone::allow_address(&peers.recipient, &format!("127.0.0.1:{}", peers.proxy.port()))?;
        peers.clone_undisturbed()
    });
}

#[test]
fn a_donor_that_comes_back() {
    check(|| {
        let mut peers = Peers::start(4)?;
        let running = peers.begin_held()?;
        peers.proxy.refuse_for(Duration::from_secs(7))?;
        peers.proxy.cut(Target::All, How::Reset);
        let cut = Instant::now();
        running.finish()?;
        let time = cut.elapsed();
        // Attempts at once, after five seconds and after ten.
        ensure!(time > Duration::from_secs(9), "{time:?}");
        let log = peers.recipient.log()?;
        ensure!(log.contains("re-connect failed: count: 2"), "no second attempt");
        ensure!(!log.contains("re-connect failed: count: 3"), "a third attempt failed");
        ensure!(peers.proxy.traffic().resumed == 1, "{:?}", peers.proxy.traffic().resumed);
        peers.verify(peers.recipient.scratch("clone1"))
    });
}

/// KILL ends the wait for a donor that is away. The error is that of the last attempt to connect,
/// as with the stock plugin, unless the KILL was faster; the stock plugin looks every five seconds
/// only.
#[test]
fn kill_ends_the_wait_for_the_donor() {
    check(|| {
        let mut peers = Peers::start(4)?;
        let limit = match peers.recipient.plugin() {
            Plugin::Stock => Duration::from_secs(8),
            _ => Duration::from_secs(3),
        };
        for is_query in [true, false] {
            let running = peers.begin_held()?;
            peers.proxy.refuse(true)?;
            peers.proxy.cut(Target::All, How::Reset);
            sleep(Duration::from_secs(1));
            ensure!(!running.is_finished(), "the recipient does not wait");
            let killed = Instant::now();
            if is_query {
                running.kill_query(&peers.recipient)?;
                let error = running.failure()?;
                ensure!([INTERRUPTED, DONOR_ERROR].contains(&error.number), "{error}");
                peers.check_failed(&error)?;
            } else {
                running.kill(&peers.recipient)?;
                // The connection is gone before the statement ends.
                ensure!(running.finish().is_err(), "the killed clone succeeded");
            }
            until("the clone to end", limit, || {
                Ok((peers.status()?.state != "In Progress").then_some(()))
            })?;
            ensure!(killed.elapsed() < limit, "{:?}", killed.elapsed());
            ensure!(peers.status()?.state == "Failed", "{:?}", peers.status()?);
            // The donor still waits for the one that was killed, and gives it up.
            peers.clone_undisturbed()?;
        }
        Ok(())
    });
}

/// KILL ends a clone whose donor is silent, and is not taken for a cut: the donor gives the clone
/// up.
///
/// Not for the stock plugin. mysqld's KILL shuts the connection and marks the session only then
/// (`sql_class.cc:THD::awake`). A recipient that closes its end meanwhile takes the error for that
/// of a network; or KILL waits for ever in `vio_shutdown`, holding a lock of the session, for the
/// poll of a connection that is gone, and so does whoever looks at that session, such as SHUTDOWN.
#[test]
fn kill_ends_the_wait_for_data() {
    check(|| {
        let mut peers = Peers::start(1)?;
        if peers.recipient.plugin() == Plugin::Stock {
            return Ok(());
        }
        for _ in 0..10 {
            let running = peers.begin_held()?;
            let recipients = clone::recipients_at(&peers.donor)?;
            ensure!(recipients == 2, "{recipients}");
            let killed = Instant::now();
            running.kill_query(&peers.recipient)?;
            let error = running.failure()?;
            ensure!(error.number == INTERRUPTED, "{error}");
            ensure!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
            peers.check_failed(&error)?;
            peers.await_donor_idle()?;
        }
        peers.clone_undisturbed()
    });
}

/// Four tasks wait for a donor that says nothing more, and whose connections stay open.
#[test]
fn kill_ends_the_wait_for_a_silent_donor() {
    check(|| {
        let mut peers = Peers::start(4)?;
        if peers.recipient.plugin() == Plugin::Stock {
            return Ok(());
        }
        // A donor that cannot be told of KILL waits for its recipient.
        let no_wait = "SET GLOBAL clone_donor_timeout_after_network_failure = 0";
        peers.donor.session()?.run(no_wait)?;
        let running = peers.begin_held()?;
        // The workers have attached. If a connection breaks at that moment, the donor waits long.
        sleep(Duration::from_secs(1));
        peers.donor.freeze()?;
        let killed = Instant::now();
        running.kill_query(&peers.recipient)?;
        let error = running.failure();
        let took = killed.elapsed();
        peers.donor.thaw()?;
        let error = error?;
        ensure!(error.number == INTERRUPTED, "{error}");
        // Two seconds, and one for a machine that runs other tests.
        ensure!(took < Duration::from_secs(3), "{took:?}");
        peers.check_failed(&error)?;
        // The proxy does not look at a connection that it holds.
        peers.proxy.release();
        peers.await_donor_idle()?;
        peers.clone_undisturbed()
    });
}

/// A recipient resumes 99 times. As long as a block passes each time, that is enough for any clone.
#[test]
fn a_network_that_breaks_all_the_time() {
    check(|| {
        let mut peers = Peers::start(1)?;
        let cuts = |peers: &Peers, count, distance: u64| {
            for n in 1..=count {
                let point = Point::Data { state: FileCopy, bytes: n * distance };
                peers.proxy.at(point, Action::reset(Target::All));
            }
        };
        // A block is 1 MiB.
        cuts(&peers, 60, 3 * MIB / 2);
        let (running, directory) = peers.begin()?;
        running.finish()?;
        ensure!(peers.proxy.traffic().resumed == 60, "{}", peers.proxy.traffic().resumed);
        peers.verify(directory)?;

        peers.proxy.reset()?;
        cuts(&peers, 150, MIB / 2);
        let began = Instant::now();
        let (running, _) = peers.begin()?;
        let error = running.failure()?;
        ensure!(NETWORK_ERRORS.contains(&error.number), "{error}");
        ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
        ensure!(peers.proxy.traffic().resumed == 99, "{}", peers.proxy.traffic().resumed);
        peers.check_failed(&error)?;
        peers.clone_undisturbed()
    });
}

/// Cuts at random while transactions and DDL go on at the donor, for `MYSQL_CLONE_SOAK_SECONDS`
/// (300):
///
/// ```text
/// MYSQL_CLONE_SOAK_SECONDS=3600 cargo test --test resume random_cuts -- --ignored --nocapture
/// ```
///
/// Each clone must succeed, and be the donor at the position it reports.
#[test]
#[ignore = "takes as long as it is told to"]
fn random_cuts() {
    check(|| {
        let seconds = env::var("MYSQL_CLONE_SOAK_SECONDS").map_or(Ok(300), |text| text.parse())?;
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut peers = Peers::start(8)?;
        replica::make_source(&peers.donor)?;
        let mut rounds = 0;
        while rounds == 0 || Instant::now() < end {
            let seed = fastrand::u64(..);
            eprintln!("round {rounds}, seed {seed}");
            random_round(&mut peers, seed).with_context(|| format!("seed {seed}"))?;
            rounds += 1;
        }
        Ok(())
    });
}

fn random_round(peers: &mut Peers, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    peers.proxy.reset()?;
    let tasks = random.u32(1..=8);
    peers.recipient.session()?.run(format!("SET GLOBAL clone_max_concurrency = {tasks}"))?;
    for _ in 0..random.u32(1..10) {
        let (point, action) = random_cut(&mut random);
        peers.proxy.at(point, action);
    }
    let load = Load { ddl: true, limit: Duration::from_secs(300), ..Load::default() };
    let writers = Writers::start(&peers.donor, load)?;
    let (running, directory) = peers.begin()?;
    running.finish()?;
    let written = writers.stop()?;
    let traffic = peers.proxy.traffic();
    let (sent, repeated) = traffic.network_and_repeated();
    eprintln!("  {tasks} tasks, {written:?}");
    eprintln!("  resumed {} times, {repeated} of {sent} bytes sent twice", traffic.resumed);

    let plugin = peers.donor.plugin();
    let clone = Mysqld::builder().name("clone").plugin(plugin).adopt(directory).start()?;
    let status = clone::status(&mut clone.session()?)?.context("no status")?;
    check_invariants(&mut clone.session()?)?;
    replica::attach(&clone, &peers.donor, &status, StartFrom::Gtid)?;
    replica::catch_up(&clone, &peers.donor)?;
    peers.verify_server(&clone)
}

fn random_cut(random: &mut fastrand::Rng) -> Cut {
    let state = [Init, FileCopy, PageCopy, RedoCopy][random.usize(..4)];
    let point = match random.u32(..10) {
        0 if state != Init => Point::Start(state),
        1 => Point::End(state),
        2 => Point::Ack(state),
        3 => Point::Acked(state),
        4 => Point::Command(CommandCode::Attach),
        5 => Point::Complete(CommandCode::Reinit),
        _ => Point::Data { state: FileCopy, bytes: random.u64(..140 * MIB) },
    };
    let targets = [Target::All, Target::Master, Target::Auxiliary, Target::Worker];
    let target = match point {
        Point::Command(CommandCode::Attach) => Target::Worker,
        _ => targets[random.usize(..targets.len())],
    };
    (point, Action::Cut(target, if random.bool() { How::Reset } else { How::Close }))
}

type Cut = (Point, Action);

/// In each state five; in the middle of its data one that hits a single connection of this kind.
fn many_cuts(one: Target) -> Vec<Cut> {
    let all = Target::All;
    let data = |state, mib| Point::Data { state, bytes: mib * MIB };
    vec![
        (Point::End(Init), Action::reset(all)),
        (Point::Complete(CommandCode::Reinit), Action::reset(Target::Master)),
        (Point::Complete(CommandCode::Reinit), Action::close(all)),
        (Point::Ack(Init), Action::reset(all)),
        (Point::Acked(Init), Action::reset(all)),
        // FILE COPY.
        (data(FileCopy, 8), Action::reset(all)),
        (data(FileCopy, 30), Action::reset(one)),
        (data(FileCopy, 60), Action::close(Target::Master)),
        (Point::End(FileCopy), Action::reset(all)),
        (Point::Acked(FileCopy), Action::reset(all)),
        // PAGE COPY.
        (data(PageCopy, 4), Action::reset(all)),
        (data(PageCopy, 8), Action::close(one)),
        (Point::End(PageCopy), Action::reset(all)),
        (Point::Ack(PageCopy), Action::reset(all)),
        (Point::Acked(PageCopy), Action::reset(Target::Auxiliary)),
        // REDO COPY. That the auxiliary connection is gone shows at its end.
        (Point::Start(RedoCopy), Action::reset(all)),
        (data(RedoCopy, 4), Action::reset(one)),
        (data(RedoCopy, 8), Action::close(all)),
        (data(RedoCopy, 12), Action::reset(Target::Auxiliary)),
        (Point::Acked(RedoCopy), Action::reset(all)),
    ]
}

/// In each state one.
fn few_cuts() -> Vec<Cut> {
    vec![
        (Point::End(Init), Action::reset(Target::All)),
        (Point::Data { state: FileCopy, bytes: 30 * MIB }, Action::reset(Target::Worker)),
        (Point::Data { state: PageCopy, bytes: 2 * MIB }, Action::reset(Target::All)),
        (Point::Ack(RedoCopy), Action::close(Target::All)),
    ]
}

/// Where a clone goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Destination {
    Directory,
    /// The data of the recipient are replaced.
    Own,
}

/// A clone that is cut as told is as good as any other, and little is sent twice.
fn cut_in_each_state(mut peers: Peers, cuts: &[Cut], destination: Destination) -> Result<()> {
    for &(point, action) in cuts {
        peers.proxy.at(point, action);
    }
    peers.hold_for_writes();
    let (running, directory) = match destination {
        Destination::Directory => peers.begin()?,
        Destination::Own => (Running::start(&peers.recipient, &peers.statement())?, PathBuf::new()),
    };
    if let Err(error) = peers.write_in_between(&running) {
        running.kill(&peers.recipient)?;
        return Err(error);
    }
    let mut result = running.finish();
    let traffic = peers.proxy.traffic();
    for state in [FileCopy, PageCopy, RedoCopy] {
        let (sent, repeated) = (traffic.network_in(state), traffic.repeated_in(state));
        eprintln!("{state}: {repeated} of {sent} bytes sent twice");
    }
    if destination == Destination::Own {
        result = peers.await_restart(result);
    }
    result.with_context(|| format!("left: {:?}", peers.proxy.pending()))?;
    ensure!(peers.proxy.pending().is_empty(), "left: {:?}", peers.proxy.pending());
    let expected = u32::try_from(cuts.len())?;
    eprintln!("resumed {} times after {expected} cuts", traffic.resumed);
    // A cut of a single connection may be noticed only with the next one.
    ensure!((expected - 3..=expected).contains(&traffic.resumed), "{} times", traffic.resumed);
    let (sent, repeated) = traffic.network_and_repeated();
    ensure!(repeated * 10 <= sent - repeated, "{repeated} of {sent} bytes sent twice");
    match destination {
        Destination::Directory => peers.verify(directory),
        Destination::Own => peers.verify_server(&peers.recipient),
    }
}
