// SPDX-License-Identifier: GPL-2.0-only

//! Whether the donor lives: what its answers to heartbeats say, and what has come on a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_protocol::Beat;

use crate::error::{Error, Result};
use crate::link::Lives;
use crate::log_target::CLIENT;
use crate::session::Host;

/// What all connections of a clone know of the donor by heartbeats.
#[derive(Default)]
pub(super) struct Heartbeats {
    /// The master has a thread that sends heartbeats. Stays true if the thread ends with an error:
    /// the donor may still number a connection that asked for a number before.
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
    /// What came of the first heartbeat.
    first_answer: Option<Result<()>>,
}

impl Heartbeats {
    /// Whether the master has a thread that sends heartbeats, as soon as the donor agrees.
    pub(super) fn is_sending(&self) -> bool {
        self.is_sending.load(Ordering::Relaxed)
    }

    /// Whether the donor is one of this project that answers heartbeats.
    pub(super) fn is_agreed(&self) -> bool {
        self.state().is_agreed
    }

    /// The master has started the thread, or has ended it.
    pub(super) fn set_sending(&self, is_sending: bool) {
        self.is_sending.store(is_sending, Ordering::Relaxed);
    }

    /// The connections that the donor has numbered, and that are in use.
    pub(super) fn in_use(&self) -> Vec<u64> {
        self.state().in_use.iter().copied().collect()
    }

    /// The donor has answered a new connection.
    pub(super) fn connected(&self, now: Duration) {
        self.state().connected = Some(now);
    }

    /// The donor has answered a heartbeat.
    pub(super) fn answered(&self, now: Duration, beats: &[Beat<'_>]) {
        let beat = |one: &Beat<'_>| (one.connection, (one.packets, one.activity.to_owned()));
        let mut state = self.state();
        state.heard = now;
        state.first_answer.get_or_insert(Ok(()));
        state.beats = beats.iter().map(beat).collect();
    }

    /// No more heartbeats are sent after this error.
    pub(super) fn failed(&self, error: Error) {
        self.state().first_answer.get_or_insert(Err(error));
    }

    /// What came of the first heartbeat. None if it is not answered.
    pub(super) fn first_answer(&self) -> Option<Result<()>> {
        self.state().first_answer.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the donor of one data connection lives: what is known of the connection.
#[derive(Default)]
pub(super) struct Liveness {
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

impl Liveness {
    /// Whether the donor has answered, and does not know heartbeats.
    pub(super) fn is_stock(&self, heartbeats: &Heartbeats) -> bool {
        self.packets.load(Ordering::Relaxed) != 0 && !heartbeats.is_agreed()
    }

    pub(super) fn is_numbered(&self) -> bool {
        self.number.load(Ordering::Relaxed) != 0
    }

    /// Whether the last answer to a heartbeat came from the donor of this connection.
    pub(super) fn is_known(&self, heartbeats: &Heartbeats) -> bool {
        heartbeats.state().beats.contains_key(&self.number.load(Ordering::Relaxed))
    }

    /// INIT is sent. A donor that lives may take until `until` for its answer.
    pub(super) fn note_init(&self, now: Duration, until: Duration) {
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

    /// When the donor last showed that it lives while INIT is not answered: when INIT was sent, or
    /// later. None if INIT is answered.
    pub(super) fn last_sign(&self, heartbeats: &Heartbeats) -> Option<Duration> {
        let (since, _) = (*lock(&self.unanswered))?;
        Some(heartbeats.state().connected.unwrap_or(since).max(since))
    }

    /// The connection ends.
    pub(super) fn end(&self, heartbeats: &Heartbeats) {
        heartbeats.state().in_use.remove(&self.number.swap(0, Ordering::Relaxed));
    }

    /// Says whether the donor lives, for a connection on which it has been silent for
    /// `clone_peer_timeout`.
    pub(super) fn lives<H: Host>(
        self: &Arc<Self>,
        heartbeats: &Arc<Heartbeats>,
        host: &Arc<H>,
    ) -> Lives {
        let (liveness, heartbeats, host) =
            (Arc::clone(self), Arc::clone(heartbeats), Arc::clone(host));
        Arc::new(move || {
            let now = host.now();
            let Some(limit) = host.settings().patience() else { return false };
            let Some(activity) = liveness.activity(&heartbeats, now, limit) else {
                return false;
            };
            let mut told = lock(&liveness.told);
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
        let (heartbeats, liveness) = (Heartbeats::default(), Liveness::default());
        liveness.count();
        liveness.set_number(&heartbeats, 7);
        assert!(heartbeats.is_agreed());
        assert_eq!(liveness.activity(&heartbeats, at(1), T), None, "no heartbeat was answered");
        liveness.count();
        heartbeats.answered(at(1), &[beat(1)]);
        assert!(liveness.is_known(&heartbeats));
        assert_eq!(liveness.activity(&heartbeats, at(20), T).as_deref(), Some("waits"));
        assert_eq!(liveness.activity(&heartbeats, at(21), T), None, "the last answer is too old");
        heartbeats.answered(at(21), &[beat(2)]);
        assert_eq!(liveness.activity(&heartbeats, at(21), T), None, "the second packet is lost");
        liveness.count();
        assert!(liveness.activity(&heartbeats, at(21), T).is_some());
        heartbeats.answered(at(21), &[]);
        assert!(!liveness.is_known(&heartbeats));
        assert_eq!(
            liveness.activity(&heartbeats, at(21), T),
            None,
            "the donor has no such connection"
        );
        liveness.end(&heartbeats);
        assert!(heartbeats.state().in_use.is_empty());
    }

    #[test]
    fn before_the_answer_to_init_a_new_connection_shows_that_a_donor_lives() {
        let (heartbeats, liveness) = (Heartbeats::default(), Liveness::default());
        liveness.note_init(at(0), at(100));
        assert_eq!(liveness.activity(&heartbeats, at(20), T), None);
        heartbeats.state().connected = Some(at(10));
        assert!(liveness.activity(&heartbeats, at(20), T).is_some());
        assert_eq!(liveness.activity(&heartbeats, at(30), T), None);
        heartbeats.state().connected = Some(at(95));
        assert!(liveness.activity(&heartbeats, at(99), T).is_some());
        assert_eq!(liveness.activity(&heartbeats, at(100), T), None, "INIT takes too long");
        liveness.count();
        assert_eq!(liveness.activity(&heartbeats, at(99), T), None, "a stock donor has answered");
    }
}
