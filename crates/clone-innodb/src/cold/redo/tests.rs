// SPDX-License-Identifier: GPL-2.0-only

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::encryption::MasterKey;
use crate::encryption::data_key::tests as data_key;
use crate::format::redo::FORMAT_8_0_30;
use crate::geometry::Geometry;

const SMALL: u64 = 64 << 10;

/// A log, as a server writes it.
#[derive(Clone, Debug)]
struct Written {
    /// The LSN of the first block of the first file, in blocks.
    start: u64,
    /// Sizes of the files in KiB, since 8.0.30; before, all have the first one's size.
    sizes: Vec<u64>,
    is_ring: bool,
    /// Blocks before the last.
    full: u64,
    /// Bytes of the last block.
    last_len: u16,
    /// The checkpoint, in bytes from the start.
    checkpoint: u64,
    /// Blocks from this one on are encrypted, and all headers have the key.
    encrypted_from: Option<u64>,
}

impl Written {
    fn start(&self) -> u64 {
        self.start * BLOCK as u64
    }

    fn checkpoint(&self) -> u64 {
        self.start() + self.checkpoint
    }

    fn block(&self, lsn: u64) -> Vec<u8> {
        let number = (lsn - self.start()) / BLOCK as u64;
        let mut block = empty_block(lsn, !self.is_ring);
        let len = if number < self.full { BLOCK as u16 } else { self.last_len };
        put(&mut block, 4, &len.to_be_bytes());
        for (at, byte) in block.iter_mut().enumerate().take(BLOCK - 4).skip(12) {
            *byte = (lsn / BLOCK as u64 * 31 + at as u64) as u8;
        }
        seal(&mut block);
        if self.encrypted_from.is_some_and(|from| number >= from) {
            data_key::encrypt_log_block(&mut block);
        }
        block.to_vec()
    }

    fn header(&self, start: u64, offset: u64) -> Vec<u8> {
        let mut header = vec![0; REDO_HEADER as usize];
        let format: u32 = if self.is_ring { 3 } else { FORMAT_8_0_30 };
        put(&mut header, at::FORMAT, &format.to_be_bytes());
        put(&mut header, at::UUID, &77_u32.to_be_bytes());
        put(&mut header, at::START_LSN, &start.to_be_bytes());
        put(&mut header, at::CREATOR, b"MySQL 8.0.36");
        seal(&mut header[..BLOCK]);
        // The second checkpoint is older.
        for (from, lsn) in at::CHECKPOINTS.iter().zip([self.checkpoint(), START]) {
            let checkpoint = &mut header[*from..*from + BLOCK];
            put(checkpoint, at::CHECKPOINT_LSN, &lsn.to_be_bytes());
            put(checkpoint, at::CHECKPOINT_OFFSET, &offset.to_be_bytes());
            seal(checkpoint);
        }
        if self.encrypted_from.is_some() {
            put(&mut header, at::KEY, &data_key::info());
        }
        header
    }

    /// Writes the files, with old bytes behind the end of the log.
    fn write(&self, directory: &Path) {
        let (mut lsn, end) = (self.start(), self.start() + (self.full + 1) * BLOCK as u64);
        let mut offset = HEADER + self.checkpoint;
        if self.is_ring {
            let size = self.sizes[0] << 10;
            let capacity = size - HEADER;
            let bytes = self.checkpoint;
            offset = bytes / capacity * size + HEADER + bytes % capacity;
        } else {
            fs::create_dir(directory.join("#innodb_redo")).unwrap();
            fs::write(directory.join("#innodb_redo/#ib_redo99_tmp"), "spare").unwrap();
        }
        for (number, size) in self.sizes.iter().enumerate() {
            let size = if self.is_ring { self.sizes[0] } else { *size } << 10;
            let mut bytes = self.header(lsn, offset);
            while (bytes.len() as u64) < size {
                let block = if lsn < end { self.block(lsn) } else { vec![0xA5; BLOCK] };
                bytes.extend(block);
                lsn += BLOCK as u64;
            }
            let name = match self.is_ring {
                true => format!("ib_logfile{number}"),
                false => format!("#innodb_redo/#ib_redo{}", number + 8),
            };
            fs::write(directory.join(name), bytes).unwrap();
        }
    }

    fn open(&self) -> Result<Redo> {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        Redo::open(directory.path(), Some(&data_key::keyring()))
    }
}

const START: u64 = 16 * BLOCK as u64;

fn written() -> impl Strategy<Value = Written> {
    let sizes = proptest::collection::vec(64_u64..96, 1..5);
    let encrypted_from = proptest::option::of(0_u64..300);
    let shape = (sizes, any::<bool>(), any::<u64>(), any::<u64>(), 12_u16..=512, 16_u64..1 << 33);
    (shape, encrypted_from).prop_map(|(shape, encrypted_from)| {
        let (sizes, is_ring, full, checkpoint, last_len, start) = shape;
        let first = sizes[0];
        let blocks = |size: u64| ((size << 10) - HEADER) / BLOCK as u64;
        let capacity: u64 =
            sizes.iter().map(|size| blocks(if is_ring { first } else { *size })).sum();
        let full = full % capacity;
        let length = full * BLOCK as u64 + u64::from(last_len);
        let checkpoint = (checkpoint % length).max(12);
        // Records are neither in a block's header nor in its checksum.
        let within = (checkpoint % BLOCK as u64).clamp(12, 508);
        let checkpoint = checkpoint - checkpoint % BLOCK as u64 + within;
        let checkpoint = checkpoint.min(length);
        Written { start, sizes, is_ring, full, last_len, checkpoint, encrypted_from }
    })
}

/// Writes what a recipient gets, as a recipient with this master key writes it.
fn receive(redo: &Redo, is_ring: bool, directory: &Path, master: &MasterKey) {
    let layout = redo.layout();
    let ranges: Vec<_> = layout.files.iter().map(|file| file.data.clone()).collect();
    let chunks = Geometry::innodb(16 << 10).redo(&ranges, layout.trailer).chunks;
    let mut files: Vec<Vec<u8>> =
        layout.files.iter().map(|file| vec![0; usize::try_from(file.size).unwrap()]).collect();
    for block in chunks.iter().flatten() {
        let (bytes, end) = redo.read(block).unwrap();
        let at = usize::try_from(block.offset).unwrap();
        assert!(end >= block.offset + u64::from(block.len));
        files[block.file as usize][at..at + bytes.len()].copy_from_slice(&bytes);
    }
    if !is_ring {
        fs::create_dir(directory.join("#innodb_redo")).unwrap();
    }
    assert!(layout.files.iter().all(|file| file.encrypted == redo.is_encrypted()));
    let wrapped = master.wrap_redo_header(&mut files[0]);
    assert_eq!(wrapped.is_ok(), redo.is_encrypted(), "a key, if and only if it is needed");
    for (number, bytes) in files.iter().enumerate() {
        let name = match is_ring {
            true => format!("ib_logfile{number}"),
            false => format!("#innodb_redo/#ib_redo{number}"),
        };
        fs::write(directory.join(name), bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// What a recipient wrote is the same log from the checkpoint on.
    #[test]
    fn a_log_arrives_whole(written in written()) {
        let redo = written.open().unwrap();
        let last = written.start() + written.full * BLOCK as u64;
        prop_assert_eq!(redo.checkpoint(), written.checkpoint());
        prop_assert_eq!(redo.end.last, last);
        let end = last + u64::from(written.last_len);
        prop_assert_eq!(redo.needs_recovery(), end > written.checkpoint());

        let directory = tempfile::tempdir().unwrap();
        let is_encrypted = written.encrypted_from.is_some_and(|from| from <= written.full);
        prop_assert_eq!(redo.is_encrypted(), is_encrypted);
        let master = MasterKey::generate().unwrap();
        receive(&redo, written.is_ring, directory.path(), &master);
        if written.is_ring {
            let second = fs::metadata(directory.path().join("ib_logfile1"));
            prop_assert!(second.is_ok(), "a server before 8.0.30 needs two files");
        } else {
            let first = fs::read(directory.path().join("#innodb_redo/#ib_redo0")).unwrap();
            let is_clone = !redo.needs_recovery();
            let creator = if is_clone { b"MySQL Clone\0" } else { b"MySQL 8.0.36" };
            prop_assert_eq!(&first[16..28], creator);
            let is_full = first[at::FLAGS + 3] == 8;
            prop_assert_eq!(is_full, !is_clone && redo.layout().files.len() > 1);
        }
        let keyring = directory.path().join("keyring");
        master.write_new(&keyring).unwrap();
        let keyring = Keyring::read(&keyring).unwrap();
        // A second file of the ring without redo has no header, and nobody reads it.
        let again = Redo::open(directory.path(), Some(&keyring)).unwrap();
        prop_assert_eq!(again.checkpoint(), redo.checkpoint());
        prop_assert_eq!((again.start, again.end), (redo.start, redo.end));
        let mut lsn = redo.start;
        while lsn <= redo.end.last {
            let mut block = [0; BLOCK];
            again.read_log(lsn, &mut block).unwrap();
            prop_assert_eq!(&block[..], &written.block(lsn)[..], "LSN {}", lsn);
            lsn += BLOCK as u64;
        }
    }
}

/// The log of a small directory, with redo behind its checkpoint or without.
pub(in super::super) fn write_small(directory: &Path, needs_recovery: bool) {
    let checkpoint = if needs_recovery { 700 } else { 3 * 512 + 100 };
    Written { checkpoint, ..small(false) }.write(directory);
}

fn small(is_ring: bool) -> Written {
    Written {
        start: 16,
        sizes: vec![64],
        is_ring,
        full: 3,
        last_len: 100,
        checkpoint: 700,
        encrypted_from: None,
    }
}

/// Changes bytes of the first file, and gives the error.
fn broken(written: &Written, change: impl Fn(&mut Vec<u8>)) -> String {
    let directory = tempfile::tempdir().unwrap();
    written.write(directory.path());
    let name = if written.is_ring { "ib_logfile0" } else { "#innodb_redo/#ib_redo8" };
    let path = directory.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    Redo::open(directory.path(), None).unwrap_err().to_string()
}

#[test]
fn a_damaged_log_is_refused() {
    for is_ring in [false, true] {
        let written = small(is_ring);
        let text = broken(&written, |bytes| bytes[20] ^= 1);
        assert!(text.contains("header"), "{text}");
        let text = broken(&written, |bytes| bytes[512..2048].fill(0));
        assert!(text.contains("checkpoint"), "{text}");
        // The block of the checkpoint, which is the second.
        let text = broken(&written, |bytes| bytes[2048 + 512 + 30] ^= 1);
        assert!(text.contains("is missing"), "{text}");
        let text = broken(&written, |bytes| bytes.truncate(1000));
        assert!(text.contains("1000 bytes"), "{text}");
    }
}

#[test]
fn an_encrypted_log_needs_the_keyring() {
    for is_ring in [false, true] {
        let written = Written { encrypted_from: Some(2), ..small(is_ring) };
        let text = broken(&written, |_| {});
        assert!(text.contains("Name the keyring file"), "{text}");
        // The log was encrypted once, and is not encrypted from the checkpoint on.
        let directory = tempfile::tempdir().unwrap();
        Written { encrypted_from: Some(9), ..small(is_ring) }.write(directory.path());
        assert!(!Redo::open(directory.path(), None).unwrap().is_encrypted());
    }
}

#[test]
fn a_key_that_the_keyring_does_not_have_is_refused() {
    for is_ring in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        Written { encrypted_from: Some(0), ..small(is_ring) }.write(directory.path());
        let path = directory.path().join("keyring");
        MasterKey::generate().unwrap().write_new(&path).unwrap();
        let keyring = Keyring::read(&path).unwrap();
        let text = Redo::open(directory.path(), Some(&keyring)).unwrap_err().to_string();
        assert!(text.contains("no master key 1 of server"), "{text}");
    }
}

/// An encrypted block whose checksum is wrong is behind the end, as a plain one is.
#[test]
fn a_torn_encrypted_block_is_behind_the_end() {
    for is_ring in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let written = Written { encrypted_from: Some(0), ..small(is_ring) };
        written.write(directory.path());
        let name = if is_ring { "ib_logfile0" } else { "#innodb_redo/#ib_redo8" };
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[2048 + 3 * 512 + 40] ^= 1;
        fs::write(path, bytes).unwrap();
        let redo = Redo::open(directory.path(), Some(&data_key::keyring())).unwrap();
        assert_eq!(redo.end.last, written.start() + 2 * 512);
    }
}

/// A record that writes the key of tablespace 7.
#[test]
fn a_crashed_log_with_keys_is_refused() {
    for is_ring in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        small(is_ring).write(directory.path());
        let name = if is_ring { "ib_logfile0" } else { "#innodb_redo/#ib_redo8" };
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let block = &mut bytes[2048 + 2 * 512..2048 + 3 * 512];
        put(block, 100, &[30, 7, 0, 0x28, 0x96, 0, 111, b'l', b'C', b'C']);
        seal(block);
        fs::write(&path, &bytes).unwrap();
        let redo = Redo::open(directory.path(), None).unwrap();
        let search = |redo: Redo| redo.search(&mut OutsideNames::default());
        let text = search(redo).unwrap_err().to_string();
        assert!(text.contains("keys of tablespaces"), "{text}");
        // A clone that was never started is recovered as a clone.
        let mut of_clone = bytes.clone();
        of_clone[at::CREATOR..at::CREATOR + 12].copy_from_slice(b"MySQL Clone\0");
        seal(&mut of_clone[..BLOCK]);
        fs::write(&path, &of_clone).unwrap();
        assert!(search(Redo::open(directory.path(), None).unwrap()).is_ok());
        // Before the checkpoint they do not matter.
        let written = Written { checkpoint: 3 * 512 + 50, ..small(is_ring) };
        bytes[512..2048]
            .copy_from_slice(&written.header(written.start(), 2048 + 3 * 512 + 50)[512..]);
        fs::write(&path, &bytes).unwrap();
        assert!(search(Redo::open(directory.path(), None).unwrap()).is_ok());
    }
}

#[test]
fn a_log_that_was_switched_off_is_refused() {
    for flag in [1_u8, 2, 4] {
        let text = broken(&small(false), |bytes| {
            bytes[at::FLAGS + 3] = flag;
            seal(&mut bytes[..BLOCK]);
        });
        assert!(text.contains("need not be consistent"), "{text}");
    }
}

#[test]
fn the_log_of_another_format_is_refused() {
    let text = broken(&small(true), |bytes| {
        bytes[at::FORMAT + 3] = 1;
        seal(&mut bytes[..BLOCK]);
    });
    assert!(text.contains("format 1"), "{text}");
}

#[test]
fn files_with_a_gap_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let written = Written { sizes: vec![64, 64, 64], full: 300, ..small(false) };
    written.write(directory.path());
    fs::remove_file(directory.path().join("#innodb_redo/#ib_redo9")).unwrap();
    let error = Redo::open(directory.path(), None).unwrap_err();
    assert!(error.to_string().contains("does not follow"), "{error}");
}

#[test]
fn a_directory_without_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let error = Redo::open(directory.path(), None).unwrap_err();
    assert!(error.to_string().contains("no redo log"), "{error}");
}

/// A server that shut down need not have written a block without records.
#[test]
fn a_block_without_records_may_be_missing() {
    for is_ring in [false, true] {
        let written = Written { full: 3, checkpoint: 4 * 512 + 12, ..small(is_ring) };
        let redo = written.open().unwrap();
        assert!(!redo.needs_recovery());
        assert_eq!(redo.end.last, written.start() + 4 * 512);
        assert_eq!(redo.end.trailer, empty_block(redo.end.last, !is_ring));
        assert_eq!(redo.len(), 512);
        assert_eq!(redo.layout().trailer, Block { file: 0, offset: 2048, len: 512 });
    }
}

#[test]
fn a_block_that_is_not_there_is_no_panic() {
    let redo = Written { sizes: vec![64, 64], full: 200, ..small(false) }.open().unwrap();
    for block in [
        Block { file: 9, offset: 0, len: 512 },
        Block { file: 1, offset: SMALL, len: 1 },
        Block { file: 0, offset: u64::MAX, len: 512 },
        Block { file: 1, offset: 0, len: 1 << 30 },
    ] {
        assert!(redo.read(&block).is_err(), "{block:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_log_or_an_error(
        written in written(),
        changes in proptest::collection::vec((0_usize..64 << 10, any::<u8>()), 1..20),
        seals: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        written.write(directory.path());
        let name = if written.is_ring { "ib_logfile0" } else { "#innodb_redo/#ib_redo8" };
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            bytes[at % if seals { 2048 } else { 64 << 10 }] = byte;
        }
        if seals {
            bytes[..2048].chunks_mut(BLOCK).for_each(seal);
        }
        fs::write(path, bytes).unwrap();
        if let Ok(redo) = Redo::open(directory.path(), None) {
            let layout = redo.layout();
            prop_assert!(redo.read(&layout.trailer).is_ok());
        }
    }
}
