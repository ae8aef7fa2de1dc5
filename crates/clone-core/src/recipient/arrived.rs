// SPDX-License-Identifier: GPL-2.0-only

//! What arrived of a clone's data in each form of a block.

use std::fmt;

use clone_protocol::BlockForm;

use crate::saved::Saved;

/// The way is the form of a block; none is DATA.
#[derive(Debug, Default)]
pub(super) struct Arrived(Saved<Option<u8>>);

impl Arrived {
    /// Adds a block of `data` bytes that came as `network` bytes.
    pub(super) fn add(&mut self, form: Option<BlockForm>, data: u64, network: u64) {
        self.0.add(form.map(|form| form as u8), data, network);
    }

    /// Some data came in fewer bytes than it has.
    pub(super) fn has_saved(&self) -> bool {
        self.0.has_saved()
    }
}

/// See [`Saved::write`].
impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "came", |form| {
            let form = BlockForm::ALL.into_iter().find(|one| Some(*one as u8) == *form);
            let name = match form {
                None => "not packed by the plugin",
                Some(BlockForm::Raw) => "not compressed",
                Some(BlockForm::Lz4) => "LZ4",
                Some(BlockForm::Zstd) => "Zstandard",
                Some(BlockForm::File) => "open files",
                Some(BlockForm::Sparse) => "without zeros",
                Some(BlockForm::Base) => "in the older copy",
            };
            name.to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_reads_like_this() {
        const MIB: u64 = 1 << 20;
        let mut arrived = Arrived::default();
        arrived.add(None, MIB, MIB + 30);
        assert!(!arrived.has_saved());
        arrived.add(Some(BlockForm::Zstd), 10 * MIB, 4 * MIB);
        arrived.add(Some(BlockForm::Sparse), 5 * MIB, 2 * MIB);
        assert!(arrived.has_saved());
        assert_eq!(
            arrived.to_string(),
            "16 MiB of data came as 7 MiB; not packed by the plugin: 1 MiB as 1 MiB; Zstandard: 10 \
             MiB as 4 MiB; without zeros: 5 MiB as 2 MiB"
        );
    }
}
