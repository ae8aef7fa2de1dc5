// SPDX-License-Identifier: GPL-2.0-only

//! Peers that do what they must not.

use std::sync::Arc;
use std::time::Duration;

use clone_core::link::{Link, LinkKind, Patience};
use clone_core::session::RecipientSession;
use clone_protocol::innodb::{DB_TYPE, Descriptor, Locator, SnapshotState, State};
use clone_protocol::{
    Ack, BLOCK_HEAD, BLOCK_TAIL, Command, CommandCode, EngineLocator, Init, Packing, Response,
    ResponseCode, Version,
};

use crate::sim::faults::{Action, End, Event, Role, Step, Wire};
use crate::sim::network::SimLink;
use crate::sim::session::SimSession;
use crate::sim::world::{Setup, Target, World};

/// A recipient of our own making.
struct Client {
    session: SimSession,
    link: Option<SimLink>,
}

impl Client {
    fn connect(world: &World) -> Self {
        let session = SimSession::user(&world.recipient);
        let link = session.connect(&world.donor_address(), LinkKind::Data, false).unwrap();
        Self { session, link: Some(link) }
    }

    /// Sends a command, and gives the packets up to the last.
    fn call(&mut self, command: &Command<'_>) -> Vec<Vec<u8>> {
        self.send(command);
        let mut packets = Vec::new();
        loop {
            let packet = self.receive(20_000);
            let is_last = [ResponseCode::Complete as u8, ResponseCode::Error as u8];
            let is_last = is_last.contains(&packet[0]);
            packets.push(packet);
            if is_last {
                return packets;
            }
        }
    }

    fn send(&mut self, command: &Command<'_>) {
        let mut payload = Vec::new();
        command.encode_payload(&mut payload);
        let link = self.link.as_mut().unwrap();
        link.send(&self.session, true, command.code(), &payload).unwrap();
    }

    fn receive(&mut self, patience: u32) -> Vec<u8> {
        let link = self.link.as_mut().unwrap();
        let limit = Duration::from_secs(patience.into());
        let patience = Patience { limit, allows_as_server: true, lives: None };
        link.receive(&self.session, true, &patience).unwrap().data.to_vec()
    }

    /// Reads up to the end of a state, and acknowledges it over the other connection.
    fn acknowledge(
        &mut self,
        auxiliary: &mut Self,
        located: &[EngineLocator],
        ends: SnapshotState,
    ) {
        let end = loop {
            let packet = self.receive(0);
            match Descriptor::parse(packet.get(3..).unwrap_or_default()) {
                Ok(Descriptor::State(end)) if end.state == ends && !end.start => break end,
                _ => {}
            }
        };
        let mut descriptor = Vec::new();
        Descriptor::State(State { ack: true, ..end }).encode(&mut descriptor);
        let locator = located[0].clone();
        auxiliary.accepted(&Command::Ack(Ack { error: 0, locator, descriptor: &descriptor }));
    }

    /// The command must fail with this number and text; the dialogue goes on.
    #[track_caller]
    fn refused(&mut self, command: &Command<'_>, number: i32, text: &str) {
        let packets = self.call(command);
        let last = Response::parse(packets.last().unwrap()).unwrap();
        assert_eq!(last, Response::Error { number, message: text.as_bytes() });
    }

    #[track_caller]
    fn accepted(&mut self, command: &Command<'_>) -> Vec<EngineLocator> {
        let packets = self.call(command);
        assert_eq!(packets.last().unwrap()[..], [ResponseCode::Complete as u8]);
        let mut responses = packets.iter().map(|packet| Response::parse(packet).unwrap());
        let located = responses.find_map(|response| match response {
            Response::Locators { locators, .. } => Some(locators),
            _ => None,
        });
        located.unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.disconnect(Some(&self.session), true, false);
        }
    }
}

fn init(locators: Vec<EngineLocator>) -> Init {
    Init {
        version: Version::LATEST.number(),
        ddl_timeout: 10,
        block_ddl: true,
        sends_heartbeats: false,
        locators,
    }
}

fn version_locator() -> EngineLocator {
    let mut bytes = Vec::new();
    Descriptor::Locator(Locator {
        version: 100,
        clone_id: 0,
        snapshot_id: 0,
        index: 0,
        state: SnapshotState::None,
        metadata_transferred: false,
        progress: None,
    })
    .encode(&mut bytes);
    EngineLocator { db_type: DB_TYPE, bytes }
}

/// The stock donor keeps snapshot and lock until the recipient says goodbye, for eight hours if it
/// does not.
#[test]
fn a_recipient_that_stalls_after_an_error_of_init() {
    Setup::new(1).run(|world| {
        world.donor.set_variable("max_allowed_packet", "1048576");
        let mut client = Client::connect(world);
        let packets = client.call(&Command::Init(init(vec![version_locator()])));
        let Ok(Response::Error { number, .. }) = Response::parse(&packets[0]) else {
            panic!("{packets:?}");
        };
        assert_eq!(number, 3957);
        // It may be about to do it.
        world.sim.sleep(Duration::from_millis(100));
        assert!(!world.donor.innodb.has_source());
        assert!(world.donor.backup_lock_holders().is_empty());
        world.donor.set_variable("max_allowed_packet", "67108864");
        world.clone_remote(Target::Directory("clone")).assert_ok();
        client.accepted(&Command::Exit);
    });
}

/// The same in EXECUTE. A worker that has attached and then does nothing holds the snapshot, for as
/// long as InnoDB waits for it, but not the lock.
#[test]
fn a_recipient_that_stalls_after_an_error_of_execute() {
    for has_worker in [false, true] {
        let mut setup = Setup::new(2);
        // The donor comes no further than the client reads.
        setup.network.window = 1;
        setup.run(move |world| {
            world.interfere(|event| match event {
                Event::Engine(Step::Copy(_)) => Action::Fail(1815),
                _ => Action::Pass,
            });
            let mut client = Client::connect(world);
            let located = client.accepted(&Command::Init(init(vec![version_locator()])));
            let mut auxiliary = Client::connect(world);
            let mut worker = Client::connect(world);
            client.send(&Command::Execute);
            client.acknowledge(&mut auxiliary, &located, SnapshotState::Init);
            if has_worker {
                worker.accepted(&Command::Attach(init(located.clone())));
            }
            while client.receive(0)[0] != ResponseCode::Error as u8 {}
            world.sim.sleep(Duration::from_millis(100));
            assert_eq!(world.donor.innodb.has_source(), has_worker);
            assert!(world.donor.backup_lock_holders().is_empty());
            if !has_worker {
                let text = "Wrong Clone RPC: Execute request before Init";
                client.refused(&Command::Execute, 3863, text);
            }
        });
    }
}

#[test]
fn commands_out_of_order() {
    Setup::new(3).run(|world| {
        let mut client = Client::connect(world);
        let located = version_locator();
        let ours = || vec![version_locator()];
        client.refused(&Command::Execute, 3863, "Wrong Clone RPC: Execute request before Init");
        let ack = Ack { error: 0, locator: located.clone(), descriptor: &[] };
        client.refused(&Command::Ack(ack), 1815, "Innodb Clone ACK refers non-existing clone");
        client.refused(
            &Command::Attach(init(ours())),
            1815,
            "Innodb Clone add task refers non-existing clone",
        );
        client.refused(
            &Command::Reinit(init(ours())),
            1815,
            "Innodb Clone Restart could not find existing clone",
        );
        let unknown = EngineLocator { db_type: 42, bytes: vec![1] };
        let length = "Wrong Clone RPC: Init buffer length";
        client.refused(&Command::Init(init(vec![unknown])), 3863, length);
        let broken = EngineLocator { db_type: DB_TYPE, bytes: vec![7; 40] };
        client.refused(&Command::Init(init(vec![broken])), 3863, length);
        assert!(world.donor.innodb.is_idle());
        assert!(world.donor.backup_lock_holders().is_empty());
        // A clone begins, and a second one on the same connection ends it.
        client.accepted(&Command::Init(init(ours())));
        assert!(world.donor.innodb.has_source());
        client.refused(&Command::Init(init(ours())), 3863, "Wrong Clone RPC: Invalid request");
        client.accepted(&Command::Exit);
        assert!(world.donor.innodb.is_idle());
    });
}

/// Only INIT may leave it to the donor which engines to clone.
#[test]
fn locators_are_missing() {
    Setup::new(4).run(|world| {
        let mut client = Client::connect(world);
        for command in [Command::Reinit(init(Vec::new())), Command::Attach(init(Vec::new()))] {
            let packets = client.call(&command);
            assert_eq!(packets[0][0], ResponseCode::Error as u8, "{command:?}");
            world.sim.sleep(Duration::from_millis(100));
            assert!(world.donor.innodb.is_idle(), "{command:?}");
        }
    });
}

/// What is no command is told, and the next one is waited for.
#[test]
fn unknown_commands() {
    Setup::new(5).run(|world| {
        let mut code = 0;
        world.interfere(move |event| match event {
            Event::Packet(wire) if wire.command() == Some(CommandCode::Execute) => {
                code += 50;
                Action::Replace(vec![vec![code, 1, 2, 3]])
            }
            _ => Action::Pass,
        });
        let mut client = Client::connect(world);
        for _ in 0..4 {
            client.refused(&Command::Execute, 3863, "Wrong Clone RPC: Invalid request");
        }
        client.accepted(&Command::Exit);
    });
}

/// A donor that goes on and on although it was told that the recipient cannot.
#[test]
fn a_donor_that_does_not_stop() {
    let mut setup = Setup::new(6).threads(1);
    setup.network.window = 1;
    setup.network.latency = Duration::from_millis(200);
    setup.content.pages = 400;
    setup.content.files = 5;
    setup.content.pages_in_block = 1;
    setup.run(|world| {
        world.interfere(|event| match event {
            Event::Engine(Step::Write(_)) => Action::DiskFull,
            Event::Packet(wire) if wire.command() == Some(CommandCode::Ack) => {
                let Ok(Command::Ack(ack)) = Command::parse(wire.packet[0], &wire.packet[1..])
                else {
                    panic!();
                };
                if ack.error == 0 { Action::Pass } else { Action::Replace(Vec::new()) }
            }
            _ => Action::Pass,
        });
        let outcome = world.clone_remote(Target::Directory("clone"));
        outcome.assert_error(1026);
        let seconds = outcome.took.as_secs();
        // The acknowledgement is not answered for 30 s, and then the end of the stream is awaited
        // for 30 s.
        assert!((60..70).contains(&seconds), "{seconds}");
        world.network.leave_alone();
        world.settle();
        world.clone_remote(Target::Directory("next")).assert_ok();
    });
}

/// What a donor may answer, and what ends the clone with 3863.
#[test]
fn wrong_answers() {
    fn replace(code: ResponseCode, by: fn(&Wire<'_>) -> Vec<Vec<u8>>) {
        for threads in [1, 3] {
            let mut setup = Setup::new(code as u64).threads(threads);
            let is_packed = code == ResponseCode::Block;
            setup.settings.compression = if is_packed { Packing::Zstd(1) } else { Packing::None };
            setup.run(move |world| {
                let mut left = 1;
                world.interfere(move |event| match event {
                    Event::Packet(wire)
                        if wire.to == End::Recipient
                            && wire.role == Role::Master
                            && wire.packet[0] == code as u8
                            && left > 0 =>
                    {
                        left -= 1;
                        Action::Replace(by(wire))
                    }
                    _ => Action::Pass,
                });
                let outcome = world.clone_remote(Target::Directory("clone"));
                outcome.assert_error(3863);
                assert!(outcome.took < Duration::from_secs(100), "{:?}", outcome.took);
                assert_gives_up(world);
            });
        }
    }
    use ResponseCode::{Block, Collation, Config, Data, DataDescriptor, Locators};
    // Locators: none, another version, another engine, one too many, none inside.
    replace(Locators, |_| Vec::new());
    replace(Locators, |wire| vec![[&[1, 0xff, 1, 0, 0], &wire.packet[5..]].concat()]);
    replace(Locators, |wire| vec![[&wire.packet[..5], &[13], &wire.packet[6..]].concat()]);
    replace(Locators, |wire| vec![[wire.packet, &wire.packet[5..]].concat()]);
    replace(Locators, |_| vec![vec![1, 0, 1, 0, 0, 12, 0, 0, 0, 0]]);
    // Parameters: cut short, no text, too long, too many, at the wrong time.
    replace(Collation, |wire| vec![wire.packet[..4].to_vec()]);
    replace(Config, |_| vec![vec![5, 1, 0, 0, 0, 0xff, 0, 0, 0, 0]]);
    replace(Collation, |_| vec![collation(70_000)]);
    replace(Collation, |_| vec![collation(60_000); 300]);
    replace(DataDescriptor, |_| vec![collation(10)]);
    // Descriptors: of another engine, for another place, none, data before the files.
    replace(DataDescriptor, |wire| vec![[&[2, 42], &wire.packet[2..]].concat()]);
    replace(DataDescriptor, |wire| vec![[&[2, 12, 9], &wire.packet[3..]].concat()]);
    replace(DataDescriptor, |_| vec![vec![2, 12, 0]]);
    replace(DataDescriptor, |_| vec![vec![3, 1, 2, 3]]);
    // Data: too short, too long, something else.
    replace(Block, |wire| vec![[&[3], &wire.packet[BLOCK_HEAD..BLOCK_HEAD + 8]].concat()]);
    replace(Block, |wire| {
        let end = wire.packet.len() - BLOCK_TAIL;
        vec![[&[3], &wire.packet[BLOCK_HEAD..end], &[0]].concat()]
    });
    replace(Block, |_| vec![vec![99]]);
    replace(Data, |wire| vec![wire.packet[..9].to_vec()]);
    replace(Data, |wire| vec![[wire.packet, &[0]].concat()]);
    replace(Data, |_| vec![vec![99]]);
    // Blocks: no whole head, too long, of an unknown form, announcing more than the descriptor.
    replace(Block, |wire| vec![wire.packet[..BLOCK_HEAD - 1].to_vec()]);
    replace(Block, |wire| vec![[&[32, 0], &wire.packet[2..], &[0]].concat()]);
    replace(Block, |wire| vec![[&[32, 9], &wire.packet[2..]].concat()]);
    replace(Block, |wire| vec![[&[32, 2, 0xff, 0xff, 0xff, 0xff], &wire.packet[6..]].concat()]);
}

/// The donor knows that the recipient will not come back.
#[track_caller]
fn assert_gives_up(world: &World) {
    let settled = world.settle();
    assert!(settled < Duration::from_secs(20), "the donor keeps the clone for {settled:?}");
}

/// A worker refuses what the donor sends. The donor must hear of this from the master before the
/// worker's connection ends, or else it takes the end for a network failure, and keeps the clone
/// until the recipient comes back.
#[test]
fn a_wrong_answer_to_a_worker() {
    for seed in 0..40 {
        Setup::new(seed).threads(3).run(move |world| {
            let mut left = 1;
            world.interfere(move |event| match event {
                Event::Packet(wire)
                    if wire.to == End::Recipient
                        && wire.role == Role::Worker
                        && wire.packet[0] == ResponseCode::DataDescriptor as u8
                        && left > 0 =>
                {
                    left -= 1;
                    Action::Replace(vec![vec![2, 12, 0]])
                }
                _ => Action::Pass,
            });
            let outcome = world.clone_remote(Target::Directory("clone"));
            assert!([Some(3863), Some(1815)].contains(&outcome.number()), "{:?}", outcome.warnings);
            assert_gives_up(world);
        });
    }
}

/// The name of a collation with so many bytes.
fn collation(len: u32) -> Vec<u8> {
    [&[ResponseCode::Collation as u8][..], &len.to_le_bytes(), &vec![b'c'; len as usize]].concat()
}

/// A recipient that is gone while the donor waits for its next command.
#[test]
fn a_recipient_that_vanishes_after_init() {
    Setup::new(7).run(|world| {
        let mut client = Client::connect(world);
        client.accepted(&Command::Init(init(vec![version_locator()])));
        assert_eq!(world.donor.backup_lock_holders().len(), 1);
        drop(client);
        assert!(world.settle() < Duration::from_secs(1));
        let other = Arc::clone(world);
        other.clone_remote(Target::Directory("clone")).assert_ok();
    });
}
