// SPDX-License-Identifier: GPL-2.0-only

//! clone-classic as a client of real servers: each authentication, TLS, addresses, COM_CLONE.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clone_classic::{Address, ConnectOptions, Connection, Error, SslMode, TlsOptions};
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, Plugin, check};

/// COM_CLONE's command EXIT, and the answer COMPLETE.
const EXIT: u8 = 6;
const COMPLETE: u8 = 99;

/// Has mysql_native_password, and can do without TLS. Tests of this release have its number in
/// their name: `make` leaves them out where there are no old servers.
const OLD: Option<&str> = Some("8.0.19");

const LIMIT: Duration = Duration::from_secs(20);

fn options(address: Address, user: &str, password: &str, mode: SslMode) -> ConnectOptions {
    ConnectOptions {
        address,
        user: user.into(),
        password: password.to_owned().into(),
        tls: TlsOptions { mode, ..TlsOptions::default() },
        zstd_level: None,
        connect_timeout: LIMIT,
        read_timeout: LIMIT,
        cancel: Arc::new(|| false),
    }
}

fn tcp(server: &Mysqld) -> Address {
    Address::Tcp { host: "127.0.0.1".into(), port: server.port() }
}

fn file(server: &Mysqld, name: &str) -> PathBuf {
    server.data_dir().join(name)
}

/// Who the server says is connected, and with which cipher.
fn who(connection: &mut Connection) -> Result<(String, String)> {
    let user = connection.query("SELECT USER(), CONNECTION_ID(), NULL")?;
    let [user, id, null] = &user[0][..] else { panic!("{user:?}") };
    assert_eq!((id.as_deref(), null), (Some(&*connection.id().to_string()), &None));
    let cipher = connection.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'")?;
    Ok((user.clone().context("a user")?, cipher[0][1].clone().context("a cipher")?))
}

/// The server compresses what it sends: answers to queries, long ones too, and clone mode. The
/// client then reads `network_len` bytes for a packet.
fn compressed(server: &Mysqld) -> Result<()> {
    let mut root = server.session()?;
    root.run("CREATE USER packed IDENTIFIED BY 'secret'")?;
    root.run("GRANT BACKUP_ADMIN ON *.* TO packed")?;
    for mode in [SslMode::Disabled, SslMode::Required] {
        let plain = options(Address::Socket(server.socket()), "packed", "secret", mode);
        let mut connection = Connection::connect(&ConnectOptions { zstd_level: Some(7), ..plain })?;
        assert!(connection.is_compressed());
        let status = connection.query("SHOW SESSION STATUS LIKE 'Compression%'")?;
        let status: Vec<_> = status.iter().flatten().flatten().map(String::as_str).collect();
        let expected =
            ["Compression", "ON", "Compression_algorithm", "zstd", "Compression_level", "7"];
        assert_eq!(status, expected);
        // Many frames, a row of more than one packet's length, and many rows.
        let long = connection.query("SELECT REPEAT('long ', 3500000)")?;
        assert_eq!(long[0][0].as_ref().map(String::len), Some(17_500_000));
        let many = connection.query(
            "WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 1000) \
             SELECT id, SHA2(id, 512) FROM n",
        )?;
        assert_eq!(many.len(), 1000);
        // More than a frame can have, sent and received.
        let sent = "x".repeat(20 << 20);
        let length = connection.query(&format!("SELECT LENGTH('{sent}')"))?;
        assert_eq!(length[0][0].as_deref(), Some("20971520"));
        assert!(matches!(connection.query("SELECT"), Err(Error::Server(_))));
        connection.start_clone()?;
        connection.send(EXIT, &[])?;
        // The packet with its header is too short to be packed, and the frame has a header.
        let packet = connection.receive(LIMIT)?;
        assert_eq!((&*packet.data, packet.network_len), (&[COMPLETE][..], 12));
        connection.end_clone()?;
        assert_eq!(connection.query("SELECT 1")?[0][0].as_deref(), Some("1"));
        connection.close();
    }
    Ok(())
}

/// Starts a server of an old release, or the server to test with.
fn start(release: Option<&str>, options: &[&str]) -> Result<Mysqld> {
    let server = release.map_or_else(Server::locate, Server::release)?;
    let mut builder = Mysqld::builder().server(server).plugin(Plugin::Stock);
    for option in options {
        builder = builder.option(*option);
    }
    builder.start()
}

/// Every account logs in, with TLS and without, over TCP and a Unix socket.
fn every_account(server: &Mysqld, accounts: &[(&str, &str)]) -> Result<()> {
    let mut root = server.session()?;
    for (user, definition) in accounts {
        root.run(format!("CREATE USER {user} IDENTIFIED WITH {definition}"))?;
    }
    let unix = Address::Socket(server.socket());
    for (user, definition) in accounts {
        let password = if definition.contains("'secret'") { "secret" } else { "" };
        for address in [tcp(server), unix.clone()] {
            for mode in [SslMode::Disabled, SslMode::Preferred, SslMode::Required] {
                // The first login of each is the full authentication, the second one the fast one.
                root.run("FLUSH PRIVILEGES")?;
                for _ in 0..2 {
                    let options = options(address.clone(), user, password, mode);
                    let what = || format!("{user} {address} {mode:?}");
                    let mut connection = Connection::connect(&options).with_context(what)?;
                    let encrypted =
                        mode == SslMode::Required || mode == SslMode::Preferred && address != unix;
                    assert_eq!(connection.is_encrypted(), encrypted, "{}", what());
                    let (name, cipher) = who(&mut connection)?;
                    assert!(name.starts_with(&format!("{user}@")), "{name}");
                    assert_eq!(!cipher.is_empty(), encrypted, "{}", what());
                    assert_eq!(connection.server_version(), {
                        let version: String = root.one("SELECT VERSION()")?;
                        version
                    });
                    connection.close();
                }
            }
            for mode in [SslMode::Disabled, SslMode::Required] {
                let error = Connection::connect(&options(address.clone(), user, "wrong", mode));
                let error = error.unwrap_err();
                assert!(
                    matches!(&error, Error::Server(error) if error.number == 1045
                        && error.state == "28000"
                        && error.text.starts_with(&format!("Access denied for user '{user}'@"))
                        && error.text.ends_with("(using password: YES)")),
                    "{user} {mode:?}: {error}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn accounts() {
    check(|| {
        let server = start(None, &[])?;
        every_account(
            &server,
            &[
                ("sha2", "caching_sha2_password BY 'secret'"),
                ("sha2_empty", "caching_sha2_password BY ''"),
                ("sha256", "sha256_password BY 'secret'"),
                ("sha256_empty", "sha256_password BY ''"),
            ],
        )
    });
}

#[test]
fn accounts_of_8_0_19() {
    check(|| {
        let server = start(OLD, &[])?;
        every_account(
            &server,
            &[
                ("sha2", "caching_sha2_password BY 'secret'"),
                ("sha2_empty", "caching_sha2_password BY ''"),
                ("sha256", "sha256_password BY 'secret'"),
                ("sha256_empty", "sha256_password BY ''"),
                ("native", "mysql_native_password BY 'secret'"),
                ("native_empty", "mysql_native_password BY ''"),
            ],
        )
    });
}

#[test]
fn another_first_plugin_of_8_0_19() {
    check(|| {
        let server = start(OLD, &["--default-authentication-plugin=mysql_native_password"])?;
        every_account(
            &server,
            &[
                ("native", "mysql_native_password BY 'secret'"),
                ("sha2", "caching_sha2_password BY 'secret'"),
                ("sha256", "sha256_password BY 'secret'"),
            ],
        )
    });
}

#[test]
fn compression() {
    check(|| compressed(&start(None, &[])?));
}

#[test]
fn compression_of_8_0_19() {
    check(|| compressed(&start(OLD, &[])?));
}

/// What a server's certificate must be, with the files that mysqld makes.
fn certificates(release: Option<&str>) -> Result<()> {
    let server = start(release, &[])?;
    server.session()?.run_all([
        "CREATE USER tls IDENTIFIED BY 'secret' REQUIRE X509",
        "CREATE USER ssl_only IDENTIFIED BY 'secret' REQUIRE SSL",
    ])?;
    let connect = |user, host: &str, tls: TlsOptions| {
        let address = Address::Tcp { host: host.into(), port: server.port() };
        let options = ConnectOptions { tls, ..options(address, user, "secret", SslMode::Disabled) };
        Connection::connect(&options).map(|connection| connection.is_encrypted())
    };
    let tls =
        |mode| TlsOptions { mode, ca: Some(file(&server, "ca.pem")), ..TlsOptions::default() };

    assert!(connect("ssl_only", "127.0.0.1", tls(SslMode::VerifyCa))?);
    let error = connect("ssl_only", "127.0.0.1", tls(SslMode::VerifyIdentity)).unwrap_err();
    assert_eq!(error.number(), 2026, "{error}");
    assert!(error.to_string().contains("does not name '127.0.0.1'"), "{error}");
    let no_ca = TlsOptions { ca: None, ..tls(SslMode::VerifyCa) };
    let error = connect("ssl_only", "127.0.0.1", no_ca).unwrap_err();
    assert!(error.to_string().contains("CA certificate is required"), "{error}");
    // The certificate of an authority that did not sign it.
    let other = server.scratch("other.pem");
    let openssl = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other"])
        .arg("-keyout")
        .arg(server.scratch("other-key.pem"))
        .arg("-out")
        .arg(&other)
        .output()?;
    ensure!(openssl.status.success(), "{openssl:?}");
    let wrong = TlsOptions { ca: Some(other), ..tls(SslMode::VerifyCa) };
    let error = connect("ssl_only", "127.0.0.1", wrong).unwrap_err();
    assert_eq!(error.number(), 2026, "{error}");

    let error = connect("tls", "127.0.0.1", tls(SslMode::Required)).unwrap_err();
    assert!(matches!(&error, Error::Server(error) if error.number == 1045), "{error}");
    let with_cert = TlsOptions {
        cert: Some(file(&server, "client-cert.pem")),
        key: Some(file(&server, "client-key.pem")),
        ..tls(SslMode::VerifyCa)
    };
    assert!(connect("tls", "127.0.0.1", with_cert)?);
    let error = connect("ssl_only", "127.0.0.1", tls(SslMode::Disabled)).unwrap_err();
    assert!(matches!(&error, Error::Server(error) if error.number == 1045), "{error}");
    Ok(())
}

#[test]
fn certificates_of_the_server() {
    check(|| certificates(None));
}

#[test]
fn certificates_of_8_0_19() {
    check(|| certificates(OLD));
}

/// Makes a key and a certificate for `name`, signed by the certificate `issuer` or by itself.
fn make_certificate(directory: &Path, name: &str, issuer: Option<&str>) -> Result<()> {
    let run = |arguments: &str| {
        let arguments = arguments.split(' ');
        let output = Command::new("openssl").args(arguments).current_dir(directory).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    };
    run(&format!(
        "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.req"
    ))?;
    let signed = match issuer {
        Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -set_serial 7"),
        None => format!("-signkey {name}.key"),
    };
    run(&format!("x509 -req -in {name}.req -days 2 {signed} -out {name}.pem"))
}

/// The recipe of MySQL's manual makes certificates of version 1, without alternative names.
#[test]
fn certificates_of_version_1() {
    check(|| {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        for (name, issuer) in
            [("authority", None), ("stranger", None), ("localhost", Some("authority"))]
        {
            make_certificate(directory.path(), name, issuer)?;
        }
        let text = Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in"])
            .arg(path("localhost.pem"))
            .output()?;
        if !String::from_utf8_lossy(&text.stdout).contains("Version: 1 ") {
            clone_testkit::skip!("this openssl does not make certificates of version 1");
        }
        let server = start(
            None,
            &[
                &format!("--ssl-ca={}", path("authority.pem").display()),
                &format!("--ssl-cert={}", path("localhost.pem").display()),
                &format!("--ssl-key={}", path("localhost.key").display()),
            ],
        )?;
        server.session()?.run("CREATE USER u IDENTIFIED BY 'secret'")?;
        let connect = |host: &str, mode, ca: &str| {
            let address = Address::Tcp { host: host.into(), port: server.port() };
            let tls = TlsOptions { mode, ca: Some(path(ca)), ..TlsOptions::default() };
            Connection::connect(&ConnectOptions { tls, ..options(address, "u", "secret", mode) })
        };
        assert!(connect("127.0.0.1", SslMode::Required, "authority.pem")?.is_encrypted());
        assert!(connect("127.0.0.1", SslMode::VerifyCa, "authority.pem")?.is_encrypted());
        assert!(connect("localhost", SslMode::VerifyIdentity, "authority.pem")?.is_encrypted());
        for (host, mode, ca) in [
            ("127.0.0.1", SslMode::VerifyIdentity, "authority.pem"),
            ("127.0.0.1", SslMode::VerifyCa, "stranger.pem"),
        ] {
            let error = connect(host, mode, ca).unwrap_err();
            assert_eq!(error.number(), 2026, "{error}");
        }
        Ok(())
    });
}

#[test]
fn no_tls_of_8_0_19() {
    check(|| {
        let server = start(OLD, &["--loose-ssl=OFF"])?;
        server.session()?.run("CREATE USER u IDENTIFIED BY 'secret'")?;
        let preferred = options(tcp(&server), "u", "secret", SslMode::Preferred);
        assert!(!Connection::connect(&preferred)?.is_encrypted());
        let required = options(tcp(&server), "u", "secret", SslMode::Required);
        let error = Connection::connect(&required).unwrap_err();
        assert!(error.to_string().contains("SSL is required but the server doesn't"), "{error}");
        Ok(())
    });
}

fn com_clone_and_back(release: Option<&str>) -> Result<()> {
    let server = start(release, &["--bind-address=*"])?;
    server.session()?.run_all([
        "CREATE USER donor IDENTIFIED BY 'secret'",
        "GRANT BACKUP_ADMIN ON *.* TO donor",
        "CREATE USER nobody IDENTIFIED BY 'secret'",
    ])?;
    let host = |host: &str| Address::Tcp { host: host.into(), port: server.port() };
    for address in [host("127.0.0.1"), host("localhost"), host("::1")] {
        for mode in [SslMode::Disabled, SslMode::Required] {
            let options = options(address.clone(), "donor", "secret", mode);
            let mut connection = Connection::connect(&options)
                .with_context(|| format!("{release:?} {address} {mode:?}"))?;
            assert!(connection.is_within_host());
            for _ in 0..2 {
                connection.start_clone()?;
                let error = connection.query("SELECT 1").unwrap_err();
                assert_eq!(error.number(), 2014);
                connection.send(EXIT, &[])?;
                let packet = connection.receive(LIMIT)?;
                assert_eq!((&*packet.data, packet.network_len), (&[COMPLETE][..], 5));
                connection.end_clone()?;
                who(&mut connection)?;
            }
            connection.close();
        }
    }
    let mut connection =
        Connection::connect(&options(tcp(&server), "nobody", "secret", SslMode::Required))?;
    let error = connection.start_clone().unwrap_err();
    assert_eq!(error.number(), 1227, "{error}");
    who(&mut connection)?;
    Ok(())
}

#[test]
fn com_clone() {
    check(|| com_clone_and_back(None));
}

#[test]
fn com_clone_of_8_0_19() {
    check(|| com_clone_and_back(OLD));
}

#[test]
fn waits_end() {
    check(|| {
        let server = start(None, &[])?;
        server.session()?.run("CREATE USER u IDENTIFIED BY 'secret'")?;
        let mut root = server.session()?;
        for mode in [SslMode::Disabled, SslMode::Required] {
            let stop = Arc::new(AtomicBool::new(false));
            let asked = Arc::clone(&stop);
            let mut options = options(tcp(&server), "u", "secret", mode);
            options.cancel = Arc::new(move || asked.load(Ordering::Relaxed));
            let mut connection = Connection::connect(&options)?;
            let started = Instant::now();
            let stopper = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                stop.store(true, Ordering::Relaxed);
            });
            let error = connection.query("SELECT SLEEP(15)").unwrap_err();
            assert!(matches!(error, Error::Cancelled), "{error}");
            assert!(started.elapsed() < Duration::from_secs(2));
            stopper.join().unwrap();
            assert_eq!(connection.query("SELECT 1").unwrap_err().number(), 2006);

            options.cancel = Arc::new(|| false);
            options.read_timeout = Duration::from_millis(400);
            let mut connection = Connection::connect(&options)?;
            let error = connection.query("SELECT SLEEP(15)").unwrap_err();
            assert!(error.is_timeout() && error.number() == 2013, "{error}");

            options.read_timeout = LIMIT;
            let mut connection = Connection::connect(&options)?;
            root.run(format!("KILL {}", connection.id()))?;
            let error = connection.query("SELECT 1").unwrap_err();
            assert!(error.number() == 2013 || error.number() == 4031, "{error}");
        }
        let nobody = Address::Tcp { host: "127.0.0.1".into(), port: 1 };
        let error = Connection::connect(&options(nobody, "u", "", SslMode::Disabled)).unwrap_err();
        assert!(error.to_string().contains("'127.0.0.1:1' (111: "), "{error}");
        let nobody = Address::Tcp { host: "no-such-host.invalid".into(), port: 1 };
        let error = Connection::connect(&options(nobody, "u", "", SslMode::Disabled)).unwrap_err();
        assert_eq!(error.number(), 2005, "{error}");
        let nobody = Address::Socket("/nowhere/sock".into());
        let error = Connection::connect(&options(nobody, "u", "", SslMode::Disabled)).unwrap_err();
        assert!(error.to_string().contains("socket '/nowhere/sock' (2: "), "{error}");
        Ok(())
    });
}
