// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone serve`: a data directory that no server has open, as a donor.

mod connection;
mod engine;
mod facts;
mod host;
mod listen;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clone_classic::server::{Account, Certificate, ServerOptions};
use clone_innodb::cold::{ColdDirectory, Options, ServerVersion};
use clone_innodb::error::Error as InnodbError;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind, Result};
use crate::keyring;
use crate::password;
use connection::Connections;
use facts::Facts;
use host::ColdHost;

/// The environment variable that may have the password.
const PASSWORD: &str = "MYSQL_CLONE_PASSWORD";

/// The arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data directory. It is only read.
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,

    /// Where recipients connect to. Not used if systemd gives a socket (LISTEN_FDS).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3306")]
    bind: SocketAddr,

    /// The account that recipients name in CLONE INSTANCE FROM. It exists here only.
    #[arg(long, value_name = "USER")]
    user: String,

    /// A file whose first line is the account's password. Without it, the password is that of the
    /// environment variable MYSQL_CLONE_PASSWORD, or is asked for.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// The certificate for TLS, PEM. Without it, one is made for this run.
    #[arg(long, value_name = "FILE", requires = "ssl_key")]
    ssl_cert: Option<PathBuf>,

    /// The certificate's key, PEM.
    #[arg(long, value_name = "FILE", requires = "ssl_cert")]
    ssl_key: Option<PathBuf>,

    /// The keyring of the directory's server, for encrypted directories: the file of
    /// component_keyring_file or of the plugin keyring_file.
    #[arg(long, value_name = "FILE")]
    keyring_file: Option<PathBuf>,

    /// Ends when a recipient has got one clone whole.
    #[arg(long)]
    once: bool,

    /// The variable `version` of the server that had the directory, if the directory does not say
    /// it whole: 8.0.36-2ubuntu3.
    #[arg(long, value_name = "VERSION")]
    server_version: Option<String>,

    /// A variable of that server which was not at its default, such as
    /// character_set_server=latin1. The recipient must have the same. May be given several times.
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    variables: Vec<String>,

    /// innodb_data_home_dir, if it was set.
    #[arg(long, value_name = "DIR")]
    innodb_data_home_dir: Option<PathBuf>,

    /// innodb_log_group_home_dir, if it was set.
    #[arg(long, value_name = "DIR")]
    innodb_log_group_home_dir: Option<PathBuf>,

    /// innodb_undo_directory, if it was set.
    #[arg(long, value_name = "DIR")]
    innodb_undo_directory: Option<PathBuf>,

    /// innodb_doublewrite_dir, if it was set.
    #[arg(long, value_name = "DIR")]
    innodb_doublewrite_dir: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let directory = open(arguments)?;
    let facts = facts(arguments, &directory)?;
    let account = Account::new(&arguments.user, password(arguments)?).ok_or_else(|| {
        let text = "the user or the password is empty, or has a NUL. With an empty password \
                    everybody could take the data";
        Failure::new(Kind::Usage, text)
    })?;
    let certificate = certificate(arguments)?;
    let fingerprint = certificate.fingerprint();
    let failed = |text: String| Failure::new(Kind::Usage, text);
    let version = facts.get("version").map_err(|error| failed(error.to_string()))?;
    let options = ServerOptions::new(&version, account, certificate)
        .map_err(|error| failed(error.to_string()))?;
    let listener = listen::listen(arguments.bind)?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::new(Kind::Network, format!("the socket: {error}")))?;
    println!("{}", describe(arguments, &directory));
    println!("Address: {address}");
    println!("Account: {}", arguments.user);
    println!("Certificate SHA-256: {fingerprint}");

    let host = ColdHost::new(directory, facts)
        .map_err(|error| Failure::new(Kind::Other, format!("no random number: {error}")))?;
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(Kind::Interrupted as u8);
        // The second signal ends the program at once.
        flag::register_conditional_shutdown(signal, code, Arc::clone(host.stop_flag()))
            .and_then(|_| flag::register(signal, Arc::clone(host.stop_flag())))
            .map_err(|error| Failure::new(Kind::Other, format!("signal {signal}: {error}")))?;
    }
    let connections = Connections::new(&host, options);
    listen::run(&listener, &host, arguments.once, &|incoming, id| connections.serve(incoming, id));
    if arguments.once && host.engine().completed() == 0 {
        return Err(Failure::new(Kind::Interrupted, "no recipient has got a clone whole"));
    }
    println!("Clones: {}", host.engine().completed());
    Ok(())
}

fn password(arguments: &Arguments) -> Result<Zeroizing<String>> {
    if let Some(path) = &arguments.password_file {
        return password::from_file(path);
    }
    match password::from_environment(PASSWORD)? {
        Some(password) => Ok(password),
        None => password::ask(&arguments.user, PASSWORD),
    }
}

/// The files that the user has given, or a certificate of this run.
fn certificate(arguments: &Arguments) -> Result<Certificate> {
    let made = match (&arguments.ssl_cert, &arguments.ssl_key) {
        (Some(certificate), Some(key)) => Certificate::from_files(certificate, key),
        _ => {
            let mut names = vec!["localhost".to_owned()];
            if !arguments.bind.ip().is_unspecified() {
                names.push(arguments.bind.ip().to_string());
            }
            Certificate::generate(&names)
        }
    };
    made.map_err(|error| Failure::new(Kind::Usage, error.to_string()))
}

fn open(arguments: &Arguments) -> Result<ColdDirectory> {
    let options = Options {
        directory: arguments.datadir.clone(),
        home: arguments.innodb_data_home_dir.clone(),
        redo: arguments.innodb_log_group_home_dir.clone(),
        undo: arguments.innodb_undo_directory.clone(),
        doublewrite: arguments.innodb_doublewrite_dir.clone(),
    };
    let keyring = arguments.keyring_file.as_deref().map(keyring::from_file).transpose()?;
    ColdDirectory::open(&options, keyring.as_ref()).map_err(|error| {
        let kind = match error {
            InnodbError::Io { .. } => Kind::Disk,
            _ => Kind::Refused,
        };
        Failure::new(kind, error.to_string())
    })
}

fn facts(arguments: &Arguments, directory: &ColdDirectory) -> Result<Facts> {
    let version = match &arguments.server_version {
        Some(text) => ServerVersion { text: text.clone(), is_complete: true, maturity: None },
        None => directory.version().clone(),
    };
    Facts::new(&version, directory.page_size(), &arguments.variables)
        .map_err(|text| Failure::new(Kind::Usage, text))
}

/// What is served, in one line.
fn describe(arguments: &Arguments, directory: &ColdDirectory) -> String {
    let state = match (directory.needs_recovery(), directory.restored_pages()) {
        (false, _) => "shut down cleanly".to_owned(),
        (true, 0) => "not shut down, recovered by the recipient".to_owned(),
        (true, pages) => format!(
            "not shut down, recovered by the recipient, pages from the doublewrite buffer: {pages}"
        ),
    };
    let encrypted = match (directory.encrypted_files().count(), directory.has_encrypted_redo()) {
        (0, false) => String::new(),
        (count, false) => format!(", encrypted: {count} files"),
        (count, true) => format!(", encrypted: {count} files and the redo log"),
    };
    format!(
        "Serving {}: MySQL {}, {} files, {} MiB, {state}{encrypted}",
        arguments.datadir.display(),
        directory.version().text,
        directory.files(),
        directory.bytes() >> 20,
    )
}
