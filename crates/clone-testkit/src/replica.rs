// SPDX-License-Identifier: GPL-2.0-only

//! The proof that a clone is exactly the donor at the position it reports.
//!
//! A clone made under writes cannot be compared with a donor that has moved on. So it becomes the
//! donor's replica, starting at the reported position: a transaction that the clone lacks or has
//! twice makes the applier fail or leaves a difference. Once it has caught up, both must hold the
//! same.
//!
//! The GTIDs can always be relied on. The file position cannot if DDL ran while the clone was made,
//! with any plugin: InnoDB may note the position of a `DROP TABLE` after that of later
//! transactions, so that it lies before what the clone has; and the clone may lack the GTID of an
//! `OPTIMIZE TABLE` that lies before the position, since the server saves it apart (both seen with
//! MySQL 9.7.4 and the stock plugin).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::clone::Status;
use crate::mysqld::Mysqld;
use crate::sql::literal;
use crate::verify;
use crate::writer::{self, Writers};

/// How long a clone may take to catch up with its donor.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);

const USER: &str = "replica";
const PASSWORD: &str = "replica secret";

/// Which coordinates of `clone_status` a replica starts from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StartFrom {
    /// `BINLOG_FILE` and `BINLOG_POSITION`.
    File,
    /// The set of executed GTIDs, by auto-positioning.
    Gtid,
}

/// Creates the donor's account for replicas.
pub fn make_source(donor: &Mysqld) -> Result<()> {
    donor.session()?.run_all([
        &*format!("CREATE USER {USER} IDENTIFIED BY {}", literal(PASSWORD)),
        &*format!("GRANT REPLICATION SLAVE ON *.* TO {USER}"),
    ])
}

/// Makes the clone that has this status a replica of its donor.
pub fn attach(clone: &Mysqld, donor: &Mysqld, status: &Status, from: StartFrom) -> Result<()> {
    let start = match from {
        StartFrom::Gtid => "SOURCE_AUTO_POSITION = 1".into(),
        StartFrom::File => format!(
            "SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = {}, SOURCE_LOG_POS = {}",
            literal(&status.binlog_file),
            status.binlog_position
        ),
    };
    clone.session()?.run_all([
        &*format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{}', SOURCE_PORT = {}, \
             SOURCE_USER = '{USER}', SOURCE_PASSWORD = {}, GET_SOURCE_PUBLIC_KEY = 1, \
             SOURCE_CONNECT_RETRY = 1, {start}",
            donor.address(),
            donor.port(),
            literal(PASSWORD)
        ),
        "START REPLICA",
    ])
}

/// Waits until the replica has applied all that the donor has executed by now, and checks that it
/// has executed nothing else. Fails at once when replication breaks.
pub fn catch_up(clone: &Mysqld, donor: &Mysqld) -> Result<()> {
    let executed: String = donor.session()?.one("SELECT @@GLOBAL.gtid_executed")?;
    let executed = literal(&executed);
    let mut session = clone.session()?;
    crate::until("the replica to catch up", CATCH_UP_LIMIT, || {
        let error: Option<(u32, String)> = session.first(
            "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE FROM ( \
             SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE \
             FROM performance_schema.replication_connection_status UNION ALL \
             SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE \
             FROM performance_schema.replication_applier_status_by_worker) AS e \
             WHERE LAST_ERROR_NUMBER <> 0",
        )?;
        if let Some((number, text)) = error {
            bail!("replication to {} broke: {number}: {text}", clone.name());
        }
        let reached: bool =
            session.one(format!("SELECT GTID_SUBSET({executed}, @@GLOBAL.gtid_executed)"))?;
        Ok(reached.then_some(()))
    })?;
    let extra: String =
        session.one(format!("SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, {executed})"))?;
    ensure!(extra.is_empty(), "{} has transactions the donor does not: {extra}", clone.name());
    Ok(())
}

/// The whole proof for a clone that was made while `writers` were at work on the donor: its tables
/// are sound, no transaction is torn, and once it has replicated what the donor wrote since, both
/// hold the same. Stops the writers.
///
/// If the proof is to start from the file position, the writers must not have run DDL; the position
/// must then agree with the GTIDs.
pub fn assert_exact(
    clone: &Mysqld,
    donor: &Mysqld,
    writers: Writers,
    status: &Status,
    from: StartFrom,
) -> Result<()> {
    writer::check_invariants(&mut clone.session()?)?;
    verify::assert_sound(clone)?;
    writers.await_transactions(20)?;
    if from == StartFrom::File {
        check_coordinates(donor, status)?;
    }
    attach(clone, donor, status, from)?;
    writers.stop()?;
    catch_up(clone, donor)?;
    verify::assert_equal(donor, clone)
}

/// Checks that the file position and the GTIDs of a status name the same place in the donor's
/// binary log: the first transaction after the position is the first that is not in the set.
///
/// Tells nothing when nothing follows the position in its file.
pub fn check_coordinates(donor: &Mysqld, status: &Status) -> Result<()> {
    type Event = (String, u64, String, u64, u64, String);

    ensure!(!status.gtid_executed.is_empty(), "clone_status has no GTIDs");
    let mut session = donor.session()?;
    let event: Option<Event> = session.first(format!(
        "SHOW BINLOG EVENTS IN {} FROM {} LIMIT 1",
        literal(&status.binlog_file),
        status.binlog_position
    ))?;
    let Some((_, _, kind, _, _, info)) = event.filter(|event| event.2 != "Rotate") else {
        return Ok(());
    };
    ensure!(kind == "Gtid", "a {kind} event follows the position of the clone");
    // SET @@SESSION.GTID_NEXT= 'uuid:number'
    let next = info.split('\'').nth(1).context("a Gtid event without GTID")?;
    let (uuid, number) = next.rsplit_once(':').context("a GTID without number")?;
    let before = match number.parse::<u64>()? - 1 {
        0 => String::new(),
        last => format!("{uuid}:1-{last}"),
    };
    let same: bool = session.one(format!(
        "SELECT GTID_SUBTRACT({set}, {before}) = '' AND GTID_SUBTRACT({before}, {set}) = ''",
        set = literal(&status.gtid_executed),
        before = literal(&before)
    ))?;
    ensure!(
        same,
        "the transaction after the clone's position is {next}, but the clone has {}",
        status.gtid_executed
    );
    Ok(())
}
