// SPDX-License-Identifier: GPL-2.0-only

//! The client's end and the server's end of this crate, against each other.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clone_classic::server::{
    Account, Certificate, Command, Diagnostics, DonorStream, Listener, ServerOptions, Session,
};
use clone_classic::{Address, ConnectOptions, Connection, Error, ServerError, SslMode, TlsOptions};
use clone_core::error::NetworkError;
use clone_core::link::DonorLink;

const LIMIT: Duration = Duration::from_secs(10);

struct Server {
    port: u16,
    /// The certificate in PEM.
    pem: tempfile::NamedTempFile,
    thread: JoinHandle<Result<(), Error>>,
}

fn options(certificate: Certificate) -> ServerOptions {
    let account = Account::new("recipient", "secret".to_owned().into()).unwrap();
    let mut options = ServerOptions::new("9.7.4", account, certificate).unwrap();
    options.handshake_timeout = LIMIT;
    options
}

/// A server for one connection, which does what `script` says with the session.
fn server(script: impl FnOnce(Session) + Send + 'static) -> Server {
    let certificate = Certificate::generate(&["localhost".into(), "127.0.0.1".into()]).unwrap();
    let pem = tempfile::NamedTempFile::new().unwrap();
    fs::write(pem.path(), certificate.pem()).unwrap();
    let options = options(certificate);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let incoming = listener.accept(&options.cancel)?;
        incoming.handshake(&options, 77).map(script)
    });
    Server { port, pem, thread }
}

fn client(server: &Server, password: &str, mode: SslMode) -> ConnectOptions {
    ConnectOptions {
        address: Address::Tcp { host: "localhost".into(), port: server.port },
        user: "recipient".into(),
        password: password.to_owned().into(),
        tls: TlsOptions { mode, ca: Some(server.pem.path().into()), ..TlsOptions::default() },
        zstd_level: None,
        connect_timeout: LIMIT,
        read_timeout: LIMIT,
        cancel: Arc::new(|| false),
    }
}

#[test]
fn both_ends_go_from_thread_to_thread() {
    fn is_send<T: Send>() {}
    is_send::<Connection>();
    is_send::<Session>();
    is_send::<ServerOptions>();
}

#[test]
fn a_client_logs_in_and_asks() {
    for mode in [SslMode::Preferred, SslMode::Required, SslMode::VerifyCa, SslMode::VerifyIdentity]
    {
        let server = server(|mut session| {
            assert_eq!(session.id(), 77);
            let query = Command::Query("SELECT 1".into());
            assert_eq!(session.next_command(LIMIT).unwrap(), query);
            let rows = [vec![Some("1".into()), None], vec![Some("x".repeat(70_000)), None]];
            session.answer_rows(&["1", "null"], &rows).unwrap();
            assert_eq!(session.next_command(LIMIT).unwrap(), Command::Kill(5));
            let error =
                ServerError { number: 1094, state: "HY000".into(), text: "Unknown id".into() };
            session.answer_error(&error).unwrap();
            assert_eq!(session.next_command(LIMIT).unwrap(), Command::Quit);
        });
        let mut connection = Connection::connect(&client(&server, "secret", mode)).unwrap();
        assert!(connection.is_encrypted());
        assert_eq!((connection.id(), connection.server_version()), (77, "9.7.4"));
        connection.query("SET NAMES utf8mb4").unwrap();
        let rows = connection.query("SELECT 1").unwrap();
        assert_eq!(rows[0], [Some("1".into()), None]);
        assert_eq!(rows[1][0].as_ref().unwrap().len(), 70_000);
        let error = connection.query("KILL CONNECTION 5").unwrap_err();
        assert_eq!(error.to_string(), "ERROR 1094 (HY000): Unknown id");
        connection.close();
        server.thread.join().unwrap().unwrap();
    }
}

#[test]
fn wrong_users_and_passwords_are_refused() {
    for (user, password, using) in [
        ("recipient", "Secret", "YES"),
        ("recipient", "secret ", "YES"),
        ("recipient", "", "NO"),
        ("root", "secret", "YES"),
    ] {
        let server = server(|_| panic!("logged in"));
        let options = client(&server, password, SslMode::Required);
        let options = ConnectOptions { user: user.into(), ..options };
        let started = Instant::now();
        let error = Connection::connect(&options).unwrap_err();
        assert!(started.elapsed() >= Duration::from_millis(500));
        let text = format!(
            "ERROR 1045 (28000): Access denied for user '{user}'@'127.0.0.1' (using password: \
             {using})"
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(server.thread.join().unwrap().unwrap_err().to_string(), text);
    }
    assert!(Account::new("recipient", String::new().into()).is_none());
    assert!(Account::new("", "x".to_owned().into()).is_none());
}

#[test]
fn a_client_without_tls_is_refused() {
    let server = server(|_| panic!("logged in"));
    let error = Connection::connect(&client(&server, "secret", SslMode::Disabled)).unwrap_err();
    assert_eq!(error.number(), 3159, "{error}");
    assert_eq!(server.thread.join().unwrap().unwrap_err().number(), 3159);
}

#[test]
fn another_certificate_is_noticed() {
    let wanted = server(|_| {});
    let options = client(&wanted, "secret", SslMode::VerifyCa);
    let other = server(|_| panic!("logged in"));
    let address = Address::Tcp { host: "127.0.0.1".into(), port: other.port };
    let error = Connection::connect(&ConnectOptions { address, ..options }).unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    assert!(other.thread.join().unwrap().is_err());
    drop(TcpStream::connect(("127.0.0.1", wanted.port)).unwrap());
    assert!(wanted.thread.join().unwrap().is_err());
}

#[test]
fn names_are_checked() {
    let server = server(|_| panic!("logged in"));
    let options = client(&server, "secret", SslMode::VerifyIdentity);
    let address = Address::Tcp { host: "127.0.0.2".into(), port: server.port };
    let error = Connection::connect(&ConnectOptions { address, ..options }).unwrap_err();
    // The listener listens on 127.0.0.1 only.
    assert_eq!(error.number(), 2003, "{error}");
    let options = client(&server, "secret", SslMode::VerifyIdentity);
    let address = Address::Tcp { host: "ip6-localhost.invalid".into(), port: server.port };
    let error = Connection::connect(&ConnectOptions { address, ..options }).unwrap_err();
    assert_eq!(error.number(), 2005, "{error}");
    drop(TcpStream::connect(("127.0.0.1", server.port)).unwrap());
    assert!(server.thread.join().unwrap().is_err());
}

#[test]
fn clone_mode_and_back() {
    let server = server(|mut session| {
        assert_eq!(session.next_command(LIMIT).unwrap(), Command::Clone);
        session.accept_clone().unwrap();
        let diagnostics = Diagnostics::default();
        let mut stream = DonorStream::new(&mut session, &diagnostics);
        let mut payload = vec![1, 2, 3];
        assert_eq!(stream.receive(&mut payload).unwrap(), 1);
        assert_eq!(payload, b"init");
        stream.send(true, &mut b"\x02desc".to_vec()).unwrap();
        stream.send(false, &mut vec![3; 20 << 20]).unwrap();
        stream.send_both(&mut b"\x02desc".to_vec(), &mut vec![3; 3 << 20]).unwrap();
        stream.send_both(&mut vec![2; 100_000], &mut b"\x03x".to_vec()).unwrap();
        diagnostics.raise(&clone_core::error::Error::Donor { number: 7, message: "a".into() });
        diagnostics.raise(&clone_core::error::Error::Interrupted);
        stream.send_error(false).unwrap();
        assert_eq!(stream.receive(&mut payload).unwrap(), 6);
        assert!(payload.is_empty());
        stream.send(false, &mut [99]).unwrap();
        assert_eq!(session.next_command(LIMIT).unwrap(), Command::Quit);
    });
    let options = client(&server, "secret", SslMode::Required);
    let mut connection = Connection::connect(&options).unwrap();
    connection.start_clone().unwrap();
    connection.send(1, b"init").unwrap();
    assert_eq!(connection.receive(LIMIT).unwrap().data, b"\x02desc");
    let data = connection.receive(LIMIT).unwrap().data;
    assert!(data.len() == 20 << 20 && data.iter().all(|&byte| byte == 3));
    for (len, code) in [(5, 2), ((3 << 20), 3), (100_000, 2), (2, 3)] {
        let data = connection.receive(LIMIT).unwrap().data;
        assert_eq!((data.len(), data[0]), (len, code));
    }
    // 3862, and "7 : a".
    assert_eq!(connection.receive(LIMIT).unwrap().data, b"\x64\x16\x0f\0\x007 : a");
    connection.send(6, &[]).unwrap();
    assert_eq!(connection.receive(LIMIT).unwrap().data, [99]);
    connection.end_clone().unwrap();
    connection.close();
    server.thread.join().unwrap().unwrap();
}

#[test]
fn a_recipient_that_goes_is_a_network_error() {
    let server = server(|mut session| {
        assert_eq!(session.next_command(LIMIT).unwrap(), Command::Clone);
        session.accept_clone().unwrap();
        let diagnostics = Diagnostics::default();
        let mut stream = DonorStream::new(&mut session, &diagnostics);
        let error = stream.receive(&mut Vec::new()).unwrap_err();
        assert_eq!(error, NetworkError::Read.into());
        assert!(stream.send_error(true).is_err() && stream.is_broken());
        assert!(stream.send(false, &mut [99]).is_err());
    });
    let options = client(&server, "secret", SslMode::Required);
    let mut connection = Connection::connect(&options).unwrap();
    connection.start_clone().unwrap();
    drop(connection);
    server.thread.join().unwrap().unwrap();
}

/// The error of a server whose client says `bytes` behind the greeting.
fn error_of_server(bytes: &[u8]) -> Error {
    let server = server(|_| panic!("logged in"));
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    server.thread.join().unwrap().unwrap_err()
}

#[test]
fn strangers_are_refused() {
    // Too long, out of order, too short, and TLS that is none.
    assert_eq!(error_of_server(&[0xff, 0xff, 0xff, 1]).number(), 2020);
    assert_eq!(error_of_server(&[1, 0, 0, 7, 0]).number(), 1156);
    assert_eq!(error_of_server(&[1, 0, 0, 1, 5]).number(), 2012);
    assert_eq!(error_of_server(b"GET / HTTP/1.1\r\n\r\n").number(), 2020);
    let request = [&[32, 0, 0, 1, 0, 0x0a, 0, 0][..], &[0; 28]].concat();
    assert_eq!(error_of_server(&request).number(), 2013);
    let injected = [&request[..], &[1, 0, 0, 2, 3]].concat();
    // Bytes behind the request are read as TLS.
    assert_eq!(error_of_server(&injected).number(), 2026);
}

#[test]
fn a_silent_stranger_and_cancel_end() {
    let certificate = Certificate::generate(&["localhost".into()]).unwrap();
    let mut options = options(certificate);
    options.handshake_timeout = Duration::from_millis(300);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let _stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let started = Instant::now();
    let incoming = listener.accept(&options.cancel).unwrap();
    let error = incoming.handshake(&options, 1).unwrap_err();
    assert!(error.is_timeout() && started.elapsed() < LIMIT / 2, "{error}");
    assert!(error.to_string().ends_with("the client was silent for too long"), "{error}");

    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let waiting = thread::spawn(move || {
        let cancel: Arc<dyn Fn() -> bool + Send + Sync> =
            Arc::new(move || asked.load(Ordering::Relaxed));
        listener.accept(&cancel).map(|_| ())
    });
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
}

#[test]
fn certificates_are_what_openssl_reads() {
    let certificate = Certificate::generate(&["localhost".into(), "::1".into()]).unwrap();
    let pem = tempfile::NamedTempFile::new().unwrap();
    fs::write(pem.path(), certificate.pem()).unwrap();
    let output = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-text", "-in"])
        .arg(pem.path())
        .output();
    let Ok(output) = output else {
        println!("SKIPPED: there is no openssl");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("={}\n", certificate.fingerprint())), "{text}");
    assert!(text.contains("DNS:localhost, IP Address:0:0:0:0:0:0:0:1"), "{text}");
    assert!(text.contains("prime256v1") && !format!("{certificate:?}").contains("key"), "{text}");
}
