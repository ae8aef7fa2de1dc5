// SPDX-License-Identifier: GPL-2.0-only

//! From a connection to a session: greeting, TLS, login.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use graviola::hashing::{Hash, Sha256};
use mysql_common::constants::{CapabilityFlags as Flags, StatusFlags};
use mysql_common::packets::HandshakePacket;
use mysql_common::proto::MySerialize;
use rustls::ServerConnection;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::login::{Response, has_data, parse_flags, password};
use super::options::{Account, ServerOptions};
use super::session::{Session, ok_packet, send_error};
use crate::answer::{MORE_DATA, SWITCH_OR_EOF};
use crate::error::{Error, ServerError};
use crate::greeting::NONCE;
use crate::packets::{Packets, Payload};
use crate::stream::{Stream, TlsStream};

/// The longest packet before the login, bytes. A client's attributes have at most 64 KiB.
const MAX_HANDSHAKE: usize = 72 << 10;

/// How long a failed login takes at least. It makes guesses slow.
const FAILED_LOGIN: Duration = Duration::from_millis(500);

const PLUGIN: &str = "caching_sha2_password";
/// `caching_sha2_password`: the server needs the password.
const FULL: u8 = 4;

/// utf8mb4_general_ci.
const COLLATION: u8 = 45;

const OFFERED: Flags = Flags::CLIENT_PROTOCOL_41
    .union(Flags::CLIENT_SECURE_CONNECTION)
    .union(Flags::CLIENT_PLUGIN_AUTH)
    .union(Flags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Flags::CLIENT_LONG_PASSWORD)
    .union(Flags::CLIENT_LONG_FLAG)
    .union(Flags::CLIENT_CONNECT_WITH_DB)
    .union(Flags::CLIENT_TRANSACTIONS)
    .union(Flags::CLIENT_CONNECT_ATTRS)
    .union(Flags::CLIENT_DEPRECATE_EOF)
    .union(Flags::CLIENT_SSL);

/// Greets the peer, starts TLS, and lets the peer log in.
pub(super) fn handshake(
    stream: Stream,
    options: &ServerOptions,
    id: u32,
    peer: SocketAddr,
) -> Result<Session, Error> {
    let nonce = nonce()?;
    let mut packets = Packets::new(stream, MAX_HANDSHAKE);
    packets.send(&[&greeting(options, id, &nonce)])?;
    let flags = parse_flags(receive(&mut packets)?.data)?;
    if !flags.contains(Flags::CLIENT_SSL) {
        let text = "Connections using insecure transport are prohibited while \
                    --require_secure_transport=ON.";
        return Err(refuse(&mut packets, 3159, "HY000", text.into()));
    }
    let mut packets = packets.upgrade(|stream, unread| match stream {
        Stream::Plain(socket) => {
            let connection = ServerConnection::new(Arc::clone(&options.config))
                .map_err(|error| Error::Tls(error.to_string()))?;
            Ok(Stream::Tls(Box::new(TlsStream::start(socket, connection.into(), unread)?)))
        }
        Stream::Tls(_) => Ok(stream),
    })?;
    let response = Response::parse(receive(&mut packets)?.data)?;
    let started = Instant::now();
    let password = ask_password(&mut packets, &response, &nonce)?;
    if !is_account(&options.account, &response.user, &password) {
        thread::sleep(FAILED_LOGIN.saturating_sub(started.elapsed()));
        let using = if password.is_empty() { "NO" } else { "YES" };
        let (user, host) = (&response.user, peer.ip().to_canonical());
        let text = format!("Access denied for user '{user}'@'{host}' (using password: {using})");
        return Err(refuse(&mut packets, 1045, "28000", text));
    }
    packets.send(&[&ok_packet()])?;
    Ok(Session::new(packets, response.flags & OFFERED, options.write_timeout, id, peer))
}

/// A packet of the handshake, in order.
fn receive(packets: &mut Packets) -> Result<Payload<'_>, Error> {
    packets.receive()
}

/// Gets the password: by another plugin's name first, if the client began with another one.
fn ask_password(
    packets: &mut Packets,
    response: &Response,
    nonce: &[u8; NONCE],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut has_password = response.has_data;
    if response.plugin.as_deref() != Some(PLUGIN) {
        packets.send(&[&[SWITCH_OR_EOF], PLUGIN.as_bytes(), &[0], nonce, &[0]])?;
        has_password = has_data(receive(packets)?.data);
    }
    if !has_password {
        return Ok(Zeroizing::new(Vec::new()));
    }
    packets.send(&[&[MORE_DATA, FULL]])?;
    let packet = receive(packets)?.data;
    let password = password(packet);
    packet.zeroize();
    Ok(password)
}

/// Whether this is the account. Takes the same time for a wrong user as for a wrong password, and
/// for all passwords of the same length.
fn is_account(account: &Account, user: &str, password: &[u8]) -> bool {
    let equal =
        |one: &[u8], other: &[u8]| Sha256::hash(one).as_ref().ct_eq(Sha256::hash(other).as_ref());
    let is_user = equal(user.as_bytes(), account.user.as_bytes());
    let is_password = equal(password, account.password.as_bytes());
    (is_user & is_password).into()
}

/// Tells the peer, and gives the same error.
fn refuse(packets: &mut Packets, number: u16, state: &str, text: String) -> Error {
    let error = ServerError { number, state: state.into(), text };
    // The peer may be gone.
    if send_error(packets, &error).is_ok() {
        packets.transport.stream.close();
    }
    Error::Server(error)
}

/// Random bytes, as MySQL makes them: 7 bits each, neither NUL nor `$`.
fn nonce() -> Result<[u8; NONCE], Error> {
    let mut nonce = [0; NONCE];
    graviola::random::fill(&mut nonce)
        .map_err(|error| Error::Tls(format!("no random numbers: {error:?}")))?;
    for byte in &mut nonce {
        *byte &= 0x7f;
        if matches!(*byte, 0 | b'$') {
            *byte += 1;
        }
    }
    Ok(nonce)
}

fn greeting(options: &ServerOptions, id: u32, nonce: &[u8; NONCE]) -> Vec<u8> {
    let (first, second) = nonce.split_at(8);
    let greeting = HandshakePacket::new(
        10,
        options.version.replace('\0', "").into_bytes(),
        id,
        first.try_into().unwrap_or_default(),
        Some([second, &[0]].concat()),
        OFFERED,
        COLLATION,
        StatusFlags::SERVER_STATUS_AUTOCOMMIT,
        Some(PLUGIN.as_bytes()),
    );
    let mut packet = Vec::new();
    greeting.serialize(&mut packet);
    packet
}
