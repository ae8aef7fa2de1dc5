// SPDX-License-Identifier: GPL-2.0-only

//! How many chunks and files each state has.

use std::collections::BTreeMap;

use super::invalid_state;
use crate::ProtocolError;
use crate::innodb::SnapshotState;
use crate::innodb::State;

/// The most chunks in a state. InnoDB's bitmap takes half a byte for each, and with more a restart
/// locator would exceed [`MAX_LOCATOR_LEN`](crate::MAX_LOCATOR_LEN); see there for how much data
/// that is.
const MAX_CHUNKS: u32 = 1 << 27;

/// The most data files. InnoDB takes a pointer for each at once, so 128 MiB here. The smallest
/// tablespace is 7 pages, which makes this many 1.75 TiB of empty tables at 16 KiB.
const MAX_DATA_FILES: u32 = 1 << 24;

/// The least bytes that a donor estimates for a data file. The smallest tablespace has 4 pages,
/// which 5.7 made, of 1 KiB (`KEY_BLOCK_SIZE=1`). Newer ones have 7.
const MIN_FILE_ESTIMATE: u64 = 4 << 10;

/// So many data files need no estimate.
const FEW_DATA_FILES: u64 = 1000;

/// The most redo files. A donor gives up beyond 1000 (`SRV_N_LOG_FILES_CLONE_MAX`).
const MAX_REDO_FILES: u32 = 1 << 16;

/// The totals of each state that started.
#[derive(Debug, Default)]
pub(super) struct Totals {
    states: BTreeMap<SnapshotState, Total>,
}

impl Totals {
    /// Whether the start of a state says what it said before: the donor settles both numbers when
    /// it enters a state (`init_file_copy`, `init_page_copy`, `init_redo_copy`), all its tasks read
    /// them there (`get_state_info`), and a restart does not change them.
    pub(super) fn agree(&self, state: &State) -> Result<(), ProtocolError> {
        let said = Total { chunks: state.chunks, files: state.files };
        if said.chunks > MAX_CHUNKS {
            return Err(invalid_state(format_args!("{} chunks", said.chunks)));
        }
        let most_files = match state.state {
            SnapshotState::FileCopy => MAX_DATA_FILES,
            SnapshotState::RedoCopy => MAX_REDO_FILES,
            // Not files; in PAGE_COPY it is the number of pages, of which InnoDB keeps nothing.
            _ => u32::MAX,
        };
        if said.files > most_files {
            return Err(invalid_state(format_args!("{} files", said.files)));
        }
        match self.states.get(&state.state) {
            Some(before) if *before != said => Err(invalid_state(format_args!(
                "{} chunks and {} files in {}, before {} and {}",
                said.chunks, said.files, state.state, before.chunks, before.files
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the master's start of FILE_COPY estimates enough bytes for its number of files. Both
    /// estimates count each file: its size, and what the file takes on the disk with the redo log
    /// (`add_node`). Sparse files may take less than their size, so the larger one counts.
    ///
    /// This keeps a mistaken number out. A donor that lies about both is stopped by
    /// [`MAX_DATA_FILES`] only.
    pub(super) fn require_estimate(state: &State) -> Result<(), ProtocolError> {
        let estimate = state.estimate.max(state.estimate_disk);
        let most = (estimate / MIN_FILE_ESTIMATE).saturating_add(FEW_DATA_FILES);
        if state.state == SnapshotState::FileCopy && u64::from(state.files) > most {
            return Err(invalid_state(format_args!("{} files in {estimate} bytes", state.files)));
        }
        Ok(())
    }

    /// Notes the master's totals, which are those that InnoDB uses.
    pub(super) fn announce(&mut self, state: &State) {
        let total = Total { chunks: state.chunks, files: state.files };
        self.states.insert(state.state, total);
    }

    /// Chunks in a state; 0 before it started.
    pub(super) fn chunks(&self, state: SnapshotState) -> u32 {
        self.states.get(&state).map_or(0, |total| total.chunks)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Total {
    chunks: u32,
    files: u32,
}
