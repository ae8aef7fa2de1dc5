// SPDX-License-Identifier: GPL-2.0-only

//! clone-classic as a server of real clients: MySQL's own command-line client, and stock
//! recipients.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Output};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clone_classic::ServerError;
use clone_classic::server::{Account, Certificate, Command, Listener, ServerOptions, Session};
use clone_testkit::anyhow::{Context, Result};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, Plugin, check};

const LIMIT: Duration = Duration::from_secs(20);

/// Codes of clone mode.
const INIT: u8 = 1;
const EXIT: u8 = 6;
const COMPLETE: u8 = 99;
const ERROR: u8 = 100;

/// A donor that refuses each clone.
struct Refusing {
    port: u16,
    pem: tempfile::NamedTempFile,
    stop: Arc<AtomicBool>,
    /// What happened on the connections.
    seen: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Refusing {
    fn start() -> Result<Self> {
        let certificate = Certificate::generate(&["localhost".into(), "127.0.0.1".into()])?;
        let pem = tempfile::NamedTempFile::new()?;
        fs::write(pem.path(), certificate.pem())?;
        let account = Account::new("clone_donor", "secret".to_owned().into()).unwrap();
        let mut options = ServerOptions::new("9.7.4", account, certificate)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        options.cancel = Arc::new(move || asked.load(Ordering::Relaxed));
        let listener = Listener::bind("127.0.0.1:0".parse()?)?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let thread = thread::spawn(move || accept(&listener, &options, &log));
        Ok(Self { port, pem, stop, seen, thread: Some(thread) })
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn accept(listener: &Listener, options: &ServerOptions, log: &Arc<Mutex<Vec<String>>>) {
    let ids = AtomicU32::new(1);
    while let Ok(incoming) = listener.accept(&options.cancel) {
        let (options, log) = (options.clone(), Arc::clone(log));
        let id = ids.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            let see = |text: String| log.lock().unwrap().push(text);
            match incoming.handshake(&options, id) {
                Ok(session) => refuse(session, &see),
                Err(error) => see(error.to_string()),
            }
        });
    }
}

fn refuse(mut session: Session, see: &dyn Fn(String)) {
    loop {
        let command = match session.next_command(LIMIT) {
            Ok(command) => command,
            Err(error) => return see(error.to_string()),
        };
        see(format!("{command:?}"));
        match command {
            Command::Clone => {
                session.accept_clone().unwrap();
                let mut payload = Vec::new();
                loop {
                    let Ok(code) = session.receive(&mut payload, LIMIT) else { return };
                    match code {
                        INIT => {
                            let number = 1105_i32.to_le_bytes();
                            session.send(&[&[ERROR], &number, b"not today"]).unwrap();
                        }
                        EXIT => {
                            session.send(&[&[COMPLETE]]).unwrap();
                            break;
                        }
                        other => panic!("command {other}"),
                    }
                }
            }
            // The program mysql asks whether `$$` is a syntax error, and does not read rows then.
            Command::Query(sql) if sql != "SELECT the_answer" => {
                let (number, state, text) = (1064, "42000".into(), "You have an error".into());
                session.answer_error(&ServerError { number, state, text }).unwrap();
            }
            Command::Query(_) => {
                session.answer_rows(&["answer"], &[vec![Some("42".into())], vec![None]]).unwrap();
            }
            Command::Kill(_) => session.answer_ok().unwrap(),
            Command::Quit => return,
        }
    }
}

/// MySQL's command-line client.
fn mysql(server: &Server, port: u16, password: &str, options: &[&str]) -> Result<Output> {
    let client = server.root.join("usr/bin/mysql");
    let mut process = match &server.loader {
        Some(loader) => {
            let mut process = Process::new(loader);
            process.arg("--library-path").arg(&server.library_path).arg(client);
            process
        }
        None => Process::new(client),
    };
    process
        .args(["--no-defaults", "--host=127.0.0.1", "--user=clone_donor"])
        .arg(format!("--port={port}"))
        .arg(format!("--character-sets-dir={}", server.share_dir.join("charsets").display()))
        .args(options)
        .args(["--execute=SELECT the_answer; SET NAMES utf8mb4"])
        .env("MYSQL_PWD", password)
        .output()
        .context("run mysql")
}

#[test]
fn mysqls_own_client_logs_in() {
    check(|| {
        let donor = Refusing::start()?;
        let server = Server::locate()?;
        if !Path::new(&server.root.join("usr/bin/mysql")).exists() {
            clone_testkit::skip!("this server came without the program mysql");
        }
        let ca = format!("--ssl-ca={}", donor.pem.path().display());
        for options in [
            &["--ssl-mode=REQUIRED"][..],
            &["--ssl-mode=VERIFY_CA", &ca],
            &["--ssl-mode=VERIFY_IDENTITY", &ca],
            &["--ssl-mode=REQUIRED", "--tls-version=TLSv1.2"],
            &["--ssl-mode=REQUIRED", "--compression-algorithms=zlib,uncompressed"],
        ] {
            let output = mysql(server, donor.port, "secret", options)?;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{options:?}: {output:?} {:?}", donor.seen());
            assert_eq!(text, "answer\n42\nNULL\n", "{output:?}");
        }
        for (password, options, expected) in [
            (
                "wrong",
                &["--ssl-mode=REQUIRED"][..],
                "ERROR 1045 (28000): Access denied for user 'clone_donor'@'127.0.0.1' (using \
                 password: YES)",
            ),
            ("secret", &["--ssl-mode=DISABLED"], "ERROR 3159 (HY000): Connections using insecure"),
        ] {
            let output = mysql(server, donor.port, password, options)?;
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains(expected), "{text}");
        }
        Ok(())
    });
}

fn stock_recipient(server: &'static Server) -> Result<()> {
    let donor = Refusing::start()?;
    let recipient = Mysqld::builder().server(server).plugin(Plugin::Stock).start()?;
    let mut session = recipient.session()?;
    session.run(format!("SET GLOBAL clone_valid_donor_list = '127.0.0.1:{}'", donor.port))?;
    session.run(format!("SET GLOBAL clone_ssl_ca = '{}'", donor.pem.path().display()))?;
    let mut clone = |password: &str, ssl: &str| {
        session.error(format!(
            "CLONE INSTANCE FROM clone_donor@127.0.0.1:{} IDENTIFIED BY '{password}' \
             DATA DIRECTORY = '{}' REQUIRE {ssl}",
            donor.port,
            recipient.scratch("clone").display()
        ))
    };
    let error = clone("secret", "SSL")?;
    assert_eq!(error.number, 3862, "{error}");
    assert_eq!(error.message, "Clone Donor Error: 1105 : not today.");
    clone_testkit::until("the recipient to go", LIMIT, || {
        let seen = donor.seen.lock().unwrap();
        Ok((seen.iter().filter(|seen| *seen == "Quit").count() == 2).then_some(()))
    })?;
    let seen = donor.seen();
    assert!(seen.iter().all(|seen| seen == "Clone" || seen == "Quit"), "{seen:?}");

    let error = clone("wrong", "SSL")?;
    assert!(error.message.contains("Access denied for user 'clone_donor'"), "{error}");
    let error = clone("secret", "NO SSL")?;
    assert!(error.message.contains("Connections using insecure transport"), "{error}");
    Ok(())
}

#[test]
fn stock_recipients() {
    check(|| stock_recipient(Server::locate()?));
}

#[test]
fn stock_recipients_of_8_0_19() {
    check(|| stock_recipient(Server::release("8.0.19")?));
}
