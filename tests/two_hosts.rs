// SPDX-License-Identifier: GPL-2.0-only

//! Clones between two machines: donor and recipient in network namespaces of their own, with a
//! cable of 1 Gbit/s between them where the kernel can limit it. Neither side sees the other one as
//! a neighbour, so data takes the ways that it takes in production.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::clone::{self, Report, Statement, Tls};
use clone_testkit::mysqld::Builder;
use clone_testkit::{Mysqld, Plugin, check, dataset, hosts, skip, verify};

fn server(name: &str, plugin: Plugin) -> Builder {
    Mysqld::builder().name(name).plugin(plugin)
}

/// Our plugin at both ends, with TLS and without, and at either end beside the stock one.
#[test]
fn data_is_the_same() {
    check(|| {
        let [donors, recipients] = match hosts::pair() {
            Ok(hosts) => hosts,
            Err(error) => skip!("no two hosts: {error:#}"),
        };
        if let Err(error) = donors.limit(1000) {
            println!("the network is not limited: {error:#}");
        }
        let ours = Plugin::under_test()?;
        for (donors_plugin, recipients_plugin, tls) in [
            (ours, ours, &[Tls::Disabled, Tls::Required] as &[_]),
            (ours, Plugin::Stock, &[Tls::Disabled]),
            (Plugin::Stock, ours, &[Tls::Disabled]),
        ] {
            let donor = server("donor", donors_plugin).at(&donors).start()?;
            dataset::load_small(&donor)?;
            clone::make_donor(&donor)?;
            let mut recipient = server("recipient", recipients_plugin).at(&recipients).start()?;
            clone::allow_donor(&recipient, &donor)?;
            for tls in tls {
                let directory = recipient.scratch("clone");
                let statement = Statement::instance(&donor).into_directory(&directory).tls(*tls);
                let report = clone::run(&mut recipient, &statement)?;
                assert_eq!(report.status.source, format!("192.0.2.1:{}", donor.port()));
                // Whatever the two servers' file systems could share: data comes by the cable, but
                // for zeros. AUTO may compress the rest.
                let (data, network) = (report.data(), report.network());
                assert!(network > data / 30, "{network} of {data} bytes over the network");
                let clone = server("clone", recipients_plugin).adopt(&directory).start()?;
                verify::assert_sound(&clone)?;
                verify::assert_equal(&donor, &clone)?;
            }
        }
        Ok(())
    });
}

/// Over a slow network, blocks are compressed unless somebody forbids that. Both servers say so.
#[test]
fn a_slow_network_is_compressed_for() {
    check(|| {
        let [donors, recipients] = match hosts::pair() {
            Ok(hosts) => hosts,
            Err(error) => skip!("no two hosts: {error:#}"),
        };
        if let Err(error) = donors.limit(200) {
            skip!("the network cannot be limited: {error:#}");
        }
        let ours = Plugin::under_test()?;
        if ours == Plugin::Stock {
            skip!("the stock plugin compresses when it is told to");
        }
        let donor = server("donor", ours).at(&donors).start()?;
        clone::make_donor(&donor)?;
        load_words(&donor)?;
        let mut recipient = server("recipient", ours).at(&recipients).start()?;
        clone::allow_donor(&recipient, &donor)?;
        let clone = |recipient: &mut Mysqld, tls| -> Result<Report> {
            let directory = recipient.scratch("clone");
            let statement = Statement::instance(&donor).into_directory(&directory).tls(tls);
            let report = clone::run(recipient, &statement)?;
            std::fs::remove_dir_all(&directory)?;
            Ok(report)
        };
        for tls in [Tls::Disabled, Tls::Required] {
            let report = clone(&mut recipient, tls)?;
            let (data, network) = (report.data(), report.network());
            ensure!(network < data * 7 / 10, "{network} of {data} bytes over the network, {tls:?}");
        }
        for (server, what) in [(&donor, "sent as"), (&recipient, "came as")] {
            let log = server.log()?;
            let mut lines = log.lines().filter(|line| line.contains("Compression AUTO: "));
            ensure!(lines.all(|line| line.contains(what) && line.contains("[Note]")), "{log}");
            ensure!(
                log.matches("Compression AUTO: ").count() == 2,
                "one line for each clone: {log}"
            );
        }
        donor.session()?.run("SET GLOBAL clone_compression_max_cpu = 0")?;
        let report = clone(&mut recipient, Tls::Disabled)?;
        ensure!(report.network() > report.data() / 2, "no processor time, and compressed");
        donor.session()?.run("SET GLOBAL clone_compression_max_cpu = DEFAULT")?;
        recipient.session()?.run("SET GLOBAL clone_compression = OFF")?;
        let report = clone(&mut recipient, Tls::Disabled)?;
        ensure!(report.network() > report.data() / 2, "compressed against the variable");
        Ok(())
    });
}

/// About 80 MiB of rows that shrink to less than half.
fn load_words(donor: &Mysqld) -> Result<()> {
    let mut session = donor.session()?;
    session.run_all([
        "SET SESSION sql_log_bin = 0, cte_max_recursion_depth = 1000000",
        "CREATE DATABASE words",
        "CREATE TABLE words.t (id INT PRIMARY KEY, body TEXT NOT NULL)",
        "INSERT INTO words.t WITH RECURSIVE s (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s WHERE id < 50000) \
         SELECT id, CONCAT(REPEAT(CONCAT('Order ', id, ' of customer ', id % 977, '; '), 30), SHA2(id, 512), \
         SHA2(id + 1, 512)) FROM s",
        "SET GLOBAL innodb_fast_shutdown = 0",
    ])?;
    session.run("FLUSH TABLES words.t FOR EXPORT")?;
    session.run("UNLOCK TABLES")
}
