// SPDX-License-Identifier: GPL-2.0-only

//! MySQL's classic protocol, as far as a clone without mysqld needs it.
//!
//! [`Connection`] is the client's end: a recipient's connection to a donor. [`server`] is the other
//! end.
//!
//! | Module | |
//! |---|---|
//! | `socket` | waits with a time-out, and asks whether to go on |
//! | `tls`, `certificate` | TLS by rustls with graviola; what is checked of a certificate |
//! | `packets` | payloads and their headers |
//! | `transport`, `compressed` | the compression of the classic protocol |
//! | `greeting`, `answer` | the parsers of what a server says |
//! | `authentication` | how a client proves that it knows the password |
//! | `connection` | a session, and COM_CLONE |
//! | [`option_file`], [`login_path`] | option files, as MySQL's clients read them |
//! | [`server`] | the other end: a donor without mysqld |
//!
//! Nothing here is logged: what a caller must know is in an [`Error`].

#![forbid(unsafe_code)]

mod answer;
mod authentication;
mod certificate;
mod compressed;
mod connect;
mod connection;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod greeting;
pub mod login_path;
pub mod option_file;
mod options;
mod packets;
mod password_key;
mod query;
pub mod server;
mod socket;
mod stream;
mod tls;
mod transport;

pub use connection::{Connection, MAX_PACKET, Received};
pub use error::{Error, ServerError};
pub use options::{Address, ConnectOptions, SslMode, TlsOptions};
