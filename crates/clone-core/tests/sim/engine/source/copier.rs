// SPDX-License-Identifier: GPL-2.0-only

//! What a task of a donor sends (`clone0copy.cc`).

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;

use clone_core::engine::{BlockOutput, View};
use clone_core::error::Result;
use clone_protocol::innodb::{
    Compression, Data, Descriptor, FileMetadata, SPACE_ID_REDO, SnapshotState, State, TaskMetadata,
};

use super::Source;
use crate::sim::engine::content::{Block, fsp_flags};
use crate::sim::engine::encode;
use crate::sim::engine::tasks::{ALERT, MASTER};
use crate::sim::faults::Step;
use crate::sim::session::SimSession;

/// What the present state has to send.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    chunks: Vec<Vec<Block>>,
    /// Data files when the snapshot began.
    data_files: usize,
    /// The first chunk of each file and the last, in FILE_COPY and REDO_COPY.
    ranges: Vec<(u32, u32)>,
}

/// One task that copies.
pub(super) struct Copier<'a> {
    source: &'a Source,
    session: &'a SimSession,
    task: u32,
    callbacks: RefCell<&'a mut dyn BlockOutput>,
    /// Redo files that this task has described in this state.
    redo: RefCell<Vec<usize>>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a Source,
        session: &'a SimSession,
        task: u32,
        callbacks: &'a mut dyn BlockOutput,
    ) -> Self {
        let callbacks = RefCell::new(callbacks);
        Self { source, session, task, callbacks, redo: RefCell::default() }
    }

    pub(super) fn copy(&self) -> Result<()> {
        let tasks = &self.source.tasks;
        self.describe(&Descriptor::TaskMetadata(TaskMetadata {
            task: self.task,
            chunk: 0,
            block: 0,
        }))?;
        if tasks.takes_state_again(self.task) {
            self.start_state()?;
        } else if self.task == MASTER && tasks.is_metadata_missing() {
            self.describe_files()?;
        }
        while tasks.state() != SnapshotState::Done {
            match tasks.reserve(self.session, self.task)? {
                Some((chunk, block)) => self.send_chunk(chunk, block)?,
                None => self.next_state()?,
            }
        }
        Ok(())
    }

    fn next_state(&self) -> Result<()> {
        let tasks = &self.source.tasks;
        if tasks.needs_acknowledgement(self.task) {
            self.describe(&Descriptor::State(self.state(false)))?;
            tasks.wait_for_acknowledgement(self.session, self.task, |_| self.keep_alive())?;
        }
        let next = tasks.state().next().unwrap();
        tasks.enter(self.session, self.task, next, |_| self.keep_alive(), || self.prepare(next))?;
        self.redo.borrow_mut().clear();
        self.start_state()
    }

    /// The master makes the snapshot's next state.
    fn prepare(&self, state: SnapshotState) -> Result<u32> {
        let innodb = &self.session.host.innodb;
        innodb.step(self.session, Step::Enter(state))?;
        match state {
            SnapshotState::FileCopy => {
                let mut content = innodb.content();
                content.begin();
                content.write_to(self.source.directory.path());
                self.source.snapshot.lock().unwrap().data_files = content.files.len();
            }
            SnapshotState::PageCopy => {
                innodb.content().work_late(self.source.directory.path());
            }
            SnapshotState::RedoCopy => {
                // Waiting for the binary log can take minutes.
                let rounds = self.session.host.facts().gtid_rounds;
                let rounds = rounds.unwrap_or_else(|| innodb.rng().below(8));
                for _ in 0..rounds {
                    innodb.sim.sleep(ALERT);
                    self.keep_alive()?;
                }
                innodb.content().make_redo(self.session.host.commits.look());
            }
            _ => {}
        }
        let content = innodb.content();
        let mut snapshot = self.source.snapshot.lock().unwrap();
        snapshot.chunks = content.cut(state);
        let files = match state {
            SnapshotState::RedoCopy => content.redo_files(),
            _ => snapshot.data_files,
        };
        snapshot.ranges = ranges(&snapshot.chunks, files);
        Ok(u32::try_from(snapshot.chunks.len()).unwrap())
    }

    fn send_chunk(&self, chunk: u32, from: u32) -> Result<()> {
        let state = self.source.tasks.state();
        let innodb = &self.session.host.innodb;
        if state == SnapshotState::FileCopy {
            innodb.content().work(self.source.directory.path());
        }
        let blocks = self.source.snapshot.lock().unwrap().chunks[chunk as usize - 1].clone();
        for (number, block) in (from + 1..).zip(&blocks[from as usize..]) {
            self.source.tasks.check_error(self.session)?;
            innodb.step(self.session, Step::Copy(state))?;
            self.source.tasks.sent(self.task, chunk, number);
            if state == SnapshotState::RedoCopy && !self.redo.borrow().contains(&block.file) {
                self.describe_redo(block.file)?;
                self.redo.borrow_mut().push(block.file);
            }
            self.send_block(state, chunk, number, *block)?;
        }
        Ok(())
    }

    fn send_block(&self, state: SnapshotState, chunk: u32, block: u32, part: Block) -> Result<()> {
        let innodb = &self.session.host.innodb;
        let (bytes, file_size) = {
            let content = innodb.content();
            let size = match state {
                SnapshotState::RedoCopy => content.redo_len(part.file),
                _ => content.files[part.file].bytes.len(),
            };
            (content.bytes(state, part).to_vec(), size)
        };
        let data = encode(&Descriptor::Data(Data {
            state,
            task: self.task,
            chunk,
            block,
            file_index: u32::try_from(part.file).unwrap(),
            data_len: u32::try_from(part.len).unwrap(),
            file_offset: part.offset as u64,
            file_size: file_size as u64,
        }));
        let from_file = state == SnapshotState::FileCopy && innodb.chance(50);
        let view = View {
            descriptor: &data,
            source_name: "data file",
            is_os_buffer_cached: innodb.chance(70),
            is_zero_copy: innodb.chance(70),
            ..View::default()
        };
        if !from_file {
            return self.callbacks.borrow_mut().buffer(&view, &bytes);
        }
        let path = self.source.directory.path().join(part.file.to_string());
        let mut file = File::open(path).unwrap();
        file.seek(SeekFrom::Start(part.offset as u64)).unwrap();
        self.callbacks.borrow_mut().file(&view, file.as_fd(), u32::try_from(part.len).unwrap())
    }

    fn start_state(&self) -> Result<()> {
        if self.task == MASTER {
            self.describe_new_files()?;
        }
        self.describe(&Descriptor::State(self.state(true)))?;
        if self.task == MASTER { self.describe_files() } else { Ok(()) }
    }

    /// Files that DDL has made since the snapshot began come before the start of PAGE_COPY.
    fn describe_new_files(&self) -> Result<()> {
        if self.source.tasks.state() != SnapshotState::PageCopy {
            return Ok(());
        }
        let known = self.source.snapshot.lock().unwrap().data_files;
        let all = self.session.host.innodb.content().files.len();
        (known..all).try_for_each(|file| self.describe_data(file, (1, 0)))
    }

    fn describe_files(&self) -> Result<()> {
        let ranges = self.source.snapshot.lock().unwrap().ranges.clone();
        match self.source.tasks.state() {
            SnapshotState::FileCopy => {
                let mut files = ranges.into_iter().enumerate();
                files.try_for_each(|(file, range)| self.describe_data(file, range))
            }
            SnapshotState::RedoCopy => {
                (0..ranges.len()).try_for_each(|file| self.describe_redo(file))
            }
            _ => Ok(()),
        }
    }

    fn describe_data(&self, file: usize, (first_chunk, last_chunk): (u32, u32)) -> Result<()> {
        let content = self.session.host.innodb.content();
        let (name, space_id) = (content.files[file].name.clone(), content.files[file].space_id);
        let size = content.files[file].bytes.len() as u64;
        let is_encrypted = content.shape.is_encrypted && file == 1;
        drop(content);
        let instance = self.session.host.facts().variables["innodb_page_size"].parse().unwrap();
        self.describe_securely(
            &Descriptor::FileMetadata(FileMetadata {
                state: self.source.tasks.state(),
                file_size: size,
                allocated_size: size,
                fsp_flags: if file == 0 { u32::MAX } else { fsp_flags(instance) },
                block_size: 4096,
                compression: Compression::None,
                encrypted: is_encrypted,
                renamed: false,
                deleted: false,
                space_id,
                file_index: u32::try_from(file).unwrap(),
                first_chunk,
                last_chunk,
                name: name.as_bytes(),
                key: None,
            }),
            is_encrypted,
        )
    }

    fn describe_redo(&self, file: usize) -> Result<()> {
        let (first_chunk, last_chunk) = self.source.snapshot.lock().unwrap().ranges[file];
        let size = self.session.host.innodb.content().redo_len(file) as u64;
        self.describe(&Descriptor::FileMetadata(FileMetadata {
            state: SnapshotState::RedoCopy,
            file_size: size,
            allocated_size: size,
            fsp_flags: u32::MAX,
            block_size: 4096,
            compression: Compression::None,
            encrypted: false,
            renamed: false,
            deleted: false,
            space_id: SPACE_ID_REDO,
            file_index: u32::try_from(file).unwrap(),
            first_chunk,
            last_chunk,
            name: b"",
            key: None,
        }))
    }

    fn keep_alive(&self) -> Result<()> {
        self.describe(&Descriptor::State(State { ack: true, ..self.state(false) }))
    }

    fn state(&self, start: bool) -> State {
        let snapshot = self.source.snapshot.lock().unwrap();
        let state = self.source.tasks.state();
        let blocks = snapshot.chunks.iter().flatten();
        let estimate: usize = if start && self.task == MASTER {
            blocks.clone().map(|block| block.len).sum()
        } else {
            0
        };
        let files = match state {
            SnapshotState::PageCopy => blocks.count(),
            SnapshotState::FileCopy | SnapshotState::RedoCopy => snapshot.ranges.len(),
            _ => 0,
        };
        State {
            state,
            task: self.task,
            chunks: u32::try_from(snapshot.chunks.len()).unwrap(),
            files: u32::try_from(files).unwrap(),
            estimate: estimate as u64,
            estimate_disk: estimate as u64,
            start,
            ack: false,
        }
    }

    fn describe(&self, descriptor: &Descriptor<'_>) -> Result<()> {
        self.describe_securely(descriptor, false)
    }

    fn describe_securely(&self, descriptor: &Descriptor<'_>, is_secure: bool) -> Result<()> {
        let descriptor = encode(descriptor);
        let view = View { descriptor: &descriptor, is_secure, ..View::default() };
        self.callbacks.borrow_mut().buffer(&view, &[])
    }
}

/// The first and the last chunk of each file; for one without, the last is one less than the first.
fn ranges(chunks: &[Vec<Block>], files: usize) -> Vec<(u32, u32)> {
    let mut first = 1;
    (0..files)
        .map(|file| {
            let count = chunks.iter().filter(|blocks| blocks[0].file == file).count();
            let last = first + u32::try_from(count).unwrap() - 1;
            let range = (first, last);
            first = last + 1;
            range
        })
        .collect()
}
