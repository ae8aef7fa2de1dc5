// SPDX-License-Identifier: GPL-2.0-only

//! What must hold for any bytes: the bodies of the targets in `fuzz/`, which the unit tests feed
//! too.
//!
//! Each function panics when it does not hold.

use std::ffi::OsStr;
use std::path::Component;
use std::path::Path;

use innodb_model::InnodbModel;

use crate::Command;
use crate::EqualUnits;
use crate::MAX_BLOCK;
use crate::Offer;
use crate::Response;
use crate::Units;
use crate::innodb::Checked;
use crate::innodb::Compression;
use crate::innodb::Data;
use crate::innodb::Descriptor;
use crate::innodb::DescriptorKind;
use crate::innodb::EncryptionKey;
use crate::innodb::FileMetadata;
use crate::innodb::Locator;
use crate::innodb::Recipient;
use crate::innodb::SPACE_ID_BUFFER_POOL;
use crate::innodb::SPACE_ID_REDO;
use crate::innodb::SnapshotState;
use crate::innodb::State;
use crate::innodb::StreamCheck;
use crate::innodb::TaskCheck;
use crate::innodb::TaskMetadata;
use crate::innodb::TaskRole;
use crate::innodb::VERSION;
use crate::rocksdb;

mod innodb_model;

/// A command that parses encodes to the bytes it came from. The first byte is the code.
pub fn command(bytes: &[u8]) {
    let Some((code, payload)) = bytes.split_first() else { return };
    let Ok(command) = Command::parse(*code, payload) else { return };
    let mut encoded = Vec::new();
    command.encode_payload(&mut encoded);
    assert_eq!(command.code() as u8, *code);
    match command {
        Command::Execute | Command::Exit => {
            assert!(encoded.is_empty());
            if let Some(offer) = Offer::parse(payload) {
                offer.encode(&mut encoded);
                assert_eq!(Offer::parse(&encoded), Some(offer));
            }
        }
        _ => assert_eq!(encoded, payload),
    }
}

/// A response that parses encodes to the bytes it came from, but for what it ignores at the end.
pub fn response(bytes: &[u8]) {
    let Ok(response) = Response::parse(bytes) else { return };
    let mut encoded = Vec::new();
    response.encode(&mut encoded);
    assert!(bytes.starts_with(&encoded));
    assert_eq!(Response::parse(&encoded), Ok(response));
}

/// The bits of a block's equal units that parse are those that they came from, and the parts are
/// the block. The first bytes choose block and unit.
pub fn base_map(bytes: &[u8]) {
    let Some(([shift, lead, len, more], bits)) = bytes.split_first_chunk() else { return };
    let unit = 4096_u32 << (shift % 13);
    let (offset, len) = (1024 * u64::from(*lead), 1024 * u32::from_be_bytes([0, 0, *len, *more]));
    let units = Units::of(offset, len.min(MAX_BLOCK), unit);
    let Ok(equal) = EqualUnits::parse(units, bits) else { return };
    assert_eq!(equal.bits(), bits);
    let parts = equal.parts();
    let mut end = 0;
    for part in &parts {
        assert_eq!(part.range.start, end);
        end = part.range.end;
    }
    assert_eq!(end, equal.block_len());
    let rest = parts.iter().filter(|part| part.equal.is_none()).map(|part| part.range.len());
    assert_eq!(rest.sum::<usize>(), equal.rest_len());
}

/// A descriptor that parses encodes to one that is equal and as long as its header said.
pub fn descriptor(bytes: &[u8]) {
    let holds_key = StreamCheck::contains_key_material(bytes);
    let Ok(descriptor) = Descriptor::parse(bytes) else { return };
    let mut encoded = Vec::new();
    descriptor.encode(&mut encoded);
    assert_eq!(Descriptor::parse(&encoded).as_ref(), Ok(&descriptor));
    match &descriptor {
        Descriptor::Locator(_) => assert!(encoded.len() <= bytes.len()),
        _ => assert_eq!(encoded.len(), bytes.len()),
    }
    let has_key = matches!(&descriptor, Descriptor::FileMetadata(file) if file.key.is_some());
    assert_eq!(holds_key, has_key);
}

/// A RocksDB locator that parses encodes to the bytes it came from.
pub fn rocksdb_locator(bytes: &[u8]) {
    let Ok(locator) = rocksdb::Locator::parse(bytes) else { return };
    assert_eq!(locator.to_bytes(), bytes);
    assert!(rocksdb::Descriptor::parse(bytes).is_err(), "both a locator and a descriptor");
}

/// A RocksDB descriptor that parses encodes to the bytes it came from, and names a file that stays
/// in its directory.
pub fn rocksdb_descriptor(bytes: &[u8]) {
    let Ok(descriptor) = rocksdb::Descriptor::parse(bytes) else { return };
    assert_eq!(descriptor.to_bytes(), bytes);
    assert!(rocksdb::Locator::parse(bytes).is_err(), "both a locator and a descriptor");
    if let rocksdb::Descriptor::FileNameMap(map) = descriptor {
        let mut components = Path::new(map.name.as_str()).components();
        let only = (components.next(), components.next());
        assert_eq!(only, (Some(Component::Normal(OsStr::new(map.name.as_str()))), None));
    }
}

/// The page size of the recipient that [`stream_check`] has, in bytes.
const PAGE_SIZE: u32 = 16_384;

/// What passes [`StreamCheck`] does InnoDB no harm, with a master, two workers and restarts.
///
/// The bytes choose what a hostile donor sends. A refused descriptor would end the clone; here the
/// donor goes on, so that a refusal must not leave anything behind either. Returns the state that
/// InnoDB came to.
pub fn stream_check(bytes: &[u8]) -> SnapshotState {
    let mut choices = Choices { rest: bytes };
    let mut innodb = InnodbModel::default();
    let stream = StreamCheck::new(Recipient::new(PAGE_SIZE));
    let mut tasks = Tasks::begin(&stream);
    while let Some(choice) = choices.next() {
        let number = [MASTER, 1, MASTER, 2][usize::from(choice & 3)];
        let task = &mut tasks.tasks[number];
        if task.waits_for.is_some_and(|state| state > innodb.state()) {
            continue;
        }
        match choice >> 2 & 7 {
            0 => tasks = restart(&stream, &mut innodb),
            1 => raw(&mut task.check, choices.take(usize::from(choice >> 5) * 10)),
            _ => {
                let sent = choices.descriptor(innodb.state());
                let mut bytes = Vec::new();
                sent.encode(&mut bytes);
                let Ok(checked) = task.check.check(&bytes) else { continue };
                accepted(&sent, &checked);
                let starts = match sent {
                    Descriptor::State(State { state, start: true, ack: false, .. }) => Some(state),
                    _ => None,
                };
                match starts {
                    Some(state) if number != MASTER => task.waits_for = Some(state),
                    // Another task lost its connection, and the start fails for that.
                    Some(_) if choice >> 5 == 0 => tasks = restart(&stream, &mut innodb),
                    _ => assert_eq!(innodb.apply(number, &sent), Ok(()), "{sent:?}"),
                }
            }
        }
    }
    innodb.state()
}

/// What holds for each descriptor that passed, whatever InnoDB's state is.
fn accepted(sent: &Descriptor<'_>, checked: &Checked) {
    match sent {
        Descriptor::Data(data) => {
            assert_eq!(checked.data_len, Some(data.data_len));
            assert!((1..=MAX_BLOCK).contains(&data.data_len), "{data:?}");
        }
        Descriptor::FileMetadata(file) => {
            let (name, space_id) = (file.name, file.space_id);
            assert!(!name.iter().any(u8::is_ascii_control), "{file:?}");
            assert!(name.len() < 4000 && name.split(|byte| *byte == b'/').all(|c| c.len() < 256));
            assert!(name.is_empty() == (space_id == SPACE_ID_REDO), "{file:?}");
            assert!(i64::try_from(file.file_size).is_ok(), "{file:?}");
            let tablespace = [&b".ibd"[..], b".ibu"].iter().any(|end| name.ends_with(end));
            let bare: &[&[u8]] = &[b"", b"ib_buffer_pool", b"ibdata1", b"undo_001"];
            assert!(tablespace || bare.contains(&name), "{file:?}");
        }
        _ => assert_eq!(checked.data_len, None),
    }
}

/// The master's place among the tasks.
const MASTER: usize = 0;

struct Tasks {
    tasks: [Task; 3],
}

struct Task {
    check: TaskCheck,
    /// The task is in InnoDB, and reads on when its master has come to this state.
    waits_for: Option<SnapshotState>,
}

impl Tasks {
    /// All tasks begin, and say so.
    fn begin(stream: &StreamCheck) -> Self {
        let roles = [TaskRole::Master, TaskRole::Worker, TaskRole::Worker];
        let mut bytes = Vec::new();
        Descriptor::TaskMetadata(TaskMetadata { task: 0, chunk: 0, block: 0 }).encode(&mut bytes);
        let tasks = roles.map(|role| {
            let mut check = stream.task(role);
            assert!(check.check(&bytes).is_ok());
            Task { check, waits_for: None }
        });
        Self { tasks }
    }
}

fn restart(stream: &StreamCheck, innodb: &mut InnodbModel) -> Tasks {
    innodb.restart();
    let mut bytes = Vec::new();
    Descriptor::Locator(Locator {
        version: VERSION,
        clone_id: 1,
        snapshot_id: 2,
        index: 0,
        state: innodb.state(),
        metadata_transferred: false,
        progress: None,
    })
    .encode(&mut bytes);
    assert_eq!(stream.resume(&bytes), Ok(()));
    Tasks::begin(stream)
}

/// Bytes that are hardly ever a descriptor, and if they are, not one that changes anything.
fn raw(task: &mut TaskCheck, bytes: &[u8]) {
    if let Ok(descriptor) = Descriptor::parse(bytes)
        && descriptor.kind() != DescriptorKind::TaskMetadata
    {
        return;
    }
    let _ = task.check(bytes);
}

/// Fuzzed bytes as a source of decisions.
struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// Mostly small, so that indexes and totals meet; sometimes at an edge.
    fn number(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            254 => 1 << 31,
            253 => 1 << 26,
            252 => 65_536,
            251 => 16_384,
            250 => 2048,
            byte => u32::from(byte % 5),
        }
    }

    fn one_in(&mut self, choices: u8) -> bool {
        self.byte().is_multiple_of(choices)
    }

    /// Mostly where InnoDB is, or the next.
    fn state(&mut self, current: SnapshotState) -> SnapshotState {
        let byte = self.byte();
        match byte % 8 {
            0..=3 => current,
            4..=6 => current.next().unwrap_or(current),
            _ => SnapshotState::from_wire(u32::from(byte >> 3) % 6).unwrap_or(current),
        }
    }

    fn descriptor(&mut self, current: SnapshotState) -> Descriptor<'static> {
        let kind = self.byte();
        let state = self.state(current);
        let task = u32::from(self.byte() % 3);
        match kind % 8 {
            0 => Descriptor::TaskMetadata(TaskMetadata { task, chunk: 0, block: 0 }),
            1 | 2 => Descriptor::State(State {
                state,
                task,
                chunks: self.number(),
                files: self.number(),
                estimate: 0,
                estimate_disk: 0,
                start: self.one_in(2),
                ack: self.one_in(8),
            }),
            3..=5 => Descriptor::FileMetadata(self.file(state)),
            _ => Descriptor::Data(Data {
                state,
                task,
                chunk: self.number(),
                block: 1,
                file_index: self.number(),
                data_len: self.number(),
                file_offset: u64::from(self.number()) << (self.byte() % 33),
                file_size: 0,
            }),
        }
    }

    fn file(&mut self, state: SnapshotState) -> FileMetadata<'static> {
        let kind = self.byte();
        let table: &[u8] = b"./test/t1.ibd";
        let (space_id, name, fsp_flags): (_, &[u8], _) = match kind % 16 {
            0 | 10 | 11 => (SPACE_ID_REDO, b"", u32::MAX),
            1 => (SPACE_ID_BUFFER_POOL, b"ib_buffer_pool", u32::MAX),
            2 => (5, b"", 0),
            3 => (5, table, 1 << 1),
            4 => (5, table, 3 << 6),
            5 => (5, table, 5 << 1 | 3 << 6),
            6 => (5, b"./test/t1\n/srv\nt1.ibd", 0),
            7 => (5, b"./mysqld-auto.cnf", 0),
            8 => (SPACE_ID_BUFFER_POOL, b"ib_buffer_pool", 1 << 6),
            9 => (77, b"", u32::MAX),
            _ => (5, table, 0),
        };
        FileMetadata {
            state,
            file_size: if self.one_in(16) { u64::MAX } else { 0 },
            allocated_size: 0,
            fsp_flags,
            block_size: 4096,
            compression: Compression::None,
            encrypted: false,
            renamed: self.one_in(4),
            deleted: self.one_in(4),
            space_id,
            file_index: self.number(),
            first_chunk: self.number(),
            last_chunk: self.number(),
            name,
            key: self.one_in(2).then(|| EncryptionKey::new(&[1; 32], &[2; 32])),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
