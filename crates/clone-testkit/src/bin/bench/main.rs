// SPDX-License-Identifier: GPL-2.0-only

//! Measures the stock plugin and ours beside each other: same servers, same data, in turn. A third
//! build of the plugin takes part on request (`--other`).
//!
//! One donor and one recipient for each data set. Before each clone both servers unload one plugin
//! and load the next, so that nothing differs but the plugin. Options, or `BENCH_*` variables, set
//! sizes and places: `bench --help`.

mod build;
mod data;
mod measure;
mod options;
mod report;
mod scenario;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Statement, Tls};
use clone_testkit::hosts::{self, Host};
use clone_testkit::relay::Relay;
use clone_testkit::server::Server;
use clone_testkit::volume::Volume;
use clone_testkit::writer::{Load, Writers};
use clone_testkit::{Mysqld, Plugin};

use build::Build;
use data::Data;
use measure::Sample;
use options::Options;
use report::Line;
use scenario::{Place, Scenario, Way};

fn main() -> Result<()> {
    let mut options = Options::parse();
    clone_testkit::log_to_stderr();
    let plugin = Plugin::library()?;
    // Cargo's directory for what is not optimized.
    let is_debug = plugin.parent().is_some_and(|directory| directory.ends_with("debug"));
    ensure!(
        !is_debug,
        "{} is a debug build; set MYSQL_CLONE_SO to a release build",
        plugin.display()
    );
    println!("MySQL {}, {}, {options:?}", Server::locate()?.version, plugin.display());
    // What cannot work fails before an hour of measuring, not after that.
    let scenarios = options.scenarios()?;
    if let Some(directory) = &options.out {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    if let Some(other) = &mut options.other {
        *other = fs::canonicalize(&*other).with_context(|| format!("find {}", other.display()))?;
    }
    let mut lines = Vec::new();
    let mut stage: Option<Stage> = None;
    for scenario in &scenarios {
        let fits = |stage: &Stage| stage.data == scenario.data && stage.place == scenario.place;
        if !stage.as_ref().is_some_and(fits) {
            drop(stage.take());
            let begin = Instant::now();
            stage = Stage::build(scenario, &options)?;
            let (data, place) = (scenario.data, scenario.place);
            println!("servers and data, {data:?} on {place:?}: {:.0?}", begin.elapsed());
        }
        let Some(stage) = &mut stage else {
            println!("{:30} left out: no such file system here", scenario.name);
            continue;
        };
        if scenario.link.is_some() && stage.hosts.is_none() {
            println!("{:30} left out: no two hosts here", scenario.name);
            continue;
        }
        let begin = Instant::now();
        let line = stage.run(scenario, &options)?;
        println!("{line}  (all rounds: {:.0?})", begin.elapsed());
        lines.push(line);
    }
    match &options.out {
        Some(directory) => report::write(directory, &lines, &options),
        None => Ok(()),
    }
}

/// Two servers and their data. The fields are dropped in this order: servers before what they stand
/// on.
struct Stage {
    data: Data,
    place: Place,
    donor: Mysqld,
    recipient: Mysqld,
    /// Where the recipient reaches the donor.
    address: SocketAddr,
    /// The hosts of donor and recipient, if they are at hosts of their own, as on two machines.
    hosts: Option<[Host; 2]>,
    _volume: Option<Volume>,
}

impl Stage {
    /// Starts the servers and loads the data; none if there is no such place.
    fn build(scenario: &Scenario, options: &Options) -> Result<Option<Self>> {
        let volume = match scenario.place {
            Place::Reflink => {
                match Volume::xfs(&options.disk, 3 * scenario.data.mib(options) + 2048) {
                    Ok(volume) => Some(volume),
                    Err(error) => {
                        log::warn!("{error:#}");
                        return Ok(None);
                    }
                }
            }
            Place::Tmpfs | Place::Disk => None,
        };
        let below = match (&volume, scenario.place) {
            (Some(volume), _) => volume.path(),
            (None, Place::Disk) => &options.disk,
            (None, _) => &options.tmpfs,
        };
        let hosts = match scenario.place {
            Place::Reflink => None,
            Place::Tmpfs | Place::Disk => two_hosts(),
        };
        let server = |name, host: Option<&Host>| -> Result<Mysqld> {
            let builder = Mysqld::builder().name(name).plugin(Plugin::Ours).install_later();
            let builder = builder.below(below).option("--innodb-redo-log-capacity=64M");
            let server = match host {
                Some(host) => builder.at(host).start()?,
                None => builder.start()?,
            };
            if let Some(library) = &options.other {
                build::link_other(&server, library)?;
            }
            Ok(server)
        };
        let host = |index: usize| hosts.as_ref().map(|hosts| &hosts[index]);
        let (mut donor, recipient) = (server("donor", host(0))?, server("recipient", host(1))?);
        scenario.data.load(&mut donor, options).context("load the data")?;
        Ok(Some(Self {
            data: scenario.data,
            place: scenario.place,
            address: SocketAddr::new(donor.address().into(), donor.port()),
            donor,
            recipient,
            hosts,
            _volume: volume,
        }))
    }

    /// Clones with each build in turn. The first round warms up, unless it is the only one.
    fn run(&mut self, scenario: &Scenario, options: &Options) -> Result<Line> {
        if let Some(mbit) = scenario.link {
            let hosts = self.hosts.as_ref().context("a link needs two hosts")?;
            hosts.iter().try_for_each(|host| host.limit(mbit))?;
            self.address = far_away(&self.donor, &hosts[0], mbit, scenario.round_trip)?;
        }
        let mut line = Line::new(scenario, &options.builds(scenario));
        let warm_up = usize::from(options.rounds > 1);
        for round in 0..options.rounds + warm_up {
            let mut turns = options.builds(scenario);
            let first = round % turns.len();
            turns.rotate_left(first);
            for build in turns {
                let sample = self
                    .clone(scenario, build, options)
                    .with_context(|| format!("{}, {}", scenario.name, build.name()))?;
                if round >= warm_up {
                    line.add(build, sample);
                }
            }
        }
        Ok(line)
    }

    fn clone(&mut self, scenario: &Scenario, build: Build, options: &Options) -> Result<Sample> {
        self.load_plugin(&self.recipient, build)?;
        let target = match scenario.way {
            Way::Local => &self.donor,
            Way::Remote { .. } | Way::Pull => &self.recipient,
        };
        // A pull must work with any donor.
        let donor_build = if scenario.way == Way::Pull { Build::Stock } else { build };
        self.load_plugin(&self.donor, donor_build)?;
        let directory = target.scratch("clone");
        let statement = match scenario.way {
            Way::Local => Statement::local(&directory),
            Way::Remote { tls, .. } => self.remote(&directory, tls),
            Way::Pull => self.remote(&directory, Tls::Disabled),
        };
        self.configure(target, build, scenario, options)?;
        let is_remote = matches!(scenario.way, Way::Remote { .. });
        let donor = is_remote.then_some(&self.donor);
        let writers = match scenario.writers {
            false => None,
            true => {
                let load = Load { threads: 2, pause: Duration::ZERO, ..Load::default() };
                let writers = Writers::start(&self.donor, load)?;
                writers.await_transactions(100)?;
                Some(writers)
            }
        };
        if self.place == Place::Tmpfs {
            let size = scenario.data.mib(options);
            warm_memory(&options.tmpfs, size + size / 4)?;
        }
        let before = writers.as_ref().map(measure::transactions);
        let sample = match (scenario.way, build) {
            (Way::Pull, Build::Ours | Build::Other) => {
                let host = self.hosts.as_ref().map(|[_, host]| host);
                let compress = scenario.link.map_or("auto", |_| "zstd1");
                measure::pull(&options.tool, host, &self.donor, &directory, compress)
            }
            _ => measure::clone(target, donor, &statement, writers.as_ref()),
        };
        let sample = sample.map(|sample| Sample { before: before.unwrap_or_default(), ..sample });
        if let Some(writers) = writers {
            writers.stop()?;
        }
        remove(&directory)?;
        sample
    }

    fn remote(&self, directory: &Path, tls: Tls) -> Statement {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let statement = Statement::instance_at(&host, port, clone::donor_account());
        statement.into_directory(directory).tls(tls)
    }

    /// Unloads whichever plugin is there, and loads this one.
    fn load_plugin(&self, server: &Mysqld, build: Build) -> Result<()> {
        let mut session = server.session()?;
        let loaded: Option<String> = session.first(
            "SELECT PLUGIN_LIBRARY FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'",
        )?;
        if loaded.is_some() {
            // A donor's session may still be saying goodbye.
            clone_testkit::until("the clone plugin to be free", Duration::from_secs(30), || {
                Ok(session.run("UNINSTALL PLUGIN clone").ok())
            })?;
        }
        session.run(format!("INSTALL PLUGIN clone SONAME '{}'", build.file_name()))
    }

    fn configure(
        &self,
        target: &Mysqld,
        build: Build,
        scenario: &Scenario,
        options: &Options,
    ) -> Result<()> {
        if let Way::Remote { .. } | Way::Pull = scenario.way {
            clone::allow_address(target, &self.address.to_string())?;
        }
        let asks = matches!(scenario.way, Way::Remote { compressed: true, .. });
        let compressed = asks || build == Build::StockCompressed;
        let mut settings = vec![
            format!("SET GLOBAL clone_enable_compression = {compressed}"),
            format!("SET GLOBAL clone_max_data_bandwidth = {}", scenario.rate),
        ];
        if build == Build::Ours {
            let compression = if asks { "ZSTD1" } else { &options.compression };
            settings.push(format!("SET GLOBAL clone_compression = {compression}"));
        }
        if scenario.rate != 0 {
            // With more threads, stock exceeds the rate.
            settings.push("SET GLOBAL clone_autotune_concurrency = OFF".into());
            settings.push("SET GLOBAL clone_max_concurrency = 1".into());
        }
        if self.hosts.is_none()
            && self.place != Place::Reflink
            && matches!(build, Build::Ours | Build::Other)
        {
            // All data crosses the connection, as between two machines.
            settings.push("SET GLOBAL clone_file_handover = OFF".into());
        }
        target.session()?.run_all(settings.iter().map(String::as_str))
    }
}

/// Two hosts on this machine, if the kernel and the user's rights allow that.
fn two_hosts() -> Option<[Host; 2]> {
    hosts::pair()
        .inspect_err(|error| log::warn!("both servers are at one host, by loopback: {error:#}"))
        .ok()
}

/// Where the donor is reached with this round trip, in milliseconds, over a link of `mbit`.
fn far_away(donor: &Mysqld, host: &Host, mbit: u32, round_trip: u32) -> Result<SocketAddr> {
    if round_trip == 0 {
        return Ok(SocketAddr::new(donor.address().into(), donor.port()));
    }
    let capacity = mbit as usize * 125 * round_trip as usize;
    let round_trip = Duration::from_millis(round_trip.into());
    Ok(Relay::start(host, donor.port(), round_trip, capacity)?.address())
}

/// Uses as much memory as the clone will, and frees it. A virtual machine may have given free
/// memory back to its host, and gets it again at a few hundred MiB/s, which would be measured
/// instead of the clone.
fn warm_memory(tmpfs: &Path, mib: u32) -> Result<()> {
    let mut file = tempfile::tempfile_in(tmpfs)?;
    let block = vec![1; 1 << 20];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    Ok(())
}

/// The next clone begins with nothing left to write for this one.
fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}
