// SPDX-License-Identifier: GPL-2.0-only

//! What a packet means on its connection: MySQL's connection phase as far as it matters here, then
//! commands, and COM_CLONE between its OK and its EXIT.

use clone_protocol::innodb::{Data, Descriptor, SnapshotState, State};
use clone_protocol::{Command, CommandCode, HEARTBEAT_CONFIG, Response, Version};

use super::wire::{Framing, HEADER_LEN};

/// Capability flags of the connection phase (`include/mysql_com.h`).
const CLIENT_COMPRESS: u32 = 1 << 5;
const CLIENT_SSL: u32 = 1 << 11;
const CLIENT_ZSTD_COMPRESSION_ALGORITHM: u32 = 1 << 26;

/// Length of the packet that asks for TLS, which is the beginning of a login.
const SSL_REQUEST_LEN: usize = 32;
/// First byte of an OK packet.
const OK: u8 = 0;
/// The command that begins a clone.
const COM_CLONE: u8 = 0x20;

/// What a packet means.
#[derive(Debug, PartialEq)]
pub(super) enum Event<'a> {
    /// Nothing of interest.
    Other,
    /// The rest of the connection is not to be read.
    Opaque(Channel),
    /// The connection is in COM_CLONE from here on.
    Cloning,
    /// A command of the recipient.
    Command(Command<'a>),
    /// An answer to INIT, with this code, before its locators.
    Parameter(u8),
    /// The donor's locators, and what it will speak.
    Locators(Version),
    /// The donor starts or ends a state.
    State(State),
    /// The end of the answer to a command; with the state if it was its acknowledgement.
    Complete(CommandCode, Option<SnapshotState>),
}

/// Why a connection cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Channel {
    Tls,
    Compressed,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Until the recipient's first packet.
    Greeting,
    /// Until the donor's OK.
    Login { compresses: bool },
    /// Ordinary commands; the last one may have asked for COM_CLONE.
    Command { asked_to_clone: bool },
    /// COM_CLONE.
    Clone,
    /// To the end.
    Opaque,
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Dialogue {
    phase: Phase,
    /// The command that is not complete, and the state that it acknowledges.
    asked: Option<(CommandCode, Option<SnapshotState>)>,
    /// What the next DATA packet carries.
    data: Option<Data>,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Greeting, asked: None, data: None }
    }

    /// How to cut the recipient's bytes.
    pub(super) fn recipient_framing(&self) -> Framing {
        match self.phase {
            Phase::Opaque => Framing::None,
            _ => Framing::Packets,
        }
    }

    /// How to cut the donor's bytes.
    pub(super) fn donor_framing(&self) -> Framing {
        match self.phase {
            Phase::Opaque => Framing::None,
            Phase::Clone => Framing::Responses,
            _ => Framing::Packets,
        }
    }

    /// Whether the connection is in COM_CLONE.
    pub(super) fn is_cloning(&self) -> bool {
        self.phase == Phase::Clone
    }

    /// What the data that come now belong to.
    pub(super) fn data(&self) -> Option<Data> {
        self.data
    }

    pub(super) fn recipient_sent<'a>(&mut self, packet: &'a [u8]) -> Event<'a> {
        let payload = packet.get(HEADER_LEN..).unwrap_or_default();
        match self.phase {
            Phase::Greeting => self.login(payload),
            Phase::Command { .. } => {
                self.phase = Phase::Command { asked_to_clone: payload == [COM_CLONE] };
                Event::Other
            }
            Phase::Clone => self.command(payload),
            Phase::Login { .. } | Phase::Opaque => Event::Other,
        }
    }

    pub(super) fn donor_sent<'a>(&mut self, packet: &'a [u8]) -> Event<'a> {
        let payload = packet.get(HEADER_LEN..).unwrap_or_default();
        let is_ok = payload.first() == Some(&OK);
        match self.phase {
            Phase::Login { compresses } if is_ok => {
                if compresses {
                    self.phase = Phase::Opaque;
                    return Event::Opaque(Channel::Compressed);
                }
                self.phase = Phase::Command { asked_to_clone: false };
                Event::Other
            }
            Phase::Command { asked_to_clone: true } if is_ok => {
                self.phase = Phase::Clone;
                Event::Cloning
            }
            // Refused.
            Phase::Command { asked_to_clone: true } => {
                self.phase = Phase::Command { asked_to_clone: false };
                Event::Other
            }
            Phase::Clone => self.response(payload),
            _ => Event::Other,
        }
    }

    /// The first packet of the recipient: `u32` little-endian capabilities, then more.
    fn login(&mut self, payload: &[u8]) -> Event<'static> {
        let flags = payload.first_chunk().copied().map_or(0, u32::from_le_bytes);
        if flags & CLIENT_SSL != 0 && payload.len() == SSL_REQUEST_LEN {
            self.phase = Phase::Opaque;
            return Event::Opaque(Channel::Tls);
        }
        let compresses = flags & (CLIENT_COMPRESS | CLIENT_ZSTD_COMPRESSION_ALGORITHM) != 0;
        self.phase = Phase::Login { compresses };
        Event::Other
    }

    fn command<'a>(&mut self, payload: &'a [u8]) -> Event<'a> {
        let Some((&code, rest)) = payload.split_first() else { return Event::Other };
        let Ok(command) = Command::parse(code, rest) else { return Event::Other };
        let state = match &command {
            Command::Ack(ack) if ack.error == 0 => match Descriptor::parse(ack.descriptor) {
                Ok(Descriptor::State(state)) => Some(state.state),
                _ => None,
            },
            _ => None,
        };
        self.asked = Some((command.code(), state));
        Event::Command(command)
    }

    fn response<'a>(&mut self, payload: &'a [u8]) -> Event<'a> {
        let Ok(response) = Response::parse(payload) else { return Event::Other };
        let code = response.code() as u8;
        match response {
            Response::Locators { version, .. } => Event::Locators(version),
            Response::DataDescriptor { descriptor, .. } => self.descriptor(descriptor),
            Response::Complete => match self.asked.take() {
                Some((command, state)) => {
                    if command == CommandCode::Exit {
                        self.phase = Phase::Command { asked_to_clone: false };
                    }
                    Event::Complete(command, state)
                }
                None => Event::Other,
            },
            // Only between plugins of this project, and not of the clone.
            Response::ConfigV3 { name: HEARTBEAT_CONFIG, .. } | Response::Heartbeat(_) => {
                Event::Other
            }
            // The donor stays in COM_CLONE.
            Response::Data(_) | Response::Block(_) | Response::Error { .. } => Event::Other,
            _ => Event::Parameter(code),
        }
    }

    fn descriptor(&mut self, descriptor: &[u8]) -> Event<'static> {
        self.data = None;
        match Descriptor::parse(descriptor) {
            Ok(Descriptor::Data(data)) => self.data = Some(data),
            // One with `ack` only keeps the connection alive.
            Ok(Descriptor::State(state)) if !state.ack => return Event::State(state),
            _ => {}
        }
        Event::Other
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[len, 0, 0, 0], payload].concat()
    }

    fn login(flags: u32, len: usize) -> Vec<u8> {
        let mut payload = flags.to_le_bytes().to_vec();
        payload.resize(len, 0);
        packet(&payload)
    }

    fn cloning() -> Dialogue {
        let mut dialogue = Dialogue::new();
        assert_eq!(dialogue.donor_sent(&packet(b"\x0a9.7.4")), Event::Other);
        assert_eq!(dialogue.recipient_sent(&login(0, 80)), Event::Other);
        // More authentication data, then OK.
        assert_eq!(dialogue.donor_sent(&packet(b"\x01\x03")), Event::Other);
        assert_eq!(dialogue.donor_sent(&packet(b"\x00\0\0")), Event::Other);
        assert_eq!(dialogue.donor_framing(), Framing::Packets);
        dialogue.recipient_sent(&packet(&[COM_CLONE]));
        assert_eq!(dialogue.donor_sent(&packet(b"\x00\0\0")), Event::Cloning);
        assert_eq!(dialogue.donor_framing(), Framing::Responses);
        dialogue
    }

    #[test]
    fn a_clone_from_its_beginning_to_its_end() {
        let mut dialogue = cloning();
        let execute = packet(&[CommandCode::Execute as u8]);
        assert_eq!(dialogue.recipient_sent(&execute), Event::Command(Command::Execute));
        let mut state = Vec::new();
        Descriptor::State(State {
            state: SnapshotState::FileCopy,
            task: 0,
            chunks: 1,
            files: 1,
            estimate: 1,
            estimate_disk: 1,
            start: true,
            ack: false,
        })
        .encode(&mut state);
        let mut descriptor = Vec::new();
        Response::DataDescriptor { db_type: 12, locator_index: 0, descriptor: &state }
            .encode(&mut descriptor);
        let descriptor = packet(&descriptor);
        assert!(matches!(dialogue.donor_sent(&descriptor), Event::State(state) if state.start));
        let complete = packet(b"\x63");
        let executed = Event::Complete(CommandCode::Execute, None);
        assert_eq!(dialogue.donor_sent(&complete), executed);
        dialogue.recipient_sent(&packet(&[CommandCode::Exit as u8]));
        let exited = Event::Complete(CommandCode::Exit, None);
        assert_eq!(dialogue.donor_sent(&complete), exited);
        // COM_QUIT is no command of a clone.
        assert_eq!(dialogue.recipient_sent(&packet(&[1])), Event::Other);
    }

    #[test]
    fn a_refused_clone_is_none() {
        let mut dialogue = Dialogue::new();
        dialogue.recipient_sent(&login(0, 80));
        dialogue.donor_sent(&packet(b"\x00\0\0"));
        dialogue.recipient_sent(&packet(&[COM_CLONE]));
        assert_eq!(dialogue.donor_sent(&packet(b"\xff\xcb\x04denied")), Event::Other);
        assert_eq!(dialogue.donor_sent(&packet(b"\x00\0\0")), Event::Other);
    }

    #[test]
    fn what_cannot_be_read() {
        let mut dialogue = Dialogue::new();
        let request = login(CLIENT_SSL, SSL_REQUEST_LEN);
        assert_eq!(dialogue.recipient_sent(&request), Event::Opaque(Channel::Tls));
        assert_eq!(dialogue.recipient_framing(), Framing::None);

        let mut dialogue = Dialogue::new();
        dialogue.recipient_sent(&login(CLIENT_COMPRESS, 80));
        assert_eq!(dialogue.donor_framing(), Framing::Packets);
        let compressed = Event::Opaque(Channel::Compressed);
        assert_eq!(dialogue.donor_sent(&packet(b"\x00\0\0")), compressed);
        assert_eq!(dialogue.donor_framing(), Framing::None);
    }
}
