// SPDX-License-Identifier: GPL-2.0-only

//! Clones of all forms with faults by chance, under load, for a long time. The donor stays up, and
//! so does one recipient: their memory, open files and threads must not grow. A second recipient
//! has the clones that end it.

use std::time::{Duration, Instant};

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::fastrand::Rng;

use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Usage, dataset, skip};

use crate::cell::{Cell, End, Fault, Form, Moment};
use crate::peers::Peers;

/// One cell in so many ends the second recipient.
const ENDING: usize = 5;
/// A third of a series with fewer samples says nothing.
const LEAST: usize = 4;
/// How much more memory is noise: a twentieth, and 4 MiB.
const SLACK_KIB: u64 = 4 << 10;

/// Runs cells for so long. Prints each cell, and what the servers take after it.
pub(crate) fn run(time: Duration, seed: u64) -> Result<()> {
    let mut random = Rng::with_seed(seed);
    let Some(mut peers) = Peers::start(random.fork(), 3)? else {
        skip!("not allowed to mount a tmpfs");
    };
    dataset::load_small(peers.donor())?;
    let mut spare = peers.another_recipient()?;
    let load = Load { pause: Duration::from_millis(50), limit: 2 * time, ..Load::default() };
    let writers = Writers::start(peers.donor(), load)?;
    peers.is_under_load = true;

    let (lasting, ending): (Vec<_>, Vec<_>) = Cell::all()
        .into_iter()
        .filter(|cell| !ends(*cell, End::Donor))
        .partition(|cell| !may_end_recipient(*cell));
    let mut series = [Series::of(peers.donor())?, Series::of(peers.recipient())?];
    let (since, mut count) = (Instant::now(), 0);
    while since.elapsed() < time {
        let is_ending = random.usize(..ENDING) == 0;
        let cells = if is_ending { &ending } else { &lasting };
        let cell = cells[random.usize(..cells.len())];
        if is_ending {
            peers.exchange(&mut spare);
        }
        let outcome = peers.run(cell).with_context(|| format!("{cell}; soak of seed {seed}"));
        if outcome.is_err() {
            // The writers wait for their server before they stop.
            peers.donor().thaw()?;
        }
        let whose = outcome?;
        if is_ending {
            peers.exchange(&mut spare);
        }
        count += 1;
        let minutes = since.elapsed().as_secs() / 60;
        println!("{count}, minute {minutes}: {cell}: the data is {whose:?}");
        for (series, server) in series.iter_mut().zip([peers.donor(), peers.recipient()]) {
            series.add(server)?;
        }
    }
    let written = writers.stop()?;
    println!("{count} cells, {} transactions", written.transactions);
    series.iter().try_for_each(Series::assert_flat)
}

/// The cell ends the server at this end, or what is left of it is of no use to a later clone.
fn ends(cell: Cell, end: End) -> bool {
    let ends = matches!(cell.fault, Fault::Terminate | Fault::Kill | Fault::FullDisk);
    cell.end == end && ends
}

/// The recipient ends by the fault, or because it has the donor's data then.
fn may_end_recipient(cell: Cell) -> bool {
    ends(cell, End::Recipient)
        || cell.form == Form::Drop
        || (cell.form == Form::Keep && cell.moment > Moment::RedoCopy)
}

/// What a server takes while no clone runs, after each cell.
struct Series {
    name: String,
    pid: u32,
    samples: Vec<Usage>,
}

impl Series {
    fn of(server: &Mysqld) -> Result<Self> {
        Ok(Self { name: server.name().to_owned(), pid: server.pid()?, samples: Vec::new() })
    }

    fn add(&mut self, server: &Mysqld) -> Result<()> {
        let pid = server.pid()?;
        ensure!(pid == self.pid, "{} has been started again", self.name);
        let usage = server.usage()?;
        let Usage { rss_kib, threads, descriptors, .. } = usage;
        println!(
            "  {}: {} MiB, {threads} threads, {descriptors} open files",
            self.name,
            rss_kib >> 10
        );
        self.samples.push(usage);
        Ok(())
    }

    /// The last third takes no more than the second: the first is warm-up.
    fn assert_flat(&self) -> Result<()> {
        let third = self.samples.len() / 3;
        ensure!(third >= LEAST, "{}: {} samples are too few", self.name, self.samples.len());
        let [second, last] = [third..2 * third, 2 * third..self.samples.len()]
            .map(|range| Median::of(&self.samples[range]));
        println!("{}: {second:?}, then {last:?}", self.name);
        ensure!(last.rss_kib <= second.rss_kib + second.rss_kib / 20 + SLACK_KIB, "memory grows");
        ensure!(last.threads <= second.threads, "threads grow");
        ensure!(last.descriptors <= second.descriptors, "open files grow");
        Ok(())
    }
}

/// The median of each figure.
#[derive(Debug)]
struct Median {
    rss_kib: u64,
    threads: u64,
    descriptors: u64,
}

impl Median {
    fn of(samples: &[Usage]) -> Self {
        let median = |figure: fn(&Usage) -> u64| {
            let mut figures: Vec<u64> = samples.iter().map(figure).collect();
            figures.sort_unstable();
            figures[figures.len() / 2]
        };
        Self {
            rss_kib: median(|usage| usage.rss_kib),
            threads: median(|usage| usage.threads),
            descriptors: median(|usage| usage.descriptors),
        }
    }
}
