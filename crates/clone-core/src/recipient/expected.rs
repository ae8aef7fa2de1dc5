// SPDX-License-Identifier: GPL-2.0-only

//! What a descriptor says about the data behind it.

use clone_protocol::EqualUnits;
use clone_protocol::innodb::{Checked, SpacePlace};

use crate::error::Result;

/// What the descriptor says about its data packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    /// Present for InnoDB only, whose descriptors are checked.
    pub(super) checked: Option<Checked>,
    /// Bytes that follow, if some of the block are in the base.
    rest: Option<u32>,
}

impl Expected {
    /// What this descriptor says.
    pub(super) fn of(checked: Checked) -> Self {
        Self { checked: Some(checked), rest: None }
    }

    /// Bytes of data, if that is known.
    pub(super) fn len(self) -> Option<u32> {
        self.rest.or_else(|| self.block_len())
    }

    /// Bytes of the block, if that is known.
    pub(super) fn block_len(self) -> Option<u32> {
        self.checked.and_then(|checked| checked.data_len)
    }

    /// Where the block belongs, if the base can have it.
    pub(super) fn place(self) -> Option<SpacePlace> {
        self.checked.and_then(|checked| checked.place)
    }

    /// The same block, of which these units do not follow.
    pub(super) fn without(self, equal: Option<&EqualUnits>) -> Self {
        let rest = equal.map(|equal| u32::try_from(equal.rest_len()).unwrap_or(u32::MAX));
        Self { rest, ..self }
    }

    /// Returns true if the data may hold a key in clear.
    pub(super) fn holds_key(self) -> bool {
        self.checked.is_some_and(|checked| checked.key_in_data())
    }

    /// Checks the data before they go to the engine.
    pub(super) fn check(self, data: &[u8]) -> Result<()> {
        Ok(self.checked.map_or(Ok(()), |checked| checked.check_data(data))?)
    }
}
