// SPDX-License-Identifier: GPL-2.0-only

//! Clones between two machines: donor and recipient in network namespaces of their own, with a
//! cable of 1 Gbit/s between them where the kernel can limit it. Neither side sees the other one as
//! a neighbour, so data takes the ways that it takes in production.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clone_testkit::clone::{self, Statement, Tls};
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
                // for zeros.
                let (data, network) = (report.data(), report.network());
                assert!(network > data / 8, "{network} of {data} bytes over the network");
                let clone = server("clone", recipients_plugin).adopt(&directory).start()?;
                verify::assert_sound(&clone)?;
                verify::assert_equal(&donor, &clone)?;
            }
        }
        Ok(())
    });
}
