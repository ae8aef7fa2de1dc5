// SPDX-License-Identifier: GPL-2.0-only

//! The memory in which a donor's connection builds its packets.

use clone_io::{AlignedBuffer, Packer, checksum};
use clone_protocol::{
    BLOCK_HEAD, BLOCK_TAIL, Block, BlockForm, EqualUnits, MAX_BLOCK, Response, ResponseCode,
};
use zeroize::Zeroize;

use super::way::Unpacked;
use crate::error::{Error, Result};

/// Builds descriptors, and the packets of their data.
#[derive(Default)]
pub(super) struct Framer {
    descriptor: Vec<u8>,
    /// Data is read here, with room for the bytes before and behind it in the packet.
    data: AlignedBuffer,
}

impl Framer {
    /// Builds the packet of a descriptor.
    pub(super) fn describe(&mut self, db_type: u8, locator_index: u8, descriptor: &[u8]) {
        Response::DataDescriptor { db_type, locator_index, descriptor }
            .encode(&mut self.descriptor);
    }

    /// The packet that [`describe`](Self::describe) has built.
    pub(super) fn descriptor(&mut self) -> &mut Vec<u8> {
        &mut self.descriptor
    }

    /// Wipes the descriptor: it may carry a key.
    pub(super) fn wipe_descriptor(&mut self) {
        self.descriptor.as_mut_slice().zeroize();
    }

    /// Room for `len` bytes of data.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn place(&mut self, len: usize) -> Result<&mut [u8]> {
        let packet = packet(&mut self.data, len)?;
        Ok(&mut packet[BLOCK_HEAD..BLOCK_HEAD + len])
    }

    /// Returns the packet of the descriptor and the packet of the data. The data are the first
    /// `len` bytes of [`place`](Self::place). With a packer they are packed if they shrink.
    /// Otherwise `unpacked` decides.
    ///
    /// # Errors
    /// As [`place`](Self::place)'s.
    pub(super) fn finish<'a>(
        &'a mut self,
        len: usize,
        packer: Option<&'a mut Packer>,
        unpacked: Unpacked,
    ) -> Result<(&'a mut [u8], &'a mut [u8])> {
        let Self { descriptor, data } = self;
        let packet = packet(data, len)?;
        // Longer data does not fit into a BLOCK packet, so it leaves as DATA.
        let block_len = u32::try_from(len).ok().filter(|len| *len <= MAX_BLOCK);
        let Some(block_len) = block_len else { return Ok((descriptor, as_data(packet, len))) };
        let bytes = &packet[BLOCK_HEAD..BLOCK_HEAD + len];
        if let Some(packer) = packer {
            let form = packer.form();
            if let Some(packed) = packer.pack(bytes, BLOCK_HEAD, BLOCK_TAIL) {
                Block::frame(packed, form, block_len, checksum);
                return Ok((descriptor, packed));
            }
        }
        Ok(match unpacked {
            Unpacked::Data => (descriptor, as_data(packet, len)),
            Unpacked::Raw => {
                Block::frame(packet, BlockForm::Raw, block_len, checksum);
                (descriptor, packet)
            }
        })
    }
}

/// The memory of a packet with `len` bytes of data.
fn packet(data: &mut AlignedBuffer, len: usize) -> Result<&mut [u8]> {
    data.with_headroom(BLOCK_HEAD, len + BLOCK_TAIL).map_err(|_| Error::OutOfMemory(len))
}

/// The DATA packet in the memory of a block's packet.
fn as_data(packet: &mut [u8], len: usize) -> &mut [u8] {
    let packet = &mut packet[BLOCK_HEAD - 1..BLOCK_HEAD + len];
    packet[0] = ResponseCode::Data as u8;
    packet
}

/// The packet that says which units of a block are equal to the recipient's base.
pub(super) fn equal_units(equal: &EqualUnits) -> Vec<u8> {
    let mut packet = vec![0; BLOCK_HEAD];
    packet.extend_from_slice(equal.bits());
    packet.resize(packet.len() + BLOCK_TAIL, 0);
    // A block has 16 MiB at most.
    let len = u32::try_from(equal.block_len()).unwrap_or(u32::MAX);
    Block::frame(&mut packet, BlockForm::Base, len, checksum);
    packet
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clone_protocol::Packing;

    use super::*;

    fn framed(bytes: &[u8], pack: bool, unpacked: Unpacked) -> Vec<u8> {
        let mut framer = Framer::default();
        let mut packer = Packer::new(Packing::Zstd(1)).unwrap();
        framer.place(bytes.len()).unwrap().copy_from_slice(bytes);
        let packer = pack.then_some(&mut packer);
        framer.finish(bytes.len(), packer, unpacked).unwrap().1.to_vec()
    }

    #[test]
    fn each_form_parses_as_what_it_is() {
        let bytes = vec![7; 100_000];
        for unpacked in [Unpacked::Data, Unpacked::Raw] {
            let packet = framed(&bytes, true, unpacked);
            let Response::Block(block) = Response::parse(&packet).unwrap() else { panic!() };
            assert_eq!((block.form, block.len), (BlockForm::Zstd, 100_000));
            assert_eq!(block.checksum, checksum(block.bytes), "of what crosses the network");
        }
        let packet = framed(&bytes, false, Unpacked::Raw);
        let Response::Block(block) = Response::parse(&packet).unwrap() else { panic!() };
        assert_eq!((block.form, block.bytes), (BlockForm::Raw, &bytes[..]));
        assert_eq!(block.checksum, checksum(&bytes));
        let packet = framed(&bytes, false, Unpacked::Data);
        assert_eq!(Response::parse(&packet).unwrap(), Response::Data(&bytes));
    }

    #[test]
    fn what_is_longer_than_a_block_is_data() {
        let bytes = vec![0; MAX_BLOCK as usize + 1];
        for unpacked in [Unpacked::Data, Unpacked::Raw] {
            let packet = framed(&bytes, true, unpacked);
            assert!(matches!(Response::parse(&packet).unwrap(), Response::Data(_)));
        }
    }
}
