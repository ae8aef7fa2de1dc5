// SPDX-License-Identifier: GPL-2.0-only

//! What is measured: one line of the table each.

use clone_testkit::clone::Tls;

use crate::data::Data;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Without commas: `--lines` separates names by commas.
    pub(crate) name: &'static str,
    pub(crate) data: Data,
    pub(crate) place: Place,
    pub(crate) way: Way,
    /// MiB/s for all builds; 0 for no limit.
    pub(crate) rate: u32,
    /// Clients write to the donor meanwhile.
    pub(crate) writers: bool,
    /// The link between the hosts in Mbit/s, 0 for none; only for lines that compare with both
    /// settings of stock.
    pub(crate) link: Option<u32>,
    /// The round trip between the hosts, milliseconds.
    pub(crate) round_trip: u32,
}

/// Where both servers have their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In memory.
    Tmpfs,
    /// On a disk, with direct I/O.
    Disk,
    /// XFS with reflinks in a loop mount. Both servers are on one machine: our donor hands its
    /// files over.
    Reflink,
}

/// How to clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Local,
    Remote {
        tls: Tls,
        compressed: bool,
    },
    /// From a stock donor: stock into a directory of a second server, ours with `mysql-clone pull`,
    /// over a link with the server's compression. Processor time is that of the recipient only.
    Pull,
}

const PLAIN: Way = Way::Remote { tls: Tls::Disabled, compressed: false };
const TLS: Way = Way::Remote { tls: Tls::Required, compressed: false };
const COMPRESSED: Way = Way::Remote { tls: Tls::Disabled, compressed: true };

const fn scenario(name: &'static str, data: Data, place: Place, way: Way) -> Scenario {
    Scenario { name, data, place, way, rate: 0, writers: false, link: None, round_trip: 0 }
}

/// Ours with its defaults, and stock with and without compression.
const fn link(name: &'static str, data: Data, mbit: u32) -> Scenario {
    Scenario { link: Some(mbit), ..scenario(name, data, Place::Tmpfs, PLAIN) }
}

/// The same at a distance.
const fn far(name: &'static str, data: Data, mbit: u32, round_trip: u32) -> Scenario {
    Scenario { round_trip, ..link(name, data, mbit) }
}

/// All lines. Those of one donor stand together.
pub(crate) const SCENARIOS: [Scenario; 51] = [
    scenario("remote plain on tmpfs", Data::Text, Place::Tmpfs, PLAIN),
    scenario("remote TLS on tmpfs", Data::Text, Place::Tmpfs, TLS),
    scenario("remote compressed text", Data::Text, Place::Tmpfs, COMPRESSED),
    Scenario {
        rate: 100,
        writers: true,
        ..scenario("OLTP at 100 MiB/s", Data::Text, Place::Tmpfs, PLAIN)
    },
    scenario("pull on tmpfs", Data::Text, Place::Tmpfs, Way::Pull),
    scenario("remote compressed random", Data::Random, Place::Tmpfs, COMPRESSED),
    scenario("remote small tables", Data::Small, Place::Tmpfs, PLAIN),
    scenario("pull small tables", Data::Small, Place::Tmpfs, Way::Pull),
    scenario("remote plain on disk", Data::Text, Place::Disk, PLAIN),
    scenario("pull on disk", Data::Text, Place::Disk, Way::Pull),
    scenario("local on disk", Data::Text, Place::Disk, Way::Local),
    scenario("local with reflinks (XFS)", Data::Text, Place::Reflink, Way::Local),
    scenario("hand-over with reflinks (XFS)", Data::Text, Place::Reflink, PLAIN),
    scenario("pull small tables (XFS)", Data::Small, Place::Reflink, Way::Pull),
    link("link 100 Mbit/s: sysbench", Data::Sysbench, 100),
    link("link 200 Mbit/s: sysbench", Data::Sysbench, 200),
    link("link 1 Gbit/s: sysbench", Data::Sysbench, 1000),
    link("link 2.5 Gbit/s: sysbench", Data::Sysbench, 2500),
    link("link 10 Gbit/s: sysbench", Data::Sysbench, 10000),
    link("link no limit: sysbench", Data::Sysbench, 0),
    Scenario { way: Way::Pull, ..link("link 200 Mbit/s: pull of sysbench", Data::Sysbench, 200) },
    Scenario { way: Way::Pull, ..link("link 1 Gbit/s: pull of sysbench", Data::Sysbench, 1000) },
    far("link 1 Gbit/s and 20 ms: sysbench", Data::Sysbench, 1000, 20),
    far("link 1 Gbit/s and 150 ms: sysbench", Data::Sysbench, 1000, 150),
    link("link 100 Mbit/s: text", Data::Words, 100),
    link("link 200 Mbit/s: text", Data::Words, 200),
    link("link 1 Gbit/s: text", Data::Words, 1000),
    link("link 2.5 Gbit/s: text", Data::Words, 2500),
    link("link 10 Gbit/s: text", Data::Words, 10000),
    link("link no limit: text", Data::Words, 0),
    link("link 100 Mbit/s: random", Data::Random, 100),
    link("link 200 Mbit/s: random", Data::Random, 200),
    link("link 1 Gbit/s: random", Data::Random, 1000),
    link("link 2.5 Gbit/s: random", Data::Random, 2500),
    link("link 10 Gbit/s: random", Data::Random, 10000),
    link("link no limit: random", Data::Random, 0),
    far("link 1 Gbit/s and 20 ms: random", Data::Random, 1000, 20),
    far("link 1 Gbit/s and 150 ms: random", Data::Random, 1000, 150),
    link("link 100 Mbit/s: compressed pages", Data::Packed, 100),
    link("link 200 Mbit/s: compressed pages", Data::Packed, 200),
    link("link 1 Gbit/s: compressed pages", Data::Packed, 1000),
    link("link 2.5 Gbit/s: compressed pages", Data::Packed, 2500),
    link("link 10 Gbit/s: compressed pages", Data::Packed, 10000),
    link("link no limit: compressed pages", Data::Packed, 0),
    link("link 100 Mbit/s: small tables", Data::Small, 100),
    link("link 200 Mbit/s: small tables", Data::Small, 200),
    link("link 1 Gbit/s: small tables", Data::Small, 1000),
    link("link 2.5 Gbit/s: small tables", Data::Small, 2500),
    link("link 10 Gbit/s: small tables", Data::Small, 10000),
    link("link no limit: small tables", Data::Small, 0),
    Scenario { writers: true, ..link("link 1 Gbit/s: sysbench with OLTP", Data::Sysbench, 1000) },
];
