// SPDX-License-Identifier: GPL-2.0-only

//! Commands byte for byte, cut, and with wrong lengths.

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
        sends_heartbeats: false,
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
fn heartbeats_are_announced_in_a_bit_of_the_version() {
    let beats = Init { sends_heartbeats: true, ..init(Vec::new()) };
    let bytes = payload(&Command::Init(beats.clone()));
    assert_eq!(bytes[..4], [3, 1, 1, 0]);
    assert_eq!(Command::parse(1, &bytes), Ok(Command::Init(beats)));
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
    for code in (0..=u8::MAX).filter(|code| !matches!(code, 1..=6 | 32 | 33)) {
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
        version in any::<u32>().prop_map(|version| version & !SENDS_HEARTBEATS),
        ddl_timeout in 0_u32..1 << 31,
        block_ddl: bool,
        sends_heartbeats: bool,
        locators in prop::collection::vec(engine_locator(), 0..=MAX_ENGINES),
    ) {
        let command =
            Command::Init(Init { version, ddl_timeout, block_ddl, sends_heartbeats, locators });
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
