// SPDX-License-Identifier: GPL-2.0-only

//! Encryption at rest (`os0enc.cc:Encryption`): a tablespace and the redo log each have a *data
//! key* with a vector, and a *master key* of the server's keyring encrypts all data keys.
//!
//! * [`Keyring`] reads master keys from the file of a keyring. With these keys, `verify` and
//!   [`cold`](crate::cold) read what a server has encrypted.
//! * [`MasterKey`] is the new master key of a copy. A donor sends its data keys in clear, over TLS,
//!   and a server looks for them encrypted with a master key of its keyring. So a recipient without
//!   a server makes a master key, encrypts the data keys with it, and writes the master key to the
//!   file that the server's keyring reads.
//!
//! A data key stands in the encryption information (`format::encryption_info`), in page 0 of a
//! tablespace and in the header of the redo log.

pub(crate) mod data_key;
mod keyring;
mod master_key;

pub(crate) use data_key::{DataKey, parse_log_block};
pub use keyring::Keyring;
pub use master_key::MasterKey;
