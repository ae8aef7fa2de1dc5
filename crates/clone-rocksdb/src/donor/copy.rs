// SPDX-License-Identifier: GPL-2.0-only

//! The loop of one task: what it sends, and how.

use std::os::fd::AsFd;

use clone_engine::BlockOutput;
use clone_engine::Cancel;
use clone_engine::Error;
use clone_engine::Result;
use clone_engine::View;
use clone_protocol::rocksdb::AddEstimate;
use clone_protocol::rocksdb::Descriptor;
use clone_protocol::rocksdb::FileChunk;
use clone_protocol::rocksdb::FileName;
use clone_protocol::rocksdb::FileNameMap;
use clone_protocol::rocksdb::FileSize;

use super::files::Content;
use super::files::Taken;
use super::snapshot::Snapshot;
use super::snapshot::Step;

/// The largest chunk, in bytes.
pub(super) const MAX_CHUNK: u32 = 1 << 20;

/// One task at work.
pub(super) struct Copy<'a> {
    snapshot: &'a Snapshot,
    session: &'a dyn Cancel,
    output: &'a mut dyn BlockOutput,
    /// In bytes.
    chunk: u32,
    descriptor: Vec<u8>,
    /// Stands in for the bytes of obsolete files.
    filler: Vec<u8>,
}

impl<'a> Copy<'a> {
    /// `buffer_size` is that of the applying side in bytes, or 0.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        session: &'a dyn Cancel,
        buffer_size: u32,
        output: &'a mut dyn BlockOutput,
    ) -> Self {
        let chunk = if buffer_size == 0 { MAX_CHUNK } else { buffer_size.min(MAX_CHUNK) };
        Self { snapshot, session, output, chunk, descriptor: Vec::new(), filler: Vec::new() }
    }

    /// Sends whatever `task` finds to send.
    pub(super) fn run(&mut self, task: u32) -> Result<()> {
        loop {
            match self.snapshot.next(self.session, task)? {
                Step::Estimate(bytes) => self.estimate(bytes)?,
                Step::Send(taken) => {
                    self.file(&taken)?;
                    self.snapshot.sent(&taken)?;
                }
                Step::Done => return Ok(()),
            }
        }
    }

    fn estimate(&mut self, bytes: u64) -> Result<()> {
        let sent = self.announce(&Descriptor::AddEstimate(AddEstimate { bytes }), "");
        if sent.is_err() {
            self.snapshot.return_estimate(bytes);
        }
        sent
    }

    /// Sends one file: its name, unless the recipient has it from before, and its bytes.
    fn file(&mut self, taken: &Taken) -> Result<()> {
        let Taken { number, name, size, .. } = taken;
        if !taken.is_announced {
            let (Some(size), Some(name)) = (FileSize::new(*size), FileName::new(name.as_bytes()))
            else {
                return Err(Error::Internal(format!("RocksDB clone: file name '{name}'")));
            };
            let map = FileNameMap { file: *number, size, name };
            self.announce(&Descriptor::FileNameMap(map), name.as_str())?;
        }
        let mut left = size - taken.offset;
        while left > 0 {
            self.snapshot.check()?;
            let len = u32::try_from(left).map_or(self.chunk, |left| left.min(self.chunk));
            self.chunk(taken, len)?;
            left -= u64::from(len);
        }
        Ok(())
    }

    /// Sends the next `len` bytes. The output reads them before it sends the descriptor, so that
    /// what cannot be read is not announced.
    fn chunk(&mut self, taken: &Taken, len: u32) -> Result<()> {
        Descriptor::FileChunk(FileChunk { file: taken.number, len }).encode(&mut self.descriptor);
        let view = View {
            descriptor: &self.descriptor,
            source_name: &taken.name,
            is_os_buffer_cached: true,
            is_zero_copy: true,
            ..View::default()
        };
        match &taken.content {
            Content::File(file) => self.output.file(&view, file.as_fd(), len),
            Content::Obsolete => {
                self.filler.resize(len as usize, 0);
                self.output.buffer(&view, &self.filler)
            }
        }
    }

    /// Sends a descriptor without data.
    fn announce(&mut self, descriptor: &Descriptor<'_>, source_name: &str) -> Result<()> {
        descriptor.encode(&mut self.descriptor);
        let view = View { descriptor: &self.descriptor, source_name, ..View::default() };
        self.output.buffer(&view, &[])
    }
}
