// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone serve --keyring-file`.

use std::fs;

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::clone::{self, Statement, Tls};
use clone_testkit::keyring::{WithKeyring, configure};
use clone_testkit::program::Served;
use clone_testkit::server::Server;
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Plugin, verify};

use crate::support::Tool;
use crate::{boot, checksums, encrypted_donor};

/// The exit code of a refusal.
const REFUSED: i32 = 3;

/// A server on which all is encrypted is killed under load. A stock recipient and a pull get its
/// directory, and each copy is encrypted with a master key of its own. Whoever has no keyring is
/// told before.
pub(crate) fn crashed(server: &'static Server) -> Result<()> {
    let servers = WithKeyring::new(server)?;
    let logs = ["--innodb-redo-log-encrypt=ON", "--innodb-undo-log-encrypt=ON"];
    let mut donor = encrypted_donor(&servers, &logs)?;
    let expected = checksums(&donor)?;
    let writers = Writers::start(&donor, Load::default())?;
    writers.await_transactions(200)?;
    drop(writers.stop());
    // A clean start brings all keys to page 0 of their tablespaces.
    donor.restart()?;
    let writers = Writers::start(&donor, Load::default())?;
    writers.await_transactions(200)?;
    donor.kill()?;
    drop(writers);

    let keyring = servers.path("donor-keyring");
    let refused = |arguments: &[&str], text: &str| -> Result<()> {
        let (status, log) = Served::refusal(donor.data_dir(), arguments)?;
        ensure!(status.code() == Some(REFUSED) && log.contains(text), "{status}: {log}");
        Ok(())
    };
    refused(&[], "Name the keyring file of")?;
    let recipient = Mysqld::builder().name("recipient").server(servers.server);
    let recipient = recipient.plugin(Plugin::Stock).create()?;
    let recipient = servers.start_with_keyring(recipient, "recipient-keyring")?;
    recipient.session()?.run_all([
        "CREATE DATABASE own",
        "CREATE TABLE own.t (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
    ])?;
    let other = servers.path("recipient-keyring");
    refused(&["--keyring-file", &other.to_string_lossy()], "the keyring has no master key")?;

    let served = Served::start(donor.data_dir(), &["--keyring-file", &keyring.to_string_lossy()])?;
    let line = &served.lines()[0];
    ensure!(line.contains("files and the redo log") && line.contains("recovered"), "{line}");

    let directory = recipient.scratch("clone");
    clone::allow_address(&recipient, &format!("127.0.0.1:{}", served.port()))?;
    let instance = Statement::instance_at("127.0.0.1", served.port(), Served::account());
    let statement = instance.clone().into_directory(&directory).tls(Tls::Required);
    recipient.session()?.run(statement.to_string())?;
    configure(&directory, &other)?;
    is_whole(boot(&servers, &directory, &[])?, &expected)?;

    let (pulled, new) = (donor.scratch("pulled"), servers.path("copy-keyring"));
    Tool::pull_served(&served, &pulled).arg("--keyring-file").arg(&new).run()?.ok()?;
    // The flag in FSP_SPACE_FLAGS. A server does not show it for undo tablespaces.
    ensure!(fs::read(pulled.join("undo_001"))?[56] & 0x20 != 0, "undo is not encrypted");
    is_whole(boot(&servers, &pulled, &[])?, &expected)?;

    let bare = Mysqld::builder().name("bare").server(server).plugin(Plugin::under_test()?);
    is_told(&bare.start()?, &served, &instance)?;
    drop(served);

    // The key of this tablespace is in the redo.
    donor.start()?;
    donor.session()?.run_all([
        "CREATE TABLE d.fresh (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
        "INSERT INTO d.fresh VALUES (1), (2), (3)",
    ])?;
    donor.kill()?;
    let (status, log) =
        Served::refusal(donor.data_dir(), &["--keyring-file", &keyring.to_string_lossy()])?;
    ensure!(status.code() == Some(REFUSED) && log.contains("has keys of"), "{status}: {log}");
    Ok(())
}

/// A recipient of this project without a keyring refuses before it drops anything.
fn is_told(recipient: &Mysqld, served: &Served, instance: &Statement) -> Result<()> {
    clone::allow_address(recipient, &format!("127.0.0.1:{}", served.port()))?;
    let error = recipient.session()?.error(instance.to_string())?;
    ensure!(error.number == 3869 && error.message.contains("has no keyring"), "{error}");
    Ok(())
}

/// Whether a copy has the donor's rows, and is encrypted as the donor is; also after a restart.
fn is_whole(mut copy: Mysqld, expected: &[(String, Option<u64>)]) -> Result<()> {
    for is_restarted in [false, true] {
        if is_restarted {
            copy.restart()?;
        }
        ensure!(checksums(&copy)? == expected, "{:?} {expected:?}", checksums(&copy)?);
        verify::assert_sound(&copy)?;
    }
    let encrypted: Vec<(String,)> = copy
        .session()?
        .rows("SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'Y'")?;
    for name in ["mysql", "d/t", "general"] {
        ensure!(encrypted.iter().any(|(found,)| found == name), "{name}: {encrypted:?}");
    }
    Ok(())
}
