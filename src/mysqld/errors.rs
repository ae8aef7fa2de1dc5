// SPDX-License-Identifier: GPL-2.0-only

//! The clone logic's errors, in mysqld's diagnostics area.

use clone_core::error::{Error, number};

use crate::server::raise::{self, Raise};

/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// Puts `error` into the diagnostics area of this thread's session. [`Error::Raised`] has been put
/// there already.
pub(crate) fn raise(error: &Error) {
    let donor;
    let sizes;
    let text;
    let raised = match error {
        Error::Connect(text) => Raise::CloneDonor(text),
        Error::Donor { number, message } => {
            donor = format!("{number} : {message}");
            Raise::CloneDonor(&donor)
        }
        Error::DiskSpace { needed, free } => {
            sizes = [*needed, *free].map(|bytes| format!("{:.2} GiB", bytes as f64 / GIB));
            Raise::CloneDiskSpace { needed: &sizes[0], free: &sizes[1] }
        }
        Error::DonorVersion { donor, recipient } => Raise::CloneDonorVersion { donor, recipient },
        Error::DryRun => {
            text = error.to_string();
            Raise::OptionPreventsStatement(&text)
        }
        Error::EncryptionNeedsTls => Raise::CloneEncryption,
        Error::File { write: true, name, errno } => {
            Raise::ErrorOnWrite { file: name, errno: *errno }
        }
        Error::File { write: false, name, errno } => {
            Raise::ErrorOnRead { file: name, errno: *errno }
        }
        Error::FileExists(name) => Raise::FileExists(name),
        Error::Internal(text) => Raise::InternalError(text),
        Error::Interrupted => Raise::QueryInterrupted,
        Error::NetworkPacket { required, actual } => Raise::CloneNetworkPacket {
            needed: *required,
            current: u32::try_from(*actual).unwrap_or(u32::MAX),
        },
        Error::OutOfMemory(bytes) => Raise::OutOfMemory { bytes: *bytes },
        Error::NoSupervisor => {
            text = error.to_string();
            Raise::RestartFailed(&text)
        }
        Error::NotSupported(what) => Raise::NotSupportedYet(what),
        Error::Network(error) => return raise_number(error.number()),
        Error::PluginMissing(name) => Raise::ClonePluginMatch(name),
        Error::Protocol(text) => Raise::CloneProtocol(text),
        Error::SystemConfig(text) => Raise::CloneSysConfig(text),
        Error::TooManyClones => Raise::TooManyConcurrentClones { allowed: 1 },
        Error::Raised(_) => return,
    };
    raise::raise(raised);
}

/// Raises an error of which only the number is known, because mysqld returned it without raising
/// it: after a network error all further calls on a connection do that.
pub(super) fn raise_number(error: u32) {
    let text;
    let raised = match error {
        number::ER_NET_PACKET_TOO_LARGE => Raise::NetPacketTooLarge,
        number::ER_NET_PACKETS_OUT_OF_ORDER => Raise::NetPacketsOutOfOrder,
        number::ER_NET_UNCOMPRESS_ERROR => Raise::NetUncompress,
        number::ER_NET_READ_ERROR => Raise::NetRead,
        number::ER_NET_READ_INTERRUPTED => Raise::NetReadInterrupted,
        number::ER_NET_ERROR_ON_WRITE => Raise::NetErrorOnWrite,
        number::ER_NET_WRITE_INTERRUPTED => Raise::NetWriteInterrupted,
        number::ER_LOCK_WAIT_TIMEOUT => Raise::LockWaitTimeout,
        number::ER_QUERY_INTERRUPTED => Raise::QueryInterrupted,
        other => {
            text = format!("Clone failed with error {other}");
            Raise::InternalError(&text)
        }
    };
    raise::raise(raised);
}
