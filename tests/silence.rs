// SPDX-License-Identifier: GPL-2.0-only

//! A peer that falls silent while its connections stay open, as a frozen process or a firewall that
//! drops packets. KILL ends the clone all the same.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::clone::{self, Running, Statement, Tls};
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::{Mysqld, check};

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
