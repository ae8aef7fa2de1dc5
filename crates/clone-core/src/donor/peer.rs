// SPDX-License-Identifier: GPL-2.0-only

//! The recipient as a donor's connection knows it: whether it lives, and what heartbeats tell it.
//!
//! A recipient of this project sends heartbeats on its auxiliary connection, which name all of its
//! connections. A connection that no heartbeat names for `clone_peer_timeout` is ended. This is so
//! whatever the donor does meanwhile: it may wait for the next command while the recipient drops
//! its data, for an acknowledgement, or for room in the socket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use clone_protocol::{Beat, Response};

use crate::error::Result;
use crate::link::DonorLink;

/// The least time that a connection without a clone may be silent while nobody clones this server.
/// A recipient opens its auxiliary connection before it sends INIT, for which its server allows 10
/// seconds.
const WITHOUT_CLONE: Duration = Duration::from_secs(60);

/// A connection's recipient.
#[derive(Debug)]
pub(crate) struct Peer {
    state: Mutex<State>,
    /// Packets that were sent since the connection has its number.
    packets: AtomicU64,
}

#[derive(Debug)]
struct State {
    kind: Kind,
    /// The last sign of life, as the donor's clock has it.
    heard: Duration,
    activity: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Has sent no heartbeat.
    Quiet,
    /// Sends heartbeats.
    Beats,
}

impl Peer {
    pub(crate) fn new(now: Duration) -> Self {
        let state = State { kind: Kind::Quiet, heard: now, activity: "waits for a command" };
        Self { state: Mutex::new(state), packets: AtomicU64::new(0) }
    }

    /// A command has come.
    pub(crate) fn note_command(&self, now: Duration) {
        self.state().heard = now;
    }

    /// A heartbeat has come, or the recipient has said that it sends some.
    fn note_heartbeat(&self, now: Duration) {
        let mut state = self.state();
        state.heard = now;
        state.kind = Kind::Beats;
    }

    /// Packets are counted from now on.
    pub(crate) fn forget_packets(&self) {
        self.packets.store(0, Ordering::Relaxed);
    }

    /// What this donor does or waits for, as a text behind "The donor".
    pub(crate) fn set_activity(&self, activity: &'static str) {
        self.state().activity = activity;
    }

    /// How long the recipient has been silent, if that is longer than it may be. `limit` is
    /// `clone_peer_timeout`. `is_idle`: nobody clones this server.
    pub(crate) fn silence(
        &self,
        now: Duration,
        limit: Option<Duration>,
        is_idle: bool,
    ) -> Option<Duration> {
        let limit = limit?;
        let state = self.state();
        let limit = match state.kind {
            Kind::Beats => limit,
            // An auxiliary connection may wait as long as its clone runs. A connection that has
            // begun a clone is not idle.
            Kind::Quiet if is_idle => limit.max(WITHOUT_CLONE),
            Kind::Quiet => return None,
        };
        let silence = now.saturating_sub(state.heard);
        (silence >= limit).then_some(silence)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of a donor that have numbers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    last: AtomicU64,
    numbered: Mutex<BTreeMap<u64, Weak<Peer>>>,
    /// Connections that have begun or joined a clone.
    cloning: Arc<AtomicUsize>,
}

impl Peers {
    /// Gives the connection a number. Its recipient sends heartbeats. The number is the time in
    /// `unix_micros` if no connection has it yet, so that another server does not know it.
    pub(crate) fn number(&self, peer: &Arc<Peer>, now: Duration, unix_micros: u64) -> u64 {
        peer.note_heartbeat(now);
        let mut numbered = self.numbered();
        let number = self.last.load(Ordering::Relaxed).saturating_add(1).max(unix_micros);
        self.last.store(number, Ordering::Relaxed);
        numbered.retain(|_, peer| peer.strong_count() != 0);
        numbered.insert(number, Arc::downgrade(peer));
        number
    }

    /// The answer to a heartbeat that names the connections `named`, and came on the connection of
    /// `auxiliary`.
    pub(crate) fn beat(&self, auxiliary: &Peer, named: &[u64], now: Duration) -> Response<'static> {
        auxiliary.note_heartbeat(now);
        let numbered = self.numbered();
        let beat = |connection: &u64| {
            let peer = numbered.get(connection)?.upgrade()?;
            peer.note_heartbeat(now);
            let packets = peer.packets.load(Ordering::Relaxed);
            Some(Beat { connection: *connection, packets, activity: peer.state().activity })
        };
        Response::Heartbeat(named.iter().filter_map(beat).collect())
    }

    /// Counts a connection that begins or joins a clone, until the result is dropped.
    pub(crate) fn begin_clone(&self) -> Cloning {
        self.cloning.fetch_add(1, Ordering::Relaxed);
        Cloning(Arc::clone(&self.cloning))
    }

    /// The counter of [`begin_clone`](Self::begin_clone).
    pub(crate) fn cloning_counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.cloning)
    }

    fn numbered(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Peer>>> {
        self.numbered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Peers::begin_clone`].
pub(crate) struct Cloning(Arc<AtomicUsize>);

impl Drop for Cloning {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the packets that a donor begins to send on a connection.
pub(super) struct CountingLink<'a> {
    pub(super) link: &'a mut dyn DonorLink,
    pub(super) peer: Arc<Peer>,
}

impl CountingLink<'_> {
    fn count(&self, packets: u64) {
        self.peer.packets.fetch_add(packets, Ordering::Relaxed);
    }
}

impl DonorLink for CountingLink<'_> {
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        self.link.receive(payload)
    }

    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()> {
        self.count(1);
        self.link.send(secure, packet)
    }

    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        self.count(2);
        self.link.send_both(first, second)
    }

    fn is_plain(&mut self) -> bool {
        self.link.is_plain()
    }

    fn send_file(
        &mut self,
        descriptor: &[u8],
        file: std::os::fd::BorrowedFd<'_>,
        len: u32,
        is_block: bool,
    ) -> Result<Option<Duration>, crate::link::TransferError> {
        self.count(2);
        let sent = self.link.send_file(descriptor, file, len, is_block);
        if let Ok(None) = sent {
            self.peer.packets.fetch_sub(2, Ordering::Relaxed);
        }
        sent
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        self.count(1);
        self.link.send_error(fatal)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn only_recipients_that_send_heartbeats_are_missed() {
        let peers = Peers::default();
        let peer = Arc::new(Peer::new(at(0)));
        assert_eq!(peer.silence(at(59), Some(T), true), None);
        assert_eq!(peer.silence(at(60), Some(T), true), Some(Duration::from_secs(60)));
        assert_eq!(peer.silence(at(10_000), Some(T), false), None, "a clone runs");
        assert_eq!(peer.silence(at(10_000), None, true), None, "off");
        peer.note_command(at(61));
        assert_eq!(peer.silence(at(120), Some(T), true), None);
        assert_eq!(peer.silence(at(121), Some(T), true), Some(Duration::from_secs(60)));
        assert_eq!(peer.silence(at(10_000), Some(T), false), None, "a stock recipient");
        peers.number(&peer, at(100), 5);
        peer.note_command(at(101));
        assert_eq!(peer.silence(at(120), Some(T), true), None);
        assert_eq!(peer.silence(at(121), Some(T), false), Some(T));
        assert_eq!(peer.silence(at(121), None, false), None, "off");
    }

    #[test]
    fn a_heartbeat_is_for_the_connections_that_it_names() {
        let peers = Peers::default();
        let [aux, one, other] = [0; 3].map(|_| Arc::new(Peer::new(at(0))));
        let numbers = (peers.number(&one, at(0), 5), peers.number(&other, at(0), 5));
        assert_eq!(numbers, (5, 6));
        one.packets.store(7, Ordering::Relaxed);
        one.set_activity("copies");
        let answer = peers.beat(&aux, &[numbers.0, 99], at(10));
        let beat = Beat { connection: numbers.0, packets: 7, activity: "copies" };
        assert_eq!(answer, Response::Heartbeat(vec![beat]));
        assert_eq!(one.silence(at(20), Some(T), false), None);
        assert_eq!(other.silence(at(20), Some(T), false), Some(T));
        assert_eq!(aux.silence(at(20), Some(T), false), None);
        assert_eq!(aux.silence(at(30), Some(T), false), Some(T));
        drop(one);
        assert_eq!(peers.beat(&aux, &[numbers.0], at(31)), Response::Heartbeat(Vec::new()));
    }
}
