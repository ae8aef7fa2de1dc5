// SPDX-License-Identifier: GPL-2.0-only

//! The recipient: `CLONE INSTANCE FROM`.
//!
//! The statement's thread is the master. It opens two connections to the donor, one for data and
//! one, the auxiliary, for acknowledgements; worker threads open one each. Every thread runs a
//! `task`: the `donor_side` has its connections, whose `dialogue` sends commands and receives
//! packets; the `engine_side` gives each descriptor to its storage engine, which calls back
//! (`apply`) for the data, and the data goes to its file (`block`). Only the master has workers,
//! the donor's parameters and the lock (`master`).
//!
//! A clone over the server's own data waits in a staging directory (`target`, `placement`) until it
//! is complete. Only then it takes the place of the data.
//!
//! After a network failure the master connects again, until the donor's time-out is over. The
//! engine's locator says where the clone resumes.

mod answer;
mod apply;
mod arrived;
mod auxiliary;
mod based;
mod block;
mod delay;
mod dialogue;
mod donor_side;
mod engine_side;
mod expected;
mod heartbeat;
mod master;
mod placement;
mod probe;
mod resume_point;
mod shared;
mod sign_of_life;
mod target;
mod task;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::log_target::CLIENT;
use crate::session::{Host, RecipientSession};
use crate::settings::KeepData;
pub use resume_point::ResumePoint;
use shared::Shared;
use target::Target;
use task::Task;

/// Clones the instance `donor` into `directory`, or, without one, over the data of this server.
///
/// A server runs the clone on its [`StatusBoard`](crate::board::StatusBoard::run). Without a
/// directory the server must restart after success.
///
/// # Errors
/// The first error of the clone, in the session's diagnostics area. What the clone has written is
/// removed. Without a directory the server has its data still, except if `clone_keep_data` lets it
/// be dropped first.
pub fn clone_instance<S: RecipientSession>(
    session: &S,
    donor: S::Donor,
    directory: Option<PathBuf>,
) -> Result<()> {
    let donor = Arc::new(donor);
    if let Some(directory) = directory {
        return attempt(
            session,
            &Arc::new(Shared::new(session, donor, Target::Directory(directory))),
        );
    }
    let data = session.own_data()?;
    let keep = session.host().settings().keep_data;
    let staging = match keep {
        KeepData::Off => None,
        KeepData::Auto | KeepData::On => data.staging_directory()?,
    };
    let Some(staging) = staging else {
        if keep == KeepData::On {
            let what = "clone_keep_data=ON with MyRocks, or with a device in innodb_data_file_path";
            return Err(Error::NotSupported(what.into()));
        }
        if keep == KeepData::Auto {
            log::warn!(
                target: CLIENT,
                "The data of this server cannot be kept, with MyRocks or a device in \
                 innodb_data_file_path. The data is dropped before the clone is copied \
                 (clone_keep_data=AUTO)."
            );
        }
        return attempt(session, &Arc::new(Shared::new(session, donor, Target::Server)));
    };
    let mut shared = Shared::new(session, Arc::clone(&donor), Target::Staging(staging));
    shared.may_drop_data = keep == KeepData::Auto;
    let shared = Arc::new(shared);
    match attempt(session, &shared) {
        Err(error) if shared.begins_again_after(&error) => {}
        outcome => return outcome,
    }
    let needed = shared.disk_estimate();
    data.check_space_without_data(needed)?;
    log::warn!(
        target: CLIENT,
        "The disk has no room for the clone of {needed} bytes beside the data of this server. The \
         data is dropped before the clone is copied (clone_keep_data=AUTO)."
    );
    session.host().observer().begin_again();
    attempt(session, &Arc::new(Shared::new(session, donor, Target::Server)))
}

/// Goes on with a clone into `directory` that another process has begun. The clone has one engine,
/// InnoDB.
///
/// # Errors
/// As [`clone_instance`]'s. The donor does not have the clone any more; what was noted does not fit
/// together.
pub fn resume_instance<S: RecipientSession>(
    session: &S,
    donor: S::Donor,
    directory: PathBuf,
    point: ResumePoint,
) -> Result<()> {
    let shared = Shared::new(session, Arc::new(donor), Target::Directory(directory));
    Task::master(session, Arc::new(shared)).resume(point)
}

/// One clone from INIT to its end.
fn attempt<S: RecipientSession>(session: &S, shared: &Arc<Shared<S>>) -> Result<()> {
    let outcome = Task::master(session, Arc::clone(shared)).run();
    let arrived = shared.arrived();
    if arrived.has_saved() {
        log::info!(target: CLIENT, "Compression {}: {arrived}", shared.offer.packing);
    }
    drop(arrived);
    if let (Err(_), Some(directory)) = (&outcome, shared.target.directory()) {
        let stays = session.host().settings().keep_failed_directory;
        if shared.target.is_staging() || !stays {
            shared.new_directory.remove(directory);
        }
    }
    outcome
}
