// SPDX-License-Identifier: GPL-2.0-only

//! Which blocks a recipient writes past the operating system's cache.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use clone_innodb::clock::SystemClock;
use clone_innodb::destination::{
    BlockInput, Destination, DestinationTask, Options, Target, version_locator,
};
use clone_innodb::error::{Error, Result};
use clone_io::{AlignedBuffer, is_direct, takes_direct_writes};
use clone_protocol::innodb::{
    Compression, Data, Descriptor, FileMetadata, Locator, SPACE_ID_REDO, SnapshotState, State,
};

const RUNS: fn() -> bool = || false;
const MIB: u32 = 1 << 20;

/// The byte of each block.
const BYTE: u8 = 7;

#[test]
fn large_blocks_of_file_copy_go_past_the_cache() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    if !takes_direct_writes(directory.path()) {
        println!("SKIPPED: /var/tmp takes no direct writes");
        return;
    }
    for direct in [true, false] {
        let target = directory.path().join(format!("target-{direct}"));
        let mut clone = Recipient::begin(&target, Options { direct, ..Options::default() });
        clone.state(SnapshotState::FileCopy, true);
        clone.describe(0, "./db/plain.ibd", Compression::None);
        clone.describe(1, "./db/packed.ibd", Compression::Zlib);
        // Offset, bytes, and whether the block goes past the cache if it may.
        let blocks = [
            (0, MIB, true),
            (MIB, 16 << 10, false),
            (MIB, 256 << 10, true),
            (MIB, (256 << 10) - 4096, false),
            (MIB + 512, MIB, false),
            (2 * MIB, MIB, true),
            (3 * MIB, MIB - 512, false),
        ];
        for (offset, len, is_large) in blocks {
            let written = clone.block(SnapshotState::FileCopy, 0, offset, len);
            assert_eq!(written, Some(direct && is_large), "{offset} {len}");
        }
        // The pages of this file leave holes: the recipient writes them itself.
        let written = clone.block(SnapshotState::FileCopy, 1, 0, MIB);
        assert_eq!(written, None);
        clone.state(SnapshotState::FileCopy, false);
        clone.state(SnapshotState::PageCopy, true);
        let page = clone.block(SnapshotState::PageCopy, 0, MIB, 16 << 10);
        assert_eq!(page, Some(false));
        clone.state(SnapshotState::PageCopy, false);
        clone.state(SnapshotState::RedoCopy, true);
        clone.describe_redo();
        let redo = clone.block(SnapshotState::RedoCopy, 0, MIB, MIB);
        assert_eq!(redo, Some(false));
        let bytes = fs::read(target.join("db/plain.ibd")).unwrap();
        assert!(bytes == vec![BYTE; 4 * MIB as usize - 512]);
        clone.end();
    }
}

/// 4 MiB in the first chunk, with pages of 16 KiB.
fn file() -> FileMetadata<'static> {
    FileMetadata {
        state: SnapshotState::FileCopy,
        file_size: (4 * MIB).into(),
        allocated_size: (4 * MIB).into(),
        fsp_flags: 0x4021,
        block_size: 4096,
        compression: Compression::None,
        encrypted: false,
        renamed: false,
        deleted: false,
        space_id: 0,
        file_index: 0,
        first_chunk: 1,
        last_chunk: 1,
        name: b"file",
        key: None,
    }
}

/// The master of a clone, and what a donor tells it.
struct Recipient {
    master: DestinationTask,
    input: Input,
}

impl Recipient {
    fn begin(target: &Path, options: Options) -> Self {
        let version = Locator::parse(&version_locator()).unwrap();
        let locator = Locator { state: SnapshotState::Init, ..version };
        let clock = Arc::new(SystemClock::default());
        let destination = Destination::create(&locator, target, options, clock).unwrap();
        let master = destination.add_task(&RUNS, &locator).unwrap();
        Self { master, input: Input::default() }
    }

    fn apply(&mut self, descriptor: Descriptor<'_>) {
        let mut bytes = Vec::new();
        descriptor.encode(&mut bytes);
        self.master.apply(&RUNS, &bytes, &mut self.input).unwrap();
    }

    fn state(&mut self, state: SnapshotState, start: bool) {
        self.apply(Descriptor::State(State {
            state,
            task: 0,
            chunks: 2,
            files: 2,
            estimate: 0,
            estimate_disk: 0,
            start,
            ack: false,
        }));
    }

    fn describe(&mut self, index: u32, name: &str, compression: Compression) {
        self.apply(Descriptor::FileMetadata(FileMetadata {
            compression,
            space_id: 100 + index,
            file_index: index,
            first_chunk: index + 1,
            last_chunk: index + 1,
            name: name.as_bytes(),
            ..file()
        }));
    }

    fn describe_redo(&mut self) {
        let (state, space_id) = (SnapshotState::RedoCopy, SPACE_ID_REDO);
        self.apply(Descriptor::FileMetadata(FileMetadata { state, space_id, ..file() }));
    }

    fn block(&mut self, state: SnapshotState, file: u32, offset: u32, len: u32) -> Option<bool> {
        self.input.written = None;
        self.apply(Descriptor::Data(Data {
            state,
            task: 0,
            chunk: file + 1,
            block: 0,
            file_index: file,
            data_len: len,
            file_offset: offset.into(),
            file_size: (4 * MIB).into(),
        }));
        self.input.written
    }

    fn end(self) {
        self.master.end(&RUNS, 1317).unwrap();
    }
}

#[derive(Default)]
struct Input {
    /// Whether the last block went past the cache; none if the recipient wrote it itself.
    written: Option<bool>,
    buffer: AlignedBuffer,
}

impl BlockInput for Input {
    fn write_to(&mut self, target: &Target<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.written = Some(is_direct(file));
        let file = File::from(file.try_clone_to_owned().unwrap());
        let written = clone_io::write_all(file.as_fd(), self.read(target)?);
        written.map_err(|error| Error::caller(1026, error))
    }

    fn read(&mut self, target: &Target<'_>) -> Result<&mut [u8]> {
        let bytes = self.buffer.aligned(target.len as usize).unwrap();
        bytes.fill(BYTE);
        Ok(bytes)
    }

    fn acknowledge(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}
