// SPDX-License-Identifier: GPL-2.0-only

//! Donors of other releases, and what must match.

use std::time::Duration;

use clone_core::session::PluginName;
use clone_protocol::innodb::SnapshotState;
use clone_protocol::{CommandCode, Response, ResponseCode, Version};

use crate::sim::faults::{Action, End, Event, Role, Wire};
use crate::sim::server::SimHost;
use crate::sim::world::{Setup, Target, World};

const VERSIONS: [Version; 4] = [Version::V1, Version::V2, Version::V3, Version::V4];

/// A donor that speaks nothing later than `version`. The releases up to 8.0.21 send their
/// parameters behind the locators.
fn speak(world: &World, version: Version, locators_first: bool) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    world.interfere(move |event| match event {
        Event::Packet(wire) => limit(wire, version).unwrap_or_else(|| {
            if !locators_first || wire.role != Role::Master {
                return Action::Pass;
            }
            match wire.response() {
                Some(Response::Locators { .. }) => {
                    held.insert(0, wire.packet.to_vec());
                    Action::Replace(std::mem::take(&mut held))
                }
                Some(response) if is_parameter(&response) => {
                    held.push(wire.packet.to_vec());
                    Action::Replace(Vec::new())
                }
                _ => Action::Pass,
            }
        }),
        _ => Action::Pass,
    });
}

/// Lowers the version that the recipient offers. From what follows from then on, the negotiated one
/// must be in use.
fn limit(wire: &Wire<'_>, version: Version) -> Option<Action> {
    match wire.command()? {
        CommandCode::Init => {
            let mut packet = wire.packet.to_vec();
            packet[1..5].copy_from_slice(&version.number().to_le_bytes());
            Some(Action::Replace(vec![packet]))
        }
        CommandCode::Attach | CommandCode::Reinit => {
            assert_eq!(wire.packet[1..5], version.number().to_le_bytes());
            None
        }
        _ => None,
    }
}

fn is_parameter(response: &Response<'_>) -> bool {
    !matches!(
        response,
        Response::Locators { .. }
            | Response::DataDescriptor { .. }
            | Response::Data(_)
            | Response::Block(_)
            | Response::Complete
            | Response::Error { .. }
    )
}

#[test]
fn donors_of_all_versions() {
    for (seed, version) in (0..).zip(VERSIONS) {
        for locators_first in [false, true] {
            Setup::new(seed).run(move |world| {
                speak(world, version, locators_first);
                world.clone_remote(Target::Server).assert_ok();
            });
        }
    }
}

/// Neither side speaks a later version than the stock plugin of its release.
#[test]
fn servers_of_all_versions() {
    for (seed, recipient) in (0..).zip(VERSIONS) {
        for donor in VERSIONS {
            Setup::new(seed).run(move |world| {
                world.recipient.facts().release.protocol = recipient;
                world.donor.facts().release.protocol = donor;
                world.interfere(move |event| {
                    if let Event::Packet(wire) = event {
                        if wire.command() == Some(CommandCode::Init) {
                            assert_eq!(wire.packet[1..3], recipient.number().to_le_bytes()[..2]);
                            let sends_heartbeats = recipient >= Version::V3;
                            assert_eq!(wire.packet[3..5], [u8::from(sends_heartbeats), 0]);
                        }
                        if let Some(Response::Locators { version, .. }) = wire.response() {
                            assert_eq!(version, recipient.min(donor));
                        }
                    }
                    Action::Pass
                });
                world.clone_remote(Target::Server).assert_ok();
            });
        }
    }
}

/// A plugin that could be loaded is enough, as soon as the donor says which file that would be.
#[test]
fn a_plugin_that_is_not_installed() {
    for version in VERSIONS {
        for (library, is_there) in [("audit.so", true), ("other.so", false)] {
            Setup::new(1).run(move |world| {
                world.donor.facts().plugins.push(PluginName {
                    name: "audit".to_owned(),
                    library: Some(library.to_owned()),
                });
                world.recipient.facts().libraries.push("audit.so".to_owned());
                speak(world, version, false);
                let outcome = world.clone_remote(Target::Directory("clone"));
                if is_there && version > Version::V1 {
                    outcome.assert_ok();
                } else {
                    outcome.assert_error(3870);
                }
            });
        }
    }
}

/// The recipient may lack what `clone_exclude_plugins_list` names, whatever the donor's version.
#[test]
fn a_plugin_that_is_excluded() {
    for version in VERSIONS {
        for (list, is_excluded) in [("x, AUDIT", true), ("audit_log", false), ("", false)] {
            Setup::new(1).run(move |world| {
                world.donor.facts().plugins.push(PluginName {
                    name: "audit".to_owned(),
                    library: Some("audit.so".to_owned()),
                });
                world.recipient.set_variable("clone_exclude_plugins_list", list);
                // The donor's list is the donor's affair.
                world.donor.set_variable("clone_exclude_plugins_list", "audit");
                speak(world, version, false);
                let outcome = world.clone_remote(Target::Directory("clone"));
                if is_excluded {
                    outcome.assert_ok();
                } else {
                    outcome.assert_error(3870);
                }
            });
        }
    }
}

/// Before V3 the donor does not say how long it waits, which is five minutes then.
#[test]
fn an_old_donor_that_is_away() {
    for (version, away, is_ok) in
        [(Version::V1, 290, true), (Version::V2, 310, false), (Version::V3, 80, false)]
    {
        Setup::new(2).run(move |world| {
            let timeout = "clone_donor_timeout_after_network_failure";
            world.donor.set_variable(timeout, if version >= Version::V3 { "1" } else { "5" });
            let sim = std::sync::Arc::clone(&world.sim);
            let mut until = None;
            world.interfere(move |event| match event {
                Event::Connect if until.is_some_and(|until| sim.now() < until) => {
                    Action::Fail(2003)
                }
                Event::Packet(wire) => limit(wire, version).unwrap_or_else(|| {
                    if until.is_none() && wire.state() == Some(SnapshotState::PageCopy) {
                        until = Some(sim.now() + Duration::from_secs(away));
                        return Action::Cut;
                    }
                    Action::Pass
                }),
                _ => Action::Pass,
            });
            let outcome = world.clone_remote(Target::Directory("clone"));
            assert_eq!(outcome.result.is_ok(), is_ok, "{version:?}: {:?}", outcome.warnings);
        });
    }
}

/// Stock recipients abort the server on some of these.
#[test]
fn broken_facts_of_a_donor() {
    let facts = |value: &str| {
        let mut packet = Vec::new();
        Response::ConfigV4 { name: "json_configs", value }.encode(&mut packet);
        vec![packet]
    };
    let broken = [
        Vec::new(),
        facts(""),
        facts("{}"),
        facts("[1]"),
        facts("{\"maturity\":\"LTS\"}"),
        facts("{\"version\":null}"),
        facts("{\"version\":\"9.7.4\""),
        facts(&"[".repeat(100_000)),
    ];
    for packets in broken {
        Setup::new(3).run(move |world| {
            world.interfere(move |event| match event {
                Event::Packet(wire) if is(wire, ResponseCode::ConfigV4) => {
                    Action::Replace(packets.clone())
                }
                _ => Action::Pass,
            });
            assert_untouched(world, &[3863]);
        });
    }
}

/// Before V4 the version comes as a variable; a donor without one breaks the protocol.
#[test]
fn an_old_donor_without_version() {
    for version in [Version::V1, Version::V3] {
        Setup::new(4).run(move |world| {
            world.interfere(move |event| match event {
                Event::Packet(wire) => limit(wire, version).unwrap_or_else(|| {
                    let is_version =
                        matches!(wire.response(), Some(Response::Config { name: "version", .. }));
                    if is_version { Action::Replace(Vec::new()) } else { Action::Pass }
                }),
                _ => Action::Pass,
            });
            assert_untouched(world, &[3863]);
        });
    }
}

fn is(wire: &Wire<'_>, code: ResponseCode) -> bool {
    wire.to == End::Recipient && wire.packet.first() == Some(&(code as u8))
}

/// Clones, which must fail with these errors, in any order, before anything at the recipient has
/// changed.
#[track_caller]
fn assert_untouched(world: &World, errors: &[u32]) {
    let outcome = world.clone_remote(Target::Server);
    let mut raised = outcome.numbers();
    raised.sort_unstable();
    assert_eq!(raised, errors, "{:?}", outcome.warnings);
    assert_eq!(world.recipient.innodb.balance().begun, 1, "only the handle for the version");
    assert!(world.recipient.board().progress().is_none());
    assert!(world.settle() < Duration::from_secs(1));
}

/// One of the two servers is changed.
fn mismatch(change: impl Fn(&SimHost) + Send + 'static, errors: &'static [u32]) {
    Setup::new(5).run(move |world| {
        change(&world.recipient);
        assert_untouched(world, errors);
    });
}

#[test]
fn what_must_match() {
    mismatch(|server| server.set_variable("version", "8.4.9"), &[3864]);
    mismatch(|server| server.set_variable("version_compile_os", "Win64"), &[3865]);
    mismatch(|server| server.set_variable("version_compile_machine", "aarch64"), &[3866]);
    mismatch(|server| server.set_variable("character_set_server", "latin1"), &[3868]);
    mismatch(|server| server.set_variable("innodb_page_size", "8192"), &[3868]);
    mismatch(|server| drop(server.facts().collations.pop()), &[3867]);
    mismatch(
        |server| {
            server.facts().plugins.retain(|plugin| plugin.name != "semisync");
            server.facts().libraries.clear();
        },
        &[3870],
    );
    mismatch(|server| server.set_variable("max_allowed_packet", "2097151"), &[3957]);
}

/// The user sees the first; the rest is in SHOW WARNINGS.
#[test]
fn all_mismatches_are_raised() {
    mismatch(
        |server| {
            server.set_variable("version", "9.6.0");
            server.set_variable("character_set_server", "latin1");
            server.set_variable("collation_server", "latin1_bin");
            server.facts().collations.clear();
            server.facts().plugins.clear();
            server.facts().libraries.clear();
        },
        &[3864, 3867, 3867, 3868, 3868, 3870, 3870],
    );
    mismatch(
        |server| {
            server.facts().compares_version_as_variable = true;
            server.set_variable("version", "9.6.0");
            server.set_variable("collation_server", "latin1_bin");
        },
        &[3864, 3868],
    );
}

/// A block of 64 pages must fit twice.
#[test]
fn a_packet_must_hold_a_block() {
    for (page, packet, is_ok) in [
        ("4096", 2 << 20, true),
        ("16384", 2 << 20, true),
        ("32768", 3 << 20, false),
        ("32768", 4 << 20, true),
        ("65536", 4 << 20, false),
        ("65536", 8 << 20, true),
    ] {
        for at_donor in [false, true] {
            Setup::new(6).run(move |world| {
                for server in [&world.donor, &world.recipient] {
                    server.set_variable("innodb_page_size", page);
                }
                let server = if at_donor { &world.donor } else { &world.recipient };
                server.set_variable("max_allowed_packet", &packet.to_string());
                let outcome = world.clone_remote(Target::Directory("clone"));
                match (is_ok, at_donor) {
                    (true, _) => {
                        outcome.assert_ok();
                    }
                    (false, false) => {
                        outcome.assert_error(3957);
                    }
                    (false, true) => {
                        outcome.assert_error(3862);
                        assert!(outcome.text().starts_with("3957 : "), "{}", outcome.text());
                    }
                }
            });
        }
    }
}

/// A donor whose InnoDB changes nothing refuses before it begins anything.
#[test]
fn a_donor_that_is_read_only() {
    for (name, value, is_ok) in [
        ("innodb_force_recovery", "3", true),
        ("innodb_force_recovery", "4", false),
        ("innodb_read_only", "ON", false),
    ] {
        Setup::new(8).run(move |world| {
            world.donor.set_variable(name, value);
            let outcome = world.clone_remote(Target::Server);
            if is_ok {
                outcome.assert_ok();
            } else {
                outcome.assert_error(3862);
                assert!(outcome.text().starts_with("3869 : "), "{}", outcome.text());
                assert!(outcome.text().contains(name), "{}", outcome.text());
                assert_eq!(world.donor.innodb.balance().begun, 0);
            }
        });
    }
}

#[test]
fn from_one_long_term_release_to_the_next() {
    for (recipient, maturity, is_ok) in
        [("10.7.0", "LTS", true), ("10.7.0", "INNOVATION", false), ("11.7.0", "LTS", false)]
    {
        Setup::new(7).run(move |world| {
            world.recipient.set_variable("version", recipient);
            world.recipient.facts().maturity = maturity;
            let outcome = world.clone_remote(Target::Server);
            if is_ok {
                outcome.assert_ok();
            } else {
                outcome.assert_error(3864);
            }
        });
    }
}
