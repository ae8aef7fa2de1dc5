// SPDX-License-Identifier: GPL-2.0-only

//! Where to connect to, and as whom: arguments, option files, environment and prompt.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use clone_classic::option_file::{Entry, Sources};
use clone_classic::{Address, ConnectOptions, SslMode, TlsOptions};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind, Result};
use crate::password;

/// MySQL's port.
const PORT: u16 = 3306;

/// The environment variable that may have the password, as for MySQL's clients.
const PASSWORD: &str = "MYSQL_PWD";

/// How long a connection may take, in seconds: `connect_timeout` of MySQL's clients is longer, but
/// a donor that is there answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of a connection, as MySQL's own clients spell them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
#[group(id = "connection")]
pub(crate) struct Arguments {
    /// The donor: user, host and port. An IPv6 address with a port stands in brackets. Without this
    /// argument, host, port and user come from options or option files.
    #[arg(value_name = "[USER@]HOST[:PORT]")]
    donor: Option<String>,
    /// Host of the donor, instead of DONOR.
    #[arg(short = 'h', long, conflicts_with = "donor")]
    host: Option<String>,
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
    /// Reads only this option file, the groups client and mysql-clone in it.
    #[arg(long, value_name = "PATH")]
    defaults_file: Option<PathBuf>,
    /// Reads this option file after the global ones.
    #[arg(long, value_name = "PATH")]
    defaults_extra_file: Option<PathBuf>,
    /// Reads no option file but the login file.
    #[arg(long)]
    no_defaults: bool,
    /// Reads this group of the login file, too (mysql_config_editor).
    #[arg(long, value_name = "NAME")]
    login_path: Option<String>,
    /// Does not read the login file.
    #[arg(long)]
    no_login_paths: bool,
}

/// The options of a connection that an option file may have.
const IN_FILES: [&str; 9] =
    ["host", "user", "password", "port", "socket", "ssl-mode", "ssl-ca", "ssl-cert", "ssl-key"];

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

/// What the option files say: the last line of each option.
struct Files {
    entries: Vec<Entry>,
}

impl Files {
    fn value(&self, name: &str) -> Option<&str> {
        let entry = self.entries.iter().rfind(|entry| entry.name == name)?;
        entry.value.as_ref().map(|value| value.as_str())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

impl Arguments {
    /// What a connection needs. Arguments win over option files. Asks for the password if no other
    /// place has it.
    ///
    /// # Errors
    /// An argument or an option file is wrong; the password cannot be read.
    pub(crate) fn options(&self, read_timeout: Duration) -> Result<ConnectOptions> {
        let files = self.read_files()?;
        let (user, host, port) = match &self.donor {
            Some(text) => parse_donor(text)?,
            None => (None, self.host.clone(), None),
        };
        let user = user.or_else(|| self.user.clone()).or_else(|| files.text("user"));
        let user = user.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
        let ssl_mode = match (self.ssl_mode, files.value("ssl-mode")) {
            (Some(mode), _) => mode,
            (None, None) => Mode::Preferred,
            (None, Some(text)) => Mode::from_str(text, true)
                .map_err(|_| usage(&format!("'{text}' is no ssl-mode")))?,
        };
        let address = self.address(host, port, &files)?;
        Ok(ConnectOptions {
            password: self.read_password(&user, &address, &files)?,
            address,
            user,
            tls: TlsOptions {
                mode: ssl_mode.into(),
                ca: self.ssl_ca.clone().or_else(|| files.path("ssl-ca")),
                cert: self.ssl_cert.clone().or_else(|| files.path("ssl-cert")),
                key: self.ssl_key.clone().or_else(|| files.path("ssl-key")),
            },
            zstd_level: None,
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout,
            cancel: Arc::new(|| false),
        })
    }

    fn read_files(&self) -> Result<Files> {
        let sources = Sources {
            defaults_file: self.defaults_file.clone(),
            defaults_extra_file: self.defaults_extra_file.clone(),
            no_defaults: self.no_defaults,
            login_path: self.login_path.clone(),
            no_login_paths: self.no_login_paths,
        };
        let found = sources.read(&|name| IN_FILES.contains(&name));
        let found = found.map_err(|error| usage(&error.to_string()))?;
        for warning in &found.warnings {
            eprintln!("mysql-clone: [Warning] {warning}");
        }
        Ok(Files { entries: found.entries })
    }

    /// A host is one of the arguments, or else of the option files. As with MySQL's clients, the
    /// host `localhost` means the Unix socket, if a socket is known.
    fn address(&self, host: Option<String>, port: Option<u16>, files: &Files) -> Result<Address> {
        let socket = self.socket.clone().or_else(|| files.path("socket"));
        let host = host.or_else(|| files.text("host"));
        let is_local = host.as_deref().is_none_or(|host| host == "localhost");
        let wants_port = port.or(self.port).is_some();
        match (socket, host) {
            (Some(path), _) if self.socket.is_some() => Ok(Address::Socket(path)),
            (Some(path), _) if is_local && !wants_port => Ok(Address::Socket(path)),
            (_, Some(host)) => {
                let port = match (port.or(self.port), files.value("port")) {
                    (Some(port), _) => port,
                    (None, Some(text)) => parse_port(text)?,
                    (None, None) => PORT,
                };
                Ok(Address::Tcp { host, port })
            }
            (_, None) => Err(usage("no donor: give [USER@]HOST[:PORT], --host or --socket")),
        }
    }

    fn read_password(
        &self,
        user: &str,
        address: &Address,
        files: &Files,
    ) -> Result<Zeroizing<String>> {
        if let Some(path) = &self.password_file {
            return password::from_file(path);
        }
        if !self.password {
            if let Some(password) = files.value("password") {
                return Ok(Zeroizing::new(password.to_owned()));
            }
            if let Some(password) = password::from_environment(PASSWORD)? {
                return Ok(password);
            }
        }
        password::ask(&format!("{user} at {address}"), PASSWORD)
    }
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
    Ok((user, Some(host.to_owned()), port.map(parse_port).transpose()?))
}

fn parse_port(text: &str) -> Result<u16> {
    let parsed = text.trim().parse().ok().filter(|port: &u16| *port != 0);
    parsed.ok_or_else(|| usage(&format!("'{text}' is no port")))
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
