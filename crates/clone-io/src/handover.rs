// SPDX-License-Identifier: GPL-2.0-only

//! Hands open files over from one process to another on the same machine, instead of sending their
//! content.
//!
//! The taker listens on a Unix stream socket of the abstract name space. Both ends know 32 bytes
//! that came over the clone's own connection: the first 16 are in the socket's name, the other 16
//! are a secret. On the socket:
//!
//! | | From | Bytes | Descriptor | What for |
//! |---|---|---|---|---|
//! | 1 | giver | the 16 bytes of the secret, when it connects | | the taker closes a connection without them |
//! | 2 | taker | one byte 2, when it takes the first file | its mount namespace (`/proc/self/ns/mnt`) | the giver closes the connection if this is not its own mount namespace |
//! | 3 | giver | one byte 0 | the file | the taker copies a block, from the file's current offset on |
//! | 4 | taker | one byte 1 | | the block has been copied |
//!
//! Steps 3 and 4 are repeated for each block. The giver waits for step 4. So the taker has read the
//! block when the giver goes on. If the wait ends early, the clone over this connection ends, too.
//!
//! # What the two ends check
//!
//! Every process on the machine can see the name of the socket, and connect to it. So the taker
//! asks for the secret.
//!
//! Both ends ask Linux (`SO_PEERCRED`) whether the other end is a process of the same user. They
//! refuse a process that has no number in their own PID namespace (the number is 0), and every
//! process if they run as the user that stands for all unknown users
//! (`/proc/sys/kernel/overflowuid`).
//!
//! Containers may share the machine's socket names and the number of a user, but not its files. A
//! file that is open for reading can be opened again for writing through `/proc/self/fd`. So the
//! giver hands files over only to a process that sees the same files by their names: to one of its
//! own mount namespace. The taker proves that with a descriptor, because Linux lets a process open
//! only its own namespace and those of processes that it may inspect. The giver never sends its own
//! namespace: the taker could send it back. A process that has received our namespace from an
//! honest taker could send it to another giver. For that it needs the secrets of both clones. Only
//! the donor of one clone and the recipient of the other know both.
//!
//! # Open files
//!
//! A taker has one descriptor open before its first file (the listener), and two from then on (the
//! connection and the file at hand). A giver has one. For a moment each needs two more at most.
//!
//! An end begins a hand-over only if 256 descriptors
//! ([`FREE_DESCRIPTORS`](crate::FREE_DESCRIPTORS)) are free. All 128 threads of a clone may pass
//! this check before any of them opens its second descriptor. They then take 128, so 128 stay free
//! for the server. A descriptor that cannot be had later ends the hand-over, and the data is sent.

mod giver;
mod message;
mod peer;
mod taker;

pub use giver::{FileGiver, Taken};
pub use peer::check_handover;
pub use taker::{FileTaker, TakenFile};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
