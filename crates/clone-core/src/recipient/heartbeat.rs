// SPDX-License-Identifier: GPL-2.0-only

//! Heartbeats: a thread of the recipient tells the donor each second that the recipient lives, and
//! learns what the donor does. So a donor that waits is told apart from one that is gone.
//!
//! The heartbeats go over the auxiliary connection, where a donor of this project answers at once.
//! A stock donor gets none. While INIT is not answered, the recipient does not know which kind the
//! donor is. If the answer takes long, the thread then opens one more connection: a donor that
//! answers there lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_protocol::{Beat, Command, Heartbeat, Response};

use super::answer::{donor_error, unexpected};
use super::auxiliary::Auxiliary;
use super::probe;
use super::shared::Shared;
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::link::{Link, Lives, Patience};
use crate::log_target::CLIENT;
use crate::session::{Clock, Host, RecipientSession, Thread, WorkerKind};

/// How often a heartbeat is sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// What all connections of a clone know of the donor by heartbeats.
#[derive(Default)]
pub(super) struct Heartbeats {
    /// The thread runs.
    is_sending: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connections that the donor has numbered, and that are in use.
    in_use: BTreeSet<u64>,
    /// The donor has numbered a connection.
    is_agreed: bool,
    /// When the donor last answered a heartbeat.
    heard: Duration,
    /// What it said: packets sent, and what it does.
    beats: BTreeMap<u64, (u64, String)>,
    /// When the donor last answered a new connection.
    connected: Option<Duration>,
}

impl Heartbeats {
    /// Whether a thread sends heartbeats, as soon as the donor agrees.
    pub(super) fn is_sending(&self) -> bool {
        self.is_sending.load(Ordering::Relaxed)
    }

    /// Whether the donor is one of this project that answers heartbeats.
    pub(super) fn is_agreed(&self) -> bool {
        self.state().is_agreed
    }

    fn answered(&self, now: Duration, beats: &[Beat<'_>]) {
        let beat = |one: &Beat<'_>| (one.connection, (one.packets, one.activity.to_owned()));
        let mut state = self.state();
        state.heard = now;
        state.beats = beats.iter().map(beat).collect();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of one data connection.
#[derive(Default)]
pub(super) struct Line {
    /// The donor's number of the connection; 0 before the donor has given one.
    number: AtomicU64,
    /// Packets that have come since then.
    packets: AtomicU64,
    /// When INIT was sent, and how long a donor that lives may take for the answer. None if the
    /// answer has begun.
    unanswered: Mutex<Option<(Duration, Duration)>>,
    /// When the log was last told that the donor waits.
    told: Mutex<Option<Duration>>,
}

impl Line {
    /// Whether the donor has answered, and does not know heartbeats.
    fn is_stock(&self, heartbeats: &Heartbeats) -> bool {
        self.packets.load(Ordering::Relaxed) != 0 && !heartbeats.is_agreed()
    }

    pub(super) fn is_numbered(&self) -> bool {
        self.number.load(Ordering::Relaxed) != 0
    }

    /// INIT is sent. A donor that lives may take until `until` for its answer.
    pub(super) fn asks(&self, now: Duration, until: Duration) {
        *lock(&self.unanswered) = Some((now, until));
    }

    /// A packet has come.
    pub(super) fn count(&self) {
        if self.packets.fetch_add(1, Ordering::Relaxed) == 0 {
            *lock(&self.unanswered) = None;
        }
    }

    /// The donor has given the connection a number.
    pub(super) fn set_number(&self, heartbeats: &Heartbeats, number: u64) {
        self.packets.store(0, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        *lock(&self.unanswered) = None;
        let mut state = heartbeats.state();
        state.is_agreed = true;
        state.in_use.insert(number);
    }

    /// The connection ends.
    pub(super) fn end(&self, heartbeats: &Heartbeats) {
        heartbeats.state().in_use.remove(&self.number.swap(0, Ordering::Relaxed));
    }

    /// Says whether the donor lives, for a connection on which it has been silent for
    /// `clone_peer_timeout`.
    pub(super) fn lives<S: RecipientSession>(
        self: &Arc<Self>,
        shared: &Arc<Shared<S>>,
        host: &Arc<S::Host>,
    ) -> Lives {
        let (line, shared, host) = (Arc::clone(self), Arc::clone(shared), Arc::clone(host));
        Arc::new(move || {
            let now = host.now();
            let Some(limit) = host.settings().patience() else { return false };
            let Some(activity) = line.activity(&shared.heartbeats, now, limit) else {
                return false;
            };
            let mut told = lock(&line.told);
            if told.is_none_or(|told| now.saturating_sub(told) >= limit) {
                *told = Some(now);
                drop(told);
                let seconds = limit.as_secs();
                log::warn!(
                    target: CLIENT,
                    "The donor has sent nothing for {seconds} seconds, but it lives: it {activity}."
                );
            }
            true
        })
    }

    /// What a donor does that lives; none if it has shown no sign of life for `limit`.
    fn activity(&self, heartbeats: &Heartbeats, now: Duration, limit: Duration) -> Option<String> {
        let is_recent = |moment: Duration| now.saturating_sub(moment) < limit;
        let state = heartbeats.state();
        if self.is_numbered() {
            let (packets, activity) = state.beats.get(&self.number.load(Ordering::Relaxed))?;
            // A packet that the donor has sent, and that does not come, is lost.
            let is_lost = *packets > self.packets.load(Ordering::Relaxed);
            return (is_recent(state.heard) && !is_lost).then(|| activity.clone());
        }
        let (_, until) = (*lock(&self.unanswered))?;
        let lives = now < until && state.connected.is_some_and(is_recent);
        lives.then(|| "answers a new connection, and prepares the clone".to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that sends heartbeats, while a master has its connections.
pub(super) struct Heart<S: RecipientSession> {
    /// Rung for the next heartbeat and for the end.
    bell: Arc<Bell>,
    is_over: Arc<AtomicBool>,
    shared: Arc<Shared<S>>,
    thread: Option<<S::Host as Host>::Thread>,
}

impl<S: RecipientSession> Heart<S> {
    /// Starts the thread. `line` is the master's data connection.
    pub(super) fn start(
        session: &S,
        shared: &Arc<Shared<S>>,
        line: Arc<Line>,
        auxiliary: Arc<Auxiliary<S::Link>>,
    ) -> Option<Self> {
        session.host().settings().patience()?;
        let bell = Arc::new(Bell::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let (own_bell, ends, own) = (Arc::clone(&bell), Arc::clone(&is_over), Arc::clone(shared));
        let work = move |session: &S| {
            let limit = session.host().settings().patience().unwrap_or(INTERVAL);
            loop {
                session.host().wait_for(&own_bell, INTERVAL);
                if ends.load(Ordering::Relaxed) || line.is_stock(&own.heartbeats) {
                    return;
                }
                if let Err(error) = beat(session, &own, &line, &auxiliary, limit) {
                    log::info!(target: CLIENT, "Heartbeat failed: {}: {error}", error.number());
                    return;
                }
            }
        };
        match session.host().spawn(WorkerKind::Heartbeat, Box::new(work)) {
            Ok(thread) => {
                shared.heartbeats.is_sending.store(true, Ordering::Relaxed);
                Some(Self { bell, is_over, shared: Arc::clone(shared), thread: Some(thread) })
            }
            Err(error) => {
                log::warn!(target: CLIENT, "No thread for heartbeats: {error}");
                None
            }
        }
    }

    /// Sends a heartbeat now. By the first one the donor knows the auxiliary connection.
    pub(super) fn beat(&self) {
        self.bell.ring();
    }
}

/// Waits for the thread's end.
impl<S: RecipientSession> Drop for Heart<S> {
    fn drop(&mut self) {
        self.shared.heartbeats.is_sending.store(false, Ordering::Relaxed);
        self.is_over.store(true, Ordering::Relaxed);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks the donor whether it lives, if there is a way.
fn beat<S: RecipientSession>(
    session: &S,
    shared: &Shared<S>,
    line: &Line,
    auxiliary: &Auxiliary<S::Link>,
    limit: Duration,
) -> Result<()> {
    let heartbeats = &shared.heartbeats;
    if heartbeats.is_agreed() {
        // The master uses the connection, and the donor hears from it.
        let Some(mut link) = auxiliary.take_if_free() else { return Ok(()) };
        return send(session, shared, &mut link, limit);
    }
    let now = session.host().now();
    let Some((since, _)) = *lock(&line.unanswered) else { return Ok(()) };
    let last = heartbeats.state().connected.unwrap_or(since).max(since);
    if now.saturating_sub(last) >= limit / 2 && probe::answers(session, shared) {
        heartbeats.state().connected = Some(session.host().now());
    }
    Ok(())
}

/// Sends a heartbeat, and takes the answer.
fn send<S: RecipientSession>(
    session: &S,
    shared: &Shared<S>,
    link: &mut S::Link,
    limit: Duration,
) -> Result<()> {
    let connections = shared.heartbeats.state().in_use.iter().copied().collect();
    let command = Command::Heartbeat(Heartbeat { connections });
    let mut payload = Vec::new();
    command.encode_payload(&mut payload);
    link.send(session, false, command.code(), &payload)?;
    let patience = Patience { limit, allows_as_server: false, lives: None };
    let packet = link.receive(session, false, &patience)?;
    match Response::parse(packet.data)? {
        Response::Heartbeat(beats) => shared.heartbeats.answered(session.host().now(), &beats),
        Response::Error { number, message } => return Err(donor_error(number, message)),
        _ => return Err(unexpected()),
    }
    let packet = link.receive(session, false, &patience)?;
    match Response::parse(packet.data)? {
        Response::Complete => Ok(()),
        _ => Err(unexpected()),
    }
}

/// The error of a clone whose donor has been silent for so long.
pub(super) fn silent(donor: &str, silence: Duration) -> Error {
    Error::Connect(format!(
        "Connect failed: 1159 : The donor {donor} has been silent for {} seconds \
         (clone_peer_timeout). Look whether its server is stopped or overloaded, at its host, and \
         at firewalls and proxies on the way",
        silence.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn beat(packets: u64) -> Beat<'static> {
        Beat { connection: 7, packets, activity: "waits" }
    }

    #[test]
    fn a_donor_that_has_sent_nothing_else_lives() {
        let (heartbeats, line) = (Heartbeats::default(), Line::default());
        line.count();
        line.set_number(&heartbeats, 7);
        assert!(heartbeats.is_agreed());
        assert_eq!(line.activity(&heartbeats, at(1), T), None, "no heartbeat was answered");
        line.count();
        heartbeats.answered(at(1), &[beat(1)]);
        assert_eq!(line.activity(&heartbeats, at(20), T).as_deref(), Some("waits"));
        assert_eq!(line.activity(&heartbeats, at(21), T), None, "the last answer is too old");
        heartbeats.answered(at(21), &[beat(2)]);
        assert_eq!(line.activity(&heartbeats, at(21), T), None, "the second packet is lost");
        line.count();
        assert!(line.activity(&heartbeats, at(21), T).is_some());
        heartbeats.answered(at(21), &[]);
        assert_eq!(line.activity(&heartbeats, at(21), T), None, "the donor has no such connection");
        line.end(&heartbeats);
        assert!(heartbeats.state().in_use.is_empty());
    }

    #[test]
    fn before_the_answer_to_init_a_new_connection_shows_that_a_donor_lives() {
        let (heartbeats, line) = (Heartbeats::default(), Line::default());
        line.asks(at(0), at(100));
        assert_eq!(line.activity(&heartbeats, at(20), T), None);
        heartbeats.state().connected = Some(at(10));
        assert!(line.activity(&heartbeats, at(20), T).is_some());
        assert_eq!(line.activity(&heartbeats, at(30), T), None);
        heartbeats.state().connected = Some(at(95));
        assert!(line.activity(&heartbeats, at(99), T).is_some());
        assert_eq!(line.activity(&heartbeats, at(100), T), None, "INIT takes too long");
        line.count();
        assert_eq!(line.activity(&heartbeats, at(99), T), None, "a stock donor has answered");
    }
}
