// SPDX-License-Identifier: GPL-2.0-only

//! COM_CLONE and InnoDB's clone descriptors: bytes to types and back.
//!
//! Two layers meet on a clone connection, and they are two layers here:
//!
//! * **The plugin's own**, little-endian: a recipient sends a [`Command`], the donor answers with
//!   [`Response`]s. Engines appear in it only as a type byte and opaque bytes ([`EngineLocator`]).
//! * **The engine's**, big-endian: the locators and descriptors that the plugin carries without
//!   looking inside. [`innodb`] knows them, because a recipient must not hand foreign bytes to an
//!   InnoDB that trusts them; [`innodb::StreamCheck`] is the gate. [`rocksdb`] is what MyRocks
//!   writes.
//!
//! Nothing here reads a socket or a clock. Parsers borrow from the packet, never panic and never
//! allocate from a length that the packet does not cover. What they refuse is a [`ProtocolError`],
//! which carries the text for MySQL's error 3863.
//!
//! Packets end at MySQL's 1 GiB, so a length that an encoder writes always fits its `u32`.

#![forbid(unsafe_code)]

pub use base::BASE_CONFIG;
pub use base::BASE_VALUE;
pub use base::Base;
pub use base::Digest;
pub use base::EqualUnits;
pub use base::MAX_DIGESTS;
pub use base::Part;
pub use base::RUN_COST;
pub use base::Run;
pub use base::Units;
pub use command::Ack;
pub use command::Command;
pub use command::CommandCode;
pub use command::Init;
pub use error::ProtocolError;
pub use extension::BLOCK_HEAD;
pub use extension::BLOCK_TAIL;
pub use extension::Block;
pub use extension::BlockForm;
pub use extension::EXTENSION_CONFIG;
pub use extension::EXTENSION_VALUE;
pub use extension::Forms;
pub use extension::HandoverKey;
pub use extension::MAX_BLOCK;
pub use extension::MAX_LEVEL;
pub use extension::Offer;
pub use extension::Packing;
pub use extension::PackingError;
pub use heartbeat::Beat;
pub use heartbeat::HEARTBEAT_CONFIG;
pub use heartbeat::Heartbeat;
pub use locator::EngineLocator;
pub use locator::MAX_ENGINES;
pub use locator::MAX_LOCATOR_LEN;
pub use response::Response;
pub use response::ResponseCode;
pub use version::Version;

mod base;
mod command;
mod error;
mod extension;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod heartbeat;
pub mod innodb;
mod locator;
mod response;
pub mod rocksdb;
#[cfg(test)]
mod test_support;
mod version;
mod wire;
