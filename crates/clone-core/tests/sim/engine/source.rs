// SPDX-License-Identifier: GPL-2.0-only

//! A simulated server as `clone_innodb` sees it when it is a donor: its files, state by state, and
//! the callbacks of clone-core for what its tasks send.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::MutexGuard;

use clone_core::engine::{self, View};
use clone_innodb::error::{Error, Result};
use clone_innodb::geometry::Block;
use clone_innodb::source::{
    BlockOutput, FileChange, FileChangeKind, Output, PageCopy, RedoCopy, SourceBlock, SourceFile,
    SourceFiles,
};
use clone_protocol::innodb::SnapshotState;

use super::{ALERT, Content, Innodb, carried};
use crate::sim::faults::Step;
use crate::sim::session::SimSession;

/// The files of the server whose session this is.
pub(super) struct SimFiles<'a> {
    pub(super) session: &'a SimSession,
    /// Here are the files while they are copied.
    pub(super) directory: &'a Path,
}

impl SimFiles<'_> {
    fn innodb(&self) -> &Innodb {
        &self.session.host.innodb
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.innodb().content()
    }

    fn innodb_page_size(&self) -> u32 {
        self.session.host.facts().variables["innodb_page_size"].parse().unwrap()
    }

    fn step(&self, step: Step) -> Result<()> {
        self.innodb().step(self.session, step).map(drop).map_err(carried)
    }
}

impl SourceFiles for SimFiles<'_> {
    fn file_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<Vec<SourceFile>> {
        self.step(Step::Enter(SnapshotState::FileCopy))?;
        let mut content = self.content();
        content.begin();
        content.write_to(self.directory);
        let page_size = self.innodb_page_size();
        Ok((0..content.files.len()).map(|file| content.source_file(file, page_size)).collect())
    }

    fn page_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<PageCopy> {
        self.step(Step::Enter(SnapshotState::PageCopy))?;
        let mut content = self.content();
        content.work_late(self.directory);
        let page_size = self.innodb_page_size();
        let new = content.files.iter().enumerate().filter(|(_, file)| file.is_new);
        let changes = new.map(|(at, _)| FileChange {
            index: u32::try_from(at).unwrap(),
            file: content.source_file(at, page_size),
            kind: FileChangeKind::Created,
        });
        Ok(PageCopy { changes: changes.collect(), pages: content.changed_pages() })
    }

    fn redo_copy(&self, keep_alive: &mut dyn FnMut() -> Result<()>) -> Result<RedoCopy> {
        self.step(Step::Enter(SnapshotState::RedoCopy))?;
        // Waiting for the binary log can take minutes.
        let rounds = self.session.host.facts().gtid_rounds;
        let rounds = rounds.unwrap_or_else(|| self.innodb().rng().below(8));
        for _ in 0..rounds {
            self.innodb().sim.sleep(ALERT);
            keep_alive()?;
        }
        let mut content = self.content();
        content.make_redo(self.session.host.commits.look());
        let (files, trailer) = content.redo_files();
        Ok(RedoCopy { changes: Vec::new(), files, trailer })
    }

    fn done(&self) -> Result<()> {
        self.step(Step::Enter(SnapshotState::Done))
    }

    fn begin_chunk(&self, state: SnapshotState, _: u32) {
        if state == SnapshotState::FileCopy {
            self.content().work(self.directory);
        }
    }

    fn read(&self, state: SnapshotState, block: &Block) -> Result<SourceBlock> {
        self.step(Step::Copy(state))?;
        let (bytes, file_size) = {
            let content = self.content();
            (content.bytes(state, block).to_vec(), content.file_size(state, block))
        };
        if state != SnapshotState::FileCopy || !self.innodb().chance(50) {
            return Ok(SourceBlock::Bytes { bytes, file_size });
        }
        let mut file = File::open(self.directory.join(block.file.to_string())).unwrap();
        file.seek(SeekFrom::Start(block.offset)).unwrap();
        Ok(SourceBlock::File { file, file_size })
    }
}

/// What a task of `clone_innodb` sends, for the callbacks of clone-core.
pub(super) struct SimOutput<'a> {
    pub(super) session: &'a SimSession,
    pub(super) callbacks: &'a mut dyn engine::BlockOutput,
}

impl SimOutput<'_> {
    fn view<'a>(&self, output: &Output<'a>) -> View<'a> {
        let has_data = !output.name.is_empty();
        let innodb = &self.session.host.innodb;
        View {
            descriptor: output.descriptor,
            source_name: output.name,
            is_secure: output.is_secure,
            is_os_buffer_cached: has_data && innodb.chance(70),
            is_zero_copy: has_data && innodb.chance(70),
            ..View::default()
        }
    }
}

impl BlockOutput for SimOutput<'_> {
    fn file(&mut self, output: &Output<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        let view = self.view(output);
        self.callbacks.file(&view, file, len).map_err(carried)
    }

    fn buffer(&mut self, output: &Output<'_>, data: &[u8]) -> Result<(), Error> {
        let view = self.view(output);
        self.callbacks.buffer(&view, data).map_err(carried)
    }
}
