// SPDX-License-Identifier: GPL-2.0-only

//! The row of `performance_schema.clone_status`, and the file in which it outlives the server.

use std::fmt::Write as _;

pub use crate::text::Text;
use crate::text::{Numbers, int, lines};

use crate::donor_list::address;
use crate::error::number::{ER_INTERNAL_ERROR, ER_QUERY_INTERRUPTED};
use crate::recovery::Recovery;

/// What SOURCE and DESTINATION show for the server itself.
pub const LOCAL_INSTANCE: &str = "LOCAL INSTANCE";

/// ID of a clone. There is one at a time, so all have the same.
pub(crate) const CLONE_ID: u32 = 1;

/// The error text in the file of a running clone. The next start reads it if this server dies.
const INTERRUPTED: &str = "Query execution was interrupted";

/// What the row says about cloned data with which the server could not start.
const RECOVERY_FAILED: &str =
    "Recovery failed. Please Retry Clone. For details, look into server error log.";

/// How far a clone, or a stage of it, is. The numbers are those of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has not begun.
    #[default]
    NotStarted = 0,
    /// It is running, or waits for the restart of the server.
    InProgress = 1,
    /// It succeeded.
    Completed = 2,
    /// It failed.
    Failed = 3,
}

impl State {
    /// What the column STATE shows.
    pub fn name(self) -> &'static str {
        match self {
            State::NotStarted => "Not Started",
            State::InProgress => "In Progress",
            State::Completed => "Completed",
            State::Failed => "Failed",
        }
    }

    /// The state with this number in a file; any other number is no state.
    pub(crate) fn from_number(number: u32) -> State {
        match number {
            1 => State::InProgress,
            2 => State::Completed,
            3 => State::Failed,
            _ => State::NotStarted,
        }
    }
}

/// The last clone of this server (`clone_status.h:Status_pfs::Data`).
///
/// Times are microseconds since the Unix epoch, 0 for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// ID of the clone. 0 means that there is none, and then the table is empty.
    pub id: u32,
    /// Connection id of the session that cloned, 0 after a restart of the server.
    pub pid: u32,
    /// How far the clone is.
    pub state: State,
    /// When it began.
    pub begin_us: u64,
    /// When it ended, after a restart the time when the server had recovered the cloned data.
    pub end_us: u64,
    /// The donor as [`address`] spells it, or [`LOCAL_INSTANCE`].
    pub source: Text,
    /// The directory of the cloned data, or [`LOCAL_INSTANCE`].
    pub destination: Text,
    /// MySQL's number of the error that ended the clone, or 0.
    pub error_number: u32,
    /// The text of that error.
    pub error_message: Text,
    /// The donor's binary log up to which the cloned data goes, as the donor names it: with a
    /// directory.
    pub binlog_file: Text,
    /// Offset in that binary log.
    pub binlog_position: u64,
    /// The donor's GTID set that the cloned data contains. Can have several lines.
    pub gtid_executed: String,
}

impl Status {
    /// The status of a clone that begins now.
    pub(crate) fn begin(
        pid: u32,
        source: Option<(&str, u16)>,
        destination: Option<&str>,
        now_us: u64,
    ) -> Status {
        let source = match source {
            Some((host, port)) => address(host, port),
            None => LOCAL_INSTANCE.to_owned(),
        };
        Status {
            id: CLONE_ID,
            pid,
            state: State::InProgress,
            begin_us: now_us,
            source: source.as_str().into(),
            destination: destination.unwrap_or(LOCAL_INSTANCE).into(),
            ..Status::default()
        }
    }

    /// The clone has ended, with `error` or without. One that replaced the server's own data stays
    /// in progress if it succeeded: the server has to restart with the new data, and tells the end
    /// by [`Recovery`].
    pub(crate) fn end(&mut self, error: Option<(u32, &str)>, is_replace: bool, now_us: u64) {
        self.end_us = now_us;
        match error {
            Some((number, message)) => self.fail(number, message),
            None if is_replace => {}
            None => self.state = State::Completed,
        }
    }

    /// What the server noted when it started with the cloned data.
    pub(crate) fn complete(&mut self, recovery: &Recovery) {
        if let Some(file) = &recovery.binlog_file {
            self.binlog_file = file.clone();
        }
        if let Some(position) = recovery.binlog_position {
            self.binlog_position = position;
        }
        if let Some(set) = &recovery.gtid_executed {
            self.gtid_executed.clone_from(set);
        }
        if recovery.has_succeeded() {
            self.state = State::Completed;
            self.error_number = 0;
            self.error_message = Text::default();
        } else {
            self.fail(ER_INTERNAL_ERROR, RECOVERY_FAILED);
        }
        self.end_us = recovery.end_us;
    }

    /// For a status that the server found when it started, without a [`Recovery`]: a clone that was
    /// running when the server died has failed. The stock plugin shows it as running for ever.
    ///
    /// A clone that had replaced the data is in progress too, but without an error; it is left
    /// alone.
    pub(crate) fn settle_interrupted(&mut self) {
        if self.state == State::InProgress && self.error_number == ER_QUERY_INTERRUPTED {
            self.state = State::Failed;
        }
    }

    fn fail(&mut self, number: u32, message: &str) {
        self.state = State::Failed;
        self.error_number = int(number.into());
        self.error_message = message.into();
    }

    /// What the column BINLOG_FILE shows: the name without its directory.
    pub fn binlog_base_name(&self) -> &str {
        self.binlog_file.rsplit('/').next().unwrap_or_default()
    }

    /// The file `#view_status` for a clone that has ended.
    pub(crate) fn render(&self) -> String {
        self.render_with(self.error_number, &self.error_message.line())
    }

    /// The file `#view_status` for a clone that is running.
    pub(crate) fn render_running(&self) -> String {
        self.render_with(ER_QUERY_INTERRUPTED, INTERRUPTED)
    }

    /// `clone_status.cc:Status_pfs::Data::write`. Line by line: state and ID; begin and end;
    /// source; error number; error text; binary log file; position in it; GTID set, the only one
    /// that may go over several lines.
    fn render_with(&self, error_number: u32, error_message: &str) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "{} {}\n{} {}\n{}\n{error_number}\n{error_message}\n{}\n{}\n{}\n",
            self.state as u32,
            self.id,
            self.begin_us,
            self.end_us,
            self.source.line(),
            self.binlog_file.line(),
            self.binlog_position,
            self.gtid_executed,
        );
        text
    }

    /// Reads the file `#view_status`. The session is gone, and the data is this server's own now.
    pub(crate) fn parse(file: &[u8]) -> Status {
        let text = String::from_utf8_lossy(file);
        let mut lines = lines(&text);
        let mut line = Numbers::of(lines.next());
        let (state, id) = (State::from_number(line.int()), line.int());
        let mut line = Numbers::of(lines.next());
        let (begin_us, end_us) = (line.bigint(), line.bigint());
        Status {
            id,
            pid: 0,
            state,
            begin_us,
            end_us,
            source: lines.next().unwrap_or_default().into(),
            destination: LOCAL_INSTANCE.into(),
            error_number: Numbers::of(lines.next()).int(),
            error_message: lines.next().unwrap_or_default().into(),
            binlog_file: lines.next().unwrap_or_default().into(),
            binlog_position: Numbers::of(lines.next()).bigint(),
            gtid_executed: lines.collect::<Vec<_>>().join("\n"),
        }
    }
}

#[cfg(test)]
mod tests;
