// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone serve`: stock recipients of each series clone a directory that no server has open,
//! and start with the result.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clone_classic::{Address, ConnectOptions, Connection, SslMode, TlsOptions};
use clone_protocol::innodb::{Descriptor, Locator, SnapshotState, VERSION};
use clone_protocol::{Command, EngineLocator, Init, Response, Version};
use clone_testkit::anyhow::{Context, Result, bail, ensure};
use clone_testkit::clone::{self, Statement, Tls};
use clone_testkit::program::{Served, program};
use clone_testkit::proxy::{How, Proxy, Target};
use clone_testkit::server::Server;
use clone_testkit::sql::Account;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::writer::{self, Load, Writers};
use clone_testkit::{Mysqld, Plugin, check, dataset, fixture, releases};
use zeroize::Zeroizing;

/// The exit code of a refusal.
const REFUSED: i32 = 3;

releases! {
    clean;
    clean_8_4: "8.4";
    #[ignore = "make compat"]
    clean_8_0: "8.0";
    #[ignore = "make compat"]
    clean_8_0_19: "8.0.19";
}

releases! {
    crashed;
    #[ignore = "make compat"]
    crashed_8_4: "8.4";
    crashed_8_0: "8.0";
    crashed_8_0_19: "8.0.19";
}

#[test]
fn clean_9_7() {
    check(|| clean(Server::locate()?));
}

#[test]
fn crashed_9_7() {
    check(|| crashed(Server::locate()?));
}

/// A recipient replaces its data by those of a crashed directory. The doublewrite files of a stock
/// recipient have pages of its old data then.
#[test]
fn a_crashed_directory_in_place() {
    check(|| {
        let mut donor = Mysqld::builder().name("donor").start()?;
        dataset::load_small(&donor)?;
        write_much(&donor)?;
        count_up(&donor)?;
        donor.kill()?;
        let served = Served::start(donor.data_dir(), &[])?;
        for plugin in [Plugin::Stock, Plugin::under_test()?] {
            let builder = Mysqld::builder().name("recipient").plugin(plugin).supervised();
            let mut recipient = recipient_of(builder, &served)?;
            dataset::load_small(&recipient)?;
            write_much(&recipient)?;
            // The connection may break before the answer: the server ends.
            let _ = recipient.session()?.run(instance(&served).to_string());
            recipient.await_restart()?;
            goes_on_counting(&recipient)?;
            writer::check_invariants(&mut recipient.session()?)?;
            verify::assert_sound(&recipient)?;
            let status = clone::status(&mut recipient.session()?)?.context("no clone")?;
            ensure!(status.state == "Completed", "{status:?}");
            recipient.kill()?;
            recipient.start()?;
            verify::assert_sound(&recipient)?;
        }
        Ok(())
    });
}

fn write_much(server: &Mysqld) -> Result<()> {
    let writers = Writers::start(server, Load::default())?;
    writers.await_transactions(500)?;
    writers.stop().map(|_| ())
}

/// InnoDB keeps counters of AUTO_INCREMENT in the redo log until the next checkpoint.
fn count_up(donor: &Mysqld) -> Result<()> {
    donor.session()?.run_all([
        "CREATE DATABASE counted",
        "CREATE TABLE counted.t (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT)",
        "INSERT INTO counted.t (t) VALUES ('a'), ('b'), ('c'), ('d')",
        // A clone has no binary log of the donor, so it may lose the last transaction.
        "CREATE TABLE counted.last (id INT PRIMARY KEY)",
    ])
}

/// The counters of a clone are those of the donor: of a table, and of the dictionary.
fn goes_on_counting(clone: &Mysqld) -> Result<()> {
    let mut session = clone.session()?;
    session.run_all([
        "INSERT INTO counted.t (t) VALUES ('new')",
        "CREATE TABLE counted.new (a INT, b INT, c INT)",
    ])?;
    ensure!(session.one::<u64>("SELECT MAX(id) FROM counted.t")? >= 5);
    Ok(())
}

/// Four stock recipients at once.
#[test]
fn four_recipients() {
    check(|| {
        let (donor, expected) = stopped(Server::locate()?)?;
        let served = Served::start(donor.data_dir(), &[])?;
        let recipients = (0..4).map(|_| recipient(donor.server(), Plugin::Stock, &served));
        let recipients = recipients.collect::<Result<Vec<_>>>()?;
        thread::scope(|scope| {
            let clones: Vec<_> = recipients
                .iter()
                .map(|recipient| {
                    scope.spawn(|| clone_to_directory(recipient, &served, Tls::Required))
                })
                .collect();
            clones.into_iter().try_for_each(|clone| {
                let directory = clone.join().unwrap()?;
                compare(donor.server(), &directory, &expected)
            })
        })
    });
}

/// As [`four_recipients`], with half a GiB. Prints times and memory.
#[test]
#[ignore = "takes minutes"]
fn four_recipients_of_much_data() {
    check(|| {
        let mut donor = Mysqld::builder().name("donor").start()?;
        dataset::load(&donor, 512 << 20, |_| ())?;
        donor.kill()?;
        let served = Served::start(donor.data_dir(), &[])?;
        println!("{}", served.lines()[0]);
        let recipients = (0..4).map(|_| recipient(donor.server(), Plugin::Stock, &served));
        let recipients = recipients.collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        drop(clone_to_directory(&recipients[0], &served, Tls::Required)?);
        println!("one recipient: {:?}", begun.elapsed());
        let directory = recipients[0].scratch("clone");
        std::fs::remove_dir_all(&directory)?;
        let begun = Instant::now();
        thread::scope(|scope| {
            let clones: Vec<_> = recipients
                .iter()
                .map(|one| scope.spawn(|| clone_to_directory(one, &served, Tls::Required)))
                .collect();
            clones.into_iter().try_for_each(|clone| clone.join().unwrap().map(drop))
        })?;
        println!("four recipients at once: {:?}", begun.elapsed());
        let status = std::fs::read_to_string(format!("/proc/{}/status", served.pid()))?;
        let memory = status.lines().filter(|line| line.starts_with("VmHWM"));
        memory.for_each(|line| println!("{line}"));
        drop(served);
        donor.start()?;
        let expected = Fingerprint::read(&mut donor.session()?)?;
        compare(donor.server(), &recipients[3].scratch("clone"), &expected)
    });
}

/// No server at either end: `mysql-clone pull` from `mysql-clone serve`. All tablespaces of a
/// directory that was shut down are the same, byte for byte, and a server starts with the copy.
#[test]
fn a_pull_without_any_server() {
    check(|| {
        let (donor, expected) = stopped(Server::locate()?)?;
        let directory = donor.scratch("pulled");
        let served = Served::start(donor.data_dir(), &["--once"])?;
        let account = Served::account();
        let output = std::process::Command::new(program()?)
            .arg("pull")
            .arg(format!("{}@127.0.0.1:{}", account.user, served.port()))
            .args(["--no-defaults", "--no-login-paths", "--datadir"])
            .arg(&directory)
            .env("MYSQL_PWD", &account.password)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{stderr}\n{}", served.log());
        ensure!(stderr.contains("not checked: the donor's settings"), "{stderr}");
        let mut files = 0;
        for path in tablespaces(donor.data_dir())? {
            let name = path.strip_prefix(donor.data_dir())?;
            let (theirs, ours) = (std::fs::read(&path)?, std::fs::read(directory.join(name))?);
            ensure!(theirs == ours, "{} differs", name.display());
            files += 1;
        }
        ensure!(files > 10, "{files} files");
        compare(donor.server(), &directory, &expected)
    });
}

/// The tablespaces in a directory and below.
fn tablespaces(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(tablespaces(&path)?);
        } else if name.ends_with(".ibd") || name.starts_with("ibdata") || name.contains("undo_") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The plugin of this project as the recipient, over its own data.
#[test]
fn our_recipient_replaces_its_data() {
    check(|| {
        let (donor, expected) = stopped(Server::locate()?)?;
        let served = Served::start(donor.data_dir(), &[])?;
        let plugin = Plugin::under_test()?;
        let mut recipient =
            recipient_of(Mysqld::builder().name("recipient").plugin(plugin).supervised(), &served)?;
        // The connection may break before the answer: the server ends.
        let _ = recipient.session()?.run(instance(&served).to_string());
        recipient.await_restart()?;
        let found = Fingerprint::read(&mut recipient.session()?)?;
        let differences = expected.differences(&found);
        ensure!(differences.is_empty(), "{differences:?}");
        verify::assert_sound(&recipient)
    });
}

/// A stock recipient whose data is replaced, and `--once`.
#[test]
fn once() {
    check(|| {
        let (donor, expected) = stopped(Server::locate()?)?;
        let mut served = Served::start(donor.data_dir(), &["--once"])?;
        let builder = Mysqld::builder().name("recipient").plugin(Plugin::Stock).supervised();
        let mut recipient = recipient_of(builder, &served)?;
        let _ = recipient.session()?.run(instance(&served).to_string());
        recipient.await_restart()?;
        let status = served.wait()?;
        ensure!(status.success(), "{status}: {}", served.log());
        let found = Fingerprint::read(&mut recipient.session()?)?;
        let differences = expected.differences(&found);
        ensure!(differences.is_empty(), "{differences:?}");
        Ok(())
    });
}

/// Who does not know the password, and who does not want TLS, gets nothing.
#[test]
fn strangers_are_refused() {
    check(|| {
        let mut donor = Mysqld::builder().name("donor").start()?;
        donor.stop()?;
        let mut served = Served::start(donor.data_dir(), &[])?;
        let recipient = recipient(donor.server(), Plugin::Stock, &served)?;
        let mut session = recipient.session()?;
        let directory = recipient.scratch("refused");
        let Account { user, .. } = Served::account();
        for (account, tls, text) in [
            (Account::new(&user, "wrong"), Tls::Required, "1045"),
            (Account::new("nobody", "a 'quoted' secret"), Tls::Preferred, "1045"),
            (Served::account(), Tls::Disabled, "3159"),
        ] {
            let statement = Statement::instance_at("127.0.0.1", served.port(), account);
            let statement = statement.into_directory(&directory).tls(tls);
            let error = session.error(statement.to_string())?;
            ensure!(error.number == 3862, "{error}");
            ensure!(error.message.contains(text) || served.log().contains(text), "{error}");
            fixture::remove_rest(&directory)?;
        }
        // Whoever says nothing keeps nobody else waiting.
        let silent: Vec<_> = (0..20)
            .map(|_| TcpStream::connect(("127.0.0.1", served.port())))
            .collect::<std::io::Result<_>>()?;
        let statement = instance(&served).into_directory(&directory);
        session.run(statement.to_string())?;
        drop(silent);
        let status = served.terminate()?;
        ensure!(status.success(), "{status}");
        Ok(())
    });
}

/// A directory that a server has open is refused, and a server does not open one that is served.
#[test]
fn one_user_at_a_time() {
    check(|| {
        let mut donor = Mysqld::builder().name("donor").start()?;
        let (status, log) = Served::refusal(donor.data_dir(), &[])?;
        ensure!(status.code() == Some(REFUSED), "{status}: {log}");
        ensure!(log.contains("a server has") && log.contains("open"), "{log}");
        donor.stop()?;
        let served = Served::start(donor.data_dir(), &[])?;
        donor.start_and_kill(Duration::from_secs(4))?;
        let log = donor.log()?;
        ensure!(log.contains("Unable to lock ./ibdata1"), "{log}");
        drop(served);
        donor.start()?;
        Ok(())
    });
}

/// The network breaks in the middle of a clone, and the recipient goes on where it stopped.
#[test]
fn broken_connections_are_resumed() {
    check(|| {
        let (donor, expected) = stopped(Server::locate()?)?;
        let served = Served::start(donor.data_dir(), &[])?;
        let proxy = Proxy::to(served.port())?;
        let recipient = recipient(donor.server(), Plugin::Stock, &served)?;
        clone::allow_address(&recipient, &format!("127.0.0.1:{}", proxy.port()))?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = Statement::instance_at("127.0.0.1", proxy.port(), Served::account());
        let statement = statement.into_directory(&directory);
        let running = clone::Running::start_copying(&recipient, &statement)?;
        thread::sleep(Duration::from_millis(500));
        let before = proxy.traffic().tls;
        proxy.cut(Target::All, How::Reset);
        fixture::speed_up(&recipient)?;
        running.finish()?;
        ensure!(proxy.traffic().tls > before, "the clone ended without new connections");
        compare(donor.server(), &directory, &expected)
    });
}

/// Commands that no recipient sends: each is an error, and others can clone meanwhile.
#[test]
fn a_recipient_that_lies() {
    check(|| {
        let (donor, expected) = stopped(Server::locate()?)?;
        let served = Served::start(donor.data_dir(), &[])?;
        let Account { user, password } = Served::account();
        let options = ConnectOptions {
            address: Address::Tcp { host: "127.0.0.1".into(), port: served.port() },
            user,
            password: Zeroizing::new(password),
            tls: TlsOptions { mode: SslMode::Required, ..TlsOptions::default() },
            zstd_level: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            cancel: Arc::new(|| false),
        };
        let locator = |clone_id| {
            let mut bytes = Vec::new();
            Descriptor::Locator(Locator {
                version: VERSION,
                clone_id,
                snapshot_id: clone_id + 1,
                index: 0,
                state: SnapshotState::FileCopy,
                metadata_transferred: false,
                progress: None,
            })
            .encode(&mut bytes);
            bytes
        };
        let init = |locator: Vec<u8>| {
            let mut payload = Vec::new();
            let locators = vec![EngineLocator { db_type: 12, bytes: locator }];
            let (version, ddl_timeout) = (Version::LATEST as u32, 5);
            let sends_heartbeats = false;
            let init = Init { version, ddl_timeout, block_ddl: true, sends_heartbeats, locators };
            Command::Init(init).encode_payload(&mut payload);
            payload
        };
        let commands: [(u8, Vec<u8>); 9] = [
            // EXECUTE before INIT, ATTACH and REINIT of clones that do not exist.
            (4, Vec::new()),
            (2, init(locator(1))),
            (3, init(locator(u64::MAX - 1))),
            // ACK of nothing, and of too much.
            (5, vec![0; 40]),
            (5, vec![0xff; 900_000]),
            // Payloads that are none.
            (1, vec![1, 2, 3]),
            (1, init(vec![0xff; 128])),
            (77, Vec::new()),
            (0, vec![0; 10]),
        ];
        for (code, payload) in &commands {
            let mut connection = Connection::connect(&options).unwrap();
            connection.start_clone().unwrap();
            connection.send(*code, payload).unwrap();
            let answer = connection.receive(Duration::from_secs(30)).unwrap().data.to_vec();
            let Ok(Response::Error { number, message }) = Response::parse(&answer) else {
                bail!("command {code}: {answer:?}");
            };
            let message = String::from_utf8_lossy(message);
            println!("command {code} with {} bytes: {number} {message}", payload.len());
            ensure!(number != 0 && !message.is_empty(), "command {code}: {number} {message}");
        }
        // A clone that is begun and left alone, with its connection open.
        let mut left = Connection::connect(&options).unwrap();
        left.start_clone().unwrap();
        left.send(1, &init(locator(0))).unwrap();
        let error = left.query("SELECT 1").unwrap_err();
        println!("{error}");

        let recipient = recipient(donor.server(), Plugin::Stock, &served)?;
        let directory = clone_to_directory(&recipient, &served, Tls::Required)?;
        compare(donor.server(), &directory, &expected)
    });
}

/// SIGTERM in the middle of a clone: the recipient is told, and the program ends.
#[test]
fn terminated_in_a_clone() {
    check(|| {
        let (donor, _) = stopped(Server::locate()?)?;
        let mut served = Served::start(donor.data_dir(), &[])?;
        let recipient = recipient(donor.server(), Plugin::Stock, &served)?;
        fixture::slow_down(&recipient)?;
        let directory = recipient.scratch("clone");
        let statement = instance(&served).into_directory(&directory);
        let running = clone::Running::start_copying(&recipient, &statement)?;
        let status = served.terminate()?;
        ensure!(status.success(), "{status}");
        recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 0")?;
        let error = running.failure()?;
        println!("{error}");
        ensure!(error.number == 3862 && error.message.contains("1317"), "{error}");
        Ok(())
    });
}

/// A server that has shut down, and what it had.
fn stopped(server: &'static Server) -> Result<(Mysqld, Fingerprint)> {
    let mut donor = Mysqld::builder().name("donor").server(server).start()?;
    dataset::load_small(&donor)?;
    let expected = Fingerprint::read(&mut donor.session()?)?;
    donor.stop()?;
    Ok((donor, expected))
}

fn recipient(server: &'static Server, plugin: Plugin, served: &Served) -> Result<Mysqld> {
    recipient_of(Mysqld::builder().name("recipient").server(server).plugin(plugin), served)
}

fn recipient_of(builder: clone_testkit::mysqld::Builder, served: &Served) -> Result<Mysqld> {
    let recipient = builder.start()?;
    clone::allow_address(&recipient, &format!("127.0.0.1:{}", served.port()))?;
    Ok(recipient)
}

fn instance(served: &Served) -> Statement {
    Statement::instance_at("127.0.0.1", served.port(), Served::account())
}

fn clone_to_directory(recipient: &Mysqld, served: &Served, tls: Tls) -> Result<PathBuf> {
    let directory = recipient.scratch("clone");
    let statement = instance(served).into_directory(&directory).tls(tls);
    let cloned = recipient.session()?.run(statement.to_string());
    cloned.with_context(|| served.log())?;
    Ok(directory)
}

/// Starts a server with a clone, and compares.
fn compare(server: &'static Server, directory: &Path, expected: &Fingerprint) -> Result<()> {
    let clone = Mysqld::builder().name("clone").server(server).adopt(directory).start()?;
    let differences = expected.differences(&Fingerprint::read(&mut clone.session()?)?);
    ensure!(differences.is_empty(), "{differences:?}");
    verify::assert_sound(&clone)
}

fn clean(server: &'static Server) -> Result<()> {
    let (donor, expected) = stopped(server)?;
    let served = Served::start(donor.data_dir(), &[])?;
    ensure!(served.lines()[0].contains("shut down cleanly"), "{:?}", served.lines());
    let recipient = recipient(server, Plugin::Stock, &served)?;
    let directory = clone_to_directory(&recipient, &served, Tls::Required)?;
    let status = clone::status(&mut recipient.session()?)?;
    ensure!(status.as_ref().is_some_and(|status| status.state == "Completed"), "{status:?}");
    compare(server, &directory, &expected)
}

fn crashed(server: &'static Server) -> Result<()> {
    let builder = Mysqld::builder().name("donor").server(server);
    let mut donor = builder.option("--innodb-buffer-pool-size=16M").start()?;
    dataset::load_small(&donor)?;
    let writers = Writers::start(&donor, Load::default())?;
    writers.await_transactions(500)?;
    count_up(&donor)?;
    donor.kill()?;
    let _ = writers.stop();
    let served = Served::start(donor.data_dir(), &[])?;
    ensure!(served.lines()[0].contains("not shut down"), "{:?}", served.lines());
    let recipient = recipient(server, Plugin::Stock, &served)?;
    let directory = clone_to_directory(&recipient, &served, Tls::Preferred)?;
    drop(served);
    let clone = Mysqld::builder().name("clone").server(server).adopt(directory).start()?;
    verify::assert_sound(&clone)?;
    writer::check_invariants(&mut clone.session()?)?;
    let rows: u64 = clone.session()?.one("SELECT COUNT(*) FROM bank.ledger")?;
    ensure!(rows > 400, "{rows} rows");
    goes_on_counting(&clone)
}
