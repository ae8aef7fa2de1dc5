// SPDX-License-Identifier: GPL-2.0-only

//! Locators as the plugin carries them: which engine, and bytes that only the engine understands
//! (`plugin/clone/include/clone_hton.h:Locator`).

use crate::wire::Reader;
use crate::wire::put_counted_le;

/// The most engines in one clone, `MAX_CLONE_STORAGE_ENGINE` in `plugin/clone`.
pub const MAX_ENGINES: usize = 16;

/// The longest locator that is taken from a peer: 64 MiB, in bytes.
///
/// The long ones are InnoDB's restart locators, whose bitmap grows with the clone. InnoDB sizes it
/// at one 32-bit word for every 8 chunks (`clone0desc.cc:Chnunk_Bitmap::reset` means bytes and
/// gets words), so half a byte a chunk: 64 MiB is 2^27 chunks, which is 8 PiB at the usual 16 KiB
/// page (64 MiB a chunk) and 2 PiB at 4 KiB. It is also the default `max_allowed_packet`, beyond
/// which a donor could not read the COM_REINIT that carries the locator.
pub const MAX_LOCATOR_LEN: usize = 64 << 20;

/// One engine's locator: `u8` type, `u32` little-endian length, bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EngineLocator {
    /// The engine's `legacy_db_type`; InnoDB is 12. Forks number theirs differently.
    pub db_type: u8,
    /// The engine's own bytes. Empty means that there is none yet.
    pub bytes: Vec<u8>,
}

impl EngineLocator {
    /// `None` when the bytes do not hold a whole locator or it is over [`MAX_LOCATOR_LEN`].
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let db_type = reader.u8()?;
        let bytes = reader.counted_le()?;
        (bytes.len() <= MAX_LOCATOR_LEN).then(|| Self { db_type, bytes: bytes.to_vec() })
    }

    /// All locators up to the end of the packet. `None` also for more than [`MAX_ENGINES`].
    pub(crate) fn parse_all(reader: &mut Reader<'_>) -> Option<Vec<Self>> {
        let mut locators = Vec::new();
        while !reader.is_empty() {
            if locators.len() == MAX_ENGINES {
                return None;
            }
            locators.push(Self::parse(reader)?);
        }
        Some(locators)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.db_type);
        put_counted_le(out, &self.bytes);
    }
}
