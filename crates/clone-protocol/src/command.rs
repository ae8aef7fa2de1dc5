// SPDX-License-Identifier: GPL-2.0-only

//! Commands, recipient to donor (`plugin/clone/src/clone_client.cc:prepare_command_buffer`,
//! `clone_server.cc:parse_command_buffer`).

use crate::Base;
use crate::EngineLocator;
use crate::Heartbeat;
use crate::ProtocolError;
use crate::wire::Reader;
use crate::wire::put_counted_le;

/// The recipient's request not to take the donor's backup lock, sent in the time-out's top bit.
const NO_BACKUP_LOCK: u32 = 1 << 31;

/// The recipient sends [`Command::Heartbeat`], said in a bit of its version. A donor that does not
/// know the bit reads a version above its own, and answers with its own.
const SENDS_HEARTBEATS: u32 = 1 << 16;

/// A command. On the wire its [`CommandCode`] stands before the payload, where an ordinary MySQL
/// command has its own code, so the server hands the two over apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Begin a clone: negotiate, take the snapshot, send the parameters.
    Init(Init),
    /// Add this connection as a worker of the clone that the locators name.
    Attach(Init),
    /// Go on with a clone after the network broke; the locators say how far it came.
    Reinit(Init),
    /// Send data until there is no more.
    Execute,
    /// The recipient finished a snapshot state, or failed.
    Ack(Ack<'a>),
    /// Leave clone mode.
    Exit,
    /// The recipient lives. Not of the stock plugin: only for a donor that has named a connection
    /// ([`HEARTBEAT_CONFIG`](crate::HEARTBEAT_CONFIG)).
    Heartbeat(Heartbeat),
    /// Digests of an older copy that the recipient has. Not of the stock plugin: only for a donor
    /// that has announced [`BASE_CONFIG`](crate::BASE_CONFIG).
    Base(Base<'a>),
}

impl<'a> Command<'a> {
    /// Parses a payload as the command that `code` says.
    ///
    /// Bytes after EXECUTE and EXIT, which have no payload, are ignored as stock ignores them.
    ///
    /// # Errors
    ///
    /// The code is no command, or the payload is not exactly that command's.
    pub fn parse(code: u8, payload: &'a [u8]) -> Result<Self, ProtocolError> {
        Ok(match CommandCode::try_from(code)? {
            CommandCode::Init => Self::Init(Init::parse(payload)?),
            CommandCode::Attach => Self::Attach(Init::parse(payload)?),
            CommandCode::Reinit => Self::Reinit(Init::parse(payload)?),
            CommandCode::Execute => Self::Execute,
            CommandCode::Ack => Self::Ack(Ack::parse(payload)?),
            CommandCode::Exit => Self::Exit,
            CommandCode::Heartbeat => Self::Heartbeat(Heartbeat::parse(payload)?),
            CommandCode::Base => Self::Base(Base::parse(payload)?),
        })
    }

    /// The byte that goes before the payload.
    pub fn code(&self) -> CommandCode {
        match self {
            Self::Init(_) => CommandCode::Init,
            Self::Attach(_) => CommandCode::Attach,
            Self::Reinit(_) => CommandCode::Reinit,
            Self::Execute => CommandCode::Execute,
            Self::Ack(_) => CommandCode::Ack,
            Self::Exit => CommandCode::Exit,
            Self::Heartbeat(_) => CommandCode::Heartbeat,
            Self::Base(_) => CommandCode::Base,
        }
    }

    /// Replaces what is in `out` by the payload, without the code.
    pub fn encode_payload(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Init(init) | Self::Attach(init) | Self::Reinit(init) => init.encode(out),
            Self::Ack(ack) => ack.encode(out),
            Self::Heartbeat(heartbeat) => heartbeat.encode(out),
            Self::Base(base) => base.encode(out),
            Self::Execute | Self::Exit => {}
        }
    }
}

/// The code byte of a [`Command`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CommandCode {
    /// COM_INIT.
    Init = 1,
    /// COM_ATTACH.
    Attach = 2,
    /// COM_REINIT.
    Reinit = 3,
    /// COM_EXECUTE.
    Execute = 4,
    /// COM_ACK.
    Ack = 5,
    /// COM_EXIT.
    Exit = 6,
    /// Not of the stock plugin, which has its codes close together: far from them.
    Heartbeat = 32,
    /// As [`Heartbeat`](Self::Heartbeat).
    Base = 33,
}

impl TryFrom<u8> for CommandCode {
    type Error = ProtocolError;

    fn try_from(code: u8) -> Result<Self, ProtocolError> {
        Ok(match code {
            1 => Self::Init,
            2 => Self::Attach,
            3 => Self::Reinit,
            4 => Self::Execute,
            5 => Self::Ack,
            6 => Self::Exit,
            32 => Self::Heartbeat,
            33 => Self::Base,
            _ => return Err(ProtocolError::new("Wrong Clone RPC: Invalid request")),
        })
    }
}

/// The payload of INIT, ATTACH and REINIT: `u32` version, `u32` time-out with a flag, locators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The highest version the recipient speaks; see [`Version::negotiate`](crate::Version).
    pub version: u32,
    /// The recipient's `clone_ddl_timeout` in seconds, for the donor to wait for its backup lock.
    /// At most 31 bits; the encoder drops a higher one.
    pub ddl_timeout: u32,
    /// The recipient's `clone_block_ddl`: the donor is to take its backup lock.
    pub block_ddl: bool,
    /// The recipient sends heartbeats, and takes the name of this connection before the answer.
    pub sends_heartbeats: bool,
    /// One locator for each engine. InnoDB sends a version locator with INIT, the donor's with
    /// ATTACH and a restart locator with REINIT.
    pub locators: Vec<EngineLocator>,
}

impl Init {
    fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        Self::fields(&mut reader)
            .ok_or_else(|| ProtocolError::new("Wrong Clone RPC: Init buffer length"))
    }

    fn fields(reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.u32_le()?;
        let timeout = reader.u32_le()?;
        Some(Self {
            version: version & !SENDS_HEARTBEATS,
            sends_heartbeats: version & SENDS_HEARTBEATS != 0,
            ddl_timeout: timeout & !NO_BACKUP_LOCK,
            block_ddl: timeout & NO_BACKUP_LOCK == 0,
            locators: EngineLocator::parse_all(reader)?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let flag = if self.block_ddl { 0 } else { NO_BACKUP_LOCK };
        let beats = if self.sends_heartbeats { SENDS_HEARTBEATS } else { 0 };
        out.extend_from_slice(&(self.version & !SENDS_HEARTBEATS | beats).to_le_bytes());
        out.extend_from_slice(&(self.ddl_timeout & !NO_BACKUP_LOCK | flag).to_le_bytes());
        for locator in &self.locators {
            locator.encode(out);
        }
    }
}

/// The payload of ACK: `i32` error, one locator, `u32` length, descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack<'a> {
    /// 0, or the MySQL error number with which the recipient fails.
    pub error: i32,
    /// The engine that is meant, with the donor's locator.
    pub locator: EngineLocator,
    /// The engine's acknowledging descriptor; empty with an error.
    pub descriptor: &'a [u8],
}

impl<'a> Ack<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        Self::fields(Reader::new(payload))
            .ok_or_else(|| ProtocolError::new("Wrong Clone RPC: Init ACK length"))
    }

    fn fields(mut reader: Reader<'a>) -> Option<Self> {
        let error = reader.i32_le()?;
        let locator = EngineLocator::parse(&mut reader)?;
        let descriptor = reader.counted_le()?;
        reader.is_empty().then_some(Self { error, locator, descriptor })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.error.to_le_bytes());
        self.locator.encode(out);
        put_counted_le(out, self.descriptor);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
