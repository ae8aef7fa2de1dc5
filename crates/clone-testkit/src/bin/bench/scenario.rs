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
    /// Both servers are started anew before each clone: what a clone needs of memory was not needed
    /// before.
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
    /// On the disk through the operating system's cache: the default of MySQL 8.0, where 8.4 and
    /// later have direct I/O.
    CachedDisk,
    /// XFS with reflinks in a loop mount.
    Reflink,
}

/// How to clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Local,
    Remote {
        tls: Tls,
        compressed: bool,
        /// Whether our donor may hand its files over; else everything goes over the connection, as
        /// it does between two machines.
        handover: bool,
    },
}

/// As users get it, between two servers of one machine.
const PLAIN: Way = Way::Remote { tls: Tls::Disabled, compressed: false, handover: true };
const TLS: Way = Way::Remote { tls: Tls::Required, compressed: false, handover: true };
/// As between two machines.
const BY_TCP: Way = Way::Remote { tls: Tls::Disabled, compressed: false, handover: false };
const TLS_BY_TCP: Way = Way::Remote { tls: Tls::Required, compressed: false, handover: false };
const COMPRESSED: Way = Way::Remote { tls: Tls::Disabled, compressed: true, handover: false };

/// A line with as many threads as the plugin chooses.
const fn scenario(
    name: &'static str,
    data: Data,
    place: Place,
    way: Way,
    goal: (f64, f64),
) -> Scenario {
    Scenario { name, data, place, way, tasks: 0, is_cold: false, rate: 0, goal }
}

/// A line with so many threads, all from the beginning, and without a goal.
const fn with_tasks(
    tasks: u32,
    name: &'static str,
    data: Data,
    place: Place,
    way: Way,
) -> Scenario {
    Scenario { tasks, ..scenario(name, data, place, way, (0.0, 0.0)) }
}

/// Goals of the lines for plain connections and for TLS, which are the same with and without the
/// network.
const PLAIN_GOAL: (f64, f64) = (0.60, 0.50);
const TLS_GOAL: (f64, f64) = (0.80, 0.80);
const SMALL_GOAL: (f64, f64) = (0.70, 0.70);

/// All lines. Those of one donor stand together.
pub(crate) const SCENARIOS: [Scenario; 26] = [
    scenario("remote plain, tmpfs", Data::Text, Place::Tmpfs, PLAIN, PLAIN_GOAL),
    scenario("remote plain, tmpfs, by TCP", Data::Text, Place::Tmpfs, BY_TCP, PLAIN_GOAL),
    with_tasks(1, "by TCP, 1 task", Data::Text, Place::Tmpfs, BY_TCP),
    with_tasks(4, "by TCP, 4 tasks", Data::Text, Place::Tmpfs, BY_TCP),
    Scenario {
        is_cold: true,
        ..with_tasks(16, "by TCP, 16 tasks, cold", Data::Text, Place::Tmpfs, BY_TCP)
    },
    scenario("remote TLS, tmpfs", Data::Text, Place::Tmpfs, TLS, TLS_GOAL),
    scenario("remote TLS, tmpfs, by TCP", Data::Text, Place::Tmpfs, TLS_BY_TCP, TLS_GOAL),
    scenario("remote compressed, text", Data::Text, Place::Tmpfs, COMPRESSED, (0.10, 0.10)),
    scenario("local, tmpfs", Data::Text, Place::Tmpfs, Way::Local, (0.90, 1.00)),
    // Stock exceeds the rate with more tasks.
    Scenario {
        rate: 100,
        ..with_tasks(1, "OLTP, cloned at 100 MiB/s", Data::Text, Place::Tmpfs, PLAIN)
    },
    Scenario {
        rate: 100,
        ..with_tasks(1, "OLTP, cloned at 100 MiB/s by TCP", Data::Text, Place::Tmpfs, BY_TCP)
    },
    scenario("remote compressed, random", Data::Random, Place::Tmpfs, COMPRESSED, (0.05, 0.05)),
    scenario("small tables", Data::Small, Place::Tmpfs, PLAIN, SMALL_GOAL),
    scenario("small tables, by TCP", Data::Small, Place::Tmpfs, BY_TCP, SMALL_GOAL),
    scenario("small tables, local", Data::Small, Place::Tmpfs, Way::Local, (0.0, 0.0)),
    with_tasks(4, "one large table", Data::Large, Place::Tmpfs, PLAIN),
    with_tasks(4, "one large table, by TCP", Data::Large, Place::Tmpfs, BY_TCP),
    with_tasks(4, "holes, by TCP", Data::Holes, Place::Disk, BY_TCP),
    scenario("remote plain, disk", Data::Text, Place::Disk, PLAIN, (0.0, 0.0)),
    scenario("remote plain, disk, by TCP", Data::Text, Place::Disk, BY_TCP, (0.0, 0.0)),
    scenario("local, disk", Data::Text, Place::Disk, Way::Local, (1.00, 1.00)),
    scenario("disk through cache", Data::Text, Place::CachedDisk, PLAIN, (0.0, 0.0)),
    scenario("disk through cache, by TCP", Data::Text, Place::CachedDisk, BY_TCP, (0.0, 0.0)),
    scenario("remote plain, reflink (XFS)", Data::Large, Place::Reflink, PLAIN, (0.0, 0.0)),
    scenario("XFS, by TCP", Data::Large, Place::Reflink, BY_TCP, (0.0, 0.0)),
    scenario("local, reflink (XFS)", Data::Large, Place::Reflink, Way::Local, (0.10, 0.20)),
];
