// SPDX-License-Identifier: GPL-2.0-only

//! What the performance_schema tables of the clone plugin tell.

use std::time::Duration;

use anyhow::Result;

use crate::sql::Session;

/// The stages in their order.
pub const STAGES: [&str; 7] =
    ["DROP DATA", "FILE COPY", "PAGE COPY", "REDO COPY", "FILE SYNC", "RESTART", "RECOVERY"];

/// A row of `performance_schema.clone_progress`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stage {
    /// The clone's number.
    pub id: i64,
    /// One of [`STAGES`].
    pub name: String,
    /// `Not Started`, `In Progress`, `Completed` or `Failed`.
    pub state: String,
    /// Begin, as text.
    pub begin_time: Option<String>,
    /// End, as text.
    pub end_time: Option<String>,
    /// Threads at work.
    pub threads: u64,
    /// Expected bytes of data.
    pub estimate: u64,
    /// Bytes of data so far.
    pub data: u64,
    /// Bytes received from the network so far.
    pub network: u64,
    /// Bytes of data per second at the moment.
    pub data_speed: i64,
    /// Bytes per second from the network at the moment.
    pub network_speed: i64,
    /// From begin to end, once the stage has ended.
    pub elapsed: Option<Duration>,
}

/// The stage in which the donor's files are copied. How much the later ones copy depends on what
/// InnoDB flushes meanwhile; this one's figures of two clones can be compared.
///
/// # Panics
/// If there is none: before the first clone of a server.
pub fn file_copy(stages: &[Stage]) -> &Stage {
    stages.iter().find(|stage| stage.name == "FILE COPY").expect("a clone has begun")
}

/// The row of `performance_schema.clone_status`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// The clone's number.
    pub id: i64,
    /// The session that runs it; 0 after a restart.
    pub pid: i64,
    /// `Not Started`, `In Progress`, `Completed` or `Failed`.
    pub state: String,
    /// Begin, as text.
    pub begin_time: Option<String>,
    /// End, as text.
    pub end_time: Option<String>,
    /// `LOCAL INSTANCE` or the donor's `host:port`.
    pub source: String,
    /// The directory, or `LOCAL INSTANCE` when the recipient's data was replaced.
    pub destination: String,
    /// 0 or the error's number.
    pub error_number: i64,
    /// Empty or the error's text.
    pub error_message: String,
    /// The donor's binary log file that the clone corresponds to.
    pub binlog_file: String,
    /// The position in it.
    pub binlog_position: u64,
    /// The donor's executed GTIDs that the clone corresponds to.
    pub gtid_executed: String,
}

/// Reads `clone_progress`: no row or one for each stage.
pub fn progress(session: &mut Session) -> Result<Vec<Stage>> {
    type Row = (
        i64,
        String,
        String,
        Option<String>,
        Option<String>,
        Option<u64>,
        Option<u64>,
        Option<u64>,
        Option<u64>,
        Option<i64>,
        Option<i64>,
        Option<u64>,
    );
    let rows = session.rows(
        "SELECT *, TIMESTAMPDIFF(MICROSECOND, BEGIN_TIME, END_TIME) FROM performance_schema.clone_progress",
    )?;
    let stage = |row: Row| Stage {
        id: row.0,
        name: row.1,
        state: row.2,
        begin_time: row.3,
        end_time: row.4,
        threads: row.5.unwrap_or_default(),
        estimate: row.6.unwrap_or_default(),
        data: row.7.unwrap_or_default(),
        network: row.8.unwrap_or_default(),
        data_speed: row.9.unwrap_or_default(),
        network_speed: row.10.unwrap_or_default(),
        elapsed: row.11.map(Duration::from_micros),
    };
    Ok(rows.into_iter().map(stage).collect())
}

/// Reads `clone_status`: `None` when the server has not cloned since its data was initialised.
pub fn status(session: &mut Session) -> Result<Option<Status>> {
    type Row = (
        i64,
        i64,
        String,
        Option<String>,
        Option<String>,
        String,
        String,
        i64,
        Option<String>,
        Option<String>,
        Option<u64>,
        Option<String>,
    );
    let row = session.first("SELECT * FROM performance_schema.clone_status")?;
    let status = |row: Row| Status {
        id: row.0,
        pid: row.1,
        state: row.2,
        begin_time: row.3,
        end_time: row.4,
        source: row.5,
        destination: row.6,
        error_number: row.7,
        error_message: row.8.unwrap_or_default(),
        binlog_file: row.9.unwrap_or_default(),
        binlog_position: row.10.unwrap_or_default(),
        // The server breaks long sets into lines.
        gtid_executed: row.11.unwrap_or_default().replace('\n', ""),
    };
    Ok(row.map(status))
}
