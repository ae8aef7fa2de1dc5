// SPDX-License-Identifier: GPL-2.0-only

//! A donor whose files are bytes in memory, and a connection from its tasks to those of a
//! recipient.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::mpsc::SyncSender;

use clone_innodb::destination::{BlockInput, Target};
use clone_innodb::error::{Error, Result};
use clone_innodb::geometry::{Block, Geometry, REDO_HEADER};
use clone_innodb::source::{
    BlockOutput, FileChange, FileChangeKind, Output, PageCopy, RedoCopy, RedoFile, SourceBlock,
    SourceFile, SourceFiles,
};
use clone_protocol::innodb::{Compression, SnapshotState};

/// Bytes of a page of the instance and of each file.
pub(crate) const PAGE: usize = 4096;
const FSP_FLAGS: u32 = 3 << 6;

pub(crate) const GEOMETRY: Geometry =
    Geometry { page_size: PAGE as u32, pages_in_block: 2, blocks_in_chunk: 4 };

/// Six files, of which DDL renames one, drops one and adds another in FILE_COPY, and renames one in
/// PAGE_COPY.
pub(crate) struct Server {
    state: Mutex<State>,
}

struct State {
    files: Vec<Table>,
    redo: Vec<Vec<u8>>,
    changed: BTreeSet<(usize, usize)>,
}

#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_dropped: bool,
}

impl Server {
    pub(crate) fn new() -> Self {
        let names = ["ibdata1", "./db/a.ibd", "./db/b.ibd", "./db/c.ibd", "undo_001", "./db/e.ibd"];
        let files = (0..).zip(names).map(|(number, name)| Table {
            name: name.to_owned(),
            bytes: noise(number, (9 + 5 * number as usize) * PAGE),
            is_dropped: false,
        });
        let redo = (0..2).map(|number| noise(100 + number, 40_000)).collect();
        let state = State { files: files.collect(), redo, changed: BTreeSet::new() };
        Self { state: Mutex::new(state) }
    }

    /// The files that a clone must have, and the redo.
    #[allow(dead_code, reason = "not all tests look at what arrived")]
    pub(crate) fn expected(&self) -> (Vec<Table>, Vec<Vec<u8>>) {
        let state = self.state.lock().unwrap();
        let there = state.files.iter().filter(|file| !file.is_dropped);
        (there.cloned().collect(), state.redo.clone())
    }
}

/// Bytes that differ by their seed.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| ((seed + 7).wrapping_mul(at ^ 0x9e37_79b9) >> 13) as u8).collect()
}

impl State {
    fn source_file(&self, index: usize) -> SourceFile {
        let size = self.files[index].bytes.len() as u64;
        let space_id = match index {
            0 => 0,
            4 => 0xFFFF_FFEF,
            index => 100 + index as u32,
        };
        SourceFile {
            name: self.files[index].name.clone().into_bytes(),
            space_id,
            size,
            allocated: size,
            fsp_flags: FSP_FLAGS,
            block_size: 4096,
            compression: Compression::None,
            encrypted: false,
        }
    }

    fn change(&self, index: usize, kind: FileChangeKind) -> FileChange {
        FileChange { index: index as u32, file: self.source_file(index), kind }
    }

    fn write(&mut self, file: usize, page: usize, seed: u32) {
        self.files[file].bytes[page * PAGE..][..PAGE].copy_from_slice(&noise(seed, PAGE));
        self.changed.insert((file, page));
    }
}

impl SourceFiles for Server {
    fn file_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<Vec<SourceFile>> {
        let state = self.state.lock().unwrap();
        Ok((0..state.files.len()).map(|file| state.source_file(file)).collect())
    }

    fn page_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<PageCopy> {
        let mut state = self.state.lock().unwrap();
        for page in 0..30 {
            state.write(5, page, 500 + page as u32);
        }
        state.write(0, 3, 600);
        state.files[1].name = "./db/renamed.ibd".to_owned();
        state.files[2].is_dropped = true;
        state.files.push(Table {
            name: "./db/new.ibd".to_owned(),
            bytes: noise(700, 8 * PAGE),
            is_dropped: false,
        });
        state.changed.extend((0..8).map(|page| (6, page)));
        let changes = [
            (1, FileChangeKind::Renamed),
            (2, FileChangeKind::Deleted),
            (6, FileChangeKind::Created),
        ];
        let changes = changes.into_iter().map(|(index, kind)| state.change(index, kind)).collect();
        let pages = state.changed.iter().map(|(file, page)| Block {
            file: *file as u32,
            offset: (page * PAGE) as u64,
            len: PAGE as u32,
        });
        Ok(PageCopy { changes, pages: pages.collect() })
    }

    fn redo_copy(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<RedoCopy> {
        let mut state = self.state.lock().unwrap();
        // The name that the other file had before.
        state.files[3].name = "./db/a.ibd".to_owned();
        let changes = vec![state.change(3, FileChangeKind::Renamed)];
        let files = vec![
            RedoFile { size: 40_000, data: REDO_HEADER.into()..40_000, encrypted: false },
            RedoFile { size: 40_000, data: 0..30_000, encrypted: false },
        ];
        Ok(RedoCopy { changes, files, trailer: Block { file: 1, offset: 30_000, len: 512 } })
    }

    /// The file with the chunks 5 to 7 is dropped when a task comes to the second of them.
    fn begin_chunk(&self, state: SnapshotState, chunk: u32) {
        if (state, chunk) == (SnapshotState::FileCopy, 6) {
            self.state.lock().unwrap().files[2].is_dropped = true;
        }
    }

    fn read(&self, state: SnapshotState, block: &Block) -> Result<SourceBlock> {
        let server = self.state.lock().unwrap();
        let bytes = match state {
            SnapshotState::RedoCopy => &server.redo[block.file as usize],
            _ if server.files[block.file as usize].is_dropped => return Ok(SourceBlock::Dropped),
            _ => &server.files[block.file as usize].bytes,
        };
        let part = bytes[block.offset as usize..][..block.len as usize].to_vec();
        let file_size = bytes.len() as u64;
        if !block.offset.is_multiple_of(16 << 10) {
            return Ok(SourceBlock::Bytes { bytes: part, file_size });
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&part).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Ok(SourceBlock::File { file, file_size })
    }
}

/// A descriptor and the bytes behind it.
pub(crate) type Packet = (Vec<u8>, Vec<u8>);

/// The donor's end of a connection, which breaks when the other end is gone.
pub(crate) struct Sender {
    pub(crate) packets: SyncSender<Packet>,
}

impl Sender {
    fn send(&mut self, output: &Output<'_>, data: Vec<u8>) -> Result<()> {
        let sent = self.packets.send((output.descriptor.to_vec(), data));
        sent.map_err(|_| Error::caller(1160, "broken"))
    }
}

impl BlockOutput for Sender {
    fn file(&mut self, output: &Output<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        let mut bytes = vec![0; len as usize];
        File::from(file.try_clone_to_owned().unwrap()).read_exact(&mut bytes).unwrap();
        self.send(output, bytes)
    }

    fn buffer(&mut self, output: &Output<'_>, data: &[u8]) -> Result<()> {
        self.send(output, data.to_vec())
    }
}

/// The recipient's end of a connection.
pub(crate) struct Input<'a> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) acknowledge: &'a dyn Fn(&[u8]) -> Result<()>,
}

impl BlockInput for Input<'_> {
    fn write_to(&mut self, target: &Target<'_>, file: BorrowedFd<'_>) -> Result<()> {
        let mut file = File::from(file.try_clone_to_owned().unwrap());
        file.write_all(self.read(target)?).map_err(|error| Error::caller(1026, error))
    }

    fn read(&mut self, target: &Target<'_>) -> Result<&mut [u8]> {
        if self.bytes.len() as u64 != u64::from(target.len) {
            return Err(Error::caller(1158, "a block of another length"));
        }
        Ok(&mut self.bytes)
    }

    fn acknowledge(&mut self, descriptor: &[u8]) -> Result<()> {
        (self.acknowledge)(descriptor)
    }
}
