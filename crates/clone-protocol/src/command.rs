// SPDX-License-Identifier: GPL-2.0-only

//! Commands, recipient to donor (`plugin/clone/src/clone_client.cc:prepare_command_buffer`,
//! `clone_server.cc:parse_command_buffer`).

use crate::EngineLocator;
use crate::ProtocolError;
use crate::wire::Reader;
use crate::wire::put_counted_le;

/// The recipient's request not to take the donor's backup lock, sent in the time-out's top bit.
const NO_BACKUP_LOCK: u32 = 1 << 31;

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
        }
    }

    /// Replaces what is in `out` by the payload, without the code.
    pub fn encode_payload(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Init(init) | Self::Attach(init) | Self::Reinit(init) => init.encode(out),
            Self::Ack(ack) => ack.encode(out),
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
            version,
            ddl_timeout: timeout & !NO_BACKUP_LOCK,
            block_ddl: timeout & NO_BACKUP_LOCK == 0,
            locators: EngineLocator::parse_all(reader)?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let flag = if self.block_ddl { 0 } else { NO_BACKUP_LOCK };
        out.extend_from_slice(&self.version.to_le_bytes());
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MAX_ENGINES;
    use crate::test_support::engine_locator;

    const INNODB: u8 = 12;

    fn payload(command: &Command<'_>) -> Vec<u8> {
        let mut out = vec![0xaa; 3];
        command.encode_payload(&mut out);
        out
    }

    fn init(locator: Vec<u8>) -> Init {
        Init {
            version: 0x0103,
            ddl_timeout: 300,
            block_ddl: false,
            locators: vec![EngineLocator { db_type: INNODB, bytes: locator }],
        }
    }

    #[test]
    fn init_of_a_stock_recipient() {
        let command = Command::Init(init(vec![7; 128]));
        let bytes = payload(&command);
        assert_eq!(1 + bytes.len(), 142);
        let head = [3, 1, 0, 0, 0x2c, 1, 0, 0x80, 12, 128, 0, 0, 0, 7];
        assert_eq!(bytes[..head.len()], head);
        assert_eq!(command.code() as u8, 1);
        assert_eq!(Command::parse(1, &bytes), Ok(command));
    }

    #[test]
    fn attach_and_reinit_have_the_form_of_init() {
        for (command, code) in
            [(Command::Attach(init(vec![1; 34])), 2), (Command::Reinit(init(vec![2; 90])), 3)]
        {
            let bytes = payload(&command);
            assert_eq!(command.code() as u8, code);
            assert_eq!(Command::parse(code, &bytes), Ok(command));
        }
    }

    #[test]
    fn the_lock_flag_is_apart_from_the_timeout() {
        let locked = Init { block_ddl: true, ..init(Vec::new()) };
        let bytes = payload(&Command::Init(locked.clone()));
        assert_eq!(bytes[4..8], [0x2c, 1, 0, 0]);
        assert_eq!(Command::parse(1, &bytes), Ok(Command::Init(locked.clone())));

        let too_long = Init { ddl_timeout: u32::MAX, ..locked };
        let bytes = payload(&Command::Init(too_long));
        assert_eq!(bytes[4..8], [0xff, 0xff, 0xff, 0x7f]);
    }

    #[test]
    fn ack_of_a_stock_recipient() {
        let ack = Ack {
            error: 0,
            locator: EngineLocator { db_type: INNODB, bytes: vec![5; 34] },
            descriptor: &[6; 46],
        };
        let command = Command::Ack(ack.clone());
        let bytes = payload(&command);
        assert_eq!(1 + bytes.len(), 94);
        assert_eq!(bytes[..10], [0, 0, 0, 0, 12, 34, 0, 0, 0, 5]);
        assert_eq!(bytes[43..48], [46, 0, 0, 0, 6]);
        assert_eq!(Command::parse(5, &bytes), Ok(command));

        let failed = Command::Ack(Ack { error: -2, descriptor: &[], ..ack });
        let bytes = payload(&failed);
        assert_eq!(bytes[..4], [0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[43..], [0, 0, 0, 0]);
        assert_eq!(Command::parse(5, &bytes), Ok(failed));
    }

    #[test]
    fn execute_and_exit_have_no_payload() {
        for (command, code) in [(Command::Execute, 4), (Command::Exit, 6)] {
            assert_eq!(payload(&command), []);
            assert_eq!(command.code() as u8, code);
            assert_eq!(Command::parse(code, &[]), Ok(command.clone()));
            assert_eq!(Command::parse(code, b"ignored"), Ok(command));
        }
    }

    #[test]
    fn no_other_code_is_a_command() {
        for code in (0..=u8::MAX).filter(|code| !(1..=6).contains(code)) {
            let error = Command::parse(code, &[]).unwrap_err();
            assert_eq!(error.text(), "Wrong Clone RPC: Invalid request");
        }
    }

    /// Cut after a whole locator, INIT has fewer engines; nowhere else may it be cut.
    #[test]
    fn every_truncation_of_init() {
        let two = Init {
            locators: vec![
                EngineLocator { db_type: INNODB, bytes: vec![7; 34] },
                EngineLocator { db_type: 42, bytes: vec![8; 20] },
            ],
            ..init(Vec::new())
        };
        let bytes = payload(&Command::Init(two));
        for len in 0..bytes.len() {
            let parsed = Command::parse(1, &bytes[..len]);
            match len {
                8 | 47 => assert!(parsed.is_ok(), "{len}"),
                _ => assert_eq!(
                    parsed.unwrap_err().text(),
                    "Wrong Clone RPC: Init buffer length",
                    "{len}"
                ),
            }
        }
    }

    #[test]
    fn every_truncation_and_extension_of_ack() {
        let bytes = payload(&Command::Ack(Ack {
            error: 1,
            locator: EngineLocator { db_type: INNODB, bytes: vec![5; 34] },
            descriptor: &[6; 46],
        }));
        for len in 0..bytes.len() {
            let error = Command::parse(5, &bytes[..len]).unwrap_err();
            assert_eq!(error.text(), "Wrong Clone RPC: Init ACK length");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Command::parse(5, &longer).is_err());
    }

    #[test]
    fn lengths_that_overflow() {
        for len in [35, 0x7fff_ffff, 0x8000_0000, u32::MAX - 4, u32::MAX] {
            let mut init = payload(&Command::Init(init(vec![7; 34])));
            init[9..13].copy_from_slice(&len.to_le_bytes());
            assert!(Command::parse(1, &init).is_err(), "{len:#x}");

            let mut ack = payload(&Command::Ack(Ack {
                error: 0,
                locator: EngineLocator { db_type: INNODB, bytes: vec![5; 34] },
                descriptor: &[6; 20],
            }));
            ack[43..47].copy_from_slice(&len.to_le_bytes());
            assert!(Command::parse(5, &ack).is_err(), "{len:#x}");
        }
    }

    #[test]
    fn at_most_sixteen_engines() {
        let with = |engines: usize| Init {
            locators: vec![EngineLocator { db_type: INNODB, bytes: Vec::new() }; engines],
            ..init(Vec::new())
        };
        let most = Command::Init(with(MAX_ENGINES));
        assert_eq!(Command::parse(1, &payload(&most)), Ok(most));
        assert!(Command::parse(1, &payload(&Command::Init(with(MAX_ENGINES + 1)))).is_err());
    }

    #[test]
    fn a_locator_may_be_long_but_not_endless() {
        let largest = Command::Reinit(init(vec![0; crate::MAX_LOCATOR_LEN]));
        assert!(Command::parse(3, &payload(&largest)).is_ok());
        let over = Command::Reinit(init(vec![0; crate::MAX_LOCATOR_LEN + 1]));
        assert!(Command::parse(3, &payload(&over)).is_err());
    }

    proptest! {
        #[test]
        fn init_round_trip(
            version: u32,
            ddl_timeout in 0_u32..1 << 31,
            block_ddl: bool,
            locators in prop::collection::vec(engine_locator(), 0..=MAX_ENGINES),
        ) {
            let command = Command::Init(Init { version, ddl_timeout, block_ddl, locators });
            let encoded = payload(&command);
            prop_assert_eq!(Command::parse(1, &encoded), Ok(command));
        }

        #[test]
        fn ack_round_trip(
            error: i32,
            locator in engine_locator(),
            descriptor in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let command = Command::Ack(Ack { error, locator, descriptor: &descriptor });
            let encoded = payload(&command);
            prop_assert_eq!(Command::parse(5, &encoded), Ok(command.clone()));
        }
    }
}
