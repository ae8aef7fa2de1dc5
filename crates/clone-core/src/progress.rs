// SPDX-License-Identifier: GPL-2.0-only

//! The rows of `performance_schema.clone_progress`, and the file in which they outlive the server.

use std::fmt::Write as _;

use crate::meter::Sample;
use crate::recovery::Recovery;
use crate::status::{CLONE_ID, State};
use crate::text::{Numbers, int, lines};

/// A stage of a clone. The tasks of the clone go through the first five; the last two happen when
/// the server starts with the cloned data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The recipient's own data is removed; nothing to do for a clone into a directory.
    DropData = 1,
    /// The files are copied while the donor changes them.
    FileCopy = 2,
    /// The pages that changed meanwhile.
    PageCopy = 3,
    /// The redo log since then.
    RedoCopy = 4,
    /// The files are written to disk.
    FileSync = 5,
    /// The server restarts.
    Restart = 6,
    /// The server recovers the cloned data.
    Recovery = 7,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 7] = [
        Stage::DropData,
        Stage::FileCopy,
        Stage::PageCopy,
        Stage::RedoCopy,
        Stage::FileSync,
        Stage::Restart,
        Stage::Recovery,
    ];

    /// What the column STAGE shows.
    pub fn name(self) -> &'static str {
        match self {
            Stage::DropData => "DROP DATA",
            Stage::FileCopy => "FILE COPY",
            Stage::PageCopy => "PAGE COPY",
            Stage::RedoCopy => "REDO COPY",
            Stage::FileSync => "FILE SYNC",
            Stage::Restart => "RESTART",
            Stage::Recovery => "RECOVERY",
        }
    }

    /// The next stage of a running clone; none after FILE SYNC, the last stage before the server
    /// restarts.
    fn next(self) -> Option<Stage> {
        match self {
            Stage::DropData => Some(Stage::FileCopy),
            Stage::FileCopy => Some(Stage::PageCopy),
            Stage::PageCopy => Some(Stage::RedoCopy),
            Stage::RedoCopy => Some(Stage::FileSync),
            Stage::FileSync | Stage::Restart | Stage::Recovery => None,
        }
    }
}

/// What is known of one stage. Times are microseconds since the Unix epoch, 0 for none; amounts are
/// bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageProgress {
    /// How far the stage is.
    pub state: State,
    /// Threads that work, or worked last, on it.
    pub threads: u32,
    /// When it began.
    pub begin_us: u64,
    /// When it ended.
    pub end_us: u64,
    /// Data that it was expected to move.
    pub estimate: u64,
    /// Data that it has moved.
    pub data: u64,
    /// Bytes that this took on the network.
    pub network: u64,
}

/// The progress of the last clone (`clone_status.h:Progress_pfs::Data`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// ID of the clone. 0 means that no stage has begun, and then the table is empty.
    pub id: u32,
    current: Option<Stage>,
    data_speed: u32,
    network_speed: u32,
    stages: [StageProgress; 7],
}

impl Progress {
    /// One stage.
    pub fn stage(&self, stage: Stage) -> &StageProgress {
        &self.stages[stage as usize - 1]
    }

    fn stage_mut(&mut self, stage: Stage) -> &mut StageProgress {
        &mut self.stages[stage as usize - 1]
    }

    /// The table's rows in order.
    pub fn rows(&self) -> impl Iterator<Item = (Stage, &StageProgress)> {
        Stage::ALL.into_iter().zip(&self.stages)
    }

    /// Data bytes per second that the table shows for `stage`: only the one in progress has a
    /// speed.
    ///
    /// At most `i32::MAX`, which is what the column holds; the stock plugin shows faster clones as
    /// negative.
    pub fn data_speed(&self, stage: Stage) -> u32 {
        if self.stage(stage).state == State::InProgress { self.data_speed } else { 0 }
    }

    /// Network bytes per second, like [`data_speed`](Progress::data_speed).
    pub fn network_speed(&self, stage: Stage) -> u32 {
        if self.stage(stage).state == State::InProgress { self.network_speed } else { 0 }
    }

    /// Completes the current stage, and begins the next one. `estimate` is in bytes.
    ///
    /// After FILE SYNC there is no next stage for a clone: the stage goes on, whatever a donor
    /// says.
    pub(crate) fn next_stage(&mut self, threads: u32, estimate: u64, now_us: u64) {
        let next = match self.current {
            None => Stage::DropData,
            Some(current) => match current.next() {
                None => return,
                Some(next) => {
                    self.end_stage(State::Completed, now_us);
                    next
                }
            },
        };
        self.id = CLONE_ID;
        self.current = Some(next);
        self.data_speed = 0;
        self.network_speed = 0;
        *self.stage_mut(next) = StageProgress {
            state: State::InProgress,
            threads: int(threads.into()),
            begin_us: now_us,
            estimate: bigint(estimate),
            ..StageProgress::default()
        };
    }

    /// Adds `bytes` to the estimate of the current stage, for an engine without stages of its own.
    pub(crate) fn add_estimate(&mut self, bytes: u64) {
        if let Some(current) = self.current {
            let stage = self.stage_mut(current);
            stage.estimate = bigint(stage.estimate.saturating_add(bytes));
        }
    }

    /// The stage that was running has ended.
    pub(crate) fn end_stage(&mut self, state: State, now_us: u64) {
        if let Some(current) = self.current {
            let stage = self.stage_mut(current);
            // A clone that keeps the server's data has passed over DROP DATA.
            if stage.state == State::InProgress {
                stage.state = state;
                stage.end_us = now_us;
            }
        }
    }

    /// DROP DATA, which has begun, is put off until the others have ended.
    pub(crate) fn keep_data(&mut self) {
        *self.stage_mut(Stage::DropData) = StageProgress::default();
    }

    /// All is copied, and DROP DATA begins.
    pub(crate) fn drop_data(&mut self, now_us: u64) {
        self.end_stage(State::Completed, now_us);
        self.current = None;
        self.next_stage(1, 0, now_us);
    }

    /// The tasks have moved more.
    pub(crate) fn transferred(&mut self, sample: &Sample, threads: u32) {
        let Some(current) = self.current else { return };
        if self.stage(current).state != State::InProgress {
            return;
        }
        self.data_speed = int(sample.data_speed);
        self.network_speed = int(sample.network_speed);
        let stage = self.stage_mut(current);
        stage.threads = int(threads.into());
        stage.data = bigint(stage.data.saturating_add(sample.data_bytes));
        stage.network = bigint(stage.network.saturating_add(sample.network_bytes));
    }

    /// What the server noted when it started with the cloned data: the last two stages.
    pub(crate) fn complete(&mut self, recovery: &Recovery) {
        if let Some(begin_us) = recovery.begin_us {
            // The server starts with cloned data only if the clone had succeeded, even if it could
            // not say so any more.
            let sync = self.stage_mut(Stage::FileSync);
            if sync.end_us == 0 || sync.state != State::Completed {
                sync.end_us = begin_us;
                sync.state = State::Completed;
            }
            let sync_end_us = sync.end_us;
            let restart = self.stage_mut(Stage::Restart);
            restart.begin_us = sync_end_us;
            restart.end_us = begin_us;
            restart.state = State::Completed;
            self.stage_mut(Stage::Recovery).begin_us = begin_us;
        }
        let stage = self.stage_mut(Stage::Recovery);
        stage.end_us = recovery.end_us;
        stage.state = if recovery.has_succeeded() { State::Completed } else { State::Failed };
    }

    /// The file `#view_progress` (`clone_status.cc:Progress_pfs::Data::write`): the ID, then one
    /// line of numbers for each stage.
    ///
    /// A running stage is written as failed, which it will be if the server dies.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("{}\n", self.id);
        for stage in &self.stages {
            let state = if stage.state == State::InProgress { State::Failed } else { stage.state };
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{} {} {} {} {} {} {}",
                state as u32,
                stage.threads,
                stage.begin_us,
                stage.end_us,
                stage.estimate,
                stage.data,
                stage.network,
            );
        }
        text
    }

    /// Reads the file `#view_progress`. No stage can be running then.
    pub(crate) fn parse(file: &[u8]) -> Progress {
        let text = String::from_utf8_lossy(file);
        let mut lines = lines(&text);
        let id = Numbers::of(lines.next()).int();
        let stages = std::array::from_fn(|_| {
            let mut line = Numbers::of(lines.next());
            StageProgress {
                state: match State::from_number(line.int()) {
                    State::InProgress => State::Failed,
                    state => state,
                },
                threads: line.int(),
                begin_us: line.bigint(),
                end_us: line.bigint(),
                estimate: line.bigint(),
                data: line.bigint(),
                network: line.bigint(),
            }
        });
        Progress { id, stages, ..Progress::default() }
    }
}

/// `value`, or the greatest value of a `BIGINT` column if `value` is greater.
fn bigint(value: u64) -> u64 {
    value.min(i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests;
