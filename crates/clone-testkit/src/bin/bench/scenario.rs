// SPDX-License-Identifier: GPL-2.0-only

//! What is measured: one line of the table each.

use clone_testkit::clone::Tls;

use crate::data::Data;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) data: Data,
    pub(crate) place: Place,
    pub(crate) way: Way,
    /// Threads, all from the beginning; 0 leaves their number to the plugin.
    pub(crate) tasks: u32,
    /// Both servers are started anew before each clone: what a clone needs of memory was not needed before.
    pub(crate) is_cold: bool,
    /// MiB/s for both plugins while clients write to the donor; 0 for neither.
    pub(crate) rate: u32,
    /// Largest ratios (ours by stock) that are to be shown: wall and processor time, 0 for none.
    pub(crate) goal: (f64, f64),
}

/// Where both servers have their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tmpfs,
    Disk,
    /// XFS with reflinks in a loop mount.
    Reflink,
}

/// How to clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Local,
    Remote { tls: Tls, compressed: bool },
}

const PLAIN: Way = Way::Remote { tls: Tls::Disabled, compressed: false };
const TLS: Way = Way::Remote { tls: Tls::Required, compressed: false };
const COMPRESSED: Way = Way::Remote { tls: Tls::Disabled, compressed: true };

const fn scenario(
    name: &'static str,
    data: Data,
    place: Place,
    way: Way,
    goal: (f64, f64),
) -> Scenario {
    Scenario { name, data, place, way, tasks: 4, is_cold: false, rate: 0, goal }
}

/// All lines. Those of one donor stand together.
pub(crate) const SCENARIOS: [Scenario; 16] = [
    Scenario {
        tasks: 0,
        ..scenario("remote plain, tmpfs", Data::Text, Place::Tmpfs, PLAIN, (0.60, 0.50))
    },
    Scenario {
        tasks: 1,
        ..scenario("remote plain, 1 task", Data::Text, Place::Tmpfs, PLAIN, (0.0, 0.0))
    },
    scenario("remote plain, 4 tasks", Data::Text, Place::Tmpfs, PLAIN, (0.0, 0.0)),
    Scenario {
        tasks: 16,
        is_cold: true,
        ..scenario("remote plain, 16 tasks, cold", Data::Text, Place::Tmpfs, PLAIN, (0.0, 0.0))
    },
    Scenario {
        tasks: 0,
        ..scenario("remote TLS, tmpfs", Data::Text, Place::Tmpfs, TLS, (0.80, 0.80))
    },
    Scenario {
        tasks: 0,
        ..scenario("remote compressed, text", Data::Text, Place::Tmpfs, COMPRESSED, (0.10, 0.10))
    },
    Scenario {
        tasks: 0,
        ..scenario("local, tmpfs", Data::Text, Place::Tmpfs, Way::Local, (0.90, 1.00))
    },
    // Stock exceeds the rate with more tasks.
    Scenario {
        tasks: 1,
        rate: 100,
        ..scenario(
            "OLTP at the donor, cloned at 100 MiB/s",
            Data::Text,
            Place::Tmpfs,
            PLAIN,
            (0.0, 0.0),
        )
    },
    Scenario {
        tasks: 0,
        ..scenario(
            "remote compressed, random",
            Data::Random,
            Place::Tmpfs,
            COMPRESSED,
            (0.05, 0.05),
        )
    },
    Scenario {
        tasks: 0,
        ..scenario("remote plain, small tables", Data::Small, Place::Tmpfs, PLAIN, (0.70, 0.70))
    },
    scenario("remote plain, one large table", Data::Large, Place::Tmpfs, PLAIN, (0.0, 0.0)),
    scenario("remote plain, holes", Data::Holes, Place::Disk, PLAIN, (0.0, 0.0)),
    Scenario {
        tasks: 0,
        ..scenario("remote plain, disk", Data::Text, Place::Disk, PLAIN, (0.0, 0.0))
    },
    Scenario {
        tasks: 0,
        ..scenario("local, disk", Data::Text, Place::Disk, Way::Local, (1.00, 1.00))
    },
    Scenario {
        tasks: 0,
        ..scenario("remote plain, XFS", Data::Large, Place::Reflink, PLAIN, (0.0, 0.0))
    },
    Scenario {
        tasks: 0,
        ..scenario("local, reflink (XFS)", Data::Large, Place::Reflink, Way::Local, (0.10, 0.20))
    },
];
