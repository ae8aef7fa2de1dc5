// SPDX-License-Identifier: GPL-2.0-only

//! The server's end: a clone's recipient connects as to a MySQL server.
//!
//! | Type | |
//! |---|---|
//! | [`Certificate`] | the server's certificate and key, from files or made anew |
//! | [`ServerOptions`] | version, account, certificate, limits |
//! | [`Listener`] | waits for connections |
//! | [`Incoming`] | a connection of somebody unknown; [`handshake`](Incoming::handshake) makes a [`Session`] |
//! | [`Session`] | commands and their answers, and clone mode |
//! | [`DonorStream`] | a session in clone mode, as clone-core's donor sees it |
//!
//! Every connection has TLS. There is one account, with `caching_sha2_password`. The password
//! crosses the connection inside TLS each time, and nothing is kept from one login to the next.

mod certificate;
mod donor_stream;
mod handshake;
mod listener;
pub(crate) mod login;
mod options;
mod rows;
pub(crate) mod session;

pub use certificate::Certificate;
pub use donor_stream::{Diagnostics, DonorStream};
pub use listener::{Incoming, Listener};
pub use options::{Account, ServerOptions};
pub use session::{Command, Session};
