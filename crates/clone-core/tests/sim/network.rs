// SPDX-License-Identifier: GPL-2.0-only

//! Connections in memory: packets that take their time, a window that a sender can fill, and
//! breaks.

mod links;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use clone_core::error::number;
use clone_core::link::LinkKind;
use clone_protocol::Response;

pub(crate) use links::SimLink;

use super::faults::{Action, End, Event, Hook, Role, Wire};
use super::files::Channels;
use super::rng::Rng;
use super::scheduler::{Key, Scheduler};
use super::server::SimHost;
use super::session::Handle;

/// All connections, and whatever interferes with them.
pub(crate) struct Network {
    pub(super) sim: Arc<Scheduler>,
    /// Open files on their way.
    pub(crate) files: Channels,
    shape: NetworkShape,
    wires: Mutex<Wires>,
    hook: Mutex<Option<Hook>>,
    trace: Mutex<Option<Vec<String>>>,
}

/// How fast it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkShape {
    /// A packet takes up to this long.
    pub(crate) latency: Duration,
    /// Bytes that may be under way on a connection; one packet always may.
    pub(crate) window: usize,
    /// Bytes per second of all connections together; 0: no limit.
    pub(crate) rate: u64,
    /// Both servers are on one machine.
    pub(crate) is_within_host: bool,
    /// Files of one server can share the blocks of the other's.
    pub(crate) shares_files: bool,
}

struct Wires {
    rng: Rng,
    hosts: Vec<(&'static str, Arc<SimHost>)>,
    connections: Vec<Connection>,
    donors: Vec<JoinHandle<()>>,
    data_sent: u64,
    /// When the link has sent all that it was given.
    link_is_free: Duration,
}

struct Connection {
    key: Key,
    role: Role,
    has_tls: bool,
    to_donor: Pipe,
    to_recipient: Pipe,
    is_cut: bool,
    is_dark: bool,
    closed_by_donor: bool,
    closed_by_recipient: bool,
    /// The donor has answered EXIT.
    has_left: bool,
    donor_session: Option<Arc<Handle>>,
}

/// How long an end waits.
#[derive(Clone, Copy)]
enum Wait<'a> {
    /// A recipient: until the donor has been silent for so long, and does not live.
    Silence { limit: Duration, lives: Option<&'a dyn Fn() -> bool> },
    /// A donor: as long as the limit, and until the recipient is said to be silent.
    Watched { limit: Duration, silence: Option<&'a dyn Fn() -> Option<Duration>> },
}

impl Wait<'_> {
    /// When to look again; none if the wait is over.
    fn next_look(&self, started: Duration, now: Duration) -> Option<Duration> {
        const LOOK: Duration = Duration::from_secs(1);
        let look = ((now - started) / 20).clamp(LOOK, 60 * LOOK);
        match *self {
            Wait::Silence { limit, .. } if now < started + limit => Some(started + limit),
            Wait::Silence { lives, .. } => lives.is_some_and(|lives| lives()).then_some(now + LOOK),
            Wait::Watched { limit, silence } => {
                let is_over =
                    now >= started + limit || silence.is_some_and(|silence| silence().is_some());
                (!is_over).then(|| (started + limit).min(now + look))
            }
        }
    }
}

#[derive(Default)]
struct Pipe {
    packets: VecDeque<(Duration, Vec<u8>)>,
    bytes: usize,
    last_arrival: Duration,
}

/// Each packet has a header of the classic protocol.
const HEADER: u64 = 4;

impl Network {
    pub(crate) fn new(sim: &Arc<Scheduler>, shape: NetworkShape, rng: Rng) -> Arc<Self> {
        let wires = Wires {
            rng,
            hosts: Vec::new(),
            connections: Vec::new(),
            donors: Vec::new(),
            data_sent: 0,
            link_is_free: Duration::ZERO,
        };
        Arc::new(Self {
            sim: Arc::clone(sim),
            files: Channels::default(),
            shape,
            wires: Mutex::new(wires),
            hook: Mutex::new(None),
            trace: Mutex::new(None),
        })
    }

    pub(super) fn shape(&self) -> NetworkShape {
        self.shape
    }

    pub(crate) fn add_host(&self, host: &Arc<SimHost>) {
        self.wires().hosts.push((host.name, Arc::clone(host)));
    }

    /// Has all events decided by `hook` from now on.
    pub(crate) fn interfere(&self, hook: impl FnMut(&Event<'_>) -> Action + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn leave_alone(&self) {
        *self.hook.lock().unwrap() = None;
    }

    /// What is to happen to an event. Kills are done here.
    pub(crate) fn ask(&self, event: &Event<'_>) -> Action {
        let action = match &mut *self.hook.lock().unwrap() {
            Some(hook) => hook(event),
            None => return Action::Pass,
        };
        match action {
            Action::Pass => return Action::Pass,
            Action::KillRecipient => {
                self.trace(|| "interference: KILL at the recipient".to_owned());
                let hosts = self.wires().hosts.clone();
                hosts.iter().for_each(|(_, host)| host.kill_users());
            }
            Action::CutAll => self.cut_all(),
            Action::DarkAll => {
                self.trace(|| "interference: nothing passes any more".to_owned());
                self.wires().connections.iter_mut().for_each(|one| one.is_dark = true);
            }
            Action::KillDonor => self.kill_at_donor(Role::Master),
            Action::KillAcknowledger => self.kill_at_donor(Role::Auxiliary),
            action => {
                self.trace(|| format!("interference: {action:?}"));
                return action;
            }
        }
        Action::Pass
    }

    /// KILL QUERY for the donor's session of the newest connection of this kind.
    fn kill_at_donor(&self, role: Role) {
        self.trace(|| format!("interference: KILL at the donor, {role:?}"));
        let session = {
            let wires = self.wires();
            let mut found = wires.connections.iter().rev().filter(|one| one.role == role);
            found.find_map(|one| one.donor_session.clone())
        };
        if let Some(session) = session {
            session.kill();
            self.sim.notify_all();
        }
    }

    fn cut_all(&self) {
        self.trace(|| "interference: all connections break".to_owned());
        self.wires().connections.iter_mut().for_each(Connection::cut);
        self.sim.notify_all();
    }

    /// Bytes of file data that donors have sent, whether they arrived or not.
    pub(crate) fn data_sent(&self) -> u64 {
        self.wires().data_sent
    }

    /// Connections that were not closed by the recipient.
    pub(crate) fn left_open(&self) -> usize {
        self.wires().connections.iter().filter(|one| !one.closed_by_recipient).count()
    }

    /// Forgets the hosts, which refer to the network in turn, and gives the donors' threads, which
    /// have ended.
    pub(crate) fn dissolve(&self) -> Vec<JoinHandle<()>> {
        self.leave_alone();
        let mut wires = self.wires();
        wires.hosts.clear();
        std::mem::take(&mut wires.donors)
    }

    /// Notes what happens, from now on.
    pub(crate) fn start_trace(&self) {
        *self.trace.lock().unwrap() = Some(Vec::new());
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().take().unwrap_or_default()
    }

    pub(crate) fn trace(&self, text: impl FnOnce() -> String) {
        let now = self.sim.now();
        if let Some(trace) = &mut *self.trace.lock().unwrap() {
            trace.push(format!("{:>13.6} {}", now.as_secs_f64() - 1000.0, text()));
        }
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap()
    }

    fn open(&self, kind: LinkKind, has_tls: bool) -> usize {
        let key = self.sim.key();
        let mut wires = self.wires();
        wires.connections.push(Connection {
            key,
            role: match kind {
                LinkKind::Auxiliary => Role::Auxiliary,
                LinkKind::Data | LinkKind::DataOfReplacement => Role::Unknown,
            },
            has_tls,
            to_donor: Pipe::default(),
            to_recipient: Pipe::default(),
            is_cut: false,
            is_dark: false,
            closed_by_donor: false,
            closed_by_recipient: false,
            has_left: false,
            donor_session: None,
        });
        wires.connections.len() - 1
    }

    /// Sends a packet, after the interference had its say.
    ///
    /// # Errors
    /// The number of MySQL's network error.
    fn send(&self, at: usize, to: End, packet: &[u8], wait: Wait<'_>) -> Result<(), u32> {
        self.sim.pause();
        let role = self.wires().connections[at].role;
        self.trace(|| describe(at, role, to, packet));
        match self.ask(&Event::Packet(Wire { role, to, packet })) {
            Action::Cut => self.with(at, Connection::cut),
            Action::Dark => self.with(at, |connection| connection.is_dark = true),
            Action::Replace(packets) => {
                for packet in packets {
                    self.push(at, to, &packet, wait)?;
                }
                return Ok(());
            }
            _ => {}
        }
        self.push(at, to, packet, wait)
    }

    fn push(&self, at: usize, to: End, packet: &[u8], wait: Wait<'_>) -> Result<(), u32> {
        let started = self.sim.now();
        loop {
            let now = self.sim.now();
            let deadline = wait.next_look(started, now).ok_or(number::ER_NET_WRITE_INTERRUPTED)?;
            let key = {
                let mut wires = self.wires();
                let delay = wires.rng.duration(self.shape.latency);
                let Wires { connections, data_sent, link_is_free, .. } = &mut *wires;
                let connection = &mut connections[at];
                if connection.is_broken_for(to) {
                    return Err(number::ER_NET_ERROR_ON_WRITE);
                }
                let pipe = connection.pipe(to);
                if pipe.bytes == 0 || pipe.bytes + packet.len() <= self.shape.window {
                    if let Some(nanos) =
                        (packet.len() as u64 * 1_000_000_000).checked_div(self.shape.rate)
                    {
                        *link_is_free = now.max(*link_is_free) + Duration::from_nanos(nanos);
                    }
                    let sent = now.max(*link_is_free);
                    pipe.last_arrival = pipe.last_arrival.max(sent + delay);
                    pipe.bytes += packet.len();
                    pipe.packets.push_back((pipe.last_arrival, packet.to_vec()));
                    *data_sent += match Response::parse(packet) {
                        Ok(Response::Data(data)) => data.len() as u64,
                        Ok(Response::Block(block)) => u64::from(block.len),
                        _ => 0,
                    };
                    None
                } else {
                    Some(connection.key)
                }
            };
            let Some(key) = key else {
                self.notify(at);
                return Ok(());
            };
            self.sim.wait(key, Some(deadline));
        }
    }

    /// Waits for a packet at the end `at`. A session that KILL is to wake is `active`.
    ///
    /// # Errors
    /// The number of MySQL's error.
    fn receive(
        &self,
        at: usize,
        end: End,
        wait: Wait<'_>,
        active: Option<&Handle>,
    ) -> Result<Vec<u8>, u32> {
        self.sim.pause();
        let started = self.sim.now();
        loop {
            if active.is_some_and(Handle::is_killed) {
                return Err(number::ER_QUERY_INTERRUPTED);
            }
            let now = self.sim.now();
            let (key, arrives) = {
                let mut wires = self.wires();
                let connection = &mut wires.connections[at];
                let is_over = connection.is_over_for(end);
                let is_dark = connection.is_dark;
                let key = connection.key;
                let pipe = connection.pipe(end);
                let arrives = pipe.packets.front().filter(|_| !is_dark).map(|front| front.0);
                match arrives {
                    Some(arrives) if arrives <= now => {
                        let (_, packet) = pipe.packets.pop_front().unwrap();
                        pipe.bytes -= packet.len();
                        drop(wires);
                        self.notify(at);
                        return Ok(packet);
                    }
                    None if is_over => return Err(number::ER_NET_READ_ERROR),
                    arrives => (key, arrives),
                }
            };
            let deadline = wait.next_look(started, now).ok_or(number::ER_NET_READ_INTERRUPTED)?;
            self.sim.wait(key, Some(arrives.map_or(deadline, |arrives| arrives.min(deadline))));
        }
    }

    /// Changes a connection and wakes whoever waits for it.
    fn with<T>(&self, at: usize, change: impl FnOnce(&mut Connection) -> T) -> T {
        let result = change(&mut self.wires().connections[at]);
        self.notify(at);
        result
    }

    fn notify(&self, at: usize) {
        let key = self.wires().connections[at].key;
        self.sim.notify(key);
    }
}

impl Connection {
    fn cut(&mut self) {
        self.is_cut = true;
        self.to_donor = Pipe::default();
        self.to_recipient = Pipe::default();
    }

    /// The packets on their way to an end.
    fn pipe(&mut self, to: End) -> &mut Pipe {
        match to {
            End::Donor => &mut self.to_donor,
            End::Recipient => &mut self.to_recipient,
        }
    }

    /// Whether the end other than `to` cannot send any more, and knows it.
    fn is_broken_for(&self, to: End) -> bool {
        let (own, other) = match to {
            End::Donor => (self.closed_by_recipient, self.closed_by_donor),
            End::Recipient => (self.closed_by_donor, self.closed_by_recipient),
        };
        self.is_cut || own || (other && !self.is_dark)
    }

    /// Whether nothing more will come to `end`, and it knows it.
    fn is_over_for(&self, end: End) -> bool {
        match end {
            End::Donor => self.is_broken_for(End::Recipient),
            End::Recipient => self.is_broken_for(End::Donor),
        }
    }
}

fn describe(at: usize, role: Role, to: End, packet: &[u8]) -> String {
    let wire = Wire { role, to, packet };
    let what = match (wire.command(), wire.descriptor(), wire.response()) {
        (Some(command), ..) => format!("{command:?}"),
        (_, Some(descriptor), _) => format!("{descriptor:?}"),
        _ if wire.followers_descriptor().is_some() => format!("{:?}", wire.followers_descriptor()),
        (.., Some(response)) => format!("{:?}", response.code()),
        _ => format!("{packet:?}"),
    };
    format!("connection {at} ({role:?}) to {to:?}: {what}")
}
