// SPDX-License-Identifier: GPL-2.0-only

//! One connection: a login, and commands up to the end of the clone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_classic::server::{Command, DonorStream, Incoming, ServerOptions, Session};
use clone_classic::{Error, ServerError};
use clone_core::donor;

use super::host::{ColdHost, ColdSession};

/// How long a connection may say nothing outside of a clone.
const IDLE: Duration = Duration::from_secs(60);

/// Serves connections.
pub(super) struct Connections {
    host: Arc<ColdHost>,
    options: ServerOptions,
    /// KILL sets the flag of a connection.
    open: Mutex<BTreeMap<u32, Arc<AtomicBool>>>,
}

impl Connections {
    pub(super) fn new(host: &Arc<ColdHost>, options: ServerOptions) -> Self {
        Self { host: Arc::clone(host), options, open: Mutex::default() }
    }

    /// Serves a connection up to its end.
    pub(super) fn serve(&self, incoming: Incoming, id: u32) {
        let is_killed = Arc::<AtomicBool>::default();
        self.open().insert(id, Arc::clone(&is_killed));
        let peer = incoming.peer();
        let mut options = self.options.clone();
        options.cancel = {
            let (host, is_killed) = (Arc::clone(&self.host), Arc::clone(&is_killed));
            Arc::new(move || host.is_stopped() || is_killed.load(Ordering::Relaxed))
        };
        let outcome = match incoming.handshake(&options, id) {
            Ok(session) => self.commands(session, &is_killed),
            Err(error) => Err(error),
        };
        self.open().remove(&id);
        match outcome {
            Ok(()) | Err(Error::Cancelled) => log::info!("{peer}: connection {id} has ended"),
            // A wrong password is worth a look.
            Err(error @ Error::Server(_)) => log::warn!("{peer}: refused: {error}"),
            Err(error) => log::info!("{peer}: connection {id} broke: {error}"),
        }
    }

    fn commands(&self, mut session: Session, is_killed: &Arc<AtomicBool>) -> Result<(), Error> {
        log::info!("{}: connection {}", session.peer(), session.id());
        loop {
            match session.next_command(IDLE)? {
                Command::Clone => {
                    session.accept_clone()?;
                    if !self.donate(&mut session, is_killed) {
                        return Ok(());
                    }
                }
                Command::Kill(id) => {
                    let flag = self.open().get(&id).cloned();
                    match flag {
                        Some(flag) => {
                            flag.store(true, Ordering::Relaxed);
                            session.answer_ok()?;
                        }
                        None => session.answer_error(&ServerError {
                            number: 1094,
                            state: "HY000".into(),
                            text: format!("Unknown thread id: {id}"),
                        })?,
                    }
                }
                Command::Query(_) => session.answer_error(&ServerError {
                    number: 1235,
                    state: "42000".into(),
                    text: "mysql-clone serve has no server behind it: it answers CLONE INSTANCE \
                           only"
                        .into(),
                })?,
                Command::Quit => {
                    session.close();
                    return Ok(());
                }
            }
        }
    }

    /// Is a donor up to EXIT. Returns false if the connection is of no more use.
    fn donate(&self, session: &mut Session, is_killed: &Arc<AtomicBool>) -> bool {
        let peer = session.peer();
        let cold = ColdSession::new(Arc::clone(&self.host), Arc::clone(is_killed));
        let mut link = DonorStream::new(session, cold.diagnostics());
        let outcome = donor::serve(&cold, self.host.clones(), &mut link);
        if let Err(error) = &outcome {
            log::warn!("{peer}: the connection broke in a clone: {error}");
        }
        outcome.is_ok() && !link.is_broken()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<AtomicBool>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
