// SPDX-License-Identifier: GPL-2.0-only

//! Connections in COM_CLONE, over mysqld's `clone_protocol` service. On a plain connection the
//! answer to EXECUTE goes past mysqld ([`PacketReader`], [`PacketWriter`]), which saves copies.

use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clone_core::engine::Cancel;
use clone_core::error::{Error, NetworkError, Result};
use clone_core::facts::Rows;
use clone_core::link::{
    DonorLink, Link, LinkKind, Lives, Packet, Patience, Silence, TransferError,
};
use clone_core::log_target::SERVER;
use clone_core::session::{Host, Session, Variables};
use clone_io::{CopyError, PacketError, PacketReader, PacketWriter};
use clone_protocol::{CommandCode, ResponseCode};

use super::interrupter::{GRACE, Role, Watch};
use super::session::MysqldSession;
use super::{debug_hooks, tcp};
use crate::server::connection::Connection;
use crate::server::donor::DonorConnection;

/// The longest wait where something else ends the connection: as long as a donor of mysqld waits
/// for a command.
const LONGEST_WAIT: Duration = Duration::from_secs(8 * 60 * 60);

/// How much later than a limit mysqld's own limit is.
const LATER: Duration = Duration::from_secs(2);

/// A recipient's connection to its donor.
pub(crate) struct RecipientLink {
    /// Lets KILL wake the session that waits for this connection, but for
    /// [`LinkKind::DataOfReplacement`], which mysqld's KILL shuts down. Ends the connection if the
    /// donor is silent.
    watch: Option<Watch>,
    reading: Arc<Mutex<Option<Reading>>>,
    connection: Connection,
    /// `net_read_timeout`, and the least that a clone uses.
    read_timeout: Duration,
    /// While the answer to EXECUTE comes in over a plain connection.
    reader: Option<PacketReader>,
    /// The error after which the connection is of no more use.
    broken: Option<Error>,
}

/// A wait for the donor.
struct Reading {
    /// When the last byte came, or the wait began.
    since: Instant,
    /// Bytes that have come over the connection.
    received: Option<u64>,
    limit: Duration,
    lives: Option<Lives>,
}

impl Reading {
    /// How long the donor has been silent, if that is too long.
    fn silence(&mut self, socket: &TcpStream) -> Option<Duration> {
        let received = tcp::bytes_received(socket);
        if received != self.received {
            self.received = received;
            self.since = Instant::now();
        }
        let silence = self.since.elapsed();
        let is_silent = silence >= self.limit && !self.lives.as_ref().is_some_and(|lives| lives());
        is_silent.then_some(silence)
    }
}

impl RecipientLink {
    /// # Errors
    /// There are too many threads or open files.
    pub(super) fn new(
        connection: Connection,
        session: &MysqldSession,
        kind: LinkKind,
    ) -> Result<Self> {
        // Over the auxiliary connection the donor is told of KILL.
        let delay = match kind {
            LinkKind::Data => Some(Duration::ZERO),
            LinkKind::Auxiliary => Some(GRACE),
            LinkKind::DataOfReplacement => None,
        };
        let reading = Arc::new(Mutex::new(None::<Reading>));
        let watch = connection.socket().map(|socket| {
            let triggers = delay.map_or_else(Vec::new, |delay| session.triggers(delay));
            let watch = session.host().interrupter.watch(socket, triggers)?;
            let watched = Arc::clone(&reading);
            let check = move |socket: &TcpStream| lock(&watched).as_mut()?.silence(socket);
            watch.end_when_silent(Role::Donor, Box::new(check));
            end_with_dead_host(socket, session.host().settings().patience());
            Ok(watch)
        });
        let watch = watch.transpose().map_err(|error| not_watched(&error))?;
        let read_timeout = seconds(session, "net_read_timeout", 30);
        Ok(Self { watch, reading, connection, read_timeout, reader: None, broken: None })
    }

    /// From now on the donor may be silent for so long, until a [`WaitEnd`] is dropped.
    fn begin_wait(&self, limit: Duration, lives: Option<Lives>) {
        // The first look notes how many bytes there are.
        let reading = Reading { since: Instant::now(), received: None, limit, lives };
        *lock(&self.reading) = Some(reading);
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

impl Link<MysqldSession> for RecipientLink {
    fn send(
        &mut self,
        session: &MysqldSession,
        is_data: bool,
        code: CommandCode,
        payload: &[u8],
    ) -> Result<()> {
        self.check()?;
        self.reader = None;
        let changed = debug_hooks::changed_payload(code, payload);
        let payload = changed.as_deref().unwrap_or(payload);
        self.connection
            .send_command(session.thd(), is_data, code as u8, payload)
            .map_err(Error::Raised)?;
        // The answer to the previous command has been read to its end, and no packet comes unasked.
        // So the client library's buffer and the network are empty up to the answer that follows.
        let is_plain = code == CommandCode::Execute && self.connection.plain_socket().is_some();
        self.reader = is_plain.then(|| {
            let limit = variable(session, "max_allowed_packet", 64 << 20);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            // The watch ends a silent connection earlier.
            PacketReader::new(LONGEST_WAIT, limit)
        });
        Ok(())
    }

    fn receive(
        &mut self,
        session: &MysqldSession,
        is_data: bool,
        patience: &Patience,
    ) -> Result<Packet<'_>> {
        self.check()?;
        let limit = match patience.allows_as_server {
            true => patience.limit.max(self.read_timeout),
            false => patience.limit,
        };
        self.begin_wait(limit, patience.lives.clone());
        let _ended = WaitEnd(Arc::clone(&self.reading));
        if let (Some(reader), Some(socket)) = (&mut self.reader, self.connection.plain_socket()) {
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            return match reader.receive(socket) {
                Ok(packet) => Ok(Packet { data: packet.data, network_len: packet.network_len }),
                Err(error) => {
                    let is_silent = self.watch.as_ref().is_some_and(|it| it.silence().is_some());
                    let error = match is_silent {
                        true => NetworkError::ReadTimeout.into(),
                        false => read_error(&error),
                    };
                    session.raise(&error);
                    self.broken = Some(Error::Raised(error.number()));
                    Err(error)
                }
            };
        }
        // mysqld has a limit, too. It is higher, so that the watch ends the connection.
        let longest = if patience.lives.is_some() { LONGEST_WAIT } else { limit + LATER };
        let longest = u32::try_from(longest.as_secs()).unwrap_or(u32::MAX);
        let packet =
            self.connection.receive(session.thd(), is_data, longest).map_err(Error::Raised)?;
        Ok(Packet { data: packet.data, network_len: packet.network_len as u64 })
    }

    fn silence(&self) -> Option<Duration> {
        self.watch.as_ref()?.silence()
    }

    fn is_within_host(&self) -> bool {
        self.connection.socket().is_some_and(clone_io::is_within_host)
    }

    fn has_tls(&self) -> Option<bool> {
        self.connection.has_tls()
    }

    fn query(&mut self, _: &MysqldSession, statement: &str) -> Result<Rows> {
        self.connection.query(statement).map_err(|error| Error::Donor {
            number: i32::try_from(error.number).unwrap_or(i32::MAX),
            message: error.text,
        })
    }

    fn kill(&mut self, other: &mut Self) -> Result<()> {
        self.begin_wait(self.read_timeout, None);
        let _ended = WaitEnd(Arc::clone(&self.reading));
        self.connection.kill(&other.connection).map_err(Error::Raised)
    }

    fn disconnect(self, session: Option<&MysqldSession>, abort: bool, clear_error: bool) {
        // KILL must not shut the socket down while the donor is asked to leave clone mode.
        if let Some(watch) = &self.watch {
            watch.forget_kill();
        }
        let settings = session.map(|session| session.host().settings());
        let limit = settings.and_then(|settings| settings.patience());
        self.begin_wait(limit.unwrap_or(self.read_timeout), None);
        let clears = session.filter(|_| clear_error).map(MysqldSession::thd);
        let Self { watch, connection, .. } = self;
        connection.disconnect(abort, clears);
        drop(watch);
    }
}

/// A donor's connection to its recipient: the one of its own session.
pub(crate) struct DonorLinkOf<'s> {
    /// Lets KILL wake the session if the recipient is silent. The session first has a moment to
    /// tell the recipient of KILL.
    watch: Option<Watch>,
    session: &'s MysqldSession,
    connection: DonorConnection<'s>,
    writer: Option<PacketWriter>,
    /// The error after which the connection is of no more use.
    broken: Option<Error>,
}

impl<'s> DonorLinkOf<'s> {
    pub(crate) fn new(session: &'s MysqldSession, connection: DonorConnection<'s>) -> Self {
        let watch = connection
            .socket()
            .map(|socket| session.host().interrupter.watch(socket, session.triggers(GRACE)));
        let watch = watch.and_then(|watch| {
            let log = |error: &io::Error| log::warn!(target: SERVER, "KILL cannot wake: {error}");
            watch.inspect_err(log).ok()
        });
        Self { watch, session, connection, writer: None, broken: None }
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// The writer and the socket of a plain connection that has not failed.
    fn plain(&mut self) -> Result<Option<(&mut PacketWriter, BorrowedFd<'_>)>> {
        self.check()?;
        let Self { session, connection, writer, .. } = self;
        let Some(socket) = connection.plain_socket() else { return Ok(None) };
        let writer = writer
            .get_or_insert_with(|| PacketWriter::new(seconds(session, "net_write_timeout", 60)));
        Ok(Some((writer, socket)))
    }

    /// The connection has failed, perhaps in the middle of a packet.
    fn fail(&mut self, error: NetworkError) -> Error {
        let error = Error::Network(error);
        self.session.raise(&error);
        self.broken = Some(Error::Raised(error.number()));
        error
    }
}

impl DonorLink for DonorLinkOf<'_> {
    fn watch(&mut self, silence: Silence) {
        let Some(watch) = &self.watch else { return };
        watch.end_when_silent(Role::Recipient, Box::new(move |_| silence()));
        // A recipient that reads slowly may let the donor wait as long as the server allows.
        let patience = self.session.host().settings().patience();
        let patience = patience.map(|it| it.max(seconds(self.session, "net_write_timeout", 60)));
        if let Some(socket) = self.connection.socket() {
            end_with_dead_host(socket, patience);
        }
    }

    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        self.check()?;
        let (code, bytes) = self.connection.next_command().map_err(Error::Raised)?;
        payload.clear();
        payload.extend_from_slice(bytes);
        Ok(code)
    }

    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()> {
        self.check()?;
        self.connection.send_response(secure, packet).map_err(Error::Raised)
    }

    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        let sent = match self.plain()? {
            Some((writer, socket)) => writer.send_pair(socket, first, second),
            None => Ok(false),
        };
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.send(false, first)?;
                self.send(false, second)
            }
            Err(error) => Err(self.fail(NetworkError::of_write(&error))),
        }
    }

    fn is_plain(&mut self) -> bool {
        self.connection.plain_socket().is_some()
    }

    fn send_file(
        &mut self,
        descriptor: &[u8],
        file: BorrowedFd<'_>,
        len: u32,
        is_block: bool,
    ) -> Result<Option<Duration>, TransferError> {
        let sent = match self.plain().map_err(TransferError::Link)? {
            Some((writer, socket)) => writer.send_file(socket, descriptor, file, len, is_block),
            None => Ok(None),
        };
        sent.map_err(|error| match error {
            CopyError::Write(error) => {
                TransferError::Link(self.fail(NetworkError::of_write(&error)))
            }
            CopyError::Read(error) => {
                // The recipient waits for the rest of the packet: the connection is closed.
                self.broken = Some(NetworkError::Write.into());
                TransferError::File(error)
            }
        })
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        let fatal = fatal || self.broken.is_some();
        self.connection.send_error(ResponseCode::Error as u8, fatal).map_err(Error::Raised)
    }
}

/// Ends the wait when it is dropped.
struct WaitEnd(Arc<Mutex<Option<Reading>>>);

impl Drop for WaitEnd {
    fn drop(&mut self) {
        *lock(&self.0) = None;
    }
}

/// Locks `wait`, also after a panic: a wait is only ever replaced as a whole.
fn lock<T>(wait: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    wait.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that cannot be watched, in the words of MySQL's client for a socket that cannot be
/// had (`CR_IPSOCK_ERROR`).
fn not_watched(error: &io::Error) -> Error {
    Error::Connect(match error.raw_os_error() {
        Some(errno) => format!("Connect failed: 2004 : Can't create TCP/IP socket ({errno})"),
        None => format!("Connect failed: {error}"),
    })
}

/// Ends the connection if the peer's host is dead, whatever plugin the peer has. An error says that
/// the socket is not a TCP socket: then the peer is on this host.
fn end_with_dead_host(socket: BorrowedFd<'_>, patience: Option<Duration>) {
    if let Some(patience) = patience {
        let _ = tcp::end_with_dead_host(socket, patience);
    }
}

fn read_error(error: &PacketError) -> Error {
    Error::Network(match error {
        PacketError::Io(error) => NetworkError::of_read(error),
        PacketError::TooLarge => NetworkError::PacketTooLarge,
        PacketError::OutOfOrder => NetworkError::PacketsOutOfOrder,
    })
}

/// The variable, but at least so many seconds: as `clone_protocol_service.cc:set_read_timeout` and
/// `set_write_timeout` have it.
pub(super) fn seconds(session: &MysqldSession, name: &str, least: u64) -> Duration {
    Duration::from_secs(variable(session, name, least).max(least))
}

fn variable(session: &MysqldSession, name: &str, default: u64) -> u64 {
    let value = session.variables(&[name]).ok().and_then(|mut values| values.pop());
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}
