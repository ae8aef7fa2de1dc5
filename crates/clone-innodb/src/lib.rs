// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's side of a clone, without mysqld.
//!
//! A donor without a server gives [`source`] its files, and a recipient without a server has
//! [`destination`] write a data directory. States, chunks, restart locators, time-outs and what an
//! error of one task does to the others are those of `storage/innobase/clone`. A recipient writes
//! pages as they come: it reads, changes and checks none.
//!
//! * [`destination`]: descriptors and blocks to files. One
//!   [`Destination`](destination::Destination) for each clone, one
//!   [`DestinationTask`](destination::DestinationTask) for each connection.
//! * [`source`]: files to descriptors and blocks. One [`Sources`](source::Sources) for each donor,
//!   one [`SourceTask`](source::SourceTask) for each connection.
//! * [`cold`]: the files of a data directory that no server has open, for [`source`].
//! * [`mod@format`]: InnoDB's files as bytes.
//! * [`geometry`]: how files are cut into blocks and chunks.
//! * [`encryption`]: the master keys of a server, from its keyring file, and the new one of a copy.
//! * [`verify`]: checks the files of a data directory.
//! * [`clock`]: time, waiting and cancellation, which a simulation brings itself.
//! * [`error`]: one error, with MySQL's numbers.
//!
//! # Example
//!
//! A recipient that gets descriptors from a connection:
//!
//! ```
//! use std::sync::Arc;
//!
//! use clone_innodb::clock::SystemClock;
//! use clone_innodb::destination::{BlockInput, Destination, Options};
//! use clone_innodb::error::{Error, Result};
//! use clone_protocol::innodb::{Locator, Recipient, StreamCheck, TaskRole};
//!
//! fn pull<C: BlockInput + Iterator<Item = Vec<u8>>>(
//!     donor: &Locator,
//!     directory: &std::path::Path,
//!     connection: &mut C,
//! ) -> Result<()> {
//!     let cancel = || false;
//!     let stream = StreamCheck::new(Recipient::new(16_384));
//!     let mut checks = stream.task(TaskRole::Master);
//!     let clock = Arc::new(SystemClock::default());
//!     let clone = Destination::create(donor, directory, Options::default(), clock)?;
//!     let mut master = clone.add_task(&cancel, donor)?;
//!     let mut outcome = Ok(());
//!     while let Some(descriptor) = connection.next().filter(|_| outcome.is_ok()) {
//!         outcome = match checks.check(&descriptor) {
//!             Ok(_) => master.apply(&cancel, &descriptor, connection),
//!             Err(error) => Err(error.into()),
//!         };
//!     }
//!     master.end(&cancel, outcome.as_ref().err().map_or(0, Error::number))?;
//!     outcome
//! }
//! ```
//!
//! # What is not done
//!
//! * Encrypted tablespaces and encrypted redo are refused (error 1235), unless [`EncryptedFiles`]
//!   has a master key: their keys come in clear, and a server looks for them encrypted with a
//!   master key of its keyring. Keyrings other than `component_keyring_file` are not written.
//! * Tablespaces outside of the donor's data directory are refused (error 1235) or go to a
//!   directory below the target ([`OutsideFiles`]). Nothing tells the server that they are there.
//! * The data of a running server is not replaced: there are no files `.#clone`, no roll-back lists
//!   and no DROP of user data. Files that exist are refused (error 1086). `#clone/#ddl_files` is
//!   not written: a directory whose clone failed is removed as a whole.
//! * There is no page tracking and no redo archive: a directory that a server works with cannot be
//!   served. A donor's HAS_KEY metadata cannot be sent.
//! * Files get their size by `ftruncate` where InnoDB allocates it, so that a full disk may be
//!   noticed by the server only. Nothing is written past the operating system's cache (O_DIRECT).
//!
//! [`EncryptedFiles`]: destination::EncryptedFiles
//! [`OutsideFiles`]: destination::OutsideFiles

#![forbid(unsafe_code)]

pub mod base;
pub mod clock;
pub mod cold;
pub mod destination;
pub mod encryption;
pub mod error;
pub mod format;
pub mod geometry;
pub mod source;
mod tasks;
pub mod verify;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. What it holds is consistent at each point at which a caller's code may panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
