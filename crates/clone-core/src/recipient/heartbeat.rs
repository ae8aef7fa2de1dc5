// SPDX-License-Identifier: GPL-2.0-only

//! Heartbeats: a thread of the recipient tells the donor each second that the recipient lives, and
//! learns what the donor does. So a donor that waits is told apart from one that is gone.
//!
//! The heartbeats go over the auxiliary connection, where a donor of this project answers at once.
//! A stock donor gets none. While INIT is not answered, the recipient does not know which kind the
//! donor is. If the answer takes long, the thread then opens one more connection: a donor that
//! answers there lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clone_protocol::{Command, Heartbeat, Response};

use super::answer::{donor_error, silent, unexpected};
use super::auxiliary::Auxiliary;
use super::probe;
use super::shared::Shared;
use super::sign_of_life::{Heartbeats, Liveness};
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::link::{Link, Patience};
use crate::log_target::CLIENT;
use crate::session::{Clock, Host, RecipientSession, Thread, WorkerKind};
use crate::traffic::sleep_until;

/// How often a heartbeat is sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the master looks whether the first heartbeat is answered.
const POLL: Duration = Duration::from_millis(2);

/// The thread that sends heartbeats, while a master has its connections.
pub(super) struct Heart<S: RecipientSession> {
    /// Rung for the next heartbeat and for the end.
    bell: Arc<Bell>,
    is_over: Arc<AtomicBool>,
    shared: Arc<Shared<S>>,
    thread: Option<<S::Host as Host>::Thread>,
}

impl<S: RecipientSession> Heart<S> {
    /// Starts the thread. `liveness` is that of the master's data connection.
    pub(super) fn start(
        session: &S,
        shared: &Arc<Shared<S>>,
        liveness: Arc<Liveness>,
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
                if ends.load(Ordering::Relaxed) || liveness.is_stock(&own.heartbeats) {
                    return;
                }
                if let Err(error) = beat(session, &own, &liveness, &auxiliary, limit) {
                    log::info!(target: CLIENT, "Heartbeat failed: {}: {error}", error.number());
                    own.heartbeats.failed(error);
                    return;
                }
            }
        };
        match session.host().spawn(WorkerKind::Heartbeat, Box::new(work)) {
            Ok(thread) => {
                shared.heartbeats.set_sending(true);
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
        self.shared.heartbeats.set_sending(false);
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
    liveness: &Liveness,
    auxiliary: &Auxiliary<S::Link>,
    limit: Duration,
) -> Result<()> {
    let heartbeats = &shared.heartbeats;
    if heartbeats.is_agreed() {
        // The master uses the connection, and the donor hears from it.
        let Some(mut link) = auxiliary.take_if_free() else { return Ok(()) };
        return send(session, shared, &mut link, limit);
    }
    let Some(last) = liveness.last_sign(heartbeats) else { return Ok(()) };
    let now = session.host().now();
    if now.saturating_sub(last) >= limit / 2 && probe::answers(session, shared) {
        heartbeats.connected(session.host().now());
    }
    Ok(())
}

/// Whether the auxiliary connection has reached the donor of the data connection, whose `liveness`
/// this is. A load balancer may have given the auxiliary connection to another server, which does
/// not know the number of the data connection, or knows no heartbeats at all. None if the donor of
/// the data connection knows no heartbeats, or the auxiliary connection is broken. Waits for the
/// answer to the first heartbeat, at most twice as long as the donor may be silent.
///
/// # Errors
/// The server at the other end is silent; KILL.
pub(super) fn reaches_donor<S: RecipientSession>(
    session: &S,
    heartbeats: &Heartbeats,
    liveness: &Liveness,
) -> Result<Option<bool>> {
    let host = session.host();
    let Some(limit) = host.settings().patience().filter(|_| liveness.is_numbered()) else {
        return Ok(None);
    };
    // The thread has sent the first heartbeat as soon as the data connection had its number.
    let end = host.now() + 2 * limit;
    while host.now() < end {
        match heartbeats.first_answer() {
            None => sleep_until(session, host.now() + POLL)?,
            Some(Ok(())) => return Ok(Some(liveness.is_known(heartbeats))),
            Some(Err(Error::Donor { .. })) => return Ok(Some(false)),
            Some(Err(error)) if error.is_network() => break,
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Sends a heartbeat, and takes the answer. If none comes, the error says how long the donor was
/// silent.
fn send<S: RecipientSession>(
    session: &S,
    shared: &Shared<S>,
    link: &mut S::Link,
    limit: Duration,
) -> Result<()> {
    let outcome = exchange(session, &shared.heartbeats, link, limit);
    match link.silence().filter(|_| outcome.is_err()) {
        Some(silence) => Err(silent(&session.name_of(&shared.donor), silence)),
        None => outcome,
    }
}

fn exchange<S: RecipientSession>(
    session: &S,
    heartbeats: &Heartbeats,
    link: &mut S::Link,
    limit: Duration,
) -> Result<()> {
    let command = Command::Heartbeat(Heartbeat { connections: heartbeats.in_use() });
    let mut payload = Vec::new();
    command.encode_payload(&mut payload);
    link.send(session, false, command.code(), &payload)?;
    let patience = Patience { limit, allows_as_server: false, lives: None };
    let packet = link.receive(session, false, &patience)?;
    match Response::parse(packet.data)? {
        Response::Heartbeat(beats) => heartbeats.answered(session.host().now(), &beats),
        Response::Error { number, message } => return Err(donor_error(number, message)),
        _ => return Err(unexpected()),
    }
    let packet = link.receive(session, false, &patience)?;
    match Response::parse(packet.data)? {
        Response::Complete => Ok(()),
        _ => Err(unexpected()),
    }
}
