// SPDX-License-Identifier: GPL-2.0-only

//! The protocol's versions (`plugin/clone/include/clone.h`).

use crate::ProtocolError;

/// A version of COM_CLONE. Each adds packets; the older ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Version {
    /// MySQL 8.0.17.
    V1 = 0x0100,
    /// The donor names the library of each plugin, so that one that is merely loadable is enough.
    V2 = 0x0101,
    /// The donor sends settings that the recipient uses instead of comparing.
    V3 = 0x0102,
    /// The donor sends a JSON object for the rules of cloning from the LTS series before.
    V4 = 0x0103,
}

impl Version {
    /// What a recipient offers and the highest that a donor agrees to.
    pub const LATEST: Self = Self::V4;

    const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4];

    /// The donor's answer to what a recipient offers in [`Init`](crate::Init): the lower of the
    /// offer and [`Version::LATEST`].
    ///
    /// An offer between two known versions gets the one below it. An offer below V1, which no
    /// release makes, gets V1: there is nothing lower to speak, and the recipient that meant it
    /// refuses the answer. (Stock would repeat the number and then speak V1 as well.)
    pub fn negotiate(offered: u32) -> Self {
        Self::ALL.into_iter().rev().find(|known| known.number() <= offered).unwrap_or(Self::V1)
    }

    /// The version that a donor's [`Locators`](crate::Response::Locators) answer names.
    ///
    /// # Errors
    ///
    /// The number is not one we speak. A donor answers at most what it was offered, so a higher one
    /// is a lie (which stock only asserts), and all numbers from V1 to ours are versions.
    pub fn from_wire(number: u32) -> Result<Self, ProtocolError> {
        Self::ALL.into_iter().find(|known| known.number() == number).ok_or_else(|| {
            ProtocolError::detailed(
                "Wrong Clone RPC response",
                format_args!("protocol version {number:#06x}"),
            )
        })
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiates_the_lower() {
        for version in Version::ALL {
            assert_eq!(Version::negotiate(version.number()), version);
            assert_eq!(Version::from_wire(version.number()), Ok(version));
        }
        assert_eq!(Version::negotiate(0x0104), Version::V4);
        assert_eq!(Version::negotiate(u32::MAX), Version::LATEST);
    }

    #[test]
    fn an_offer_below_the_first_version_gets_the_first() {
        assert_eq!(Version::negotiate(0), Version::V1);
        assert_eq!(Version::negotiate(0x00ff), Version::V1);
    }

    #[test]
    fn an_answer_must_be_a_version() {
        for number in [0, 0x00ff, 0x0104, u32::MAX] {
            assert!(Version::from_wire(number).is_err(), "{number:#x}");
        }
        let text = Version::from_wire(0x0104).map_err(|error| error.to_string());
        assert_eq!(text, Err("Wrong Clone RPC response: protocol version 0x0104".to_owned()));
    }
}
