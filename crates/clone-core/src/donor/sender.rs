// SPDX-License-Identifier: GPL-2.0-only

//! What a donor's engine calls while it copies: each descriptor leaves in a packet, and its data behind it.
//!
//! Three ways, the first that can be taken:
//!
//! * From the file to the connection inside the kernel, as DATA ([`DonorLink::send_file`]): nothing is to be packed, the connection
//!   is plain, and the kernel is able to.
//! * As a [`Block`] with a checksum, packed if that helps: the recipient has offered to take it.
//! * As DATA, like the stock plugin.

use std::os::fd::BorrowedFd;

use clone_io::{AlignedBuffer, Codec, Packer};
use clone_protocol::{BLOCK_HEAD, Block, BlockForm, Offer, Response, ResponseCode, innodb};

use crate::error::{Error, Result};
use crate::point::{self, Point};
use crate::session::{Callbacks, DonorLink, Session, TransferError, View};

/// What a connection sends from, and what it agreed with the recipient about that.
#[derive(Default)]
pub(super) struct Buffers {
    /// Descriptors are built here.
    packet: Vec<u8>,
    /// Data is read here, with room in front of it for what precedes it in the packet.
    data: AlignedBuffer,
    /// There if the recipient takes blocks, and wants them packed. Else it gets DATA: over TLS bytes are protected better than by a
    /// checksum, which is not free, and plain connections are for those who want the least work.
    packer: Option<Packer>,
}

impl Buffers {
    /// Does as the recipient would like.
    pub(super) fn agree(&mut self, offer: Option<Offer>) -> Result<()> {
        let level = offer.and_then(|offer| offer.packing.level());
        let packer = level.map(Packer::new).transpose();
        self.packer =
            packer.map_err(|error| Error::Internal(format!("Clone compression: {error}")))?;
        Ok(())
    }

    /// Bytes in front of the data in its packet.
    fn headroom(&self) -> usize {
        if self.packer.is_some() { BLOCK_HEAD } else { 1 }
    }

    /// Room for `len` bytes of data.
    fn place(&mut self, len: usize) -> &mut [u8] {
        let headroom = self.headroom();
        &mut self.data.with_headroom(headroom, len)[headroom..]
    }

    /// The packet with the `len` bytes that were put into their place.
    fn pack(&mut self, len: usize) -> Result<&mut [u8]> {
        let Some(packer) = &mut self.packer else {
            let packet = self.data.with_headroom(1, len);
            packet[0] = ResponseCode::Data as u8;
            return Ok(packet);
        };
        let packet = self.data.with_headroom(BLOCK_HEAD, len);
        let data = &packet[BLOCK_HEAD..];
        let length = u32::try_from(len)
            .map_err(|_| Error::Internal("Clone data is longer than 4 GiB".to_owned()))?;
        let checksum = clone_io::checksum(data);
        let head = |form| Block::head(ResponseCode::Block as u8, form, length, checksum);
        let (form, packet) = match packer.pack(data, BLOCK_HEAD) {
            Some((Codec::Lz4, packed)) => (BlockForm::Lz4, packed),
            Some((Codec::Zstd, packed)) => (BlockForm::Zstd, packed),
            Some((Codec::Raw, _)) | None => (BlockForm::Raw, packet),
        };
        packet[..BLOCK_HEAD].copy_from_slice(&head(form));
        Ok(packet)
    }
}

/// Sends what an engine copies.
pub(super) struct Sender<'a, S: Session> {
    pub(super) session: &'a S,
    pub(super) link: &'a mut dyn DonorLink,
    pub(super) db_type: u8,
    pub(super) locator_index: u8,
    /// The master's, if engines follow InnoDB.
    pub(super) point: Option<&'a Point<S::Engine>>,
    pub(super) buffers: &'a mut Buffers,
}

impl<S: Session> Sender<'_, S> {
    fn check_killed(&self) -> Result<()> {
        if self.session.is_killed() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn encode_descriptor(&mut self, view: &View<'_>) {
        Response::DataDescriptor {
            db_type: self.db_type,
            locator_index: self.locator_index,
            descriptor: view.descriptor,
        }
        .encode(&mut self.buffers.packet);
    }

    fn send_descriptor(&mut self, view: &View<'_>) -> Result<()> {
        self.encode_descriptor(view);
        let sent = self.link.send(view.is_secure, &mut self.buffers.packet);
        if view.is_secure {
            zeroize::Zeroize::zeroize(self.buffers.packet.as_mut_slice());
        }
        sent
    }

    /// Sends the block inside the kernel; false if that is not possible, and nothing has happened.
    fn send_inside_kernel(
        &mut self,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        len: u32,
    ) -> Result<bool> {
        let is_discouraged = self.buffers.packer.as_ref().is_none_or(Packer::is_discouraged);
        if !is_discouraged || view.is_secure {
            return Ok(false);
        }
        self.encode_descriptor(view);
        let sent = self.link.send_file(&self.buffers.packet, file, len);
        if let (Ok(true), Some(packer)) = (&sent, &mut self.buffers.packer) {
            packer.passed_by();
        }
        sent.map_err(|error| match error {
            TransferError::Link(error) => error,
            TransferError::File(error) => Error::file(false, view.source_name, &error),
        })
    }
}

impl<S: Session> Callbacks for Sender<'_, S> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.check_killed()?;
        if self.send_inside_kernel(view, file, len)? {
            return Ok(());
        }
        // First the data, then its descriptor: a file that cannot be read must not leave the recipient waiting for it.
        let len = len as usize;
        clone_io::read_exact(file, self.buffers.place(len))
            .map_err(|error| Error::file(false, view.source_name, &error))?;
        self.send_descriptor(view)?;
        self.link.send(false, self.buffers.pack(len)?)
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.check_killed()?;
        if let Some(point) = self.point
            && self.db_type == innodb::DB_TYPE
            && point::begins_redo_copy(view.descriptor)
        {
            point.reach();
        }
        self.send_descriptor(view)?;
        if data.is_empty() {
            return Ok(());
        }
        self.buffers.place(data.len()).copy_from_slice(data);
        self.link.send(false, self.buffers.pack(data.len())?)
    }

    fn apply_file(&mut self, _: &View<'_>, _: BorrowedFd<'_>) -> Result<()> {
        Err(Error::Internal("Apply callback from Clone Server".to_owned()))
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        Err(Error::Internal("Apply callback from Clone Server".to_owned()))
    }
}
