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
    /// MiB/s for all builds while clients write to the donor; 0 for none.
    pub(crate) rate: u32,
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
    /// From a stock donor: stock into a directory of a second server, ours with `mysql-clone pull`.
    /// Measured is the recipient's side only.
    Pull,
}

const PLAIN: Way = Way::Remote { tls: Tls::Disabled, compressed: false };
const TLS: Way = Way::Remote { tls: Tls::Required, compressed: false };
const COMPRESSED: Way = Way::Remote { tls: Tls::Disabled, compressed: true };

const fn scenario(name: &'static str, data: Data, place: Place, way: Way) -> Scenario {
    Scenario { name, data, place, way, rate: 0 }
}

/// All lines. Those of one donor stand together.
pub(crate) const SCENARIOS: [Scenario; 12] = [
    scenario("remote plain on tmpfs", Data::Text, Place::Tmpfs, PLAIN),
    scenario("remote TLS on tmpfs", Data::Text, Place::Tmpfs, TLS),
    scenario("remote compressed text", Data::Text, Place::Tmpfs, COMPRESSED),
    Scenario { rate: 100, ..scenario("OLTP at 100 MiB/s", Data::Text, Place::Tmpfs, PLAIN) },
    scenario("pull on tmpfs", Data::Text, Place::Tmpfs, Way::Pull),
    scenario("remote compressed random", Data::Random, Place::Tmpfs, COMPRESSED),
    scenario("remote small tables", Data::Small, Place::Tmpfs, PLAIN),
    scenario("pull small tables", Data::Small, Place::Tmpfs, Way::Pull),
    scenario("remote plain on disk", Data::Text, Place::Disk, PLAIN),
    scenario("local on disk", Data::Text, Place::Disk, Way::Local),
    scenario("local with reflinks (XFS)", Data::Text, Place::Reflink, Way::Local),
    scenario("hand-over with reflinks (XFS)", Data::Text, Place::Reflink, PLAIN),
];
