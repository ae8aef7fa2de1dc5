// SPDX-License-Identifier: GPL-2.0-only

//! Why the program ends without success, and its exit codes.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, for the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  an error that has no code of its own
  2  wrong arguments
  3  refused before any data was written: the message says what to change
  4  the network failed, for longer than the donor keeps a clone
  5  the other side reported an error
  6  the disk: a file cannot be read or written, or there is no space
  7  interrupted: the same command again goes on where it stopped
  8  verify found damage";

/// What kind of failure ends the program; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An error that has no code of its own.
    Other = 1,
    /// Wrong arguments or option files.
    Usage = 2,
    /// Refused before any data was written.
    Refused = 3,
    /// The network failed, for longer than a donor keeps a clone.
    Network = 4,
    /// The other side reported an error.
    Peer = 5,
    /// A local file cannot be read or written.
    Disk = 6,
    /// A signal ended the program. The clone can be resumed.
    Interrupted = 7,
    /// `verify` found damage.
    Damage = 8,
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(kind as u8)
    }
}

/// Why the program ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What happened, and what to do.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;
