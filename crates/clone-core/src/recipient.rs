// SPDX-License-Identifier: GPL-2.0-only

//! The recipient: `CLONE INSTANCE FROM`.
//!
//! The statement's thread is the master. It opens two connections to the donor, one for data and
//! one, the auxiliary, for acknowledgements; worker threads open one each. Every thread runs a
//! `task`: the `dialogue` sends commands and receives packets, the `engine_side` gives each
//! descriptor to its storage engine, which calls back (`apply`) for the data, and the data goes to
//! its file (`block`). Only the master has workers, the donor's parameters and the lock (`master`).
//!
//! After a network failure the master connects again, until the donor's time-out is over. The
//! engine's locator says where the clone resumes.

mod answer;
mod apply;
mod block;
mod dialogue;
mod engine_side;
mod master;
mod probe;
mod shared;
mod task;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::link::Donor;
use crate::session::RecipientSession;
use shared::Shared;
use task::Task;

/// Clones the instance `donor` into `directory`, or, without one, over the data of this server.
///
/// A server runs the clone on its [`StatusBoard`](crate::board::StatusBoard::run).
///
/// # Errors
/// The first error of the clone, in the session's diagnostics area. Without a directory the user
/// data of this server may be gone by then (`performance_schema.clone_progress` tells: stage DROP
/// DATA).
pub fn clone_instance<S: RecipientSession>(
    session: &S,
    donor: Donor,
    directory: Option<PathBuf>,
) -> Result<()> {
    Task::master(session, Arc::new(Shared::new(session, donor, directory))).run()
}
