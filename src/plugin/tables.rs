// SPDX-License-Identifier: GPL-2.0-only

//! `performance_schema.clone_status` and `performance_schema.clone_progress`, with the stock
//! plugin's columns, and `performance_schema.clone_checks`, which the stock plugin does not have.

use std::ffi::CStr;
use std::sync::Arc;

use clone_core::checks::{Check, Finding};
use clone_core::progress::{Progress, Stage};
use clone_core::status::{State, Status};

use super::loaded::host;
use crate::server::load_error::LoadError;
use crate::server::pfs::{self, RegisteredTables, Snapshot, Table, Value};

/// Creates the tables.
pub(super) fn add() -> Result<RegisteredTables, LoadError> {
    pfs::Tables::new()?
        .with::<CloneStatus>()
        .with::<CloneProgress>()
        .with::<CloneChecks>()
        .register()
}

struct CloneStatus;

impl Table for CloneStatus {
    const NAME: &'static CStr = c"clone_status";
    const ROWS: u64 = 1;

    fn columns(has_text: bool) -> &'static CStr {
        if has_text {
            c"`ID` int,`PID` int,`STATE` char(16),`BEGIN_TIME` timestamp(3) NULL,\
              `END_TIME` timestamp(3) NULL,`SOURCE` varchar(512),`DESTINATION` varchar(512),\
              `ERROR_NO` int,`ERROR_MESSAGE` varchar(512),`BINLOG_FILE` varchar(512),\
              `BINLOG_POSITION` bigint,`GTID_EXECUTED` longtext"
        } else {
            c"`ID` int,`PID` int,`STATE` char(16),`BEGIN_TIME` timestamp(3) NULL,\
              `END_TIME` timestamp(3) NULL,`SOURCE` varchar(512),`DESTINATION` varchar(512),\
              `ERROR_NO` int,`ERROR_MESSAGE` varchar(512),`BINLOG_FILE` varchar(512),\
              `BINLOG_POSITION` bigint,`GTID_EXECUTED` varchar(4096)"
        }
    }

    fn snapshot() -> Box<dyn Snapshot> {
        Box::new(StatusRow(host().and_then(|host| host.board().status())))
    }
}

/// No row before the first clone.
struct StatusRow(Option<Status>);

impl Snapshot for StatusRow {
    fn rows(&self) -> usize {
        usize::from(self.0.is_some())
    }

    fn column(&self, _: usize, column: usize) -> Value<'_> {
        let Some(status) = &self.0 else { return Value::Null };
        match column {
            0 => Value::UnsignedInt(status.id),
            1 => Value::UnsignedInt(status.pid),
            2 => Value::Char(status.state.name()),
            3 => Value::TimestampMicros(status.begin_us),
            4 => Value::TimestampMicros(status.end_us),
            5 => Value::Varchar(status.source.as_str()),
            6 => Value::Varchar(status.destination.as_str()),
            7 => Value::UnsignedInt(status.error_number),
            8 => Value::Varchar(status.error_message.as_str()),
            9 => Value::Varchar(status.binlog_base_name()),
            10 => Value::UnsignedBigInt(status.binlog_position),
            11 => Value::Text(&status.gtid_executed),
            _ => Value::Null,
        }
    }
}

struct CloneProgress;

impl Table for CloneProgress {
    const NAME: &'static CStr = c"clone_progress";
    const ROWS: u64 = Stage::ALL.len() as u64;

    fn columns(_: bool) -> &'static CStr {
        c"`ID` int,`STAGE` char(32),`STATE` char(16),`BEGIN_TIME` timestamp(6) NULL,\
          `END_TIME` timestamp(6) NULL,`THREADS` int,`ESTIMATE` bigint,`DATA` bigint,\
          `NETWORK` bigint,`DATA_SPEED` int,`NETWORK_SPEED` int"
    }

    fn snapshot() -> Box<dyn Snapshot> {
        Box::new(ProgressRows(host().and_then(|host| host.board().progress())))
    }
}

/// A row for each stage, once a clone has begun its first.
struct ProgressRows(Option<Progress>);

impl Snapshot for ProgressRows {
    fn rows(&self) -> usize {
        if self.0.is_some() { Stage::ALL.len() } else { 0 }
    }

    fn column(&self, row: usize, column: usize) -> Value<'_> {
        let (Some(progress), Some(&stage)) = (&self.0, Stage::ALL.get(row)) else {
            return Value::Null;
        };
        let at = progress.stage(stage);
        let is_running = at.state == State::InProgress;
        match column {
            0 => Value::UnsignedInt(progress.id),
            1 => Value::Char(stage.name()),
            2 => Value::Char(at.state.name()),
            3 => Value::TimestampMicros(at.begin_us),
            4 => Value::TimestampMicros(at.end_us),
            5 => Value::UnsignedInt(at.threads),
            6 => Value::UnsignedBigInt(at.estimate),
            7 => Value::UnsignedBigInt(at.data),
            8 => Value::UnsignedBigInt(at.network),
            9 if is_running => Value::UnsignedInt(progress.data_speed(stage)),
            10 if is_running => Value::UnsignedInt(progress.network_speed(stage)),
            9 | 10 => Value::UnsignedInt(0),
            _ => Value::Null,
        }
    }
}

struct CloneChecks;

impl Table for CloneChecks {
    const NAME: &'static CStr = c"clone_checks";
    const ROWS: u64 = Check::ALL.len() as u64;

    fn columns(_: bool) -> &'static CStr {
        c"`CHECK_NAME` char(32),`RESULT` char(16),`ERROR_NUMBER` int,`MESSAGE` varchar(512),\
          `REMEDY` varchar(512)"
    }

    fn snapshot() -> Box<dyn Snapshot> {
        Box::new(CheckRows(host().map(|host| host.findings()).unwrap_or_default()))
    }
}

/// A row for each result of the last clone over the network.
struct CheckRows(Arc<[Finding]>);

impl Snapshot for CheckRows {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn column(&self, row: usize, column: usize) -> Value<'_> {
        let Some(finding) = self.0.get(row) else { return Value::Null };
        match column {
            0 => Value::Char(finding.check.name()),
            1 => Value::Char(finding.outcome.name()),
            2 => Value::UnsignedInt(finding.number),
            3 => Value::Varchar(cut(&finding.text)),
            4 => Value::Varchar(cut(&finding.remedy)),
            _ => Value::Null,
        }
    }
}

/// The beginning of a text, as long as the column is.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(512)]
}
