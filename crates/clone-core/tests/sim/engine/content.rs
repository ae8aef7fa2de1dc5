// SPDX-License-Identifier: GPL-2.0-only

//! The data of a server, and how a snapshot cuts it: pages, blocks of pages, chunks of blocks.
//!
//! The units are smaller than InnoDB's, so that a simulation has many of each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use clone_core::base::BaseFile;
use clone_innodb::geometry::{Block, Geometry, Layout, REDO_HEADER};
use clone_innodb::source::{RedoFile, SourceFile};
use clone_protocol::innodb::{Compression, SPACE_ID_BUFFER_POOL, SnapshotState, SpacePlace};

use crate::sim::rng::Rng;

/// Bytes of a page: the smallest that a tablespace can have.
const PAGE: usize = 1024;

/// The tablespace flags for that: compressed to 512 << 1 bytes, at a server with this page size.
fn fsp_flags(innodb_page_size: u32) -> u32 {
    let instance = match innodb_page_size {
        16_384 => 0,
        bytes => (bytes / 512).ilog2(),
    };
    instance << 6 | 1 << 1
}

/// Gives page 0 the type that it has in every tablespace: `FIL_PAGE_TYPE_FSP_HDR`.
fn mark_page_0(bytes: &mut [u8]) {
    if let Some(page_type) = bytes.get_mut(24..26) {
        page_type.copy_from_slice(&8_u16.to_be_bytes());
    }
}

/// A tablespace of these pages that is larger than an extent ends with a whole one at the
/// recipient.
const EXTENT: usize = 64 * PAGE;

/// No tablespace that DDL creates has fewer pages.
const INITIAL_PAGES: usize = 7;

/// The end of the redo, which is a chunk of its own. So is the header.
const REDO_TRAILER: usize = 512;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContentShape {
    /// Tablespaces, beside the buffer pool dump.
    pub(crate) files: usize,
    /// Most pages of one.
    pub(crate) pages: usize,
    pub(crate) pages_in_block: usize,
    pub(crate) blocks_in_chunk: usize,
    /// Percentage of chunks sent while which the server changes a page.
    pub(crate) changes: usize,
    /// Changes right before the pages are copied.
    pub(crate) late_changes: usize,
    /// Bytes of redo in each file behind its header.
    pub(crate) redo: usize,
    pub(crate) redo_files: usize,
    /// A table is encrypted: its metadata must only go over TLS.
    pub(crate) is_encrypted: bool,
    /// Pages hold digits at first, in place of bytes that no codec makes fewer.
    pub(crate) is_text: bool,
}

impl Default for ContentShape {
    fn default() -> Self {
        Self {
            files: 3,
            pages: 40,
            pages_in_block: 4,
            blocks_in_chunk: 4,
            changes: 30,
            late_changes: 10,
            redo: 6000,
            redo_files: 2,
            is_encrypted: false,
            is_text: false,
        }
    }
}

impl ContentShape {
    /// The units in which it is cut.
    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            page_size: u32::try_from(PAGE).unwrap(),
            pages_in_block: u32::try_from(self.pages_in_block).unwrap(),
            blocks_in_chunk: u32::try_from(self.blocks_in_chunk).unwrap(),
        }
    }
}

/// All data of a server.
pub(crate) struct Content {
    pub(super) shape: ContentShape,
    rng: Rng,
    pub(super) files: Vec<Tablespace>,
    /// The redo of the newest snapshot.
    redo: Vec<Vec<u8>>,
    /// Pages that changed since the newest snapshot began.
    changed: BTreeSet<(usize, usize)>,
}

pub(super) struct Tablespace {
    pub(super) name: String,
    pub(super) space_id: u32,
    pub(super) bytes: Vec<u8>,
    /// Created after the newest snapshot began: the clone gets it by its pages.
    pub(super) is_new: bool,
}

impl Content {
    pub(super) fn new(shape: ContentShape, mut rng: Rng) -> Self {
        let dump = rng.bytes(1500);
        let mut files = vec![Tablespace {
            name: "ib_buffer_pool".to_owned(),
            space_id: SPACE_ID_BUFFER_POOL,
            bytes: dump,
            is_new: false,
        }];
        for number in 1..=shape.files {
            // Some tables are empty, which is a file without chunks.
            let pages = if rng.chance(10) { 0 } else { rng.between(1, shape.pages) };
            let mut bytes = written(&mut rng, pages);
            if shape.is_text {
                bytes.iter_mut().for_each(|byte| *byte = b'0' + *byte % 10);
            }
            files.push(Tablespace::new(number, bytes));
        }
        // The system tablespace, which has tables before it and behind it.
        if let Some(system) = files.get_mut(2) {
            (system.name, system.space_id) = ("ibdata1".to_owned(), 0);
        }
        Self { shape, rng, files, redo: Vec::new(), changed: BTreeSet::new() }
    }

    /// A snapshot begins: from now on, changes are noted.
    pub(super) fn begin(&mut self) {
        self.changed.clear();
        self.files.iter_mut().for_each(|file| file.is_new = false);
    }

    /// The server may do some work while its files are copied from `directory`.
    pub(super) fn work(&mut self, directory: &Path) {
        if !self.rng.chance(self.shape.changes) {
            return;
        }
        if self.rng.chance(90) {
            return self.change(directory);
        }
        let number = self.files.len();
        let pages = INITIAL_PAGES + self.rng.between(0, 7);
        let bytes = written(&mut self.rng, pages);
        self.files.push(Tablespace { is_new: true, ..Tablespace::new(number, bytes) });
        self.changed.extend((0..pages).map(|page| (number, page)));
    }

    /// Pages change for the last time before they are copied.
    pub(super) fn work_late(&mut self, directory: &Path) {
        (0..self.shape.late_changes).for_each(|_| self.change(directory));
    }

    fn change(&mut self, directory: &Path) {
        let file = self.rng.below(self.files.len());
        let pages = self.files[file].bytes.len() / PAGE;
        if file == 0 || pages == 0 {
            return;
        }
        let page = self.rng.below(pages);
        let mut bytes = written(&mut self.rng, 1);
        if page == 0 {
            mark_page_0(&mut bytes);
        }
        let tablespace = &mut self.files[file];
        tablespace.bytes[page * PAGE..][..PAGE].copy_from_slice(&bytes);
        if !tablespace.is_new {
            let target = File::options().write(true).open(directory.join(file.to_string()));
            target.unwrap().write_all_at(&bytes, (page * PAGE) as u64).unwrap();
        }
        self.changed.insert((file, page));
    }

    /// Puts the files where a snapshot can read them.
    pub(super) fn write_to(&self, directory: &Path) {
        for (at, file) in self.files.iter().enumerate() {
            fs::write(directory.join(at.to_string()), &file.bytes).unwrap();
        }
    }

    /// An older copy of the files in `directory`, of which every so manieth page was different.
    pub(crate) fn older_copy(&self, directory: &Path, every: usize) -> Vec<BaseFile> {
        fs::create_dir(directory).unwrap();
        let files = self.files.iter().enumerate().skip(1);
        let copies = files.map(|(number, file)| {
            let mut bytes = file.bytes.clone();
            for page in bytes.chunks_mut(PAGE).step_by(every) {
                page[PAGE / 2] ^= 0xff;
            }
            let path = directory.join(number.to_string());
            fs::write(&path, &bytes).unwrap();
            let place = SpacePlace { space_id: file.space_id, offset: 0 };
            BaseFile { place, len: bytes.len() as u64, path }
        });
        copies.collect()
    }

    /// The redo since pages are copied; it is what the snapshot ends with. Its first bytes are the
    /// number of transactions that have committed.
    pub(super) fn make_redo(&mut self, committed: u64) {
        let (files, len) = (self.shape.redo_files, self.shape.redo);
        self.redo =
            (0..files).map(|_| self.rng.bytes(REDO_HEADER as usize + len + REDO_TRAILER)).collect();
        self.redo[0][..8].copy_from_slice(&committed.to_le_bytes());
    }

    /// The redo files and the trailer.
    pub(super) fn redo_files(&self) -> (Vec<RedoFile>, Block) {
        let last = self.redo.len() - 1;
        let files = self.redo.iter().enumerate().map(|(file, bytes)| {
            let from = if file == 0 { REDO_HEADER.into() } else { 0 };
            let end = if file == last { bytes.len() - REDO_TRAILER } else { bytes.len() };
            RedoFile { size: bytes.len() as u64, data: from..end as u64, encrypted: false }
        });
        let trailer = Block {
            file: u32::try_from(last).unwrap(),
            offset: (self.redo[last].len() - REDO_TRAILER) as u64,
            len: u32::try_from(REDO_TRAILER).unwrap(),
        };
        (files.collect(), trailer)
    }

    /// The pages that changed since the newest snapshot began.
    pub(super) fn changed_pages(&self) -> Vec<Block> {
        let pages = self.changed.iter().map(|(file, page)| Block {
            file: u32::try_from(*file).unwrap(),
            offset: (page * PAGE) as u64,
            len: u32::try_from(PAGE).unwrap(),
        });
        pages.collect()
    }

    /// What a donor tells of a file.
    pub(super) fn source_file(&self, file: usize, innodb_page_size: u32) -> SourceFile {
        let tablespace = &self.files[file];
        SourceFile {
            name: tablespace.name.clone().into_bytes(),
            space_id: tablespace.space_id,
            size: tablespace.bytes.len() as u64,
            allocated: tablespace.bytes.len() as u64,
            fsp_flags: if file == 0 { u32::MAX } else { fsp_flags(innodb_page_size) },
            block_size: 4096,
            compression: Compression::None,
            encrypted: self.shape.is_encrypted && file == 1,
        }
    }

    /// The content of a block.
    pub(super) fn bytes(&self, state: SnapshotState, block: &Block) -> &[u8] {
        let at = usize::try_from(block.offset).unwrap();
        &self.file(state, block)[at..][..block.len as usize]
    }

    pub(super) fn file_size(&self, state: SnapshotState, block: &Block) -> u64 {
        self.file(state, block).len() as u64
    }

    fn file(&self, state: SnapshotState, block: &Block) -> &[u8] {
        match state {
            SnapshotState::RedoCopy => &self.redo[block.file as usize],
            _ => &self.files[block.file as usize].bytes,
        }
    }

    /// Bytes that the newest clone has to move in each state.
    pub(crate) fn transfer(&self, state: SnapshotState) -> u64 {
        let geometry = self.shape.geometry();
        let layout = match state {
            SnapshotState::FileCopy => {
                let files = self.files.iter().filter(|file| !file.is_new);
                geometry.files(&files.map(|file| file.bytes.len() as u64).collect::<Vec<_>>())
            }
            SnapshotState::PageCopy => geometry.pages(&self.changed_pages()),
            SnapshotState::RedoCopy => {
                let (files, trailer) = self.redo_files();
                let data: Vec<_> = files.into_iter().map(|file| file.data).collect();
                geometry.redo(&data, trailer)
            }
            _ => Layout::default(),
        };
        layout.bytes()
    }
}

impl Tablespace {
    fn new(number: usize, mut bytes: Vec<u8>) -> Self {
        mark_page_0(&mut bytes);
        Self {
            name: format!("./test/t{number}.ibd"),
            space_id: u32::try_from(number).unwrap(),
            bytes,
            is_new: false,
        }
    }
}

/// Pages: some are zeros, and most have only something at their beginning, so that blocks leave
/// their zeros out and pages that had something become emptier.
fn written(rng: &mut Rng, pages: usize) -> Vec<u8> {
    let mut bytes = rng.bytes(pages * PAGE);
    for page in bytes.chunks_mut(PAGE) {
        match page[0] {
            0..50 => page.fill(0),
            50..200 => page[PAGE / 2..].fill(0),
            200.. => {}
        }
    }
    bytes
}

/// Where a recipient puts a data file.
fn data_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(name.trim_start_matches("./"))
}

/// Where a recipient puts a redo file.
fn redo_path(directory: &Path, index: u32) -> PathBuf {
    directory.join("#innodb_redo").join(format!("#ib_redo{index}"))
}

/// The number of transactions in the clone `directory`.
pub(crate) fn committed(directory: &Path) -> u64 {
    let redo = fs::read(redo_path(directory, 0)).unwrap();
    u64::from_le_bytes(redo[..8].try_into().unwrap())
}

/// Compares a clone with what it was made of.
///
/// # Errors
/// What differs first.
pub(crate) fn compare(content: &Content, directory: &Path) -> Result<(), String> {
    for file in &content.files {
        let found = fs::read(data_path(directory, &file.name));
        let found = found.map_err(|error| format!("{}: {error}", file.name))?;
        let len = file.bytes.len();
        let mut expected = file.bytes.clone();
        if file.space_id != SPACE_ID_BUFFER_POOL && len > EXTENT {
            expected.resize(len.next_multiple_of(EXTENT), 0);
        }
        same(&file.name, &expected, &found)?;
    }
    for (index, bytes) in (0..).zip(&content.redo) {
        let path = redo_path(directory, index);
        let found = fs::read(&path).map_err(|error| format!("{path:?}: {error}"))?;
        same(&format!("redo {index}"), bytes, &found)?;
    }
    Ok(())
}

fn same(name: &str, expected: &[u8], found: &[u8]) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("{name}: {} bytes instead of {}", found.len(), expected.len()));
    }
    match expected.iter().zip(found).position(|(one, other)| one != other) {
        Some(at) => Err(format!("{name}: differs at {at} of {}", expected.len())),
        None => Ok(()),
    }
}
