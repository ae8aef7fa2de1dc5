// SPDX-License-Identifier: GPL-2.0-only

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clone_engine::{View, number};
use clone_protocol::rocksdb::{
    AddEstimate, Descriptor, FileChunk, FileName, FileNameMap, FileSize, FileState,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::Outcome;

mod hostile;
mod tasks;
mod whole;

#[derive(Default)]
struct TestSession {
    is_killed: AtomicBool,
}

impl Cancel for TestSession {
    fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }
}

/// What the next DATA packet brings, and what the client says of it.
#[derive(Default)]
struct Packet<'a> {
    data: &'a [u8],
    error: Option<Error>,
    estimate: u64,
    written_to: Option<String>,
}

impl BlockInput for Packet<'_> {
    fn change_state(&mut self, _: &View<'_>) -> Result<()> {
        panic!("this engine has no states")
    }
    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.written_to = Some(view.destination_name.to_owned());
        let mut file = fs::File::from(file.try_clone_to_owned().unwrap());
        file.write_all(self.data).unwrap();
        self.error.take().map_or(Ok(()), Err)
    }
    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        panic!("files are written, not read")
    }
    fn add_estimate(&mut self, bytes: u64) {
        self.estimate += bytes;
    }
}

/// A client, and what a donor says to it.
struct Fixture {
    directory: TempDir,
    client: Client,
    session: TestSession,
    locator: Vec<u8>,
}

const CLONE: u64 = 7;

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let client = Client::new(Layout::rocksdb(directory.path()));
        Self { client, directory, session: TestSession::default(), locator: locator(CLONE) }
    }

    fn started() -> Self {
        let fixture = Self::new();
        assert_eq!(fixture.begin(Mode::Start).unwrap().task, 0);
        fixture
    }

    fn begin(&self, mode: Mode) -> Result<Begun> {
        self.client.apply_begin(&self.session, Some(&self.locator), mode, None)
    }

    fn apply(&self, task: u32, descriptor: Descriptor<'_>, packet: &mut Packet<'_>) -> Result<()> {
        let bytes = descriptor.to_bytes();
        self.client.apply(&self.session, &self.locator, task, &bytes, packet)
    }

    fn map(&self, file: u64, name: &str, size: u64) -> Result<()> {
        self.apply(0, file_name_map(file, name, size), &mut Packet::default())
    }

    fn chunk(&self, file: u64, data: &[u8]) -> Result<()> {
        let len = u32::try_from(data.len()).unwrap();
        let mut packet = Packet { data, ..Packet::default() };
        self.apply(0, Descriptor::FileChunk(FileChunk { file, len }), &mut packet)
    }

    fn estimate(&self) {
        let estimate = Descriptor::AddEstimate(AddEstimate { bytes: 1 });
        self.apply(0, estimate, &mut Packet::default()).unwrap();
    }

    /// A file that is complete.
    fn file(&self, file: u64, name: &str, data: &[u8]) {
        self.map(file, name, data.len() as u64).unwrap();
        if !data.is_empty() {
            self.chunk(file, data).unwrap();
        }
    }

    fn end(&self, task: u32, error: u32) -> Result<()> {
        self.client.apply_end(&self.session, &self.locator, task, error)
    }

    fn restart_states(&self) -> BTreeMap<u64, u64> {
        let begun = self.begin(Mode::Restart).unwrap();
        assert_eq!(begun.task, 0);
        let Ok(Locator::Clone { id, states }) = Locator::parse(&begun.locator) else { panic!() };
        assert_eq!(id.get(), CLONE);
        states.into_iter().map(|FileState { file, applied }| (file, applied.get())).collect()
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.path().join(name)).ok()
    }

    fn is_marked(&self) -> bool {
        self.read(".rocksdb.cloned/.clone_in_progress").is_some()
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.directory.path()).unwrap().next().is_none()
    }
}

fn locator(id: u64) -> Vec<u8> {
    Locator::of(CloneId::new(id).unwrap()).to_bytes()
}

fn file_name_map(file: u64, name: &str, size: u64) -> Descriptor<'_> {
    let (size, name) = (FileSize::new(size).unwrap(), FileName::new(name.as_bytes()).unwrap());
    Descriptor::FileNameMap(FileNameMap { file, size, name })
}

#[track_caller]
fn assert_protocol<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.number(), number::ER_CLONE_PROTOCOL, "{error}");
}
