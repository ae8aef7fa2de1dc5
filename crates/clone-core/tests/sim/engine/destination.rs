// SPDX-License-Identifier: GPL-2.0-only

//! The recipient's side (`clone0apply.cc`, and the beginning and end in `clone0api.cc`).

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clone_core::engine::{Begun, BlockInput, Mode, View};
use clone_core::error::{Result, number};
use clone_protocol::innodb::{
    Data, Descriptor, FileMetadata, Locator, SnapshotState, State, VERSION,
};

use super::content::{data_path, redo_path};
use super::tasks::{MASTER, Tasks};
use super::{Innodb, encode, internal, version_locator};
use crate::sim::faults::{Action, Step};
use crate::sim::session::SimSession;

/// What O_DIRECT asks of a buffer.
const ALIGNMENT: usize = 4096;

/// A clone at its recipient.
pub(super) struct Destination {
    clone_id: u64,
    snapshot_id: u64,
    directory: PathBuf,
    pub(super) tasks: Tasks,
    users: Mutex<u32>,
    files: Mutex<Files>,
}

/// Both kinds have places from 0 on.
#[derive(Default)]
struct Files {
    data: Vec<Option<PathBuf>>,
    redo: Vec<Option<PathBuf>>,
}

impl Innodb {
    pub(super) fn begin_destination(
        &self,
        session: &SimSession,
        locator: Option<Locator>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        let found = {
            let destination = self.system().destination.clone();
            destination.filter(|one| locator.as_ref().is_some_and(|named| one.is_named(named)))
        };
        match (mode, locator, found) {
            (Mode::Version, None, _) => self.begin_version(session),
            (Mode::Start, Some(named), None) => {
                let destination = self.new_destination(session, &named, directory)?;
                self.add_destination_task(session, &destination, &named)
            }
            (Mode::AddTask, Some(named), Some(destination)) => {
                *destination.users.lock().unwrap() += 1;
                self.add_destination_task(session, &destination, &named)
            }
            (Mode::AddTask, Some(_), None) => {
                let text = "Innodb Clone Apply add task to non-existing clone";
                Err(internal(session, text))
            }
            (Mode::Restart, Some(_), Some(destination)) => {
                let mut locator = destination.locator();
                destination.tasks.restart_destination(&mut locator);
                Ok(Begun { locator: encode(&Descriptor::Locator(locator)), task: MASTER })
            }
            (mode, locator, _) => panic!("apply begun with {mode:?} and {locator:?}"),
        }
    }

    fn begin_version(&self, session: &SimSession) -> Result<Begun> {
        self.check_single(session)?;
        let mut system = self.system();
        system.has_version_handle = true;
        system.balance.begun += 1;
        Ok(Begun { locator: version_locator(), task: MASTER })
    }

    fn new_destination(
        &self,
        session: &SimSession,
        named: &Locator,
        directory: Option<&Path>,
    ) -> Result<Arc<Destination>> {
        self.check_single(session)?;
        let directory = match directory {
            Some(directory) => PathBuf::from(directory),
            None => session.host.directory.join("replaced"),
        };
        fs::create_dir_all(directory.join("#clone")).unwrap();
        let destination = Arc::new(Destination {
            clone_id: named.clone_id,
            snapshot_id: named.snapshot_id,
            directory,
            tasks: Tasks::new(&self.sim, false),
            users: Mutex::new(1),
            files: Mutex::default(),
        });
        self.system().destination = Some(Arc::clone(&destination));
        Ok(destination)
    }

    /// At most one clone is applied, and the handle for the version counts.
    fn check_single(&self, session: &SimSession) -> Result<()> {
        let system = self.system();
        if system.destination.is_none() && !system.has_version_handle {
            return Ok(());
        }
        drop(system);
        let number = number::ER_CLONE_TOO_MANY_CONCURRENT_CLONES;
        Err(session.raise_text(number, "Too many concurrent clone operations"))
    }

    fn add_destination_task(
        &self,
        session: &SimSession,
        destination: &Arc<Destination>,
        named: &Locator,
    ) -> Result<Begun> {
        let begun = destination.tasks.add(session, Some(named.state));
        if begun.is_err() {
            self.release_destination(destination);
        }
        let task = begun?;
        let mut system = self.system();
        system.balance.begun += 1;
        system.balance.added += u32::from(task != MASTER);
        let locator = if task == MASTER { destination.locator() } else { named.clone() };
        Ok(Begun { locator: encode(&Descriptor::Locator(locator)), task })
    }

    pub(super) fn end_destination(
        &self,
        session: &SimSession,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        self.system().balance.ended += 1;
        if Locator::parse(locator).unwrap().clone_id == 0 {
            let mut system = self.system();
            assert!(system.has_version_handle && task == MASTER);
            system.has_version_handle = false;
            return Ok(());
        }
        let destination = self.destination(locator);
        let killed = session.handle.is_killed();
        destination.tasks.set_error(if killed { number::ER_QUERY_INTERRUPTED } else { error });
        destination.tasks.drop_task(session, task);
        if task == MASTER && error == 0 {
            assert_eq!(destination.tasks.state(), SnapshotState::Done, "ended as if complete");
        }
        self.release_destination(&destination);
        Ok(())
    }

    fn release_destination(&self, destination: &Arc<Destination>) {
        let mut users = destination.users.lock().unwrap();
        *users -= 1;
        if *users == 0 {
            assert_eq!(destination.tasks.count(), 0, "a clone without users has no tasks");
            self.system().destination = None;
        }
    }
}

impl Destination {
    pub(super) fn is_named(&self, locator: &Locator) -> bool {
        (locator.clone_id, locator.snapshot_id) == (self.clone_id, self.snapshot_id)
    }

    fn locator(&self) -> Locator {
        Locator {
            version: VERSION,
            clone_id: self.clone_id,
            snapshot_id: self.snapshot_id,
            index: 1,
            state: self.tasks.state(),
            metadata_transferred: false,
            progress: None,
        }
    }

    pub(super) fn apply(
        &self,
        session: &SimSession,
        task: u32,
        descriptor: &[u8],
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        let outcome = self.tasks.check_error(session).and_then(|()| {
            let parsed = Descriptor::parse(descriptor).expect("checked before InnoDB sees it");
            match parsed {
                Descriptor::TaskMetadata(_) => Ok(()),
                Descriptor::State(state) if state.ack => Ok(()),
                Descriptor::State(state) if state.start => {
                    self.start_state(session, task, &state, callbacks)
                }
                Descriptor::State(state) => self.end_state(session, task, state, callbacks),
                Descriptor::FileMetadata(file) => self.add_file(session, &file),
                Descriptor::Data(data) => self.write(session, task, &data, callbacks),
                Descriptor::Locator(_) => panic!("a locator to apply"),
            }
        });
        if let Err(error) = &outcome {
            self.tasks.set_error(error.number());
        }
        outcome
    }

    fn start_state(
        &self,
        session: &SimSession,
        task: u32,
        state: &State,
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        if task == MASTER {
            let view = View { state_change: Some(state.estimate), ..View::default() };
            // InnoDB does not look at the result either.
            let _ = callbacks.change_state(&view);
        }
        self.tasks.enter(
            session,
            task,
            state.state,
            |_| Ok(()),
            || {
                session.host.innodb.step(session, Step::Follow(state.state))?;
                let mut files = self.files.lock().unwrap();
                match state.state {
                    SnapshotState::FileCopy => files.data = vec![None; state.files as usize],
                    SnapshotState::RedoCopy => files.redo = vec![None; state.files as usize],
                    SnapshotState::Done => {
                        let mut all = files.data.iter().chain(&files.redo);
                        assert!(all.all(Option::is_some), "a file that was never described");
                    }
                    _ => {}
                }
                Ok(state.chunks)
            },
        )
    }

    fn end_state(
        &self,
        session: &SimSession,
        task: u32,
        state: State,
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        assert_eq!(state.state, self.tasks.state(), "the end of another state");
        self.tasks.finish_state(session, task)?;
        if task != MASTER {
            return Ok(());
        }
        let descriptor = encode(&Descriptor::State(State { ack: true, ..state }));
        callbacks.change_state(&View { descriptor: &descriptor, ..View::default() })
    }

    fn add_file(&self, session: &SimSession, file: &FileMetadata<'_>) -> Result<()> {
        let state = self.tasks.state();
        let is_ddl = Some(file.state) == state.next();
        assert!(is_ddl || file.state == state, "a file of {} in {state}", file.state);
        let mut files = self.files.lock().unwrap();
        let at = file.file_index as usize;
        if state == SnapshotState::RedoCopy && !is_ddl {
            files.redo[at].get_or_insert_with(|| {
                create(redo_path(&self.directory, file.file_index), file.file_size)
            });
            return Ok(());
        }
        if files.data.get(at).is_some_and(Option::is_some) {
            return Ok(());
        }
        // To name it InnoDB goes back to the first file of another tablespace.
        let before = at.checked_sub(1).filter(|_| file.space_id == 0);
        assert!(before.is_none_or(|before| files.data[before].is_some()), "SIGSEGV in InnoDB");
        drop(files);
        session.host.innodb.step(session, Step::Create)?;
        // Other tasks run meanwhile, and must not be given data for the file.
        session.host.sim.pause();
        let mut files = self.files.lock().unwrap();
        let name = std::str::from_utf8(file.name).unwrap();
        let path = create(data_path(&self.directory, name), file.file_size);
        if is_ddl {
            assert_eq!(at, files.data.len(), "a file out of order");
            files.data.push(Some(path));
        } else {
            files.data[at] = Some(path);
            if at + 1 == files.data.len() {
                self.tasks.all_metadata_arrived();
            }
        }
        Ok(())
    }

    fn write(
        &self,
        session: &SimSession,
        task: u32,
        data: &Data,
        callbacks: &mut dyn BlockInput,
    ) -> Result<()> {
        let innodb = &session.host.innodb;
        assert_eq!(data.state, self.tasks.state(), "data of another state");
        let path = {
            let files = self.files.lock().unwrap();
            let list = match data.state {
                SnapshotState::RedoCopy => &files.redo,
                _ => &files.data,
            };
            list[data.file_index as usize].clone().expect("data of a file that was not described")
        };
        let is_cached = innodb.chance(60);
        let name = path.to_string_lossy();
        let view = View {
            destination_name: &name,
            is_os_buffer_cached: is_cached,
            is_zero_copy: innodb.chance(50),
            ..View::default()
        };
        let step = innodb.step(session, Step::Write(data.state))?;
        let by_buffer = innodb.chance(40);
        match step {
            Action::Skip => drop(callbacks.apply_buffer(&view)),
            Action::DiskFull => {
                let full = File::options().write(true).open("/dev/full").unwrap();
                callbacks.apply_file(&view, full.as_fd())?;
            }
            _ if by_buffer => {
                let bytes = callbacks.apply_buffer(&view)?;
                assert_eq!(bytes.len(), data.data_len as usize);
                assert!(is_cached || bytes.as_ptr().addr().is_multiple_of(ALIGNMENT));
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(bytes, data.file_offset).unwrap();
            }
            _ => {
                let mut file = File::options().write(true).open(&path).unwrap();
                file.seek(SeekFrom::Start(data.file_offset)).unwrap();
                callbacks.apply_file(&view, file.as_fd())?;
            }
        }
        self.tasks.applied(session, task, data.chunk, data.block)
    }
}

/// Makes a file of zeros.
fn create(path: PathBuf, len: u64) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(&path).unwrap();
    // InnoDB's files grow as data come, where it does not have to make room.
    if len.is_multiple_of(2048) {
        file.set_len(len).unwrap();
    }
    path
}
