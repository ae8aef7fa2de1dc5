// SPDX-License-Identifier: GPL-2.0-only

//! A clone within a process: what the donor's engine copies is handed to the recipient's.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::thread;

use clone_engine::Begun;
use clone_engine::BlockInput;
use clone_engine::BlockOutput;
use clone_engine::Cancel;
use clone_engine::DynEngine;
use clone_engine::Error;
use clone_engine::Mode;
use clone_engine::Result;
use clone_engine::TaskId;
use clone_engine::View;
use clone_io::AlignedBuffer;
use clone_io::CopyError;

/// A session that is never killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alive;

impl Cancel for Alive {
    fn is_killed(&self) -> bool {
        false
    }
}

/// The recipient's buffer, in bytes: the most that is copied at once.
const BUFFER: u32 = 1 << 20;

/// Clones from `donor` to `client`, which may be one, with so many tasks.
///
/// # Errors
/// The engines', of the main task.
pub fn clone(
    donor: &DynEngine,
    client: &DynEngine,
    directory: Option<&Path>,
    tasks: u32,
) -> Result<()> {
    let from = donor.begin(&Alive, None, Mode::Start, 0)?;
    let to = match client.apply_begin(&Alive, Some(&from.locator), Mode::Start, directory) {
        Ok(to) => to,
        Err(error) => {
            donor.end(&Alive, task_of(&from), error.number())?;
            return Err(error);
        }
    };
    let outcome = thread::scope(|scope| {
        for _ in 1..tasks {
            scope.spawn(|| {
                // A worker's error is in the engines by then, where the main task finds it.
                let Ok(from) = donor.begin(&Alive, Some(&from.locator), Mode::AddTask, 0) else {
                    return;
                };
                let to = client.apply_begin(&Alive, Some(&to.locator), Mode::AddTask, directory);
                let outcome = match &to {
                    Ok(to) => {
                        let mut copier = Copier::new(client, task_of(to));
                        donor.copy(&Alive, task_of(&from), BUFFER, &mut copier)
                    }
                    Err(error) => Err(error.clone()),
                };
                let error = outcome.err().map_or(0, |error| error.number());
                if let Ok(to) = to {
                    let _ = client.apply_end(&Alive, task_of(&to), error);
                }
                let _ = donor.end(&Alive, task_of(&from), error);
            });
        }
        let mut copier = Copier::new(client, task_of(&to));
        let outcome = donor.copy(&Alive, task_of(&from), BUFFER, &mut copier);
        if let Err(error) = &outcome {
            let _ = client.apply_error(&Alive, task_of(&to), error.number());
        }
        outcome
    });
    let error = outcome.as_ref().err().map_or(0, Error::number);
    let applied = client.apply_end(&Alive, task_of(&to), error);
    let ended = donor.end(&Alive, task_of(&from), error);
    outcome.and(applied).and(ended)
}

/// The task that has begun, in a clone of one engine.
pub(crate) fn task_of(begun: &Begun) -> TaskId<'_> {
    TaskId { locator: &begun.locator, number: begun.task, index: 0 }
}

/// Takes what the donor copies, and has the client apply it.
struct Copier<'a> {
    client: &'a DynEngine,
    task: TaskId<'a>,
    buffer: AlignedBuffer,
}

impl<'a> Copier<'a> {
    fn new(client: &'a DynEngine, task: TaskId<'a>) -> Self {
        Self { client, task, buffer: AlignedBuffer::new() }
    }

    fn apply(&mut self, view: &View<'_>, block: Block<'_>) -> Result<()> {
        let mut applier = Applier { source: *view, block, buffer: &mut self.buffer };
        self.client.apply(&Alive, self.task, view.descriptor, &mut applier)
    }
}

impl BlockOutput for Copier<'_> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.apply(view, Block::File(file, len))
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.apply(view, Block::Memory(data))
    }
}

/// Data of the donor.
enum Block<'a> {
    /// So many bytes from the file's current offset.
    File(BorrowedFd<'a>, u32),
    Memory(&'a [u8]),
}

/// Feeds the client from a block.
struct Applier<'a> {
    source: View<'a>,
    block: Block<'a>,
    buffer: &'a mut AlignedBuffer,
}

impl BlockInput for Applier<'_> {
    fn change_state(&mut self, _: &View<'_>) -> Result<()> {
        Err(Error::Internal("the RocksDB client has no states".to_owned()))
    }

    fn apply_file(&mut self, view: &View<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let written = |error| Error::file(true, view.destination_name, &error);
        match self.block {
            Block::Memory(data) => clone_io::write_all(to, data).map_err(written),
            Block::File(from, len) => {
                let zero_copy = self.source.is_zero_copy || view.is_zero_copy;
                let buffer = &mut *self.buffer;
                clone_io::copy_file_to_file(
                    from,
                    to,
                    u64::from(len),
                    zero_copy,
                    buffer,
                    BUFFER as usize,
                )
                .map_err(|error| match error {
                    CopyError::Read(error) => Error::file(false, self.source.source_name, &error),
                    CopyError::Write(error) => written(error),
                })
            }
        }
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        Err(Error::Internal("the RocksDB client writes to files".to_owned()))
    }
}
