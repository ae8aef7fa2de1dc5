// SPDX-License-Identifier: GPL-2.0-only

//! A server that says what no server should say.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clone_classic::{Address, ConnectOptions, Connection, Error, SslMode, TlsOptions};
use clone_io::Packer;
use clone_protocol::Packing;

const LIMIT: Duration = Duration::from_millis(500);

/// CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH, CLIENT_DEPRECATE_EOF.
const CAPABILITIES: u32 = 0x200 | 0x8000 | 0x8_0000 | 0x100_0000;
const SSL: u32 = 0x800;
/// CLIENT_ZSTD_COMPRESSION_ALGORITHM.
const ZSTD: u32 = 0x400_0000;

/// A server that talks to one client. What became of the client is in the result.
fn client_of(
    mode: SslMode,
    server: impl FnOnce(TcpStream) + Send + 'static,
) -> (Result<Connection, Error>, JoinHandle<()>) {
    cancelled_client_of(mode, Arc::new(|| false), server)
}

/// As [`client_of`], with a client that asks `cancel`.
fn cancelled_client_of(
    mode: SslMode,
    cancel: Arc<dyn Fn() -> bool + Send + Sync>,
    server: impl FnOnce(TcpStream) + Send + 'static,
) -> (Result<Connection, Error>, JoinHandle<()>) {
    client_with(ConnectOptions { cancel, ..client_options(mode) }, server)
}

/// As [`client_of`], with a client of these options. The port is the server's.
fn client_with(
    options: ConnectOptions,
    server: impl FnOnce(TcpStream) + Send + 'static,
) -> (Result<Connection, Error>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || server(listener.accept().unwrap().0));
    let address = Address::Tcp { host: "127.0.0.1".into(), port };
    (Connection::connect(&ConnectOptions { address, ..options }), server)
}

fn client_options(mode: SslMode) -> ConnectOptions {
    ConnectOptions {
        address: Address::Tcp { host: "127.0.0.1".into(), port: 0 },
        user: "user".into(),
        password: "secret".to_owned().into(),
        tls: TlsOptions { mode, ..TlsOptions::default() },
        zstd_level: None,
        connect_timeout: LIMIT,
        read_timeout: LIMIT,
        cancel: Arc::new(|| false),
    }
}

/// The error of a client whose server sends `bytes` first, and then waits for the client to go.
fn error_of(mode: SslMode, bytes: Vec<u8>) -> Error {
    let (result, server) = client_of(mode, move |mut stream| {
        stream.write_all(&bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = result.unwrap_err();
    server.join().unwrap();
    error
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    packet.push(sequence);
    packet.extend_from_slice(payload);
    packet
}

fn greeting(capabilities: u32, plugin: &str) -> Vec<u8> {
    let mut payload = b"\x0a9.9.9\0\x07\0\0\0abcdefgh\0".to_vec();
    payload.extend_from_slice(&capabilities.to_le_bytes()[..2]);
    payload.extend_from_slice(&[255, 2, 0]);
    payload.extend_from_slice(&capabilities.to_le_bytes()[2..]);
    payload.push(21);
    payload.extend_from_slice(&[0; 10]);
    payload.extend_from_slice(b"ijklmnopqrst\0");
    payload.extend_from_slice(plugin.as_bytes());
    payload.push(0);
    payload
}

fn read_packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
    stream.read_exact(&mut payload).ok()?;
    Some(payload)
}

/// Lets the client in, and then does what `script` says.
fn session(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> (Connection, JoinHandle<()>) {
    session_of(client_options(SslMode::Disabled), CAPABILITIES, script)
}

/// As [`session`], with a client of these options and a server of these capabilities.
fn session_of(
    options: ConnectOptions,
    capabilities: u32,
    script: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (Connection, JoinHandle<()>) {
    let compression = options.zstd_level.filter(|_| capabilities & ZSTD != 0);
    let (result, server) = client_with(options, move |mut stream| {
        stream.write_all(&packet(0, &greeting(capabilities, "mysql_native_password"))).unwrap();
        let answer = read_packet(&mut stream).unwrap();
        assert!(answer.windows(5).any(|part| part == b"user\0"));
        assert_eq!(answer[3] & 4 != 0, compression.is_some(), "the flag");
        assert!(compression.is_none_or(|level| answer.last() == Some(&level)), "{answer:?}");
        stream.write_all(&packet(2, &[0, 0, 0, 2, 0, 0, 0])).unwrap();
        script(&mut stream);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (result.unwrap(), server)
}

#[test]
fn first_packets_that_are_refused() {
    let disabled = |bytes| error_of(SslMode::Disabled, bytes);
    assert_eq!(disabled(packet(0, &[])).number(), 2012);
    assert_eq!(disabled(packet(0, &[9, b'4', 0])).number(), 2007);
    assert_eq!(disabled(packet(1, &greeting(CAPABILITIES, "x"))).number(), 1156);
    assert_eq!(disabled(packet(0, &greeting(0x200, "x"))).number(), 2012);
    let whole = greeting(CAPABILITIES, "x");
    for len in 1..whole.len() - 2 {
        assert_eq!(disabled(packet(0, &whole[..len])).number(), 2012, "{len}");
    }
    // A length beyond what a handshake may have, and one beyond all.
    assert_eq!(disabled(vec![0, 0, 2, 0]).number(), 2020);
    assert_eq!(disabled(vec![0xff, 0xff, 0xff, 0]).number(), 2020);
    let error = disabled(packet(0, b"\xff\x10\x04#08004Too many connections"));
    assert_eq!(error.to_string(), "ERROR 1040 (08004): Too many connections");
    let error = disabled(packet(0, b"\xff\x6a\x04Host is not allowed"));
    assert_eq!(error.to_string(), "ERROR 1130 (HY000): Host is not allowed");
    assert_eq!(disabled(packet(0, b"\xff\x6a")).number(), 2027);
    let required = error_of(SslMode::Required, packet(0, &greeting(CAPABILITIES, "x")));
    assert!(required.to_string().contains("SSL is required"), "{required}");
}

#[test]
fn a_silent_or_slow_server_is_an_error() {
    for part in [&[][..], &[10], &packet(0, &greeting(CAPABILITIES, "x"))[..20]] {
        let started = Instant::now();
        let error = error_of(SslMode::Disabled, part.to_vec());
        assert!(error.is_timeout() && error.number() == 2013, "{error}");
        assert!(started.elapsed() < 4 * LIMIT);
    }
    // A byte now and then does not prolong the handshake.
    let started = Instant::now();
    let (result, server) = client_of(SslMode::Disabled, |mut stream| {
        for byte in packet(0, &greeting(CAPABILITIES, &"x".repeat(1000))) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(LIMIT / 10);
        }
    });
    let error = result.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(started.elapsed() < 4 * LIMIT);
    server.join().unwrap();
    let (result, _) = client_of(SslMode::Disabled, drop);
    let error = result.unwrap_err();
    assert!(error.number() == 2013 && !error.is_timeout(), "{error}");
    assert!(error.to_string().contains("at 'reading initial communication packet'"), "{error}");
}

/// The error of a client whose server answers each packet of the authentication with `answer`, and
/// what the client said.
fn after_login(answer: &[u8]) -> (Error, Vec<Vec<u8>>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let answer = answer.to_vec();
    let (result, server) = client_of(SslMode::Disabled, move |mut stream| {
        stream.write_all(&packet(0, &greeting(CAPABILITIES, "caching_sha2_password"))).unwrap();
        let mut sequence = 2;
        while let Some(said) = read_packet(&mut stream) {
            sender.send(said).unwrap();
            if stream.write_all(&packet(sequence, &answer)).is_err() {
                return;
            }
            sequence += 2;
        }
    });
    let error = result.unwrap_err();
    server.join().unwrap();
    (error, receiver.iter().collect())
}

fn switch(plugin: &str, nonce: &str) -> Vec<u8> {
    [&[0xfe], plugin.as_bytes(), &[0], nonce.as_bytes()].concat()
}

#[test]
fn authentication_answers_that_are_refused() {
    let nonce = "abcdefghijklmnopqrst\0";
    let (error, said) = after_login(&switch("mysql_native_password", nonce));
    assert_eq!(error.number(), 2012, "{error}");
    assert_eq!(said.len(), 3);
    for plugin in ["mysql_old_password", "authentication_ldap_sasl_client", "dialog"] {
        let (error, _) = after_login(&switch(plugin, nonce));
        assert_eq!(error.number(), 2059, "{error}");
        assert!(error.to_string().contains(plugin), "{error}");
    }
    assert_eq!(after_login(&[0xfe]).0.number(), 2059);
    assert_eq!(after_login(&[0xfe, b'x']).0.number(), 2027);
    assert_eq!(after_login(&switch("mysql_native_password", "short")).0.number(), 2012);
    assert_eq!(after_login(&switch("sha256_password", "")).0.number(), 2012);
    assert_eq!(after_login(&[]).0.number(), 2027);
    assert_eq!(after_login(&[5]).0.number(), 2027);
    // "The scramble was right", without OK: the client waits and gives up.
    let (error, said) = after_login(&[1, 3]);
    assert!(error.is_timeout(), "{error}");
    assert_eq!(said.len(), 1);
}

#[test]
fn the_password_does_not_cross_in_the_clear() {
    let (error, said) = after_login(&switch("mysql_clear_password", ""));
    assert_eq!((error.number(), said.len()), (2061, 1), "{error}");
    // "Send the password" without TLS: the client asks for a key, and what comes is none.
    for answer in [
        &[1, 4][..],
        &[1],
        b"\x01-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n",
        &switch("sha256_password", "abcdefghijklmnopqrst\0"),
    ] {
        let (error, said) = after_login(answer);
        assert!(matches!(error, Error::BadPacket { .. }), "{error}");
        assert!(said.iter().all(|said| !said.windows(6).any(|part| part == b"secret")));
    }
}

#[test]
fn bytes_in_front_of_tls_are_refused() {
    let (result, server) = client_of(SslMode::Required, |mut stream| {
        let first = packet(0, &greeting(CAPABILITIES | SSL, "caching_sha2_password"));
        stream.write_all(&[first, packet(1, b"\0injected")].concat()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = result.unwrap_err();
    assert!(error.to_string().contains("in front of TLS"), "{error}");
    server.join().unwrap();
    // Something that is not TLS.
    let (result, server) = client_of(SslMode::Preferred, |mut stream| {
        let first = packet(0, &greeting(CAPABILITIES | SSL, "caching_sha2_password"));
        stream.write_all(&first).unwrap();
        read_packet(&mut stream).unwrap();
        stream.write_all(&[b'x'; 100]).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = result.unwrap_err();
    assert_eq!(error.number(), 2026, "{error}");
    server.join().unwrap();
}

#[test]
fn answers_to_queries_that_are_refused() {
    let answers: &[(&[&[u8]], u16)] = &[
        (&[b"\xfb/etc/passwd"], 2027),
        (&[&[0xfc, 0x01, 0x20]], 2027),
        (&[&[0xfe, 1, 1, 1, 1, 1, 1, 1, 1]], 2027),
        (&[&[1], b"column", &[5, b'x']], 2027),
        (&[&[1], b"column", &[1, b'x', b'y']], 2027),
        (&[&[1], b"column", &[]], 2027),
        (&[&[1], b"column", &[1, b'x'], b"\xff\x15\x04#HY000stop"], 1045),
        (&[], 2013),
    ];
    for (packets, number) in answers {
        let (mut connection, server) = session(move |stream| {
            assert_eq!(read_packet(stream).unwrap(), b"\x03SELECT 1");
            for (index, payload) in packets.iter().enumerate() {
                stream.write_all(&packet(index as u8 + 1, payload)).unwrap();
            }
        });
        let error = connection.query("SELECT 1").unwrap_err();
        assert_eq!(error.number(), *number, "{packets:?}: {error}");
        drop(connection);
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_does_not_end_an_answer() {
    let (mut connection, server) = session(|stream| {
        read_packet(stream).unwrap();
        stream.write_all(&[packet(1, &[1]), packet(2, b"column")].concat()).unwrap();
        let mut sequence = 3_u8;
        let row = [&[0xfd, 0, 0, 15][..], &vec![7; 15 << 16]].concat();
        while stream.write_all(&packet(sequence, &row)).is_ok() {
            sequence = sequence.wrapping_add(1);
        }
    });
    let error = connection.query("SELECT 1").unwrap_err();
    assert!(error.to_string().contains("larger than this program accepts"), "{error}");
    drop(connection);
    server.join().unwrap();
}

#[test]
fn packets_of_clone_mode() {
    let data: Vec<u8> = (0..0xff_ffff_u32 + 10).map(|i| (i * 31 % 251) as u8).collect();
    let sent = data.clone();
    let (mut connection, server) = session(move |stream| {
        assert_eq!(read_packet(stream).unwrap(), [0x20]);
        stream.write_all(&packet(1, &[0, 0, 0, 2, 0, 0, 0])).unwrap();
        assert_eq!(read_packet(stream).unwrap(), b"\x01init");
        // One after the other, each with the sequence number 0.
        stream.write_all(&[packet(0, b"\x02desc"), packet(0, &[3; 100_000])].concat()).unwrap();
        let long = [packet(0, &sent[..0xff_ffff]), packet(1, &sent[0xff_ffff..])].concat();
        stream.write_all(&long).unwrap();
        stream.write_all(&packet(0, &[])).unwrap();
    });
    connection.start_clone().unwrap();
    connection.send(1, b"init").unwrap();
    assert_eq!(connection.receive(LIMIT).unwrap().data, b"\x02desc");
    let received = connection.receive(LIMIT).unwrap();
    assert_eq!((received.data.len(), received.network_len), (100_000, 100_004));
    // What follows the code is aligned for direct I/O.
    assert_eq!(received.data[1..].as_ptr().addr() % 4096, 0);
    let received = connection.receive(LIMIT).unwrap();
    assert!(received.data == data);
    assert_eq!(received.network_len, data.len() as u64 + 8);
    assert_eq!(connection.receive(LIMIT).unwrap_err().number(), 1156);
    assert_eq!(connection.receive(LIMIT).unwrap_err().number(), 2006);
    drop(connection);
    server.join().unwrap();
}

#[test]
fn packets_of_clone_mode_that_are_refused() {
    let shutdown = b"\xff\x1d\x04#08S01Server shutdown in progress";
    let cases: [(Vec<u8>, u16); 6] = [
        (packet(1, b"\x02desc"), 1156),
        (vec![0xff, 0xff, 0xff, 0], 2020),
        (vec![0x01, 0x10, 0x00, 0], 2020),
        // The server shuts down, and does not wait for its turn.
        (packet(7, shutdown), 1053),
        (packet(0, shutdown), 1053),
        (packet(0, b"\x03cut")[..6].to_vec(), 2013),
    ];
    for (bytes, number) in cases {
        let what = format!("{bytes:?}");
        let (mut connection, server) = session(move |stream| {
            read_packet(stream).unwrap();
            stream.write_all(&packet(1, &[0, 0, 0, 2, 0, 0, 0])).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        connection.set_max_packet(4096);
        fails_in_clone_mode(connection, server, number, &what);
    }
}

/// Asserts that the first packet of clone mode is refused with this error.
fn fails_in_clone_mode(
    mut connection: Connection,
    server: JoinHandle<()>,
    number: u16,
    what: &str,
) {
    connection.start_clone().unwrap();
    let error = connection.receive(LIMIT).unwrap_err();
    assert_eq!(error.number(), number, "{what}: {error}");
    drop(connection);
    server.join().unwrap();
}

fn compressed_session(
    script: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (Connection, JoinHandle<()>) {
    let options = ConnectOptions { zstd_level: Some(7), ..client_options(SslMode::Disabled) };
    session_of(options, CAPABILITIES | ZSTD, script)
}

/// A frame of the classic protocol's compression.
fn frame(sequence: u8, unpacked: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = packet(sequence, &[]);
    frame[..3].copy_from_slice(&(bytes.len() as u32).to_le_bytes()[..3]);
    frame.extend_from_slice(&(unpacked as u32).to_le_bytes()[..3]);
    frame.extend_from_slice(bytes);
    frame
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    Packer::new(Packing::Zstd(1)).unwrap().pack(bytes, 0, 0).unwrap().to_vec()
}

/// Reads a frame that is not packed.
fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 7];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[2..], [0; 5], "a short frame, the first of its command, not packed");
    let mut bytes = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn compressed_frames() {
    let row = [&[0xfd, 0x10, 0x27, 0][..], &[b'x'; 10_000]].concat();
    let (mut connection, server) = compressed_session(move |stream| {
        assert_eq!(read_frame(stream), packet(0, b"\x03SELECT 1"));
        // Packets are cut anywhere. A server counts them anew in each frame.
        let answer = [
            packet(1, &[1]),
            packet(2, b"column"),
            packet(1, &row),
            packet(2, &[0xfe, 0, 0, 2, 0, 0, 0]),
        ]
        .concat();
        let (first, second) = answer.split_at(20);
        stream.write_all(&frame(1, 0, first)).unwrap();
        stream.write_all(&frame(2, second.len(), &zstd(second))).unwrap();

        assert_eq!(read_frame(stream), packet(0, &[0x20]));
        stream.write_all(&frame(1, 0, &packet(1, &[0, 0, 0, 2, 0, 0, 0]))).unwrap();
        let data = packet(0, &[7; 50_000]);
        stream.write_all(&frame(0, data.len(), &zstd(&data))).unwrap();
    });
    assert!(connection.is_compressed());
    let rows = connection.query("SELECT 1").unwrap();
    assert_eq!(rows[0][0].as_ref().unwrap().len(), 10_000);
    connection.start_clone().unwrap();
    let received = connection.receive(LIMIT).unwrap();
    assert!(received.data == [7; 50_000]);
    assert!((10..1000).contains(&received.network_len), "{}", received.network_len);
    drop(connection);
    server.join().unwrap();
}

#[test]
fn compressed_frames_that_are_refused() {
    let data = packet(0, &[7; 50_000]);
    let packed = zstd(&data);
    let first = frame(0, 0, &data[..20]);
    let err = packet(9, b"\xff\x15\x04#HY000stop");
    for (what, bytes, number) in [
        ("no bytes", frame(0, 0, &[]), 2027),
        ("no bytes, packed", frame(0, 50_004, &[]), 2027),
        ("not packed", frame(0, data.len(), &data), 1157),
        ("shorter than it says", frame(0, data.len() + 1, &packed), 1157),
        ("longer than it says", frame(0, data.len() - 1, &packed), 1157),
        ("cut off", frame(0, data.len(), &packed[..packed.len() - 1]), 1157),
        ("as long as can be said", frame(0, 0xff_ffff, &packed), 1157),
        ("out of order", frame(1, data.len(), &packed), 1156),
        ("the second frame out of order", [first, frame(2, 0, &data[20..])].concat(), 1156),
        ("an error out of order", frame(5, 0, &err), 1045),
        ("the connection ends in a frame", frame(0, data.len(), &packed)[..20].to_vec(), 2013),
        ("a payload that is too long", frame(0, 0, &packet(0, &[7; 5000])), 2020),
    ] {
        let (mut connection, server) = compressed_session(move |stream| {
            read_frame(stream);
            stream.write_all(&frame(1, 0, &packet(1, &[0, 0, 0, 2, 0, 0, 0]))).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        if number == 2020 {
            connection.set_max_packet(4096);
        }
        fails_in_clone_mode(connection, server, number, what);
    }
}

#[test]
fn a_server_without_zstandard_does_not_compress() {
    let options = ConnectOptions { zstd_level: Some(7), ..client_options(SslMode::Disabled) };
    let (connection, server) = session_of(options, CAPABILITIES, |_| {});
    assert!(!connection.is_compressed());
    drop(connection);
    server.join().unwrap();
}

#[test]
fn cancel_ends_each_wait() {
    let after = |time: Duration| -> Arc<dyn Fn() -> bool + Send + Sync> {
        let started = Instant::now();
        Arc::new(move || started.elapsed() > time)
    };
    let soon = Duration::from_millis(200);
    // A server that says nothing, and one that always has a byte more.
    for pause in [2 * LIMIT, LIMIT / 50] {
        let started = Instant::now();
        let (result, server) =
            cancelled_client_of(SslMode::Disabled, after(soon), move |mut stream| {
                for byte in packet(0, &greeting(CAPABILITIES, &"x".repeat(1000))) {
                    thread::sleep(pause);
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                }
            });
        assert!(matches!(result.unwrap_err(), Error::Cancelled));
        assert!(started.elapsed() < soon + Duration::from_millis(250));
        server.join().unwrap();
    }
    // A server that takes nothing.
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let cancel = Arc::new(move || asked.load(Ordering::Relaxed));
    let (result, server) = cancelled_client_of(SslMode::Disabled, cancel, |mut stream| {
        stream.write_all(&packet(0, &greeting(CAPABILITIES, "mysql_native_password"))).unwrap();
        read_packet(&mut stream).unwrap();
        stream.write_all(&packet(2, &[0, 0, 0, 2, 0, 0, 0])).unwrap();
        thread::sleep(4 * LIMIT);
    });
    let mut connection = result.unwrap();
    let started = Instant::now();
    thread::spawn(move || {
        thread::sleep(soon);
        stop.store(true, Ordering::Relaxed);
    });
    let error = connection.query(&"x".repeat(64 << 20)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(started.elapsed() < LIMIT * 2);
    server.join().unwrap();
}
