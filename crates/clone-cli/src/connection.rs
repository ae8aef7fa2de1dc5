// SPDX-License-Identifier: GPL-2.0-only

//! Where to connect to, and as whom: arguments, option files, environment and prompt.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use clone_classic::{Address, ConnectOptions, SslMode, TlsOptions};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind, Result};

/// MySQL's port.
const PORT: u16 = 3306;

/// The longest password, in bytes. MySQL takes at most 256 bytes for caching_sha2_password.
const MAX_PASSWORD: u64 = 4096;

/// How long a connection may take, in seconds: `connect_timeout` of MySQL's clients is longer, but
/// a donor that is there answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of a connection, as MySQL's own clients spell them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
#[group(id = "connection")]
pub(crate) struct Arguments {
    /// The donor: [user@]host[:port]. An IPv6 address with a port stands in brackets. Without this
    /// argument, host, port and user come from option files, or the donor is at --socket.
    #[arg(value_name = "[USER@]HOST[:PORT]")]
    donor: Option<String>,
    /// Account with the privilege BACKUP_ADMIN.
    #[arg(short, long)]
    user: Option<String>,
    /// Port, if DONOR does not name one.
    #[arg(short = 'P', long)]
    port: Option<u16>,
    /// Unix socket of a donor on this machine.
    #[arg(short = 'S', long, value_name = "PATH", conflicts_with = "donor")]
    socket: Option<PathBuf>,
    /// Asks for the password, even if an option file has one.
    #[arg(short = 'p', long)]
    password: bool,
    /// Reads the password from the first line of this file; - is standard input.
    #[arg(long, value_name = "PATH", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// Encryption of the connection [default: PREFERRED].
    #[arg(long, value_name = "MODE", ignore_case = true)]
    ssl_mode: Option<Mode>,
    /// Certificates of the authorities that are trusted, PEM.
    #[arg(long, value_name = "PATH")]
    ssl_ca: Option<PathBuf>,
    /// This client's certificate, PEM.
    #[arg(long, value_name = "PATH")]
    ssl_cert: Option<PathBuf>,
    /// The key of --ssl-cert, PEM.
    #[arg(long, value_name = "PATH")]
    ssl_key: Option<PathBuf>,
}

/// `--ssl-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    Disabled,
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

impl From<Mode> for SslMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Disabled => SslMode::Disabled,
            Mode::Preferred => SslMode::Preferred,
            Mode::Required => SslMode::Required,
            Mode::VerifyCa => SslMode::VerifyCa,
            Mode::VerifyIdentity => SslMode::VerifyIdentity,
        }
    }
}

impl Arguments {
    /// What a connection needs. Asks for the password if no other place has it.
    ///
    /// # Errors
    /// An argument is wrong; the password cannot be read.
    pub(crate) fn options(&self, read_timeout: Duration) -> Result<ConnectOptions> {
        let (user, host, port) = match &self.donor {
            Some(text) => parse_donor(text)?,
            None => (None, None, None),
        };
        let user = user.or_else(|| self.user.clone());
        let user = user.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
        let port = port.or(self.port).unwrap_or(PORT);
        let address = match (&self.socket, host) {
            (Some(path), _) => Address::Socket(path.clone()),
            (None, Some(host)) => Address::Tcp { host, port },
            (None, None) => return Err(usage("no donor: give [USER@]HOST[:PORT] or --socket")),
        };
        Ok(ConnectOptions {
            password: self.read_password(&user, &address)?,
            address,
            user,
            tls: TlsOptions {
                mode: self.ssl_mode.map(Into::into).unwrap_or_default(),
                ca: self.ssl_ca.clone(),
                cert: self.ssl_cert.clone(),
                key: self.ssl_key.clone(),
            },
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout,
            cancel: Arc::new(|| false),
        })
    }

    fn read_password(&self, user: &str, address: &Address) -> Result<Zeroizing<String>> {
        if let Some(path) = &self.password_file {
            return password_file(path);
        }
        if !self.password
            && let Ok(password) = std::env::var("MYSQL_PWD")
        {
            return Ok(Zeroizing::new(password));
        }
        if !std::io::stdin().is_terminal() {
            let text = "no password: give --password-file, MYSQL_PWD or an option file";
            return Err(usage(text));
        }
        eprint!("Password of {user} at {address}: ");
        let read = console::Term::stderr().read_secure_line();
        read.map(Zeroizing::new).map_err(|error| usage(&format!("no password: {error}")))
    }
}

/// The first line of a file.
fn password_file(path: &std::path::Path) -> Result<Zeroizing<String>> {
    let unreadable = |error: std::io::Error| {
        usage(&format!("cannot read the password from '{}': {error}", path.display()))
    };
    let mut text = Zeroizing::new(String::new());
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut text),
        false => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_PASSWORD).read_to_string(&mut text)),
    };
    read.map_err(unreadable)?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// `[user@]host[:port]`. A name may hold an `@`, so the last one counts. An IPv6 address stands in
/// brackets if a port follows.
fn parse_donor(text: &str) -> Result<(Option<String>, Option<String>, Option<u16>)> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, text),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => return Err(usage(&format!("'{place}' has no closing bracket"))),
        },
        None if place.matches(':').count() > 1 => (place, None),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(usage(&format!("'{text}' names no host")));
    }
    let port = port.map(|port| {
        let parsed = port.parse().ok().filter(|port: &u16| *port != 0);
        parsed.ok_or_else(|| usage(&format!("'{port}' is no port")))
    });
    Ok((user, Some(host.to_owned()), port.transpose()?))
}

fn usage(text: &str) -> Failure {
    Failure::new(Kind::Usage, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn donors() {
        for (text, user, host, port) in [
            ("h", None, "h", None),
            ("u@h", Some("u"), "h", None),
            ("a@b@h:13000", Some("a@b"), "h", Some(13000)),
            ("u@[::1]:3307", Some("u"), "::1", Some(3307)),
            ("[fe80::1]", None, "fe80::1", None),
            ("u@::1", Some("u"), "::1", None),
        ] {
            let found = parse_donor(text).unwrap();
            assert_eq!(found, (user.map(str::to_owned), Some(host.to_owned()), port), "{text}");
        }
        for text in ["", "u@", "h:", "h:0", "h:65536", "h:x", "[::1", "[]:3306"] {
            let refused = parse_donor(text).unwrap_err();
            assert_eq!(refused.kind, Kind::Usage, "{text}");
        }
    }
}
