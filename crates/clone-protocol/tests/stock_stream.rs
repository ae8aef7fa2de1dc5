// SPDX-License-Identifier: GPL-2.0-only

//! Clones between two stock servers, recorded by a proxy between them: every packet must parse and
//! encode to the same bytes, and every descriptor must pass [`StreamCheck`].
//!
//! The records are in `tests/stock`, and begin with how they were made. A line is `<connection> >
//! <hex>` for a command with its code, `<connection> < <hex>` for a response, `<connection> < data
//! <length>` for a DATA packet without its bytes, or `cut` where the proxy broke all connections.
//! The head's first sentence names the release and the page size. `tests/recording.md` says how to
//! make more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clone_protocol::Command;
use clone_protocol::Response;
use clone_protocol::innodb;
use clone_protocol::innodb::Descriptor;
use clone_protocol::innodb::Recipient;
use clone_protocol::innodb::SnapshotState;
use clone_protocol::innodb::State;
use clone_protocol::innodb::StreamCheck;
use clone_protocol::innodb::TaskCheck;
use clone_protocol::innodb::TaskRole;

#[test]
fn records_of_all_series_are_there() {
    let releases: Vec<_> = records().iter().map(|(_, record)| Head::of(record).release).collect();
    for wanted in
        [(8, 0, 0)..(8, 0, 30), (8, 0, 30)..(8, 1, 0), (8, 4, 0)..(8, 5, 0), (9, 7, 0)..(9, 8, 0)]
    {
        assert!(releases.iter().any(|release| wanted.contains(release)), "{releases:?}");
    }
}

#[test]
fn whole_records_pass() {
    for (path, record) in records() {
        let mut replay = Replay::new(&record);
        assert_eq!(replay.run(&record), Ok(()), "{}", path.display());
        assert_eq!(replay.state, SnapshotState::Done, "{}", path.display());
        assert_eq!(replay.expected_data, BTreeMap::new(), "{}", path.display());
    }
}

#[test]
fn a_restart_must_be_told() {
    for (path, record) in records() {
        let mut replay = Replay { resume: false, ..Replay::new(&record) };
        let restarted = record.lines().any(|line| line == "cut");
        assert_eq!(replay.run(&record).is_err(), restarted, "{}", path.display());
    }
}

/// The gate does look: the same records do not pass when a descriptor is left out or comes early.
#[test]
fn a_record_with_a_hole_does_not_pass() {
    for (path, record) in records() {
        let without = |is_left_out: fn(&Descriptor<'_>) -> bool| {
            Replay { is_left_out, ..Replay::new(&record) }.run(&record)
        };
        let starts_pages = |descriptor: &Descriptor<'_>| match descriptor {
            Descriptor::State(state) => state.start && state.state == SnapshotState::PageCopy,
            _ => false,
        };
        assert!(without(starts_pages).is_err(), "{}", path.display());
        let file_3 = |descriptor: &Descriptor<'_>| match descriptor {
            Descriptor::FileMetadata(file) => file.file_index == 3,
            _ => false,
        };
        assert!(without(file_3).is_err(), "{}", path.display());
        assert_eq!(without(|_| false), Ok(()));
    }
}

fn records() -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What the head of a record says of the servers: `Two MySQL 8.0.36 servers on one machine,
/// innodb_page_size 16K, ...`.
struct Head {
    release: (u32, u32, u32),
    page_size: u32,
}

impl Head {
    fn of(record: &str) -> Self {
        let word_after = |before: &str| {
            let (_, rest) = record.split_once(before).unwrap();
            rest.split([' ', ',']).next().unwrap()
        };
        let mut numbers = word_after("Two MySQL ").split('.').map(|number| number.parse().unwrap());
        let mut number = || numbers.next().unwrap();
        let release = (number(), number(), number());
        let kib = word_after("innodb_page_size ").strip_suffix('K').unwrap();
        Self { release, page_size: kib.parse::<u32>().unwrap() << 10 }
    }

    fn recipient(&self) -> Recipient {
        let has_spare_redo_file = self.release < (8, 0, 30);
        Recipient { has_spare_redo_file, ..Recipient::new(self.page_size) }
    }
}

/// A recipient that does nothing but check, in the order in which InnoDB would let it.
struct Replay {
    resume: bool,
    is_left_out: fn(&Descriptor<'_>) -> bool,
    stream: StreamCheck,
    tasks: BTreeMap<u32, (TaskRole, TaskCheck)>,
    /// The state that the master's stream started last.
    state: SnapshotState,
    /// Workers that started a state, wait in InnoDB for the master, and do not read on.
    waiting: BTreeMap<u32, (SnapshotState, VecDeque<String>)>,
    /// The length that the next packet of a connection, a DATA packet, must have.
    expected_data: BTreeMap<u32, u32>,
}

impl Replay {
    fn new(record: &str) -> Self {
        Self {
            resume: true,
            is_left_out: |_| false,
            stream: StreamCheck::new(Head::of(record).recipient()),
            tasks: BTreeMap::new(),
            state: SnapshotState::Init,
            waiting: BTreeMap::new(),
            expected_data: BTreeMap::new(),
        }
    }

    fn run(&mut self, record: &str) -> Result<(), String> {
        for line in record.lines().filter(|line| !line.starts_with('#')) {
            self.line(line)?;
            self.wake()?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if line == "cut" {
            self.tasks.clear();
            self.waiting.clear();
            self.expected_data.clear();
            return Ok(());
        }
        let (connection, packet) = line.split_once(' ').unwrap();
        let connection = connection.parse().unwrap();
        if let Some((_, queue)) = self.waiting.get_mut(&connection) {
            queue.push_back(line.to_owned());
            return Ok(());
        }
        match packet.split_at(2) {
            ("> ", hex) => {
                self.command(connection, &unhex(hex));
                Ok(())
            }
            ("< ", packet) => match packet.strip_prefix("data ") {
                Some(len) => {
                    // What was on its way when the proxy cut is recorded after the cut.
                    let expected = self.expected_data.remove(&connection);
                    assert!(expected.is_none_or(|expected| expected == len.parse().unwrap()));
                    Ok(())
                }
                None => self.response(connection, &unhex(packet)),
            },
            _ => panic!("{line}"),
        }
    }

    fn wake(&mut self) -> Result<(), String> {
        let state = self.state;
        while let Some(connection) = self
            .waiting
            .iter()
            .find_map(|(connection, (wanted, _))| (*wanted <= state).then_some(*connection))
        {
            let (_, queue) = self.waiting.remove(&connection).unwrap();
            for line in queue {
                self.line(&line)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, connection: u32, packet: &[u8]) {
        let (code, payload) = packet.split_first().unwrap();
        let command = Command::parse(*code, payload).unwrap();
        let mut encoded = Vec::new();
        command.encode_payload(&mut encoded);
        assert_eq!(encoded, payload);
        assert_eq!(command.code() as u8, *code);
        let init = match &command {
            Command::Init(init) | Command::Reinit(init) => {
                self.tasks.insert(connection, self.task(TaskRole::Master));
                init
            }
            Command::Attach(init) => {
                self.tasks.insert(connection, self.task(TaskRole::Worker));
                init
            }
            Command::Ack(ack) => {
                let mut encoded = Vec::new();
                Descriptor::parse(ack.descriptor).unwrap().encode(&mut encoded);
                assert_eq!(encoded, ack.descriptor);
                return;
            }
            Command::Execute | Command::Exit | Command::Heartbeat(_) | Command::Base(_) => return,
        };
        for locator in &init.locators {
            assert_eq!(locator.db_type, innodb::DB_TYPE);
            let parsed = innodb::Locator::parse(&locator.bytes).unwrap();
            let mut encoded = Vec::new();
            Descriptor::Locator(parsed).encode(&mut encoded);
            assert!(locator.bytes.starts_with(&encoded));
            if matches!(command, Command::Reinit(_)) && self.resume {
                self.stream.resume(&locator.bytes).unwrap();
            }
        }
    }

    fn task(&self, role: TaskRole) -> (TaskRole, TaskCheck) {
        (role, self.stream.task(role))
    }

    fn response(&mut self, connection: u32, packet: &[u8]) -> Result<(), String> {
        let response = Response::parse(packet).unwrap();
        let mut encoded = Vec::new();
        response.encode(&mut encoded);
        assert_eq!(encoded, packet);
        let Response::DataDescriptor { db_type, locator_index: 0, descriptor } = response else {
            return Ok(());
        };
        assert_eq!(db_type, innodb::DB_TYPE);
        let parsed = Descriptor::parse(descriptor).unwrap();
        parsed.encode(&mut encoded);
        assert_eq!(encoded, descriptor);
        let Some((role, task)) = self.tasks.get_mut(&connection) else { return Ok(()) };
        if (self.is_left_out)(&parsed) {
            return Ok(());
        }
        let checked = task.check(descriptor).map_err(|error| format!("{error}: {parsed:?}"))?;
        if let Some(len) = checked.data_len {
            assert_eq!(self.expected_data.insert(connection, len), None);
        }
        match (parsed, role) {
            (Descriptor::State(State { ack: true, .. } | State { start: false, .. }), _) => {}
            (Descriptor::State(State { state, .. }), TaskRole::Master) => self.state = state,
            (Descriptor::State(State { state, .. }), TaskRole::Worker) if state > self.state => {
                self.waiting.insert(connection, (state, VecDeque::new()));
            }
            _ => {}
        }
        Ok(())
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
