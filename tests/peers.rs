// SPDX-License-Identifier: GPL-2.0-only

//! Our plugin and the stock one as each other's donor and recipient, over each kind of connection
//! and in each version of the protocol.
//!
//! Everything goes through a proxy, which proves that a connection is of the kind that was asked
//! for. With `MYSQL_CLONE_PLUGIN=stock` the stock plugin takes the place of ours too.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use clone_protocol::{ResponseCode, Version};
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Report, STAGES, Stage, Statement, Status, Tls};
use clone_testkit::fixture::DISTANT;
use clone_testkit::proxy::{Proxy, Traffic};
use clone_testkit::sql::literal;
use clone_testkit::verify::Fingerprint;
use clone_testkit::{Mysqld, Plugin, check, dataset};

/// `clone_max_concurrency`, with auto-tuning off.
const TASKS: u32 = 4;
/// `ER_CLONE_DONOR`.
const DONOR_ERROR: u16 = 3862;

#[test]
fn our_recipient_and_stock_donor() {
    check(|| every_cell(Plugin::under_test()?, Plugin::Stock));
}

#[test]
fn stock_recipient_and_our_donor() {
    check(|| every_cell(Plugin::Stock, Plugin::under_test()?));
}

#[test]
fn our_recipient_and_our_donor() {
    check(|| every_cell(Plugin::under_test()?, Plugin::under_test()?));
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Channel {
    Plain,
    Compressed,
    Tls,
    /// TLS, and the recipient verifies that the donor's certificate comes from the donor's CA.
    VerifiedTls,
}

impl Channel {
    const ALL: [Self; 4] = [Self::Plain, Self::Compressed, Self::Tls, Self::VerifiedTls];

    fn clause(self) -> Tls {
        match self {
            Self::Plain | Self::Compressed => Tls::Disabled,
            Self::Tls | Self::VerifiedTls => Tls::Required,
        }
    }
}

/// A donor, a recipient and the proxy between them.
struct Peers {
    donor: Mysqld,
    recipient: Mysqld,
    proxy: Proxy,
}

impl Peers {
    fn start(recipient: Plugin, donor: Plugin) -> Result<Self> {
        let donor = Self::donor("donor", donor)?;
        let proxy = Proxy::to(donor.port())?;
        let recipient = Self::recipient(recipient, &proxy)?;
        Ok(Self { donor, recipient, proxy })
    }

    /// A donor with a certificate authority of its own: that of the template is everybody's.
    fn donor(name: &str, plugin: Plugin) -> Result<Mysqld> {
        let mut donor = Mysqld::builder().name(name).plugin(plugin).option(DISTANT).create()?;
        for entry in fs::read_dir(donor.data_dir())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                fs::remove_file(path)?;
            }
        }
        donor.start()?;
        dataset::load_small(&donor)?;
        clone::make_donor(&donor)?;
        donor.session()?.run("CREATE TABLE shop.cells (name VARCHAR(100) PRIMARY KEY)")?;
        Ok(donor)
    }

    fn recipient(plugin: Plugin, proxy: &Proxy) -> Result<Mysqld> {
        Mysqld::builder()
            .name("recipient")
            .plugin(plugin)
            .option(DISTANT)
            .option("--clone-autotune-concurrency=OFF")
            .option(format!("--clone-max-concurrency={TASKS}"))
            .option(format!("--clone-valid-donor-list=127.0.0.1:{}", proxy.port()))
            .start()
    }

    fn statement(&self, tls: Tls) -> Statement {
        let account = clone::donor_account();
        Statement::instance_at("127.0.0.1", self.proxy.port(), account).tls(tls)
    }

    /// Leaves a mark in the donor, so that a clone made before does not pass for the next one.
    fn mark(&self, name: &str) -> Result<()> {
        let insert = format!("INSERT INTO shop.cells VALUES ({})", literal(name));
        self.donor.session()?.run(insert)
    }

    /// Clones over the recipient's data and compares.
    fn replace(&mut self, tls: Tls) -> Result<Report> {
        let statement = self.statement(tls);
        let report = clone::run(&mut self.recipient, &statement)?;
        ensure!(report.status.destination == "LOCAL INSTANCE", "{:?}", report.status);
        compare(&self.donor, &self.recipient)?;
        Ok(report)
    }

    /// Clones to a directory, starts a server on it and compares.
    fn copy(&mut self, tls: Tls) -> Result<Report> {
        let directory = self.recipient.scratch("clone");
        let statement = self.statement(tls).into_directory(&directory);
        let report = clone::run(&mut self.recipient, &statement)?;
        compare(&self.donor, &booted(self.recipient.plugin(), &directory)?)?;
        Ok(report)
    }
}

fn booted(plugin: Plugin, directory: &Path) -> Result<Mysqld> {
    let clone = Mysqld::builder().name("clone").plugin(plugin).adopt(directory).start()?;
    let mut session = clone.session()?;
    let status = clone::status(&mut session)?.context("no status in the clone")?;
    ensure!(status.state == "Completed" && !status.gtid_executed.is_empty(), "{status:?}");
    completed(&clone::progress(&mut session)?)?;
    Ok(clone)
}

fn compare(donor: &Mysqld, clone: &Mysqld) -> Result<()> {
    let expected = Fingerprint::read(&mut donor.session()?)?;
    let differences = expected.differences(&Fingerprint::read(&mut clone.session()?)?);
    ensure!(differences.is_empty(), "{}: {differences:#?}", clone.name());
    Ok(())
}

fn every_cell(recipient: Plugin, donor: Plugin) -> Result<()> {
    let mut peers = Peers::start(recipient, donor)?;
    for channel in Channel::ALL {
        for in_place in [true, false] {
            let name = format!("{channel:?}, in place: {in_place}");
            cell(&mut peers, channel, in_place, &name).with_context(|| name)?;
        }
    }
    wrong_authority(&mut peers)
}

fn cell(peers: &mut Peers, channel: Channel, in_place: bool, name: &str) -> Result<()> {
    peers.proxy.reset()?;
    peers.mark(name)?;
    let authority = match channel {
        Channel::VerifiedTls => literal(&peers.donor.data_dir().join("ca.pem").to_string_lossy()),
        _ => "NULL".into(),
    };
    let compression = if channel == Channel::Compressed { "ON" } else { "OFF" };
    peers.recipient.session()?.run_all([
        &*format!("SET GLOBAL clone_ssl_ca = {authority}"),
        &*format!("SET GLOBAL clone_enable_compression = {compression}"),
    ])?;
    let report = match in_place {
        true => peers.replace(channel.clause())?,
        false => peers.copy(channel.clause())?,
    };
    succeeded(&report, peers.proxy.port(), in_place)?;
    let packs = [&peers.recipient, &peers.donor].iter().all(|one| one.plugin() == Plugin::Ours);
    let asks = in_place && peers.recipient.plugin() == Plugin::Ours;
    used(channel, packs, asks, &peers.proxy.traffic(), &report)
}

/// The rows of a clone that succeeded.
fn succeeded(report: &Report, port: u16, in_place: bool) -> Result<()> {
    let Report { status, stages, .. } = report;
    let Status { state, error_number, source, begin_time, end_time, .. } = status;
    ensure!(state == "Completed" && *error_number == 0, "{status:?}");
    ensure!(*source == format!("127.0.0.1:{port}"), "{status:?}");
    ensure!(begin_time < end_time, "{status:?}");
    if in_place {
        ensure!(!status.binlog_file.is_empty() && !status.gtid_executed.is_empty(), "{status:?}");
        return completed(stages);
    }
    // A clone to a directory is not restarted by its recipient.
    let (copied, rest) = stages.split_at_checked(5).context("too few stages")?;
    ensure!(copied.iter().all(|stage| stage.state == "Completed"), "{stages:?}");
    ensure!(rest.iter().all(|stage| stage.state == "Not Started"), "{stages:?}");
    Ok(())
}

fn completed(stages: &[Stage]) -> Result<()> {
    ensure!(stages.iter().map(|stage| &*stage.name).eq(STAGES), "{stages:?}");
    ensure!(stages.iter().all(|stage| stage.state == "Completed"), "{stages:?}");
    Ok(())
}

/// All tasks had connections of the right kind. Two plugins of ours pack blocks instead of
/// compressing the connection. `asks`: the recipient has asked the donor before, over a connection
/// of its own.
fn used(
    channel: Channel,
    packs: bool,
    asks: bool,
    traffic: &Traffic,
    report: &Report,
) -> Result<()> {
    // The master has an auxiliary connection besides.
    let all = TASKS + 1;
    let connections = (traffic.tls, traffic.compressed, traffic.workers);
    let (expected, is_smaller) = match channel {
        // Without compression it is zeros that are left out.
        Channel::Plain => ((0, 0, TASKS - 1), packs),
        Channel::Compressed if packs => ((0, 0, TASKS - 1), true),
        Channel::Compressed => ((0, all, 0), true),
        Channel::Tls | Channel::VerifiedTls => ((all + u32::from(asks), 0, 0), packs),
    };
    ensure!(connections == expected, "{connections:?} instead of {expected:?}");
    let (data, network) = (report.data(), report.network());
    ensure!(data > 0 && (network < data) == is_smaller, "{network} bytes for {data} of data");
    if channel == Channel::Plain {
        ensure!(traffic.data() == data, "{} bytes of data passed, not {data}", traffic.data());
        let (_, repeated) = traffic.network_and_repeated();
        ensure!(repeated == 0, "{repeated} bytes passed twice");
    }
    Ok(())
}

/// A donor whose certificate is not from the recipient's authority is not talked to.
fn wrong_authority(peers: &mut Peers) -> Result<()> {
    peers.proxy.reset()?;
    let own = peers.recipient.data_dir().join("ca.pem");
    let mut session = peers.recipient.session()?;
    session.run(format!("SET GLOBAL clone_ssl_ca = {}", literal(&own.to_string_lossy())))?;
    let directory = peers.recipient.scratch("refused");
    let statement = peers.statement(Tls::Required).into_directory(&directory);
    let error = session.error(statement.to_string())?;
    ensure!(error.number == DONOR_ERROR, "{error}");
    ensure!(peers.proxy.traffic().tls == 1, "{:?}", peers.proxy.traffic());
    Ok(())
}

const VERSIONS: [Version; 4] = [Version::V1, Version::V2, Version::V3, Version::V4];

/// What a donor tells in each version, as (codes that must come, codes that must not).
fn parameters(version: Version) -> (&'static [ResponseCode], &'static [ResponseCode]) {
    use ResponseCode::{Collation, Config, ConfigV3, ConfigV4, Plugin, PluginV2};

    match version {
        Version::V1 => (&[Plugin, Config, Collation], &[PluginV2, ConfigV3, ConfigV4]),
        Version::V2 => (&[PluginV2, Config, Collation], &[Plugin, ConfigV3, ConfigV4]),
        Version::V3 => (&[PluginV2, Config, Collation, ConfigV3], &[Plugin, ConfigV4]),
        Version::V4 => (&[PluginV2, Config, Collation, ConfigV3, ConfigV4], &[Plugin]),
    }
}

/// Our recipient with donors of each version, the stock one and ours; so our donor with recipients
/// of each version. Both donors must tell the same.
///
/// The stock recipient takes part from V3 on: with donors of V1 and V2 it aborts the server.
#[test]
fn every_version_of_the_protocol() {
    check(|| {
        let mut peers = Peers::start(Plugin::under_test()?, Plugin::Stock)?;
        let stock = told_in_each_version(&mut peers)?;
        let ours = Peers::donor("our donor", Plugin::under_test()?)?;
        peers.proxy = Proxy::to(ours.port())?;
        peers.donor = ours;
        clone::allow_address(&peers.recipient, &format!("127.0.0.1:{}", peers.proxy.port()))?;
        let ours = told_in_each_version(&mut peers)?;
        for ((version, stock), ours) in VERSIONS.into_iter().zip(stock).zip(ours) {
            // Our donor also tells its `server_uuid`, and that it compares with a base.
            let mut parameters = ours.parameters.clone();
            if let Some(count) = parameters.get_mut(&(ResponseCode::ConfigV3 as u8)) {
                *count -= 2;
            }
            ensure!(stock.parameters == parameters, "{version:?}: {stock:?}\n{ours:?}");
        }
        peers.recipient = Peers::recipient(Plugin::Stock, &peers.proxy)?;
        for version in [Version::V3, Version::V4] {
            told_in(version, &mut peers).with_context(|| format!("stock, {version:?}"))?;
        }
        Ok(())
    });
}

fn told_in_each_version(peers: &mut Peers) -> Result<Vec<Traffic>> {
    VERSIONS
        .into_iter()
        .map(|version| told_in(version, peers).with_context(|| format!("{version:?}")))
        .collect()
}

fn told_in(version: Version, peers: &mut Peers) -> Result<Traffic> {
    peers.proxy.reset()?;
    peers.mark(&format!("{version:?} {:?}", peers.recipient.plugin()))?;
    peers.proxy.limit_version(version);
    if version == Version::V1 && peers.recipient.plugin() == Plugin::Ours {
        // The oldest donors do so. The stock recipient takes the locators for the end of the
        // parameters.
        peers.proxy.locators_first();
    }
    let report = peers.copy(Tls::Disabled)?;
    succeeded(&report, peers.proxy.port(), false)?;
    let traffic = peers.proxy.traffic();
    ensure!(traffic.version == Some(version), "{:?}", traffic.version);
    let (told, untold) = parameters(version);
    for (codes, expected) in [(told, true), (untold, false)] {
        for &code in codes {
            let times = traffic.parameters_of(code);
            ensure!((times > 0) == expected, "{times} times {code:?}");
        }
    }
    Ok(traffic)
}
