// SPDX-License-Identifier: GPL-2.0-only

//! The callbacks of clone-core as `clone_innodb` sees them when it applies a clone: where blocks
//! come from. Sometimes it takes a block as a buffer and sometimes has it written to the file, and
//! a test can interfere.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use clone_core::engine::{self, View};
use clone_innodb::destination::{BlockInput, Target};
use clone_innodb::error::Result;
use clone_protocol::innodb::SnapshotState;

use super::carried;
use crate::sim::faults::{Action, Step};
use crate::sim::session::SimSession;

/// What O_DIRECT asks of a buffer.
const ALIGNMENT: usize = 4096;

/// The blocks of a task.
pub(super) struct SimInput<'a> {
    pub(super) session: &'a SimSession,
    pub(super) callbacks: &'a mut dyn engine::BlockInput,
    /// The state that the clone is in.
    pub(super) state: SnapshotState,
}

impl SimInput<'_> {
    fn view<'a>(&self, target: &Target<'a>) -> View<'a> {
        let innodb = &self.session.host.innodb;
        View {
            destination_name: target.name,
            is_os_buffer_cached: innodb.chance(60),
            is_zero_copy: innodb.chance(50),
            ..View::default()
        }
    }
}

impl BlockInput for SimInput<'_> {
    fn write_to(&mut self, target: &Target<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let innodb = &self.session.host.innodb;
        let view = self.view(target);
        let step = innodb.step(self.session, Step::Write(self.state)).map_err(carried)?;
        let by_buffer = innodb.chance(40);
        match step {
            Action::Skip => {
                drop(self.callbacks.apply_buffer(&view));
                Ok(())
            }
            Action::DiskFull => {
                let full = File::options().write(true).open("/dev/full").unwrap();
                self.callbacks.apply_file(&view, full.as_fd()).map_err(carried)
            }
            _ if by_buffer => {
                let bytes = self.callbacks.apply_buffer(&view).map_err(carried)?;
                assert_eq!(bytes.len(), target.len as usize);
                let is_aligned = bytes.as_ptr().addr().is_multiple_of(ALIGNMENT);
                assert!(view.is_os_buffer_cached || is_aligned);
                let file = File::from(file.try_clone_to_owned().unwrap());
                file.write_all_at(bytes, target.offset).unwrap();
                Ok(())
            }
            _ => {
                let mut duplicate = File::from(file.try_clone_to_owned().unwrap());
                assert_eq!(duplicate.stream_position().unwrap(), target.offset);
                self.callbacks.apply_file(&view, file).map_err(carried)?;
                let end = target.offset + u64::from(target.len);
                assert!(duplicate.seek(SeekFrom::End(0)).unwrap() >= end, "a block is missing");
                Ok(())
            }
        }
    }

    fn read(&mut self, target: &Target<'_>) -> Result<&mut [u8]> {
        let view = self.view(target);
        self.callbacks.apply_buffer(&view).map_err(carried)
    }

    fn state_changed(&mut self, _: SnapshotState, estimate: u64) {
        let view = View { state_change: Some(estimate), ..View::default() };
        // InnoDB does not look at the result either.
        let _ = self.callbacks.change_state(&view);
    }

    fn acknowledge(&mut self, descriptor: &[u8]) -> Result<()> {
        let view = View { descriptor, ..View::default() };
        self.callbacks.change_state(&view).map_err(carried)
    }
}
