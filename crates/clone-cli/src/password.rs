// SPDX-License-Identifier: GPL-2.0-only

//! Where a password comes from: a file, the environment, or the terminal. Never the command line,
//! which other users can read.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::{Zeroize, Zeroizing};

use crate::failure::{Failure, Kind, Result};

/// The longest password, in bytes. MySQL's accounts have at most 256 characters
/// (`MAX_PLAINTEXT_LENGTH` of caching_sha2_password).
const MAX: u64 = 1024;

/// The first line of a file; `-` is standard input.
pub(crate) fn from_file(path: &Path) -> Result<Zeroizing<String>> {
    if path.as_os_str() == "-" {
        return first_line(io::stdin(), "standard input");
    }
    let opened = File::open(path).map_err(|error| {
        Failure::new(Kind::Disk, format!("cannot open {}: {error}", path.display()))
    })?;
    first_line(opened, &path.display().to_string())
}

/// The value of an environment variable, if there is one.
pub(crate) fn from_environment(variable: &str) -> Result<Option<Zeroizing<String>>> {
    match env::var(variable) {
        Ok(password) => Ok(Some(Zeroizing::new(password))),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(Failure::new(Kind::Usage, format!("{variable} is not UTF-8")))
        }
    }
}

/// Asks at the terminal. `whose` is what the user is shown. `variable` is the environment variable
/// that would have done.
pub(crate) fn ask(whose: &str, variable: &str) -> Result<Zeroizing<String>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let text = format!("no password: give --password-file or set {variable}");
        return Err(Failure::new(Kind::Usage, text));
    }
    let failed = |error: io::Error| Failure::new(Kind::Other, format!("the terminal: {error}"));
    eprint!("Password of {whose}: ");
    io::stderr().flush().map_err(failed)?;
    let before = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    eprintln!();
    read.map_err(failed)?;
    restored.map_err(|error| failed(error.into()))?;
    let len = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(len);
    Ok(line)
}

/// The first line of a file, without its end.
fn first_line(file: impl Read, name: &str) -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    bytes.reserve_exact(MAX as usize + 1);
    let read = file.take(MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Kind::Disk, format!("cannot read {name}: {error}")))?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    if end as u64 > MAX {
        return Err(Failure::new(Kind::Usage, format!("{name}: the password is too long")));
    }
    bytes[end..].zeroize();
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    match std::str::from_utf8(line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::new(Kind::Usage, format!("{name}: the password is not UTF-8"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        for (text, expected) in
            [("secret\n", "secret"), ("a b\r\nx\n", "a b"), ("x", "x"), ("", "")]
        {
            assert_eq!(*first_line(text.as_bytes(), "file").unwrap(), expected);
        }
        let longest = "p".repeat(1024);
        assert_eq!(*first_line(longest.as_bytes(), "file").unwrap(), longest);
        for wrong in ["p".repeat(1025).as_bytes(), b"\xff\n"] {
            assert_eq!(first_line(wrong, "file").unwrap_err().kind, Kind::Usage);
        }
    }
}
