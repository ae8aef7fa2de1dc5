// SPDX-License-Identifier: GPL-2.0-only

//! The connections of one task to the donor, and the packets on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_protocol::innodb::StreamCheck;
use clone_protocol::{
    Ack, Block, BlockForm, Command, EngineLocator, HEARTBEAT_CONFIG, Init, Offer, Response, Version,
};
use zeroize::Zeroize;

use super::answer::{donor_error, locators_expected, unexpected};
use super::auxiliary::{Auxiliary, InUseLink};
use super::based::Map;
use super::block::damaged;
use super::heartbeat::{Heart, reaches_donor};
use super::shared::Shared;
use super::sign_of_life::Liveness;
use crate::error::{Error, NetworkError, Result, number};
use crate::link::{Link, LinkKind, Lives, Packet, Patience};
use crate::log_target::CLIENT;
use crate::parameters::Parameters;
use crate::session::{Clock, Host, RecipientSession, log_step};
use crate::tasks::EngineClone;

/// How long the donor may take for INIT, in addition to the wait for locks. The donor opens
/// tablespaces and looks through all tables.
const INIT_LIMIT: Duration = Duration::from_secs(300);

/// How long the donor may take for EXIT on the data connection, if it has not answered EXIT on the
/// other one: most likely it has gone.
const LAST_EXIT: Duration = Duration::from_secs(3);

/// The connections of one task.
pub(super) struct Dialogue<'s, S: RecipientSession> {
    session: &'s S,
    shared: Arc<Shared<S>>,
    data: Option<S::Link>,
    liveness: Arc<Liveness>,
    /// Says whether the donor of [`Self::liveness`] lives.
    lives: Option<Lives>,
    /// The master's connection for acknowledgements and heartbeats.
    auxiliary: Arc<Auxiliary<S::Link>>,
    /// The donor has not answered EXIT on the auxiliary connection.
    is_auxiliary_lost: bool,
    /// The donor has not got an acknowledgement or an error that was sent to it.
    is_donor_unaware: bool,
    payload: Vec<u8>,
    /// The current descriptor. It is a copy, because the next packet overwrites the packet of the
    /// descriptor.
    descriptor: Vec<u8>,
}

/// What a packet of the donor says; descriptor and parameters have been copied out of it.
pub(super) enum Event {
    Parameter,
    /// The donor answers heartbeats, and has numbered this connection.
    Numbered,
    Locators(Version, Vec<EngineLocator>),
    /// The [descriptor](Dialogue::take_descriptor) is for this engine.
    Descriptor {
        db_type: u8,
        locator_index: usize,
    },
    Data,
    /// Of the block of the next descriptor, so many bytes long, these units are as in the base.
    Map(Map),
    /// The donor asks whether its files can be shared.
    FileTrial,
    Complete,
    Error(Error),
}

/// Which packets the task takes.
pub(super) enum Takes<'a> {
    /// The task has failed, and only waits for the end of the stream.
    Nothing,
    /// The donor answers INIT: its parameters may come.
    Parameters(&'a mut Parameters),
    /// All but parameters.
    Stream,
}

impl<'s, S: RecipientSession> Dialogue<'s, S> {
    pub(super) fn new(session: &'s S, shared: Arc<Shared<S>>) -> Self {
        Self {
            session,
            shared,
            data: None,
            liveness: Arc::default(),
            lives: None,
            auxiliary: Arc::default(),
            is_auxiliary_lost: false,
            is_donor_unaware: false,
            payload: Vec::new(),
            descriptor: Vec::new(),
        }
    }

    /// Opens the data connection, which is of this kind.
    pub(super) fn connect(&mut self, kind: LinkKind) -> Result<()> {
        let compressed = self.shared.is_compressed();
        let data = self.session.connect(&self.shared.donor, kind, compressed);
        self.liveness = Arc::default();
        self.lives = Some(self.liveness.lives(&self.shared.heartbeats, self.session.host()));
        let outcome = data.map(|link| self.data = Some(link));
        log_step(self.session, CLIENT, "Task Connect", &outcome);
        outcome
    }

    /// Opens the auxiliary connection.
    pub(super) fn connect_auxiliary(&mut self) -> Result<()> {
        let compressed = self.shared.is_compressed();
        let link = self.session.connect(&self.shared.donor, LinkKind::Auxiliary, compressed);
        let outcome = link.map(|link| self.auxiliary.put(link));
        self.is_donor_unaware = false;
        log_step(self.session, CLIENT, "Source ACK Connect", &outcome);
        outcome
    }

    /// Starts the thread that sends heartbeats, if this server sends any. A donor with which the
    /// clone has begun has said whether it knows heartbeats.
    pub(super) fn start_heart(&self, has_begun: bool) -> Option<Heart<S>> {
        if has_begun && !self.shared.heartbeats.is_agreed() {
            return None;
        }
        let (liveness, auxiliary) = (Arc::clone(&self.liveness), Arc::clone(&self.auxiliary));
        Heart::start(self.session, &self.shared, liveness, auxiliary)
    }

    /// Waits for the answer to the first heartbeat, which says whether the auxiliary connection has
    /// reached the donor of the data connection. None if that is not known.
    ///
    /// # Errors
    /// As [`reaches_donor`]'s.
    pub(super) fn wait_for_same_donor(&self) -> Result<Option<bool>> {
        reaches_donor(self.session, &self.shared.heartbeats, &self.liveness)
    }

    /// How long to wait for the donor's answer to `command` on the data connection.
    fn patience(&self, command: &Command<'_>) -> Patience {
        let host = self.session.host();
        let init = match command {
            Command::Init(init) => Some(init_limit(init)),
            _ => None,
        };
        let Some(limit) = host.settings().patience() else {
            let limit = init.unwrap_or_default();
            return Patience { limit, allows_as_server: true, lives: None };
        };
        let heartbeats = &self.shared.heartbeats;
        let is_numbered = self.liveness.is_numbered();
        match init {
            // No heartbeats are sent any more.
            _ if is_numbered && matches!(command, Command::Exit) => {
                let limit = if self.is_auxiliary_lost { limit.min(LAST_EXIT) } else { limit };
                Patience { limit, allows_as_server: false, lives: None }
            }
            _ if is_numbered => {
                Patience { limit, allows_as_server: false, lives: self.lives.clone() }
            }
            Some(_) if heartbeats.is_sending() => {
                Patience { limit, allows_as_server: false, lives: self.lives.clone() }
            }
            Some(init) => Patience { limit: limit.max(init), allows_as_server: true, lives: None },
            None => Patience { limit, allows_as_server: !heartbeats.is_agreed(), lives: None },
        }
    }

    /// Whether the donor is on this machine.
    pub(super) fn is_within_host(&self) -> bool {
        self.data.as_ref().is_some_and(Link::is_within_host)
    }

    /// Sends a command over the data connection, with an offer behind it.
    pub(super) fn send(&mut self, command: &Command<'_>, offer: Option<Offer>) -> Result<()> {
        command.encode_payload(&mut self.payload);
        if let Some(offer) = offer {
            offer.encode(&mut self.payload);
        }
        if let Command::Init(init) = command {
            let now = self.session.host().now();
            self.liveness.note_init(now, now + init_limit(init));
        }
        let link = self.data.as_mut().ok_or(NetworkError::Write)?;
        let sent = link.send(self.session, true, command.code(), &self.payload);
        // The offer may contain a secret.
        self.payload.zeroize();
        sent
    }

    /// Receives one packet of the answer to `command`.
    pub(super) fn receive(&mut self, command: &Command<'_>, takes: Takes<'_>) -> Result<Event> {
        let patience = self.patience(command);
        let link = self.data.as_mut().ok_or(NetworkError::Read)?;
        let packet = link.receive(self.session, true, &patience)?;
        self.liveness.count();
        // Data packets that come through `receive_data` are counted with their data, in
        // `Traffic::pace`.
        self.shared.traffic.meter.add(0, packet.network_len);
        let event = match (Response::parse(packet.data)?, takes) {
            (Response::Complete, _) => return Ok(Event::Complete),
            (Response::ConfigV3 { name: HEARTBEAT_CONFIG, value }, _)
                if self.shared.heartbeats.is_sending() =>
            {
                let number = value.parse().ok().filter(|number| *number != 0);
                self.liveness.set_number(&self.shared.heartbeats, number.ok_or_else(unexpected)?);
                Event::Numbered
            }
            (Response::Error { number, message }, _) => Event::Error(donor_error(number, message)),
            (Response::Block(Block { form: BlockForm::File, len: 0, .. }), _) => Event::FileTrial,
            (Response::Block(Block { form: BlockForm::Base, len, checksum, bytes }), _) => {
                if clone_io::checksum(bytes) != checksum {
                    return Err(damaged("its checksum differs"));
                }
                Event::Map(Map { len, bits: bytes.to_vec() })
            }
            (Response::Data(_) | Response::Block(_), _) => Event::Data,
            (_, Takes::Nothing) => Event::Parameter,
            (Response::Locators { version, locators }, _) => Event::Locators(version, locators),
            (Response::DataDescriptor { db_type, locator_index, descriptor }, _) => {
                self.descriptor.clear();
                self.descriptor.extend_from_slice(descriptor);
                Event::Descriptor { db_type, locator_index: usize::from(locator_index) }
            }
            (parameter, Takes::Parameters(parameters)) => {
                parameters.take(&parameter)?;
                Event::Parameter
            }
            (_, Takes::Stream) => return Err(unexpected()),
        };
        if matches!(event, Event::Descriptor { .. })
            && StreamCheck::contains_key_material(&self.descriptor)
        {
            packet.data.zeroize();
        }
        Ok(event)
    }

    /// Takes the current descriptor. The caller must [give it back](Self::give_back).
    pub(super) fn take_descriptor(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.descriptor)
    }

    /// Gives back the memory of a descriptor; a key in it is wiped.
    pub(super) fn give_back(&mut self, mut descriptor: Vec<u8>) {
        if StreamCheck::contains_key_material(&descriptor) {
            descriptor.zeroize();
        }
        self.descriptor = descriptor;
    }

    /// Receives the data packet that follows a descriptor.
    pub(super) fn receive_data(&mut self) -> Result<Packet<'_>> {
        let patience = self.patience(&Command::Execute);
        let link = self.data.as_mut().ok_or(NetworkError::Read)?;
        let packet = link.receive(self.session, true, &patience)?;
        self.liveness.count();
        Ok(packet)
    }

    /// Whether the donor has not got an acknowledgement or an error, so that it goes on waiting.
    pub(super) fn is_donor_unaware(&self) -> bool {
        self.is_donor_unaware
    }

    /// How long the donor was silent, if the data connection ended for that.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.data.as_ref()?.silence()
    }

    /// Acknowledges the end of a state with the engine's descriptor.
    pub(super) fn acknowledge(&mut self, locator_index: usize, descriptor: &[u8]) -> Result<()> {
        let locator = self.wire_locator(locator_index)?;
        let sent = self.send_auxiliary(&Command::Ack(Ack { error: 0, locator, descriptor }));
        self.is_donor_unaware |= sent.is_err();
        sent
    }

    /// Tells the donor that this recipient failed: the donor stops all tasks, and ends the stream
    /// with an error. All engines of the donor are told, because the donor may already be sending
    /// the data of another engine.
    pub(super) fn report_local_error(&mut self, error: &Error) {
        let error = i32::try_from(error.number()).unwrap_or(i32::MAX);
        let engines = self.shared.clones().len();
        for index in 0..engines {
            let Ok(locator) = self.wire_locator(index) else { continue };
            let told = self.send_auxiliary(&Command::Ack(Ack { error, locator, descriptor: &[] }));
            if let Err(error) = told {
                self.is_donor_unaware = true;
                log::info!(target: CLIENT, "Source ACK of local issue failed: {error}");
            }
        }
        self.shared.donor_knows.store(true, Ordering::Relaxed);
    }

    fn wire_locator(&self, locator_index: usize) -> Result<EngineLocator> {
        let one = self.shared.clones().get(locator_index).map(EngineClone::to_wire);
        one.ok_or_else(locators_expected)
    }

    fn send_auxiliary(&mut self, command: &Command<'_>) -> Result<()> {
        let auxiliary = Arc::clone(&self.auxiliary);
        let mut link = auxiliary.take(&**self.session.host()).ok_or(NetworkError::Write)?;
        self.exchange(&mut link, command)
    }

    fn exchange(&mut self, link: &mut S::Link, command: &Command<'_>) -> Result<()> {
        let session = self.session;
        command.encode_payload(&mut self.payload);
        link.send(session, false, command.code(), &self.payload)?;
        let limit = session.host().settings().patience();
        let allows_as_server = limit.is_none() || !self.shared.heartbeats.is_agreed();
        let limit = limit.unwrap_or_default();
        let packet =
            link.receive(session, false, &Patience { limit, allows_as_server, lives: None })?;
        self.shared.traffic.meter.add(0, packet.network_len);
        match Response::parse(packet.data)? {
            Response::Complete => Ok(()),
            Response::Error { number, message } => Err(donor_error(number, message)),
            _ => Err(unexpected()),
        }
    }

    /// Ends the auxiliary connection. If the clone was interrupted, the donor is asked to kill the
    /// data connection.
    pub(super) fn disconnect_auxiliary(&mut self, outcome: &Result<()>) {
        // A donor that was silent on the data connection is not waited for once more.
        let left = match self.silence() {
            Some(_) => Err(NetworkError::ReadTimeout.into()),
            None => self.send_auxiliary(&Command::Exit),
        };
        log_step(self.session, CLIENT, "Source ACK COM_EXIT", &left);
        self.is_auxiliary_lost = left.is_err();
        let interrupted =
            matches!(outcome, Err(error) if error.number() == number::ER_QUERY_INTERRUPTED);
        let mut abort = left.is_err();
        let auxiliary = self.auxiliary.take(&**self.session.host());
        let mut auxiliary = auxiliary.and_then(InUseLink::end);
        if !abort
            && interrupted
            && let (Some(auxiliary), Some(data)) = (&mut auxiliary, &mut self.data)
        {
            let killed = auxiliary.kill(data);
            abort = killed.is_err();
            log_step(self.session, CLIENT, "Source Interrupt", &killed);
        }
        if let Some(auxiliary) = auxiliary {
            auxiliary.disconnect(None, abort, false);
            log::info!(target: CLIENT, "Source ACK Disconnect : abort: {abort}");
        }
    }

    /// Closes the data connection. `abort`: the dialogue is broken. `clear_error`: forget errors of
    /// the session.
    pub(super) fn disconnect_data(&mut self, step: &str, abort: bool, clear_error: bool) {
        self.liveness.end(&self.shared.heartbeats);
        if let Some(data) = self.data.take() {
            data.disconnect(Some(self.session), abort, clear_error);
            log::info!(target: CLIENT, "{step} abort: {abort}");
        }
    }
}

/// How long a donor that lives may take for the answer to INIT.
fn init_limit(init: &Init) -> Duration {
    Duration::from_secs(init.ddl_timeout.into()) + INIT_LIMIT
}

/// Whether the connection can no longer be used for COM_EXIT.
///
/// An interrupted task stopped reading in the middle of the donor's stream, so its connection
/// cannot be used either.
pub(super) fn ends_connection(error: &Error) -> bool {
    error.ends_connection() || error.number() == number::ER_QUERY_INTERRUPTED
}
