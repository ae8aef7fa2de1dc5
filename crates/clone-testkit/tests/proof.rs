// SPDX-License-Identifier: GPL-2.0-only

//! The proofs notice what they are there to notice: a proof that cannot fail proves nothing.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clone_testkit::clone::{self, Statement, Status};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::writer::{self, Load, Writers};
use clone_testkit::{Mysqld, Plugin, check, dataset, verify};

/// The stock plugin: these tests are not about the plugin.
fn stock(name: &str) -> clone_testkit::mysqld::Builder {
    Mysqld::builder().name(name).plugin(Plugin::Stock)
}

#[test]
fn changed_things_are_found() {
    check(|| {
        let mut donor = stock("donor").start()?;
        dataset::load_small(&donor)?;
        let directory = donor.scratch("clone");
        clone::run(&mut donor, &Statement::local(&directory))?;
        let clone = stock("clone").adopt(&directory).start()?;
        verify::assert_equal(&donor, &clone)?;
        writer::check_invariants(&mut clone.session()?)?;

        let mut session = clone.session()?;
        for (change, found) in [
            ("UPDATE shop.customers SET photo = 'x' WHERE id = 7", "rows of `shop`.`customers`"),
            ("UPDATE shop.places SET id = 100000 WHERE id = 5", "rows of `shop`.`places`"),
            ("DELETE FROM shop.visits LIMIT 1", "rows of `shop`.`visits`"),
            ("ALTER TABLE shop.orders DROP KEY by_placed", "definition of `shop`.`orders`"),
            ("DROP TABLE shop.audit", "definition of `shop`.`audit`"),
            ("CREATE TABLE bank.more (id INT)", "definition of `bank`.`more`"),
            ("DROP PROCEDURE shop.pay", "routine PROCEDURE shop.pay"),
            ("DROP EVENT shop.yearly", "event shop.yearly"),
            ("DROP VIEW shop.open_orders", "view shop.open_orders"),
            ("GRANT SELECT ON bank.* TO shop_writer", "rows of `mysql`.`db`"),
            ("ALTER TABLESPACE general_one RENAME TO general_two", "tablespace general_one"),
        ] {
            session.run(change)?;
            let error = verify::assert_equal(&donor, &clone).unwrap_err().to_string();
            assert!(error.contains(found), "not found: {change}\n{error}");
        }

        session.run("UPDATE bank.accounts SET balance = balance + 1 WHERE id = 3")?;
        let error = writer::check_invariants(&mut session).unwrap_err().to_string();
        assert_eq!(error, "the accounts hold 400001 together instead of 400000");
        session.run("UPDATE bank.accounts SET balance = balance - 1 WHERE id = 4")?;
        let error = writer::check_invariants(&mut session).unwrap_err().to_string();
        assert_eq!(error, "account 3 holds 1001, but the ledger says 1000");
        Ok(())
    });
}

#[test]
fn wrong_coordinates_are_found() {
    check(|| {
        let mut donor = stock("donor").start()?;
        dataset::load_small(&donor)?;
        replica::make_source(&donor)?;
        let load = Load { threads: 1, ..Load::default() };
        let writers = Writers::start(&donor, load)?;
        writers.await_transactions(20)?;
        let directory = donor.scratch("clone");
        clone::run(&mut donor, &Statement::local(&directory))?;
        let clone = stock("clone").adopt(&directory).start()?;
        let status = clone::status(&mut clone.session()?)?.unwrap();
        writers.await_transactions(20)?;
        writers.stop()?;

        // The position of the transaction after the next.
        replica::check_coordinates(&donor, &status)?;
        let events: Vec<(String, u64, String, u64, u64, String)> =
            donor.session()?.rows(format!(
                "SHOW BINLOG EVENTS IN '{}' FROM {}",
                status.binlog_file, status.binlog_position
            ))?;
        let mut starts = events.iter().filter(|event| event.2 == "Gtid").map(|event| event.1);
        assert_eq!(starts.next(), Some(status.binlog_position));
        let later = Status { binlog_position: starts.next().unwrap(), ..status.clone() };
        let error = replica::check_coordinates(&donor, &later).unwrap_err();
        assert!(error.to_string().contains("but the clone has"), "{error}");

        // A replica that starts there lacks a transaction, which no later one makes good.
        clone.session()?.run("SET GLOBAL innodb_lock_wait_timeout = 1")?;
        replica::attach(&clone, &donor, &later, StartFrom::File)?;
        let executed: String = donor.session()?.one("SELECT @@GLOBAL.gtid_executed")?;
        let last = executed.rsplit('-').next().unwrap();
        clone_testkit::until("the last transaction", std::time::Duration::from_secs(60), || {
            clone.session()?.first::<u32>(format!(
                "SELECT 1 WHERE GTID_SUBSET(CONCAT(SUBSTRING_INDEX('{executed}', ':', 1), ':{last}'), \
                 @@GLOBAL.gtid_executed)"
            ))
        })?;
        let error = verify::assert_equal(&donor, &clone).unwrap_err().to_string();
        assert!(error.contains("rows of `bank`.`ledger`"), "{error}");
        Ok(())
    });
}
