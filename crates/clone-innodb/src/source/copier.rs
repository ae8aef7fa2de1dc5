// SPDX-License-Identifier: GPL-2.0-only

//! What a task of a donor sends (`clone0copy.cc`).

use std::cell::RefCell;
use std::os::fd::AsFd;

use clone_protocol::innodb::{
    Compression, Data, Descriptor, FileMetadata, SPACE_ID_REDO, SnapshotState, State, TaskMetadata,
};
use zeroize::Zeroize;

use super::files::{FileChange, FileChangeKind, RedoFile, SourceBlock, SourceFile, SourceFiles};
use super::{BlockOutput, Output, Source};
use crate::clock::Cancel;
use crate::error::{Error, Result};
use crate::geometry::{Block, Layout, count};
use crate::tasks::MASTER;
use crate::tasks::chunks::Position;

/// What the present state has to send.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    layout: Layout,
    /// All data files, with the chunks that each has in FILE_COPY.
    data: Vec<DataFile>,
    /// Data files when FILE_COPY began.
    data_total: u32,
    redo: Vec<RedoFile>,
    /// What DDL did in the state before.
    changes: Vec<FileChange>,
}

#[derive(Debug, Clone)]
struct DataFile {
    file: SourceFile,
    chunks: (u32, u32),
}

/// The chunks of a file that was created after FILE_COPY began: none.
const NO_CHUNKS: (u32, u32) = (1, 0);

/// One task that copies.
pub(super) struct Copier<'a> {
    source: &'a Source,
    task: u32,
    cancel: &'a dyn Cancel,
    files: &'a dyn SourceFiles,
    output: RefCell<&'a mut dyn BlockOutput>,
    /// Redo files that this task has described in this state.
    redo: RefCell<Vec<u32>>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a Source,
        task: u32,
        cancel: &'a dyn Cancel,
        files: &'a dyn SourceFiles,
        output: &'a mut dyn BlockOutput,
    ) -> Self {
        let output = RefCell::new(output);
        Self { source, task, cancel, files, output, redo: RefCell::default() }
    }

    pub(super) fn copy(&self) -> Result<()> {
        let tasks = &self.source.tasks;
        let task = TaskMetadata { task: self.task, chunk: 0, block: 0 };
        self.describe(&Descriptor::TaskMetadata(task))?;
        if tasks.takes_state_again(self.task) {
            self.start_state()?;
        } else if self.task == MASTER && tasks.is_metadata_missing() {
            self.describe_files()?;
        }
        while tasks.state() != SnapshotState::Done {
            match tasks.reserve(self.cancel, self.task)? {
                Some(from) => self.send_chunk(from)?,
                None => self.next_state()?,
            }
        }
        Ok(())
    }

    fn next_state(&self) -> Result<()> {
        let tasks = &self.source.tasks;
        if tasks.needs_acknowledgement(self.task) {
            self.describe(&Descriptor::State(self.state(false)))?;
            tasks.wait_for_acknowledgement(self.cancel, self.task, || self.keep_alive())?;
        }
        let next = tasks.state().next();
        let next = next.ok_or_else(|| Error::internal("no state after DONE"))?;
        let keep_alive = || self.keep_alive();
        tasks.enter(self.cancel, self.task, next, keep_alive, || self.prepare(next))?;
        self.redo.borrow_mut().clear();
        self.start_state()
    }

    /// The master makes the snapshot's next state, and gives its number of chunks.
    fn prepare(&self, state: SnapshotState) -> Result<u32> {
        let keep_alive = &mut || self.keep_alive();
        let geometry = self.source.geometry;
        let (layout, changes, redo) = match state {
            SnapshotState::FileCopy => {
                let files = self.files.file_copy(keep_alive)?;
                let sizes: Vec<_> = files.iter().map(|file| file.size).collect();
                let layout = geometry.files(&sizes);
                let ranges = layout.ranges.iter().copied();
                let data = files.into_iter().zip(ranges);
                let data: Vec<_> = data.map(|(file, chunks)| DataFile { file, chunks }).collect();
                let mut snapshot = self.source.snapshot();
                snapshot.data_total = count(data.len());
                snapshot.data = data;
                (layout, Vec::new(), Vec::new())
            }
            SnapshotState::PageCopy => {
                let copy = self.files.page_copy(keep_alive)?;
                (geometry.pages(&copy.pages), copy.changes, Vec::new())
            }
            SnapshotState::RedoCopy => {
                let copy = self.files.redo_copy(keep_alive)?;
                let data: Vec<_> = copy.files.iter().map(|file| file.data.clone()).collect();
                (geometry.redo(&data, copy.trailer), copy.changes, copy.files)
            }
            _ => {
                self.files.done()?;
                (Layout::default(), Vec::new(), Vec::new())
            }
        };
        let mut snapshot = self.source.snapshot();
        let chunks = count(layout.chunks.len());
        snapshot.layout = layout;
        snapshot.redo = redo;
        snapshot.change(&changes)?;
        snapshot.changes = changes;
        Ok(chunks)
    }

    fn send_chunk(&self, from: Position) -> Result<()> {
        let state = self.source.tasks.state();
        self.files.begin_chunk(state, from.chunk);
        let blocks = {
            let snapshot = self.source.snapshot();
            let at = (from.chunk as usize).checked_sub(1);
            let chunk = at.and_then(|at| snapshot.layout.chunks.get(at));
            chunk.cloned().ok_or_else(|| Error::internal("a chunk that the state does not have"))?
        };
        for (number, block) in (1..).zip(&blocks).skip(from.block as usize) {
            self.source.tasks.check_error(self.cancel)?;
            let bytes = self.files.read(state, block)?;
            let at = Position { chunk: from.chunk, block: number };
            self.source.tasks.sent(self.task, at);
            if let SourceBlock::Dropped = bytes {
                self.describe_dropped(block.file, from.chunk)?;
                if state == SnapshotState::FileCopy {
                    return Ok(());
                }
                continue;
            }
            if state == SnapshotState::RedoCopy && !self.redo.borrow().contains(&block.file) {
                self.describe_redo(block.file)?;
                self.redo.borrow_mut().push(block.file);
            }
            self.send_block(state, at, block, bytes)?;
        }
        Ok(())
    }

    fn send_block(
        &self,
        state: SnapshotState,
        at: Position,
        block: &Block,
        bytes: SourceBlock,
    ) -> Result<()> {
        let (file, mut bytes, file_size) = match bytes {
            SourceBlock::File { file, file_size } => (Some(file), Vec::new(), file_size),
            SourceBlock::Bytes { bytes, file_size } => (None, bytes, file_size),
            SourceBlock::Dropped => return Ok(()),
        };
        let (name, is_encrypted) = {
            let snapshot = self.source.snapshot();
            match state {
                SnapshotState::RedoCopy => {
                    (format!("redo file {}", block.file), snapshot.redo(block.file).encrypted)
                }
                _ => (snapshot.name(block.file), snapshot.is_encrypted(block.file)),
            }
        };
        let descriptor = encode(&Descriptor::Data(Data {
            state,
            task: self.task,
            chunk: at.chunk,
            block: at.block,
            file_index: block.file,
            data_len: block.len,
            file_offset: block.offset,
            file_size,
        }));
        // FILE_COPY sends no key in clear. A page of PAGE_COPY and the redo header may have one.
        let is_secure = is_encrypted && state != SnapshotState::FileCopy;
        let output = Output { descriptor: &descriptor, name: &name, is_secure };
        if let Some(file) = file {
            return self.output.borrow_mut().file(&output, file.as_fd(), block.len);
        }
        if bytes.len() as u64 != u64::from(block.len) {
            return Err(Error::internal(format!(
                "{} bytes of {name} instead of {}",
                bytes.len(),
                block.len
            )));
        }
        let sent = self.output.borrow_mut().buffer(&output, &bytes);
        if is_secure {
            bytes.zeroize();
        }
        sent
    }

    fn start_state(&self) -> Result<()> {
        if self.task == MASTER {
            let state = self.source.tasks.state();
            let changes = self.source.snapshot().changes.clone();
            for change in &changes {
                let chunks = self.source.snapshot().chunks(change.index);
                let file = metadata(state, change.index, &change.file, chunks);
                self.describe_file(FileMetadata {
                    renamed: change.kind == FileChangeKind::Renamed,
                    deleted: change.kind == FileChangeKind::Deleted,
                    ..file
                })?;
            }
        }
        self.describe(&Descriptor::State(self.state(true)))?;
        if self.task == MASTER { self.describe_files() } else { Ok(()) }
    }

    fn describe_files(&self) -> Result<()> {
        let state = self.source.tasks.state();
        match state {
            SnapshotState::FileCopy => {
                let files = self.source.snapshot().data.clone();
                (0..).zip(&files).try_for_each(|(index, data)| {
                    self.describe_file(metadata(state, index, &data.file, data.chunks))
                })
            }
            SnapshotState::RedoCopy => {
                let files = count(self.source.snapshot().redo.len());
                (0..files).try_for_each(|file| self.describe_redo(file))
            }
            _ => Ok(()),
        }
    }

    /// A task that came to a chunk, in PAGE_COPY to a page, of a dropped file says so at once. The
    /// chunk is the first of the two that the descriptor has.
    fn describe_dropped(&self, index: u32, chunk: u32) -> Result<()> {
        let data = self.source.snapshot().data.get(index as usize).cloned();
        let data = data.ok_or_else(|| Error::internal("a file that the donor does not have"))?;
        let file = metadata(self.source.tasks.state(), index, &data.file, (chunk, 0));
        self.describe_file(FileMetadata { deleted: true, ..file })
    }

    fn describe_redo(&self, index: u32) -> Result<()> {
        let (file, (first_chunk, last_chunk)) = {
            let snapshot = self.source.snapshot();
            let range = snapshot.layout.ranges.get(index as usize).copied();
            (snapshot.redo(index), range.unwrap_or(NO_CHUNKS))
        };
        self.describe_file(FileMetadata {
            state: SnapshotState::RedoCopy,
            file_size: file.size,
            allocated_size: file.size,
            fsp_flags: u32::MAX,
            block_size: 4096,
            compression: Compression::None,
            encrypted: file.encrypted,
            renamed: false,
            deleted: false,
            space_id: SPACE_ID_REDO,
            file_index: index,
            first_chunk,
            last_chunk,
            name: b"",
            key: None,
        })
    }

    fn describe_file(&self, file: FileMetadata<'_>) -> Result<()> {
        let is_secure = file.encrypted;
        self.send(&Descriptor::FileMetadata(file), is_secure)
    }

    fn keep_alive(&self) -> Result<()> {
        self.describe(&Descriptor::State(State { ack: true, ..self.state(false) }))
    }

    fn state(&self, start: bool) -> State {
        let snapshot = self.source.snapshot();
        let state = self.source.tasks.state();
        let estimate = if start && self.task == MASTER { snapshot.layout.bytes() } else { 0 };
        let files = match state {
            SnapshotState::FileCopy => snapshot.data_total,
            SnapshotState::PageCopy => {
                count(snapshot.layout.chunks.iter().map(Vec::len).sum::<usize>())
            }
            SnapshotState::RedoCopy => count(snapshot.redo.len()),
            _ => 0,
        };
        State {
            state,
            task: self.task,
            chunks: count(snapshot.layout.chunks.len()),
            files,
            estimate,
            estimate_disk: estimate,
            start,
            ack: false,
        }
    }

    fn describe(&self, descriptor: &Descriptor<'_>) -> Result<()> {
        self.send(descriptor, false)
    }

    fn send(&self, descriptor: &Descriptor<'_>, is_secure: bool) -> Result<()> {
        let descriptor = encode(descriptor);
        let output = Output { descriptor: &descriptor, name: "", is_secure };
        self.output.borrow_mut().buffer(&output, &[])
    }
}

impl Snapshot {
    /// Applies what DDL did to the list of files.
    fn change(&mut self, changes: &[FileChange]) -> Result<()> {
        for change in changes {
            let at = change.index as usize;
            let files = self.data.len();
            match (self.data.get_mut(at), change.kind) {
                (Some(data), FileChangeKind::Renamed | FileChangeKind::Altered) => {
                    data.file = change.file.clone();
                }
                (Some(_), FileChangeKind::Deleted) => {}
                (None, FileChangeKind::Created) if at == files => {
                    self.data.push(DataFile { file: change.file.clone(), chunks: NO_CHUNKS });
                }
                _ => return Err(Error::internal(format!("DDL of file {at} out of order"))),
            }
        }
        Ok(())
    }

    fn chunks(&self, index: u32) -> (u32, u32) {
        self.data.get(index as usize).map_or(NO_CHUNKS, |data| data.chunks)
    }

    fn is_encrypted(&self, index: u32) -> bool {
        self.data.get(index as usize).is_some_and(|data| data.file.encrypted)
    }

    /// A redo file, and an empty one for an index that the state does not have.
    fn redo(&self, index: u32) -> RedoFile {
        let empty = RedoFile { size: 0, data: 0..0, encrypted: false };
        self.redo.get(index as usize).cloned().unwrap_or(empty)
    }

    fn name(&self, index: u32) -> String {
        let data = self.data.get(index as usize);
        data.map_or_else(String::new, |data| String::from_utf8_lossy(&data.file.name).into_owned())
    }
}

fn metadata(
    state: SnapshotState,
    file_index: u32,
    file: &SourceFile,
    (first_chunk, last_chunk): (u32, u32),
) -> FileMetadata<'_> {
    FileMetadata {
        state,
        file_size: file.size,
        allocated_size: file.allocated,
        fsp_flags: file.fsp_flags,
        block_size: file.block_size,
        compression: file.compression,
        encrypted: file.encrypted,
        renamed: false,
        deleted: false,
        space_id: file.space_id,
        file_index,
        first_chunk,
        last_chunk,
        name: &file.name,
        key: None,
    }
}

fn encode(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    descriptor.encode(&mut bytes);
    bytes
}
