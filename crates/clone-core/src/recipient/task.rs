// SPDX-License-Identifier: GPL-2.0-only

//! One thread of a recipient: its connections, its part in the engines, and the dialogue with the donor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_protocol::innodb::{self, StreamCheck};
use clone_protocol::{
    Ack, Block, BlockForm, Command, CommandCode, EngineLocator, Init, MAX_ENGINES, Offer, Response,
    Version,
};
use zeroize::Zeroize;

use super::answer::{donor_error, locators_expected, unexpected};
use super::block::{BlockReceiver, Expected};
use super::{Shared, ends_connection};
use crate::engine::{Mode, ServerEngine};
use crate::error::{Error, NetworkError, Result, number};
use crate::link::Link;
use crate::log_target::CLIENT;
use crate::parameters::Parameters;
use crate::session::{Clock, Host, RecipientSession};
use crate::tasks::{DestinationTasks, EngineClone};
use crate::workers::Workers;

/// Seconds that the donor gets for INIT beyond the lock wait: it loads tablespaces and looks through all tables.
const INIT_TIMEOUT_SECONDS: u32 = 300;

/// How long a task that failed waits for the donor to end its stream.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// One thread of a recipient.
pub(super) struct Task<'s, S: RecipientSession> {
    pub(super) session: &'s S,
    pub(super) shared: Arc<Shared<S>>,
    /// The master has this; a worker does not.
    pub(super) master: Option<Master<S>>,
    pub(super) data: Option<S::Link>,
    pub(super) auxiliary: Option<S::Link>,
    pub(super) engine_side: EngineSide,
    /// The descriptor at hand: a copy, because the data that belongs to it overwrites the packet.
    pub(super) descriptor: Vec<u8>,
    /// What is known of the data that belongs to the descriptor at hand.
    pub(super) expected: Expected,
    pub(super) receiver: BlockReceiver,
    payload: Vec<u8>,
}

/// What only the master has: workers, the donor's parameters, and the session's lock.
pub(super) struct Master<S: RecipientSession> {
    pub(super) workers: Workers<S::Host>,
    pub(super) parameters: Parameters,
    pub(super) is_replacing: bool,
}

/// How far the task is in the engines.
#[derive(Debug)]
pub(super) enum EngineSide {
    None,
    /// Begun only to learn the format version.
    Version(DestinationTasks),
    Active(DestinationTasks),
}

/// What a packet of the donor asks for; data has been copied out of it.
enum Event {
    Parameter,
    Locators(Version, Vec<EngineLocator>),
    Descriptor {
        db_type: u8,
        locator_index: usize,
    },
    Data,
    /// The donor asks whether its files can be shared.
    FileTrial,
    Complete,
    Error(Error),
}

/// Which packets are looked at.
#[derive(Clone, Copy)]
struct Takes {
    /// The task has failed, and only waits for the end of the stream.
    nothing: bool,
    /// The donor answers INIT: its parameters may come.
    parameters: bool,
}

impl<'s, S: RecipientSession> Task<'s, S> {
    pub(super) fn master(
        session: &'s S,
        shared: Arc<Shared<S>>,
        workers: Workers<S::Host>,
    ) -> Self {
        let master = Master { workers, parameters: Parameters::default(), is_replacing: false };
        Self { master: Some(master), ..Self::worker(session, shared) }
    }

    pub(super) fn worker(session: &'s S, shared: Arc<Shared<S>>) -> Self {
        Self {
            session,
            shared,
            master: None,
            data: None,
            auxiliary: None,
            engine_side: EngineSide::None,
            descriptor: Vec::new(),
            expected: Expected::default(),
            receiver: BlockReceiver::default(),
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

    /// Lets the donor know that this recipient failed: the donor stops all its tasks, and ends the stream with an error. All of its
    /// engines have to hear of it, since it may be at work in another one by now than that which failed here.
    pub(super) fn report_local_error(&mut self, error: &Error) {
        let error = i32::try_from(error.number()).unwrap_or(i32::MAX);
        let engines = self.shared.clones().len();
        for index in 0..engines {
            let Ok(locator) = self.wire_locator(index) else { continue };
            let told = self.send_auxiliary(&Command::Ack(Ack { error, locator, descriptor: &[] }));
            if let Err(error) = told {
                log::warn!(target: CLIENT, "Source ACK of local issue failed: {error}");
            }
        }
    }

    fn wire_locator(&self, locator_index: usize) -> Result<EngineLocator> {
        let one = self.shared.clones().get(locator_index).map(EngineClone::to_wire);
        one.ok_or_else(locators_expected)
    }

    fn send_auxiliary(&mut self, command: &Command<'_>) -> Result<()> {
        let session = self.session;
        let Some(link) = &mut self.auxiliary else {
            return Err(NetworkError::Write.into());
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
                    .map(|engine| EngineClone { engine, locator: Vec::new() })
                    .collect();
                if located.is_empty() || located.len() > MAX_ENGINES {
                    return Err(Error::NotSupported(
                        "Clone without a storage engine that can".into(),
                    ));
                }
                let directory = self.shared.directory.as_deref();
                let begun =
                    DestinationTasks::begin(session, &mut located, Mode::Version, directory)?;
                self.engine_side = EngineSide::Version(begun);
                *self.shared.clones() = located;
                Ok(Command::Init(self.init_payload()))
            }
            CommandCode::Reinit => {
                if let EngineSide::Active(destination) = &self.engine_side {
                    let mut located = self.shared.clones().clone();
                    destination.restart(session, &mut located, self.shared.directory.as_deref())?;
                    for one in located.iter().filter(|one| one.engine.db_type() == innodb::DB_TYPE)
                    {
                        self.shared.stream.resume(&one.locator)?;
                    }
                    *self.shared.clones() = located;
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
        let settings = host.settings();
        let locators = self.shared.clones().iter().map(|one| one.to_wire()).collect();
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
    ) -> Result<Option<Vec<EngineClone<S::Engine>>>> {
        let session = self.session;
        command.encode_payload(payload);
        if matches!(command, Command::Execute) {
            let takes_files = self.shared.takes_files.load(Ordering::Relaxed);
            let handover = match takes_files && self.is_within_host() {
                true => self.receiver.listen_for_files(),
                false => None,
            };
            Offer { handover, ..self.shared.offer }.encode(payload);
        }
        self.data_link()?.send(session, true, command.code(), payload)?;
        let timeout = match command {
            Command::Init(init) => init.ddl_timeout.saturating_add(INIT_TIMEOUT_SECONDS),
            _ => 0,
        };
        let takes_parameters = matches!(command, Command::Init(_));
        let mut located = None;
        let mut failure: Option<(Error, Duration)> = None;
        loop {
            let takes = Takes { nothing: failure.is_some(), parameters: takes_parameters };
            let received = self.receive(timeout, takes);
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
                        log::warn!(
                            target: CLIENT,
                            "No error from remote in 30 sec after local issue: error: {}: {first}",
                            first.number()
                        );
                        return Err(NetworkError::PacketsOutOfOrder.into());
                    }
                    Ok(_) => continue,
                }
            }
            let outcome = match received {
                Ok(Event::Complete) => return Ok(located),
                Ok(Event::Error(error)) => {
                    self.fail_storage(&error);
                    return Err(self.explained(command, error));
                }
                Err(error) => {
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
                Ok(Event::FileTrial) => {
                    self.receiver.try_sharing(self.shared.target(), &self.shared.takes_files)
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
                // The donor need not wait for blocks that nobody copies.
                self.receiver.close_files();
                failure = Some((error, session.host().now()));
            }
        }
    }

    /// Reads one packet and copies out of it what outlives the packet.
    fn receive(&mut self, timeout: u32, takes: Takes) -> Result<Event> {
        let session = self.session;
        let Some(link) = &mut self.data else {
            return Err(NetworkError::Read.into());
        };
        let packet = link.receive(session, true, timeout)?;
        // Data packets count with their data, in the callback that takes them.
        self.shared.traffic.meter.add(0, packet.network_len);
        let event = match Response::parse(packet.data)? {
            Response::Complete => return Ok(Event::Complete),
            Response::Error { number, message } => Event::Error(donor_error(number, message)),
            Response::Block(Block { form: BlockForm::File, len: 0, .. }) => Event::FileTrial,
            Response::Data(_) | Response::Block(_) => Event::Data,
            _ if takes.nothing => Event::Parameter,
            Response::Locators { version, locators } => Event::Locators(version, locators),
            Response::DataDescriptor { db_type, locator_index, descriptor } => {
                self.descriptor.clear();
                self.descriptor.extend_from_slice(descriptor);
                Event::Descriptor { db_type, locator_index: usize::from(locator_index) }
            }
            _ if !takes.parameters => return Err(unexpected()),
            parameter => {
                if let Some(master) = &mut self.master {
                    master.parameters.take(&parameter)?;
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

    /// A stock donor says of engines that it cannot clone only that there is something wrong with INIT.
    fn explained(&self, command: &Command<'_>, error: Error) -> Error {
        match error {
            Error::Donor { number: code, message }
                if matches!(command, Command::Init(init) if init.locators.len() > 1)
                    && u32::try_from(code) == Ok(number::ER_CLONE_PROTOCOL) =>
            {
                let located = self.shared.clones();
                let others = located.iter().filter(|one| one.engine.db_type() != innodb::DB_TYPE);
                let names: Vec<_> = others.map(|one| one.engine.name()).collect();
                let names = names.join(", ");
                let message = format!(
                    "{message} (to be cloned with {names}, the donor needs this clone plugin and the engine)"
                );
                Error::Donor { number: code, message }
            }
            other => other,
        }
    }

    /// Whether the donor is on this machine.
    pub(super) fn is_within_host(&self) -> bool {
        self.data.as_ref().is_some_and(Link::is_within_host)
    }

    fn data_link(&mut self) -> Result<&mut S::Link> {
        self.data.as_mut().ok_or(Error::Network(NetworkError::Write))
    }
}
