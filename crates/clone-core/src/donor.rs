// SPDX-License-Identifier: GPL-2.0-only

//! The donor: answers the commands of one connection in COM_CLONE.
//!
//! Three kinds of connection come: a recipient's master (INIT or REINIT, EXECUTE, EXIT), its
//! workers (ATTACH, EXECUTE, EXIT), and its auxiliary connection (ACK, EXIT). The donor recognises
//! the kind by the commands.

mod activity;
mod allowance;
mod base;
mod clones;
mod framer;
mod handover;
mod membership;
mod output;
mod packers;
mod packing;
mod parameters;
mod peer;
mod sender;
mod steering;
mod stopwatch;
mod way;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use clone_protocol::{
    Ack, Base, Command, CommandCode, EXTENSION_CONFIG, EXTENSION_VALUE, HEARTBEAT_CONFIG,
    HandoverKey, Heartbeat, Init, Offer, Response, Version, innodb,
};

use crate::checks::check_packet_limit;
use crate::consistency_point::PointEvent;
use crate::engine::{Engine, Mode, ServerEngine};
use crate::error::{Error, Result, number};
use crate::file_channel::FileGiver;
use crate::link::DonorLink;
use crate::log_target::SERVER;
use crate::read_only;
use crate::session::{Clock, DonorSession, Host, log_step};
use membership::{Membership, asked_engines, engine_of};
use output::Output;
use packing::ClonePacking;
use peer::{Cloning, CountingLink, Peer};
use sender::Sender;

pub use clones::DonorClones;

/// Serves the connection until the recipient exits the clone protocol or the connection breaks.
///
/// # Errors
/// The connection broke. All other errors were sent to the recipient.
pub fn serve<S: DonorSession>(
    session: &S,
    clones: &DonorClones<S::Engine>,
    link: &mut dyn DonorLink,
) -> Result<()> {
    let peer = Arc::new(Peer::new(session.host().now()));
    let (watched, host) = (Arc::clone(&peer), session.host().clone());
    let cloning = clones.peers.cloning_counter();
    link.watch(Box::new(move || {
        let is_idle = cloning.load(Ordering::Relaxed) == 0;
        watched.silence(host.now(), host.settings().patience(), is_idle)
    }));
    let mut link = CountingLink { link, peer: Arc::clone(&peer) };
    let mut serving = Serving {
        session,
        clones,
        link: &mut link,
        peer,
        cloning: None,
        membership: None,
        is_attaching: false,
        is_backup_locked: false,
        packet: Vec::new(),
        output: Output::default(),
    };
    let outcome = serving.run();
    serving.close(outcome.as_ref().err().map_or(0, Error::number));
    log_step(session, SERVER, "Exiting clone protocol", &outcome);
    outcome
}

/// What a donor does in INIT, REINIT or ATTACH; see [`Peer::set_activity`].
const BEGINS: &str = "begins the clone in its storage engines";

/// The state of one connection.
struct Serving<'a, S: DonorSession> {
    session: &'a S,
    /// All clones of which this server is the donor.
    clones: &'a DonorClones<S::Engine>,
    link: &'a mut dyn DonorLink,
    /// The recipient.
    peer: Arc<Peer>,
    /// Present from the first INIT, REINIT or ATTACH on.
    cloning: Option<Cloning>,
    /// Present from INIT, REINIT or ATTACH to EXIT or an error.
    membership: Option<Membership<S::Engine>>,
    /// True from ATTACH to its answer. A worker that fails in ATTACH does not fail the clone.
    is_attaching: bool,
    is_backup_locked: bool,
    /// Packets other than data are built here.
    packet: Vec<u8>,
    output: Output,
}

/// Whether the dialogue goes on after a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Command,
    /// The same, after a heartbeat or digests of a base. There are many, which are not logged.
    Unlogged,
    Exit,
}

impl<S: DonorSession> Serving<'_, S> {
    fn run(&mut self) -> Result<()> {
        let mut payload = Vec::new();
        loop {
            let outcome = match self.link.receive(&mut payload) {
                Ok(code) => self.execute(code, &payload),
                Err(error) => Err(error),
            };
            let outcome = match outcome {
                Ok(_) if self.session.is_killed() => Err(Error::Interrupted),
                other => other,
            };
            match outcome {
                Ok(next) => {
                    self.packet.clear();
                    Response::Complete.encode(&mut self.packet);
                    let sent = self.link.send(false, &mut self.packet);
                    if sent.is_err() || next != Next::Unlogged {
                        log_step(self.session, SERVER, "COM_RES_COMPLETE", &sent);
                    }
                    sent?;
                    if next == Next::Exit {
                        return Ok(());
                    }
                }
                Err(error) => self.report(error)?,
            }
        }
    }

    /// Tells the recipient of `error`.
    ///
    /// The recipient answers with EXIT sooner or later. What the clone holds here (snapshot, backup
    /// lock) is given back at once: a recipient that stalls must not stop DDL at the donor until
    /// the idle time-out of eight hours, as it does with the stock plugin.
    ///
    /// # Errors
    /// The connection is broken: by `error`, or while `error` was sent.
    fn report(&mut self, error: Error) -> Result<()> {
        self.session.raise(&error);
        let error = Error::Raised(error.number());
        let fatal = error.is_network();
        let kind = if fatal { "network " } else { " " };
        let outcome: Result<()> = Err(error.clone());
        let step = format!("Before sending COM_RES_ERROR: {kind}");
        log_step(self.session, SERVER, &step, &outcome);
        let sent = self.link.send_error(fatal);
        log_step(self.session, SERVER, "After sending COM_RES_ERROR", &sent);
        if sent.is_ok() {
            self.close(error.number());
        }
        sent
    }

    /// Releases the backup lock, and ends the membership.
    fn close(&mut self, error: u32) {
        let error = if self.is_attaching { 0 } else { error };
        // In the engines, the end of a failed clone waits for the other tasks, in InnoDB up to 30
        // minutes. DDL need not wait for that: release the backup lock first. After a network
        // failure keep the lock until the engines have ended, because the clone may go on.
        if error != 0 && !Error::Raised(error).is_network() {
            self.unlock_backup();
        }
        if let Some(membership) = self.membership.take() {
            membership.end(self.session, error);
        }
        self.unlock_backup();
    }

    fn unlock_backup(&mut self) {
        if std::mem::take(&mut self.is_backup_locked) {
            self.session.unlock_backup();
        }
    }

    fn execute(&mut self, code: u8, payload: &[u8]) -> Result<Next> {
        self.peer.note_command(self.session.host().now());
        let outcome = self.answer(code, payload);
        self.peer.set_activity("waits for a command of this recipient");
        outcome
    }

    fn answer(&mut self, code: u8, payload: &[u8]) -> Result<Next> {
        self.is_attaching = code == CommandCode::Attach as u8;
        let command = match Command::parse(code, payload) {
            Ok(command) => command,
            Err(error) => {
                let outcome: Result<()> = Err(error.into());
                log_step(self.session, SERVER, "Invalid request", &outcome);
                return outcome.map(|()| Next::Command);
            }
        };
        let (step, outcome) = match command {
            Command::Init(init) => {
                ("COM_INIT: Storage Initialize", self.initialize(Mode::Start, init))
            }
            Command::Reinit(init) => {
                ("COM_REINIT: Storage Initialize", self.initialize(Mode::Restart, init))
            }
            Command::Attach(init) => {
                ("COM_ATTACH: Storage Attach", self.initialize(Mode::AddTask, init))
            }
            Command::Execute => ("COM_EXECUTE: Storage Execute", self.copy(Offer::parse(payload))),
            Command::Ack(ack) => ("COM_ACK: Storage Ack", self.acknowledge(&ack)),
            Command::Exit => {
                self.close(0);
                ("COM_EXIT: Storage End", self.answer_offer(payload))
            }
            Command::Heartbeat(heartbeat) => return self.beat(&heartbeat),
            Command::Base(base) => return self.take_base(&base),
        };
        log_step(self.session, SERVER, step, &outcome);
        outcome?;
        Ok(if code == CommandCode::Exit as u8 { Next::Exit } else { Next::Command })
    }

    /// INIT, REINIT and ATTACH.
    fn initialize(&mut self, mode: Mode, init: Init) -> Result<()> {
        if self.membership.is_some() {
            return Err(Error::Protocol("Wrong Clone RPC: Invalid request".to_owned()));
        }
        let host = self.session.host();
        self.clones.allowance.look(&**host);
        self.cloning.get_or_insert_with(|| self.clones.peers.begin_clone());
        if init.sends_heartbeats {
            self.number_connection()?;
        }
        self.peer.set_activity(BEGINS);
        let asked = asked_engines(self.session, mode, init.locators)?;
        if mode == Mode::Start {
            read_only::check(self.session)?;
        }
        let is_master = mode != Mode::AddTask;
        let stops_ddl = is_master && (init.block_ddl || !host.release().allows_ddl);
        if is_master {
            self.session.mark_donor_statement();
        }
        if stops_ddl {
            self.lock_backup(init.ddl_timeout)?;
        }
        let begun = Membership::begin(self.session, self.clones, asked, mode, init.ddl_timeout)?;
        let version = Version::negotiate(init.version).min(host.release().protocol);
        let locators = begun.locators(version);
        self.membership = Some(begun);
        if stops_ddl {
            // InnoDB releases all backup locks of the session if it had to open tablespaces
            // (clone_init_tablespaces). So take the lock again. That does nothing if the lock is
            // still held.
            self.session.lock_backup(init.ddl_timeout)?;
        }
        self.answer_init(mode, version, &locators)
    }

    fn lock_backup(&mut self, timeout: u32) -> Result<()> {
        self.peer.set_activity("waits for its backup lock, which DDL holds");
        self.session.lock_backup(timeout)?;
        self.peer.set_activity(BEGINS);
        self.is_backup_locked = true;
        log::info!(target: SERVER, "Acquired backup lock");
        Ok(())
    }

    /// Sends what the recipient of a new clone has to check, and the locators.
    fn answer_init(&mut self, mode: Mode, version: Version, locators: &Response<'_>) -> Result<()> {
        let (link, packet) = (&mut *self.link, &mut self.packet);
        if mode == Mode::Start {
            check_packet_limit(self.session)?;
            parameters::send(self.session, version, |response| send(link, packet, response))?;
        }
        send(link, packet, locators)
    }

    /// EXECUTE: each engine sends all of its data, InnoDB first.
    fn copy(&mut self, offer: Option<Offer>) -> Result<()> {
        let Some(membership) = &self.membership else {
            return Err(Error::Protocol("Wrong Clone RPC: Execute request before Init".to_owned()));
        };
        let is_master = membership.is_master;
        let packs = parameters::allows_packing(self.session);
        let giver = self.connect_files(offer.and_then(|offer| offer.handover), is_master);
        let clone = membership.clone.as_deref();
        let has_base = clone.is_some_and(|clone| clone.base.is_known());
        self.output.agree(offer, giver, packs, has_base, self.link.is_plain())?;
        let own = ClonePacking::default();
        let packing = clone.map_or(&own, |clone| &clone.packing);
        let _at_work = self.output.begin(packing);
        if let Some(point) = membership.point().filter(|_| is_master) {
            point.resume()?;
        }
        for task in membership.source.iter() {
            let mut sender = Sender {
                session: self.session,
                link: &mut *self.link,
                task,
                clone: clone.filter(|_| task.clone.is_innodb()),
                is_master,
                peer: &self.peer,
                commit_block: None,
                packing,
                allowance: &self.clones.allowance,
                output: &mut self.output,
            };
            task.copy(self.session, 0, &mut sender)?;
        }
        Ok(())
    }

    /// Connects to the socket where the recipient takes open files. `key` names the socket; none if
    /// the recipient takes none.
    fn connect_files(
        &self,
        key: Option<HandoverKey>,
        is_master: bool,
    ) -> Option<Box<dyn FileGiver>> {
        let key = key.filter(|_| self.session.host().settings().file_handover)?;
        let giver = self.session.connect_files(key);
        if let (Err(error), true) = (&giver, is_master) {
            log::info!(target: SERVER, "No files are handed over, they are sent: {error}");
        }
        giver.ok()
    }

    /// The connection gets a number, which heartbeats name. The recipient learns it before
    /// anything else.
    fn number_connection(&mut self) -> Result<()> {
        let host = self.session.host();
        let number = self.clones.peers.number(&self.peer, host.now(), host.unix_micros());
        let value = number.to_string();
        let answer = Response::ConfigV3 { name: HEARTBEAT_CONFIG, value: &value };
        let sent = send(self.link, &mut self.packet, &answer);
        self.peer.forget_packets();
        sent
    }

    fn beat(&mut self, heartbeat: &Heartbeat) -> Result<Next> {
        let now = self.session.host().now();
        let answer = self.clones.peers.beat(&self.peer, &heartbeat.connections, now);
        send(self.link, &mut self.packet, &answer)?;
        Ok(Next::Unlogged)
    }

    /// BASE, from a master between INIT and EXECUTE: digests of an older copy that the recipient
    /// has.
    fn take_base(&mut self, base: &Base<'_>) -> Result<Next> {
        self.peer.set_activity("takes digests of the recipient's older copy");
        let taken = self.membership.as_mut().and_then(|membership| membership.take_base(base));
        taken.unwrap_or_else(|| {
            Err(Error::Protocol("Wrong Clone RPC: Base request before Init".to_owned()))
        })?;
        Ok(Next::Unlogged)
    }

    /// EXIT with an offer behind it: a recipient asks whether this donor understands offers, and
    /// may ask what it has to know before it replaces its own data.
    fn answer_offer(&mut self, payload: &[u8]) -> Result<()> {
        let Some(offer) = Offer::parse(payload) else { return Ok(()) };
        let answer = Response::ConfigV3 { name: EXTENSION_CONFIG, value: EXTENSION_VALUE };
        send(self.link, &mut self.packet, &answer)?;
        if offer.asks {
            for (name, value) in self.session.facts().encode() {
                let answer = Response::ConfigV3 { name, value: &value };
                send(self.link, &mut self.packet, &answer)?;
            }
        }
        Ok(())
    }

    /// ACK, on the auxiliary connection. It goes to the engine, with one exception: if other
    /// engines follow InnoDB, the acknowledgement of PAGE COPY goes to the consistency point. The
    /// master's EXECUTE gives it to InnoDB later.
    fn acknowledge(&self, ack: &Ack<'_>) -> Result<()> {
        let engine = engine_of(self.session, &ack.locator)
            .ok_or_else(|| Error::Protocol("Wrong Clone RPC: Init ACK length".to_owned()))?;
        let locator = &ack.locator.bytes;
        let is_innodb = engine.db_type() == innodb::DB_TYPE;
        let clone = self.clones.find(locator).filter(|_| is_innodb);
        let point = clone.as_ref().and_then(|clone| clone.point.as_ref());
        let lets_choose = ack.error == 0
            && PointEvent::of(ack.descriptor) == Some(PointEvent::PageCopyAcknowledged);
        // After KILL the clone ends and needs no point.
        let lets_choose = lets_choose && !self.session.is_killed();
        if let Some(point) = point.filter(|_| lets_choose) {
            point.acknowledge(ack.descriptor);
            return Ok(());
        }
        // A negative number is no MySQL error, but it reports a failure.
        let error = u32::try_from(ack.error).unwrap_or(number::ER_INTERNAL_ERROR);
        let outcome = engine.ack(self.session, locator, error, ack.descriptor);
        let error = outcome.as_ref().map_or_else(Error::number, |()| error);
        if let Some(point) = point.filter(|_| error != 0) {
            point.fail(error);
        }
        outcome
    }
}

/// Encodes `response` into `packet` and sends it.
fn send(link: &mut dyn DonorLink, packet: &mut Vec<u8>, response: &Response<'_>) -> Result<()> {
    packet.clear();
    response.encode(packet);
    link.send(false, packet)
}
