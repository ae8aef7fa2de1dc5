// SPDX-License-Identifier: GPL-2.0-only

//! The two ends of a connection as the clone logic sees them. Their errors are those of
//! `sql/server_component/clone_protocol_service.cc`.

use std::sync::Arc;
use std::time::Duration;

use clone_core::donor;
use clone_core::error::{Error, Result, number};
use clone_core::link::{Donor, DonorLink, Link, LinkKind, Packet, Patience, Silence};
use clone_protocol::{CommandCode, Response};

use super::{HEADER, Network, Wait};
use crate::sim::faults::{Action, End, Event, Role};
use crate::sim::session::{INTERRUPTED, SimSession};

/// `net_read_timeout`, and the least that a clone uses.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// `net_write_timeout`, likewise.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a donor waits for a command.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8 * 3600);

/// `ER_CLIENT_INTERACTION_TIMEOUT`, which is no network error to the clone plugin.
const IDLE: u32 = 4031;

/// The client library's error for a connection that is gone.
const CR_SERVER_LOST: u32 = 2013;

impl Network {
    /// Waits until the donor has left clone mode, so that the connection takes ordinary commands.
    /// False if it broke.
    fn is_ordinary_again(&self, at: usize) -> bool {
        let deadline = self.sim.now() + READ_TIMEOUT;
        while self.sim.now() < deadline {
            let (is_over, has_left, key) = self.with(at, |one| {
                let is_over = one.is_over_for(End::Recipient);
                (is_over, one.has_left && !one.is_dark, one.key)
            });
            if is_over || has_left {
                return has_left && !is_over;
            }
            self.sim.wait(key, Some(deadline));
        }
        false
    }
}

/// The recipient's end.
pub(crate) struct SimLink {
    network: Arc<Network>,
    at: usize,
    packet: Vec<u8>,
    /// The first network error; it is returned again and again, but raised once.
    broken: Option<u32>,
    silence: Option<Duration>,
}

impl SimLink {
    pub(crate) fn connect(session: &SimSession, to: &Donor, kind: LinkKind) -> Result<Self> {
        let network = &session.host.network;
        network.sim.pause();
        let delay = network.wires().rng.duration(network.shape.latency);
        network.sim.sleep(delay);
        let host = {
            let wires = network.wires();
            let mut hosts = wires.hosts.iter();
            hosts.find(|(name, _)| *name == to.host).map(|(_, host)| Arc::clone(host))
        };
        let (Action::Pass, Some(host)) = (network.ask(&Event::Connect), host) else {
            let text = "Connect failed: 2003 : Can't connect to MySQL server";
            return Err(Error::Connect(text.to_owned()));
        };
        let at = network.open(kind, to.ssl_mode != 1);
        let donor_network = Arc::clone(network);
        let thread = network.sim.spawn(format!("{} of connection {at}", host.name), move || {
            let session = SimSession::worker(&host);
            donor_network.with(at, |one| one.donor_session = Some(Arc::clone(&session.handle)));
            let mut link = SimDonorLink {
                network: &donor_network,
                session: &session,
                at,
                broken: None,
                silence: None,
            };
            let served = donor::serve(&session, &session.host.donor_clones, &mut link);
            donor_network.with(at, |one| match served {
                Ok(()) => one.has_left = true,
                Err(_) => one.closed_by_donor = true,
            });
        });
        network.wires().donors.push(thread);
        Ok(Self {
            network: Arc::clone(network),
            at,
            packet: Vec::new(),
            broken: None,
            silence: None,
        })
    }

    /// The session's error after `failed`, which is raised here.
    fn fail(&mut self, session: &SimSession, failed: u32) -> Error {
        if failed == number::ER_QUERY_INTERRUPTED {
            session.clear_diagnostics();
            return session.raise_text(failed, INTERRUPTED);
        }
        self.broken = Some(failed);
        session.raise_text(failed, "network")
    }
}

impl Link<SimSession> for SimLink {
    fn send(
        &mut self,
        session: &SimSession,
        is_data: bool,
        code: CommandCode,
        payload: &[u8],
    ) -> Result<()> {
        if let Some(broken) = self.broken {
            return Err(Error::Raised(broken));
        }
        if is_data && session.handle.is_killed() {
            return Err(self.fail(session, number::ER_QUERY_INTERRUPTED));
        }
        match code {
            CommandCode::Init | CommandCode::Reinit => {
                self.network.with(self.at, |one| one.role = Role::Master);
            }
            CommandCode::Attach => self.network.with(self.at, |one| one.role = Role::Worker),
            _ => {}
        }
        let packet = [&[code as u8], payload].concat();
        let wait = Wait::Silence { limit: WRITE_TIMEOUT, lives: None };
        let sent = self.network.send(self.at, End::Donor, &packet, wait);
        sent.map_err(|failed| self.fail(session, failed))
    }

    fn receive(
        &mut self,
        session: &SimSession,
        is_data: bool,
        patience: &Patience,
    ) -> Result<Packet<'_>> {
        if let Some(broken) = self.broken {
            return Err(Error::Raised(broken));
        }
        let limit = match patience.allows_as_server {
            true => READ_TIMEOUT.max(patience.limit),
            false => patience.limit,
        };
        let active = is_data.then_some(&*session.handle);
        let lives = patience.lives.as_deref().map(|lives| lives as &dyn Fn() -> bool);
        let wait = Wait::Silence { limit, lives };
        let received = self.network.receive(self.at, End::Recipient, wait, active);
        if let Err(number::ER_NET_READ_INTERRUPTED) = received {
            self.silence = Some(limit);
        }
        self.packet = received.map_err(|failed| self.fail(session, failed))?;
        if self.packet.is_empty() {
            return Err(self.fail(session, number::ER_NET_PACKETS_OUT_OF_ORDER));
        }
        let network_len = self.packet.len() as u64 + HEADER;
        Ok(Packet { data: &mut self.packet, network_len })
    }

    fn silence(&self) -> Option<Duration> {
        self.silence
    }

    fn is_within_host(&self) -> bool {
        self.network.shape.is_within_host
    }

    fn has_tls(&self) -> Option<bool> {
        Some(self.network.with(self.at, |one| one.has_tls))
    }

    fn kill(&mut self, other: &mut Self) -> Result<()> {
        if !self.network.is_ordinary_again(self.at) {
            return Err(Error::Raised(CR_SERVER_LOST));
        }
        let session = self.network.with(other.at, |one| {
            one.closed_by_donor = true;
            one.donor_session.clone()
        });
        if let Some(session) = session {
            session.kill();
            self.network.sim.notify_all();
        }
        Ok(())
    }

    fn disconnect(self, session: Option<&SimSession>, abort: bool, clear_error: bool) {
        self.network.sim.pause();
        if !abort {
            // COM_RESET_CONNECTION, whose outcome nobody asks for.
            self.network.is_ordinary_again(self.at);
        }
        self.network.with(self.at, |one| one.closed_by_recipient = true);
        if let Some(session) = session.filter(|_| clear_error) {
            session.clear_diagnostics();
        }
    }
}

/// The donor's end.
struct SimDonorLink<'a> {
    network: &'a Network,
    session: &'a SimSession,
    at: usize,
    broken: Option<u32>,
    silence: Option<Silence>,
}

impl SimDonorLink<'_> {
    /// As long as `limit`, and as the recipient is heard of.
    fn wait(&self, limit: Duration) -> Wait<'_> {
        let silence = self.silence.as_deref().map(|silence| silence as &dyn Fn() -> _);
        Wait::Watched { limit, silence }
    }

    fn fail(&mut self, failed: u32) -> Error {
        self.broken = Some(failed);
        self.session.raise_text(failed, "network")
    }
}

impl DonorLink for SimDonorLink<'_> {
    fn watch(&mut self, silence: Silence) {
        self.silence = Some(silence);
    }

    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        if let Some(broken) = self.broken {
            return Err(Error::Raised(broken));
        }
        let received = self.network.receive(self.at, End::Donor, self.wait(IDLE_TIMEOUT), None);
        let packet = received.map_err(|failed| {
            let is_idle = failed == number::ER_NET_READ_INTERRUPTED;
            self.fail(if is_idle { IDLE } else { failed })
        })?;
        let [code, rest @ ..] = &packet[..] else {
            return Err(self.fail(number::ER_NET_PACKETS_OUT_OF_ORDER));
        };
        payload.clear();
        payload.extend_from_slice(rest);
        Ok(*code)
    }

    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()> {
        if let Some(broken) = self.broken {
            return Err(Error::Raised(broken));
        }
        if secure && !self.network.with(self.at, |one| one.has_tls) {
            return Err(self.session.raise_text(3872, "Clone needs SSL connection"));
        }
        let sent = self.network.send(self.at, End::Recipient, packet, self.wait(WRITE_TIMEOUT));
        sent.map_err(|failed| self.fail(failed))
    }

    fn is_plain(&mut self) -> bool {
        self.network.with(self.at, |one| !one.has_tls)
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        let raised = self.session.warnings().first().cloned();
        if fatal || self.broken.is_some() {
            let failed = raised.map_or(number::ER_NET_ERROR_ON_WRITE, |(number, _)| number);
            self.network.with(self.at, |one| one.closed_by_donor = true);
            return Err(Error::Raised(failed));
        }
        let (number, text) =
            raised.unwrap_or((number::ER_INTERNAL_ERROR, "Unknown Error".to_owned()));
        self.session.clear_diagnostics();
        let mut packet = Vec::new();
        let number = i32::try_from(number).unwrap();
        Response::Error { number, message: text.as_bytes() }.encode(&mut packet);
        let sent = self.network.send(self.at, End::Recipient, &packet, self.wait(WRITE_TIMEOUT));
        sent.map_err(|failed| {
            self.network.with(self.at, |one| one.closed_by_donor = true);
            self.fail(failed)
        })
    }
}
