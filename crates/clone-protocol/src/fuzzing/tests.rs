// SPDX-License-Identifier: GPL-2.0-only

//! The fuzz targets on a corpus that is the same each time.

use std::collections::BTreeSet;

use super::*;
use crate::EngineLocator;
use crate::Init;

/// Enough for the donors to come to every state and do every harm.
const STREAMS: u32 = 3000;

/// xorshift64, from Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % limit
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[1]
    }

    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.byte()).collect()
    }

    /// One of the seeds with a few bytes changed, and cut or longer now and then.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] = if self.next() & 1 == 0 { self.byte() } else { bytes[at] ^ 1 };
        }
        match self.below(8) {
            0 => bytes.truncate(self.below(bytes.len())),
            1 => bytes.push(self.byte()),
            _ => {}
        }
        bytes
    }
}

fn feed(seeds: &[Vec<u8>], target: fn(&[u8])) {
    let mut random = Random(0x5EED);
    for seed in seeds {
        target(seed);
    }
    for _ in 0..20_000 {
        target(&random.bytes(100));
        target(&random.mutated(seeds));
    }
}

fn locator(bytes: usize) -> EngineLocator {
    EngineLocator { db_type: 12, bytes: vec![7; bytes] }
}

#[test]
fn commands() {
    let init = Init {
        version: 0x0103,
        ddl_timeout: 300,
        block_ddl: true,
        sends_heartbeats: true,
        locators: vec![locator(9), locator(0)],
    };
    let ack = crate::Ack { error: 5, locator: locator(9), descriptor: &[1, 2, 3] };
    let digests = [[3; 16], [4; 16]];
    let runs = vec![crate::Run { space_id: 2, first: 1, digests: &digests }];
    let base = Command::Base(crate::Base { key: [1; 32], unit: 16_384, runs });
    let seeds = [Command::Init(init.clone()), Command::Reinit(init), Command::Ack(ack), base];
    let seeds = seeds.map(|command| {
        let mut payload = Vec::new();
        command.encode_payload(&mut payload);
        [vec![command.code() as u8], payload].concat()
    });
    feed(&seeds, command);
}

#[test]
fn responses() {
    let seeds = [
        Response::Locators { version: crate::Version::V4, locators: vec![locator(9), locator(1)] },
        Response::DataDescriptor { db_type: 12, locator_index: 0, descriptor: b"descriptor" },
        Response::PluginV2 { name: "clone", library: "mysql_clone.so" },
        Response::Collation("utf8mb4_bin"),
        Response::Error { number: 1317, message: b"interrupted" },
    ];
    let seeds = seeds.map(|response| {
        let mut packet = Vec::new();
        response.encode(&mut packet);
        packet
    });
    feed(&seeds, response);
}

#[test]
fn maps_of_a_base() {
    let seeds = [vec![0, 0, 0, 64, 0xff, 0x0f], vec![2, 3, 1, 0, 0x7f, 1], vec![1, 1, 0, 9, 1]];
    feed(&seeds, base_map);
}

#[test]
fn descriptors() {
    let mut random = Random(0xD35C);
    let seeds: Vec<Vec<u8>> = (0..50)
        .map(|_| {
            let choices = random.bytes(100);
            let mut bytes = Vec::new();
            Choices { rest: &choices }.descriptor(SnapshotState::PageCopy).encode(&mut bytes);
            bytes
        })
        .collect();
    feed(&seeds, descriptor);
}

#[test]
fn rocksdb_locators() {
    let id = rocksdb::CloneId::new(7).unwrap();
    let state = |file| rocksdb::FileState { file, applied: rocksdb::FileSize::new(9).unwrap() };
    let seeds = [
        rocksdb::Locator::Version,
        rocksdb::Locator::of(id),
        rocksdb::Locator::Clone { id, states: vec![state(0), state(1)] },
    ];
    feed(&seeds.map(|locator| locator.to_bytes()), rocksdb_locator);
}

#[test]
fn rocksdb_descriptors() {
    let name = rocksdb::FileName::new(b"000012.sst").unwrap();
    let size = rocksdb::FileSize::new(9).unwrap();
    let seeds = [
        rocksdb::Descriptor::FileNameMap(rocksdb::FileNameMap { file: 3, size, name }),
        rocksdb::Descriptor::FileChunk(rocksdb::FileChunk { file: 3, len: 9 }),
        rocksdb::Descriptor::AddEstimate(rocksdb::AddEstimate { bytes: 9 }),
    ];
    feed(&seeds.map(|descriptor| descriptor.to_bytes()), rocksdb_descriptor);
}

#[test]
fn streams_do_innodb_no_harm() {
    let mut random = Random(0xC10E);
    let mut reached = BTreeSet::new();
    for _ in 0..STREAMS {
        reached.insert(stream_check(&random.bytes(4000)));
    }
    // Otherwise the corpus would prove little.
    assert_eq!(reached.last(), Some(&SnapshotState::Done));
    assert_eq!(reached.len(), 5);
}

/// The model is not blind: the same donor does all of this to an InnoDB without the gate.
#[test]
fn streams_do_harm_without_the_gate() {
    let mut random = Random(0xC10E);
    let mut harm = BTreeSet::new();
    for _ in 0..STREAMS {
        let bytes = random.bytes(4000);
        let mut choices = Choices { rest: &bytes };
        let mut innodb = InnodbModel::default();
        while !choices.rest.is_empty() {
            if let Err(suffered) = innodb.apply(MASTER, &choices.descriptor(innodb.state())) {
                harm.insert(suffered);
            }
        }
    }
    let expected = BTreeSet::from([
        "DDL on redo",
        "a state ended by fewer tasks than counted",
        "another file removed",
        "assertion in add_file_from_desc",
        "assertion on the chunk of a deleted file",
        "assertion on the chunk of data",
        "bitmap takes all memory",
        "block takes all memory",
        "data file among the redo files",
        "data files take all memory",
        "disk filled with zeros",
        "invalid state",
        "key beyond a page",
        "key beyond the redo header",
        "null data file",
        "null file name",
        "null file of data",
        "null redo file",
        "page of a file without pages",
        "pages of a file without pages",
        "redo file deleted",
        "redo files take all memory",
        "settings of mysqld",
        "write beyond data files",
        "write beyond redo files",
        "write beyond the initial pages",
    ]);
    assert_eq!(harm, expected);
}
