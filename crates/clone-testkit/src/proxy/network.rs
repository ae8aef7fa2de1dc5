// SPDX-License-Identifier: GPL-2.0-only

//! What the connections of a proxy have in common: the script, the counts, and who is there.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clone_protocol::innodb::{Data, SnapshotState};
use clone_protocol::{Command, CommandCode, Version};

use super::dialogue::{Channel, Event};
use super::record::Line;
use super::rewrite::Rewriter;
use super::script::{Action, How, Point, Script, Target};
use super::traffic::{Role, Traffic};

/// Shared by the connections of a proxy.
#[derive(Debug)]
pub(super) struct Network {
    donor_port: u16,
    state: Mutex<State>,
}

impl Network {
    /// `waker` is the end to wake the listener with.
    pub(super) fn new(donor_port: u16, waker: UnixStream) -> Self {
        let state = State {
            script: Script::default(),
            traffic: Traffic::default(),
            version_limit: None,
            locators_first: false,
            rewriter: None,
            record: None,
            is_listening: true,
            refusal: None,
            is_stopped: false,
            waker,
            live: BTreeMap::new(),
            next_id: 0,
            holding: None,
            is_silent: false,
        };
        Self { donor_port, state: Mutex::new(state) }
    }

    pub(super) fn donor_port(&self) -> u16 {
        self.donor_port
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) script: Script,
    pub(super) traffic: Traffic,
    pub(super) version_limit: Option<Version>,
    pub(super) locators_first: bool,
    pub(super) rewriter: Option<Rewriter>,
    /// What has passed, if it is to be recorded.
    pub(super) record: Option<Vec<Line>>,
    /// What the listener does.
    pub(super) is_listening: bool,
    /// Refuse connections, until then or for ever.
    refusal: Option<Option<Instant>>,
    is_stopped: bool,
    /// A byte makes the listener look here.
    waker: UnixStream,
    live: BTreeMap<u64, Live>,
    next_id: u64,
    /// The connection whose packet is held; nothing is forwarded meanwhile.
    holding: Option<u64>,
    /// New connections are silent.
    is_silent: bool,
}

/// A connection that exists.
#[derive(Debug)]
struct Live {
    role: Option<Role>,
    /// Has sent INIT or REINIT.
    has_begun: bool,
    /// Nothing passes, and neither side learns that the other has ended.
    is_silent: bool,
    /// To be cut.
    order: Option<How>,
    /// A byte makes the connection look for orders.
    waker: UnixStream,
}

/// What a connection has to do with the packet at hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Pass,
    Cut(How),
    /// Until then or until it is released.
    Hold(Option<Instant>),
}

impl State {
    /// A new connection; `waker` is the end to wake it with.
    pub(super) fn enter(&mut self, waker: UnixStream) -> io::Result<u64> {
        if self.is_stopped {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let id = self.next_id;
        self.next_id += 1;
        let is_silent = self.is_silent;
        let live = Live { role: None, has_begun: false, is_silent, order: None, waker };
        self.live.insert(id, live);
        Ok(id)
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, id: u64) {
        self.live.remove(&id);
        if self.holding == Some(id) {
            self.release();
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Whether connections are refused, and until when.
    pub(super) fn refusal(&mut self) -> Option<Option<Instant>> {
        if self.refusal.flatten().is_some_and(|until| Instant::now() >= until) {
            self.refusal = None;
        }
        self.refusal
    }

    pub(super) fn set_refusal(&mut self, refusal: Option<Option<Instant>>) {
        self.refusal = refusal;
        wake(&mut self.waker);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.is_listening = false;
        wake(&mut self.waker);
        self.cut(Target::All, How::Reset);
    }

    pub(super) fn reset(&mut self) {
        self.script = Script::default();
        self.traffic = Traffic::default();
        self.version_limit = None;
        self.locators_first = false;
        self.rewriter = None;
        self.release();
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding.is_some()
    }

    pub(super) fn release(&mut self) {
        self.holding = None;
        self.is_silent = false;
        for live in self.live.values_mut() {
            live.is_silent = false;
            wake(&mut live.waker);
        }
    }

    /// Whether nothing passes on this connection.
    pub(super) fn is_silent(&self, id: u64) -> bool {
        self.live.get(&id).is_some_and(|live| live.is_silent)
    }

    /// From now on nothing passes on connections of this kind.
    pub(super) fn silence(&mut self, at: Option<u64>, target: Target) {
        for id in self.hit(at, target) {
            if let Some(live) = self.live.get_mut(&id) {
                live.is_silent = true;
                wake(&mut live.waker);
            }
        }
        self.is_silent |= target == Target::All;
    }

    /// How this connection is to be cut, if it is.
    pub(super) fn order(&self, id: u64) -> Option<How> {
        self.live.get(&id).and_then(|live| live.order)
    }

    pub(super) fn cut(&mut self, target: Target, how: How) {
        self.cut_from(None, target, how);
    }

    /// Notes a line of the record, if there is one.
    pub(super) fn note(&mut self, line: impl FnOnce() -> Line) {
        if let Some(record) = &mut self.record {
            record.push(line());
        }
    }

    /// Looks at what passes on a connection, and decides.
    pub(super) fn judge(&mut self, id: u64, event: &Event<'_>) -> Verdict {
        if let Some(how) = self.order(id) {
            return Verdict::Cut(how);
        }
        let point = match event {
            Event::Other => None,
            Event::Opaque(channel) => {
                match channel {
                    Channel::Tls => self.traffic.tls += 1,
                    Channel::Compressed => self.traffic.compressed += 1,
                }
                None
            }
            Event::Cloning => {
                let role = self.role_of_next();
                self.set_role(id, role);
                None
            }
            Event::Command(command) => self.command(id, command),
            Event::Parameter(code) => {
                *self.traffic.parameters.entry(*code).or_default() += 1;
                None
            }
            Event::Locators(version) => {
                self.traffic.version = Some(*version);
                None
            }
            Event::State(state) if self.role(id) == Some(Role::Master) => {
                if state.start {
                    self.traffic.state = Some(state.state);
                }
                let point = if state.start { Point::Start } else { Point::End };
                Some(point(state.state))
            }
            Event::State(_) => None,
            Event::Complete(CommandCode::Ack, state) => state.map(Point::Acked),
            Event::Complete(command, _) => Some(Point::Complete(*command)),
        };
        point.map_or(Verdict::Pass, |point| self.arrive(id, point))
    }

    /// So many bytes of a block, which has `network_len` of them on the network, are at hand;
    /// `last` are its last ones. Returns how many of them may pass, and what to do then.
    pub(super) fn judge_data(
        &mut self,
        id: u64,
        data: &Data,
        network_len: u64,
        bytes: usize,
        last: bool,
    ) -> (usize, Verdict) {
        if let Some(how) = self.order(id) {
            return (0, Verdict::Cut(how));
        }
        let passed = self.traffic.data_in(data.state);
        let live = &self.live;
        let step = self
            .script
            .take_data(data.state, passed, bytes as u64, |action| is_possible(live, action));
        let (may_pass, verdict) = match step {
            Some((before, action)) => {
                let verdict = self.act(id, action);
                // Of a connection that lives on, nothing is lost.
                let before = if verdict == Verdict::Pass { bytes as u64 } else { before };
                (usize::try_from(before).unwrap_or(bytes), verdict)
            }
            None => (bytes, Verdict::Pass),
        };
        let role = self.role(id);
        let is_whole = last && may_pass == bytes;
        self.traffic.add_data(role, data, network_len, may_pass as u64, is_whole);
        (may_pass, verdict)
    }

    /// So many bytes, the last of their block, will pass whatever happens.
    pub(super) fn pass_data(&mut self, id: u64, data: &Data, network_len: u64, bytes: usize) {
        let role = self.role(id);
        self.traffic.add_data(role, data, network_len, bytes as u64, true);
    }

    fn command(&mut self, id: u64, command: &Command<'_>) -> Option<Point> {
        match command {
            Command::Init(_) | Command::Reinit(_) => {
                self.set_role(id, Role::Master);
                if let Some(live) = self.live.get_mut(&id) {
                    live.has_begun = true;
                }
                if command.code() == CommandCode::Reinit {
                    self.traffic.resumed += 1;
                }
            }
            Command::Attach(_) => self.set_role(id, Role::Worker),
            Command::Ack(ack) => {
                self.set_role(id, Role::Auxiliary);
                if ack.error == 0 {
                    return acknowledged_state(ack.descriptor).map(Point::Ack);
                }
            }
            // No step of the script: one comes each second.
            Command::Heartbeat(_) => {
                self.set_role(id, Role::Auxiliary);
                return None;
            }
            // Neither: there is one for each MiB of digests.
            Command::Base(_) => return None,
            Command::Execute | Command::Exit => {}
        }
        Some(Point::Command(command.code()))
    }

    /// A master opens its data connection, then the auxiliary one, and only then sends INIT;
    /// workers come after that. The first command tells for sure.
    fn role_of_next(&self) -> Role {
        let is_master = |live: &&Live| live.role == Some(Role::Master) && live.order.is_none();
        match self.live.values().rfind(is_master) {
            None => Role::Master,
            Some(master) if !master.has_begun => Role::Auxiliary,
            Some(_) => Role::Worker,
        }
    }

    fn role(&self, id: u64) -> Option<Role> {
        self.live.get(&id).and_then(|live| live.role)
    }

    fn set_role(&mut self, id: u64, role: Role) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let before = live.role.replace(role);
        if before != Some(role) {
            self.traffic.connected(role, 1);
            if let Some(before) = before {
                self.traffic.connected(before, -1);
            }
        }
    }

    fn arrive(&mut self, id: u64, point: Point) -> Verdict {
        let live = &self.live;
        match self.script.take(point, |action| is_possible(live, action)) {
            Some(action) => self.act(id, action),
            None => Verdict::Pass,
        }
    }

    fn act(&mut self, id: u64, action: Action) -> Verdict {
        match action {
            Action::Cut(target, how) => {
                self.cut_from(Some(id), target, how);
                self.order(id).map_or(Verdict::Pass, Verdict::Cut)
            }
            Action::Hold => {
                self.holding = Some(id);
                Verdict::Hold(None)
            }
            Action::Silence(target) => {
                self.silence(Some(id), target);
                if self.is_silent(id) { Verdict::Hold(None) } else { Verdict::Pass }
            }
            Action::Delay(time) => Verdict::Hold(Some(Instant::now() + time)),
        }
    }

    /// The connections of this kind; of workers one, if possible the one `at` hand.
    fn hit(&self, at: Option<u64>, target: Target) -> Vec<u64> {
        let hit = self.live.iter().filter(|(_, live)| live.is_of(target)).map(|(&id, _)| id);
        let hit: Vec<_> = hit.collect();
        match target {
            Target::Worker => {
                at.filter(|id| hit.contains(id)).or(hit.first().copied()).into_iter().collect()
            }
            _ => hit,
        }
    }

    fn cut_from(&mut self, at: Option<u64>, target: Target, how: How) {
        let hit = self.hit(at, target);
        if target == Target::All && !hit.is_empty() {
            self.note(|| Line::Cut);
        }
        for id in hit {
            if let Some(live) = self.live.get_mut(&id) {
                live.order = Some(how);
                wake(&mut live.waker);
                self.traffic.cuts += 1;
            }
        }
    }
}

fn wake(waker: &mut UnixStream) {
    // A full pipe wakes as well.
    let _ = waker.write(&[0]);
}

impl Live {
    fn is_of(&self, target: Target) -> bool {
        let role = match target {
            Target::All => return self.order.is_none(),
            Target::Master => Role::Master,
            Target::Auxiliary => Role::Auxiliary,
            Target::Worker => Role::Worker,
        };
        self.role == Some(role) && self.order.is_none()
    }
}

fn is_possible(live: &BTreeMap<u64, Live>, action: Action) -> bool {
    match action {
        Action::Cut(target, _) | Action::Silence(target) => {
            live.values().any(|live| live.is_of(target))
        }
        Action::Hold | Action::Delay(_) => true,
    }
}

fn acknowledged_state(descriptor: &[u8]) -> Option<SnapshotState> {
    use clone_protocol::innodb::Descriptor;

    match Descriptor::parse(descriptor) {
        Ok(Descriptor::State(state)) => Some(state.state),
        _ => None,
    }
}
