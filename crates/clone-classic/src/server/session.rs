// SPDX-License-Identifier: GPL-2.0-only

//! A client that has logged in.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use mysql_common::constants::CapabilityFlags as Flags;

use super::rows;
use crate::error::{Error, ServerError};
use crate::packets::{ERR, Packets};

/// The longest command, bytes. A recipient's are INIT and ACK, with a locator each, and short
/// statements.
const MAX_COMMAND: usize = 1 << 20;

/// Commands of the classic protocol.
const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0e;
const COM_RESET_CONNECTION: u8 = 0x1f;
const COM_CLONE: u8 = 0x20;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// COM_CLONE. To be answered with [`Session::accept_clone`] or [`Session::answer_error`].
    Clone,
    /// A statement. To be answered with [`Session::answer_ok`], [`Session::answer_rows`] or
    /// [`Session::answer_error`].
    Query(String),
    /// `KILL` of the connection with this id. A recipient that is killed asks for it over its
    /// auxiliary connection. To be answered as a query: error 1094 for an id that is not there.
    Kill(u32),
    /// The client has said that it goes, or is gone.
    Quit,
}

/// A session with a client that has logged in. COM_PING, COM_RESET_CONNECTION and SET statements
/// are answered without the caller.
pub struct Session {
    packets: Packets,
    flags: Flags,
    write_timeout: Duration,
    id: u32,
    peer: SocketAddr,
}

impl Session {
    pub(super) fn new(
        mut packets: Packets,
        flags: Flags,
        write_timeout: Duration,
        id: u32,
        peer: SocketAddr,
    ) -> Self {
        packets.transport.stream.socket_mut().waits.deadline = None;
        packets.max = MAX_COMMAND;
        Self { packets, flags, write_timeout, id, peer }
    }

    /// The connection's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Who is connected.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Waits for the next command, at most `timeout` between two bytes.
    ///
    /// # Errors
    /// The connection's. A client that is gone is [`Command::Quit`].
    pub fn next_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        loop {
            self.packets.restart();
            self.packets.transport.stream.socket_mut().waits.timeout = timeout;
            let received = self.packets.receive();
            let command = match received {
                Ok(payload) => payload.data,
                Err(Error::Network { kind: ErrorKind::UnexpectedEof, .. }) => {
                    return Ok(Command::Quit);
                }
                Err(error) => return Err(error.of_client()),
            };
            match command {
                [COM_CLONE, ..] => return Ok(Command::Clone),
                [COM_QUIT, ..] => return Ok(Command::Quit),
                [COM_PING | COM_RESET_CONNECTION, ..] => self.answer_ok()?,
                [COM_QUERY, sql @ ..] => {
                    let sql = String::from_utf8_lossy(sql).trim().to_owned();
                    match (kill(&sql), is_set(&sql)) {
                        (Some(id), _) => return Ok(Command::Kill(id)),
                        (None, true) => self.answer_ok()?,
                        (None, false) => return Ok(Command::Query(sql)),
                    }
                }
                _ => self.answer_error(&ServerError {
                    number: 1047,
                    state: "08S01".into(),
                    text: "Unknown command".into(),
                })?,
            }
        }
    }

    /// Answers OK.
    pub fn answer_ok(&mut self) -> Result<(), Error> {
        self.writes().send(&[&ok_packet()]).map_err(Error::of_client)
    }

    /// Answers with an error.
    pub fn answer_error(&mut self, error: &ServerError) -> Result<(), Error> {
        send_error(self.writes(), error).map_err(Error::of_client)
    }

    /// Answers with rows of text. Each row has as many values as there are columns.
    pub fn answer_rows(
        &mut self,
        columns: &[&str],
        rows: &[Vec<Option<String>>],
    ) -> Result<(), Error> {
        let flags = self.flags;
        rows::send(self.writes(), flags, columns, rows).map_err(Error::of_client)
    }

    /// Answers COM_CLONE with OK. From now on the client sends commands of clone mode, up to EXIT.
    /// Behind the answer to EXIT, [`next_command`](Self::next_command) is next.
    pub fn accept_clone(&mut self) -> Result<(), Error> {
        self.answer_ok()
    }

    /// Waits for the next command of clone mode. Its payload, without the code, replaces the
    /// content of `payload`.
    pub fn receive(&mut self, payload: &mut Vec<u8>, timeout: Duration) -> Result<u8, Error> {
        self.packets.restart();
        self.packets.transport.stream.socket_mut().waits.timeout = timeout;
        match self.packets.receive().map_err(Error::of_client)?.data {
            [code, rest @ ..] => {
                payload.clear();
                payload.extend_from_slice(rest);
                Ok(*code)
            }
            [] => Err(Error::out_of_order()),
        }
    }

    /// Sends a packet of clone mode, whose payload consists of `parts`.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), Error> {
        self.packets.restart();
        self.writes().send(parts).map_err(Error::of_client)
    }

    /// Sends two packets of clone mode, in one call if the first is short.
    pub fn send_both(&mut self, first: &[u8], second: &[u8]) -> Result<(), Error> {
        self.writes().send_both(first, second).map_err(Error::of_client)
    }

    /// Ends the connection. Dropping a session closes the connection without a word.
    pub fn close(mut self) {
        self.packets.transport.stream.socket_mut().waits.timeout = Duration::from_secs(1);
        self.packets.transport.stream.close();
    }

    /// Ends the connection in both directions, also for a thread that waits for the peer.
    pub(super) fn shut_down(&self) {
        self.packets.transport.stream.socket().shut_down();
    }

    fn writes(&mut self) -> &mut Packets {
        self.packets.transport.stream.socket_mut().waits.timeout = self.write_timeout;
        &mut self.packets
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// OK: no rows changed, no id, autocommit, no warnings.
pub(super) fn ok_packet() -> [u8; 7] {
    [0, 0, 0, 2, 0, 0, 0]
}

pub(super) fn send_error(packets: &mut Packets, error: &ServerError) -> Result<(), Error> {
    let [low, high] = error.number.to_le_bytes();
    let mut state = *b"#HY000";
    if let Ok(five) = <[u8; 5]>::try_from(error.state.as_bytes()) {
        state[1..].copy_from_slice(&five);
    }
    packets.send(&[&[ERR, low, high], &state, error.text.as_bytes()])
}

/// The id in `KILL [CONNECTION | QUERY] id`.
pub(crate) fn kill(sql: &str) -> Option<u32> {
    let mut words = sql.trim_end_matches(';').split_ascii_whitespace();
    if !words.next()?.eq_ignore_ascii_case("kill") {
        return None;
    }
    let mut word = words.next()?;
    if word.eq_ignore_ascii_case("connection") || word.eq_ignore_ascii_case("query") {
        word = words.next()?;
    }
    word.parse().ok().filter(|_| words.next().is_none())
}

/// Whether this is a SET statement, which changes nothing here.
pub(crate) fn is_set(sql: &str) -> bool {
    let first = sql.split_ascii_whitespace().next();
    first.is_some_and(|first| first.eq_ignore_ascii_case("set"))
}
