// SPDX-License-Identifier: GPL-2.0-only

//! A session with a server, and COM_CLONE.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mysql_common::constants::CapabilityFlags as Flags;
use zeroize::Zeroizing;

use crate::answer::{expect_ok, parse_err};
use crate::authentication::{Authentication, Channel};
use crate::connect::connect;
use crate::error::Error;
use crate::greeting::{Greeting, response, tls_request};
use crate::options::{Address, ConnectOptions, SslMode};
use crate::packets::{ERR, Packets};
use crate::query;
use crate::stream::Stream;
use crate::tls::ClientTls;

/// The longest packet that a client reads by default, bytes: the largest that a donor sends, which
/// is 64 MiB of data with what stands in front of them.
pub const MAX_PACKET: usize = (64 << 20) + (1 << 10);

/// The longest packet of a handshake, bytes.
const MAX_HANDSHAKE: usize = 64 << 10;

/// How long the last words may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Commands of the classic protocol.
const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_RESET_CONNECTION: u8 = 0x1f;
const COM_CLONE: u8 = 0x20;

/// A session with a server.
pub struct Connection {
    packets: Packets,
    id: u32,
    server_version: String,
    flags: Flags,
    read_timeout: Duration,
    max_packet: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Queries.
    Session,
    /// Clone mode.
    Clone,
    /// An error came in the middle of something.
    Broken,
}

/// A packet of clone mode.
#[derive(Debug)]
pub struct Received<'a> {
    /// The payload, at least one byte: the code. The caller may overwrite the payload until the
    /// next call. What follows the code, or the head of a [`Block`](clone_protocol::Block), is
    /// aligned for direct I/O if the payload has less than 2^24 - 1 bytes.
    pub data: &'a mut [u8],
    /// Bytes that crossed the network for the packet, compressed and with headers, without what
    /// TLS adds.
    pub network_len: u64,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// See [`Error`]. Error 1045 means a wrong user or password.
    pub fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        // A file that cannot be read is told before anything is sent.
        let mode = options.tls.mode;
        let is_tcp = matches!(options.address, Address::Tcp { .. });
        let wants_tls = mode != SslMode::Disabled && (is_tcp || mode != SslMode::Preferred);
        let needs_tls = wants_tls && mode != SslMode::Preferred;
        let tls = needs_tls.then(|| ClientTls::new(&options.tls)).transpose()?;

        let mut packets = Packets::new(Stream::Plain(connect(options)?), MAX_HANDSHAKE);
        limit(&mut packets, options.connect_timeout);
        let greeting = packets.receive().and_then(|packet| Greeting::parse(packet.data));
        let greeting = greeting
            .map_err(|error| error.while_connecting("reading initial communication packet"))?;
        limit(&mut packets, options.read_timeout);
        if needs_tls && !greeting.offers_tls() {
            return Err(Error::Tls("SSL is required but the server doesn't support it".into()));
        }
        let encrypts = wants_tls && greeting.offers_tls();
        let flags = greeting.common(encrypts, options.zstd_level.is_some());
        if encrypts {
            let tls = tls.map_or_else(|| ClientTls::new(&options.tls), Ok)?;
            packets = encrypt(packets, &tls, options, flags)
                .map_err(|error| error.while_connecting("starting TLS"))?;
        }
        let channel = match (encrypts, is_tcp) {
            (true, _) => Channel::Tls,
            (false, true) => Channel::Open,
            (false, false) => Channel::Socket,
        };
        log_in(&mut packets, options, &greeting, flags, channel)
            .map_err(|error| error.while_connecting("reading authorization packet"))?;

        if flags.contains(Flags::CLIENT_ZSTD_COMPRESSION_ALGORITHM) {
            packets.compress()?;
        }
        packets.max = MAX_PACKET;
        let waits = &mut packets.transport.stream.socket_mut().waits;
        (waits.timeout, waits.deadline) = (options.read_timeout, None);
        Ok(Self {
            packets,
            id: greeting.id,
            server_version: greeting.version,
            flags,
            read_timeout: options.read_timeout,
            max_packet: MAX_PACKET,
            state: State::Session,
        })
    }

    /// The connection's id at the server, which KILL takes.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The server's version, for example `9.7.4-2`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// Whether the connection has TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.packets.transport.stream, Stream::Tls(_))
    }

    /// Whether the server compresses what it sends.
    pub fn is_compressed(&self) -> bool {
        self.packets.transport.is_compressed()
    }

    /// Whether the server is on this machine, as far as addresses show that.
    pub fn is_within_host(&self) -> bool {
        let socket = self.packets.transport.stream.socket();
        !socket.is_tcp() || clone_io::is_within_host(socket.as_fd())
    }

    /// Sets the longest payload that is read in clone mode, bytes. The default is [`MAX_PACKET`].
    pub fn set_max_packet(&mut self, max: usize) {
        self.max_packet = max;
    }

    /// Runs one statement. Gives the rows of its answer, each value as text; none for NULL.
    ///
    /// # Errors
    /// The server's; or an answer with more than 1048576 rows or 64 MiB.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let flags = self.flags;
        self.command(COM_QUERY, sql.as_bytes(), |packets| query::receive(packets, flags))
    }

    /// Switches to clone mode: COM_CLONE.
    ///
    /// # Errors
    /// The server's: 1227 if the account lacks BACKUP_ADMIN, 1524 if no plugin `clone` is active.
    /// The connection remains a session then.
    pub fn start_clone(&mut self) -> Result<(), Error> {
        self.command(COM_CLONE, &[], |packets| expect_ok(packets.receive()?.data))?;
        self.state = State::Clone;
        Ok(())
    }

    /// Sends a command of clone mode.
    pub fn send(&mut self, code: u8, payload: &[u8]) -> Result<(), Error> {
        self.check(State::Clone)?;
        self.packets.restart();
        self.packets.transport.stream.socket_mut().waits.timeout = self.read_timeout;
        let sent = self.packets.send(&[&[code], payload]);
        self.broken_if_failed(sent)
    }

    /// Waits for the next packet of clone mode, at most `timeout` between two bytes.
    ///
    /// # Errors
    /// [`Error::Server`] if the server ends clone mode, for example because it shuts down. The
    /// connection cannot be used any more after any error.
    pub fn receive(&mut self, timeout: Duration) -> Result<Received<'_>, Error> {
        self.check(State::Clone)?;
        // It stays so if an error comes.
        self.state = State::Broken;
        self.packets.restart();
        self.packets.max = self.max_packet;
        self.packets.transport.stream.socket_mut().waits.timeout = timeout;
        let payload = self.packets.receive()?;
        match payload.data.first() {
            None => return Err(Error::out_of_order()),
            Some(&ERR) => return Err(parse_err(payload.data)?.into()),
            Some(_) => {}
        }
        self.state = State::Clone;
        Ok(Received { data: payload.data, network_len: payload.network_len })
    }

    /// Makes a session of the connection again, after the answer to EXIT: COM_RESET_CONNECTION.
    pub fn end_clone(&mut self) -> Result<(), Error> {
        self.check(State::Clone)?;
        self.state = State::Session;
        self.command(COM_RESET_CONNECTION, &[], |packets| expect_ok(packets.receive()?.data))
    }

    /// Ends the session in order: COM_QUIT. In clone mode the connection is only closed. Dropping a
    /// connection closes it without a word.
    pub fn close(mut self) {
        let waits = &mut self.packets.transport.stream.socket_mut().waits;
        waits.timeout = CLOSE_TIMEOUT;
        waits.deadline = Some(Instant::now() + CLOSE_TIMEOUT);
        if self.state == State::Session {
            self.packets.restart();
            // The server may be gone.
            let _ = self.packets.send(&[&[COM_QUIT]]);
        }
        if self.state != State::Broken {
            self.packets.transport.stream.close();
        }
    }

    /// Sends a command, and reads its answer.
    fn command<T>(
        &mut self,
        code: u8,
        argument: &[u8],
        answer: impl FnOnce(&mut Packets) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.check(State::Session)?;
        self.packets.restart();
        self.packets.max = MAX_PACKET;
        self.packets.transport.stream.socket_mut().waits.timeout = self.read_timeout;
        let packets = &mut self.packets;
        let result = packets.send(&[&[code], argument]).and_then(|()| answer(packets));
        self.broken_if_failed(result)
    }

    fn check(&self, needed: State) -> Result<(), Error> {
        match self.state {
            state if state == needed => Ok(()),
            State::Broken => Err(Error::gone()),
            _ => {
                let text = "Commands out of sync; you can't run this command now".into();
                Err(Error::BadPacket { number: 2014, text })
            }
        }
    }

    /// After anything but a server's error the two ends may not agree on where they are.
    fn broken_if_failed<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && !matches!(error, Error::Server(_))
        {
            self.state = State::Broken;
            self.packets.transport.stream.socket().shut_down();
        }
        result
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("server_version", &self.server_version)
            .field("encrypted", &self.is_encrypted())
            .field("compressed", &self.is_compressed())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Asks for TLS, and makes the TLS handshake.
fn encrypt(
    mut packets: Packets,
    tls: &ClientTls,
    options: &ConnectOptions,
    flags: Flags,
) -> Result<Packets, Error> {
    packets.send(&[&tls_request(flags)])?;
    let host = match &options.address {
        Address::Tcp { host, .. } => host,
        Address::Socket(_) => "localhost",
    };
    packets.upgrade(|stream, unread| match stream {
        // The server has nothing to say until the client begins.
        Stream::Plain(_) if !unread.is_empty() => {
            Err(Error::handshake("there are bytes in front of TLS"))
        }
        Stream::Plain(socket) => Ok(Stream::Tls(Box::new(tls.start(socket, host)?))),
        Stream::Tls(_) => Ok(stream),
    })
}

/// Answers the greeting, and proves who the user is.
fn log_in(
    packets: &mut Packets,
    options: &ConnectOptions,
    greeting: &Greeting,
    flags: Flags,
    channel: Channel,
) -> Result<(), Error> {
    if options.user.contains('\0') {
        return Err(Error::handshake("a user name has no NUL"));
    }
    let mut authentication =
        Authentication::new(&options.password, channel, &greeting.plugin, greeting.nonce);
    let first = authentication.first()?;
    let plugin = authentication.plugin();
    let answer = response(flags, &options.user, plugin, &first, options.zstd_level);
    packets.send(&[&Zeroizing::new(answer)])?;
    authentication.finish(packets)
}

/// All waits from now on take at most `timeout` together.
fn limit(packets: &mut Packets, timeout: Duration) {
    let waits = &mut packets.transport.stream.socket_mut().waits;
    waits.timeout = timeout;
    waits.deadline = Instant::now().checked_add(timeout);
}
