// SPDX-License-Identifier: GPL-2.0-only

//! The way in which one block of a file leaves the donor. `docs/design.md` shows the same table.

/// How one block leaves the donor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The open file goes to the recipient on the same machine, which shares the block on the disk.
    Share,
    /// Through memory, where the block is compared with the recipient's base. What differs leaves
    /// in a packet of mysqld's connection, as with [`Packet`](Self::Packet).
    Compare { pack: bool, unpacked: Unpacked },
    /// From the file to the socket, past mysqld: a raw block with a checksum, or DATA.
    Stream { checksum: bool },
    /// Through memory, in a packet of mysqld's connection.
    Packet { pack: bool, unpacked: Unpacked },
}

impl Way {
    /// Whether the bytes are packed if that helps.
    pub(super) fn packs(self) -> bool {
        matches!(self, Way::Packet { pack: true, .. } | Way::Compare { pack: true, .. })
    }
}

/// The packet of a block that is not packed, or does not shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpacked {
    /// DATA, as the stock plugin sends it.
    Data,
    /// A raw block, with a checksum.
    Raw,
}

/// What is fixed for a connection when EXECUTE arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// The recipient takes open files, and can share their blocks.
    pub(super) shares: bool,
    /// The recipient takes blocks in a packed form.
    pub(super) packs: bool,
    /// The recipient takes raw blocks.
    pub(super) takes_raw: bool,
    /// The recipient has sent digests of a base, and takes blocks without what is equal.
    pub(super) compares: bool,
    /// Bytes cross the network as they are sent: no TLS, and no compression of the classic
    /// protocol.
    pub(super) is_plain: bool,
}

/// What is known of one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockFacts {
    /// The block's descriptor may carry a key, which needs TLS.
    pub(super) is_secure: bool,
    /// The file system may share blocks, the donor cannot write through this open file, and the
    /// file does not end before the block.
    pub(super) may_share: bool,
    /// The packer says that recent blocks did not shrink.
    pub(super) should_skip: bool,
    /// There are digests of units of this block.
    pub(super) has_digests: bool,
}

impl Terms {
    /// The way of a block with these facts.
    ///
    /// TLS protects the bytes better than a checksum does: a raw block is for plain connections.
    pub(super) fn way(self, block: BlockFacts) -> Way {
        let checksum = self.takes_raw && self.is_plain;
        if self.shares_block(block.may_share, block.is_secure) {
            return Way::Share;
        }
        let pack = self.packs_block(block.should_skip);
        if self.compares && block.has_digests && !block.is_secure {
            return Way::Compare { pack, unpacked: self.unpacked() };
        }
        if self.is_plain && !pack && !block.is_secure {
            return Way::Stream { checksum };
        }
        Way::Packet { pack, unpacked: self.unpacked() }
    }

    /// Whether the way of a block is [`Way::Share`]. No packer is asked about such a block.
    pub(super) fn shares_block(self, may_share: bool, is_secure: bool) -> bool {
        self.shares && may_share && !is_secure
    }

    /// Whether a block that is not shared is packed if that helps.
    pub(super) fn packs_block(self, should_skip: bool) -> bool {
        self.packs && !should_skip
    }

    /// The packet of bytes that are in memory already, and are not packed.
    pub(super) fn unpacked(self) -> Unpacked {
        if self.takes_raw && self.is_plain { Unpacked::Raw } else { Unpacked::Data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `check` with each of the 512 combinations.
    fn each(mut check: impl FnMut(Terms, BlockFacts, Way)) {
        for bits in 0..1 << 9 {
            let bit = |at: u8| bits & (1 << at) != 0;
            let (shares, packs, takes_raw, is_plain) = (bit(0), bit(1), bit(2), bit(3));
            let terms = Terms { shares, packs, takes_raw, compares: bit(7), is_plain };
            let (is_secure, may_share, should_skip) = (bit(4), bit(5), bit(6));
            let block = BlockFacts { is_secure, may_share, should_skip, has_digests: bit(8) };
            check(terms, block, terms.way(block));
        }
    }

    /// The table of docs/design.md, from top to bottom: the first row that fits decides.
    #[test]
    fn the_whole_matrix() {
        let mut counts = [0; 7];
        each(|terms, block, way| {
            use Unpacked::{Data, Raw};
            let Terms { shares, packs, takes_raw, compares, is_plain } = terms;
            let BlockFacts { is_secure, may_share, should_skip, has_digests } = block;
            let unpacked = if takes_raw && is_plain { Raw } else { Data };
            let (row, expected) = match (is_secure, shares && may_share, packs && !should_skip) {
                (true, _, pack) => (0, Way::Packet { pack, unpacked }),
                (false, true, _) => (1, Way::Share),
                (false, false, pack) if compares && has_digests => {
                    (6, Way::Compare { pack, unpacked })
                }
                (false, false, true) => (2, Way::Packet { pack: true, unpacked }),
                (false, false, false) if is_plain && takes_raw => {
                    (3, Way::Stream { checksum: true })
                }
                (false, false, false) if is_plain => (4, Way::Stream { checksum: false }),
                (false, false, false) => (5, Way::Packet { pack: false, unpacked: Data }),
            };
            assert_eq!(way, expected, "{terms:?} {block:?}");
            counts[row] += 1;
        });
        assert_eq!(counts, [256, 64, 36, 27, 27, 54, 48]);
    }

    #[test]
    fn a_key_never_leaves_mysqlds_connection() {
        each(|_, block, way| {
            assert!(!block.is_secure || matches!(way, Way::Packet { .. }));
        });
    }

    #[test]
    fn a_stock_recipient_gets_data_only() {
        each(|terms, _, way| {
            if !terms.shares && !terms.packs && !terms.takes_raw && !terms.compares {
                let data = Way::Packet { pack: false, unpacked: Unpacked::Data };
                assert!([data, Way::Stream { checksum: false }].contains(&way), "{way:?}");
            }
        });
    }
}
