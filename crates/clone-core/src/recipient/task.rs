// SPDX-License-Identifier: GPL-2.0-only

//! One thread of a recipient: its connections, its part in the engines, and the dialogue with the donor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_io::AlignedBuffer;
use clone_protocol::innodb::{self, StreamCheck, TaskRole};
use clone_protocol::{
    Ack, Command, CommandCode, EngineLocator, Init, MAX_ENGINES, Response, Version,
};
use zeroize::Zeroize;

use super::{Shared, ends_connection};
use crate::crew::Crew;
use crate::error::{Error, Result, number};
use crate::params::{self, Parameters};
use crate::session::{Engine, Host, Link, Mode, Session, Work, WorkerKind};
use crate::storage::{Destination, Located};

/// Seconds that the donor gets for INIT beyond the lock wait: it loads tablespaces and looks through all tables.
const INIT_TIMEOUT_SECONDS: u32 = 300;

/// How long a task that failed waits for the donor to end its stream.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// One thread of a recipient.
pub(super) struct Task<'s, S: Session> {
    pub(super) session: &'s S,
    pub(super) shared: Arc<Shared<S>>,
    /// The master has this; a worker does not.
    pub(super) master: Option<Master>,
    pub(super) data: Option<S::Link>,
    pub(super) auxiliary: Option<S::Link>,
    pub(super) storage: Storage,
    /// The descriptor at hand: a copy, because the data that belongs to it overwrites the packet.
    descriptor: Vec<u8>,
    /// What is known of the DATA packet that belongs to the descriptor at hand.
    pub(super) expected: Expected,
    /// Direct I/O is fed from here.
    pub(super) buffer: AlignedBuffer,
    payload: Vec<u8>,
}

/// What only the master has: workers, the donor's parameters, and the session's lock.
pub(super) struct Master {
    crew: Crew,
    parameters: Parameters,
    is_backup_locked: bool,
}

/// How far the task is in the engines.
#[derive(Debug)]
pub(super) enum Storage {
    None,
    /// Begun only to learn the format version.
    Version(Destination),
    Active(Destination),
}

/// What is known of a DATA packet before it comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    /// Bytes behind the code, where the engine's descriptors are known.
    pub(super) len: Option<u32>,
    /// There may be a key in clear in it.
    pub(super) holds_key: bool,
}

/// What a packet of the donor asks for; data has been copied out of it.
enum Event {
    Parameter,
    Locators(Version, Vec<EngineLocator>),
    Descriptor { db_type: u8, locator_index: usize },
    Data,
    Complete,
    Error(Error),
}

impl<'s, S: Session> Task<'s, S> {
    pub(super) fn master(session: &'s S, shared: Arc<Shared<S>>, crew: Crew) -> Self {
        let master = Master { crew, parameters: Parameters::default(), is_backup_locked: false };
        Self { master: Some(master), ..Self::worker(session, shared) }
    }

    pub(super) fn worker(session: &'s S, shared: Arc<Shared<S>>) -> Self {
        Self {
            session,
            shared,
            master: None,
            data: None,
            auxiliary: None,
            storage: Storage::None,
            descriptor: Vec::new(),
            expected: Expected::default(),
            buffer: AlignedBuffer::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn is_master(&self) -> bool {
        self.master.is_some()
    }

    /// How long the donor keeps the clone for us after a network failure.
    pub(super) fn reconnect_timeout(&self) -> Duration {
        let minutes =
            self.master.as_ref().map_or(0, |master| master.parameters.reconnect_minutes());
        Duration::from_secs(minutes.saturating_mul(60))
    }

    /// Runs one command over the data connection, up to the donor's COMPLETE.
    pub(super) fn command(&mut self, code: CommandCode) -> Result<()> {
        let mut payload = std::mem::take(&mut self.payload);
        let outcome = self
            .prepare(code)
            .and_then(|command| self.transfer(&command, &mut payload))
            .and_then(|locators| match (code, locators) {
                (CommandCode::Init, Some(located)) => self.begin_clone(located),
                (CommandCode::Attach, Some(located)) => self.join_clone(located),
                (CommandCode::Init | CommandCode::Attach, None) => Err(locators_expected()),
                _ => Ok(()),
            });
        self.payload = payload;
        outcome
    }

    /// Acknowledges a state (`error` 0 and the engine's descriptor), reports a local error, or says EXIT, over the auxiliary
    /// connection.
    pub(super) fn auxiliary_command(
        &mut self,
        code: CommandCode,
        locator_index: usize,
        descriptor: &[u8],
    ) -> Result<()> {
        let command = match code {
            CommandCode::Ack => Command::Ack(Ack {
                error: 0,
                locator: self.wire_locator(locator_index)?,
                descriptor,
            }),
            _ => Command::Exit,
        };
        self.send_auxiliary(&command)
    }

    /// Lets the donor know that this recipient failed: the donor stops all its tasks, and ends the stream with an error.
    fn report_local_error(&mut self, locator_index: usize, error: &Error) {
        let Ok(locator) = self.wire_locator(locator_index) else { return };
        let error = i32::try_from(error.number()).unwrap_or(i32::MAX);
        let told = self.send_auxiliary(&Command::Ack(Ack { error, locator, descriptor: &[] }));
        if let Err(error) = told {
            self.log(&format!("Source ACK of local issue failed: {error}"));
        }
    }

    fn wire_locator(&self, locator_index: usize) -> Result<EngineLocator> {
        let one = self.shared.located().get(locator_index).map(Located::to_wire::<S>);
        let mut locator = one.ok_or_else(locators_expected)?;
        if self.session.host().debug_keyword("clone_send_invalid_ack_locator_db_type") {
            locator.db_type = 0xff;
        }
        Ok(locator)
    }

    fn send_auxiliary(&mut self, command: &Command<'_>) -> Result<()> {
        let session = self.session;
        let Some(link) = &mut self.auxiliary else {
            return Err(Error::Raised(number::ER_NET_ERROR_ON_WRITE));
        };
        command.encode_payload(&mut self.payload);
        link.send(session, false, command.code(), &self.payload)?;
        let packet = link.receive(session, false, 0)?;
        self.shared.traffic.meter.add(0, packet.network_len);
        match Response::parse(packet.data)? {
            Response::Complete => Ok(()),
            Response::Error { number, message } => Err(donor_error(number, message)),
            _ => Err(unexpected()),
        }
    }

    /// What the command says, after the engines were asked for their part of it.
    fn prepare(&mut self, code: CommandCode) -> Result<Command<'static>> {
        let session = self.session;
        match code {
            CommandCode::Init => {
                let engines = session.engines();
                let mut located: Vec<_> = engines
                    .into_iter()
                    .map(|engine| Located { engine, locator: Vec::new() })
                    .collect();
                if located.is_empty() || located.len() > MAX_ENGINES {
                    return Err(Error::NotSupported("Clone without a storage engine that can"));
                }
                let directory = self.shared.directory.as_deref();
                let begun = Destination::begin(session, &mut located, Mode::Version, directory)?;
                self.storage = Storage::Version(begun);
                *self.shared.located() = located;
                Ok(Command::Init(self.init_payload()))
            }
            CommandCode::Reinit => {
                if let Storage::Active(destination) = &self.storage {
                    let mut located = self.shared.located().clone();
                    destination.restart(session, &mut located, self.shared.directory.as_deref())?;
                    for one in located.iter().filter(|one| one.engine.db_type() == innodb::DB_TYPE)
                    {
                        self.shared.stream.resume(&one.locator)?;
                    }
                    *self.shared.located() = located;
                }
                Ok(Command::Reinit(self.init_payload()))
            }
            CommandCode::Attach => Ok(Command::Attach(self.init_payload())),
            CommandCode::Execute => Ok(Command::Execute),
            _ => Ok(Command::Exit),
        }
    }

    fn init_payload(&self) -> Init {
        let host = self.session.host();
        if host.debug_keyword("clone_set_to_protocol_version_3") {
            self.shared.version.store(Version::V3.number(), Ordering::Relaxed);
        }
        let settings = host.settings();
        let mut locators: Vec<_> =
            self.shared.located().iter().map(|one| one.to_wire::<S>()).collect();
        for locator in &mut locators {
            if host.debug_keyword("clone_send_invalid_locator_db_type") {
                locator.db_type = 0xff;
            }
            if host.debug_keyword("clone_send_locator_db_type_without_clone_callbacks") {
                const DB_TYPE_MYISAM: u8 = 9;
                locator.db_type = DB_TYPE_MYISAM;
            }
        }
        Init {
            version: self.shared.version.load(Ordering::Relaxed),
            ddl_timeout: settings.ddl_timeout,
            block_ddl: settings.block_ddl,
            locators,
        }
    }

    /// Sends the command and handles what the donor answers, up to its last packet. Gives the locators if they came.
    ///
    /// A task that fails goes on reading until the donor, told of it by the master, ends the stream: only then the connection can
    /// be used for COM_EXIT.
    fn transfer(
        &mut self,
        command: &Command<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Option<Vec<Located<S::Engine>>>> {
        let session = self.session;
        command.encode_payload(payload);
        self.data_link()?.send(session, true, command.code(), payload)?;
        let timeout = match command {
            Command::Init(init) => init.ddl_timeout.saturating_add(INIT_TIMEOUT_SECONDS),
            _ => 0,
        };
        let mut located = None;
        let mut failure: Option<(Error, Duration)> = None;
        loop {
            let received = self.receive(timeout, failure.is_some());
            if let Some((first, since)) = &failure {
                match received {
                    // Its end; or the connection broke meanwhile, which is not the reason of the failure.
                    Ok(Event::Complete) | Err(_) => return Err(first.clone()),
                    // If a worker heard the donor's error first, only its number came through the engine. The text is here.
                    Ok(Event::Error(error)) => {
                        session.raise(&error);
                        return Err(first.clone());
                    }
                    Ok(_) if session.host().now().saturating_sub(*since) > DRAIN_TIMEOUT => {
                        let step = "No error from remote in 30 sec after local issue";
                        self.log_outcome(step, &Err(first.clone()));
                        return Err(Error::PacketsOutOfOrder);
                    }
                    Ok(_) => continue,
                }
            }
            let outcome = match received {
                Ok(Event::Complete) => return Ok(located),
                Ok(Event::Error(error)) | Err(error) => {
                    self.fail_storage(&error);
                    return Err(error);
                }
                Ok(Event::Parameter) => Ok(()),
                Ok(Event::Locators(version, locators)) => {
                    self.shared.version.store(version.number(), Ordering::Relaxed);
                    self.resolve(locators).map(|resolved| located = Some(resolved))
                }
                Ok(Event::Descriptor { db_type, locator_index }) => {
                    self.apply(db_type, locator_index)
                }
                Ok(Event::Data) => Err(unexpected()),
            };
            if let Err(error) = outcome {
                session.raise(&error);
                self.fail_storage(&error);
                if ends_connection(&error) {
                    return Err(error);
                }
                self.log_outcome("Wait for remote after local issue", &Err(error.clone()));
                failure = Some((error, session.host().now()));
            }
        }
    }

    /// Reads one packet and copies out of it what outlives it. While the end of the stream is awaited nothing is looked at.
    fn receive(&mut self, timeout: u32, drains: bool) -> Result<Event> {
        let session = self.session;
        let Some(link) = &mut self.data else {
            return Err(Error::Raised(number::ER_NET_READ_ERROR));
        };
        let packet = link.receive(session, true, timeout)?;
        // Data packets count with their data, in the callback that takes them.
        self.shared.traffic.meter.add(0, packet.network_len);
        let event = match Response::parse(packet.data)? {
            Response::Complete => return Ok(Event::Complete),
            Response::Error { number, message } => Event::Error(donor_error(number, message)),
            Response::Data(_) => Event::Data,
            _ if drains => Event::Parameter,
            Response::Locators { version, locators } => Event::Locators(version, locators),
            Response::DataDescriptor { db_type, locator_index, descriptor } => {
                self.descriptor.clear();
                self.descriptor.extend_from_slice(descriptor);
                Event::Descriptor { db_type, locator_index: usize::from(locator_index) }
            }
            parameter => {
                if let Some(master) = &mut self.master {
                    master.parameters.take(session, &parameter)?;
                }
                Event::Parameter
            }
        };
        if matches!(event, Event::Descriptor { .. })
            && StreamCheck::contains_key_material(&self.descriptor)
        {
            packet.data.zeroize();
        }
        Ok(event)
    }

    /// Gives the descriptor at hand to its engine.
    fn apply(&mut self, db_type: u8, locator_index: usize) -> Result<()> {
        let mut descriptor = std::mem::take(&mut self.descriptor);
        let outcome = self.apply_descriptor(db_type, locator_index, &descriptor);
        if StreamCheck::contains_key_material(&descriptor) {
            descriptor.zeroize();
        }
        self.descriptor = descriptor;
        if let Err(error) = &outcome {
            self.session.raise(error);
            if self.is_master() && error.number() != number::ER_CLONE_DONOR {
                self.report_local_error(locator_index, error);
            }
        }
        outcome
    }

    fn apply_descriptor(
        &mut self,
        db_type: u8,
        locator_index: usize,
        descriptor: &[u8],
    ) -> Result<()> {
        let Storage::Active(Destination { tasks }) = &self.storage else {
            return Err(unexpected());
        };
        let Some(&task) = tasks.get(locator_index) else { return Err(unexpected()) };
        let Some(Located { engine, locator }) = self.shared.located().get(locator_index).cloned()
        else {
            return Err(unexpected());
        };
        if engine.db_type() != db_type {
            let text = "Remote descriptor handlerton type mismatch";
            return Err(Error::Protocol(text.to_owned()));
        }
        self.expected = Expected::default();
        if db_type == innodb::DB_TYPE {
            let role = if self.is_master() { TaskRole::Master } else { TaskRole::Worker };
            let checked = self.shared.stream.check_from(role, descriptor)?;
            self.expected = Expected { len: checked.data_len, holds_key: checked.key_in_data };
        }
        let session = self.session;
        let mut callbacks = super::apply::Applier::new(self, locator_index);
        let outcome =
            engine.apply(session, &locator, task, locator_index, descriptor, &mut callbacks);
        callbacks.finish(outcome)
    }

    /// The engines of the donor's locators, which must be ours in the same order.
    fn resolve(&self, locators: Vec<EngineLocator>) -> Result<Vec<Located<S::Engine>>> {
        let ours = self.shared.located().clone();
        if ours.len() != locators.len() {
            return Err(locators_expected());
        }
        ours.into_iter()
            .zip(locators)
            .map(|(one, theirs)| {
                if one.engine.db_type() != theirs.db_type || theirs.bytes.is_empty() {
                    return Err(locators_expected());
                }
                Ok(Located { engine: one.engine, locator: theirs.bytes })
            })
            .collect()
    }

    /// After INIT: everything is checked, and only then anything is changed.
    fn begin_clone(&mut self, mut located: Vec<Located<S::Engine>>) -> Result<()> {
        let session = self.session;
        self.end_storage(0)?;
        let version = self.shared.version();
        if let Some(master) = &self.master {
            master.parameters.check(session, version)?;
        }
        params::check_packet_limit(session)?;
        if self.shared.replaces_server() {
            session.lock_backup(session.host().settings().ddl_timeout)?;
            if let Some(master) = &mut self.master {
                master.is_backup_locked = true;
            }
        }
        self.next_stage(0);
        let directory = self.shared.directory.as_deref();
        let begun = Destination::begin(session, &mut located, Mode::Start, directory)?;
        self.storage = Storage::Active(begun);
        *self.shared.located() = located;
        Ok(())
    }

    /// After ATTACH: the engine waits until this recipient has reached the state that the donor's locator names.
    fn join_clone(&mut self, mut located: Vec<Located<S::Engine>>) -> Result<()> {
        let directory = self.shared.directory.as_deref();
        let begun = Destination::begin(self.session, &mut located, Mode::AddTask, directory)?;
        self.storage = Storage::Active(begun);
        Ok(())
    }

    /// Lets the other tasks of the clone see that this one failed.
    pub(super) fn fail_storage(&self, error: &Error) {
        if let Storage::Active(destination) = &self.storage {
            let located = self.shared.located().clone();
            destination.fail(self.session, &located, error.number());
        }
    }

    /// Ends the task in the engines, with `error` or 0.
    pub(super) fn end_storage(&mut self, error: u32) -> Result<()> {
        match std::mem::replace(&mut self.storage, Storage::None) {
            Storage::None => Ok(()),
            Storage::Version(destination) | Storage::Active(destination) => {
                let located = self.shared.located().clone();
                destination.end(self.session, &located, error)
            }
        }
    }

    /// The backup lock of a clone that failed; after success it is kept until the server restarts.
    pub(super) fn unlock_backup(&mut self) {
        if let Some(master) = &mut self.master
            && std::mem::take(&mut master.is_backup_locked)
        {
            self.session.unlock_backup();
        }
    }

    /// Without auto-tuning all workers start at once.
    pub(super) fn spawn_initial_workers(&mut self) {
        let settings = self.session.host().settings();
        let wanted = self.master.as_ref().map_or(0, |master| master.crew.initial(&settings));
        self.grow(wanted);
    }

    /// Before each block: more workers, if they have helped so far.
    pub(super) fn tune(&mut self) {
        let Some(master) = &mut self.master else { return };
        let wanted = master.crew.tune(self.session, &self.shared.traffic.meter);
        self.grow(wanted);
    }

    fn grow(&mut self, wanted: u32) {
        let Some(master) = &mut self.master else { return };
        master.crew.grow(self.session, WorkerKind::Client, wanted, || -> Work<S> {
            let shared = Arc::clone(&self.shared);
            // A worker's error is in the engine by then, where the master finds it.
            Box::new(move |session| drop(Task::worker(session, shared).run()))
        });
    }

    /// A stage begins; `estimate` is in bytes.
    pub(super) fn next_stage(&self, estimate: u64) {
        if let Some(master) = &self.master {
            master.crew.next_stage(self.session, estimate);
        }
    }

    /// A stage has ended.
    pub(super) fn finish_stage(&mut self) {
        if let Some(master) = &mut self.master {
            master.crew.finish_stage(self.session, &self.shared.traffic.meter);
        }
    }

    /// Waits for all workers.
    pub(super) fn join_workers(&mut self) {
        if let Some(master) = &mut self.master {
            master.crew.join(self.session);
        }
    }

    fn data_link(&mut self) -> Result<&mut S::Link> {
        self.data.as_mut().ok_or(Error::Raised(number::ER_NET_ERROR_ON_WRITE))
    }
}

fn donor_error(number: i32, message: &[u8]) -> Error {
    Error::Donor { number, message: String::from_utf8_lossy(message).into_owned() }
}

fn unexpected() -> Error {
    Error::Protocol("Wrong Clone RPC response".to_owned())
}

fn locators_expected() -> Error {
    Error::Protocol("Wrong Clone RPC response length for COM_RES_LOCS".to_owned())
}
